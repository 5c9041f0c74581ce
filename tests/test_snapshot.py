"""A process's view of a switch: how stores are followed, and what the view says while they fail."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_maintenance import (
    BackendUnavailable,
    CorruptState,
    Knowledge,
    MaintenanceMode,
    MaintenanceState,
    OutcomeUnknown,
    SwitchStatus,
    VersionConflict,
    background,
    snapshot,
)
from fastapi_maintenance.backends import MemoryBackend
from fastapi_maintenance.backends.base import FollowedBackend
from fastapi_maintenance.snapshot import BooleanView, FollowedView, MemoryView, View, view_of
from fastapi_maintenance.state import Change, Hold, set_mode

from .scripts import output_of
from .traffic import until
from .users_backends import Slow

pytestmark = pytest.mark.anyio

NOW = datetime.now(UTC)
ON, OFF = MaintenanceMode.ON, MaintenanceMode.OFF


def store(mode: MaintenanceMode, **more: Any) -> Change:
    return set_mode(mode, now=NOW, **more)


async def test_a_backend_has_one_view() -> None:
    """Whoever uses the backend shares what is known of it."""
    for backend, kind in ((Slow(), BooleanView), (MemoryBackend(), MemoryView), (Store(), FollowedView)):
        assert view_of(backend) is view_of(backend)
        assert isinstance(view_of(backend), kind)
    assert view_of(Slow()) is not view_of(Slow())


async def test_the_view_of_a_whole_state_adds_nothing() -> None:
    """It is read without I/O, and what changes it is the backend's own."""
    memory = MemoryBackend(True)
    view = view_of(memory)
    assert view.peek() is memory.peek()
    assert await view.read() is memory.peek()
    assert (await view.apply(store(OFF))) is memory.peek()
    assert view.read_blocking() is memory.peek()
    view.start(memory)
    view.leave(memory)
    assert view.status() == SwitchStatus(Knowledge.READY, version=1, age_seconds=0.0)


async def test_a_whole_state_has_to_come_from_somewhere() -> None:
    """A backend that keeps one, is not followed and does not tell it, says nothing at all."""

    class Mute(MemoryBackend):
        def peek(self) -> Any:
            return None

    with pytest.raises(TypeError, match=r"its peek\(\) has to return the state"):
        await view_of(Mute()).read()


# Followed stores


class Store(FollowedBackend):
    """A store that has and does what the test says, and pushes what the test pushes."""

    def __init__(
        self, stored: MaintenanceState | Exception | None = None, *, pushes: bool = True, **options: Any
    ) -> None:
        defaults = {"poll_seconds": 3600, "timeout_seconds": 60, "init_timeout": 3600}
        super().__init__(**defaults | options)
        self.stored = stored
        self.pushes = pushes
        self.loads = self.listens = self.disconnects = 0
        self.noted = 0
        """Which reading was the last that the view has taken note of."""
        self.applied: list[Change] = []
        self.apply_fault: Exception | None = None
        self.may_load, self.may_apply, self.is_lost = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.may_load.set()
        self.may_apply.set()
        self.heard: Callable[[MaintenanceState | None], None] | None = None
        self.was_cancelled = False

    def __repr__(self) -> str:
        return "<Store>"

    async def load(self) -> MaintenanceState | None:
        self.loads += 1
        stored = self.stored  # as it is when the store is asked, however long the answer takes
        await self.may_load.wait()
        if isinstance(stored, Exception):
            raise stored
        return stored

    async def apply(self, change: Change) -> MaintenanceState:
        self.applied.append(change)
        if self.apply_fault is not None:
            raise self.apply_fault
        before = self.stored if isinstance(self.stored, MaintenanceState) else MaintenanceState()
        self.stored = after = change.applied_once_to(before, NOW)
        try:
            await self.may_apply.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        return after

    async def listen(self, heard: Callable[[MaintenanceState | None], None]) -> None:
        self.listens += 1
        if not self.pushes:
            return
        self.heard = heard
        heard(None)
        await self.is_lost.wait()
        self.is_lost.clear()
        raise BackendUnavailable(repr(self), "the connection was lost")

    async def disconnect(self) -> None:
        self.disconnects += 1

    async def push(self, state: MaintenanceState | None) -> None:
        """Push a state to the process, or that something may have been missed."""
        assert self.heard is not None
        await there(self.heard, state)

    async def is_read(self) -> None:
        """Have the store read once more, and wait until that was taken note of."""
        loads: list[int] = []

        def push() -> None:
            assert self.heard is not None
            loads.append(self.loads)
            self.heard(None)

        await there(push)
        await until(lambda: self.noted > loads[0])


class Clock:
    """The clock that tells how old things are."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


async def there(function: Callable[..., object], *arguments: object) -> None:
    """Call a function on the background thread."""

    async def call() -> None:
        function(*arguments)

    await background.run(call())


def at(version: int, mode: MaintenanceMode = ON, *, epoch: str = "e", **more: Any) -> MaintenanceState:
    return MaintenanceState(epoch=epoch, version=version, mode=mode, **more)


def shown(view: View) -> tuple[MaintenanceMode, int]:
    state = view.peek()
    assert state is not None
    return state.mode, state.version


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Store]]:
    """Return what makes stores, which are followed to the end of the test at most."""
    made: list[Store] = []
    pause = FollowedView._pause

    def noting_pause(view: FollowedView) -> float:
        backend = view._backend
        if isinstance(backend, Store):  # not what an earlier test left
            backend.noted = backend.loads
        return pause(view)

    monkeypatch.setattr(FollowedView, "_pause", noting_pause)

    def make(*arguments: Any, **options: Any) -> Store:
        made.append(Store(*arguments, **options))
        return made[-1]

    yield make
    for one in made:
        if one.stop_following is not None:
            background.submit(one.stop_following()).result(20)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clock by which views tell ages."""
    clock = Clock()
    monkeypatch.setattr(snapshot, "time", clock)
    return clock


Make = Callable[..., Store]
both_loops = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


# The first answer


async def test_a_store_is_left_alone_until_somebody_wants_to_know(make: Make) -> None:
    """An app can be built while the store is down; starting it, or its first request, begins to follow."""
    one = make(at(1))
    view = view_of(one)
    assert view.peek() is None
    assert view.status() == SwitchStatus(Knowledge.NOT_READY)
    assert (one.loads, one.listens) == (0, 0)
    view.start(one)
    await until(view.peek)
    assert (one.listens, one.stored) == (1, view.peek())


@both_loops
async def test_who_comes_first_waits_for_the_first_answer(make: Make) -> None:
    """All of them for the same one; nobody is let through unasked."""
    one = make(at(1))
    await there(one.may_load.clear)
    states: list[MaintenanceState] = []

    async def ask() -> None:
        states.append(await view_of(one).read())

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(ask)
        await until(lambda: one.loads)
        await anyio.sleep(0.02)
        assert states == []
        await there(one.may_load.set)
    assert states == [at(1)] * 5
    assert one.loads <= 2  # the second one because the subscription was confirmed
    assert view_of(one).status().knowledge is Knowledge.READY
    assert await view_of(one).read() is view_of(one).peek()


def test_code_without_an_event_loop_waits_as_well(make: Make) -> None:
    """Job workers and scripts get the same answer."""
    view = view_of(make(at(1)))
    assert view.read_blocking() == at(1)
    assert view.read_blocking() is view.peek()


@pytest.mark.parametrize("initial", list(MaintenanceMode))
async def test_a_store_that_has_nothing_yet_counts_as_initial(initial: MaintenanceMode, make: Make) -> None:
    """It answered, so it is known that nothing was ever set."""
    one = make(None, initial=initial)
    assert await view_of(one).read() == MaintenanceState(mode=initial)
    status = view_of(one).status()
    assert (status.knowledge, status.version, status.last_error) == (Knowledge.READY, None, None)


@both_loops
@pytest.mark.parametrize("initial", [ON, OFF])
async def test_a_store_that_is_silent_counts_as_initial_after_some_time(initial: MaintenanceMode, make: Make) -> None:
    """Requests go on without it after ``init_timeout``; its answer counts whenever it comes."""
    one = make(at(1, MaintenanceMode.READ_ONLY), initial=initial, init_timeout=0.02)
    await there(one.may_load.clear)
    view = view_of(one)
    assert await view.read() == MaintenanceState(mode=initial)
    assert view.status() == SwitchStatus(Knowledge.ERROR)
    await there(one.may_load.set)
    await until(lambda: shown(view) == (MaintenanceMode.READ_ONLY, 1))
    assert view.status().knowledge is Knowledge.READY


async def test_a_store_that_is_down_counts_as_initial_after_some_time(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """What is wrong can be asked, and is logged once; so is that it is over."""
    one = make(BackendUnavailable("<Store>", "down"), initial=True, init_timeout=0.02)
    view = view_of(one)
    assert (await view.read()).mode is ON
    await one.is_read()
    assert view.status() == SwitchStatus(Knowledge.ERROR, last_error="<Store> is not available: down")
    one.stored = at(1, OFF)
    await one.is_read()
    assert shown(view) == (OFF, 1)
    failed, came_back = told(caplog)
    assert "can't be read" in failed
    assert failed.endswith(": <Store> is not available: down")
    assert came_back == "<Store> can be read again"


async def test_an_answer_in_time_leaves_nothing_for_later(make: Make) -> None:
    """That ``init_timeout`` ends then changes nothing."""
    one = make(at(1), init_timeout=0.02)
    assert (await view_of(one).read()).mode is ON
    await anyio.sleep(0.05)
    assert shown(view_of(one)) == (ON, 1)


@both_loops
async def test_a_waiting_request_that_is_cancelled_leaves_the_others_alone(make: Make) -> None:
    """A client that goes away takes nobody with it."""
    one = make(at(1))
    await there(one.may_load.clear)
    states: list[MaintenanceState] = []
    gone = anyio.CancelScope()

    async def give_up() -> None:
        with gone:
            await view_of(one).read()

    async def ask() -> None:
        states.append(await view_of(one).read())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(give_up)
        tasks.start_soon(ask)
        await until(lambda: one.loads)
        gone.cancel()
        await anyio.sleep(0.01)
        await there(one.may_load.set)
    assert gone.cancelled_caught
    assert states == [at(1)]
    assert (await view_of(one).read()).mode is ON


# Following


async def test_a_store_is_read_again_and_again(make: Make) -> None:
    """That is all that a store needs which pushes nothing."""
    one = make(at(1, OFF), pushes=False, poll_seconds=0.01)
    view = view_of(one)
    assert (await view.read()).mode is OFF
    one.stored = at(2)
    await until(lambda: shown(view) == (ON, 2))
    assert one.listens == 1


async def test_what_is_pushed_counts_at_once(make: Make) -> None:
    """If it is newer than what is known; nothing needs to be read for it."""
    one = make(at(3, OFF))
    view = view_of(one)
    await view.read()
    await one.is_read()
    loads = one.loads
    await one.push(at(4, ON))
    assert shown(view) == (ON, 4)
    await one.push(at(3, OFF))
    assert shown(view) == (ON, 4)
    await one.push(at(4, ON, reason="the same, told again"))
    assert shown(view) == (ON, 4)
    await one.push(at(6, OFF))
    assert shown(view) == (OFF, 6)
    await one.push(at(5, ON))
    assert shown(view) == (OFF, 6)
    assert one.loads == loads


async def test_what_is_pushed_from_another_life_of_the_store_is_settled_by_reading(make: Make) -> None:
    """Versions of two documents can't be compared."""
    one = make(at(5, OFF))
    view = view_of(one)
    await view.read()
    await one.is_read()
    one.stored = at(2, ON, epoch="new")
    await one.push(at(1, ON, epoch="new"))
    await until(lambda: shown(view) == (ON, 2))
    await one.push(at(9, OFF, epoch="e"))
    await one.is_read()
    assert shown(view) == (ON, 2)


async def test_what_is_pushed_before_the_first_answer_is_settled_by_reading(make: Make) -> None:
    """It may be old."""
    one = make(at(5, OFF))
    await there(one.may_load.clear)
    view = view_of(one)
    view.start(one)
    await until(lambda: one.loads)
    await one.push(at(4, ON))
    assert view.peek() is None
    await there(one.may_load.set)
    await until(view.peek)
    assert shown(view) == (OFF, 5)


async def test_a_reading_that_was_overtaken_does_not_count(make: Make) -> None:
    """It began before what was pushed meanwhile."""
    one = make(at(1, OFF))
    view = view_of(one)
    await view.read()
    await one.is_read()
    await there(one.may_load.clear)
    loads = one.loads
    await one.push(None)
    await until(lambda: one.loads > loads)
    one.stored = at(2, ON)
    await one.push(at(2, ON))
    await there(one.may_load.set)
    await one.is_read()
    assert shown(view) == (ON, 2)


@pytest.mark.parametrize("before", [None, at(7, OFF, epoch="old")])
async def test_a_reading_that_was_overtaken_by_another_life_of_the_store_is_done_again(
    before: MaintenanceState | None, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """What this process stored meanwhile counts from then on, and it is no loss that there was nothing before."""
    one = make(before)
    view = view_of(one)
    await view.read()
    await one.is_read()
    await there(one.may_load.clear)
    loads = one.loads
    await one.push(None)
    await until(lambda: one.loads > loads)
    one.stored = None  # emptied, and then set anew
    change = store(ON)
    await view.apply(change)
    seen: list[tuple[MaintenanceMode, int]] = []
    original = view._show  # type: ignore[attr-defined]

    def show(state: MaintenanceState) -> None:
        seen.append((state.mode, state.version))
        original(state)

    view._show = show  # type: ignore[attr-defined]
    await there(one.may_load.set)
    await until(lambda: one.loads > loads + 1)
    await one.is_read()
    assert set(seen) == {(ON, 1)}
    assert shown(view) == (ON, 1)
    assert told(caplog) == []


async def test_a_store_that_went_back_is_believed(make: Make) -> None:
    """A backup was restored: what is read, and was not overtaken, is what the store has."""
    one = make(at(5, OFF))
    view = view_of(one)
    await view.read()
    one.stored = at(3, ON)
    await one.is_read()
    assert shown(view) == (ON, 3)


async def test_a_lost_subscription_is_made_again(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """What was pushed meanwhile is read; nothing has failed as long as the store can be read."""
    one = make(at(1, OFF))
    view = view_of(one)
    await view.read()
    for number in (2, 3):
        await one.is_read()
        one.stored = at(number, ON)
        await there(one.is_lost.set)
        await until(lambda number=number: shown(view) == (ON, number))  # type: ignore[misc]
        await until(lambda number=number: one.listens == number)  # type: ignore[misc]
    await one.push(at(4, OFF))
    assert shown(view) == (OFF, 4)
    assert told(caplog) == []


async def test_a_store_that_can_not_push_at_the_moment_is_polled(make: Make) -> None:
    """It is asked again and again whether it can."""

    class Deaf(Store):
        async def listen(self, heard: Callable[[MaintenanceState | None], None]) -> None:
            self.listens += 1
            raise BackendUnavailable(repr(self), "no subscriptions today")

    one = Deaf(at(1, OFF), poll_seconds=0.01)
    view = view_of(one)
    await view.read()
    one.stored = at(2, ON)
    await until(lambda: one.listens > 2 and shown(view) == (ON, 2))
    await one.aclose()


@given(st.integers(1, 10_000))
def test_attempts_come_less_often_and_not_all_at_once(failures: int) -> None:
    """Soon after the first failure, and never so late that the store's return goes unnoticed for 2 s."""
    pauses = [snapshot._pause_after(failures) for _ in range(20)]
    assert all(0.025 <= pause <= 1 for pause in pauses)
    assert len(set(pauses)) > 1
    if failures >= 5:
        assert min(pauses) >= 0.5
    if failures == 1:
        assert max(pauses) <= 0.1


# Failures


async def test_a_store_that_fails_leaves_the_last_known_state(
    make: Make, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """For ever, if nothing else was asked for; each kind of failure and its return are logged once each."""
    one = make(at(1, ON))
    view = view_of(one)
    await view.read()
    await one.is_read()
    one.stored = BackendUnavailable("<Store>", "down")
    await one.is_read()
    clock.now += 1_000_000
    for failure in CorruptState("<Store>", "garbage"), one.stored, CorruptState("<Store>", "garbage"):
        one.stored = failure
        await one.is_read()
    assert shown(view) == (ON, 1)
    assert view.status() == SwitchStatus(
        Knowledge.STALE,
        version=1,
        age_seconds=1_000_000,
        last_error="<Store> has no readable maintenance state: garbage",
    )
    one.stored = at(2, OFF)
    await one.is_read()
    assert shown(view) == (OFF, 2)
    assert view.status() == SwitchStatus(Knowledge.READY, version=2, age_seconds=0)
    assert told(caplog) == [
        "the maintenance state can't be read, the switch stays on: <Store> is not available: down",
        "the maintenance state can't be read, the switch stays on: <Store> has no readable maintenance state: garbage",
        "<Store> can be read again",
    ]


async def test_whatever_a_store_raises_is_contained(make: Make) -> None:
    """A bug of a backend is a failure of its store; an error without words is told by its name."""
    one = make(at(1, ON))
    view = view_of(one)
    await view.read()
    one.stored = LookupError()
    await one.is_read()
    assert shown(view) == (ON, 1)
    assert view.status().last_error == "<Store> is not available: LookupError()"


async def test_a_store_that_does_not_answer_is_given_up(make: Make) -> None:
    """Backends have their own limits; one that forgets it would never be read again."""
    one = make(at(1, ON), timeout_seconds=0.01)
    view = view_of(one)
    await view.read()
    await one.is_read()
    await there(one.may_load.clear)
    await one.push(None)
    await until(lambda: view.status().knowledge is Knowledge.STALE)
    assert view.status().last_error == "<Store> is not available: no answer within 0.02 s"
    one.stored = at(2, OFF)
    await there(one.may_load.set)
    await until(lambda: shown(view) == (OFF, 2))


LAST_KNOWN = [
    at(1, ON),
    at(1, OFF),
    at(1, MaintenanceMode.READ_ONLY, reason="new disks"),
    at(1, ON, until=NOW + timedelta(hours=1)),
    at(1, OFF, holds={"a": Hold(kind="on")}),
    at(1, ON, holds={"a": Hold(kind="off")}),
]


@pytest.mark.parametrize("last_known", LAST_KNOWN)
@pytest.mark.parametrize(("policy", "mode"), [("open", OFF), ("closed", ON)])
async def test_a_state_that_is_too_old_counts_as_it_was_asked_for(
    policy: str,
    mode: MaintenanceMode,
    last_known: MaintenanceState,
    make: Make,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever it was, and whenever it would have ended by itself; each turn is logged once."""
    one = make(last_known, on_backend_error=policy, max_stale=60)
    view = view_of(one)
    await view.read()
    await one.is_read()
    one.stored = BackendUnavailable("<Store>", "down")
    clock.now += 59
    await one.is_read()
    assert view.peek() == last_known
    clock.now += 1
    for _ in range(2):
        await one.is_read()
        state = view.peek()
        assert state is not None
        assert state.mode_at(NOW) is state.mode_at(NOW + timedelta(days=1000)) is mode
        assert view.status().knowledge is Knowledge.STALE
    one.stored = last_known
    await one.is_read()
    assert view.peek() == last_known
    failed, *turns, came_back = told(caplog)
    assert "can't be read" in failed
    assert came_back == "<Store> can be read again"
    already = at(1, mode) == last_known
    assert turns == ([] if already else [f"<Store> has failed for 60 s: the switch counts as {policy}"])


async def test_a_store_is_asked_again_when_its_state_will_be_too_old(make: Make, clock: Clock) -> None:
    """And not some time later, however seldom it is asked by then."""
    one = make(at(1, ON), on_backend_error="open", max_stale=60)
    view = view_of(one)
    await view.read()
    await one.is_read()
    one.stored = BackendUnavailable("<Store>", "down")
    for _ in range(6):
        await one.is_read()
    assert isinstance(view, FollowedView)
    for seconds, least, most in ((0, 0.5, 1.0), (59.9, 0.09, 0.11), (60, 0.5, 1.0)):
        clock.now = 1000.0 + seconds
        assert least <= view._pause() <= most


@pytest.mark.parametrize("policy", ["open", "closed"])
async def test_a_store_that_never_answered_has_no_age(policy: str, make: Make, clock: Clock) -> None:
    """So ``initial`` counts, and nothing else."""
    one = make(BackendUnavailable("<Store>", "down"), on_backend_error=policy, max_stale=1, init_timeout=0.01)
    for initial in (ON, OFF):
        one.initial = initial
        await one.aclose()
        assert (await view_of(one).read()).mode is initial
        clock.now += 1000
        await one.is_read()
        assert shown(view_of(one)) == (initial, 0)


async def test_a_store_that_lost_its_state_has_failed(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Data loss is no "off"; setting the mode anew, here or elsewhere, goes on from there."""
    one = make(at(5, ON))
    view = view_of(one)
    await view.read()
    await one.is_read()
    one.stored = None
    await one.is_read()
    await one.is_read()
    assert shown(view) == (ON, 5)
    assert view.status().knowledge is Knowledge.STALE
    assert "<Store> had a state and has none now" in (view.status().last_error or "")
    await view.apply(store(OFF))
    assert shown(view) == (OFF, 1)
    one.stored = None
    await one.is_read()
    assert shown(view) == (OFF, 1)
    one.stored = at(1, ON, epoch="elsewhere")
    await one.is_read()
    assert shown(view) == (ON, 1)
    assert [message.partition(": set the mode")[0] for message in told(caplog)] == [
        "the maintenance state can't be read, the switch stays on: <Store> had a state and has none now",
        "<Store> can be read again",
        "the maintenance state can't be read, the switch stays off: <Store> had a state and has none now",
        "<Store> can be read again",
    ]


async def test_a_store_that_comes_back_empty_is_logged_once(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """After an outage as well: the worker says why it stays closed, and by what it opens."""
    one = make(at(5, ON))
    view = view_of(one)
    await view.read()
    await one.is_read()
    for failure in BackendUnavailable("<Store>", "down"), None, BackendUnavailable("<Store>", "down"), None:
        one.stored = failure
        await one.is_read()
        await one.is_read()
    assert shown(view) == (ON, 5)
    outage, emptied = told(caplog)
    assert outage == "the maintenance state can't be read, the switch stays on: <Store> is not available: down"
    assert emptied == (
        "the maintenance state can't be read, the switch stays on: <Store> had a state and has none now: "
        "set the mode again, on or off, to go on from there"
    )


# Changes


@both_loops
async def test_a_change_counts_here_as_soon_as_it_is_made(make: Make) -> None:
    """Without the store being read again."""
    one = make(at(1, OFF))
    view = view_of(one)
    await view.read()
    await one.is_read()
    loads = one.loads
    state = await view.apply(store(ON))
    assert (state.mode, state.version) == (ON, 2)
    assert view.peek() is state
    assert one.loads == loads


async def test_a_renewal_counts_here_although_it_is_no_new_version(make: Make) -> None:
    """Or a hold that is renewed would look as if it had expired, until the store is read again."""
    one = make(at(1, holds={"a": Hold(kind="on", expires_at=NOW + timedelta(minutes=1))}))
    view = view_of(one)
    await view.read()
    await one.is_read()
    later = Hold(kind="on", expires_at=NOW + timedelta(hours=1))
    state = await view.apply(Change(put_holds={"a": later}, is_renewal=True))
    assert (state.version, state.holds) == (1, {"a": later})
    assert view.peek() is state


@both_loops
async def test_a_change_does_not_need_the_store_to_be_followed(make: Make) -> None:
    """A script that sets a mode and ends follows nothing."""
    one = make(at(1, OFF))
    view = view_of(one)
    assert (await view.apply(store(ON))).version == 2
    assert view.peek() is None
    assert (one.loads, one.listens) == (0, 0)


async def test_the_answer_to_a_change_may_be_overtaken_as_well(make: Make) -> None:
    """By a later change of somebody else, which was pushed first."""
    one = make(at(1, OFF))
    view = view_of(one)
    await view.read()
    await one.is_read()
    await there(one.may_apply.clear)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(view.apply, store(ON))
        await until(lambda: one.applied)
        await one.push(at(3, OFF))
        await there(one.may_apply.set)
    assert shown(view) == (OFF, 3)


@pytest.mark.parametrize(
    "fault", [VersionConflict(1, 2), BackendUnavailable("<Store>", "down"), OutcomeUnknown("<Store>", "lost")]
)
@both_loops
async def test_a_change_that_was_not_made_says_so_and_changes_nothing(fault: Exception, make: Make) -> None:
    """The error is the store's own."""
    one = make(at(1, OFF))
    view = view_of(one)
    await view.read()
    one.apply_fault = fault
    with pytest.raises(type(fault)) as error:
        await view.apply(store(ON))
    assert error.value is fault
    assert shown(view) == (OFF, 1)
    assert view.status().knowledge is Knowledge.READY


@both_loops
async def test_a_change_whose_caller_is_cancelled_is_cancelled(make: Make) -> None:
    """The store is told; what became of it there is read later."""
    one = make(at(1, OFF))
    await there(one.may_apply.clear)
    view = view_of(one)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(view.apply, store(ON))
        await until(lambda: one.applied)
        tasks.cancel_scope.cancel()
    await until(lambda: one.was_cancelled)


# The end, and another beginning


@both_loops
async def test_a_backend_that_is_closed_is_not_followed_any_more(make: Make) -> None:
    """Nothing of it goes on; whoever asks later begins anew, with what the store has then."""
    one = make(at(1, ON), poll_seconds=0.005)
    view = view_of(one)
    await view.read()
    await one.aclose()
    assert one.disconnects == 1
    assert view.peek() is None
    assert view.status() == SwitchStatus(Knowledge.NOT_READY)
    loads = one.loads
    one.stored = at(2, OFF)
    await anyio.sleep(0.03)
    assert one.loads == loads
    assert await view.read() == at(2, OFF)
    await one.aclose()
    assert one.disconnects == 2


@both_loops
async def test_a_backend_that_nobody_used_can_be_closed(make: Make) -> None:
    """With a view or without one, and more than once."""
    one = make()
    await one.aclose()
    view_of(one)
    await one.aclose()
    await one.aclose()
    assert (one.loads, one.disconnects) == (0, 3)


async def test_a_store_that_lost_its_state_while_nobody_followed_has_nothing(make: Make) -> None:
    """Who begins anew has seen nothing."""
    one = make(at(5, ON))
    await view_of(one).read()
    await one.aclose()
    one.stored = None
    assert await view_of(one).read() == MaintenanceState()


@both_loops
async def test_a_request_that_waits_while_the_backend_is_closed_gets_a_right_answer(make: Make) -> None:
    """It begins anew, rather than take the store for off."""
    one = make(at(1, ON))
    await there(one.may_load.clear)
    states: list[MaintenanceState] = []

    async def ask() -> None:
        states.append(await view_of(one).read())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await until(lambda: one.loads)
        await one.aclose()
        await there(one.may_load.set)
    assert states == [at(1, ON)]


async def test_what_was_stopped_before_it_began_does_not_begin(make: Make) -> None:
    """Else nobody could stop it any more."""
    one = make(at(1, ON))
    view = view_of(one)

    async def start_and_stop() -> None:
        view.start(one)
        assert one.stop_following is not None
        await one.stop_following()

    await background.run(start_and_stop())
    await there(str)
    assert (one.loads, one.listens) == (0, 0)
    assert await view.read() == at(1, ON)
    assert one.listens == 1


def test_threads_that_come_together_follow_once(make: Make) -> None:
    """However many they are."""
    one = make(at(1, ON))
    view, barrier = view_of(one), threading.Barrier(8)
    states: list[MaintenanceState] = []

    def ask() -> None:
        barrier.wait()
        states.append(view.read_blocking())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states == [at(1, ON)] * 8
    assert one.listens == 1


FORK = """
import asyncio, os, sys
from pathlib import Path
from fastapi_maintenance.backends import LocalFileBackend
from fastapi_maintenance.snapshot import view_of

path = Path(sys.argv[1])
path.write_text("1")
backend = LocalFileBackend(path, poll_seconds=3600)
view = view_of(backend)
assert view.read_blocking().mode == "on"
child = os.fork()
if not child:
    assert view.peek() is None
    assert view.status().knowledge == "not_ready"
    path.write_text("0")
    assert view.read_blocking().mode == "off"
    assert view.peek().mode == "off"
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
assert view.peek().mode == "on"
asyncio.run(backend.aclose())
assert view.read_blocking().mode == "off"
print("done")
"""


def test_a_forked_child_knows_nothing_and_follows_by_itself(tmp_path: Path) -> None:
    """What its parent knew may be old, and the parent's thread is not there; the parent goes on as before."""
    assert output_of(FORK, tmp_path / "switch") == "done\n"


def test_a_fork_leaves_what_the_parent_used(make: Make) -> None:
    """The same in this process: tasks are kept and not ended, as they have the parent's connections."""
    one = make(at(1, ON))
    view = view_of(one)
    assert view.read_blocking() == at(1, ON)
    assert isinstance(view, FollowedView)
    tasks = view._tasks
    view.reset_after_fork()
    assert view.peek() is None
    assert snapshot._forgotten.pop() is tasks
    assert not any(task.done() for task in tasks)
    background.submit(background.cancelled(tasks)).result(20)


async def test_the_latest_state_needs_no_store(make: Make) -> None:
    """Before the first answer it is what counts without any."""
    view = view_of(make(at(1, ON)))
    assert view.latest().mode is OFF
    await view.read()
    assert view.latest().mode is ON


async def test_a_user_may_begin_twice(make: Make) -> None:
    """The store is followed once, and until that user leaves."""
    one = make(at(1, ON))
    view = view_of(one)
    view.start(one)
    view.start(one)
    await until(view.peek)
    assert one.listens == 1
