"""For how long a store is followed: as long as anything uses it, and nothing is kept alive by that."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi import Depends, FastAPI
from starlette.requests import Request

from fastapi_maintenance import (
    MaintenanceGuard,
    MaintenanceMode,
    MaintenanceModeMiddleware,
    configure_backend,
    get_maintenance_mode,
    is_maintenance_on,
    maintenance_mode_on,
    on_change,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import BaseStateBackend, LocalFileBackend, MemoryBackend
from fastapi_maintenance.backends.base import StoreBackend, get_siblings
from fastapi_maintenance.concurrency import io_thread
from tests.support.asgi import call, running, scope_of, status
from tests.support.costs import cost_of_seconds
from tests.support.places import Place, file_place, redis_place, sqlite_place
from tests.support.stores import RedisServer, followed_views
from tests.support.traffic import until

pytestmark = pytest.mark.anyio

KINDS = ("file", "redis", "sqlite")
every_store = pytest.mark.parametrize("kind", KINDS)
Make = Callable[[str], StoreBackend]


@pytest.fixture
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Return what makes stores that are read seldom: so what is noticed at once was not found by reading."""

    def make(kind: str) -> StoreBackend:
        options: dict[str, Any] = {"poll_seconds": 3600, "timeout_seconds": 10, "init_timeout": 10}
        place: Place
        match kind:
            case "file":
                place = file_place(tmp_path, **options)
            case "redis":
                place = redis_place(request.getfixturevalue("redis_server"), **options)
            case _:
                place = sqlite_place(tmp_path, **options)
        made: StoreBackend = place.backend()
        return made

    return make


def app_with(backend: BaseStateBackend | None = None, **options: Any) -> FastAPI:
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=backend, **options)

    @app.get("/")
    async def root(request: Request) -> str:
        return request.url.path

    return app


def followed() -> list[object]:
    """Return the stores that are followed."""
    return [view.backend for view in followed_views()]


async def tasks() -> int:
    """Return how many tasks the background thread has, but for this."""

    async def count() -> int:
        return len(asyncio.all_tasks()) - 1

    return await io_thread.run(count())


async def nothing_runs() -> None:
    await until(lambda: not followed())
    for _ in range(2000):
        gc.collect()  # a store that was watched until now keeps its connections until it is collected
        if not await tasks():
            return
        await anyio.sleep(0.005)
    pytest.fail("something still runs")


# Who uses a store


@every_store
async def test_an_app_uses_its_store_until_its_lifespan_ends(make: Make, kind: str) -> None:
    """Whoever asks later begins anew, with what the store has then."""
    backend = make(kind)
    app = app_with(backend)
    for mode in True, False:
        await set_maintenance_mode(mode, backend)
        assert followed() == []
        async with running(app):
            assert followed() == [backend]
            assert await status(app, "/") == (503 if mode else 200)
        await nothing_runs()
    await set_maintenance_mode(True, backend)
    assert await status(app, "/") == 503
    assert followed() == [backend]
    async with running(app):
        assert followed() == [backend]
    await nothing_runs()


@every_store
async def test_an_app_without_a_lifespan_uses_its_store_until_it_is_gone(make: Make, kind: str) -> None:
    """Not only until the request is over; and the backend may be there for longer."""
    backend = make(kind)
    app = app_with(backend)
    assert followed() == []
    assert await status(app, "/") == 200
    assert followed() == [backend]
    del app
    gc.collect()
    await nothing_runs()
    assert await get_maintenance_mode(backend) is False


async def test_apps_may_share_a_store(make: Make) -> None:
    """It is followed until the last one ends, whichever that is."""
    configure_backend(backend := make("file"))
    apps = [app_with() for _ in range(3)]
    async with running(apps[0]):
        async with running(apps[1]):
            await status(apps[2], "/")
        assert followed() == [backend]
    assert followed() == [backend]
    del apps
    gc.collect()
    await nothing_runs()


async def test_an_app_that_two_servers_run_uses_its_store_until_the_last_one_ends(make: Make) -> None:
    """As one for HTTP and one for HTTPS do."""
    app = app_with(backend := make("file"))
    async with running(app):
        async with running(app):
            pass
        await anyio.sleep(0.05)
        assert followed() == [backend]
    await nothing_runs()


async def test_the_switches_of_guards_are_used_as_the_apps_own(make: Make) -> None:
    """With the middleware around them."""
    app = app_with(backend := make("file"))
    app.get("/eu", dependencies=[Depends(MaintenanceGuard("eu"))])(lambda: None)
    for _ in range(2):
        async with running(app):
            assert len(followed()) == 2
            assert await status(app, "/eu") == 200
        await nothing_runs()
    assert await status(app, "/eu") == 200
    assert len(followed()) == 2
    assert list(get_siblings(backend)) == ["eu"]


async def test_an_app_with_guards_only_uses_their_stores_until_it_is_gone(make: Make) -> None:
    """Nobody sees its lifespan."""
    configure_backend(make("file"))
    app = FastAPI()
    app.get("/eu", dependencies=[Depends(MaintenanceGuard("eu"))])(lambda: None)
    assert await status(app, "/eu") == 200
    assert len(followed()) == 2
    del app
    gc.collect()
    await nothing_runs()


async def test_an_app_leaves_a_store_that_is_its_own_no_longer(make: Make) -> None:
    """When another one is configured, or stands in."""
    stores = [configure_backend(make("file"))]
    app = app_with()
    async with running(app):
        await status(app, "/")
        stores.append(configure_backend(make("file")))
        await status(app, "/")
        await until(lambda: followed() == stores[1:])


async def test_a_hold_uses_a_store(make: Make) -> None:
    """From its beginning to its end, though an operator may break it meanwhile."""
    backend = make("file")
    async with maintenance_mode_on(backend):
        assert followed() == [backend]
        assert await get_maintenance_mode(backend)
    await nothing_runs()
    async with maintenance_mode_on(backend) as block:
        await set_maintenance_mode(False, backend)
        assert not block.lost.is_set()
    await nothing_runs()


async def test_a_hold_that_could_not_be_taken_uses_nothing(tmp_path: Path) -> None:
    """The store has refused it."""
    backend = LocalFileBackend(tmp_path / "missing" / "switch", poll_seconds=3600)
    with pytest.raises(Exception, match="there is no directory"):
        async with maintenance_mode_on(backend):
            pass
    gc.collect()
    await nothing_runs()


async def test_a_subscription_uses_a_store(make: Make) -> None:
    """Until it is cancelled."""
    backend = make("file")
    subscription = on_change(lambda _: None, backend)
    await until(lambda: followed() == [backend])
    gc.collect()
    await anyio.sleep(0.05)
    assert followed() == [backend]
    subscription.cancel()
    await nothing_runs()


async def test_a_running_request_uses_a_store(make: Make) -> None:
    """Although the lifespan has ended meanwhile; that is noticed within a second or two."""
    backend = make("file")
    app = app_with(backend)
    begun, may_end = asyncio.Event(), asyncio.Event()

    @app.get("/long")
    async def long() -> None:
        begun.set()
        await may_end.wait()

    async with running(app):
        request = asyncio.create_task(status(app, "/long"))
        await begun.wait()
    await anyio.sleep(0.1)
    assert followed() == [backend]
    may_end.set()
    assert await request == 200
    await nothing_runs()


@every_store
async def test_a_call_uses_a_store_that_no_app_uses(make: Make, kind: str) -> None:
    """As in scripts and job workers: until ``aclose()``, or until the backend is gone."""
    backend = make(kind)
    assert await anyio.to_thread.run_sync(is_maintenance_on, backend) is False
    assert followed() == [backend]
    await backend.aclose()
    await nothing_runs()
    assert await get_maintenance_mode(backend) is False
    gone = weakref.ref(backend)
    del backend
    await until(lambda: gc.collect() >= 0 and gone() is None)
    await nothing_runs()


async def test_a_call_uses_no_store_that_an_app_uses(make: Make) -> None:
    """It ends with the app's lifespan."""
    backend = make("file")
    app = app_with(backend)
    async with running(app):
        assert await get_maintenance_mode(backend) is False
        assert await get_maintenance_mode() is False
    await nothing_runs()


async def test_a_state_that_is_to_end_keeps_nothing(make: Make) -> None:
    """Its end is looked for again and again, as long as there is somebody to notice."""
    backend = make("file")
    async with maintenance_mode_on(backend, ttl=3600):
        assert await get_maintenance_mode(backend)
        app = app_with(backend)
        assert await status(app, "/") == 503
        del app
    gone = weakref.ref(backend)
    assert await get_maintenance_mode(backend) is False
    del backend
    await until(lambda: gc.collect() >= 0 and gone() is None)
    await nothing_runs()


async def test_the_connection_for_what_is_pushed_is_closed_with_the_backend(
    make: Make, redis_server: RedisServer
) -> None:
    """Though it is silent, and nobody has closed the backend."""

    def channels() -> int:
        return len(redis_server.run("PUBSUB", "CHANNELS", "place:*"))

    before = channels()
    backend = make("redis")
    assert await get_maintenance_mode(backend) is False
    await until(lambda: channels() == before + 1)
    del backend
    await until(lambda: gc.collect() >= 0 and channels() == before)


async def test_connections_that_can_not_be_closed_are_logged(
    make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the store is followed no longer all the same."""
    backend = make("file")

    async def fails() -> None:
        raise OSError("no farewell")

    monkeypatch.setattr(backend, "disconnect", fails)
    async with running(app_with(backend)):
        pass
    await nothing_runs()
    assert "could not be closed" in caplog.text


# What is left


class Secret(bytes):
    """The value of a header, to be found again."""


@every_store
async def test_apps_that_nobody_has_are_collected(make: Make, kind: str) -> None:
    """And so is all that came with their requests: scopes, headers, context variables."""
    gone: list[weakref.ref[Any]] = []

    async def use() -> None:
        app = app_with(backend := make(kind))
        app.get("/eu", dependencies=[Depends(MaintenanceGuard("eu"))])(lambda: None)
        for path in "/", "/eu":
            scope = scope_of(path)
            scope["headers"] = [*scope["headers"], (b"authorization", Secret(b"Bearer s3cr3t"))]
            await call(app, scope, {"type": "http.request"})
        async with maintenance_mode_on(backend):
            assert await status(app, "/") == 503
        gone.extend(weakref.ref(one) for one in (app, backend))
        if len(gone) % 4 == 0:
            async with running(app):
                pass

    async def use_in_a_task_of_its_own() -> None:
        await asyncio.create_task(use())

    for _ in range(10):
        await use_in_a_task_of_its_own()
    gc.collect()
    assert [one() for one in gone[::2] if one() is not None] == []
    await until(lambda: gc.collect() >= 0 and not any(one() for one in gone))
    await nothing_runs()
    assert not any(isinstance(one, Secret) for one in gc.get_objects())


async def test_hundreds_of_apps_that_were_shut_down_cost_nothing(tmp_path: Path) -> None:
    """Neither a follower nor time of the processor."""
    for number in range(500):
        app = app_with(LocalFileBackend(tmp_path / str(number)))
        async with running(app):
            pass
    del app
    gc.collect()
    await nothing_runs()
    before = time.process_time()
    await anyio.sleep(0.5)
    assert cost_of_seconds(time.process_time() - before) < 50


# A change by the backend itself


class Overriding(LocalFileBackend):
    """A user's subclass."""

    async def set_value(self, value: bool) -> None:
        await super().set_value(value)


def in_this_loop(backend: BaseStateBackend, value: bool) -> Any:
    return backend.set_value(value)


async def in_another_loop(backend: BaseStateBackend, value: bool) -> None:
    await anyio.to_thread.run_sync(lambda: asyncio.run(backend.set_value(value)))


async def under_trio(backend: BaseStateBackend, value: bool) -> None:
    await anyio.to_thread.run_sync(lambda: anyio.run(backend.set_value, value, backend="trio"))


@pytest.mark.parametrize("change", [in_this_loop, in_another_loop, under_trio])
@pytest.mark.parametrize("is_configured", [True, False])
@pytest.mark.parametrize("kind", [*KINDS, "subclass"])
async def test_a_value_that_is_set_is_effective_from_the_next_request_on(
    make: Make, kind: str, change: Any, is_configured: bool, tmp_path: Path
) -> None:
    """Of the very object, whether it is the app's own or the configured one, from wherever it is set."""
    backend = Overriding(tmp_path / "switch", poll_seconds=3600) if kind == "subclass" else make(kind)
    if is_configured:
        configure_backend(backend)
    app = app_with(None if is_configured else backend)
    await change(backend, False)
    for value in (True, False) * 5:
        await change(backend, value)
        assert await status(app, "/") == (503 if value else 200)


async def test_a_value_that_is_set_is_a_transition(make: Make) -> None:
    """Also in memory."""
    for backend in make("file"), MemoryBackend():
        seen: list[MaintenanceMode] = []
        await backend.set_value(False)
        subscription = on_change(lambda transition: seen.append(transition.after), backend)  # noqa: B023
        await get_maintenance_mode(backend)
        await backend.set_value(True)
        await until(lambda: seen == [MaintenanceMode.ON])  # noqa: B023
        subscription.cancel()
