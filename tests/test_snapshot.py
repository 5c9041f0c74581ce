"""A process's view of a switch: how stores are followed, and what blocks leave in a store of one bit.

In both: what the view says while the store fails.
"""

from __future__ import annotations

import asyncio
import itertools
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
    ReadOnlyBackend,
    SwitchStatus,
    UnsupportedByBackend,
    VersionConflict,
    background,
    snapshot,
)
from fastapi_maintenance.backends import BaseStateBackend, EnvVarBackend, MemoryBackend
from fastapi_maintenance.backends.base import FollowedBackend
from fastapi_maintenance.snapshot import BooleanView, FollowedView, MemoryView, View, view_of
from fastapi_maintenance.state import Change, Hold, set_mode

from .scripts import output_of

pytestmark = pytest.mark.anyio

NOW = datetime.now(UTC)
ON, OFF = MaintenanceMode.ON, MaintenanceMode.OFF


class Flag(BaseStateBackend):
    """A user's backend of two methods, with faults to order."""

    def __init__(self, value: Any = False) -> None:
        self.value: Any = value
        self.written: list[bool] = []
        self.get_fault: BaseException | None = None
        self.set_fault: BaseException | None = None

    def __repr__(self) -> str:
        return "<Flag>"

    async def get_value(self) -> bool:
        await anyio.lowlevel.checkpoint()
        if self.get_fault is not None:
            raise self.get_fault
        return self.value  # type: ignore[no-any-return]

    async def set_value(self, value: bool) -> None:
        await anyio.lowlevel.checkpoint()
        if self.set_fault is not None:
            raise self.set_fault
        self.value = value
        self.written.append(value)


def put(id_: str, kind: str = "on", masks: frozenset[str] = frozenset()) -> Change:
    return Change(put_holds={id_: Hold.model_validate({"kind": kind, "masks": masks})})


def drop(*ids: str) -> Change:
    return Change(drop_holds=frozenset(ids))


def store(mode: MaintenanceMode, **more: Any) -> Change:
    return set_mode(mode, now=NOW, **more)


async def mode_of(view: View) -> MaintenanceMode:
    return (await view.read()).mode_at(NOW)


async def test_a_backend_has_one_view() -> None:
    """Whoever uses the backend shares what is known of it."""
    for backend, kind in ((Flag(), BooleanView), (MemoryBackend(), MemoryView), (Store(), FollowedView)):
        assert view_of(backend) is view_of(backend)
        assert isinstance(view_of(backend), kind)
    assert view_of(Flag()) is not view_of(Flag())


async def test_the_view_of_a_whole_state_adds_nothing() -> None:
    """It is read without I/O, and what changes it is the backend's own."""
    memory = MemoryBackend(True)
    view = view_of(memory)
    assert view.peek() is memory.peek()
    assert await view.read() is memory.peek()
    assert (await view.apply(store(OFF))) is memory.peek()
    assert view.read_blocking() is memory.peek()
    view.start()
    assert view.status() == SwitchStatus(Knowledge.READY, version=1, age_seconds=0.0)


async def test_a_whole_state_has_to_come_from_somewhere() -> None:
    """A backend that keeps one, is not followed and does not tell it, says nothing at all."""

    class Mute(MemoryBackend):
        def peek(self) -> Any:
            return None

    with pytest.raises(TypeError, match=r"its peek\(\) has to return the state"):
        await view_of(Mute()).read()


async def test_a_users_backend_is_asked_each_time() -> None:
    """What it says counts at once, and only asking can tell."""
    flag = Flag()
    view = view_of(flag)
    assert view.peek() is None
    assert await view.read() == MaintenanceState()
    flag.value = True
    assert await view.read() == MaintenanceState(mode=ON)


async def test_a_users_backend_may_tell_without_io() -> None:
    """Then it is not awaited at all."""

    class Quick(Flag):
        def peek(self) -> MaintenanceState:
            return MaintenanceState(mode=MaintenanceMode.READ_ONLY, reason="told")

    quick = Quick()
    quick.get_fault = AssertionError("never asked")
    view = view_of(quick)
    assert view.peek() == MaintenanceState(mode=MaintenanceMode.READ_ONLY, reason="told")
    await view.apply(put("a"))
    state = view.peek()
    assert state is not None
    assert list(state.holds) == ["a"]
    assert (state.mode, state.reason) == (MaintenanceMode.READ_ONLY, "told")


# Faults


@pytest.mark.parametrize("value", [1, "on", "TRUE", 1.0])
async def test_a_value_is_read_as_pydantic_reads_booleans(value: Any) -> None:
    """Stores return numbers and texts."""
    assert await mode_of(view_of(Flag(value))) is ON


@pytest.mark.parametrize("rubbish", [None, "maybe", 2, [], MaintenanceState(), object()])
@pytest.mark.parametrize("known", [True, False])
async def test_rubbish_from_a_store_leaves_the_last_known_state(
    rubbish: Any, known: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A value that means nothing is a fault, and neither on nor off."""
    flag = Flag(known)
    view = view_of(flag)
    before = await view.read()
    flag.value = rubbish
    assert await view.read() == before
    assert "<Flag> can't be read: the last known state stays" in caplog.text


async def test_a_store_that_was_never_read_is_off() -> None:
    """Nothing is known, so nothing is blocked."""
    flag = Flag(True)
    flag.get_fault = ConnectionError("down")
    assert await mode_of(view_of(flag)) is OFF


async def test_a_fault_is_logged_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    """Requests come by the thousand; transitions are what an operator wants to see."""
    caplog.set_level(logging.INFO)
    flag = Flag(True)
    view = view_of(flag)
    for fault in (None, ConnectionError("down"), TimeoutError("slow"), None, None, ConnectionError("again")):
        flag.get_fault = fault
        assert await mode_of(view) is ON
        assert view.status().knowledge is (Knowledge.STALE if fault else Knowledge.READY)
    messages = [(record.levelname, record.getMessage(), bool(record.exc_info)) for record in caplog.records]
    assert messages == [
        ("ERROR", "<Flag> can't be read: the last known state stays, on", True),
        ("WARNING", "<Flag> can be read again: on", False),
        ("ERROR", "<Flag> can't be read: the last known state stays, on", True),
    ]


async def test_a_cancelled_read_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    """A client that goes away must end the request, and says nothing about the store."""

    class Slow(Flag):
        async def get_value(self) -> bool:
            await anyio.sleep_forever()
            raise AssertionError

    with anyio.move_on_after(0) as scope:
        await view_of(Slow()).read()
    assert scope.cancelled_caught
    assert not caplog.records


async def test_a_mode_that_can_not_be_stored_is_an_error() -> None:
    """The operator who pressed the switch learns that it did not move."""
    flag = Flag()
    flag.set_fault = ConnectionError("down")
    view = view_of(flag)
    with pytest.raises(ConnectionError, match="down"):
        await view.apply(store(ON))
    flag.set_fault = None
    assert await mode_of(view) is OFF


@pytest.mark.parametrize("fault", ["get_fault", "set_fault"])
async def test_a_hold_that_can_not_be_stored_is_not_held(fault: str) -> None:
    """The block is not entered, so nothing may stay of it; the store may come back later."""
    flag = Flag()
    view = view_of(flag)
    setattr(flag, fault, ConnectionError("down"))
    with pytest.raises(ConnectionError):
        await view.apply(put("a"))
    setattr(flag, fault, None)
    assert await mode_of(view) is OFF
    assert flag.value is False


@pytest.mark.parametrize("fault", ["get_fault", "set_fault"])
async def test_a_hold_whose_end_can_not_be_stored_ends_when_the_store_is_back(fault: str) -> None:
    """The block's end is told as failed; the switch opens all the same, with the next change at the latest."""
    flag = Flag()
    view = view_of(flag)
    await view.apply(put("a"))
    setattr(flag, fault, ConnectionError("down"))
    with pytest.raises(ConnectionError):
        await view.apply(drop("a"))
    setattr(flag, fault, None)
    await view.apply(put("b"))
    await view.apply(drop("b"))
    assert flag.value is False
    assert await mode_of(view) is OFF


@pytest.mark.parametrize("fault", ["get_fault", "set_fault"])
async def test_a_hold_that_has_ended_does_not_count_here_while_the_store_still_says_so(fault: str) -> None:
    """This process knows that what the store has is only its own, from a hold that is gone."""
    flag = Flag()
    view = view_of(flag)
    await view.apply(put("a"))
    setattr(flag, fault, ConnectionError("down"))
    with pytest.raises(ConnectionError):
        await view.apply(drop("a"))
    setattr(flag, fault, None)
    assert await mode_of(view) is OFF


# One bit for all


async def test_a_hold_writes_its_value_for_its_duration() -> None:
    """So that other processes see the block; nothing is written that is there already."""
    flag = Flag()
    view = view_of(flag)
    await view.apply(put("a"))
    await view.apply(put("b"))
    assert (flag.value, await mode_of(view)) == (True, ON)
    await view.apply(drop("a"))
    assert (flag.value, await mode_of(view)) == (True, ON)
    await view.apply(drop("b"))
    assert (flag.value, await mode_of(view)) == (False, OFF)
    assert flag.written == [True, False]


async def test_an_off_hold_opens_what_is_stored_for_its_duration() -> None:
    """And the value is put back."""
    flag = Flag(True)
    view = view_of(flag)
    await view.apply(put("a", "off"))
    assert (flag.value, await mode_of(view)) == (False, OFF)
    await view.apply(drop("a"))
    assert (flag.value, await mode_of(view)) == (True, ON)


async def test_a_hold_of_a_switch_that_is_on_already_leaves_it_on() -> None:
    """It found it on."""
    flag = Flag(True)
    view = view_of(flag)
    await view.apply(put("a"))
    await view.apply(drop("a"))
    assert (flag.value, flag.written) == (True, [])


@pytest.mark.parametrize("order", list(itertools.permutations("abc")))
async def test_the_last_to_leave_puts_the_value_back(order: tuple[str, ...]) -> None:
    """In whatever order they leave."""
    flag = Flag()
    view = view_of(flag)
    for id_ in "abc":
        await view.apply(put(id_))
    for id_ in order:
        assert flag.value is True
        await view.apply(drop(id_))
    assert flag.value is False


async def test_the_stored_mode_is_told_apart_from_what_holds_wrote() -> None:
    """While a block holds the switch on, the operator's mode is still known to be off."""
    flag = Flag()
    view = view_of(flag)
    state = await view.apply(put("a"))
    assert (state.mode, list(state.holds)) == (OFF, ["a"])


@pytest.mark.parametrize("kind", ["on", "off"])
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("meanwhile", [True, False])
async def test_what_an_operator_sets_here_during_a_block_counts_after_it(
    kind: str, before: bool, meanwhile: bool
) -> None:
    """The block decides for its duration, the operator for afterwards."""
    flag = Flag(before)
    view = view_of(flag)
    await view.apply(put("a", kind))
    state = await view.apply(store(ON if meanwhile else OFF))
    assert flag.value is (kind == "on")
    assert state.mode_at(NOW) == kind
    assert (state.mode is ON) is meanwhile
    await view.apply(drop("a"))
    assert flag.value is meanwhile


@pytest.mark.parametrize(("kind", "before"), [("on", False), ("off", True)])
async def test_what_an_operator_sets_elsewhere_during_a_block_survives_it(kind: str, before: bool) -> None:
    """Another process changed the store itself: that is no value of ours to put back."""
    flag = Flag(before)
    view = view_of(flag)
    await view.apply(put("a", kind))
    flag.value = before
    assert await mode_of(view) == kind
    await view.apply(put("b", kind))
    await view.apply(drop("a"))
    flag.value = before
    await view.apply(drop("b"))
    assert flag.value is before


async def test_a_stored_mode_and_holds_can_change_together() -> None:
    """One change may do both."""
    flag = Flag()
    view = view_of(flag)
    await view.apply(put("a"))
    both = Change(fields=store(ON).fields, drop_holds=frozenset({"a"}))
    state = await view.apply(both)
    assert (state.mode, dict(state.holds), flag.value) == (ON, {}, True)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (store(MaintenanceMode.READ_ONLY), "read_only"),
        (store(ON, reason="new disks"), "a reason"),
        (store(ON, reason="new disks", until=NOW + timedelta(hours=1)), "a reason and an end"),
    ],
)
async def test_more_than_a_bit_can_not_be_stored_in_one(change: Change, what: str) -> None:
    """It is refused as a whole, rather than half done."""
    flag = Flag()
    with pytest.raises(UnsupportedByBackend, match=f"<Flag> .* can't keep {what}, nothing was changed") as error:
        await view_of(flag).apply(change)
    assert (error.value.backend, error.value.what) == ("<Flag>", what)
    assert flag.written == []


@pytest.mark.parametrize("more", [{}, {"reason": "new disks"}])
async def test_a_read_only_store_is_held_here_and_set_nowhere(
    more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks work with an environment variable, within the process; storing a mode is refused."""
    monkeypatch.setenv("CLOSED", "1")
    view = view_of(EnvVarBackend("CLOSED"))
    await view.apply(put("a", "off"))
    assert await mode_of(view) is OFF
    await view.apply(put("b"))
    assert await mode_of(view) is ON
    with pytest.raises(ReadOnlyBackend):
        await view.apply(store(OFF, **more))
    await view.apply(drop("a", "b"))
    assert await mode_of(view) is ON


ids, kinds = st.sampled_from("abc"), st.sampled_from(["on", "off"])
changes = st.builds(put, ids, kinds) | st.builds(drop, ids) | st.builds(store, kinds.map(MaintenanceMode))


@given(st.booleans(), st.lists(changes, max_size=12))
def test_one_bit_and_holds_behave_as_a_whole_state(initial: bool, changes: list[Change]) -> None:
    """Whatever happens in whatever order, the modes are those of a backend that keeps everything."""

    async def run() -> None:
        flag = Flag(initial)
        boolean, whole = view_of(flag), view_of(MemoryBackend(initial))
        for change in [*changes, drop("a"), drop("b"), drop("c")]:
            one, other = await boolean.apply(change), await whole.apply(change)
            assert (one.mode, dict(one.holds)) == (other.mode, dict(other.holds))
            assert flag.value is (one.mode_at(NOW) is ON)

    anyio.run(run)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_changes_that_overlap_are_made_one_after_the_other() -> None:
    """Reading the store and writing it back belong together."""
    flag = Flag()
    view = view_of(flag)
    async with anyio.create_task_group() as tasks:
        for id_ in "abcdef":
            tasks.start_soon(view.apply, put(id_))
    assert flag.written == [True]
    async with anyio.create_task_group() as tasks:
        for id_ in "abcdef":
            tasks.start_soon(view.apply, drop(id_))
    assert flag.written == [True, False]


async def test_a_view_serves_several_event_loops() -> None:
    """Locks belong to a loop, views do not."""
    flag = Flag()

    def in_another_loop(change: Change) -> None:
        async def apply() -> None:
            await view_of(flag).apply(change)

        anyio.run(apply)

    await view_of(flag).apply(put("a"))
    await anyio.to_thread.run_sync(in_another_loop, put("b"))
    await view_of(flag).apply(drop("a"))
    assert flag.value is True
    await anyio.to_thread.run_sync(in_another_loop, drop("b"))
    assert flag.value is False


def test_code_without_an_event_loop_asks_on_one_of_its_own() -> None:
    """A script can ask a backend whose methods are async."""
    flag = Flag(True)
    assert view_of(flag).read_blocking() == MaintenanceState(mode=ON)
    assert view_of(MemoryBackend(True)).read_blocking().mode is ON


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


async def until(condition: Callable[[], object]) -> None:
    """Wait for what another thread does."""
    with anyio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - an event belongs to one loop
            await anyio.sleep(0.002)


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
    view.start()
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
    view.start()
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
    """For ever, if nothing else was asked for; its failure and its return are logged once each."""
    one = make(at(1, ON))
    view = view_of(one)
    await view.read()
    await one.is_read()
    one.stored = BackendUnavailable("<Store>", "down")
    await one.is_read()
    clock.now += 1_000_000
    one.stored = CorruptState("<Store>", "garbage")
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
        "the maintenance state can't be read, the last known one stays: <Store> is not available: down",
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
    failure = "the maintenance state can't be read, the last known one stays: <Store> had a state and has none now"
    one_failure = [failure, "<Store> can be read again"]
    assert [message.partition(": set the mode")[0] for message in told(caplog)] == one_failure * 2


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
        view.start()
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
