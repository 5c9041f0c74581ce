"""Call an app as a server does, but without a server: requests by httpx, websocket handshakes by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx
from starlette.types import ASGIApp, Message, Scope

CLIENT = ("203.0.113.7", 50000)
DENIAL_EXTENSION = "websocket.http.response"
PREFLIGHT = {"Origin": "https://shop.example", "Access-Control-Request-Method": "GET"}
"""The headers of one, of a browser that is to fetch something for another site's page."""

DETAIL = "Service temporarily unavailable due to maintenance"
BODY = {"detail": DETAIL}
"""What the default answer says while no reason and no end is known."""


def client(app: ASGIApp, *, root_path: str = "", address: tuple[str, int] = CLIENT) -> httpx.AsyncClient:
    """Return a client whose requests go straight into ``app``; what the app raises comes out of the call."""
    transport = httpx.ASGITransport(app, root_path=root_path, client=address)
    return httpx.AsyncClient(transport=transport, base_url="http://testserver")


async def request(app: ASGIApp, method: str, path: str, *, root_path: str = "", **options: Any) -> httpx.Response:
    """Return the answer to one request; ``options`` are those of ``httpx.AsyncClient.request``."""
    async with client(app, root_path=root_path) as one:
        return await one.request(method, path, **options)


async def get(app: ASGIApp, path: str = "/", **options: Any) -> httpx.Response:
    """Return the answer to one GET request."""
    return await request(app, "GET", path, **options)


async def status(app: ASGIApp, path: str = "/", method: str = "GET", **options: Any) -> int:
    """Return the status of the answer to one request."""
    return (await request(app, method, path, **options)).status_code


def scope_of(
    path: str = "/",
    method: str = "GET",
    *,
    kind: str = "http",
    headers: Mapping[str, str] | None = None,
    root_path: str = "",
    **more: Any,
) -> Scope:
    """Return the scope that a server makes of a request, or of a handshake with ``kind="websocket"``."""
    scope: dict[str, Any] = {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "http" if kind == "http" else "ws",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": root_path,
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        "client": CLIENT,
        "server": ("testserver", 80),
        "state": {},
        "extensions": {},
    }
    if kind == "http":
        scope["method"] = method
    else:
        scope["subprotocols"] = []
    return scope | more


@dataclass
class Answer:
    """What an app sent for one connection, message by message."""

    sent: list[Message] = field(default_factory=list)

    @property
    def status(self) -> int | None:
        """The HTTP status, of a denied handshake as well; ``None`` if there was none."""
        return next((message["status"] for message in self.sent if message["type"].endswith("response.start")), None)

    @property
    def headers(self) -> dict[str, str]:
        """The HTTP headers, with lower-case names."""
        pairs: Iterable[tuple[bytes, bytes]] = next(
            (message["headers"] for message in self.sent if message["type"].endswith("response.start")), ()
        )
        return {name.decode(): value.decode() for name, value in pairs}

    @property
    def body(self) -> bytes:
        """The HTTP body."""
        return b"".join(message.get("body", b"") for message in self.sent if message["type"].endswith("response.body"))

    @property
    def accepted(self) -> bool:
        """Whether a handshake was accepted."""
        return any(message["type"] == "websocket.accept" for message in self.sent)

    @property
    def close_code(self) -> int | None:
        """The code with which a websocket was closed, before or after it was accepted."""
        closes = (message.get("code", 1000) for message in self.sent if message["type"] == "websocket.close")
        return next(closes, None)

    @property
    def texts(self) -> list[str]:
        """The texts that were sent through a websocket."""
        return [message["text"] for message in self.sent if message["type"] == "websocket.send"]

    def json(self) -> Any:
        """Return the body, parsed."""
        return json.loads(self.body)


async def call(app: ASGIApp, scope: Scope, *incoming: Message) -> Answer:
    """Call an app with a scope and return what it sent.

    ``incoming`` is what it receives: for HTTP, without any, an empty body; then, once the answer is complete, the
    client's disconnect. What the app raises is raised.
    """
    answer = Answer()
    is_http = scope["type"] == "http"
    messages = list(incoming) or [{"type": "http.request"} if is_http else {"type": "websocket.connect"}]
    complete = anyio.Event()

    async def receive() -> Message:
        if messages:
            return messages.pop(0)
        if is_http:
            await complete.wait()
            return {"type": "http.disconnect"}
        return {"type": "websocket.disconnect", "code": 1005}

    async def send(message: Message) -> None:
        answer.sent.append(dict(message))
        if message["type"].endswith("response.body") and not message.get("more_body"):
            complete.set()

    await app(scope, receive, send)
    return answer


async def handshake(
    app: ASGIApp,
    path: str = "/ws",
    *texts: str,
    denial: bool = True,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Answer:
    """Ask for a websocket, send ``texts``, and go; ``denial``: whether the server can answer with a response."""
    scope = scope_of(path, kind="websocket", headers=headers, **more)
    if denial:
        scope["extensions"][DENIAL_EXTENSION] = {}
    incoming = [{"type": "websocket.receive", "text": text} for text in texts]
    return await call(app, scope, {"type": "websocket.connect"}, *incoming)


@asynccontextmanager
async def running(app: ASGIApp) -> AsyncIterator[None]:
    """Start an app up, and shut it down after the block, as a server does; asyncio only."""
    incoming: asyncio.Queue[Message] = asyncio.Queue()
    sent: asyncio.Queue[Message] = asyncio.Queue()
    await incoming.put({"type": "lifespan.startup"})
    scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}

    async def run() -> None:
        await app(scope, incoming.get, sent.put)

    task = asyncio.create_task(run())
    assert (await asyncio.wait_for(sent.get(), 20))["type"] == "lifespan.startup.complete"
    try:
        yield
    finally:
        await incoming.put({"type": "lifespan.shutdown"})
        await asyncio.wait_for(task, 20)


async def lifespan(app: ASGIApp) -> list[str]:
    """Start an app up and shut it down; return the types of what it sent."""
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[str] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message["type"])

    with suppress(IndexError):
        await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
    return sent
