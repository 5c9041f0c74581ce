"""A process's view of a switch whose store has one bit: what it says while that fails, and what blocks leave there."""

from __future__ import annotations

import itertools
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_maintenance import Knowledge, MaintenanceMode, MaintenanceState, ReadOnlyBackend, UnsupportedByBackend
from fastapi_maintenance.backends import BaseStateBackend, EnvVarBackend, MemoryBackend
from fastapi_maintenance.model.change import Change, set_mode
from fastapi_maintenance.model.state import Hold
from fastapi_maintenance.switches.views.lookup import view_of
from fastapi_maintenance.switches.views.view import View

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
