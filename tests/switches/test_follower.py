"""A process's view of a switch: how stores are followed, and what the view says while they fail."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
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
)
from fastapi_maintenance.backends import MemoryBackend
from fastapi_maintenance.backends.base import StoreBackend
from fastapi_maintenance.concurrency import io_thread
from fastapi_maintenance.model.change import Change, set_mode
from fastapi_maintenance.model.state import Hold
from fastapi_maintenance.stores import DocumentStore
from fastapi_maintenance.switches.views import follower
from fastapi_maintenance.switches.views.follower import StoreView
from fastapi_maintenance.switches.views.lookup import MemoryView, view_of
from fastapi_maintenance.switches.views.two_method import BooleanView
from fastapi_maintenance.switches.views.view import View
from tests.support.memory_store import MemoryStore
from tests.support.scripts import output_of
from tests.support.traffic import until
from tests.support.users_backends import Slow

pytestmark = pytest.mark.anyio

NOW = datetime.now(UTC)
ON, OFF = MaintenanceMode.ON, MaintenanceMode.OFF
KEY = "default"


def store(mode: MaintenanceMode, **more: Any) -> Change:
    return set_mode(mode, now=NOW, **more)


async def test_a_backend_has_one_view() -> None:
    """Whoever uses the backend shares what is known of it."""
    for backend, kind in ((Slow(), BooleanView), (MemoryBackend(), MemoryView), (Followed(), StoreView)):
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

    with pytest.raises(TypeError, match=r"its peek\(\) must return the state"):
        await view_of(Mute()).read()


# Followed stores


class Followed(StoreBackend):
    """A switch in a store of this process that has and does what the test says; nothing is read without a reason."""

    def __init__(
        self, stored: MaintenanceState | Exception | None = None, *, memory: MemoryStore | None = None, **options: Any
    ) -> None:
        self.memory = MemoryStore() if memory is None else memory
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.memory.before_write = self.may_answer.wait
        self.has(stored)
        super().__init__(self.memory, **{"poll_seconds": 3600, "timeout_seconds": 60, "init_timeout": 3600} | options)

    def has(self, stored: MaintenanceState | Exception | None) -> None:
        """Have somebody else write the document or remove it, without a push; or have the store fail."""
        if isinstance(stored, Exception):
            self.memory.before_read = raising(stored)
        else:
            self.memory.before_read = self.may_answer.wait
            self.memory.put(KEY, None if stored is None else stored.to_json())

    async def push(self) -> None:
        """Push to this process that something has changed."""
        await there(self.memory.push)

    async def is_read(self) -> None:
        """Read the store once more, as after a push, and wait until that was taken note of."""
        await io_thread.run(view_of(self)._poll())  # type: ignore[attr-defined]


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

    await io_thread.run(call())


def raising(error: Exception) -> Callable[[], object]:
    def fail() -> object:
        raise error

    return fail


def at(version: int, mode: MaintenanceMode = ON, *, epoch: str = "e", **more: Any) -> MaintenanceState:
    return MaintenanceState(epoch=epoch, version=version, mode=mode, **more)


def held(seconds: float, *, begin: datetime | None = None) -> MaintenanceState:
    """Return a state in which code holds the switch on for so many seconds from now, or from ``begin``."""
    expires_at = (begin or datetime.now(UTC)) + timedelta(seconds=seconds)
    return at(1, OFF, holds={"h": Hold(kind="on", expires_at=expires_at)})


def shown(view: View) -> tuple[MaintenanceMode, int]:
    state = view.peek()
    assert state is not None
    return state.mode, state.version


def shown_by(view: View) -> list[MaintenanceState]:
    """Return a list to which each state is added that the view shows from now on."""
    states: list[MaintenanceState] = []
    show = view._publish  # type: ignore[attr-defined]

    def note(state: MaintenanceState) -> None:
        states.append(state)
        show(state)

    view._publish = note  # type: ignore[attr-defined]
    return states


def mode_of(view: View) -> MaintenanceMode:
    """Return the mode by which requests of now are judged."""
    return view.latest().mode_at(datetime.now(UTC))


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]


@pytest.fixture
def make() -> Iterator[Callable[..., Followed]]:
    """Return what makes stores, which are followed to the end of the test at most."""
    made: list[Followed] = []

    def make(*arguments: Any, **options: Any) -> Followed:
        made.append(Followed(*arguments, **options))
        return made[-1]

    yield make
    for one in made:
        if one.stop_following is not None:
            io_thread.submit(one.stop_following()).result(20)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clock by which views tell ages."""
    clock = Clock()
    monkeypatch.setattr(follower, "time", clock)
    return clock


Make = Callable[..., Followed]
both_loops = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


# The first answer


async def test_a_store_is_left_alone_until_somebody_wants_to_know(make: Make) -> None:
    """An app can be built while the store is down; starting it, or its first request, begins to follow."""
    one = make(at(1))
    view = view_of(one)
    assert view.peek() is None
    assert view.status() == SwitchStatus(Knowledge.NOT_READY)
    assert (one.memory.reads, one.memory.watches) == (0, 0)
    view.start(one)
    await until(view.peek)
    assert (one.memory.watches, view.peek()) == (1, at(1))


@both_loops
async def test_who_comes_first_waits_for_the_first_answer(make: Make) -> None:
    """All of them for the same one; nobody is let through unasked."""
    one = make(at(1))
    await there(one.may_answer.clear)
    states: list[MaintenanceState] = []

    async def ask() -> None:
        states.append(await view_of(one).read())

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(ask)
        await until(lambda: one.memory.reads)
        await anyio.sleep(0.02)
        assert states == []
        await there(one.may_answer.set)
    assert states == [at(1)] * 5
    assert one.memory.reads <= 2  # the second one because the subscription was confirmed
    assert view_of(one).status().knowledge is Knowledge.READY
    assert await view_of(one).read() is view_of(one).peek()


def test_code_without_an_event_loop_waits_as_well(make: Make) -> None:
    """Job workers and scripts get the same answer."""
    view = view_of(make(at(1)))
    assert view.read_blocking() == at(1)
    assert view.read_blocking() is view.peek()


@pytest.mark.parametrize("initial", list(MaintenanceMode))
async def test_a_store_that_has_nothing_yet_counts_as_initial(initial: MaintenanceMode, make: Make) -> None:
    """It answered, so it is known that nothing was ever set; and nothing is put there."""
    one = make(None, initial=initial)
    assert await view_of(one).read() == MaintenanceState(mode=initial)
    status = view_of(one).status()
    assert (status.knowledge, status.version, status.last_error) == (Knowledge.READY, None, None)
    assert one.memory.documents == {}


@both_loops
@pytest.mark.parametrize("initial", [ON, OFF])
async def test_a_store_that_is_silent_counts_as_initial_after_some_time(initial: MaintenanceMode, make: Make) -> None:
    """Requests go on without it after ``init_timeout``; its answer counts whenever it comes."""
    one = make(at(1, MaintenanceMode.READ_ONLY), initial=initial, init_timeout=0.02)
    await there(one.may_answer.clear)
    view = view_of(one)
    assert await view.read() == MaintenanceState(mode=initial)
    assert view.status() == SwitchStatus(Knowledge.ERROR)
    await there(one.may_answer.set)
    await until(lambda: shown(view) == (MaintenanceMode.READ_ONLY, 1))
    assert view.status().knowledge is Knowledge.READY


async def test_a_store_that_is_down_counts_as_initial_after_some_time(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """What is wrong can be asked, and is logged once; so is that it is over."""
    one = make(BackendUnavailable("<store>", "down"), initial=True, init_timeout=0.02)
    view = view_of(one)
    assert (await view.read()).mode is ON
    await one.is_read()
    assert view.status() == SwitchStatus(Knowledge.ERROR, last_error="<store> is not available: down")
    one.has(at(1, OFF))
    await one.is_read()
    assert shown(view) == (OFF, 1)
    failed, came_back = told(caplog)
    assert "can't be read" in failed
    assert failed.endswith(": <store> is not available: down")
    assert came_back == "<store of default> can be read again"


async def test_an_answer_in_time_leaves_nothing_for_later(make: Make) -> None:
    """That ``init_timeout`` ends then changes nothing."""
    one = make(at(1), init_timeout=0.5)
    assert (await view_of(one).read()).mode is ON
    await anyio.sleep(0.6)
    assert shown(view_of(one)) == (ON, 1)


@both_loops
async def test_a_waiting_request_that_is_cancelled_leaves_the_others_alone(make: Make) -> None:
    """A client that goes away takes nobody with it."""
    one = make(at(1))
    await there(one.may_answer.clear)
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
        await until(lambda: one.memory.reads)
        gone.cancel()
        await anyio.sleep(0.01)
        await there(one.may_answer.set)
    assert gone.cancelled_caught
    assert states == [at(1)]
    assert (await view_of(one).read()).mode is ON


# Following


async def test_a_store_is_read_again_and_again(make: Make) -> None:
    """That is all that a store needs which pushes nothing."""
    one = make(at(1, OFF), poll_seconds=0.01)
    one.memory.pushes = False
    view = view_of(one)
    assert (await view.read()).mode is OFF
    one.has(at(2))
    await until(lambda: shown(view) == (ON, 2))
    assert one.memory.watches == 1


async def test_a_push_has_the_store_read(make: Make) -> None:
    """It carries nothing: the store is believed, whatever the versions; without a change nothing happens."""
    one = make(at(5, OFF))
    view = view_of(one)
    before = await view.read()
    for stored in at(6, ON), at(3, OFF), at(1, ON, epoch="set anew elsewhere"):
        one.has(stored)
        assert view.peek() is before
        await one.push()
        await until(lambda stored=stored: view.peek() == stored)  # type: ignore[misc]
        before = view.latest()
    reads = one.memory.reads
    await one.push()
    await until(lambda: one.memory.reads > reads)
    await one.is_read()
    assert view.peek() is before


async def test_a_flood_of_pushes_leads_to_few_readings(make: Make) -> None:
    """20 a second at most, and the last push has one after it."""
    one = make(at(1, OFF))
    view = view_of(one)
    await view.read()
    reads, begin = one.memory.reads, time.monotonic()
    for _ in range(200):
        await one.push()
        await anyio.sleep(0.005)
    readings, seconds = one.memory.reads - reads, time.monotonic() - begin
    assert 5 <= readings <= 20 * seconds + 2
    one.has(at(2, ON))
    await one.push()
    await until(lambda: shown(view) == (ON, 2))


async def test_one_message_is_under_way_at_a_time(make: Make) -> None:
    """However many readings and changes there are; so no answer is older than what is shown."""
    one = make(at(1, OFF))
    view = view_of(one)
    under_way: list[int] = [0]
    states = shown_by(view)

    async def take_time() -> None:
        under_way.append(under_way[-1] + 1)
        await asyncio.sleep(0.002)
        under_way.append(under_way[-1] - 1)

    one.memory.before_read = one.memory.before_write = take_time
    await view.read()
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(view.apply, store(ON))
            tasks.start_soon(one.is_read)
    assert shown(view) == (ON, 11)
    assert [state.version for state in states] == sorted(state.version for state in states)
    assert set(under_way) == {0, 1}


async def test_a_lost_subscription_is_made_again(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """What was written meanwhile is read; nothing has failed as long as the store can be read."""
    one = make(at(1, OFF))
    view = view_of(one)
    await view.read()
    for number in (2, 3):
        one.has(at(number, ON))
        await there(one.memory.lose_watchers)
        await until(lambda number=number: shown(view) == (ON, number))  # type: ignore[misc]
        await until(lambda number=number: one.memory.watches == number)  # type: ignore[misc]
    one.has(at(4, OFF))
    await one.push()
    await until(lambda: shown(view) == (OFF, 4))
    assert told(caplog) == []


async def test_a_store_that_can_not_push_at_the_moment_is_polled(make: Make) -> None:
    """It is asked again and again whether it can."""

    class Deaf(MemoryStore):
        async def watch(self, key: str, changed: Callable[[], None]) -> None:
            self.watches += 1
            raise BackendUnavailable(self.describe(key), "no subscriptions today")

    one = make(at(1, OFF), memory=Deaf(), poll_seconds=0.01)
    view = view_of(one)
    await view.read()
    one.has(at(2, ON))
    await until(lambda: one.memory.watches > 2 and shown(view) == (ON, 2))


@given(st.integers(1, 10_000))
def test_attempts_come_less_often_and_not_all_at_once(failures: int) -> None:
    """Soon after the first failure, and never so late that the store's return goes unnoticed for 2 s."""
    pauses = [follower._pause_after(failures) for _ in range(20)]
    assert all(0.025 <= pause <= 1 for pause in pauses)
    assert len(set(pauses)) > 1
    if failures >= 5:
        assert min(pauses) >= 0.5
    if failures == 1:
        assert max(pauses) <= 0.1


# Holds that expire


async def test_a_hold_that_expired_is_looked_for_when_it_is_due(make: Make) -> None:
    """Soon after its end the store is read, and says that it is gone; before, nothing is read for it."""
    one = make(state := held(0.5))
    view = view_of(one)
    await view.read()
    reads = one.memory.reads
    assert mode_of(view) is ON
    await until(lambda: mode_of(view) is OFF)
    expires_at = state.holds["h"].expires_at
    assert expires_at is not None
    assert datetime.now(UTC) >= expires_at
    assert one.memory.reads == reads + 1


async def test_a_hold_that_was_renewed_quietly_stays(make: Make) -> None:
    """It is looked for at its former end, and found."""
    one = make(held(0.3))
    view = view_of(one)
    await view.read()
    reads = one.memory.reads
    one.has(held(3600))
    await until(lambda: one.memory.reads > reads)
    await one.is_read()
    assert mode_of(view) is ON


async def test_a_hold_applies_until_its_store_says_that_it_is_gone(make: Make) -> None:
    """However long it is over by the clock of this host: it may have been renewed all along."""
    one = make(held(3600))
    view = view_of(one)
    await view.read()
    assert view.latest().mode_at(NOW + timedelta(days=1000)) is ON
    one.has(BackendUnavailable("<store>", "down"))
    await one.is_read()
    assert view.latest().mode_at(NOW + timedelta(days=1000)) is ON
    one.has(held(3600, begin=NOW - timedelta(hours=2)))
    await one.is_read()
    assert mode_of(view) is OFF


async def test_a_reading_that_began_before_a_hold_expired_does_not_end_it(make: Make) -> None:
    """Though its answer comes later, as in a process that was stopped while it waited."""
    one = make(held(0.3))
    await there(one.may_answer.clear)
    view = view_of(one)
    view.start(one)
    await until(lambda: one.memory.reads)
    await anyio.sleep(0.4)
    states = shown_by(view)
    await there(one.may_answer.set)
    await until(lambda: len(states) == 2)
    assert [state.mode_at(NOW) for state in states] == [ON, OFF]


@pytest.mark.parametrize("hours_ahead", [-1, 1])
async def test_a_hold_ends_by_the_clock_of_its_store(hours_ahead: int, make: Make) -> None:
    """And is looked for by it: neither an hour early, again and again, nor an hour late."""
    one = make()
    one.memory.now = NOW + timedelta(hours=hours_ahead)
    one.has(held(0.3, begin=one.memory.now))
    view = view_of(one)
    await view.read()
    reads = one.memory.reads
    assert mode_of(view) is ON
    one.memory.now += timedelta(seconds=0.3)
    await until(lambda: mode_of(view) is OFF)
    assert one.memory.reads == reads + 1


# Failures


async def test_a_store_that_fails_leaves_the_last_known_state(
    make: Make, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """For ever, if nothing else was asked for; each kind of failure and its return are logged once each."""
    one = make(at(1, ON))
    view = view_of(one)
    await view.read()
    one.has(BackendUnavailable("<store>", "down"))
    await one.is_read()
    clock.now += 1_000_000
    one.has(CorruptState("<store>", "garbage"))
    await one.is_read()
    assert shown(view) == (ON, 1)
    assert view.status() == SwitchStatus(
        Knowledge.STALE,
        version=1,
        age_seconds=1_000_000,
        last_error="<store> has no readable maintenance state: garbage",
    )
    one.has(at(2, OFF))
    await one.is_read()
    assert shown(view) == (OFF, 2)
    assert view.status() == SwitchStatus(Knowledge.READY, version=2, age_seconds=0)
    assert told(caplog) == [
        "the maintenance state can't be read, the switch stays on: <store> is not available: down",
        "the maintenance state can't be read, the switch stays on: <store> has no readable maintenance state: garbage",
        "<store of default> can be read again",
    ]


async def test_a_document_that_can_not_be_read_is_a_failure(make: Make) -> None:
    """It is no "off", and it is left as it is."""
    one = make(at(1, ON))
    view = view_of(one)
    await view.read()
    one.memory.put(KEY, b"garbage")
    await one.is_read()
    assert shown(view) == (ON, 1)
    assert "<store of default> has no readable maintenance state" in (view.status().last_error or "")
    assert one.memory.documents[KEY][0] == b"garbage"


async def test_whatever_a_store_raises_is_contained(make: Make) -> None:
    """A bug of a store is a failure of it; an error without words is told by its name."""
    one = make(at(1, ON))
    view = view_of(one)
    await view.read()
    one.has(LookupError())
    await one.is_read()
    assert shown(view) == (ON, 1)
    assert view.status().last_error == "<store of default> is not available: LookupError"


async def test_a_backend_that_raises_is_contained_as_well(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A subclass of a user's may do more than to ask the store."""
    one = make(at(1, ON))
    view = view_of(one)
    await view.read()

    async def fails() -> None:
        raise LookupError

    monkeypatch.setattr(one, "load", fails)
    await one.is_read()
    assert shown(view) == (ON, 1)
    assert view.status().last_error == "<store of default> is not available: LookupError()"


async def test_a_store_that_does_not_answer_is_given_up(make: Make) -> None:
    """Else it would never be read again."""
    one = make(at(1, ON), timeout_seconds=0.1)
    view = view_of(one)
    await view.read()
    await there(one.may_answer.clear)
    await one.push()
    await until(lambda: view.status().knowledge is Knowledge.STALE)
    assert view.status().last_error == "<store of default> is not available: no answer within 0.1 s"
    one.has(at(2, OFF))
    await there(one.may_answer.set)
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
    one.has(BackendUnavailable("<store>", "down"))
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
    one.has(last_known)
    await one.is_read()
    assert view.peek() == last_known
    failed, *turns, came_back = told(caplog)
    assert "can't be read" in failed
    assert came_back == "<store of default> can be read again"
    already = at(1, mode) == last_known
    assert turns == ([] if already else [f"<store of default> has failed for 60 s: the switch is treated as {policy}"])


async def test_a_store_is_asked_again_when_its_state_will_be_too_old(make: Make, clock: Clock) -> None:
    """And not some time later, however seldom it is asked by then."""
    one = make(at(1, ON), on_backend_error="open", max_stale=60)
    view = view_of(one)
    await view.read()
    one.has(BackendUnavailable("<store>", "down"))
    for _ in range(6):
        await one.is_read()
    assert isinstance(view, StoreView)
    for seconds, least, most in ((0, 0.5, 1.0), (59.9, 0.09, 0.11), (60, 0.5, 1.0)):
        clock.now = 1000.0 + seconds
        assert least <= view._seconds_until_next_read() <= most


@pytest.mark.parametrize("policy", ["open", "closed"])
async def test_a_store_that_never_answered_has_no_age(policy: str, make: Make, clock: Clock) -> None:
    """So ``initial`` counts, and nothing else."""
    one = make(BackendUnavailable("<store>", "down"), on_backend_error=policy, max_stale=1, init_timeout=0.01)
    for initial in (ON, OFF):
        one.initial = initial
        await one.aclose()
        assert (await view_of(one).read()).mode is initial
        clock.now += 1000
        await one.is_read()
        assert shown(view_of(one)) == (initial, 0)


# Stores that lose what they had


async def test_a_store_that_lost_its_state_gets_it_back(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Data loss is no "off": no request sees it, and others who ask see the former state again."""
    one = make(at(5, ON))
    view = view_of(one)
    await view.read()
    for _ in range(2):
        one.has(None)
        await one.is_read()
        assert shown(view) == (ON, 5)
        assert view.status().knowledge is Knowledge.READY
        assert MaintenanceState.from_json(one.memory.documents[KEY][0], where="") == at(5, ON, restored=True)
    assert told(caplog) == ["<store of default> had lost its document: version 5 was put back"] * 2


async def test_a_store_that_lost_its_state_can_be_left_alone(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Then it has failed; setting the mode anew, here or elsewhere, goes on from there."""
    one = make(at(5, ON), on_emptied="keep")
    view = view_of(one)
    await view.read()
    one.has(None)
    await one.is_read()
    await one.is_read()
    assert shown(view) == (ON, 5)
    assert view.status().knowledge is Knowledge.STALE
    assert "<store of default> had a state and has none now" in (view.status().last_error or "")
    assert one.memory.documents == {}
    await view.apply(store(OFF))
    assert shown(view) == (OFF, 1)
    one.has(None)
    await one.is_read()
    assert shown(view) == (OFF, 1)
    one.has(at(1, ON, epoch="elsewhere"))
    await one.is_read()
    assert shown(view) == (ON, 1)
    lost = "<store of default> had a state and has none now"
    again = "<store of default> can be read again"
    assert [message.partition(": set the mode")[0] for message in told(caplog)] == [
        f"the maintenance state can't be read, the switch stays on: {lost}",
        again,
        f"the maintenance state can't be read, the switch stays off: {lost}",
        again,
    ]


@pytest.mark.parametrize("initial", [ON, OFF])
async def test_where_removing_a_state_means_off_it_is_off(initial: MaintenanceMode, make: Make) -> None:
    """As with a file, also before there was one: ``initial`` counts only while it can't be read."""

    class LikeAFile(MemoryStore):
        missing_is_off = True

    one = make(None, memory=LikeAFile(), initial=initial)
    view = view_of(one)
    assert await view.read() == MaintenanceState()
    one.has(at(5, ON))
    await one.is_read()
    assert shown(view) == (ON, 5)
    one.has(None)
    await one.is_read()
    assert shown(view) == (OFF, 0)
    assert view.status().knowledge is Knowledge.READY
    assert one.memory.documents == {}


# Changes


@both_loops
async def test_a_change_counts_here_as_soon_as_it_is_made(make: Make) -> None:
    """Without the store being read again."""
    one = make(at(1, OFF))
    one.memory.pushes = False
    view = view_of(one)
    await view.read()
    reads = one.memory.reads
    state = await view.apply(store(ON))
    assert (state.mode, state.version) == (ON, 2)
    assert view.peek() is state
    assert one.memory.reads == reads + 1  # before the change


async def test_a_renewal_counts_here_although_it_is_no_new_version(make: Make) -> None:
    """And nobody is woken for it."""
    one = make(at(1, holds={"a": Hold(kind="on", expires_at=NOW + timedelta(minutes=1))}))
    view = view_of(one)
    await view.read()
    later = Hold(kind="on", expires_at=(NOW + timedelta(hours=1)).replace(microsecond=0))
    state = await view.apply(Change(put_holds={"a": later}, is_renewal=True))
    assert (state.version, state.holds) == (1, {"a": later})
    assert view.peek() is state
    assert one.memory.quiet == [True]


@both_loops
async def test_a_change_does_not_need_the_store_to_be_followed(make: Make) -> None:
    """A script that sets a mode and ends follows nothing."""
    one = make(at(1, OFF))
    view = view_of(one)
    assert (await view.apply(store(ON))).version == 2
    assert view.peek() is None
    assert one.memory.watches == 0


@pytest.mark.parametrize(
    "fault", [VersionConflict(1, 2), BackendUnavailable("<store>", "down"), OutcomeUnknown("<store>", "lost")]
)
@both_loops
async def test_a_change_that_was_not_made_says_so_and_changes_nothing(fault: Exception, make: Make) -> None:
    """The error is the store's own."""
    one = make(at(1, OFF), timeout_seconds=0.3)
    view = view_of(one)
    await view.read()

    def fail() -> object:
        one.memory.before_read = raising(fault)  # for who looks whether it was made all the same
        raise fault

    one.memory.before_write = fail
    with pytest.raises(type(fault)) as error:
        await view.apply(store(ON))
    assert error.value is fault
    assert shown(view) == (OFF, 1)
    assert view.status().knowledge is Knowledge.READY


@both_loops
async def test_a_change_whose_caller_is_cancelled_is_cancelled(make: Make) -> None:
    """The store is told, and others need not wait; what became of it there is read later."""
    one = make(at(1, OFF))
    view = view_of(one)
    is_cancelled = False

    async def hang() -> None:
        nonlocal is_cancelled
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            is_cancelled = True
            raise

    one.memory.before_write = hang
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(view.apply, store(ON))
        await until(lambda: one.memory.writes)
        tasks.cancel_scope.cancel()
    await until(lambda: is_cancelled)
    one.memory.before_write = lambda: None
    assert (await view.apply(store(ON))).version == 2


# The end, and another beginning


@both_loops
async def test_a_backend_that_is_closed_is_not_followed_any_more(make: Make) -> None:
    """Nothing of it goes on; whoever asks later begins anew, with what the store has then."""
    one = make(at(1, ON), poll_seconds=0.005)
    view = view_of(one)
    await view.read()
    await one.aclose()
    assert one.memory.closings == 1
    assert view.peek() is None
    assert view.status() == SwitchStatus(Knowledge.NOT_READY)
    reads = one.memory.reads
    one.has(at(2, OFF))
    await anyio.sleep(0.2)
    assert (one.memory.reads, one.memory.watchers) == (reads, [])
    assert await view.read() == at(2, OFF)
    await one.aclose()
    assert one.memory.closings == 2


@both_loops
async def test_a_backend_that_nobody_used_can_be_closed(make: Make) -> None:
    """With a view or without one, and more than once."""
    one = make()
    await one.aclose()
    view_of(one)
    await one.aclose()
    await one.aclose()
    assert (one.memory.reads, one.memory.closings) == (0, 3)


async def test_a_store_that_lost_its_state_while_nobody_followed_has_nothing(make: Make) -> None:
    """Who begins anew has seen nothing, and puts nothing back."""
    one = make(at(5, ON))
    await view_of(one).read()
    await one.aclose()
    one.has(None)
    assert await view_of(one).read() == MaintenanceState()
    assert one.memory.documents == {}


@both_loops
async def test_a_request_that_waits_while_the_backend_is_closed_gets_a_right_answer(make: Make) -> None:
    """It begins anew, rather than take the store for off."""
    one = make(at(1, ON))
    await there(one.may_answer.clear)
    states: list[MaintenanceState] = []

    async def ask() -> None:
        states.append(await view_of(one).read())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await until(lambda: one.memory.reads)
        await one.aclose()
        await there(one.may_answer.set)
    assert states == [at(1, ON)]


async def test_what_was_stopped_before_it_began_does_not_begin(make: Make) -> None:
    """Else nobody could stop it any more."""
    one = make(at(1, ON))
    view = view_of(one)

    async def start_and_stop() -> None:
        view.start(one)
        assert one.stop_following is not None
        await one.stop_following()

    await io_thread.run(start_and_stop())
    await there(str)
    assert (one.memory.reads, one.memory.watches) == (0, 0)
    assert await view.read() == at(1, ON)
    assert one.memory.watches == 1


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
    assert one.memory.watches == 1


FORK = """
import asyncio, os, sys
from pathlib import Path
from fastapi_maintenance.backends import LocalFileBackend
from fastapi_maintenance.switches.views.lookup import view_of

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
    assert isinstance(view, StoreView)
    tasks = view._tasks
    view.reset_after_fork()
    assert view.peek() is None
    assert follower._abandoned_tasks.pop() is tasks
    assert not any(task.done() for task in tasks)
    io_thread.submit(io_thread.cancel_tasks(tasks)).result(20)


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
    assert isinstance(view, StoreView)
    assert len(view._tasks) == 1


async def test_a_store_that_can_not_list_its_switches_says_so() -> None:
    """`None` is not an empty list."""

    class Unlisted(MemoryStore):
        names = DocumentStore.names  # type: ignore[assignment]

    backend = StoreBackend(Unlisted())
    assert await backend.switch_names() is None
    await backend.aclose()
