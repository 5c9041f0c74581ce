"""Requests whose scope a middleware built from the keys of ASGI, without ours: one, or many out of one (`/$batch`)."""

from __future__ import annotations

import asyncio
import copy
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
from fastapi import Depends, FastAPI, Request, WebSocket
from fastapi.routing import APIRoute
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_maintenance import (
    Exemptions,
    MaintenanceGuard,
    MaintenanceModeMiddleware,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import MemoryBackend
from fastapi_maintenance.backends.base import get_siblings
from fastapi_maintenance.gate.bypass import Bypass
from tests.support.asgi import call, get, handshake, request, scope_of, status
from tests.support.servers import uvicorn_server

pytestmark = pytest.mark.anyio
every_loop = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])

KEYS = (
    *("type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path"),
    *("headers", "client", "server", "state", "extensions", "subprotocols"),
)

ran: list[str] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    """Begin with an empty list of what ran."""
    ran.clear()


def anew(scope: Scope, **changes: Any) -> Scope:
    """Return a scope with the keys of ASGI only."""
    return {**{key: scope[key] for key in KEYS if key in scope}, **changes}


class Anew:
    """A middleware that passes on a new scope."""

    def __init__(self, app: ASGIApp, **changes: Any) -> None:
        self.app = app
        self.changes = changes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        new = scope if scope["type"] == "lifespan" else anew(scope, **self.changes)
        await self.app(new, receive, send)


class EmptiedInPlace(Anew):
    """The same, in the scope that it got."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        new = scope if scope["type"] == "lifespan" else anew(scope, **self.changes)
        scope.clear()
        scope.update(new)
        await self.app(scope, receive, send)


class Rewriting(Anew):
    """One that passes on a copy."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, **self.changes}, receive, send)


class CopiedDeeply(Anew):
    """One that passes on a deep copy."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**copy.deepcopy(scope), **self.changes}, receive, send)


Part = Callable[[], Awaitable[int]]
Way = Callable[[list[Part]], Awaitable[list[int]]]


async def in_sequence(parts: list[Part]) -> list[int]:
    """Answer one part after the other."""
    return [await part() for part in parts]


async def gathered(parts: list[Part]) -> list[int]:
    """Answer all at once, by asyncio."""
    return list(await asyncio.gather(*(part() for part in parts)))


async def in_a_group(parts: list[Part]) -> list[int]:
    """Answer all at once, by tasks."""
    codes: dict[int, int] = {}

    async def answer(number: int, part: Part) -> None:
        codes[number] = await part()

    async with anyio.create_task_group() as group:
        for number, part in enumerate(parts):
            group.start_soon(answer, number, part)
    return [codes[number] for number in range(len(parts))]


async def from_a_thread(parts: list[Part]) -> list[int]:
    """Answer them by a thread that comes back for each."""
    run: Any = anyio.from_thread.run
    return await anyio.to_thread.run_sync(lambda: [run(part) for part in parts])


class Batch:
    """A middleware that answers `POST /$batch`, whose body has a method and a path for each part."""

    def __init__(self, app: ASGIApp, way: Way = in_sequence, scope_of: Any = anew, to: ASGIApp | None = None) -> None:
        self.app = app
        self.to = to or app
        self.way = way
        self.scope_of = scope_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/$batch":
            await self.app(scope, receive, send)
            return
        parts = await Request(scope, receive).json()
        codes = await self.way([self.part(scope, *part) for part in parts])
        await PlainTextResponse(json.dumps(codes))(scope, receive, send)

    def part(self, scope: Scope, method: str, path: str) -> Part:
        """Return what answers one part."""

        async def answer() -> int:
            codes: list[int] = []

            async def receive() -> Message:
                return {"type": "http.request"}

            async def send(message: Message) -> None:
                if message["type"] == "http.response.start":
                    codes.append(message["status"])

            await self.to(self.scope_of(scope, method=method, path=path), receive, send)
            return codes[0]

        return answer


def noting(name: str) -> Callable[[Request], Response]:
    """Return an endpoint of Starlette's, which needs nothing in the scope but the keys of ASGI."""

    def endpoint(request: Request) -> Response:
        ran.append(name)
        return PlainTextResponse(name)

    return endpoint


async def answer_handshake(websocket: WebSocket) -> None:
    """Accept and close."""
    ran.append("ws")
    await websocket.accept()
    await websocket.close()


def routes() -> list[BaseRoute]:
    """Return some routes."""
    return [
        Route("/normal", noting("normal")),
        Route("/written", noting("written"), methods=["POST"]),
        Route("/open", force_maintenance_mode_off(noting("open"))),
        Route("/forced", force_maintenance_mode_on(noting("forced"))),
        Route("/exempt", noting("exempt")),
        WebSocketRoute("/ws", answer_handshake),
    ]


def gated(*inner: Middleware, on: Any = True, app: FastAPI | None = None, **options: Any) -> FastAPI:
    """Return an app with the middleware, and these ones inside of it."""
    backend = on if isinstance(on, MemoryBackend) else MemoryBackend(on)
    options = {"backend": backend, "exemptions": Exemptions(paths=["/exempt", "/inner/exempt"]), **options}
    app = FastAPI(routes=routes()) if app is None else app
    for middleware in reversed(inner):
        app.add_middleware(middleware.cls, *middleware.args, **middleware.kwargs)
    app.add_middleware(MaintenanceModeMiddleware, **options)
    return app


def inside(middleware: Any, **options: Any) -> Middleware:
    """Return a middleware with its options, as an app takes it."""
    return Middleware(middleware, **options)


PARTS = [["GET", "/normal"], ["GET", "/normal"], ["GET", "/open"], ["GET", "/exempt"], ["POST", "/written"]]
PARTS += [["GET", "/none"], ["DELETE", "/normal"], ["GET", "/forced"], ["GET", "/docs"]]
CODES = [503, 503, 200, 200, 503, 404, 405, 503, 200]


async def batch(app: ASGIApp, parts: list[list[str]] = PARTS) -> list[int]:
    """Return the answers to the parts of a batch."""
    answer = await request(app, "POST", "/$batch", json=parts)
    assert answer.status_code == 200, answer.text
    return list(answer.json())


# One out of one


@pytest.mark.parametrize("how", [Anew, EmptiedInPlace])
@pytest.mark.parametrize("asked", ["/open", "/none", "/exempt"])
async def test_a_new_scope_is_judged_again(how: Any, asked: str) -> None:
    """At the router, as what it is by then: unchanged, and rewritten."""
    for path, code in {
        "/normal": 503,
        "/open": 200,
        "/forced": 503,
        "/exempt": 200,
        "/none": 404,
        "/docs": 200,
    }.items():
        if how is EmptiedInPlace and path == "/docs":
            continue  # then nobody knows any more which app has these pages
        assert await status(gated(inside(how, path=path)), asked) == code, path
    assert ran == ["open", "exempt"]


async def test_while_off_a_new_scope_comes_to_what_is_forced_on_in_vain() -> None:
    """Whatever it was before."""
    assert await status(gated(inside(Anew, path="/forced"), on=False), "/normal") == 503
    assert await status(gated(inside(Anew, path="/normal"), on=False), "/none") == 200
    assert ran == ["normal"]


@every_loop
async def test_read_only_goes_by_the_new_method(anyio_backend: str) -> None:
    """And the answer fits the part."""
    backend = MemoryBackend()
    await set_maintenance_mode("read_only", backend)
    app = gated(inside(Batch), on=backend)
    assert await batch(app, [["GET", "/normal"], ["POST", "/written"]]) == [200, 503]


async def test_a_handshake_in_a_new_scope_is_judged_again() -> None:
    """As a request is."""
    app = gated(inside(Anew, path="/ws"))
    assert (await handshake(app, "/none")).status == 503
    assert (await handshake(app, "/none", denial=False)).close_code == 1013
    assert (await handshake(gated(inside(Anew), on=False), "/ws")).accepted
    assert ran == ["ws"]


async def test_a_new_scope_needs_no_headers() -> None:
    """One made by hand may have none; the bare app answers it, so it is judged like any other."""

    class Bare(Anew):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            new = {key: value for key, value in anew(scope).items() if key != "headers"}
            await self.app(new if scope["type"] == "http" else scope, receive, send)

    assert await status(gated(inside(Bare)), "/normal") == 503
    assert await status(gated(inside(Bare), on=False), "/normal") == 200
    assert await status(gated(inside(Bare), on=False), "/forced") == 503


async def test_the_answer_to_what_was_made_a_head_has_a_body() -> None:
    """The server waits for it, since the client asked by another method."""
    app = gated(inside(Anew, path="/normal", method="HEAD"))
    answer = await request(app, "POST", "/none")
    assert (answer.status_code, len(answer.content)) == (503, int(answer.headers["content-length"]))


@pytest.mark.usefixtures("nothing_marked")
async def test_while_nothing_is_forced_on_all_parts_are_judged_by_what_the_switch_said() -> None:
    """As long as the request around them runs, also if the switch is turned on meanwhile."""
    backend = MemoryBackend()

    async def turning(parts: list[Part]) -> list[int]:
        await set_maintenance_mode(True, backend)
        return [await part() for part in parts]

    app = FastAPI(routes=[Route("/normal", noting("normal"))])
    app = gated(inside(Batch, way=turning), on=backend, app=app)
    assert await batch(app, [["GET", "/normal"], ["GET", "/none"]]) == [200, 404]
    assert await status(app, "/normal") == 503


# Many out of one


@pytest.mark.parametrize("way", [in_sequence, gathered, in_a_group, from_a_thread])
@pytest.mark.parametrize("scope_of", [anew, lambda scope, **changes: {**scope, **changes}], ids=["anew", "copied"])
async def test_each_part_of_a_batch_is_judged_by_itself(way: Way, scope_of: Any) -> None:
    """Also the same part again, and by a handler that takes its time."""
    asked: list[str] = []

    async def exempt(request: Request) -> bool:
        asked.append(request.url.path)
        await anyio.sleep(0.01)
        return False

    app = gated(inside(Batch, way=way, scope_of=scope_of), exempt_handler=exempt)
    assert await batch(app) == CODES
    assert sorted(ran) == ["exempt", "open"]
    assert sorted(asked) == ["/normal", "/normal", "/written"]
    ran.clear()
    off = gated(inside(Batch, way=way, scope_of=scope_of), on=False)
    assert await batch(off) == [200, 200, 200, 200, 200, 404, 405, 503, 200]


async def test_what_is_refused_at_the_router_stays_refused_when_it_comes_again() -> None:
    """A middleware may try again, with the very same scope."""

    class Trying(Anew):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            scope["path"] = "/normal"
            for _ in range(3):
                await self.app(scope, receive, send)

    answer = await call(gated(inside(Trying)), scope_of("/none"))
    assert [message["status"] for message in answer.sent if "status" in message] == [503] * 3
    assert ran == []


@pytest.mark.parametrize("on", [False, True])
async def test_all_parts_are_judged_by_what_the_switch_said_when_the_batch_came(on: bool) -> None:
    """Somebody turns it in between; that is for requests that come from then on, as everywhere."""
    backend = MemoryBackend(on)

    async def turning(parts: list[Part]) -> list[int]:
        codes = [await parts[0]()]
        await set_maintenance_mode(not on, backend)
        return [*codes, *[await part() for part in parts[1:]]]

    app = gated(inside(Batch, way=turning), on=backend)
    parts = [["GET", "/normal"], ["GET", "/normal"]]
    assert await batch(app, parts) == ([503, 503] if on else [200, 200])
    assert await status(app, "/normal") == (200 if on else 503)


async def test_a_part_that_outlives_the_batch_is_judged_by_what_the_switch_says_then() -> None:
    """Whoever waited until everything had drained was not told of it."""
    backend = MemoryBackend()
    tasks: list[asyncio.Task[int]] = []
    is_over = asyncio.Event()

    async def later(part: Part) -> int:
        await is_over.wait()
        return await part()

    async def promising(parts: list[Part]) -> list[int]:
        tasks.extend(asyncio.ensure_future(later(part)) for part in parts)
        return [202]

    app = gated(inside(Batch, way=promising), on=backend)
    assert await batch(app, [["GET", "/normal"], ["GET", "/open"], ["GET", "/forced"]]) == [202]
    await set_maintenance_mode(True, backend)
    is_over.set()
    assert await asyncio.gather(*tasks) == [503, 200, 503]


async def test_an_endpoint_may_make_the_parts() -> None:
    """Where it goes around the middleware, it meets the router all the same; through the whole app, both."""
    app = gated()

    async def answers(request: Request) -> Response:
        to: Any = app if "all" in request.query_params else app.router
        codes = [await Batch(to).part(request.scope, *part)() for part in PARTS]
        return PlainTextResponse(json.dumps(codes))

    app.post("/$batch", response_model=None)(force_maintenance_mode_off(answers))
    for query in ("", "?all"):
        answer = await request(app, "POST", "/$batch" + query)
        codes = answer.json()
        assert codes[:-1] == CODES[:-1]
    assert sorted(set(ran)) == ["exempt", "open"]


# Mounted apps, and several gates


@pytest.mark.parametrize("was_asked", [False, True])
@pytest.mark.parametrize("scope_of", [anew, lambda scope, **changes: {**scope, **changes}], ids=["anew", "copied"])
async def test_a_part_may_be_sent_to_a_mounted_app(scope_of: Any, was_asked: bool) -> None:
    """Past the router, to one that no request came to so far; a mark of that app applies."""
    inner, forced = FastAPI(routes=routes()), force_maintenance_mode_on(FastAPI(routes=routes()))
    for on in (True, False):
        app = gated(inside(Batch, scope_of=scope_of, to=inner), on=on)
        app.mount("/inner", inner)
        if was_asked:
            await get(app, "/inner/open")
        assert await batch(app, PARTS[:3]) == ([503, 503, 200] if on else [200, 200, 200])
        app = gated(inside(Batch, scope_of=scope_of, to=forced), on=on)
        app.mount("/forced", forced)
        if was_asked:
            await get(app, "/forced/open")
        assert await batch(app, PARTS[:3]) == [503, 503, 200]


@pytest.mark.parametrize("where", ["app", "mount", "router"])
async def test_a_new_scope_on_the_way_into_a_mounted_app_is_judged_again(where: str) -> None:
    """At that app's entrance, where exempt paths and the marks around it still apply."""

    def mounted(path: str, mark: Any = lambda app: app) -> FastAPI:
        change = inside(Anew, path=path)
        inner: Any = FastAPI(routes=routes(), middleware=[change] if where == "app" else [])
        if where == "router":
            inner = Router(routes=routes(), middleware=[change])
        app = gated()
        app.router.routes.append(Mount("/inner", mark(inner), middleware=[change] if where == "mount" else []))
        return app

    for path, code in {"/inner/normal": 503, "/inner/open": 200, "/inner/exempt": 200, "/inner/none": 404}.items():
        assert await status(mounted(path), "/inner/open") == code, path
    assert await status(mounted("/inner/normal", force_maintenance_mode_off), "/inner/open") == 200
    assert await status(mounted("/inner/normal", force_maintenance_mode_on), "/inner/open") == 503


@pytest.mark.parametrize("how", [Anew, Rewriting])
async def test_a_new_scope_within_a_rewritten_request_is_one_of_that_request(how: Any) -> None:
    """So the marks around it and the app that it came to are known."""
    open_app = FastAPI(routes=routes(), middleware=[inside(Anew)])
    plain_app = FastAPI(routes=routes(), middleware=[inside(Anew)])
    for path, code in (("/open/normal", 200), ("/plain/docs", 200), ("/plain/normal", 503)):
        app = gated(inside(how, path=path))
        app.mount("/open", force_maintenance_mode_off(open_app))
        app.mount("/plain", plain_app)
        assert await status(app, "/none") == code, path


@pytest.mark.parametrize("outer_on", [False, True])
@pytest.mark.parametrize("inner_on", [False, True])
@pytest.mark.parametrize("where", ["outer", "mount", "inner"])
async def test_all_gates_around_a_new_scope_judge_it(outer_on: bool, inner_on: bool, where: str) -> None:
    """Wherever it was made; at the router the outermost one speaks first."""

    def teapot(request: Request) -> Response:
        return PlainTextResponse("", 418)

    new = inside(Anew, path="/inner/normal")
    inner = gated(*[new] if where == "inner" else [], on=inner_on, response_handler=teapot)
    app = gated(*[new] if where == "outer" else [], on=outer_on)
    app.router.routes.append(Mount("/inner", inner, middleware=[new] if where == "mount" else []))
    for _ in range(2):
        code = 503 if outer_on else 418 if inner_on else 200
        if where == "mount" and inner_on:
            code = 418  # it comes to that gate first, and to the router then
        assert await status(app, "/inner/open") == code
        assert ran == ([] if outer_on or inner_on else ["normal"])
        ran.clear()


async def test_another_app_is_not_judged_by_the_gate_around_the_caller() -> None:
    """An endpoint may call an app that this gate does not lead to; one that has a gate is judged by its own."""
    plain, own = FastAPI(routes=routes()), gated(on=False)
    elsewhere = gated(on=False, app=FastAPI(routes=[Mount("/plain", plain)]))
    assert await status(elsewhere, "/plain/forced") == 503  # so `plain` is watched

    app = gated()

    async def calls(request: Request) -> list[int]:
        return [await status(other, path) for other in (plain, own, app) for path in ("/normal", "/forced")]

    app.get("/calls")(force_maintenance_mode_off(calls))
    assert (await get(app, "/calls")).json() == [200, 200, 200, 503, 503, 503]

    async def opaque(scope: Scope, receive: Receive, send: Send) -> None:
        await plain(anew(scope), receive, send)

    leading_nowhere = MaintenanceModeMiddleware(force_maintenance_mode_off(opaque), backend=MemoryBackend(True))
    assert await status(leading_nowhere, "/normal") == 200


# Guards


@pytest.mark.parametrize("where", ["app", "mount", "inner"])
async def test_a_guard_knows_the_gate_around_a_new_scope(where: str) -> None:
    """Its app's own backend, ``enable_maintenance`` and exemptions, also where nothing is judged on the way."""
    backend = MemoryBackend()
    new = inside(Anew)
    inner = FastAPI(middleware=[new] if where == "inner" else [])
    for name in ("shut", "exempt"):
        inner.get(f"/{name}", dependencies=[Depends(MaintenanceGuard("billing"))])(lambda: ran.append("billing"))
    app = gated(*[new] if where == "app" else [], on=backend)
    app.router.routes.append(Mount("/inner", inner, middleware=[new] if where == "mount" else []))
    app.get("/switch")(lambda: None)
    sibling = backend.sibling("billing")
    get_siblings(backend)["billing"] = sibling
    await set_maintenance_mode(True, sibling)
    assert await status(app, "/inner/shut") == 503
    assert await status(app, "/inner/exempt") == 200
    assert ran == ["billing"]


async def test_a_guard_of_another_app_does_not_follow_the_caller() -> None:
    """That app has no gate, so its switch is the configured one."""
    other = FastAPI()
    other.get("/shut", dependencies=[Depends(MaintenanceGuard())])(lambda: "other")
    app = gated()

    async def calls() -> int:
        return await status(other, "/shut")

    app.get("/calls")(force_maintenance_mode_off(calls))
    assert (await get(app, "/calls")).json() == 200


async def test_a_token_that_was_taken_out_of_the_query_still_opens() -> None:
    """It is one request, whatever its scope is."""
    bypass, backend = Bypass("0123456789abcdef0123"), MemoryBackend(True)
    app = gated(inside(Anew), on=backend, exemptions=Exemptions(bypass=bypass))
    token = await bypass.token(holder="tester", backend=backend)
    assert await status(app, f"/written?{bypass.parameter}={token}", "POST") == 200
    assert await status(app, "/written", "POST") == 503
    assert await status(app, "/open") == 200


async def test_a_route_that_builds_the_scope_anew_keeps_the_request() -> None:
    """Its guard finds the gate that the request has passed, with the token that the gate took out of the query."""
    bypass, backend = Bypass("0123456789abcdef0123"), MemoryBackend()

    class AnewRoute(APIRoute):
        def get_route_handler(self) -> Any:
            handle = super().get_route_handler()

            async def handle_anew(request: Request) -> Any:
                kept = {name: value for name, value in request.scope.items() if name != "fastapi_maintenance"}
                return await handle(Request(kept, request.receive))

            return handle_anew

    app = FastAPI()
    app.router.route_class = AnewRoute
    app.post("/billed", dependencies=[Depends(MaintenanceGuard("billing"))])(lambda: "billed")
    app.add_middleware(MaintenanceModeMiddleware, backend=backend, exemptions=Exemptions(bypass=bypass))
    sibling = backend.sibling("billing")
    get_siblings(backend)["billing"] = sibling
    assert await status(app, "/billed", "POST") == 200
    await set_maintenance_mode(True, sibling)
    token = await bypass.token("billing", holder="tester", backend=backend)
    assert await status(app, "/billed", "POST") == 503
    assert await status(app, f"/billed?{bypass.parameter}={token}", "POST") == 200


# Deep copies


@pytest.mark.parametrize("on", [False, True])
async def test_a_deep_copy_of_the_scope_is_the_same_request(on: bool) -> None:
    """What the server and the routers put there can be copied, so what we put there can."""
    for path, code in {"/normal": 503 if on else 200, "/open": 200, "/forced": 503, "/none": 404}.items():
        inner = CopiedDeeply(FastAPI(routes=routes()))
        app = MaintenanceModeMiddleware(inner, backend=MemoryBackend(on))
        assert await status(app, path) == code
        rewriting = MaintenanceModeMiddleware(CopiedDeeply(inner, path=path), backend=MemoryBackend(on))
        assert await status(rewriting, "/open") == code


@pytest.mark.parametrize("on", [False, True])
async def test_a_deep_copy_below_a_router_with_the_middleware_is_the_same_request(on: bool) -> None:
    """The scope has that router by then."""
    inner = Router(routes=routes())
    ours = inside(MaintenanceModeMiddleware, backend=MemoryBackend(on))
    app = Router(routes=[Mount("/inner", CopiedDeeply(inner))], middleware=[ours])
    for path, code in {"/normal": 503 if on else 200, "/open": 200, "/forced": 503, "/none": 404}.items():
        assert await status(app, "/inner" + path) == code


async def test_the_scope_of_a_websocket_can_be_copied_deeply() -> None:
    """Whoever closes it from outside still finds it."""

    class Sender:
        lock = property(lambda self: None)

        def __deepcopy__(self, memo: object) -> Sender:
            raise TypeError("a server's connection can't be copied")

        async def send(self, message: Message) -> None:
            sent.append(message["type"])

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    sent: list[str] = []
    app = MaintenanceModeMiddleware(CopiedDeeply(FastAPI(routes=routes())), backend=MemoryBackend())
    await app(scope_of("/ws", kind="websocket"), receive, Sender().send)
    assert sent == ["websocket.accept", "websocket.close"]


# On the wire


@pytest.mark.parametrize("http", ["httptools", "h11"])
async def test_on_the_wire_no_part_of_a_batch_runs_that_is_blocked(http: str) -> None:
    """As bytes, by either of uvicorn's parsers."""
    app = gated(inside(Anew), inside(Batch))
    body = json.dumps(PARTS).encode()
    for line, expected in ((b"GET /normal", b"503"), (b"GET /forced", b"503"), (b"POST /$batch", b"200")):
        with (
            uvicorn_server(app, http=http) as server,
            socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection,
        ):
            connection.sendall(
                line + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
            assert answer.startswith(b"HTTP/1.1 " + expected), answer
    assert json.loads(answer.rpartition(b"\r\n")[2]) == CODES
    assert sorted(ran) == ["exempt", "open"]


@pytest.mark.parametrize("on", [False, True])
async def test_dispatch_can_be_called_without_the_middleware_around_it(on: bool) -> None:
    """As a test of a subclass may do."""
    middleware = MaintenanceModeMiddleware(FastAPI(routes=routes()), backend=MemoryBackend(on))

    async def call_next(request: Request) -> Response:
        return PlainTextResponse("passed")

    response = await middleware.dispatch(Request(scope_of("/normal")), call_next)
    assert response.status_code == (503 if on else 200)


@pytest.mark.parametrize("on", [False, True])
async def test_dispatch_may_pass_on_a_new_scope(on: bool) -> None:
    """It is the same request of the same app."""

    class Renewing(MaintenanceModeMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            return await super().dispatch(Request(anew(request.scope), request.receive), call_next)

    app = Renewing(FastAPI(routes=routes()), backend=MemoryBackend(on))
    assert await status(app, "/normal") == (503 if on else 200)
    assert await status(app, "/open") == 200
    assert await status(app, "/forced") == 503
