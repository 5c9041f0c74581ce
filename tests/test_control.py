"""Changing switches: modes, blocks in any order and under any cancellation, and which switch a call means."""

from __future__ import annotations

import asyncio
import gc
import inspect
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi import Depends, FastAPI
from hypothesis import given
from hypothesis import strategies as st

from fastapi_maintenance import (
    AmbiguousSwitch,
    InvalidConfiguration,
    InvalidSwitchName,
    Knowledge,
    MaintenanceMode,
    MaintenanceModeMiddleware,
    MaintenanceState,
    ReadOnlyBackend,
    SwitchStatus,
    UnsupportedByBackend,
    configure_backend,
    force_maintenance_mode_off,
    get_maintenance_mode,
    get_maintenance_state,
    get_maintenance_status,
    is_maintenance_on,
    maintenance_mode_off,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import BaseStateBackend, LocalFileBackend, MemoryBackend
from fastapi_maintenance.registry import AppSwitch, registry

from .asgi import get, lifespan, status
from .scripts import output_of
from .traffic import wait_until

pytestmark = pytest.mark.anyio

both_loops = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


class Slow(BaseStateBackend):
    """A user's backend that lets others run before and after it does what it does."""

    def __init__(self, value: bool = False) -> None:
        self.value = value

    async def get_value(self) -> bool:
        await anyio.lowlevel.checkpoint()
        value = self.value
        await anyio.lowlevel.checkpoint()
        return value

    async def set_value(self, value: bool) -> None:
        await anyio.lowlevel.checkpoint()
        self.value = value
        await anyio.lowlevel.checkpoint()


make_backend = pytest.mark.parametrize("make", [MemoryBackend, Slow])
Make = Callable[[bool], BaseStateBackend]


def app_with(**options: Any) -> FastAPI:
    """Return an app with the middleware and an endpoint that tells what it is told."""
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, **options)

    @app.get("/mode")
    @force_maintenance_mode_off
    async def mode() -> bool:
        return await get_maintenance_mode()

    @app.get("/normal")
    async def normal() -> str:
        return "normal"

    return app


# Setting and asking


@both_loops
@make_backend
async def test_what_is_set_is_what_is_got(make: Make) -> None:
    """For the backend that the call names."""
    backend = make(False)
    assert await get_maintenance_mode(backend) is False
    await set_maintenance_mode(True, backend)
    assert await get_maintenance_mode(backend) is True
    assert await backend.get_value() is True
    await set_maintenance_mode("off", backend)
    assert await get_maintenance_mode(backend) is False


async def test_read_only_is_maintenance_too() -> None:
    """Something is blocked."""
    backend = MemoryBackend()
    await set_maintenance_mode("read_only", backend)
    assert await get_maintenance_mode(backend) is True
    assert (await get_maintenance_state(backend)).mode is MaintenanceMode.READ_ONLY


async def test_the_state_has_what_was_said() -> None:
    """Mode, reason, end, and when it began."""
    backend, before = MemoryBackend(), datetime.now(UTC)
    until = before + timedelta(hours=1)
    await set_maintenance_mode(MaintenanceMode.ON, backend, reason="new disks", until=until)
    state = await get_maintenance_state(backend)
    assert (state.mode, state.reason, state.until) == (MaintenanceMode.ON, "new disks", until)
    assert state.since is not None
    assert before <= state.since <= datetime.now(UTC)


async def test_maintenance_ends_by_itself() -> None:
    """After its end the stored mode counts no more, though it is still told."""
    now = datetime.now(UTC)
    backend = MemoryBackend()
    await set_maintenance_mode(True, backend, until=now + timedelta(hours=1))
    state = await get_maintenance_state(backend)
    assert state.mode_at(now + timedelta(hours=1)) is MaintenanceMode.OFF


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        ("maybe", {}, "maintenance mode 'maybe': accepted are True, False, 'off', 'on', 'read_only'"),
        (1, {}, "maintenance mode 1: accepted"),
        (True, {"until": datetime(2100, 1, 1)}, "until 2100-01-01 00:00:00 has no time zone"),  # noqa: DTZ001
        (True, {"until": datetime.max.replace(tzinfo=timezone(-timedelta(hours=1)))}, "outside of the years 1 to"),
        (True, {"until": datetime(2020, 1, 1, tzinfo=UTC)}, "that is over"),
        (True, {"until": 3600}, "until=3600: an aware datetime is needed"),
        (False, {"until": datetime(2100, 1, 1, tzinfo=UTC)}, "until goes with a mode that blocks"),
    ],
)
async def test_what_can_not_be_set_is_refused(value: Any, options: dict[str, Any], message: str) -> None:
    """With the value and what is accepted; nothing is changed."""
    backend = MemoryBackend()
    with pytest.raises(InvalidConfiguration, match=message):
        await set_maintenance_mode(value, backend, **options)
    assert backend.peek() == MaintenanceState()


async def test_a_switch_that_can_not_move_says_so() -> None:
    """The environment can't be set, and a plain bit can't keep a reason."""
    with pytest.raises(ReadOnlyBackend):
        await set_maintenance_mode(True)
    with pytest.raises(UnsupportedByBackend, match="can't keep a reason"):
        await set_maintenance_mode(True, Slow(), reason="new disks")


def sync(function: Callable[..., object]) -> Callable[..., Any]:
    """Return an async function that calls a sync one."""

    async def call(*arguments: Any, **options: Any) -> object:
        return function(*arguments, **options)

    return call


@pytest.mark.parametrize(
    "use",
    [
        get_maintenance_mode,
        get_maintenance_state,
        sync(get_maintenance_status),
        sync(is_maintenance_on),
        lambda backend, **options: set_maintenance_mode(True, backend, **options),
        lambda backend, **options: maintenance_mode_on(backend, **options).__aenter__(),
        lambda backend, **options: maintenance_mode_off(backend, **options).__aenter__(),
    ],
)
async def test_what_is_no_backend_or_no_name_is_refused_by_every_call(use: Any) -> None:
    """With the value in the message."""
    with pytest.raises(InvalidConfiguration, match="backend='memory': an instance"):
        await use("memory")
    with pytest.raises(InvalidSwitchName, match="'Billing'"):
        await use(None, name="Billing")


async def test_a_named_switch_is_another_switch() -> None:
    """Setting one leaves the other."""
    configure_backend("memory")
    await set_maintenance_mode(True, name="billing")
    assert await get_maintenance_mode(name="billing")
    assert not await get_maintenance_mode()
    async with maintenance_mode_off(name="billing"), maintenance_mode_on():
        assert not await get_maintenance_mode(name="billing")
        assert await get_maintenance_mode()


@pytest.mark.parametrize("reason", [5, b"new disks", ["new disks"], "\ud800"])
async def test_a_reason_is_a_text(reason: Any) -> None:
    """What stores could not keep, or clients not read, is refused before anything is changed."""
    backend = MemoryBackend()
    with pytest.raises(InvalidConfiguration, match=r"reason=.*: a text is needed"):
        await set_maintenance_mode(True, backend, reason=reason)
    for block in (maintenance_mode_on, maintenance_mode_off):
        with pytest.raises(InvalidConfiguration, match=r"reason=.*: a text is needed"):
            block(backend, reason=reason)
    assert backend.peek() == MaintenanceState()


# How well a switch is known


async def test_a_status_tells_how_well_a_switch_is_known(tmp_path: Path) -> None:
    """Without asking the store: until somebody needs to know what it says, nobody does."""
    path = tmp_path / "switch"
    backend = LocalFileBackend(path)
    assert get_maintenance_status(backend) == SwitchStatus(Knowledge.NOT_READY)
    await set_maintenance_mode("read_only", backend)
    assert get_maintenance_status(backend) == SwitchStatus(Knowledge.NOT_READY)
    state = await get_maintenance_state(backend)
    status = get_maintenance_status(backend)
    assert (status.knowledge, status.version, status.last_error) == ("ready", state.version, None)
    assert status.age_seconds is not None
    assert 0 <= status.age_seconds < 60
    path.write_text("garbage")
    await asyncio.to_thread(wait_until, lambda: get_maintenance_status(backend).knowledge is Knowledge.STALE, 20)
    status = get_maintenance_status(backend)
    assert status.version == state.version
    assert "'garbage' is neither" in (status.last_error or "")
    assert await get_maintenance_state(backend) == state
    await backend.aclose()


async def test_a_status_is_that_of_the_switch_that_is_meant() -> None:
    """By backend, by name, or the one of the app that is answering."""
    configure_backend("memory")
    billing = configure_backend("memory", name="billing")
    await set_maintenance_mode(True, billing)
    assert get_maintenance_status().version == 0
    assert get_maintenance_status(name="billing").version == 1
    assert get_maintenance_status(billing).version == 1
    app = app_with(backend=billing)

    @app.get("/status")
    @force_maintenance_mode_off
    async def version() -> int | None:
        return get_maintenance_status().version

    assert (await get(app, "/status")).json() == 1
    with pytest.raises(InvalidSwitchName):
        get_maintenance_status(name="Billing")


def test_a_failing_backend_of_two_methods_is_stale() -> None:
    """What it last said counts."""
    backend = Down(True)
    assert is_maintenance_on(backend)
    assert get_maintenance_status(backend).knowledge is Knowledge.READY
    backend.is_down = True
    assert is_maintenance_on(backend)
    assert get_maintenance_status(backend).knowledge is Knowledge.STALE


# Asking without an event loop


@pytest.mark.parametrize(("mode", "is_on"), [("on", True), ("off", False), ("read_only", True)])
def test_code_without_an_event_loop_can_ask(
    mode: MaintenanceMode, is_on: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the backend is: the variable, memory, a file, a user's own."""
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", mode)
    assert is_maintenance_on() is is_on
    assert is_maintenance_on(MemoryBackend(mode)) is is_on
    assert is_maintenance_on(Slow(is_on)) is is_on
    path = tmp_path / "switch"
    path.write_text(mode)
    configure_backend("file", file_path=path)
    assert is_maintenance_on() is is_on
    path.unlink()
    asyncio.run(closed(configure_backend("file", file_path=path)))


async def closed(backend: Any) -> None:
    await backend.aclose()


def test_code_without_an_event_loop_asks_for_the_switch_that_is_meant() -> None:
    """By the same rules as everybody."""
    configure_backend("memory", name="billing", initial=True)
    assert is_maintenance_on(name="billing")
    assert not is_maintenance_on()
    with pytest.raises(InvalidSwitchName):
        is_maintenance_on(name="Billing")
    apps = [AppSwitch(MemoryBackend()), AppSwitch(MemoryBackend())]
    for app in apps:
        registry.add_app(app)
    with pytest.raises(AmbiguousSwitch):
        is_maintenance_on()


@both_loops
async def test_asking_so_on_an_event_loop_is_refused_where_it_would_block() -> None:
    """The message has what to do; what is known already is told."""
    with pytest.raises(RuntimeError, match="use `await get_maintenance_mode"):
        is_maintenance_on(Slow(True))
    assert is_maintenance_on(MemoryBackend(True))
    assert not is_maintenance_on()


async def test_asking_so_in_a_callback_is_refused_as_well() -> None:
    """No task runs there, and the loop is blocked all the same."""
    raised: list[str] = []

    def callback() -> None:
        try:
            is_maintenance_on(Slow(True))
        except RuntimeError as error:
            raised.append(str(error))

    asyncio.get_running_loop().call_soon(callback)
    await asyncio.sleep(0)
    (message,) = raised
    assert "would block this event loop" in message


async def test_asking_so_on_an_event_loop_is_refused_until_the_store_was_read(tmp_path: Path) -> None:
    """Then its last copy is there for everybody."""
    path = tmp_path / "switch"
    path.write_text("1")
    backend = LocalFileBackend(path)
    with pytest.raises(RuntimeError, match="would block this event loop"):
        is_maintenance_on(backend)
    assert await anyio.to_thread.run_sync(is_maintenance_on, backend)
    assert is_maintenance_on(backend)
    await backend.aclose()


@both_loops
async def test_a_thread_of_an_event_loop_can_ask() -> None:
    """It blocks nobody."""
    assert await anyio.to_thread.run_sync(is_maintenance_on, Slow(True))
    assert not await anyio.to_thread.run_sync(is_maintenance_on, Slow(False))


@pytest.mark.parametrize("enable", [None, True, False])
@pytest.mark.parametrize("stored", [True, False])
async def test_a_sync_endpoint_asks_for_the_app_that_answers(enable: bool | None, stored: bool) -> None:
    """With its ``enable_maintenance``, as an async one does; what is stored can be asked for by its backend."""
    backend = Slow(stored)
    app = app_with(backend=backend, enable_maintenance=enable)

    @app.get("/sync")
    @force_maintenance_mode_off
    def ask() -> list[bool]:
        return [is_maintenance_on(), is_maintenance_on(backend)]

    counts = stored if enable is None else enable
    assert (await get(app, "/sync")).json() == [counts, stored]
    assert (await get(app, "/mode")).json() is counts


FORKED_WORKER = """
import os, sys
from pathlib import Path
from fastapi_maintenance import configure_backend, get_maintenance_status, is_maintenance_on

path = Path(sys.argv[1])
path.write_text("1")
configure_backend("file", file_path=path, poll_seconds=3600)
if sys.argv[2] == "asked before":
    assert is_maintenance_on()
path.write_text("0")
child = os.fork()
if not child:
    assert get_maintenance_status().knowledge == "not_ready"
    assert not is_maintenance_on()
    assert get_maintenance_status().knowledge == "ready"
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
assert is_maintenance_on() is (sys.argv[2] == "asked before")
print("done")
"""


@pytest.mark.parametrize("parent", ["asked before", "never asked"])
def test_a_forked_worker_can_ask(parent: str, tmp_path: Path) -> None:
    """Job queues fork their workers; each asks the store for itself, whatever its parent knew."""
    assert output_of(FORKED_WORKER, tmp_path / "switch", parent) == "done\n"


# Blocks


@both_loops
@make_backend
@pytest.mark.parametrize("stored", [True, False])
async def test_a_block_holds_its_switch_for_its_duration(make: Make, stored: bool) -> None:
    """On or off; before and after, the stored mode counts."""
    backend = make(stored)
    async with maintenance_mode_on(backend):
        assert await get_maintenance_mode(backend) is True
    assert await get_maintenance_mode(backend) is stored
    async with maintenance_mode_off(backend):
        assert await get_maintenance_mode(backend) is False
    assert await get_maintenance_mode(backend) is stored
    assert await backend.get_value() is stored


async def test_a_block_tells_its_reason() -> None:
    """To clients and colleagues, while the stored mode stays what it is."""
    backend = MemoryBackend()
    async with maintenance_mode_on(backend, reason="migrating"):
        state = await get_maintenance_state(backend)
        assert state.mode is MaintenanceMode.OFF
        assert state.explanation_at(datetime.now(UTC))[:2] == ("migrating", None)
    assert not (await get_maintenance_state(backend)).holds


@make_backend
async def test_a_block_that_fails_lets_go_and_its_error_through(make: Make) -> None:
    """The error is the block's own."""
    backend = make(False)
    with pytest.raises(ZeroDivisionError):
        async with maintenance_mode_on(backend):
            _ = 1 / 0
    assert await get_maintenance_mode(backend) is False
    assert await backend.get_value() is False


@make_backend
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("stored", [True, False])
async def test_blocks_may_end_in_any_order(make: Make, order: tuple[int, ...], stored: bool) -> None:
    """The switch stays on until the last one leaves, and then is what it was."""
    backend = make(stored)
    blocks = [maintenance_mode_on(backend) for _ in order]
    for block in blocks:
        await block.__aenter__()
    for index in order:
        assert await get_maintenance_mode(backend) is True
        await blocks[index].__aexit__(None, None, None)
    assert await get_maintenance_mode(backend) is stored
    assert await backend.get_value() is stored


@both_loops
@make_backend
async def test_overlapping_tasks_never_open_each_others_maintenance(make: Make) -> None:
    """Many tasks enter and leave at random moments; while any is inside, the switch is on."""
    backend = make(False)
    seen: list[bool] = []

    async def work(before: int, inside: int) -> None:
        for _ in range(before):
            await anyio.lowlevel.checkpoint()
        async with maintenance_mode_on(backend):
            for _ in range(inside):
                seen.append(await get_maintenance_mode(backend))
                await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(work, number * 7 % 11, 1 + number * 5 % 7)
    assert seen
    assert all(seen)
    assert await get_maintenance_mode(backend) is False
    assert await backend.get_value() is False


@make_backend
async def test_an_off_block_opens_the_on_blocks_that_enclose_it(make: Make) -> None:
    """All of them, and only for its duration."""
    backend = make(True)
    async with maintenance_mode_on(backend), maintenance_mode_on(backend):
        async with maintenance_mode_off(backend):
            assert await get_maintenance_mode(backend) is False
            async with maintenance_mode_on(backend):
                assert await get_maintenance_mode(backend) is True
            assert await get_maintenance_mode(backend) is False
        assert await get_maintenance_mode(backend) is True


@both_loops
@make_backend
async def test_an_off_block_does_not_open_what_other_code_closed(make: Make) -> None:
    """A block of another task is somebody else's migration."""
    backend = make(False)
    entered, leave = anyio.Event(), anyio.Event()

    async def migration() -> None:
        async with maintenance_mode_on(backend):
            entered.set()
            await leave.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(migration)
        await entered.wait()
        async with maintenance_mode_off(backend):
            assert await get_maintenance_mode(backend) is True
        async with maintenance_mode_on(backend), maintenance_mode_off(backend):
            assert await get_maintenance_mode(backend) is True
        leave.set()
    assert await get_maintenance_mode(backend) is False


async def test_a_task_that_a_block_started_is_inside_of_it() -> None:
    """Its context is a copy of the block's, so it can open what its caller closed."""
    backend = MemoryBackend()

    async def child() -> bool:
        async with maintenance_mode_off(backend):
            return await get_maintenance_mode(backend)

    async with maintenance_mode_on(backend):
        assert await asyncio.create_task(child()) is False


async def test_a_block_that_has_ended_encloses_nothing() -> None:
    """Neither what comes after it, nor a block of another backend."""
    backend, other = MemoryBackend(), MemoryBackend()
    async with maintenance_mode_on(backend):
        pass
    outer = maintenance_mode_on(other)
    await asyncio.create_task(enter(outer))
    async with maintenance_mode_on(backend), maintenance_mode_off(other):
        assert await get_maintenance_mode(other) is True
        assert not any(hold.masks for hold in other.peek().holds.values())
    await outer.__aexit__(None, None, None)
    assert await get_maintenance_mode(other) is False


async def enter(block: Any) -> None:
    await block.__aenter__()


async def test_a_block_may_end_in_another_task_than_it_began_in() -> None:
    """Fixtures and dependencies with ``yield`` do that."""
    backend = MemoryBackend()
    block = maintenance_mode_on(backend)
    await asyncio.create_task(enter(block))
    assert await get_maintenance_mode(backend) is True
    await block.__aexit__(None, None, None)
    assert await get_maintenance_mode(backend) is False


@make_backend
@pytest.mark.parametrize(("block", "held"), [(maintenance_mode_on, True), (maintenance_mode_off, False)])
@pytest.mark.parametrize(("stored", "meanwhile"), list(itertools.product([True, False], repeat=2)))
async def test_what_an_operator_sets_during_a_block_survives_it(
    make: Make, block: Any, held: bool, stored: bool, meanwhile: bool
) -> None:
    """The block counts for its duration, the operator afterwards."""
    backend = make(stored)
    async with block(backend):
        await set_maintenance_mode(meanwhile, backend)
        assert await get_maintenance_mode(backend) is held
    assert await get_maintenance_mode(backend) is meanwhile
    assert await backend.get_value() is meanwhile


async def test_a_block_gives_itself() -> None:
    """So that ``as`` has something."""
    block = maintenance_mode_on(MemoryBackend())
    async with block as entered:
        assert entered is block


async def test_a_block_is_entered_once_at_a_time() -> None:
    """A second entry would lose the first one's hold; after its end it may be entered again."""
    backend = MemoryBackend()
    block = maintenance_mode_on(backend)
    async with block:
        with pytest.raises(RuntimeError, match="entered already; make a new maintenance_mode_on/off"):
            await block.__aenter__()
    assert await get_maintenance_mode(backend) is False
    async with block:
        assert await get_maintenance_mode(backend) is True
    with pytest.raises(RuntimeError, match="this block was never entered"):
        await block.__aexit__(None, None, None)


async def test_a_block_that_could_not_be_entered_may_be_tried_again() -> None:
    """The store was down for a moment."""

    class Flaky(Slow):
        works = False

        async def set_value(self, value: bool) -> None:
            if not self.works:
                raise ConnectionError
            await super().set_value(value)

    backend = Flaky()
    block = maintenance_mode_on(backend)
    with pytest.raises(ConnectionError):
        await block.__aenter__()
    backend.works = True
    async with block:
        assert await get_maintenance_mode(backend) is True
    assert await get_maintenance_mode(backend) is False


async def test_a_block_whose_entry_was_stored_but_not_confirmed_is_taken_back() -> None:
    """A time-out tells nothing about what the store did, and the block is not entered."""

    class LosesAnAnswer(Slow):
        loses = True

        async def set_value(self, value: bool) -> None:
            await super().set_value(value)
            if self.loses:
                self.loses = False
                raise TimeoutError

    backend = LosesAnAnswer()
    with pytest.raises(TimeoutError):
        await maintenance_mode_on(backend).__aenter__()
    assert backend.value is False
    assert await get_maintenance_mode(backend) is False


class Down(Slow):
    """A store that fails from some moment on."""

    is_down = False

    async def get_value(self) -> bool:
        if self.is_down:
            raise ConnectionError("down")
        return await super().get_value()

    async def set_value(self, value: bool) -> None:
        if self.is_down:
            raise ConnectionError("down")
        await super().set_value(value)


async def test_a_block_that_its_store_fails_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """On the way in the block's code does not run; what can't be taken back is logged, and nothing is held here."""
    backend = Down()
    backend.is_down = True
    with pytest.raises(ConnectionError, match="down"):
        async with maintenance_mode_on(backend):
            raise AssertionError
    assert await get_maintenance_mode(backend) is False
    assert "could not be given back" in caplog.text
    backend.is_down = False
    assert await get_maintenance_mode(backend) is False


async def test_a_block_whose_store_fails_at_its_end_says_so() -> None:
    """The error comes out of the block, with the block's own one as its context."""
    backend = Down()

    async def work() -> None:
        async with maintenance_mode_on(backend):
            backend.is_down = True
            raise ZeroDivisionError

    with pytest.raises(ConnectionError, match="down") as error:
        await work()
    assert isinstance(error.value.__context__, ZeroDivisionError)
    assert await get_maintenance_mode(backend) is False


async def test_a_store_that_fails_while_a_cancelled_block_lets_go_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The cancellation counts, and the failure is not lost either."""
    backend = Down()
    entered = asyncio.Event()

    async def work() -> None:
        async with maintenance_mode_on(backend):
            entered.set()
            await asyncio.sleep(3600)

    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    task = asyncio.create_task(work())
    await entered.wait()
    backend.is_down = True
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises((asyncio.CancelledError, ConnectionError)) as error:
        await task
    told = isinstance(error.value, ConnectionError) or "down" in caplog.text
    del task, error
    gc.collect()
    assert unhandled == []
    assert told


steps = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["on", "off"])), max_size=16)


@given(st.booleans(), steps, st.booleans())
def test_blocks_in_any_interleaving_leave_the_stored_mode(
    initial: bool, steps: list[tuple[str, str]], memory: bool
) -> None:
    """Each step enters a block or leaves the one of that name; an on-block of another task always wins."""

    async def run() -> None:
        backend = MemoryBackend(initial) if memory else Slow(initial)
        inside: dict[str, Any] = {}
        for name, kind in steps:
            if name in inside:
                await asyncio.create_task(inside.pop(name)[1].__aexit__(None, None, None))
            else:
                block = maintenance_mode_on(backend) if kind == "on" else maintenance_mode_off(backend)
                inside[name] = (kind, block)
                await asyncio.create_task(enter(block))  # a context of its own: nothing encloses it
            kinds = {kind for kind, _ in inside.values()}
            assert await get_maintenance_mode(backend) is ("on" in kinds or (not kinds and initial))
        for _, block in inside.values():
            await block.__aexit__(None, None, None)
        assert await get_maintenance_mode(backend) is initial
        assert await backend.get_value() is initial

    asyncio.run(run())


# Cancellation


@make_backend
@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("cancellations", [1, 3])
async def test_a_task_cancelled_at_any_point_leaves_nothing_held(make: Make, others: int, cancellations: int) -> None:
    """Before, while entering, inside, while leaving, and again while it leaves: the switch is what it was."""
    for ticks in range(40):
        backend, before = make(False), asyncio.all_tasks()

        async def work(backend: BaseStateBackend = backend) -> None:
            async with maintenance_mode_on(backend):
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(work()) for _ in range(1 + others)]
        for _ in range(ticks):
            await asyncio.sleep(0)
        for _ in range(cancellations):
            tasks[0].cancel()
            await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*asyncio.all_tasks() - before)  # whatever finishes its work in the background
        assert await get_maintenance_mode(backend) is False, f"cancelled after {ticks} ticks"
        assert await backend.get_value() is False, f"cancelled after {ticks} ticks"


@both_loops
@make_backend
@pytest.mark.parametrize("others", [0, 1])
async def test_a_scope_cancelled_at_any_point_leaves_nothing_held(make: Make, others: int) -> None:
    """The same for structured cancellation, as by a time-out."""
    for ticks in range(40):
        backend = make(False)

        async def work(scope: anyio.CancelScope, backend: BaseStateBackend = backend) -> None:
            with scope:
                async with maintenance_mode_on(backend):
                    await anyio.lowlevel.checkpoint()

        scopes = [anyio.CancelScope() for _ in range(1 + others)]
        async with anyio.create_task_group() as tasks:
            for scope in scopes:
                tasks.start_soon(work, scope)
            for _ in range(ticks):
                await anyio.lowlevel.checkpoint()
            scopes[0].cancel()
        assert await get_maintenance_mode(backend) is False, f"cancelled after {ticks} ticks"
        assert await backend.get_value() is False, f"cancelled after {ticks} ticks"


@both_loops
async def test_a_block_lets_go_when_everything_is_cancelled() -> None:
    """The way out is shielded, also where its store takes its time."""
    backend = Slow()
    with anyio.CancelScope() as scope:
        async with maintenance_mode_on(backend):
            scope.cancel()
            await anyio.sleep_forever()
    assert backend.value is False
    assert await get_maintenance_mode(backend) is False


# Decorators


@both_loops
async def test_a_decorated_function_holds_the_switch_whenever_it_runs() -> None:
    """With its own block for each call, so that calls may overlap."""
    backend = MemoryBackend()

    @maintenance_mode_on(backend, reason="migrating")
    async def migrate(depth: int, *, label: str) -> str:
        """Migrate."""
        assert await get_maintenance_mode(backend) is True
        assert len(backend.peek().holds) >= depth
        await anyio.lowlevel.checkpoint()
        return await migrate(depth + 1, label=label) if depth < 3 else label

    assert await migrate(1, label="done") == "done"
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(run, migrate)
    assert await get_maintenance_mode(backend) is False
    assert (migrate.__name__, migrate.__doc__) == ("migrate", "Migrate.")
    assert inspect.iscoroutinefunction(migrate)
    assert list(inspect.signature(migrate).parameters) == ["depth", "label"]


async def run(migrate: Any) -> None:
    await migrate(1, label="done")


async def test_a_decorated_function_may_hold_the_switch_off() -> None:
    """Inside of a block that holds it on."""
    backend = MemoryBackend(True)

    @maintenance_mode_off(backend)
    async def check() -> bool:
        return await get_maintenance_mode(backend)

    async with maintenance_mode_on(backend):
        assert await check() is False
        assert await get_maintenance_mode(backend) is True


async def test_only_async_functions_can_be_decorated() -> None:
    """Inside a sync one, or a generator, there is nowhere to hold a switch from."""

    def function() -> None: ...

    async def generator() -> AsyncIterator[int]:
        yield 1

    for wrong in (function, generator):
        decorator: Any = maintenance_mode_on(MemoryBackend())
        with pytest.raises(TypeError, match="is not an async function"):
            decorator(wrong)


# Which switch a call means


async def test_outside_of_requests_the_configured_switch_is_meant() -> None:
    """Or the environment's."""
    assert await get_maintenance_mode() is False
    backend = configure_backend("memory")
    await set_maintenance_mode(True)
    assert await backend.get_value() is True
    async with maintenance_mode_off():
        assert await get_maintenance_mode(backend) is False


async def test_outside_of_requests_the_only_app_with_a_backend_is_meant() -> None:
    """Once it is built, whoever asked before that."""
    assert await get_maintenance_mode() is False
    backend = MemoryBackend()
    app = app_with(backend=backend)
    await lifespan(app)
    await set_maintenance_mode(True)
    assert await backend.get_value() is True
    assert await status(app, "/normal") == 503
    async with maintenance_mode_off():
        assert await status(app, "/normal") == 200


async def test_outside_of_requests_several_apps_are_ambiguous() -> None:
    """Each call asks for the backend."""
    apps = [app_with(backend=MemoryBackend()) for _ in range(2)]
    for app in apps:
        await lifespan(app)
    calls: list[Callable[[], Any]] = [
        get_maintenance_mode,
        get_maintenance_state,
        lambda: set_maintenance_mode(True),
        lambda: maintenance_mode_on().__aenter__(),
        maintenance_mode_on()(nothing),
    ]
    for call in calls:
        with pytest.raises(AmbiguousSwitch, match="2 apps in this process have a backend of their own: pass backend="):
            await call()


async def nothing() -> None: ...


async def test_inside_of_a_request_the_answering_app_is_meant() -> None:
    """However many there are."""
    open_app, closed_app = app_with(backend=MemoryBackend()), app_with(backend=MemoryBackend(True))
    assert (await get(open_app, "/mode")).json() is False
    assert (await get(closed_app, "/mode")).json() is True
    assert (await get(open_app, "/mode")).json() is False


async def test_a_block_means_the_switch_of_where_it_is_entered() -> None:
    """Not that of where it was made."""
    configured, own = configure_backend("memory"), MemoryBackend()
    block = maintenance_mode_on()
    app = app_with(backend=own)

    @app.get("/block")
    async def enter_block() -> tuple[bool, bool]:
        async with block:
            return await get_maintenance_mode(own), await get_maintenance_mode(configured)

    assert (await get(app, "/block")).json() == [True, False]


@pytest.mark.parametrize("enable", [True, False])
async def test_inside_of_a_request_enable_maintenance_counts(enable: bool) -> None:
    """It is what counts for the app; what is stored can be asked for by its backend."""
    backend = MemoryBackend(not enable)
    app = app_with(backend=backend, enable_maintenance=enable)

    @app.get("/stored")
    @force_maintenance_mode_off
    async def stored() -> list[bool]:
        async with maintenance_mode_on() if not enable else maintenance_mode_off():
            held = await get_maintenance_mode()
        named = await get_maintenance_mode(name="billing")  # it has nothing to do with the app's option
        return [await get_maintenance_mode(), await get_maintenance_mode(backend), held, named]

    assert (await get(app, "/stored")).json() == [enable, not enable, not enable, False]


async def test_outside_of_requests_enable_maintenance_does_not_count() -> None:
    """It belongs to the app, not to the switch."""
    backend = MemoryBackend()
    app = app_with(backend=backend, enable_maintenance=True)
    assert await status(app, "/normal") == 503
    assert await get_maintenance_mode() is False


async def test_after_a_request_no_app_is_answering() -> None:
    """Not even in the task that called it."""
    own = MemoryBackend(True)
    configured = configure_backend("memory")
    apps = [app_with(backend=own), app_with(backend=MemoryBackend())]
    for app in apps:
        await get(app, "/mode")
    with pytest.raises(AmbiguousSwitch):
        await get_maintenance_mode()
    del apps, app
    assert await get_maintenance_mode(configured) is False


async def test_a_dependency_with_yield_may_hold_a_switch() -> None:
    """It leaves its block after the endpoint, and the request itself goes on."""
    backend = MemoryBackend()
    app = app_with(backend=backend)

    async def held() -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(maintenance_mode_on())
            yield

    @app.get("/held", dependencies=[Depends(held)])
    async def endpoint() -> bool:
        return await get_maintenance_mode()

    assert (await get(app, "/held")).json() is True
    assert await get_maintenance_mode(backend) is False


def test_a_block_that_can_not_work_is_refused_where_it_is_made() -> None:
    """Not when it is entered, which may be in the night of the migration."""

    async def migrate() -> None: ...

    with pytest.raises(InvalidConfiguration, match=r"with parentheses: @maintenance_mode_on\(\)"):
        maintenance_mode_on(migrate)  # type: ignore[arg-type]
    with pytest.raises(InvalidConfiguration, match="backend='billing'"):
        maintenance_mode_on("billing")  # type: ignore[arg-type]
    with pytest.raises(InvalidSwitchName):
        maintenance_mode_off(name="Not a name")
