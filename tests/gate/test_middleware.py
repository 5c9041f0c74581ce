"""The middleware: what it blocks, wherever it stands and whoever rewrites the request, and what it leaves alone."""

# No `from __future__ import annotations`: FastAPI reads the annotations of endpoints made in functions.

import contextvars
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from fastapi import APIRouter, BackgroundTasks, Body, FastAPI, Request, WebSocket
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_maintenance import (
    Answer,
    Exemptions,
    InvalidConfiguration,
    MaintenanceMode,
    MaintenanceModeMiddleware,
    MaintenanceState,
    UnknownBackend,
    configure_backend,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    get_maintenance_mode,
    in_flight,
    maintenance_mode_off,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.answers.answer import DETAIL
from fastapi_maintenance.backends import BaseStateBackend, MemoryBackend
from fastapi_maintenance.switches import passage
from fastapi_maintenance.switches.backend_urls import BACKEND_VARIABLE
from tests.support.asgi import BODY, call, client, get, handshake, lifespan, request, scope_of, status

pytestmark = pytest.mark.anyio


def plain(make: Callable[..., FastAPI] = FastAPI, **options: Any) -> FastAPI:
    """Return an app with endpoints of each kind and no middleware."""
    app = make(**options)

    @app.get("/normal")
    async def normal() -> str:
        return "normal"

    @app.post("/normal")
    async def write() -> str:
        return "written"

    @app.get("/open")
    @force_maintenance_mode_off
    async def open_endpoint() -> str:
        return "open"

    @app.get("/closed")
    @force_maintenance_mode_on
    async def closed_endpoint() -> str:
        return "closed"

    @app.post("/echo")
    async def echo(request: Request) -> str:
        return (await request.body()).decode()

    @app.websocket("/ws")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("hello")
        await websocket.close()

    return app


def app_with(**options: Any) -> FastAPI:
    """Return the same app with the middleware."""
    app = plain()
    app.add_middleware(MaintenanceModeMiddleware, **options)
    return app


def closed(**options: Any) -> FastAPI:
    """Return the same app under maintenance."""
    return app_with(**{"backend": MemoryBackend(True), **options})


# The mode


async def test_what_would_run_is_blocked() -> None:
    """With a 503, ``Retry-After``, and nothing for caches."""
    app = closed()
    answer = await get(app, "/normal")
    assert (answer.status_code, answer.json()) == (503, BODY)
    assert answer.headers["retry-after"] == "3600"
    assert answer.headers["cache-control"] == "no-store"
    assert (await handshake(app, "/ws")).status == 503
    assert (await handshake(app, "/ws", denial=False)).close_code == 1013


async def test_what_would_not_run_stays_what_it_is() -> None:
    """404, 405, the slash redirect, and the docs pages."""
    app = closed()
    expected = {
        ("GET", "/none"): 404,
        ("DELETE", "/normal"): 405,
        ("GET", "/normal/"): 307,
        ("GET", "/docs"): 200,
        ("GET", "/openapi.json"): 200,
    }
    assert {key: await status(app, key[1], key[0]) for key in expected} == expected
    assert await status(closed(exemptions=Exemptions(docs=False)), "/docs") == 503


async def test_marks_stand_above_the_mode() -> None:
    """Forced off is open, forced on is closed, on and off alike."""
    for app in (closed(), app_with()):
        assert await status(app, "/open") == 200
        assert await status(app, "/closed") == 503


@pytest.mark.parametrize("enable", [None, True, False])
@pytest.mark.parametrize("stored", list(MaintenanceMode))
@pytest.mark.parametrize("hold", [None, True, False])
async def test_holds_stand_above_enable_maintenance_and_this_above_the_stored_mode(
    enable: bool | None, stored: MaintenanceMode, hold: bool | None
) -> None:
    """All combinations, by the first of the three with an opinion."""
    backend = MemoryBackend(stored)
    app = app_with(backend=backend, enable_maintenance=enable)
    opinion = next((is_on for is_on in (hold, enable) if is_on is not None), None)
    blocks_get = opinion if opinion is not None else stored is MaintenanceMode.ON
    blocks_post = opinion if opinion is not None else stored is not MaintenanceMode.OFF

    async def check() -> None:
        assert await status(app, "/normal") == (503 if blocks_get else 200)
        assert await status(app, "/normal", "POST") == (503 if blocks_post else 200)
        assert (await handshake(app, "/ws")).accepted is not blocks_post
        assert await status(app, "/none") == 404

    if hold is None:
        await check()
    else:
        async with maintenance_mode_on(backend) if hold else maintenance_mode_off(backend):
            await check()


async def test_by_default_the_environment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once when it changes."""
    app = app_with()
    assert await status(app, "/normal") == 200
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "read_only")
    assert (await status(app, "/normal"), await status(app, "/normal", "POST")) == (200, 503)
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "1")
    assert await status(app, "/normal") == 503
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "maybe")
    assert await status(app, "/normal") == 200


async def test_a_backend_configured_after_the_first_request_counts() -> None:
    """From the next one on."""
    app = app_with()
    assert await status(app, "/normal") == 200
    configure_backend("memory", initial=True)
    assert await status(app, "/normal") == 503
    configure_backend("memory")
    assert await status(app, "/normal") == 200


async def test_a_mark_set_after_the_first_request_counts() -> None:
    """Nothing about the routes is kept."""
    app = closed()
    assert await status(app, "/normal") == 503
    endpoint = next(route.endpoint for route in app.routes if getattr(route, "path", "") == "/normal")  # type: ignore[attr-defined]
    force_maintenance_mode_off(endpoint)
    assert await status(app, "/normal") == 200


async def test_a_users_backend_that_fails_leaves_the_last_known_state() -> None:
    """No fault of a store is a client's 500."""

    class Broken(BaseStateBackend):
        value: Any = True

        async def get_value(self) -> bool:
            if isinstance(self.value, Exception):
                raise self.value
            return self.value  # type: ignore[no-any-return]

        async def set_value(self, value: bool) -> None: ...

    backend = Broken()
    app = app_with(backend=backend)
    assert await status(app, "/normal") == 503
    for fault in (ConnectionError("down"), "rubbish", None):
        backend.value = fault
        assert await status(app, "/normal") == 503
    backend.value = False
    assert await status(app, "/normal") == 200


async def test_a_users_backend_may_use_the_apps_event_loop() -> None:
    """It is awaited in the request itself."""

    class Loop(BaseStateBackend):
        async def get_value(self) -> bool:
            await anyio.lowlevel.checkpoint()
            return request_id.get() == "blocked"

        async def set_value(self, value: bool) -> None: ...

    request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")
    app = app_with(backend=Loop())
    assert await status(app, "/normal") == 200
    request_id.set("blocked")
    assert await status(app, "/normal") == 503


# Configuration


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"enable_maintenance": "yes"}, "enable_maintenance must be True, False or None, got 'yes'"),
        ({"enable_maintenance": 1}, "enable_maintenance must be True, False or None, got 1"),
        ({"backend": "memory"}, "backend must be an instance of a BaseStateBackend subclass, got 'memory'"),
        ({"backend": MemoryBackend}, "backend must be an instance of a BaseStateBackend subclass"),
        ({"exemptions": ["/health"]}, "exemptions must be an Exemptions(...), got ['/health']"),
        ({"exempt_handler": "10.0.0.1"}, "exempt_handler must be a function that takes the request, got '10.0.0.1'"),
        ({"response_handler": BODY}, "response_handler must be a function that takes the request"),
    ],
)
async def test_an_argument_that_can_not_work_is_refused(options: dict[str, Any], message: str) -> None:
    """By the constructor, and so when the app starts up."""
    with pytest.raises(InvalidConfiguration, match=re.escape(message)):
        MaintenanceModeMiddleware(plain(), **options)
    with pytest.raises(InvalidConfiguration, match=re.escape(message)):
        await lifespan(app_with(**options))


async def test_a_wrong_keyword_shows_when_the_stack_is_built() -> None:
    """Which can be done at any time, without a request."""
    app = app_with(enabled=True)
    with pytest.raises(TypeError, match="enabled"):
        app.build_middleware_stack()


def test_a_dispatch_that_can_not_be_called_is_refused() -> None:
    """Before it makes every request a 500."""
    with pytest.raises(InvalidConfiguration, match=r"dispatch must be an async function.*, got 1"):
        MaintenanceModeMiddleware(FastAPI(), dispatch=1)  # type: ignore[arg-type]


async def test_the_four_fixed_keywords_may_be_positional() -> None:
    """In the order of the contract."""
    backend = MemoryBackend(True)
    made = MaintenanceModeMiddleware(plain(), None, backend, lambda request: "x" in request.headers, teapot)
    assert await status(made, "/normal") == 418
    assert await status(made, "/normal", headers={"X": "1"}) == 200


def teapot(request: Request) -> Response:
    return PlainTextResponse(f"maintenance of {request.url.path}", 418)


# Subclasses


class Counting(MaintenanceModeMiddleware):
    """A subclass as users write them."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        answer = await super().dispatch(request, call_next)
        answer.headers["X-Counted"] = "1"
        return answer


async def test_a_subclass_that_calls_dispatch_decides_the_same() -> None:
    """And sees both kinds of answers."""
    app = plain()
    app.add_middleware(Counting, backend=MemoryBackend(True), response_handler=teapot)
    for path, code in (("/normal", 418), ("/open", 200), ("/closed", 418), ("/none", 404), ("/normal/", 307)):
        answer = await get(app, path)
        assert (answer.status_code, answer.headers["x-counted"]) == (code, "1")
    assert (await handshake(app, "/ws")).status == 418
    assert (await get(plain_counting(), "/normal")).headers["x-counted"] == "1"
    assert (await handshake(plain_counting(), "/ws")).accepted


def plain_counting() -> FastAPI:
    app = plain()
    app.add_middleware(Counting, backend=MemoryBackend())
    return app


async def test_a_subclass_that_does_not_call_dispatch_decides_by_itself() -> None:
    """It replaces the decision for requests; handshakes never reach ``dispatch``."""

    class Own(MaintenanceModeMiddleware):
        async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
            if request.url.path == "/normal":
                return PlainTextResponse("own", 418)
            return await call_next(request)

    app = plain()
    app.add_middleware(Own, backend=MemoryBackend(True))
    assert await status(app, "/normal") == 418
    assert await status(app, "/closed") == 200
    assert await status(app, "/normal", "POST") == 418
    assert (await handshake(app, "/ws")).status == 503


async def test_a_dispatch_function_is_called_around_the_decision() -> None:
    """Its ``call_next`` gives the app's answer or the refusal; no function opens what is closed by not asking."""

    async def dispatch(request: Request, call_next: RequestResponseEndpoint) -> Response:
        if "x" in request.headers:
            return PlainTextResponse("own", 418)
        response = await call_next(request)
        response.headers["X-Seen"] = "yes"
        return response

    app = closed(dispatch=dispatch)
    for path, code in (("/normal", 503), ("/open", 200), ("/none", 404)):
        answer = await get(app, path)
        assert (answer.status_code, answer.headers["X-Seen"]) == (code, "yes")
    assert await status(app, "/normal", headers={"X": "1"}) == 418
    assert (await handshake(app, "/ws")).status == 503


async def test_a_subclass_without_dispatch_is_as_cheap_as_the_class_itself() -> None:
    """No task group, so contextvars that the endpoint sets are seen outside."""

    class Configured(MaintenanceModeMiddleware):
        def __init__(self, app: ASGIApp) -> None:
            super().__init__(app, backend=MemoryBackend(True), response_handler=teapot)

    app = plain()
    app.add_middleware(Configured)

    @app.get("/set")
    @force_maintenance_mode_off
    async def endpoint() -> None:
        current.set("endpoint")

    assert await status(app, "/normal") == 418
    await call(app, scope_of("/set"))
    assert current.get() == "endpoint"


async def test_dispatch_may_judge_a_request_that_came_another_way() -> None:
    """Called by hand with a request of its own, it makes the decision for that one."""
    middleware = MaintenanceModeMiddleware(plain(), backend=MemoryBackend(True))

    async def call_next(request: Request) -> Response:
        return PlainTextResponse("next")

    async def answer(path: str) -> Response:
        return await middleware.dispatch(Request(scope_of(path)), call_next)

    assert (await answer("/normal")).status_code == 503
    assert (await answer("/open")).status_code == 200


async def test_a_blocked_body_of_a_subclass_reaches_its_handler() -> None:
    """The base class reads the body, too."""

    async def is_told(request: Request) -> bool:
        return await request.body() == b"let me in"

    app = plain()
    app.add_middleware(Counting, backend=MemoryBackend(True), exempt_handler=is_told)
    answer = await request(app, "POST", "/echo", content=b"let me in")
    assert (answer.status_code, answer.json()) == (200, "let me in")
    assert await status(app, "/echo", "POST", content=b"please") == 503


# Handlers


@pytest.mark.parametrize("is_async", [True, False])
async def test_an_exempt_handler_opens_what_the_mode_closes(is_async: bool) -> None:
    """Websockets as well, and nothing that is forced on."""

    def is_tester(request: Request) -> bool:
        return request.headers.get("x-tester") == "1"

    async def is_tester_async(request: Request) -> bool:
        return is_tester(request)

    app = closed(exempt_handler=is_tester_async if is_async else is_tester)
    for path, code in (("/normal", 200), ("/open", 200), ("/closed", 503), ("/none", 404)):
        assert await status(app, path, headers={"X-Tester": "1"}) == code
    assert await status(app, "/normal", headers={"X-Tester": "2"}) == 503
    assert (await handshake(app, "/ws", headers={"X-Tester": "1"})).accepted
    assert not (await handshake(app, "/ws")).accepted


@pytest.mark.parametrize("chunks", [[b""], [b"let me in"], [b"let", b" me", b" in"], [b"let me", b" in", b""]])
@pytest.mark.parametrize("read", ["body", "stream", "first chunk", "nothing"])
async def test_an_exempt_handler_may_read_the_body_and_the_endpoint_still_gets_it(
    chunks: list[bytes], read: str
) -> None:
    """In full or in part, in one message or several, and the disconnect after it."""

    async def reading(request: Request) -> bool:
        if read == "body":
            assert await request.body() == b"".join(chunks)
        elif read == "stream":
            assert b"".join([chunk async for chunk in request.stream()]) == b"".join(chunks)
        elif read == "first chunk":
            async for _ in request.stream():
                break
        return True

    messages: list[Message] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages[-1]["more_body"] = False
    answer = await call(closed(exempt_handler=reading), scope_of("/echo", "POST"), *messages)
    assert (answer.status, answer.json()) == (200, b"".join(chunks).decode())


async def test_an_exempt_handler_of_a_handshake_leaves_the_connect_message() -> None:
    """Whatever it reads."""

    async def reading(request: Request) -> bool:
        return await request.body() == b""

    assert (await handshake(closed(exempt_handler=reading), "/ws")).texts == ["hello"]


async def test_a_client_that_leaves_while_the_handler_reads_is_not_exempt() -> None:
    """The handler raises then, as it would in an endpoint."""
    seen: list[type[BaseException]] = []

    async def reading(request: Request) -> bool:
        try:
            await request.body()
        except ClientDisconnect as error:
            seen.append(type(error))
            raise
        return True

    app = closed(exempt_handler=reading)
    answer = await call(app, scope_of("/echo", "POST"), {"type": "http.disconnect"})
    assert (answer.status, seen) == (503, [ClientDisconnect])


async def test_exempt_paths_pass() -> None:
    """Paths are those of the app's routes, without the server's root path."""
    app = closed(exemptions=Exemptions(paths=["/normal"]))
    app.add_api_route("/other", lambda: "other")
    assert await status(app, "/normal") == 200
    assert await status(app, "/api/normal", root_path="/api") == 200
    assert await status(app, "/other") == 503


# Untouched


@pytest.mark.parametrize("path", ["/acme/admin", "/.*z/yz/admin", "/a+/aa/admin", "/$/admin", "/(/admin"])
async def test_whatever_stands_for_a_mounts_parameter_opens_nothing(path: str) -> None:
    """Starlette before 0.39 takes it for a regular expression when it cuts it off."""
    ran = []
    inner = FastAPI(openapi_url=None)

    @inner.get("/admin")
    async def administer() -> None:
        ran.append(path)

    app = FastAPI()
    app.mount("/{tenant}", inner)
    app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True)
    assert await status(app, path) in (404, 503)
    assert ran == []


async def test_the_lifespan_passes() -> None:
    """The app starts up and shuts down under maintenance as well."""
    seen: list[str] = []

    @asynccontextmanager
    async def noting(app: FastAPI) -> AsyncIterator[None]:
        seen.append("up")
        yield
        seen.append("down")

    app = plain(lifespan=noting)
    app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True)
    assert await lifespan(app) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert seen == ["up", "down"]


async def test_a_store_that_can_not_be_one_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is told why, and the app's own lifespan does not begin."""
    monkeypatch.setenv(BACKEND_VARIABLE, "reddis://:hunter2@localhost")
    seen: list[str] = []
    sent: list[Message] = []

    @asynccontextmanager
    async def noting(app: FastAPI) -> AsyncIterator[None]:
        seen.append("up")
        yield

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        sent.append(message)

    app = plain(lifespan=noting)
    app.add_middleware(MaintenanceModeMiddleware)
    with pytest.raises(UnknownBackend, match="no backend 'reddis'") as raised:
        await app({"type": "lifespan"}, receive, send)
    assert sent == [{"type": "lifespan.startup.failed", "message": str(raised.value)}]
    assert seen == []


async def test_connections_of_an_unknown_type_pass() -> None:
    """A server's own protocol is not ours to judge."""
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    await call(MaintenanceModeMiddleware(app, enable_maintenance=True), {"type": "mqtt"})
    assert seen == ["mqtt"]


current: contextvars.ContextVar[str] = contextvars.ContextVar("current", default="outside")


@pytest.mark.parametrize("options", [{}, {"backend": MemoryBackend(True), "exemptions": Exemptions(paths=["/**"])}])
async def test_what_an_endpoint_sets_is_seen_outside(options: dict[str, Any]) -> None:
    """The request stays in its own task, on and off."""
    app = app_with(**options)

    @app.get("/set")
    async def endpoint() -> None:
        current.set("endpoint")

    await call(app, scope_of("/set"))
    assert current.get() == "endpoint"


async def test_background_tasks_and_streams_are_untouched() -> None:
    """Chunk by chunk, and after the answer."""
    ran: list[str] = []
    app = closed(exemptions=Exemptions(paths=["/**"]))

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            for number in range(3):
                yield str(number).encode()

        return StreamingResponse(chunks())

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> None:
        tasks.add_task(ran.append, "background")

    answer = await call(app, scope_of("/stream"))
    assert [message.get("body") for message in answer.sent if "body" in message] == [b"0", b"1", b"2", b""]
    await get(app, "/background")
    assert ran == ["background"]


async def test_a_client_that_leaves_is_noticed_by_the_endpoint() -> None:
    """What the server says reaches the app."""
    app = closed(exempt_handler=lambda request: True)
    seen: list[bool] = []

    @app.get("/wait")
    async def wait(request: Request) -> None:
        await request.body()
        seen.append(await request.is_disconnected())

    await call(app, scope_of("/wait"), {"type": "http.request"}, {"type": "http.disconnect"})
    assert seen == [True]


async def test_what_an_app_raises_comes_out() -> None:
    """Nothing is caught, whatever the mode."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    for made in (
        MaintenanceModeMiddleware(app, enable_maintenance=False),
        MaintenanceModeMiddleware(app, enable_maintenance=True, exempt_handler=lambda _: True),
    ):
        with pytest.raises(ZeroDivisionError):
            await get(made)


# Off, and nothing forced on


def unmarked(**options: Any) -> FastAPI:
    """Return an app with the middleware in which nothing is marked."""
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, **options)

    @app.get("/normal")
    async def normal() -> bool:
        current.set("endpoint")
        return await get_maintenance_mode()

    @app.websocket("/ws")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()

    return app


class TwoMethods(BaseStateBackend):
    """What a user writes."""

    value = False

    async def get_value(self) -> bool:
        return self.value

    async def set_value(self, value: bool) -> None:
        self.value = value


@pytest.mark.usefixtures("nothing_marked")
@pytest.mark.parametrize("root_path", ["", "/api"])
@pytest.mark.parametrize("options", [{}, {"enable_maintenance": False}, {"backend": TwoMethods()}])
async def test_while_nothing_is_under_maintenance_the_routes_are_not_read(
    options: dict[str, Any], root_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests pass at once, whatever they ask for."""
    from fastapi_maintenance.gate import gate

    def never(*_: object, **__: object) -> None:
        raise AssertionError

    app = unmarked(**options)
    monkeypatch.setattr(gate, "resolve", never)
    for path, code in (("/normal", 200), ("/none", 404), ("/normal/", 307)):
        assert await status(app, root_path + path, root_path=root_path) == code
    assert (await handshake(app, "/ws")).accepted
    await call(app, scope_of("/normal"))
    assert current.get() == "endpoint"


@pytest.mark.usefixtures("nothing_marked")
@pytest.mark.parametrize("make", [MemoryBackend, TwoMethods])
async def test_the_first_mark_and_the_first_maintenance_count_at_once(make: Any) -> None:
    """What was not read before is read from then on."""
    backend = make()
    app = unmarked(backend=backend)
    assert await status(app, "/normal") == 200
    await set_maintenance_mode(True, backend)
    assert await status(app, "/normal") == 503
    await set_maintenance_mode(False, backend)
    assert await status(app, "/normal") == 200
    force_maintenance_mode_on(next(route for route in app.routes if route.path == "/normal").endpoint)  # type: ignore[attr-defined]
    assert await status(app, "/normal") == 503
    assert await status(app, "/none") == 404


@pytest.mark.usefixtures("nothing_marked")
async def test_maintenance_that_is_over_is_off() -> None:
    """And so is one that a block opens."""
    backend = MemoryBackend()
    app = unmarked(backend=backend)
    over = MaintenanceState(mode=MaintenanceMode.ON, until=datetime.now(UTC) - timedelta(seconds=1))
    backend._state = over
    assert await status(app, "/normal") == 200
    backend._state = MaintenanceState(mode=MaintenanceMode.ON)
    async with maintenance_mode_off(backend):
        assert await status(app, "/normal") == 200
    assert await status(app, "/normal") == 503


@pytest.mark.usefixtures("nothing_marked")
@pytest.mark.parametrize("outer_on", [True, False])
@pytest.mark.parametrize("inner_on", [True, False])
async def test_gates_around_each_other_are_open_only_together(outer_on: bool, inner_on: bool) -> None:
    """One that lets pass at once does not speak for the other."""
    for outer_make, inner_make in ((MemoryBackend, MemoryBackend), (TwoMethods, TwoMethods)):
        outer, inner = outer_make(), inner_make()
        await outer.set_value(outer_on)
        await inner.set_value(inner_on)
        mounted = unmarked(backend=inner, response_handler=teapot)
        app = FastAPI()
        app.mount("/in", mounted)
        app.add_middleware(MaintenanceModeMiddleware, backend=outer)
        assert await status(app, "/in/normal") == (503 if outer_on else 418 if inner_on else 200)


# Several apps


async def test_two_apps_in_a_process_do_not_affect_each_other() -> None:
    """Each has its backend, its handlers, its exemptions."""
    one = app_with(backend=MemoryBackend(), response_handler=teapot)
    other = app_with(backend=MemoryBackend(True), exemptions=Exemptions(paths=["/open"]))
    assert [await status(app, "/normal") for app in (one, other, one)] == [200, 503, 200]
    assert [await status(app, "/closed") for app in (one, other)] == [418, 503]
    third = app_with(enable_maintenance=True)
    assert [await status(app, "/normal") for app in (one, third, one)] == [200, 503, 200]


async def test_two_apps_may_share_a_switch() -> None:
    """By sharing a backend, or the configured one."""
    shared = MemoryBackend()
    apps = [app_with(backend=shared), app_with(backend=shared)]
    await set_maintenance_mode(True, shared)
    assert [await status(app, "/normal") for app in apps] == [503, 503]
    configure_backend("memory", initial=True)
    assert [await status(app_with(), "/normal") for _ in range(2)] == [503, 503]


@pytest.mark.parametrize("outer_on", [True, False])
@pytest.mark.parametrize("inner_on", [True, False])
async def test_a_nested_app_may_have_its_own_middleware(outer_on: bool, inner_on: bool) -> None:
    """A request has to pass both; each says what answers at its own gate."""
    outer_backend, inner_backend = MemoryBackend(outer_on), MemoryBackend(inner_on)
    inner = app_with(backend=inner_backend, response_handler=teapot)

    @inner.get("/mode")
    @force_maintenance_mode_off
    async def mode() -> bool:
        return await get_maintenance_mode()

    app = app_with(backend=outer_backend)
    app.mount("/inner", inner)
    assert await status(app, "/inner/normal") == (503 if outer_on else 418 if inner_on else 200)
    assert await status(app, "/normal") == (503 if outer_on else 200)
    assert (await get(app, "/inner/mode")).json() is inner_on
    assert await status(app, "/inner/none") == 404
    assert (await handshake(app, "/inner/ws")).status == (503 if outer_on else 418 if inner_on else None)


async def test_after_a_nested_app_the_outer_one_is_answering_again() -> None:
    """Code outside of the inner app, such as a middleware, means the outer switch."""
    modes: list[bool] = []

    class Noting(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
            answer = await call_next(request)
            modes.append(await get_maintenance_mode())
            return answer

    app = FastAPI()
    app.mount("/inner", app_with(backend=MemoryBackend(True)))
    app.add_middleware(Noting)
    app.add_middleware(MaintenanceModeMiddleware, backend=MemoryBackend())
    assert await status(app, "/inner/normal") == 503
    assert modes == [False]


# Rewritten requests


class Rewriting:
    """A middleware inside of ours that changes what is asked for."""

    def __init__(self, app: ASGIApp, **changes: Any) -> None:
        self.app = app
        self.changes = changes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, **self.changes} if scope["type"] != "lifespan" else scope, receive, send)


class RewritingInPlace(Rewriting):
    """The same, on the scope itself."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            scope.update(self.changes)
        await self.app(scope, receive, send)


rewriters = pytest.mark.parametrize("rewriting", [Rewriting, RewritingInPlace])


def rewritten(rewriting: Any, app: FastAPI | None = None, on: bool = True, **changes: Any) -> FastAPI:
    app = plain() if app is None else app
    app.add_middleware(rewriting, **changes)
    app.add_middleware(MaintenanceModeMiddleware, backend=MemoryBackend(on), exemptions=Exemptions(paths=["/exempt"]))
    return app


@rewriters
@pytest.mark.parametrize(
    ("changes", "asked", "code"),
    [
        ({"path": "/normal"}, "/none", 503),
        ({"path": "/normal"}, "/open", 503),
        ({"path": "/normal"}, "/exempt", 503),
        ({"path": "/closed"}, "/open", 503),
        ({"path": "/open"}, "/none", 200),
        ({"path": "/none"}, "/open", 404),
        ({"path": "/docs"}, "/open", 200),
        ({"method": "GET"}, "/normal", 503),
        ({"root_path": "/api", "path": "/api/normal"}, "/none", 503),
        ({"root_path": "/none"}, "/none/normal", 503),
        ({"headers": [(b"x-any", b"1")]}, "/open", 200),
    ],
)
async def test_a_request_that_is_rewritten_inside_is_judged_again(
    rewriting: Any, changes: dict[str, Any], asked: str, code: int
) -> None:
    """At the router's entrance, as what it is by then."""
    app = rewritten(rewriting, **changes)
    assert await status(app, asked, "DELETE" if "method" in changes else "GET") == code


@rewriters
async def test_a_request_whose_method_alone_is_rewritten_is_judged_again(rewriting: Any) -> None:
    """Also where what it was is known from requests before it: what reads may be open, and what writes not."""
    app = plain()
    app.get("/both")(force_maintenance_mode_off(lambda: "read"))
    app.post("/both")(lambda: "written")
    app = rewritten(rewriting, app, method="POST")
    for _ in range(2):
        assert await status(app, "/both") == 503


@rewriters
async def test_a_rewritten_handshake_is_judged_again(rewriting: Any) -> None:
    """As a request is."""
    app = rewritten(rewriting, path="/ws")
    assert (await handshake(app, "/none")).status == 503
    assert (await handshake(app, "/none", denial=False)).close_code == 1013


@rewriters
async def test_while_off_a_rewritten_request_passes_unless_it_is_forced_on(rewriting: Any) -> None:
    """Whoever rewrites to what is forced on finds it closed."""
    assert await status(rewritten(rewriting, on=False, path="/normal"), "/none") == 200
    assert await status(rewritten(rewriting, on=False, path="/closed"), "/normal") == 503


@rewriters
async def test_a_request_rewritten_on_its_way_into_a_mounted_app_is_judged_again(rewriting: Any) -> None:
    """At that app's entrance, where the marks of what is around it still count."""
    inner = plain()
    inner.add_middleware(rewriting, path="/inner/normal")
    app = FastAPI()
    app.mount("/inner", inner)
    app.add_middleware(MaintenanceModeMiddleware, backend=MemoryBackend(True))
    assert await status(app, "/inner/open") == 503
    app.mount("/marked", force_maintenance_mode_off(inner))
    inner_of_marked = plain()
    inner_of_marked.add_middleware(rewriting, path="/marked2/normal")
    app.mount("/marked2", force_maintenance_mode_off(inner_of_marked))
    assert await status(app, "/marked2/open") == 200


@rewriters
async def test_each_gate_judges_a_rewritten_request(rewriting: Any) -> None:
    """That of the outer app and that of the inner one, each with its own answer; the outer one speaks first."""
    for outer_on, inner_on, code in ((True, True, 503), (False, True, 418), (True, False, 503), (False, False, 200)):
        inner = plain()
        inner.add_middleware(rewriting, path="/inner/normal")
        inner.add_middleware(MaintenanceModeMiddleware, backend=MemoryBackend(inner_on), response_handler=teapot)
        app = FastAPI()
        app.mount("/inner", inner)
        app.add_middleware(MaintenanceModeMiddleware, backend=MemoryBackend(outer_on))
        assert await status(app, "/inner/open") == code


async def test_a_rewritten_request_still_has_its_body() -> None:
    """Also when a handler has read it at the entrance."""

    async def reading(request: Request) -> bool:
        return await request.body() == b"let me in"

    app = plain()
    rewriting: Any = Rewriting
    app.add_middleware(rewriting, path="/echo")
    app.add_middleware(MaintenanceModeMiddleware, backend=MemoryBackend(True), exempt_handler=reading)
    answer = await request(app, "POST", "/none", content=b"let me in")
    assert (answer.status_code, answer.json()) == (200, "let me in")
    assert await status(app, "/none", "POST", content=b"please") == 503


@rewriters
@pytest.mark.parametrize("on_router", [True, False])
async def test_a_request_rewritten_by_a_routers_own_middleware_is_judged_again(
    rewriting: Any, on_router: bool
) -> None:
    """It stands inside of the router's entrance, and in front of its routes."""
    own = Middleware(MaintenanceModeMiddleware, backend=MemoryBackend(True))
    prefix = "" if on_router else "/in"
    rewrite = Middleware(rewriting, path=prefix + "/normal")
    router = routed(*[own, rewrite] if on_router else [rewrite])
    app: ASGIApp = router
    if not on_router:
        app = FastAPI(routes=[Mount("/in", router)], middleware=[own])
    for path in ("/none", "/open", "/normal"):
        assert await status(app, prefix + path) == 503


def rewriting_function(app: ASGIApp, path: str) -> ASGIApp:
    """Return the same as a function."""

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "path": path}, receive, send)

    return middleware


def hiding_function(app: ASGIApp) -> ASGIApp:
    """Return a middleware that does not tell what it wraps."""
    return Hiding(app)


def routed(*middleware: Any) -> Router:
    """Return a router with an open and a normal route, and middleware of its own."""
    return Router(
        routes=[
            Route("/normal", lambda _: PlainTextResponse("normal")),
            Route("/open", force_maintenance_mode_off(lambda _: Response())),
        ],
        middleware=list(middleware),
    )


async def test_a_request_rewritten_by_a_function_in_a_routers_middleware_is_judged_again() -> None:
    """Its closure leads to the router, as an attribute does."""
    app = FastAPI(routes=[Mount("/in", routed(Middleware(rewriting_function, path="/in/normal")))])
    app.add_middleware(MaintenanceModeMiddleware, backend=MemoryBackend(True))
    for path in ("/in/open", "/in/none", "/in/normal"):
        assert await status(app, path) == 503


async def test_a_routers_middleware_that_hides_the_router_leaves_the_judgement_of_before() -> None:
    """What it does not rewrite is judged rightly all the same."""
    app = FastAPI(routes=[Mount("/in", routed(Middleware(hiding_function)))])
    app.add_middleware(MaintenanceModeMiddleware, backend=MemoryBackend(True))
    for path, code in (("/in/normal", 503), ("/in/open", 200), ("/in/none", 404)):
        assert await status(app, path) == code


async def test_a_request_sent_to_another_app_inside_is_judged_again() -> None:
    """A middleware may choose the app; the first request that comes there is known to nobody."""
    other = plain()

    class Choosing:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await (other if "x-other" in dict_of(scope) else self.app)(scope, receive, send)

    app = FastAPI()
    app.mount("/known", other)
    app.add_middleware(Choosing)
    app.add_middleware(MaintenanceModeMiddleware, backend=MemoryBackend(True))
    assert await status(app, "/known/normal") == 503
    assert await status(app, "/normal", headers={"X-Other": "1"}) == 503
    assert await status(app, "/open", headers={"X-Other": "1"}) == 200


def dict_of(scope: Scope) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in scope.get("headers", [])}


# Where it stands


async def test_it_may_wrap_a_whole_app_from_outside() -> None:
    """The routes are found through whatever stands between."""
    for wrap in (lambda app: app, GZipMiddleware, lambda app: GZipMiddleware(GZipMiddleware(app))):
        wrapped = MaintenanceModeMiddleware(wrap(plain()), enable_maintenance=True)
        for path, code in (("/normal", 503), ("/open", 200), ("/closed", 503), ("/none", 404), ("/docs", 200)):
            assert await status(wrapped, path) == code
        assert (await handshake(wrapped, "/ws")).status == 503


async def test_around_an_opaque_app_everything_runs() -> None:
    """Nobody knows what it would answer, so it is an endpoint without a mark."""

    async def opaque(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("opaque")(scope, receive, send)

    def hiding(inner: ASGIApp) -> ASGIApp:
        async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
            await inner(scope, receive, send)

        return middleware

    assert await status(MaintenanceModeMiddleware(opaque, enable_maintenance=True)) == 503
    assert await status(MaintenanceModeMiddleware(opaque, enable_maintenance=False)) == 200
    assert await status(MaintenanceModeMiddleware(hiding(plain()), enable_maintenance=True), "/none") == 503


class Hiding:
    """A middleware that does not tell what it wraps."""

    def __init__(self, app: ASGIApp) -> None:
        self._inner = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._inner(scope, receive, send)


async def test_a_middleware_that_hides_what_it_wraps_does_not_matter_inside_of_an_app() -> None:
    """The app that is answering is in the scope."""
    app = plain()
    app.add_middleware(Hiding)
    app.add_middleware(MaintenanceModeMiddleware, backend=MemoryBackend(True))
    for path, code in (("/normal", 503), ("/open", 200), ("/none", 404)):
        assert await status(app, path) == code
    outer = FastAPI()
    outer.mount("/inner", app)
    for path, code in (("/inner/normal", 503), ("/inner/open", 200), ("/inner/none", 404)):
        assert await status(outer, path) == code


@pytest.mark.parametrize("hiding", [True, False])
async def test_on_a_mount_it_guards_what_is_mounted(hiding: bool) -> None:
    """By ``middleware=``; what is beside it stays open, and what another one hides can't be told apart."""
    inner, own = plain(), Middleware(MaintenanceModeMiddleware, backend=MemoryBackend(True))
    stack = [own, Middleware(Hiding)] if hiding else [own]
    app = plain()
    app.router.routes.append(Mount("/inner", inner, middleware=stack))
    known = {"/inner/normal": 503, "/inner/open": 200, "/inner/none": 404, "/normal": 200}
    hidden = {"/inner/normal": 503, "/inner/open": 503, "/inner/none": 503, "/normal": 200}
    expected = hidden if hiding else known
    assert {path: await status(app, path) for path in expected} == expected


async def test_on_a_mount_of_files_it_guards_them() -> None:
    """An opaque app, with a mark or without."""
    for is_marked, code in ((True, 200), (False, 503)):
        files = StaticFiles(directory=".")
        if is_marked:
            force_maintenance_mode_off(files)
        middleware = [Middleware(MaintenanceModeMiddleware, backend=MemoryBackend(True))]
        app = FastAPI(routes=[Mount("/files", files, middleware=middleware)])
        assert await status(app, "/files/pyproject.toml") == code


@pytest.mark.parametrize("mark", [None, force_maintenance_mode_off, force_maintenance_mode_on])
@pytest.mark.parametrize("on", [True, False])
async def test_on_a_route_it_guards_its_endpoint(mark: Any, on: bool) -> None:
    """With the endpoint's mark, although the route's app hides the endpoint."""

    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("endpoint")

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()

    if mark is not None:
        mark(endpoint)
        mark(socket)
    middleware = [Middleware(MaintenanceModeMiddleware, backend=MemoryBackend(on))]
    routes = [
        Route("/guarded", endpoint, middleware=middleware),
        Route("/free", lambda request: PlainTextResponse("free")),
        WebSocketRoute("/ws", socket, middleware=middleware),
    ]
    for app in (Starlette(routes=routes), FastAPI(routes=routes), Starlette(routes=[Mount("/in", routes=routes)])):
        prefix = "/in" if isinstance(app.routes[-1], Mount) else ""
        is_open = mark is force_maintenance_mode_off or (mark is None and not on)
        assert await status(app, prefix + "/guarded") == (200 if is_open else 503)
        assert (await handshake(app, prefix + "/ws")).accepted is is_open
        assert await status(app, prefix + "/free") == 200
        assert await status(app, prefix + "/guarded", "POST") == 405


async def test_on_a_router_it_guards_its_routes() -> None:
    """A router is an app as well."""
    router = routed(Middleware(MaintenanceModeMiddleware, backend=MemoryBackend(True)))
    app = FastAPI()
    app.mount("/in", router)
    for path, code in (("/normal", 503), ("/open", 200), ("/none", 404), ("/normal/", 307)):
        assert await status(app, "/in" + path) == code
        assert await status(router, path) == code


@pytest.mark.parametrize("mark", [force_maintenance_mode_off, force_maintenance_mode_on])
@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("subclass", [MaintenanceModeMiddleware, Counting])
async def test_a_mark_on_an_app_counts_for_its_own_middleware(mark: Any, on: bool, subclass: Any) -> None:
    """Mounted or not: the middleware stands inside of the app that is marked."""
    inner = plain()
    inner.add_middleware(subclass, backend=MemoryBackend(on))
    mark(inner)
    outer = FastAPI(routes=[Mount("/in", inner)])
    code = 200 if mark is force_maintenance_mode_off else 503
    for app, prefix in ((inner, ""), (outer, "/in")):
        assert await status(app, prefix + "/normal") == code
        assert await status(app, prefix + "/open") == 200
        assert await status(app, prefix + "/closed") == 503
        assert await status(app, prefix + "/none") == 404
        assert (await handshake(app, prefix + "/ws")).accepted is (code == 200)


async def test_it_may_stand_twice_in_one_app() -> None:
    """With two switches: both have to let a request pass."""
    one, other = MemoryBackend(), MemoryBackend()
    app = plain()
    app.add_middleware(MaintenanceModeMiddleware, backend=one)
    app.add_middleware(MaintenanceModeMiddleware, backend=other, response_handler=teapot)
    assert await status(app, "/normal") == 200
    await set_maintenance_mode(True, one)
    assert await status(app, "/normal") == 503
    await set_maintenance_mode(True, other)
    assert await status(app, "/normal") == 418
    assert await status(app, "/open") == 200


@pytest.mark.parametrize("root_path", ["", "/api"])
async def test_the_servers_root_path_changes_nothing(root_path: str) -> None:
    """The router leaves it out, and so does the judgement; an app's own root path is the same."""
    for app in (closed(), closed()):
        for path, code in (("/normal", 503), ("/open", 200), ("/none", 404), ("/docs", 200)):
            assert await status(app, root_path + path, root_path=root_path) == code
        app.root_path = "/proxied"


async def test_included_routers_are_seen() -> None:
    """With prefixes and parameters, on a FastAPI of any version."""
    app, outer, inner = app_with(backend=MemoryBackend(True)), APIRouter(prefix="/outer"), APIRouter()

    @inner.get("/{item}")
    async def blocked(item: int) -> None: ...

    @inner.get("/open/{item}")
    @force_maintenance_mode_off
    async def open_endpoint(item: int) -> None: ...

    outer.include_router(inner, prefix="/inner/{tenant}")
    app.include_router(outer)
    for path, code in (("/outer/inner/a/1", 503), ("/outer/inner/a/open/1", 200), ("/outer/inner/a", 404)):
        assert await status(app, path) == code


# Matching that raises


class Raising(Convertor[str]):
    """A convertor that can't convert."""

    regex = "[^/]+"

    def convert(self, value: str) -> str:
        raise LookupError(value)

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("raising", Raising())


async def test_where_matching_raises_the_app_fails_closed() -> None:
    """On, it is blocked, unless exempt; off, the router raises by itself."""
    app = app_with(backend=(backend := MemoryBackend()), exemptions=Exemptions(paths=["/raising/exempt"]))

    @app.get("/raising/{item:raising}")
    async def endpoint(item: str) -> None: ...

    with pytest.raises(LookupError):
        await get(app, "/raising/1")
    await set_maintenance_mode(True, backend)
    assert await status(app, "/raising/1") == 503
    with pytest.raises(LookupError):
        await get(app, "/raising/exempt")


# Any request at all


PATHS = ["/normal", "/normal/", "/open", "/closed", "/none", "/docs", "/", "", "/echo", "//normal", "/normal/../open"]


@pytest.mark.parametrize("mode", MaintenanceMode)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "OPTIONS", "PURGE"])
async def test_an_answer_is_a_503_or_the_one_without_the_middleware(method: str, mode: MaintenanceMode) -> None:
    """Whatever is asked for."""
    app, bare = app_with(backend=MemoryBackend(mode)), plain()
    for path in PATHS:
        with_it, without = await call(app, scope_of(path, method)), await call(bare, scope_of(path, method))
        if with_it.status == 503:
            assert without.status == 200, path
            assert mode is not MaintenanceMode.OFF or path == "/closed", path
        else:
            assert (with_it.status, with_it.body) == (without.status, without.body), path


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_it_works_on_trio() -> None:
    """With handlers, sync and async, and websockets."""

    async def answer(request: Request) -> Response:
        return teapot(request)

    app = closed(exempt_handler=lambda request: "x" in request.headers, response_handler=answer)
    async with client(app) as one:
        assert (await one.get("/normal")).status_code == 418
        assert (await one.get("/normal", headers={"X": "1"})).status_code == 200
        assert (await one.get("/open")).status_code == 200
    assert (await handshake(app, "/ws")).status == 418


async def test_many_requests_at_once_are_judged_each_by_itself() -> None:
    """Nothing of one request is kept for another."""
    app = closed(exempt_handler=lambda request: "x" in request.headers)
    codes: dict[int, int] = {}

    async def ask(number: int) -> None:
        codes[number] = await status(app, "/normal", headers={"X": "1"} if number % 2 else {})

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(ask, number)
    assert codes == {number: 200 if number % 2 else 503 for number in range(20)}


async def test_a_json_body_is_read_once_by_handler_and_endpoint() -> None:
    """FastAPI's own parsing gets the bytes that the handler has read."""

    async def by_token(request: Request) -> bool:
        return bool((await request.json())["token"] == "secret")

    app = closed(exempt_handler=by_token)

    @app.post("/json")
    async def endpoint(token: str = Body(embed=True)) -> str:
        return token

    answer = await request(app, "POST", "/json", json={"token": "secret"})
    assert (answer.status_code, answer.json()) == (200, "secret")
    assert await status(app, "/json", "POST", json={"token": "wrong"}) == 503


# Answers that are made once


class Stamp:
    """A middleware further out that adds to the headers in place, as ``CORSMiddleware`` does."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-stamp", b"1"))
            await send(message)

        await self.app(scope, receive, stamped)


async def test_what_is_done_to_one_answer_is_not_seen_in_the_next() -> None:
    app = closed()
    app.add_middleware(Stamp)
    for _ in range(3):
        assert (await get(app, "/normal")).headers.get_list("x-stamp") == ["1"]


async def test_each_request_gets_the_answer_that_fits_it() -> None:
    """By what its client accepts and by its method, the second time as the first."""
    app = closed()
    app.add_api_route("/normal", lambda: "post", methods=["HEAD", "POST"])
    for _ in range(2):
        page, head, form = [
            await call(app, scope_of("/normal", method, headers={"Accept": "text/html"}))
            for method in ("GET", "HEAD", "POST")
        ]
        assert page.body.startswith(b"<!doctype html>")
        assert (head.status, head.body, head.headers) == (503, b"", page.headers)
        assert [b"Try again now" in answer.body for answer in (page, form)] == [True, False]
        assert (await get(app, "/normal")).headers["content-type"] == "application/json"
        assert (await request(app, "POST", "/normal")).json() == (await get(app, "/normal")).json()


async def test_an_answer_that_is_told_once_tells_the_newest_reason() -> None:
    backend = MemoryBackend()
    app = app_with(backend=backend)
    for reason in ("one", "two"):
        await set_maintenance_mode(True, backend, reason=reason)
        for _ in range(2):
            assert (await get(app, "/normal")).json()["reason"] == reason


async def test_an_end_comes_without_anybody_setting_it() -> None:
    """And until then, clients are told how long it is."""
    backend = MemoryBackend()
    app = app_with(backend=backend)
    await set_maintenance_mode(True, backend, until=datetime.now(UTC) + timedelta(seconds=600.5))
    assert 580 < int((await get(app, "/normal")).headers["retry-after"]) <= 600
    end = datetime.now(UTC) + timedelta(seconds=1)
    await set_maintenance_mode(True, backend, until=end)
    while await status(app, "/normal") != 200:
        assert datetime.now(UTC) < end + timedelta(seconds=20)
        await anyio.sleep(0.02)
    assert datetime.now(UTC) >= end


async def test_jitter_is_drawn_for_each_answer() -> None:
    app = closed(answer=Answer(jitter_seconds=10**6))
    told = {(await get(app, "/normal")).headers["retry-after"] for _ in range(4)}
    assert len(told) > 1


async def test_a_request_that_is_rewritten_to_head_gets_the_whole_answer() -> None:
    """Its client waits for as much as Content-Length says."""
    rewriting: Any = Rewriting
    app = FastAPI()
    app.add_route("/normal", plain_text)
    app.add_middleware(rewriting, method="HEAD")
    app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True)
    answer = await request(app, "POST", "/normal")
    assert (answer.status_code, answer.json()["detail"]) == (503, DETAIL)


async def plain_text(request: Request) -> Response:
    return PlainTextResponse("text")


# What a request has begun


async def test_a_request_without_a_backend_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL that can't work is an error of each request, and no app is answering after it."""
    app = MaintenanceModeMiddleware(plain())
    monkeypatch.setenv(BACKEND_VARIABLE, "reddis://localhost")
    for kind in ("http", "websocket"):
        with pytest.raises(UnknownBackend):
            await call(app, scope_of("/normal", kind=kind))
        assert passage.current.get() is None


def test_a_websocket_that_no_loop_serves_leaves_nothing_behind() -> None:
    """Neither asyncio nor trio can close it from outside, so it ends at once: not counted, and nobody is answering."""
    app = MaintenanceModeMiddleware(plain(), backend=(backend := MemoryBackend()))

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError

    with pytest.raises(RuntimeError):
        app(scope_of("/ws", kind="websocket"), receive, send).send(None)
    assert in_flight(backend) == []
    assert passage.current.get() is None


# Log lines


FORGED = "/normal\r\nCRITICAL forged\u2028record\x1b[2J"
"""A path, decoded by the server, that would be several lines, with one that looks like another record."""


async def test_a_path_in_a_record_of_a_failed_handler_is_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """A client chooses it."""

    def fails(request: Request) -> bool:
        raise ZeroDivisionError

    app = closed(exempt_handler=fails)
    app.get("/{item}")(lambda item: None)
    assert (await call(app, scope_of(FORGED))).status == 503
    (record,) = (record for record in caplog.records if "exempt_handler" in record.message)
    assert record.message == "exempt_handler failed: GET /normal CRITICAL forged record[2J is not exempt"


async def test_a_path_in_a_record_of_matching_that_raised_is_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """The record quotes it."""
    caplog.set_level(logging.DEBUG, "fastapi_maintenance")
    app = closed()
    app.get("/raising/{item:raising}")(lambda item: None)
    assert (await call(app, scope_of("/raising" + FORGED.replace("/normal", "/1")))).status == 503
    (record,) = (record for record in caplog.records if "raised" in record.message)
    assert record.message.isprintable()
    assert record.message.startswith(
        r"matching '/raising/1\r\nCRITICAL forged\u2028record\x1b[2J' raised LookupError("
    )
