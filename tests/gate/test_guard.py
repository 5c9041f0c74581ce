"""The guard: what it refuses, what it takes over from the middleware, and that both decide alike."""

# No `from __future__ import annotations`: FastAPI reads the annotations of endpoints made in functions.

import itertools
import logging
import re
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.middleware.cors import CORSMiddleware
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Host, Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import (
    Exemptions,
    InvalidConfiguration,
    InvalidSwitchName,
    MaintenanceActive,
    MaintenanceGuard,
    MaintenanceModeMiddleware,
    configure_backend,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    get_maintenance_status,
    maintenance_exception_handler,
    maintenance_guard,
    maintenance_mode_off,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.admin import maintenance_admin
from fastapi_maintenance.backends import BaseStateBackend, MemoryBackend
from fastapi_maintenance.model.decision import Rule
from tests.support.asgi import BODY, PREFLIGHT, get, handshake, lifespan, request, running, status
from tests.support.servers import uvicorn_server
from tests.support.traffic import until

pytestmark = pytest.mark.anyio

with_or_without_middleware = pytest.mark.parametrize("middleware", [False, True], ids=["alone", "with-middleware"])


@pytest.fixture
def backend() -> BaseStateBackend:
    """Return the backend of the default switch; named ones are beside it."""
    return configure_backend("memory")


def guarded(*, guard: MaintenanceGuard = maintenance_guard, **options: Any) -> FastAPI:
    """Return an app whose endpoints are all guarded; with ``options``, it has the middleware as well."""
    made = FastAPI(dependencies=[Depends(guard)])
    if options.pop("middleware", bool(options)):
        made.add_middleware(MaintenanceModeMiddleware, **options)

    @made.get("/items/{item}")
    async def read_item(item: int) -> int:
        return item

    @made.post("/items/{item}")
    async def write_item(item: int) -> int:
        return item

    @made.get("/open")
    @force_maintenance_mode_off
    async def open_endpoint() -> str:
        return "open"

    @made.get("/closed")
    @force_maintenance_mode_on
    async def closed_endpoint() -> str:
        return "closed"

    @made.websocket("/ws/{room}")
    async def socket(websocket: WebSocket, room: int) -> None:
        await websocket.accept()
        await websocket.send_text(str(room))
        await websocket.close()

    return made


# On


@with_or_without_middleware
async def test_a_guard_blocks_before_the_endpoint(backend: BaseStateBackend, middleware: bool) -> None:
    """Routes with parameters, too, with the default answer."""
    app = guarded(middleware=middleware)
    assert await status(app, "/items/1") == 200
    await set_maintenance_mode(True)
    answer = await get(app, "/items/1")
    assert (answer.status_code, answer.json()) == (503, BODY)
    assert answer.headers["retry-after"] == "3600"
    assert answer.headers["cache-control"] == "no-store"
    assert await status(app, "/items/1", "POST") == 503
    await set_maintenance_mode(False)
    assert await status(app, "/items/1") == 200


async def test_neither_the_endpoint_nor_later_dependencies_run(backend: BaseStateBackend) -> None:
    """Dependencies that stand before the guard do."""
    ran: list[str] = []

    def noting(what: str) -> Any:
        def note() -> None:
            ran.append(what)

        return Depends(note)

    app = FastAPI()

    @app.get("/", dependencies=[noting("before"), Depends(maintenance_guard), noting("after")])
    async def endpoint() -> None:
        ran.append("endpoint")

    await set_maintenance_mode(True)
    assert await status(app, "/") == 503
    assert ran == ["before"]


async def test_a_guard_stands_on_a_route_a_router_or_an_app(backend: BaseStateBackend) -> None:
    """Deep includes and parameters of endpoints alike; what has none stays open."""
    app, outer, inner = FastAPI(), APIRouter(prefix="/outer"), APIRouter(dependencies=[Depends(maintenance_guard)])

    @inner.get("/{item}")
    async def of_router(item: int) -> None: ...

    @outer.get("/open")
    async def unguarded() -> None: ...

    @app.get("/parameter")
    async def of_endpoint(_: Annotated[None, Depends(maintenance_guard)]) -> None: ...

    outer.include_router(inner, prefix="/inner")
    app.include_router(outer)
    app.include_router(APIRouter(routes=outer.routes), prefix="/late", dependencies=[Depends(maintenance_guard)])
    await set_maintenance_mode(True)
    for path in ("/outer/inner/1", "/parameter", "/late/outer/open"):
        assert await status(app, path) == 503
    assert await status(app, "/outer/open") == 200
    assert await status(app, "/outer/inner/x/y") == 404


async def test_what_has_no_endpoint_is_not_guarded(backend: BaseStateBackend) -> None:
    """404, 405 and redirects are the router's."""
    app = guarded()
    await set_maintenance_mode(True)
    assert await status(app, "/none") == 404
    assert await status(app, "/items/1", "DELETE") == 405
    assert await status(app, "/items/1/") == 307
    assert await status(app, "/docs") == 200


async def test_read_only_lets_safe_methods_pass(backend: BaseStateBackend) -> None:
    """A websocket is not safe."""
    app = guarded()
    await set_maintenance_mode("read_only")
    assert await status(app, "/items/1") == 200
    assert await status(app, "/items/1", "POST") == 503
    assert (await handshake(app, "/ws/1")).status == 503


# Switches


@pytest.mark.parametrize(("default", "billing"), [(True, False), (False, True), (True, True), (False, False)])
@with_or_without_middleware
async def test_a_named_guard_follows_its_own_switch_and_the_default_one(
    backend: BaseStateBackend, default: bool, billing: bool, middleware: bool
) -> None:
    """It blocks when either is on, and tells which."""
    guard = MaintenanceGuard("billing")
    app = guarded(guard=guard, middleware=middleware)
    app.add_exception_handler(MaintenanceActive, telling)
    await set_maintenance_mode(default)
    await set_maintenance_mode(billing, name="billing", reason="new prices" if billing else None)
    answer = await get(app, "/items/1")
    assert answer.status_code == (503 if default or billing else 200)
    if billing and not (default and middleware):
        assert answer.json() == {"switch": "billing", "rule": "mode", "reason": "new prices"}


async def telling(connection: Any, exc: Exception) -> Response:
    assert isinstance(exc, MaintenanceActive)
    decision = exc.decision
    return JSONResponse({"switch": decision.switch, "rule": decision.rule, "reason": decision.reason}, 503)


async def test_another_named_switch_does_not_matter(backend: BaseStateBackend) -> None:
    """Each guard has its own."""
    app = guarded(guard=MaintenanceGuard("billing"))
    await set_maintenance_mode(True, name="shipping")
    assert await status(app, "/items/1") == 200
    async with maintenance_mode_on(name="billing"):
        assert await status(app, "/items/1") == 503


async def test_opening_the_named_switch_does_not_open_the_default_one(backend: BaseStateBackend) -> None:
    """Both have to let it pass."""
    app = guarded(guard=MaintenanceGuard("billing"))
    await set_maintenance_mode(True)
    async with maintenance_mode_off(name="billing"):
        assert await status(app, "/items/1") == 503
    async with maintenance_mode_off():
        assert await status(app, "/items/1") == 200


async def test_the_named_switch_of_an_app_is_in_its_own_backend() -> None:
    """A middleware's backend is where the guard looks, too."""
    own = MemoryBackend()
    app = guarded(guard=MaintenanceGuard("billing"), backend=own)
    await set_maintenance_mode(True, own, name="billing")
    assert await status(app, "/items/1") == 503
    assert await status(guarded(guard=MaintenanceGuard("billing")), "/items/1") == 200


async def test_a_guard_names_a_switch() -> None:
    """And shows it."""
    assert repr(MaintenanceGuard("billing")) == "MaintenanceGuard('billing')"
    with pytest.raises(InvalidSwitchName, match="'Billing'"):
        MaintenanceGuard("Billing")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exemptions": ["/health"]}, "exemptions must be an Exemptions(...), got ['/health']"),
        ({"exempt_handler": True}, "exempt_handler must be a function that takes the request, got True"),
        ({"response_handler": "page.html"}, "that takes the request, got 'page.html'"),
    ],
)
async def test_an_argument_that_can_not_work_is_refused(options: dict[str, Any], message: str) -> None:
    """At once, with the value and what is accepted."""
    with pytest.raises(InvalidConfiguration, match=re.escape(message)):
        MaintenanceGuard(**options)


# Marks


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("name", ["default", "billing"])
@with_or_without_middleware
async def test_marks_stand_above_the_switch(backend: BaseStateBackend, on: bool, name: str, middleware: bool) -> None:
    """Forced off is open, forced on is closed, whatever the switch says."""
    app = guarded(guard=MaintenanceGuard(name), middleware=middleware)
    await set_maintenance_mode(on, name=name)
    assert await status(app, "/open") == 200
    assert await status(app, "/closed") == 503


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("name", ["default", "billing"])
@with_or_without_middleware
async def test_marks_on_mounted_apps_count(backend: BaseStateBackend, on: bool, name: str, middleware: bool) -> None:
    """The innermost does: the endpoint's over its app's, an inner app's over an outer one's."""
    app = FastAPI()
    if middleware:
        app.add_middleware(MaintenanceModeMiddleware)
    guard = MaintenanceGuard(name)
    app.mount("/open", force_maintenance_mode_off(guarded(guard=guard)))
    app.mount("/closed", force_maintenance_mode_on(guarded(guard=guard)))
    nested = FastAPI()
    nested.mount("/open", force_maintenance_mode_off(guarded(guard=guard)))
    nested.mount("/unmarked", guarded(guard=guard))
    app.mount("/nested", force_maintenance_mode_on(nested))
    await set_maintenance_mode(on, name=name)
    expected = {
        "/open/items/1": 200,
        "/open/closed": 503,
        "/closed/items/1": 503,
        "/closed/open": 200,
        "/nested/open/items/1": 200,
        "/nested/unmarked/items/1": 503,
        "/nested/unmarked/open": 200,
        "/nested/unmarked/closed": 503,
    }
    for root_path in ("", "/api"):
        assert {path: await status(app, root_path + path, root_path=root_path) for path in expected} == expected
    assert (await handshake(app, "/open/ws/1")).accepted
    assert (await handshake(app, "/nested/unmarked/ws/1")).status == 503


@pytest.mark.usefixtures("nothing_marked")
async def test_without_any_mark_the_routes_are_not_read(
    backend: BaseStateBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guard on its own costs no second pass over the routes."""
    from fastapi_maintenance.routing import walk

    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(walk, "resolve", never)
    app = FastAPI()

    @app.get("/", dependencies=[Depends(maintenance_guard)])
    async def endpoint() -> None: ...

    assert await status(app, "/") == 200
    await set_maintenance_mode(True)
    assert await status(app, "/") == 503


async def test_a_route_without_a_router_is_guarded(backend: BaseStateBackend) -> None:
    """A route is an ASGI app of its own; nothing is known of the way to it."""
    app = guarded()
    route = next(route for route in app.routes if getattr(route, "path", "") == "/items/{item}")

    async def only_route(scope: Any, receive: Any, send: Any) -> None:
        from contextlib import AsyncExitStack

        async with AsyncExitStack() as inner, AsyncExitStack() as function:
            scope["fastapi_inner_astack"] = inner
            scope["fastapi_function_astack"] = function
            scope["fastapi_middleware_astack"] = inner
            _, child_scope = route.matches(scope)
            scope.update(child_scope)
            await route.handle(scope, receive, send)

    assert await status(only_route, "/items/1") == 200
    await set_maintenance_mode(True)
    with pytest.raises(HTTPException) as error:
        await status(only_route, "/items/1")
    assert isinstance(error.value, MaintenanceActive)


# Exemptions


@pytest.mark.parametrize("name", ["default", "billing"])
async def test_a_guards_own_exemptions_open(backend: BaseStateBackend, name: str) -> None:
    """By path and by handler."""
    guard = MaintenanceGuard(
        name, exemptions=Exemptions(paths=["/items/7"]), exempt_handler=lambda request: "x-tester" in request.headers
    )
    app = guarded(guard=guard)
    await set_maintenance_mode(True, name=name)
    assert await status(app, "/items/7") == 200
    assert await status(app, "/items/8") == 503
    assert await status(app, "/items/8", headers={"X-Tester": "1"}) == 200
    assert await status(app, "/closed", headers={"X-Tester": "1"}) == 503
    assert (await handshake(app, "/ws/1", headers={"X-Tester": "1"})).accepted
    assert (await handshake(app, "/ws/1")).status == 503


@pytest.mark.parametrize("name", ["default", "billing"])
async def test_the_middlewares_exemptions_open_the_guard_as_well(backend: BaseStateBackend, name: str) -> None:
    """Both a path and a handler; paths are those that the outermost app sees."""

    async def is_tester(request: Request) -> bool:
        return "x-tester" in request.headers

    guard = MaintenanceGuard(name, exemptions=Exemptions(paths=["/items/7"]))
    app = guarded(guard=guard, exemptions=Exemptions(paths=["/items/6"]), exempt_handler=is_tester)
    await set_maintenance_mode(True, name=name)
    by_guard_alone = 200 if name == "billing" else 503
    assert await status(app, "/items/6") == 200
    assert await status(app, "/items/7") == by_guard_alone
    assert await status(app, "/items/8") == 503
    assert await status(app, "/items/8", headers={"X-Tester": "1"}) == 200


@pytest.mark.parametrize("root_path", ["", "/api"])
@with_or_without_middleware
async def test_exempt_paths_of_a_mounted_guard_are_those_of_the_outermost_app(
    backend: BaseStateBackend, root_path: str, middleware: bool
) -> None:
    """The root path of the server is not part of them, where the app is mounted is."""
    exemptions = Exemptions(paths=["/inner/items/1"])
    app = FastAPI()
    if middleware:
        app.add_middleware(MaintenanceModeMiddleware, exemptions=exemptions)
    app.mount("/inner", guarded(guard=MaintenanceGuard("billing", exemptions=exemptions)))
    await set_maintenance_mode(True, name="billing")
    assert await status(app, root_path + "/inner/items/1", root_path=root_path) == 200
    assert await status(app, root_path + "/inner/items/2", root_path=root_path) == 503


@pytest.mark.parametrize("middleware", [False, True])
async def test_a_preflight_does_not_pass_a_guard(backend: BaseStateBackend, middleware: bool) -> None:
    """It has passed every ``CORSMiddleware``; an app that answers it by itself marks what does so."""
    app = FastAPI()
    if middleware:
        app.add_middleware(MaintenanceModeMiddleware)
    exempting = Depends(MaintenanceGuard("billing", exemptions=Exemptions(preflight=True)))
    app.options("/closed", dependencies=[exempting])(lambda: None)
    app.options("/open", dependencies=[exempting])(force_maintenance_mode_off(lambda: None))
    await set_maintenance_mode(True, name="billing")
    assert await status(app, "/closed", "OPTIONS", headers=PREFLIGHT) == 503
    assert await status(app, "/open", "OPTIONS", headers=PREFLIGHT) == 200


async def test_the_refusal_has_cors_headers(backend: BaseStateBackend) -> None:
    """A guard stands inside of every middleware."""
    app = guarded()
    app.add_middleware(CORSMiddleware, allow_origins=["https://shop.example"])
    await set_maintenance_mode(True)
    answer = await get(app, "/items/1", headers={"Origin": "https://shop.example"})
    assert answer.status_code == 503
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"


async def test_an_exempt_handler_that_raises_exempts_nobody(
    backend: BaseStateBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the client gets a 503."""

    def broken(request: Request) -> bool:
        raise ZeroDivisionError

    app = guarded(guard=MaintenanceGuard(exempt_handler=broken))
    await set_maintenance_mode(True)
    assert await status(app, "/items/1") == 503
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None


async def test_an_exempt_handler_is_asked_only_when_it_matters(backend: BaseStateBackend) -> None:
    """Not while the switch is off, and not for what a mark decides."""
    asked: list[str] = []

    def note(request: Request) -> bool:
        asked.append(request.url.path)
        return False

    app = guarded(guard=MaintenanceGuard(exempt_handler=note))
    await status(app, "/items/1")
    await status(app, "/closed")
    await set_maintenance_mode(True)
    await status(app, "/open")
    await status(app, "/items/2")
    assert asked == ["/items/2"]


async def test_an_exempt_handler_may_read_the_body(backend: BaseStateBackend) -> None:
    """The endpoint gets it as well."""

    async def is_told(request: Request) -> bool:
        return await request.body() == b'"let me in"'

    app = FastAPI()

    @app.post("/", dependencies=[Depends(MaintenanceGuard(exempt_handler=is_told))])
    async def endpoint(request: Request) -> str:
        return (await request.body()).decode()

    await set_maintenance_mode(True)
    answer = await request(app, "POST", "/", content=b'"let me in"')
    assert (answer.status_code, answer.json()) == (200, '"let me in"')
    assert await status(app, "/", "POST", content=b"please") == 503


# With the middleware


@pytest.mark.parametrize("enable", [True, False])
@pytest.mark.parametrize("stored", [True, False])
async def test_the_middlewares_enable_maintenance_counts_for_the_guard(
    backend: BaseStateBackend, enable: bool, stored: bool
) -> None:
    """For the default switch; a named one has nothing to do with it."""
    app = guarded(guard=MaintenanceGuard("billing"), enable_maintenance=enable)
    await set_maintenance_mode(stored)
    assert await status(app, "/items/1") == (503 if enable else 200)
    await set_maintenance_mode(True, name="billing")
    assert await status(app, "/items/1") == 503


@pytest.mark.parametrize("mode", ["off", "on", "read_only"])
@pytest.mark.parametrize("enable", [None, True, False])
async def test_guard_and_middleware_agree(mode: Any, enable: bool | None) -> None:
    """The same routes, one app with the one, one with the other, and one with both."""
    own = MemoryBackend()
    configure_backend(own)
    await set_maintenance_mode(mode, own)
    by_middleware, by_guard, by_both = FastAPI(), FastAPI(), FastAPI()
    for app, make in ((by_middleware, unguarded), (by_guard, guarded), (by_both, guarded)):
        app.include_router(make().router, prefix="/included")
        app.mount("/mounted/off", force_maintenance_mode_off(make()))
        app.mount("/mounted/on", force_maintenance_mode_on(make()))
        app.mount("/mounted", make())
    for app in (by_middleware, by_both):
        app.add_middleware(MaintenanceModeMiddleware, backend=own, enable_maintenance=enable)
    apps = (by_middleware, by_both) if enable is not None else (by_middleware, by_both, by_guard)
    seen: set[int] = set()
    for place in ("/mounted", "/mounted/off", "/mounted/on", "/included"):
        for path in ("/items/1", "/open", "/closed", "/none"):
            for method in ("GET", "POST", "DELETE", "HEAD"):
                answers = {await status(app, place + path, method) for app in apps}
                assert len(answers) == 1, (place, path, method, answers)
                seen |= answers
        sockets = {(await handshake(app, place + "/ws/1")).accepted for app in apps}
        assert len(sockets) == 1, place
    assert seen == {200, 404, 405, 503}


def unguarded() -> FastAPI:
    """Return an app with the same endpoints and no guard."""
    made = FastAPI()
    for route in guarded().routes:
        endpoint, methods = getattr(route, "endpoint", None), getattr(route, "methods", None)
        path = getattr(route, "path", "")
        if path.startswith("/ws"):
            made.add_api_websocket_route(path, endpoint)  # type: ignore[arg-type]
        elif path.startswith(("/items", "/open", "/closed")):
            made.add_api_route(path, endpoint, methods=list(methods or ()))  # type: ignore[arg-type]
    return made


async def test_a_request_is_judged_by_what_the_switch_said_when_it_came() -> None:
    """Who passed the middleware is not refused by the guard a moment later, for the same switch."""
    own = MemoryBackend()

    async def turn_on() -> None:
        await set_maintenance_mode(True, own)

    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=own)

    @app.get("/", dependencies=[Depends(turn_on), Depends(maintenance_guard)])
    async def endpoint() -> None: ...

    assert await status(app, "/") == 200
    assert await status(app, "/") == 503


async def test_a_guard_in_a_mounted_app_takes_the_middleware_of_the_outer_one() -> None:
    """Its switch, its ``enable_maintenance``, its exemptions."""
    own = MemoryBackend()
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=own, exemptions=Exemptions(paths=["/inner/items/6"]))
    app.mount("/inner", guarded(guard=MaintenanceGuard("billing")))
    await set_maintenance_mode(True, own, name="billing")
    assert await status(app, "/inner/items/6") == 200
    assert await status(app, "/inner/items/7") == 503
    assert await status(app, "/inner/open") == 200


async def test_a_guard_follows_the_innermost_middleware() -> None:
    """An app that is mounted with a middleware of its own has a switch of its own."""
    outer, inner = MemoryBackend(), MemoryBackend()
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=outer)
    mounted = guarded(guard=MaintenanceGuard("billing"), backend=inner)
    app.mount("/inner", mounted)
    await set_maintenance_mode(True, outer, name="billing")
    assert await status(app, "/inner/items/1") == 200
    await set_maintenance_mode(True, inner, name="billing")
    assert await status(app, "/inner/items/1") == 503


# Answers


@pytest.mark.parametrize("registered", [True, False])
@pytest.mark.parametrize("mine", [True, False])
@pytest.mark.parametrize("middlewares", [True, False])
async def test_the_custom_answer_is_the_guards_else_the_middlewares(
    backend: BaseStateBackend, registered: bool, mine: bool, middlewares: bool
) -> None:
    """With the middleware around, whether the exception handler is registered or not."""
    guard = MaintenanceGuard("billing", response_handler=(lambda _: PlainTextResponse("guard", 503)) if mine else None)
    app = guarded(
        guard=guard,
        middleware=True,
        response_handler=(lambda _: PlainTextResponse("middleware", 503)) if middlewares else None,
    )
    if registered:
        app.add_exception_handler(MaintenanceActive, maintenance_exception_handler)
    await set_maintenance_mode(True, name="billing")
    answer = await get(app, "/items/1")
    assert answer.status_code == 503
    custom = "guard" if mine else "middleware" if middlewares else None
    if custom:
        assert answer.text == custom
    else:
        assert answer.json() == BODY
        assert answer.headers["retry-after"] == "3600"


KINDS = ("text/html", "application/json", "application/problem+json", "text/plain")


def with_guarded(**options: Any) -> FastAPI:
    """Return an app under the middleware whose guarded endpoint is in a router, and in a mounted app as well."""
    made, inner = FastAPI(**options), FastAPI(**options)
    for app in made, inner:
        router = APIRouter(dependencies=[Depends(MaintenanceGuard("billing"))])
        router.api_route("/bills", methods=["GET", "POST"])(lambda: "bills")
        app.include_router(router)
    made.mount("/inner", inner)
    made.add_middleware(MaintenanceModeMiddleware)
    return made


async def test_with_the_middleware_around_a_refusal_is_what_the_client_prefers(backend: BaseStateBackend) -> None:
    """As the README shows the guard: nothing is registered, and a real server answers; also what is read only."""
    await set_maintenance_mode("read_only", name="billing", reason="new disks")
    with uvicorn_server(with_guarded()) as server:
        async with httpx.AsyncClient() as browser:
            for path, kind in itertools.product(("/bills", "/inner/bills", "/bills"), KINDS):
                answer = await browser.post(server.http(path), headers={"Accept": kind})
                assert answer.status_code == 503
                assert answer.headers["content-type"].partition(";")[0] == kind
                assert answer.headers["retry-after"] == "3600"
                assert "new disks" in answer.text
                assert "read-only" in answer.text
                if "json" in kind:
                    assert answer.json()["mode"] == "read_only"
                else:
                    assert "Reading works, changing does not." in answer.text
            assert (await browser.get(server.http("/bills"))).json() == "bills"


@pytest.mark.parametrize("kind", [MaintenanceActive, HTTPException, StarletteHTTPException, 503])
async def test_a_handler_of_ones_own_comes_first(backend: BaseStateBackend, kind: Any) -> None:
    """For the refusal, either ``HTTPException`` or the status, and in a mounted app as well."""

    async def own(_: Request, exc: Exception) -> Response:
        assert isinstance(exc, MaintenanceActive)
        return PlainTextResponse("own", 418)

    app = with_guarded(exception_handlers={kind: own})
    await set_maintenance_mode(True, name="billing")
    for path in ("/bills", "/inner/bills") * 2:
        answer = await get(app, path, headers={"Accept": "text/html"})
        assert (answer.status_code, answer.text) == (418, "own")


async def test_a_users_own_handler_of_http_exceptions_gets_the_refusal(backend: BaseStateBackend) -> None:
    """It is an ``HTTPException`` with status, detail and headers."""
    app = guarded()

    @app.exception_handler(HTTPException)
    async def handler(request: Request, exc: HTTPException) -> Response:
        assert isinstance(exc, MaintenanceActive)
        assert exc.decision.rule is Rule.MODE
        return HTMLResponse(f"<h1>{exc.status_code} {exc.detail}</h1>", 503, exc.headers)

    await set_maintenance_mode(True)
    answer = await get(app, "/items/1")
    assert answer.text == f"<h1>503 {BODY['detail']}</h1>"
    assert answer.headers["retry-after"] == "3600"


async def test_a_response_handler_that_raises_leaves_the_default_answer(
    backend: BaseStateBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """Never a 500 that hides the maintenance."""

    def broken(request: Request) -> Response:
        raise ZeroDivisionError

    app = guarded(guard=MaintenanceGuard(response_handler=broken))
    app.add_exception_handler(MaintenanceActive, maintenance_exception_handler)
    await set_maintenance_mode(True)
    answer = await get(app, "/items/1")
    assert (answer.status_code, answer.json()) == (503, BODY)
    assert "response_handler failed" in caplog.text


async def test_the_exception_handler_answers_refusals_only() -> None:
    """Registered for anything else, it says what to register it for."""
    with pytest.raises(InvalidConfiguration, match="answers MaintenanceActive, not ValueError: register it by"):
        await maintenance_exception_handler(HTTPConnection({"type": "http"}), ValueError())


# Websockets


@pytest.mark.parametrize("registered", [True, False])
@pytest.mark.parametrize("name", ["default", "billing"])
@with_or_without_middleware
async def test_a_handshake_is_denied_with_a_response(
    backend: BaseStateBackend, registered: bool, name: str, middleware: bool
) -> None:
    """Where the server can send one; the websocket is never accepted."""
    app = guarded(guard=MaintenanceGuard(name), middleware=middleware)
    if registered:
        app.add_exception_handler(MaintenanceActive, maintenance_exception_handler)
    assert (await handshake(app, "/ws/7")).texts == ["7"]
    await set_maintenance_mode(True, name=name)
    answer = await handshake(app, "/ws/7")
    assert (answer.status, answer.json()) == (503, BODY)
    assert answer.headers["retry-after"] == "3600"
    assert not answer.accepted
    assert {message["type"] for message in answer.sent} == {
        "websocket.http.response.start",
        "websocket.http.response.body",
    }


@pytest.mark.parametrize("registered", [True, False])
@pytest.mark.parametrize("name", ["default", "billing"])
@with_or_without_middleware
async def test_a_handshake_is_closed_where_the_server_can_not_send_a_response(
    backend: BaseStateBackend, registered: bool, name: str, middleware: bool
) -> None:
    """With 1013, "try again later", before it is accepted."""
    app = guarded(guard=MaintenanceGuard(name), middleware=middleware)
    if registered:
        app.add_exception_handler(MaintenanceActive, maintenance_exception_handler)
    await set_maintenance_mode(True, name=name)
    answer = await handshake(app, "/ws/7", denial=False)
    assert [message["type"] for message in answer.sent] == ["websocket.close"]
    assert answer.close_code == 1013


async def test_a_handshake_gets_what_its_client_prefers(backend: BaseStateBackend) -> None:
    """With the middleware around, as a request does."""
    app = guarded(guard=MaintenanceGuard("billing"), middleware=True)
    await set_maintenance_mode(True, name="billing", reason="new disks")
    answer = await handshake(app, "/ws/7", headers={"Accept": "text/plain"})
    assert (answer.status, answer.headers["content-type"]) == (503, "text/plain; charset=utf-8")
    assert b"new disks" in answer.body


async def test_a_handshake_gets_the_custom_answer(backend: BaseStateBackend) -> None:
    """Its handler sees a request, as a handshake is one."""

    def handler(request: Request) -> Response:
        return PlainTextResponse(f"{request.method} {request.url.path} {request.headers['x-room']}", 503)

    app = guarded(guard=MaintenanceGuard(response_handler=handler))
    app.add_exception_handler(MaintenanceActive, maintenance_exception_handler)
    await set_maintenance_mode(True)
    answer = await handshake(app, "/ws/7", headers={"X-Room": "blue"})
    assert (answer.status, answer.body) == (503, b"GET /ws/7 blue")


async def test_where_starlette_drops_the_answer_to_a_handshake_the_guard_sends_it(
    backend: BaseStateBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older ones send nothing for an ``HTTPException`` on a websocket."""
    from fastapi_maintenance import guard

    monkeypatch.setattr(guard, "_starlette_answers_websockets", lambda: False)

    async def guarded_alone(scope: Scope, receive: Receive, send: Send) -> None:
        with pytest.raises(MaintenanceActive):
            await MaintenanceGuard(response_handler=lambda _: PlainTextResponse("guard", 503))(
                WebSocket(scope, receive, send)
            )

    await set_maintenance_mode(True)
    answer = await handshake(guarded_alone)
    assert (answer.status, answer.body) == (503, b"guard")


async def test_an_accepted_websocket_is_left_alone(backend: BaseStateBackend) -> None:
    """Only handshakes are judged."""
    app = FastAPI()

    @app.websocket("/ws", dependencies=[Depends(maintenance_guard)])
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await set_maintenance_mode(True)
        await websocket.send_text(await websocket.receive_text())

    assert (await handshake(app, "/ws", "still here")).texts == ["still here"]
    assert (await handshake(app, "/ws", "not again")).status == 503


# FastAPI's own tools


def test_the_class_in_the_guards_place_is_refused() -> None:
    """``Depends(MaintenanceGuard)`` would make guards and ask none of them: the route is not even made."""
    app = FastAPI()
    with pytest.raises(InvalidConfiguration, match=re.escape("write Depends(MaintenanceGuard(...))")):
        app.get("/", dependencies=[Depends(MaintenanceGuard)])(lambda: None)


async def test_what_is_set_on_the_answer_of_the_exception_handler_is_sent(backend: BaseStateBackend) -> None:
    """It is a response like any other to whoever wraps the handler."""
    await set_maintenance_mode(True)
    app = guarded()

    @app.exception_handler(MaintenanceActive)
    async def answer(connection: HTTPConnection, exc: MaintenanceActive) -> Response:
        response = await maintenance_exception_handler(connection, exc)
        response.status_code += 1
        response.headers["X-Wrapped"] = "yes"
        return response

    answered = await get(app, "/items/1")
    assert (answered.status_code, answered.headers["X-Wrapped"]) == (504, "yes")


async def test_a_guard_can_be_overridden_in_tests(backend: BaseStateBackend) -> None:
    """By ``dependency_overrides``, as any dependency."""
    app = guarded()
    await set_maintenance_mode(True)
    app.dependency_overrides[maintenance_guard] = lambda: None
    assert await status(app, "/items/1") == 200
    app.dependency_overrides.clear()
    assert await status(app, "/items/1") == 503


async def test_a_guard_adds_nothing_to_the_schema(backend: BaseStateBackend) -> None:
    """No parameter appears."""
    schema = (await get(guarded(), "/openapi.json")).json()
    assert [parameter["name"] for parameter in schema["paths"]["/items/{item}"]["get"]["parameters"]] == ["item"]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda app: Starlette(routes=[Mount("/in", app)]),
        lambda app: Starlette(routes=[Host("testserver", Starlette(routes=[Mount("/in", app)]))]),
    ],
)
async def test_a_guard_works_below_other_frameworks_routes(backend: BaseStateBackend, wrap: Any) -> None:
    """In an app that is mounted in a Starlette one, marks included."""
    app: ASGIApp = wrap(force_maintenance_mode_off(guarded()))
    await set_maintenance_mode(True)
    assert await status(app, "/in/items/1") == 200
    app = wrap(guarded())
    assert await status(app, "/in/items/1") == 503


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_a_guard_works_on_trio(backend: BaseStateBackend) -> None:
    """With a sync exempt handler, which runs in a thread."""
    app = guarded(guard=MaintenanceGuard("billing", exempt_handler=lambda request: "x-tester" in request.headers))
    await set_maintenance_mode(True, name="billing")
    assert await status(app, "/items/1") == 503
    assert await status(app, "/items/1", headers={"X-Tester": "1"}) == 200


# The stores of their switches


async def test_the_switches_of_guards_are_followed_from_the_start_on(tmp_path: Path) -> None:
    """No request has to wait for a store that nobody asked before; making a guard or an app reads nothing."""
    configure_backend("file", file_path=tmp_path / "switch")
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware)
    app.get("/eu", dependencies=[Depends(MaintenanceGuard("eu")), Depends(maintenance_guard)])(lambda: None)
    app.build_middleware_stack()
    assert get_maintenance_status(name="eu").knowledge == "not_ready"
    async with running(app):
        await until(lambda: get_maintenance_status(name="eu").knowledge == "ready")
        assert get_maintenance_status(name="us").knowledge == "not_ready"
    await until(lambda: get_maintenance_status(name="eu").knowledge == "not_ready")


async def test_a_guards_store_that_can_not_be_one_stops_the_start() -> None:
    """As that of the default switch does."""

    class Other(MemoryBackend):
        def sibling(self, name: str) -> MemoryBackend:
            raise InvalidConfiguration(f"no place for {name}")

    app = guarded(guard=MaintenanceGuard("eu"), backend=Other())
    with pytest.raises(InvalidConfiguration, match="no place for eu"):
        await lifespan(app)


def test_no_annotation_that_fastapi_reads_is_text() -> None:
    """FastAPI 0.115 does not evaluate the text of an annotation of a callable object or of a nested function."""
    routes = maintenance_admin(insecure=True).routes
    endpoints = [route.endpoint for route in routes if isinstance(route, APIRoute)]
    for function in (MaintenanceGuard.__call__, *endpoints):
        assert not [text for text in function.__annotations__.values() if isinstance(text, str)], function
