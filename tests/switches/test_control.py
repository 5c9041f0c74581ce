"""Changing switches and asking them, from wherever code may be, and which switch a call means."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi import FastAPI

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
    forget_switch,
    get_maintenance_mode,
    get_maintenance_state,
    get_maintenance_status,
    is_maintenance_on,
    list_switches,
    maintenance_mode_off,
    maintenance_mode_on,
    schedule_maintenance,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import BaseStateBackend, LocalFileBackend, MemoryBackend
from fastapi_maintenance.backends.base import StoreBackend
from fastapi_maintenance.switches.app_switch import AppSwitch
from fastapi_maintenance.switches.registry import registry
from tests.support.asgi import get, lifespan, status
from tests.support.memory_store import MemoryStore
from tests.support.scripts import output_of
from tests.support.traffic import until
from tests.support.users_backends import Down, Slow

pytestmark = pytest.mark.anyio

both_loops = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


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


async def test_who_and_when_to_come_back_can_be_said_too(tmp_path: Path) -> None:
    """The end as a duration from now, as the command line takes it."""
    for backend in MemoryBackend(), LocalFileBackend(tmp_path / "state"):
        before = datetime.now(UTC)
        await set_maintenance_mode(True, backend, until=timedelta(hours=2), retry_after=60, by="alice")
        state = await get_maintenance_state(backend)
        assert (state.retry_after, state.updated_by) == (60, "alice")
        assert state.until is not None
        assert before <= state.until - timedelta(hours=2) <= datetime.now(UTC)


async def test_a_name_in_the_place_of_a_backend_is_answered_with_how_it_is_given() -> None:
    """By position, as one does who has not read that the second argument is the backend."""
    calls: tuple[Callable[..., Any], ...] = (
        partial(set_maintenance_mode, True),
        get_maintenance_mode,
        sync(maintenance_mode_on),
        sync(maintenance_mode_off),
    )
    for call in calls:
        with pytest.raises(InvalidConfiguration, match=r"to select a switch, write name='billing'$"):
            await call("billing")
    with pytest.raises(InvalidConfiguration, match=r"subclass, got 'redis://localhost'$"):
        await get_maintenance_mode("redis://localhost")  # type: ignore[arg-type]
    with pytest.raises(InvalidConfiguration, match=r"subclass, got 'billing'$"):
        MaintenanceModeMiddleware(FastAPI(), backend="billing")  # type: ignore[arg-type]


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
        ("maybe", {}, "maintenance mode must be True, False or one of 'off', .*, got 'maybe'"),
        (1, {}, "maintenance mode must be .*, got 1"),
        (True, {"until": datetime(2100, 1, 1)}, "until 2100-01-01 00:00:00 has no time zone"),  # noqa: DTZ001
        (True, {"until": datetime.max.replace(tzinfo=timezone(-timedelta(hours=1)))}, "within the years 1 to"),
        (True, {"until": datetime(2020, 1, 1, tzinfo=UTC)}, "until must be in the future, got 2020-01-01"),
        (True, {"until": 3600}, "until must be an aware datetime, got 3600"),
        (True, {"until": timedelta(0)}, "until must be in the future, got 0:00:00"),
        (True, {"until": timedelta.max}, "within the years 1 to"),
        (True, {"retry_after": -1}, "retry_after=-1 must be whole seconds from 0 to 1000000000"),
        (True, {"by": 5}, "by must be a string that UTF-8 can encode, got 5"),
        (False, {"until": datetime(2100, 1, 1, tzinfo=UTC)}, "until must be given with a mode that blocks, got off"),
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
    with pytest.raises(InvalidConfiguration, match="must be an instance of a BaseStateBackend subclass, got 'memory'"):
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
    with pytest.raises(InvalidConfiguration, match="reason must be a string that UTF-8 can encode, got "):
        await set_maintenance_mode(True, backend, reason=reason)
    for block in (maintenance_mode_on, maintenance_mode_off):
        with pytest.raises(InvalidConfiguration, match="reason must be a string that UTF-8 can encode, got "):
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
    await until(lambda: get_maintenance_status(backend).knowledge is Knowledge.STALE)
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
from functools import partial
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


async def test_a_reason_is_limited_in_every_entrance() -> None:
    """Before anything is asked of a store; what just fits is stored."""
    backend, now, long = MemoryBackend(), datetime.now(UTC), "😀" * 2001
    with pytest.raises(InvalidConfiguration, match="has 2001 characters, it must have at most 2000"):
        await set_maintenance_mode(True, backend, reason=long)
    with pytest.raises(InvalidConfiguration, match="at most 2000"):
        await schedule_maintenance(now, now + timedelta(hours=1), backend, reason=long)
    for block in (maintenance_mode_on, maintenance_mode_off):
        with pytest.raises(InvalidConfiguration, match="at most 2000"):
            block(backend, reason=long)
        with pytest.raises(InvalidConfiguration, match="must have at most 300 characters"):
            block(backend, owner="x" * 301)
    assert (await get_maintenance_state(backend)).version == 0
    await set_maintenance_mode(True, backend, reason=long[:2000])
    assert (await get_maintenance_state(backend)).reason == long[:2000]


# All switches of a store


@both_loops
async def test_a_switch_that_no_app_uses_is_forgotten() -> None:
    """It is off and listed no longer, until somebody sets it again."""
    store = StoreBackend(MemoryStore())
    billing = store.sibling("billing")
    for switch in store, billing:
        await set_maintenance_mode(True, switch)
    assert await list_switches(store) == ["default", "billing"]
    await forget_switch(store, name="billing", by="alice")
    assert await list_switches(store) == ["default"]
    assert await get_maintenance_mode(billing) is False
    await set_maintenance_mode(False, billing)
    assert await list_switches(store) == ["default", "billing"]


class Listing(Slow):
    """A user's backend that knows its switches, and no more of each than on or off."""

    def sibling(self, name: str) -> Listing:
        return Listing()

    async def switch_names(self) -> list[str]:
        return ["default", "billing"]


async def test_a_users_backend_may_list_its_switches_and_forgets_none() -> None:
    assert await list_switches(Listing()) == ["default", "billing"]
    with pytest.raises(UnsupportedByBackend):
        await forget_switch(Listing(), name="billing")
