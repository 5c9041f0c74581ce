"""One switch in a store: read, apply, replace, whatever becomes of the messages."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fastapi_maintenance import (
    BackendUnavailable,
    CorruptState,
    EmptiedStore,
    HoldLost,
    MaintenanceError,
    MaintenanceMode,
    MaintenanceState,
    OutcomeUnknown,
    VersionConflict,
)
from fastapi_maintenance.model.change import Change, set_mode
from fastapi_maintenance.model.state import Hold
from fastapi_maintenance.stores.stored_switch import StoredSwitch
from tests.support.memory_store import MemoryStore

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
ON, OFF = MaintenanceMode.ON, MaintenanceMode.OFF
KEY = "default"


def switch_in(store: MemoryStore, *, seconds: float = 5, on_emptied: Any = "restore") -> StoredSwitch:
    return StoredSwitch(store, KEY, timeout_seconds=seconds, on_emptied=on_emptied)


def turn(mode: MaintenanceMode = ON, **more: Any) -> Change:
    return set_mode(mode, now=NOW, **more)


def stored(store: MemoryStore) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(store.documents[KEY][0])
    return document


def raising(error: Exception) -> Callable[[], object]:
    def fail() -> object:
        raise error

    return fail


def once(function: Callable[[], object]) -> Callable[[], object]:
    """Return a fault that happens once."""
    faults = [function]

    def fail() -> object:
        return faults.pop()() if faults else None

    return fail


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_a_change_is_applied_to_what_the_store_has() -> None:
    """It is read first, and the document remembers who changed what."""

    async def test() -> None:
        store = MemoryStore()
        store.now = NOW
        one, other = switch_in(store), switch_in(store)
        assert await one.read() is None
        assert (await one.change(turn(reason="first", by="alice"))).version == 1
        assert (await other.change(turn(OFF, by="bob"))).version == 2
        assert [(c["what"], c["by"]) for c in stored(store)["recent_changes"]] == [("on", "alice"), ("off", "bob")]
        state = await one.read()
        assert state is not None
        assert (state.mode, state.updated_by, state.updated_at) == (OFF, "bob", NOW)

    run(test())


@pytest.mark.parametrize("returns_conflicts", [True, False])
def test_a_conflict_leads_to_another_try(returns_conflicts: bool) -> None:
    """Nothing that others wrote meanwhile is lost."""

    async def test() -> None:
        store = MemoryStore()
        store.returns_conflicts = returns_conflicts
        await switch_in(store).change(turn(reason="theirs"))
        first = stored(store)

        def interfere() -> None:
            store.put(KEY, json.dumps(first | {"version": 2, "retry_after": 5}).encode())

        store.before_write = once(interfere)
        held = Change(put_holds={"h": Hold(kind="on")})
        state = await switch_in(store).change(held)
        assert (state.version, state.retry_after, state.reason, list(state.holds)) == (3, 5, "theirs", ["h"])

    run(test())


def test_a_change_gives_up_when_others_are_always_first() -> None:
    """Its time is bounded, and then nothing was changed."""

    async def test() -> None:
        store = MemoryStore()
        store.before_write = lambda: store.put(KEY, MaintenanceState(epoch="e", version=store.writes).to_json())
        with pytest.raises(BackendUnavailable, match="other writers kept changing the document"):
            await switch_in(store, seconds=0.1).change(turn())
        assert stored(store)["mode"] == "off"

    run(test())


def test_an_answer_that_was_lost_is_looked_for() -> None:
    """The change was made: it is found by its id, and not made again."""

    async def test() -> None:
        store = MemoryStore()
        store.after_write = once(raising(ConnectionError("lost")))
        state = await switch_in(store).change(turn())
        assert (state.version, store.writes) == (1, 1)

    run(test())


def test_a_message_that_was_lost_is_sent_again() -> None:
    """The change was not made, as the document shows."""

    async def test() -> None:
        store = MemoryStore()
        store.before_write = once(raising(ConnectionError("lost")))
        state = await switch_in(store).change(turn())
        assert (state.version, store.writes) == (1, 2)

    run(test())


def test_a_change_that_may_be_forgotten_is_not_made_again() -> None:
    """More changes were made since than a document remembers, so nobody can know."""

    async def test() -> None:
        store = MemoryStore()
        other = switch_in(store)

        async def fail_after_many_others() -> None:
            store.after_write = lambda: None
            for _ in range(40):
                await other.change(turn(OFF))
            raise ConnectionError("lost")

        store.after_write = fail_after_many_others
        with pytest.raises(OutcomeUnknown, match="lost"):
            await switch_in(store, seconds=2).change(turn())
        assert stored(store)["version"] == 41

    run(test())


def test_a_request_that_waits_for_another_one_gives_up_in_time() -> None:
    """It was not sent, so its outcome is known."""

    async def test() -> None:
        store = MemoryStore()
        switch = switch_in(store, seconds=0.05)
        async with switch._request_lock:
            with pytest.raises(BackendUnavailable, match=r"no answer within 0\.05 s") as raised:
                await switch.change(turn())
        assert type(raised.value) is BackendUnavailable
        assert (store.reads, store.writes) == (0, 0)

    run(test())


@pytest.mark.parametrize("fault", ["nothing comes", "an error", "unavailable"])
def test_time_that_is_up_after_a_message_is_an_unknown_outcome(fault: str) -> None:
    """A late write is possible, so the caller must not take the change for not made."""

    async def test() -> None:
        store = MemoryStore()
        faults: dict[str, Callable[[], object]] = {
            "nothing comes": lambda: asyncio.sleep(60),
            "an error": raising(ConnectionError("lost")),
            "unavailable": raising(OutcomeUnknown("store", "lost")),
        }
        store.after_write = faults[fault]
        switch = switch_in(store, seconds=0.05)

        async def no_answer() -> None:
            await asyncio.sleep(60)

        reads = 0

        def read() -> object:
            nonlocal reads
            reads += 1
            return None if reads == 1 else no_answer()

        store.before_read = read
        with pytest.raises(OutcomeUnknown):
            await switch.change(turn())

    run(test())


def test_a_store_that_does_not_answer_has_changed_nothing() -> None:
    """Reading comes first; an error of a user's own store names the store."""

    async def test() -> None:
        store = MemoryStore()
        switch = switch_in(store, seconds=0.05)
        store.before_read = lambda: asyncio.sleep(60)
        with pytest.raises(BackendUnavailable, match=r"<store of default> is not available: no answer") as caught:
            await switch.change(turn())
        assert not isinstance(caught.value, OutcomeUnknown)
        store.before_read = raising(ZeroDivisionError())
        with pytest.raises(BackendUnavailable, match="ZeroDivisionError"):
            await switch.read()
        store.before_read = lambda: None
        store.before_write = raising(BackendUnavailable("store", "read only"))
        with pytest.raises(BackendUnavailable, match="read only"):
            await switch.change(turn())
        assert not store.documents

    run(test())


def test_changes_of_one_process_queue_up() -> None:
    """So they don't conflict with each other; the time in the queue is part of a change's time."""

    async def test() -> None:
        store = MemoryStore()
        switch = switch_in(store)
        await asyncio.gather(*(switch.change(turn()) for _ in range(20)))
        assert (stored(store)["version"], store.writes) == (20, 20)
        slow = switch_in(store, seconds=0.1)
        store.before_write = lambda: asyncio.sleep(60)
        first, second = await asyncio.gather(slow.change(turn()), slow.change(turn()), return_exceptions=True)
        assert isinstance(first, OutcomeUnknown)
        assert isinstance(second, BackendUnavailable)
        assert not isinstance(second, OutcomeUnknown)

    run(test())


def test_one_message_is_under_way() -> None:
    """A late answer to a reading can't come after the answer to a change."""

    async def test() -> None:
        store = MemoryStore()
        switch = switch_in(store)
        heard: list[int | None] = []
        switch.on_reading = lambda state: heard.append(None if state is None else state.version)
        release = asyncio.Event()
        store.before_read = once(release.wait)
        reading = asyncio.create_task(switch.read())
        await asyncio.sleep(0)
        changing = asyncio.create_task(switch.change(turn()))
        await asyncio.sleep(0.01)
        assert (store.reads, store.writes) == (1, 0)
        release.set()
        await asyncio.gather(reading, changing)
        assert heard == [None, None, 1]

    run(test())


# Stores that lose documents


def test_a_store_that_lost_the_document_gets_it_back() -> None:
    """It is marked, so that a newer version may replace it; a change clears the mark."""

    async def test() -> None:
        store = MemoryStore()
        switch = switch_in(store)
        await switch.change(turn(reason="migration"))
        store.put(KEY, None)
        state = await switch.read()
        assert state is not None
        assert (state.reason, state.version, stored(store)["restored"]) == ("migration", 1, True)
        await switch.change(turn(reason="still"))
        assert "restored" not in stored(store)

    run(test())


def test_the_newest_version_known_to_anybody_comes_back() -> None:
    """Who knows a newer version replaces what was put back by somebody who does not."""

    async def test() -> None:
        store = MemoryStore()
        behind, ahead = switch_in(store), switch_in(store)
        await behind.change(turn(reason="old"))
        await ahead.change(turn(OFF))
        store.put(KEY, None)
        await behind.read()
        assert stored(store)["version"] == 1
        state = await ahead.read()
        assert state is not None
        assert (state.mode, stored(store)["version"], stored(store)["restored"]) == (OFF, 2, True)
        state = await behind.read()
        assert state is not None
        assert state.version == 2

    run(test())


def test_an_operators_word_is_not_undone() -> None:
    """Another document was set in the emptied store: that one applies, whatever its version."""

    async def test() -> None:
        store = MemoryStore()
        worker = switch_in(store)
        for _ in range(3):
            await worker.change(turn())
        store.put(KEY, None)
        await switch_in(store).change(turn(OFF, by="operator"))
        state = await worker.read()
        assert state is not None
        assert (state.mode, state.version, state.updated_by) == (OFF, 1, "operator")

    run(test())


@pytest.mark.parametrize("returns_conflicts", [True, False])
def test_who_is_overtaken_when_putting_back_takes_what_is_there(returns_conflicts: bool) -> None:
    """An operator set the emptied store just before."""

    async def test() -> None:
        store = MemoryStore()
        store.returns_conflicts = returns_conflicts
        worker = switch_in(store)
        await worker.change(turn(reason="migration"))
        store.put(KEY, None)
        theirs = MaintenanceState(version=1, epoch="theirs", updated_by="operator").to_json()
        store.before_write = once(lambda: store.put(KEY, theirs))
        state = await worker.read()
        assert state is not None
        assert (state.mode, state.updated_by, store.documents[KEY][0]) == (OFF, "operator", theirs)

    run(test())


def test_a_change_after_a_loss_is_made_on_the_restored_document() -> None:
    """A hold that is renewed does not get lost with the store, and its renewal keeps the mark."""

    async def test() -> None:
        store = MemoryStore()
        store.now = NOW
        switch = switch_in(store)
        hold = {"h": Hold(kind="on", owner="migration")}
        await switch.change(Change(put_holds=hold, ttl=timedelta(seconds=60)))
        store.put(KEY, None)
        renewal = Change(put_holds=hold, ttl=timedelta(seconds=60), required_holds=frozenset({"h"}), is_renewal=True)
        state = await switch.change(renewal)
        assert list(state.holds) == ["h"]
        assert stored(store)["restored"]
        assert store.quiet == [False, False, True]

    run(test())


def test_a_store_that_is_left_empty(caplog: pytest.LogCaptureFixture) -> None:
    """By choice, or because this process may not write, which is logged once."""

    async def test() -> None:
        for on_emptied, fault in (("keep", None), ("restore", BackendUnavailable("store", "read only"))):
            store = MemoryStore()
            switch = switch_in(store, on_emptied=on_emptied)
            await switch.change(turn())
            store.put(KEY, None)
            if fault is not None:
                store.before_write = raising(fault)
            for _ in range(2):
                with pytest.raises(EmptiedStore):
                    await switch.read()
            assert not store.documents
            store.before_write = lambda: None
            assert (await switch.change(turn(OFF))).mode is OFF
        assert [record.getMessage() for record in caplog.records if "can't be put back" in record.getMessage()] == [
            "<store of default> has lost its document, which can't be put back: store is not available: read only"
        ]

    run(test())


def test_a_forgotten_switch_stays_forgotten() -> None:
    """Forgetting leaves a document that says off and nothing else, also in place of one that can't be read."""

    async def test() -> None:
        store = MemoryStore()
        worker = switch_in(store)
        await worker.change(turn(reason="old"))
        await switch_in(store).change(Change(forgets=True, by="operator"))
        state = await worker.read()
        assert state is not None
        assert (state.mode, state.reason, state.forgotten) == (OFF, None, True)
        store.put(KEY, b"{")
        with pytest.raises(CorruptState):
            await worker.change(turn())
        await worker.change(Change(forgets=True))
        assert stored(store)["forgotten"]
        assert not (await worker.change(turn())).forgotten

    run(test())


# Holds and time


def test_a_hold_ends_by_the_stores_word() -> None:
    """An expired one is gone for readers; its own renewal learns that it was gone."""

    async def test() -> None:
        store = MemoryStore()
        store.now = NOW
        switch = switch_in(store)
        hold = {"h": Hold(kind="on")}
        taken = await switch.change(Change(put_holds=hold, ttl=timedelta(seconds=3)))
        assert taken.mode_at(NOW + timedelta(days=1)) is ON
        store.now = NOW + timedelta(seconds=3)
        state = await switch.read()
        assert state is not None
        assert state.mode_at(NOW) is OFF
        renewal = Change(put_holds=hold, required_holds=frozenset({"h"}), ttl=timedelta(seconds=3), is_renewal=True)
        with pytest.raises(HoldLost) as caught:
            await switch.change(renewal)
        assert caught.value.expired
        await switch.change(Change(drop_holds=frozenset({"h"}), required_holds=frozenset({"h"})))
        with pytest.raises(HoldLost) as caught:
            await switch.change(renewal)
        assert not caught.value.expired

    run(test())


# A model: any number of processes, and a network that loses and delays


class Network(MemoryStore):
    """A store behind a network that loses messages and answers, and delivers some messages late."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.late: list[asyncio.Task[Any]] = []

    async def read(self, key: str) -> Any:
        await asyncio.sleep(self.random.choice((0, 0, 0.001)))
        if self.random.random() < 0.1:
            raise ConnectionError("the question is lost")
        reading = await super().read(key)
        await asyncio.sleep(self.random.choice((0, 0, 0.001)))
        if self.random.random() < 0.1:
            raise ConnectionError("the answer is lost")
        return reading

    async def replace(self, key: str, content: bytes, revision: str | None, **more: Any) -> Any:
        fate = self.random.random()
        if fate < 0.1:
            raise ConnectionError("the message is lost")
        write = super().replace
        if fate < 0.2:

            async def deliver_late() -> None:
                await asyncio.sleep(self.random.uniform(0, 0.02))
                await write(key, content, revision, **more)

            self.late.append(asyncio.create_task(deliver_late()))
            raise ConnectionError("the message is late")
        reading = await write(key, content, revision, **more)
        if fate < 0.4:
            raise ConnectionError("the answer is lost")
        return reading


@pytest.mark.parametrize("seed", range(20))
def test_each_change_is_made_once_or_not_at_all(seed: int) -> None:
    """Of each change the store knows what its maker was told: made, not made, or unknown."""

    async def test() -> None:
        store = Network(seed)
        made: list[str] = []
        write = store.put

        def put(key: str, content: bytes | None) -> None:
            assert content is not None
            made.append(json.loads(content)["recent_changes"][-1]["id"])
            write(key, content)

        store.put = put  # type: ignore[method-assign]
        outcomes: dict[str, str] = {}

        async def work(switch: StoredSwitch) -> None:
            for _ in range(15):
                change = turn(store.random.choice((ON, OFF)))
                try:
                    await switch.change(change)
                except OutcomeUnknown:
                    outcomes[change.id] = "unknown"
                except MaintenanceError:
                    outcomes[change.id] = "not made"
                else:
                    outcomes[change.id] = "made"

        await asyncio.gather(*(work(switch_in(store, seconds=0.2)) for _ in range(5)))
        await asyncio.gather(*store.late, return_exceptions=True)
        assert len(made) == len(set(made)), "a change was made twice"
        for id_, outcome in outcomes.items():
            assert outcome == "unknown" or (id_ in made) == (outcome == "made"), outcome
        assert json.loads(store.documents[KEY][0])["version"] == len(made)
        assert sum(outcome == "made" for outcome in outcomes.values()) > len(outcomes) / 2

    run(test())


def test_a_requirement_is_checked_against_the_newer_document() -> None:
    """A change that was overtaken is refused by what is there now."""

    async def test() -> None:
        store = MemoryStore()
        switch = switch_in(store)
        await switch.change(turn())
        other = switch_in(store)
        store.before_write = once(lambda: asyncio.ensure_future(other.change(turn(OFF))))
        with pytest.raises(VersionConflict):
            await switch.change(turn(expected_version=1))

    run(test())
