"""The apps that are measured, and the requests that they get. Runs in a worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from benchmarks.cases import (
    EXEMPT_PATH,
    PREFIX,
    ROUTES_PER_ROUTER,
    STREAM_CHUNKS,
    STREAM_PATH,
    UPLOAD_CHUNK_BYTES,
    UPLOAD_CHUNKS,
    UPLOAD_PATH,
    WAIT_PATH,
    Measure,
    Scene,
    Shot,
    State,
    Tree,
    mark_of_route,
    request_paths,
    route_path,
)

Endpoint = Callable[..., Awaitable[Any]]
Marking = Callable[[Endpoint, bool], Endpoint]
"""Forces an endpoint on or off."""


def build_app(scene: Scene, marking: Marking) -> FastAPI:
    """Return the app of a scene, without any middleware."""
    app = FastAPI()
    if scene.tree is Tree.DIRECT:
        _add_routes(app.router, scene, range(scene.routes), "", marking)
    else:
        outer, middle = APIRouter(prefix=PREFIX.rpartition("/")[0]), APIRouter(prefix="/v1")
        for start in range(0, scene.routes, ROUTES_PER_ROUTER):
            prefix = f"/group{start // ROUTES_PER_ROUTER}"
            inner = APIRouter(prefix=prefix)
            _add_routes(inner, scene, range(start, start + ROUTES_PER_ROUTER), PREFIX + prefix, marking)
            middle.include_router(inner)
        outer.include_router(middle)
        app.include_router(outer)
    app.get(EXEMPT_PATH)(_endpoint(-1))
    app.post(UPLOAD_PATH)(_upload)
    app.get(STREAM_PATH)(_stream)
    app.state.lobby = Lobby()
    app.get(WAIT_PATH)(app.state.lobby.wait)
    return app


def _add_routes(router: APIRouter, scene: Scene, indices: range, prefix: str, marking: Marking) -> None:
    for index in indices:
        endpoint = _endpoint(index)
        forced = mark_of_route(index)
        if scene.state is State.MARKED and forced is not None:
            endpoint = marking(endpoint, forced)
        router.get(route_path(index).removeprefix(prefix))(endpoint)


def _endpoint(index: int) -> Endpoint:
    async def endpoint() -> dict[str, int]:
        return {"route": index}

    return endpoint


async def _upload(request: Request) -> dict[str, int]:
    return {"size": len(await request.body())}


async def _stream() -> StreamingResponse:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(STREAM_CHUNKS):
            yield b"x" * 100

    return StreamingResponse(chunks())


class Lobby:
    """Where requests wait until they are let go."""

    def __init__(self) -> None:
        self.waiting = 0
        self.doors = asyncio.Event()

    async def wait(self) -> None:
        """Wait with the others."""
        self.waiting += 1
        await self.doors.wait()
        self.waiting -= 1


class _Lead:
    """Does nothing, and leads to what it wraps, as the two middlewares between a user's and the router do."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def stub_router(app: FastAPI) -> ASGIApp:
    """Put a stub behind the entrance of an app's router, and return what a middleware around it would wrap.

    The routes stay where they are, to be looked at. A middleware that guards the router's entrance as well wraps the
    stub, so that this counts.
    """
    app.router.middleware_stack = _answer
    return _Lead(_Lead(app.router))


_START: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", b"2")],
}
_BODY: Message = {"type": "http.response.body", "body": b"{}"}


async def _answer(scope: Scope, receive: Receive, send: Send) -> None:
    await send(_START)
    await send(_BODY)


def request_scopes(scene: Scene, shot: Shot, app: FastAPI) -> list[Scope]:
    """Return the scopes of a shot's requests; copy before use."""
    scope = request_scope("/", method="POST" if shot is Shot.UPLOAD else "GET")
    if shot is Shot.UPLOAD:
        scope["headers"].append((b"content-length", str(UPLOAD_CHUNKS * UPLOAD_CHUNK_BYTES).encode()))
    if scene.measure is Measure.ALONE:
        scope["app"] = app  # the app itself would have said so
    return [{**scope, "path": path, "raw_path": path.encode()} for path in request_paths(scene, shot)]


def request_scope(path: str, method: str = "GET") -> Scope:
    """Return the scope of a request as a server behind a proxy makes it."""
    headers = [
        (b"host", b"api.example.com"),
        (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
        (b"accept", b"application/json, text/plain, */*"),
        (b"accept-language", b"en-US,en;q=0.5"),
        (b"accept-encoding", b"gzip, deflate, br"),
        (b"authorization", b"Bearer 0123456789abcdef0123456789abcdef"),
        (b"x-forwarded-for", b"203.0.113.7"),
        (b"connection", b"keep-alive"),
    ]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "state": {},
    }


class Receiver:
    """The ``receive`` of one request: its body, then nothing until the client is gone."""

    __slots__ = ("_chunks_left",)

    def __init__(self, chunks: int = 1) -> None:
        self._chunks_left = chunks

    async def __call__(self) -> Message:
        """Receive the next part of the body."""
        if not self._chunks_left:
            await asyncio.get_running_loop().create_future()
        self._chunks_left -= 1
        return {"type": "http.request", "body": _CHUNK, "more_body": self._chunks_left > 0}


_CHUNK = b"x" * UPLOAD_CHUNK_BYTES
