"""The helpers for users' tests."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, WebSocket
from starlette.requests import Request
from starlette.routing import Mount

from fastapi_maintenance import (
    Exemptions,
    InvalidConfiguration,
    InvalidSwitchName,
    MaintenanceGuard,
    MaintenanceModeMiddleware,
    configure_backend,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    get_maintenance_mode,
    get_maintenance_state,
    maintenance_guard,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import MemoryBackend
from fastapi_maintenance.testing import assert_blocked, assert_open, maintenance
from tests.support.asgi import get, status
from tests.support.scripts import ROOT

pytestmark = pytest.mark.anyio
pytest_plugins = ["pytester"]

RAN: list[str] = []


def app_with(*, middleware: bool = True, **options: Any) -> FastAPI:
    """Return an app with everything in it; what runs is noted."""
    app = FastAPI()
    if middleware:
        app.add_middleware(MaintenanceModeMiddleware, **options)

    def note() -> None:
        RAN.append("dependency")

    @app.get("/", dependencies=[Depends(note)])
    async def root() -> bool:
        RAN.append("endpoint")
        return await get_maintenance_mode()

    @app.get("/health")
    @app.post("/login")
    @force_maintenance_mode_off
    async def health() -> None: ...

    @app.get("/gone")
    @force_maintenance_mode_on
    async def gone() -> None: ...

    @app.websocket("/chat")
    async def chat(websocket: WebSocket) -> None: ...

    billing = APIRouter(prefix="/billing", dependencies=[Depends(MaintenanceGuard("billing"))])

    @billing.get("/{bill_id}", dependencies=[Depends(note)])
    async def bill(bill_id: int) -> int:
        return bill_id

    app.include_router(billing)
    app.router.routes.append(Mount("/inner", app=FastAPI()))
    return app


# Setting a switch


@pytest.mark.parametrize("requested_before", [False, True])
async def test_a_switch_is_set_for_one_app_without_its_store(requested_before: bool) -> None:
    """Whatever the store and ``enable_maintenance`` say; the others see nothing of it."""
    backend = MemoryBackend()
    app, other = app_with(backend=backend), app_with(backend=backend)
    if requested_before:
        assert await status(app, "/") == 200
    end = datetime.now(UTC) + timedelta(hours=1)
    with maintenance(app, reason="new disks", until=end) as stand_in:
        answer = await get(app, "/")
        assert (answer.status_code, answer.json()["reason"]) == (503, "new disks")
        assert await status(app, "/health") == 200
        assert (await get(other, "/")).json() is False
        assert (await get_maintenance_state(backend)).version == 0
        await set_maintenance_mode(False, stand_in)
        assert await status(app, "/") == 200
    assert (await get(app, "/")).json() is False


async def test_it_stands_above_what_the_app_was_given() -> None:
    app = app_with(enable_maintenance=True)
    with maintenance(app, False):
        assert (await get(app, "/")).json() is False
        with maintenance(app, "read_only"):
            assert (await get(app, "/")).json() is True  # asked inside of the request
            with maintenance(app, name="billing"):
                assert await status(app, "/billing/1") == 503
            assert await status(app, "/billing/1") == 200
    assert await status(app, "/") == 503


async def test_blocks_end_in_any_order() -> None:
    app = app_with(enable_maintenance=False)
    outer, inner = maintenance(app, True), maintenance(app, False)
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    assert await status(app, "/") == 200
    with maintenance(app):
        inner.__exit__(None, None, None)
        assert await status(app, "/") == 503
    assert await status(app, "/") == 200


async def test_an_app_with_guards_only_can_be_set_as_well() -> None:
    configure_backend("memory", name="billing")
    app, other = app_with(middleware=False), app_with(middleware=False)
    with maintenance(app, name="billing"):
        assert await status(app, "/billing/1") == 503
        assert await status(app, "/") == 200
        assert await status(other, "/billing/1") == 200
    assert await status(app, "/billing/1") == 200


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (["app"], {}, InvalidConfiguration),
        ([FastAPI(), "sometimes"], {}, InvalidConfiguration),
        ([FastAPI()], {"name": "Billing"}, InvalidSwitchName),
        ([FastAPI()], {"reason": 1}, InvalidConfiguration),
    ],
)
def test_what_can_not_be_set_is_refused(arguments: Any, options: Any, error: type[Exception]) -> None:
    with pytest.raises(error), maintenance(*arguments, **options):
        raise AssertionError


# Asking what stays open


@pytest.mark.parametrize("inside_of_a_loop", [False, True])
def test_what_stays_open_is_asked_without_running_anything(inside_of_a_loop: bool) -> None:
    """No endpoint, no dependency, no store."""
    app = app_with(
        backend=MemoryBackend(),
        exemptions=Exemptions(paths=["/inner"]),
        exempt_handler=lambda request: request.method == "DELETE",
    )
    RAN.clear()

    def ask() -> None:
        assert_open(app, "/health", ("post", "/login"), "/docs", "/openapi.json")
        assert_blocked(app, "/", "/gone", "/billing/1", ("WEBSOCKET", "/chat"))
        assert_open(app, "/", "/health", name="billing")
        assert_blocked(app, "/billing/1", "/gone", name="billing")

    if inside_of_a_loop:
        asyncio.run(asyncio.to_thread(ask))

        async def asking() -> None:
            ask()

        asyncio.run(asking())
    else:
        ask()
    assert RAN == []


def test_what_is_wrong_is_told() -> None:
    app = app_with(backend=MemoryBackend())
    with pytest.raises(
        AssertionError,
        match=r"^GET / is blocked by mode, switch 'default'; GET /gone is blocked by forced_on, switch 'default'; "
        r"GET /helth runs nothing: there is no such route; "
        r"POST / runs nothing: the route has GET, so pass \('GET', '/'\)$",
    ):
        assert_open(app, "/health", "/", "/gone", "/helth", ("POST", "/"))
    with pytest.raises(
        AssertionError,
        match=r"^GET /health is open by forced_off, switch 'default'; GET /docs is open by exempt \(docs\), switch",
    ):
        assert_blocked(app, "/", "/health", "/docs")
    with pytest.raises(AssertionError, match="GET /billing/7 is blocked by mode, switch 'billing'"):
        assert_open(app, "/billing/7", name="billing")


@pytest.mark.parametrize("middleware", [False, True])
def test_a_switch_of_which_no_guard_stands_before_the_path_is_told(middleware: bool) -> None:
    """That is a wrong name or a guard that is missing, and no matter of the mode."""
    app = app_with(middleware=middleware)
    with pytest.raises(
        AssertionError,
        match=r"^GET /billing/1 is open: no guard of switch 'biling' guards it; guards of 'billing' do$",
    ):
        assert_blocked(app, "/billing/1", name="biling")
    app.get("/plain", dependencies=[Depends(maintenance_guard)])(lambda: None)
    with pytest.raises(
        AssertionError,
        match=r"^GET /plain is open: no guard of switch 'billing' guards it; no guard of a named switch does$",
    ):
        assert_blocked(app, "/plain", name="billing")
    assert_open(app, "/billing/1", "/plain", name="biling")


def test_a_path_with_a_query_is_told_to_leave_it_out() -> None:
    with pytest.raises(AssertionError, match=r"GET /health\?x=1 runs nothing.*has no query, leave '\?...' out$"):
        assert_open(app_with(backend=MemoryBackend()), "/health?x=1")


def test_a_path_with_other_methods_says_which() -> None:
    """Also a websocket, and one in a mounted app."""
    app, inner = app_with(backend=MemoryBackend()), FastAPI()
    app.post("/login")(lambda: None)
    app.put("/login")(lambda: None)
    inner.websocket("/feed")(lambda: None)
    app.mount("/live", inner)
    for ask in assert_open, assert_blocked:
        with pytest.raises(AssertionError, match=r"has POST, PUT, so pass \('POST', '/login'\)$"):
            ask(app, "/login")
    with pytest.raises(AssertionError, match=r"has WEBSOCKET, so pass \('WEBSOCKET', '/live/feed'\)$"):
        assert_blocked(app, "/live/feed")


def test_a_mounted_app_with_a_root_path_is_asked_by_the_path_with_it() -> None:
    app, inner = app_with(backend=MemoryBackend()), FastAPI()
    inner.root_path = "/v2/shop"
    inner.get("/items")(lambda: None)
    app.mount("/v2", inner)
    assert_blocked(app, "/v2/shop/items")
    with pytest.raises(AssertionError, match="GET /v2/items runs nothing"):
        assert_blocked(app, "/v2/items")


def test_guards_alone_can_be_asked() -> None:
    app = app_with(middleware=False)
    assert_blocked(app, "/billing/1", name="billing")
    assert_blocked(app, "/billing/1")
    with pytest.raises(InvalidConfiguration, match="GET /: neither MaintenanceModeMiddleware nor a MaintenanceGuard"):
        assert_open(app, "/")
    guarded = FastAPI(dependencies=[Depends(maintenance_guard)])
    guarded.get("/open")(force_maintenance_mode_off(lambda: None))
    guarded.get("/closed")(lambda: None)
    assert_open(guarded, "/open")
    assert_blocked(guarded, "/closed")


@pytest.mark.parametrize("middleware", [False, True])
def test_guarded_websockets_can_be_asked(middleware: bool) -> None:
    """Those of the app and those of routers; a handler may read the body, which is empty as ever."""
    read: list[bytes] = []

    async def handler(request: Request) -> bool:
        read.append(await request.body())
        return request.url.path.endswith("/open")

    guards = [Depends(MaintenanceGuard("billing")), Depends(MaintenanceGuard("chat", exempt_handler=handler))]
    app = app_with(middleware=middleware)
    app.websocket("/live", dependencies=guards[:1])(chat)
    app.websocket("/chat/{room}", dependencies=guards[1:])(chat)
    router = APIRouter(prefix="/in", dependencies=guards[:1])
    router.websocket("/live", dependencies=guards[1:])(chat)
    app.include_router(router)
    assert_blocked(app, ("WEBSOCKET", "/live"), ("WEBSOCKET", "/in/live"), name="billing")
    assert_open(app, ("WEBSOCKET", "/chat/1"), name="billing")
    assert read == []
    assert_blocked(app, ("WEBSOCKET", "/chat/1"), ("WEBSOCKET", "/in/live"), name="chat")
    assert_open(app, ("WEBSOCKET", "/live"), ("WEBSOCKET", "/chat/open"), name="chat")
    assert read == [b""] * 3


async def chat(websocket: WebSocket) -> None: ...


@pytest.mark.parametrize("ask", [assert_open, assert_blocked])
def test_an_assertion_about_nothing_is_refused(ask: Any) -> None:
    app = app_with(backend=MemoryBackend())
    with pytest.raises(InvalidConfiguration, match="pairs of a method and a path, got none"):
        ask(app)
    with pytest.raises(InvalidConfiguration, match="path must begin with a slash, got 'health'"):
        ask(app, "health")


def test_a_handler_that_fails_is_told() -> None:
    """As it is for requests: it exempts nobody. What else breaks comes out."""

    def handler(request: Request) -> bool:
        raise HTTPException(500)

    app = app_with(backend=MemoryBackend(), exempt_handler=handler)
    assert_blocked(app, "/")
    with pytest.raises(InvalidSwitchName):
        assert_blocked(app, "/", name="?")


def test_a_handler_may_read_the_body_which_is_empty() -> None:
    async def handler(request: Request) -> bool:
        return await request.body() == b""

    app = app_with(backend=MemoryBackend(), exempt_handler=handler)
    assert_open(app, "/", ("WEBSOCKET", "/chat"))


# The fixture


def test_the_fixture_lasts_to_the_end_of_the_test(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeconftest('pytest_plugins = ["fastapi_maintenance.pytest_plugin"]')
    pytester.makepyfile("""
        from fastapi import FastAPI
        from fastapi.testclient import TestClient
        from fastapi_maintenance import MaintenanceModeMiddleware

        app = FastAPI()
        app.add_middleware(MaintenanceModeMiddleware)
        app.get("/")(lambda: "open")

        def test_closed(maintenance):
            maintenance(app, reason="test")
            assert TestClient(app).get("/").status_code == 503

        def test_open():
            assert TestClient(app).get("/").status_code == 200
    """)
    result = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", f"--rootdir={pytester.path}")
    result.assert_outcomes(passed=2)


@pytest.mark.parametrize("options", [[], ["-O"]])
def test_an_assertion_about_nothing_is_refused_by_an_optimized_python_as_well(options: list[str]) -> None:
    """It leaves ``assert`` statements out."""
    code = """
from fastapi import FastAPI
from fastapi_maintenance import InvalidConfiguration, MaintenanceModeMiddleware
from fastapi_maintenance.testing import assert_blocked, assert_open
from starlette.middleware import Middleware

def app_of_one(**options):
    app = FastAPI(**options)
    app.get("/")(lambda: None)
    return app

try:
    assert_open(app_of_one(), "/")
except InvalidConfiguration as error:
    print(error)
app = app_of_one(middleware=[Middleware(MaintenanceModeMiddleware)])
assert_blocked(app, "/")
try:
    assert_open(app, "/")
except AssertionError as error:
    print(error)
"""
    ended = subprocess.run(
        [sys.executable, *options, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True, timeout=120
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == (
        "GET /: neither MaintenanceModeMiddleware nor a MaintenanceGuard guards it\n"
        "GET / is blocked by mode, switch 'default'\n"
    )
