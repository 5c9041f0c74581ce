"""Blocks that hold a switch in a store: leases, and what becomes of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from fastapi_maintenance import (
    BackendUnavailable,
    HoldLost,
    MaintenanceBlock,
    MaintenanceMode,
    MaintenanceState,
    ReadOnlyBackend,
    SwitchIsHeld,
    configure_backend,
    get_maintenance_mode,
    get_maintenance_state,
    maintenance_mode_off,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import EnvVarBackend, LocalFileBackend, MemoryBackend, RedisBackend
from fastapi_maintenance.backends.base import StoreBackend
from fastapi_maintenance.concurrency import io_thread
from fastapi_maintenance.model.change import Change
from fastapi_maintenance.switches.control import change_mode
from fastapi_maintenance.switches.views.lookup import view_of
from tests.programs.hold_process import holder
from tests.support.hold_machine import run_machine
from tests.support.memory_store import MemoryStore
from tests.support.places import Place, TwoMethods, file_place, postgres_place, redis_place, sqlite_place
from tests.support.stores import RedisServer

pytestmark = pytest.mark.anyio

both_loops = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])

Sleep = Callable[[MaintenanceBlock], None]

SECONDS = 20
"""How long a test waits for what has to come; the machine may be busy."""


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Return a place in the store that the test names."""
    match request.param:
        case "memory":
            return Place("MemoryBackend")
        case "two methods":
            return Place("TwoMethods", {"path": str(tmp_path / "switch")})
        case "file":
            return file_place(tmp_path, timeout_seconds=SECONDS)
        case "sqlite":
            return sqlite_place(tmp_path, timeout_seconds=SECONDS)
        case "redis":
            return redis_place(request.getfixturevalue("redis_server"), timeout_seconds=SECONDS)
        case _:
            return postgres_place(request.getfixturevalue("postgres_server"), timeout_seconds=SECONDS)


def of(*stores: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("place", stores, indirect=True)


SHARED = of("file", "redis")
"""The local kind and the remote one; the model below goes through all stores."""


async def until(is_so: Callable[[], Any], what: str) -> None:
    """Wait until something is so."""
    end = time.monotonic() + SECONDS
    while True:
        result = is_so()
        if await result if asyncio.iscoroutine(result) else result:
            return
        assert time.monotonic() < end, what
        await anyio.sleep(0.02)


@contextlib.asynccontextmanager
async def opened(place: Place) -> AsyncIterator[Any]:
    """Give a backend that is closed afterwards."""
    backend = place.backend()
    try:
        yield backend
    finally:
        if hasattr(backend, "aclose"):
            await backend.aclose()


async def stored(place: Place) -> MaintenanceState:
    """Return the state as a process would that has just started."""
    async with opened(place) as backend:
        return await get_maintenance_state(backend)


# Overlap, operators, clocks: the model


@of("memory", "two methods", "file", "redis", "postgresql", "sqlite")
def test_holds_operators_and_clocks_in_any_order(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """The switch says what a model says; `make stress` makes ten thousand steps."""
    caplog.set_level(logging.ERROR, "fastapi_maintenance")
    steps = 300 if place.kind in ("MemoryBackend", "TwoMethods", "LocalFileBackend") else 100
    assert run_machine(place, steps) >= steps


# Cancellation


@of("memory", "file", "redis")
async def test_of_many_cancelled_blocks_none_is_left_behind(place: Place) -> None:
    """Cancelled up to three times each, at whatever they are doing."""
    count = 800 if place.kind == "MemoryBackend" else 120
    async with opened(place) as backend:

        async def work() -> None:
            async with maintenance_mode_on(backend, ttl=300):
                await asyncio.sleep(0.01)

        async def cancelled(number: int) -> None:
            task = asyncio.create_task(work())
            for cancellation in range(number % 4):
                await asyncio.sleep(((number * 7 + cancellation * 3) % 23) / 1000)
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        limit = anyio.CapacityLimiter(40)

        async def one(number: int) -> None:
            async with limit:
                await cancelled(number)

        async with anyio.create_task_group() as tasks:
            for number in range(count):
                tasks.start_soon(one, number)
        await until(lambda: nothing_held(place if place.kind != "MemoryBackend" else backend), "a hold is left")


async def nothing_held(where: Any) -> bool:
    state = await (stored(where) if isinstance(where, Place) else get_maintenance_state(where))
    return not state.holds


# Processes


@of("file", "redis")
def test_a_hold_of_a_killed_process_is_missing_after_its_time_to_live(place: Place) -> None:
    """With the time until this process reads the store again; before that it stays."""
    ttl = 2.0

    async def wait(process: subprocess.Popen[str]) -> None:
        async with opened(place) as backend:
            assert await get_maintenance_mode(backend) is True
            [hold] = (await stored(place)).holds.values()
            assert hold.expires_at is not None
            assert hold.expires_at - datetime.now(UTC) <= timedelta(seconds=ttl)
            process.kill()
            process.wait(SECONDS)
            await until(lambda: nobody_closes(backend), "the hold stays")

    with holder(place, ttl) as other:
        asyncio.run(wait(other.process))


async def nobody_closes(backend: Any) -> bool:
    return not await get_maintenance_mode(backend)


@of("file", "redis")
def test_a_hold_is_kept_while_its_block_runs_blocking_code(place: Place) -> None:
    """For three times as long as it would live: another process never sees the switch open."""
    ttl = 2.0

    async def watch() -> list[bool]:
        seen = []
        async with opened(place) as backend:
            end = time.monotonic() + 3 * ttl
            while time.monotonic() < end:
                seen.append(await get_maintenance_mode(backend))
                await asyncio.sleep(0.02)
        return seen

    with holder(place, ttl) as other:
        other.tell(f"block {3 * ttl}", "leave")
        seen = asyncio.run(watch())
        assert len(seen) > 50
        assert all(seen)
        assert other.output.read() == "blocked\nleft\n"
        assert other.process.wait(SECONDS) == 0
        assert asyncio.run(stored(place)).holds == {}


def test_overlapping_processes_close_until_the_last_has_left(redis_server: RedisServer) -> None:
    """The first to leave does not open what the second closes, and both leave nothing behind."""
    place = redis_place(redis_server)

    async def check(first: subprocess.Popen[str], second: subprocess.Popen[str]) -> None:
        async with opened(place) as backend:
            assert await get_maintenance_mode(backend) is True
            first.communicate("leave\n", SECONDS)
            for _ in range(20):
                assert await get_maintenance_mode(backend) is True
                await asyncio.sleep(0.02)
            second.communicate("leave\n", SECONDS)
            await until(lambda: nobody_closes(backend), "the switch stays closed")
            state = await get_maintenance_state(backend)
            assert (state.mode, state.holds) == (MaintenanceMode.OFF, {})

    with holder(place, 60) as one, holder(place, 60) as other:
        asyncio.run(check(one.process, other.process))
        assert (one.process.returncode, other.process.returncode) == (0, 0)


@of("file", "redis")
def test_an_operator_can_break_a_hold_of_another_process_which_learns_of_it(place: Place) -> None:
    """Off is refused first, and names the owner."""

    async def operate() -> None:
        async with opened(place) as backend:
            with pytest.raises(SwitchIsHeld, match=r"held on by the process, nothing was changed: .* break") as error:
                await change_mode(False, backend, break_holds=False)
            assert error.value.owners == ("the process",)
            assert await get_maintenance_mode(backend) is True
            await change_mode(False, backend, break_holds=True)
            assert await get_maintenance_mode(backend) is False

    with holder(place, 6) as other:
        asyncio.run(operate())
        version = asyncio.run(stored(place)).version
        other.tell("block 4", "leave")  # a third of its time to live and more
        assert other.output.read().splitlines()[-3:] == ["blocked", "lost", "left"]
        assert asyncio.run(stored(place)).version == version, "the block has written when it left"


# Holds that expired while their blocks ran


@of("file", "redis")
def test_a_hold_of_a_process_that_stood_still_is_lost_and_taken_again(place: Place) -> None:
    """As after SIGSTOP, or in a virtual machine that was suspended: the rest of the block is protected."""
    ttl = 1.0

    async def watch(process: subprocess.Popen[str]) -> None:
        async with opened(place) as backend:
            assert await get_maintenance_mode(backend) is True
            process.send_signal(signal.SIGSTOP)
            await until(lambda: nobody_closes(backend), "the hold stays")
            assert (await stored(place)).holds == {}
            process.send_signal(signal.SIGCONT)
            await until(lambda: get_maintenance_mode(backend), "the hold is not taken again")
            await asyncio.sleep(1.5 * ttl)  # it is renewed from then on
            assert await get_maintenance_mode(backend) is True

    with holder(place, ttl) as other:
        asyncio.run(watch(other.process))
        output, errors = other.process.communicate("leave\n", SECONDS)
        assert output == "lost\nleft\n"
        assert errors.count("is lost, it expired: this process was suspended") == 1
        assert "Traceback" not in errors
    assert asyncio.run(stored(place)).holds == {}


LOST = "is lost, it expired"


@contextlib.asynccontextmanager
async def asleep() -> AsyncIterator[tuple[StoreBackend, Sleep]]:
    """Give a backend whose store's clock the test moves, and nothing is read without a reason."""
    memory = MemoryStore()
    memory.now = datetime.now(UTC).replace(microsecond=0)
    backend = StoreBackend(memory, poll_seconds=3600, timeout_seconds=SECONDS)

    def sleep(block: MaintenanceBlock) -> None:
        """Have all holds of a block expire, as if its process slept; then it wakes."""
        assert memory.now is not None
        memory.now += timedelta(seconds=61)
        [lease] = block._leases
        io_thread.call_soon(lease._check_now)

    try:
        yield backend, sleep
    finally:
        await backend.aclose()


def holds_in(backend: StoreBackend) -> list[timedelta]:
    """Return how long each hold that is stored has left."""
    memory: Any = backend.store
    state = MaintenanceState.from_json(memory.documents["default"][0], where="")
    return [hold.expires_at - memory.now for hold in state.holds.values() if hold.expires_at is not None]


async def test_a_hold_that_expired_is_lost_and_taken_again(caplog: pytest.LogCaptureFixture) -> None:
    """The block learns of it, one line is logged, however often it happens; and the hold is given back at its end."""
    async with asleep() as (backend, sleep):
        async with maintenance_mode_on(backend, ttl=60, owner="this test") as block:
            for _ in range(2):
                sleep(block)
                await until(lambda: holds_in(backend) == [timedelta(seconds=60)], "it is not taken again")
                assert block.lost.is_set()
                await until(lambda: get_maintenance_mode(backend), "it is not effective")
        assert holds_in(backend) == []
        assert await get_maintenance_mode(backend) is False
        assert caplog.text.count(f"the hold of this test on <store of default> {LOST}") == 1


@both_loops
async def test_a_block_can_be_cancelled_when_its_hold_expired() -> None:
    """It raises what happened, and leaves nothing behind."""
    async with asleep() as (backend, sleep):

        async def work() -> None:
            async with maintenance_mode_on(backend, ttl=60, cancel_when_lost=True) as block:
                sleep(block)
                await anyio.sleep(SECONDS)
                raise AssertionError

        with pytest.raises(HoldLost):
            await work()
        assert holds_in(backend) == []


@pytest.mark.parametrize("moment", ["before it wakes", "before it takes the hold again"])
async def test_a_hold_that_was_broken_is_not_taken_again(moment: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither when the operator broke it after it had expired."""
    async with asleep() as (backend, sleep):
        memory: Any = backend.store

        def break_it() -> None:
            memory.before_read = lambda: None
            state = MaintenanceState.from_json(memory.documents["default"][0], where="")
            broken = Change(break_holds=True).applied_to(state, memory.now)
            memory.put("default", broken.to_json())

        async with maintenance_mode_on(backend, ttl=60) as block:
            [lease] = block._leases
            if moment == "before it wakes":
                break_it()
            else:

                def break_it_once_it_is_lost() -> None:
                    if block.lost.is_set():
                        break_it()

                memory.before_read = break_it_once_it_is_lost
            sleep(block)
            await until(lambda: lease._is_missing, "it is taken again")
            assert block.lost.is_set()
            await asyncio.sleep(0.1)
            assert holds_in(backend) == []
            assert (LOST in caplog.text) is (moment != "before it wakes")
            writes = memory.writes
        assert memory.writes == writes, "the block has written when it left"


# Operators


@of("memory", "two methods", "file", "redis", "sqlite")
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("change", [False, True])
async def test_what_an_operator_sets_during_a_block_counts_after_it(place: Place, before: bool, change: bool) -> None:
    async with opened(place) as backend:
        await set_maintenance_mode(before, backend)
        async with maintenance_mode_on(backend):
            await set_maintenance_mode(change, backend)
            assert await get_maintenance_mode(backend) is True
        assert await get_maintenance_mode(backend) is change


@both_loops
@of("memory", "two methods", "file", "redis")
async def test_a_block_can_be_cancelled_when_its_hold_is_lost(place: Place) -> None:
    """It raises what happened, wherever it waited; others go on."""
    async with opened(place) as backend:
        went_on = False
        block = maintenance_mode_on(backend, cancel_when_lost=True)

        async def work() -> None:
            nonlocal went_on
            async with block:
                await change_mode(False, backend, break_holds=True)
                await anyio.sleep(SECONDS)
                went_on = True

        with pytest.raises(HoldLost, match="an operator broke it"):
            await work()
        assert block.lost.is_set()
        assert not went_on
        assert await get_maintenance_mode(backend) is False
        async with maintenance_mode_on(backend, cancel_when_lost=True):
            assert await get_maintenance_mode(backend) is True


@of("memory", "two methods", "file", "redis")
async def test_a_block_that_ends_has_lost_nothing(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """Its hold is missing from then on, as one that was broken is; but nobody is warned of that."""
    async with opened(place) as backend:
        for _ in range(3):
            async with maintenance_mode_on(backend, cancel_when_lost=True) as block:
                pass
            assert not block.lost.is_set()
    assert caplog.records == []


async def test_a_block_that_lost_its_hold_goes_on_unless_it_is_to_be_cancelled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It can ask, it is logged, and leaving is no error."""
    backend = MemoryBackend()
    async with maintenance_mode_on(backend, owner="the night shift") as block:
        assert not block.lost.is_set()
        await change_mode(False, backend, break_holds=True)
        assert block.lost.is_set()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the hold of the night shift on" in caplog.text
    assert view_of(backend)._watched == {}, "it is watched for ever"


async def test_a_hold_that_is_lost_while_it_is_taken_cancels_the_block_at_once() -> None:
    """Between taking and looking after it."""

    class BrokenAtOnce(MemoryBackend):
        async def apply(self, change: Any) -> MaintenanceState:
            state = await super().apply(change)
            if change.put_holds:
                await super().apply(Change(break_holds=True))
            return state

    with pytest.raises(HoldLost):
        async with maintenance_mode_on(BrokenAtOnce(), cancel_when_lost=True):
            await anyio.sleep(SECONDS)


# The end of a block


@of("memory", "two methods", "file", "redis")
@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError])
async def test_a_block_can_keep_its_mode_when_it_fails(place: Place, error: type[BaseException]) -> None:
    """In the same change that drops the hold, with its reason where the store has room; a success lets go."""
    async with opened(place) as backend:
        with pytest.raises(error):
            async with maintenance_mode_on(backend, keep_on_error=True, reason="migration"):
                raise error
        state = await get_maintenance_state(backend)
        assert (state.mode, state.holds) == (MaintenanceMode.ON, {})
        assert state.reason == ("migration" if view_of(backend).stores_reasons else None)
        with pytest.raises(error):
            async with maintenance_mode_off(backend, keep_on_error=True):
                raise error
        assert await get_maintenance_mode(backend) is False
        async with maintenance_mode_on(backend, keep_on_error=True):
            pass
        assert await get_maintenance_mode(backend) is False


async def test_a_mode_can_not_be_kept_where_none_can_be_set() -> None:
    """It is refused before the block runs."""
    with pytest.raises(ReadOnlyBackend, match="keep_on_error needs a backend that can be set"):
        async with maintenance_mode_on(EnvVarBackend(), keep_on_error=True):
            raise AssertionError


async def test_a_mode_that_can_not_be_kept_leaves_the_hold() -> None:
    """The service stays closed for as long as the process lives."""
    with RedisServer(persistent=True) as server:
        place = redis_place(server, timeout_seconds=0.5)
        async with opened(place) as backend:
            block = maintenance_mode_on(backend, keep_on_error=True, ttl=3)
            leases: list[Any] = []

            async def fail() -> None:
                async with block:
                    leases.extend(block._leases)
                    server.kill()
                    raise ZeroDivisionError

            with pytest.raises(BackendUnavailable) as error:
                await fail()
            assert isinstance(error.value.__context__, ZeroDivisionError)
            server.start()
            await asyncio.sleep(4)
            assert await get_maintenance_mode(backend) is True
            assert len((await stored(place)).holds) == 1
            for lease in leases:
                lease.stop_renewing()  # as the end of the process would


async def test_a_hold_survives_that_its_store_is_away_for_longer_than_it_lives(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody opens the service meanwhile; when the store is back, the hold is taken again. Logged once each way."""
    with RedisServer(persistent=True) as server:
        place = redis_place(server, timeout_seconds=0.5)
        async with opened(place) as backend, opened(place) as other:
            assert await get_maintenance_mode(other) is False
            async with maintenance_mode_on(backend, ttl=1.5, owner="this test") as block:
                await until(lambda: get_maintenance_mode(other), "the hold is not seen")
                server.kill()
                for _ in range(60):
                    await asyncio.sleep(0.05)
                    assert await get_maintenance_mode(backend) is True
                    assert await get_maintenance_mode(other) is True
                server.start()
                await until(lambda: "this test is renewed again" in caplog.text, "the hold is not renewed")
                assert await get_maintenance_mode(backend) is True
                assert block.lost.is_set()
                state = await stored(place)
                assert [hold.expires_at > datetime.now(UTC) for hold in state.holds.values() if hold.expires_at] == [
                    True
                ]
            await until(lambda: nobody_closes(other), "the hold stays")
    assert caplog.text.count("hold of this test can't be renewed at the moment") == 1
    assert caplog.text.count("hold of this test is renewed again") == 1
    assert caplog.text.count(f"{LOST}: this process was suspended or the store failed") == 1


async def test_a_hold_that_can_not_be_given_back_is_when_the_store_is_back(caplog: pytest.LogCaptureFixture) -> None:
    """Long before it would expire; leaving the block is no error."""
    with RedisServer(persistent=True) as server:
        place = redis_place(server, timeout_seconds=0.5)
        async with opened(place) as backend:
            async with maintenance_mode_on(backend, ttl=300):
                server.kill()
            assert "can't be released, it expires within 0:05:00" in caplog.text
            server.start()
            await until(lambda: nothing_held(place), "the hold stays")


async def test_a_hold_that_can_not_be_given_back_is_left_to_expire() -> None:
    """When the store stays away for as long as the hold lives, there is nothing to do any more."""
    with RedisServer() as server:
        place = redis_place(server, timeout_seconds=0.2)
        async with opened(place) as backend:
            async with maintenance_mode_on(backend, ttl=2):
                server.kill()
            await asyncio.sleep(4)
            assert await io_thread.run(tries_that_go_on()) == []
            server.start()
            assert (await stored(place)).version == 0, "it was written to all the same"


async def tries_that_go_on() -> list[str]:
    """Return what still tries to give a hold back."""
    return [told for told in map(repr, asyncio.all_tasks()) if "_give_back_later" in told]


async def test_a_hold_is_renewed_soon_after_its_store_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However long it lives, and so however seldom it is renewed."""

    async def fail(change: Change) -> MaintenanceState:
        raise BackendUnavailable("the store", "down")

    async with opened(file_place(tmp_path)) as backend, maintenance_mode_on(backend, ttl=timedelta(days=1)) as block:
        [lease] = block._leases
        with monkeypatch.context() as patch:
            patch.setattr(backend, "apply", fail)
            io_thread.call_soon(lease._check_now)
            await until(lambda: "can't be renewed at the moment" in caplog.text, "the failure is not noticed")
        await until(lambda: "is renewed again" in caplog.text, "the hold is not renewed")


async def test_a_hold_that_never_expires_says_so_when_it_can_not_be_given_back() -> None:
    """Nobody else would take it away."""
    with RedisServer(persistent=True) as server:
        place = redis_place(server, timeout_seconds=0.5)
        async with opened(place) as backend:

            async def work() -> None:
                async with maintenance_mode_on(backend, ttl=None):
                    assert [hold.expires_at for hold in (await stored(place)).holds.values()] == [None]
                    server.kill()

            with pytest.raises(BackendUnavailable):
                await work()
            server.start()
            assert len((await stored(place)).holds) == 1


async def test_of_several_switches_that_can_not_be_given_back_each_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """One is raised, the others are logged, and those that can be given back are."""

    class Stuck(MemoryBackend):
        def __init__(self, why: str) -> None:
            super().__init__()
            self.why = why

        async def apply(self, change: Any) -> MaintenanceState:
            if change.drop_holds:
                raise ConnectionError(self.why)
            return await super().apply(change)

    for name, backend in {"a": Stuck("stuck"), "b": MemoryBackend(), "c": Stuck("also stuck")}.items():
        configure_backend(backend, name=name)
    with pytest.raises(ConnectionError, match=r"^stuck$"):
        async with maintenance_mode_on(name=["a", "b", "c"]):
            assert await get_maintenance_mode(name="b") is True
    assert await get_maintenance_mode(name="b") is False
    assert caplog.text.count("a hold could not be released, so it stays") == 1
    assert "also stuck" in caplog.text


@pytest.mark.parametrize("on_emptied", ["restore", "keep"])
async def test_a_block_that_ends_makes_no_off_of_a_store_that_was_emptied(
    on_emptied: str, redis_server: RedisServer
) -> None:
    """What the operator had set is put back; or the hold is lost with the store, which is left as it is."""
    place = redis_place(redis_server, on_emptied=on_emptied, poll_seconds=3600)
    async with opened(place) as backend:
        await set_maintenance_mode(True, backend)
        async with maintenance_mode_on(backend) as block:
            redis_server.run("DEL", backend.key)
        assert block.lost.is_set() is (on_emptied == "keep")
        assert redis_server.run("EXISTS", backend.key) == (on_emptied == "restore")
        if on_emptied == "restore":
            state = await stored(place)
            assert (state.mode, state.holds) == (MaintenanceMode.ON, {})


# What a hold says


async def test_a_hold_says_whose_it_is() -> None:
    """The code that made it, the process and the host; or what was given."""
    backend = MemoryBackend()

    @maintenance_mode_on(backend)
    async def migrate() -> str:
        [hold] = (await get_maintenance_state(backend)).holds.values()
        return hold.owner

    assert "test_a_hold_says_whose_it_is.<locals>.migrate in process" in await migrate()
    async with maintenance_mode_on(backend), maintenance_mode_off(backend, owner="me", reason="test"):
        mine, other = (await get_maintenance_state(backend)).holds.values()
        assert "tests.holds.test_holds.test_a_hold_says_whose_it_is in process" in mine.owner
        assert (other.owner, other.reason, other.masks) == ("me", "test", frozenset(await ids_of(backend, "on")))
    assert repr(maintenance_mode_on(name=["a", "b"])) == "<maintenance_mode_on of a, b>"


async def ids_of(backend: Any, kind: str) -> list[str]:
    return [id_ for id_, hold in (await get_maintenance_state(backend)).holds.items() if hold.kind == kind]


class AnHourAhead(datetime):
    """The clock of a host that is an hour ahead."""

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return datetime.now(tz) + timedelta(hours=1)


@of("redis", "postgresql")
async def test_a_hold_expires_by_the_clock_of_its_store(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken and read by a host whose clock is an hour ahead, it is as far from its end as for everybody else.

    Also where nothing was stored before it.
    """
    for module in "stores.stored_switch", "switches.views.follower", "holds.block":
        monkeypatch.setattr(f"fastapi_maintenance.{module}.datetime", AnHourAhead)
    async with opened(place) as backend, maintenance_mode_on(backend, ttl=300):
        [hold] = (await stored(place)).holds.values()
        assert hold.expires_at is not None
        assert timedelta(seconds=250) < hold.expires_at - datetime.now(UTC) < timedelta(seconds=310)
        assert await get_maintenance_mode(backend) is True


async def test_several_switches_are_held_all_or_none() -> None:
    """One that can't be held gives the others back."""

    class Full(MemoryBackend):
        async def apply(self, change: Any) -> MaintenanceState:
            raise ConnectionError("full")

    backends = {name: configure_backend(MemoryBackend(), name=name) for name in ("a", "b")}
    async with maintenance_mode_on(name=["a", "b", "a"]):
        assert [await get_maintenance_mode(name=name) for name in backends] == [True, True]
        async with maintenance_mode_off(name=["a", "b"]):
            assert [await get_maintenance_mode(name=name) for name in backends] == [False, False]
    assert [await get_maintenance_mode(name=name) for name in backends] == [False, False]
    configure_backend(Full(), name="c")
    with pytest.raises(ConnectionError, match="full"):
        async with maintenance_mode_on(name=["a", "c", "b"]):
            raise AssertionError
    assert [len((await get_maintenance_state(name=name)).holds) for name in ("a", "b")] == [0, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ttl": 0.5}, "ttl must be seconds or a timedelta from 1 s to 366 days, or None to never expire, got 0.5"),
        ({"ttl": True}, "ttl must be .* got True"),
        ({"ttl": "60"}, "ttl must be .* got '60'"),
        ({"ttl": float("nan")}, "ttl must be .* got nan"),
        ({"ttl": 1e300}, "ttl must be .* got 1e"),
        ({"ttl": timedelta(days=400)}, "ttl must be .* got datetime.timedelta"),
        ({"name": []}, "name must contain at least one switch, got "),
        ({"name": ["a", "B"]}, "invalid switch name 'B'"),
        ({"keep_on_error": 1}, "keep_on_error must be True or False, got 1"),
        ({"cancel_when_lost": None}, "cancel_when_lost must be True or False, got None"),
        ({"reason": 1}, "reason must be a string that UTF-8 can encode, got 1"),
        ({"owner": 1}, "owner must be a string, got 1"),
    ],
)
def test_what_can_not_work_is_refused_where_the_block_is_made(options: Any, message: str) -> None:
    for make in maintenance_mode_on, maintenance_mode_off:
        with pytest.raises(ValueError, match=message):
            make(MemoryBackend(), **options)


async def test_a_time_to_live_may_be_a_duration(tmp_path: Path) -> None:
    place = file_place(tmp_path)
    async with opened(place) as backend, maintenance_mode_on(backend, ttl=timedelta(minutes=5)):
        [hold] = (await stored(place)).holds.values()
        assert hold.expires_at is not None
        assert hold.expires_at > datetime.now(UTC) + timedelta(minutes=4)


async def test_memory_environment_and_two_methods_start_no_thread(tmp_path: Path) -> None:
    """Their holds live in this process, which needs no heart for them."""
    before = threading.active_count()
    for backend in MemoryBackend(), EnvVarBackend(), TwoMethods(str(tmp_path / "switch")):
        async with maintenance_mode_on(backend):
            assert await get_maintenance_mode(backend) is True
        assert not view_of(backend).has_leases
    assert threading.active_count() <= before
    assert view_of(LocalFileBackend(tmp_path / "x")).has_leases
    assert view_of(RedisBackend()).has_leases
