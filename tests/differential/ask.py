"""One request to an ASGI app, without a server: the scope goes in, the messages come out."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Scope

from .journal import Ran, opened
from .plan import Ask

Headers = tuple[tuple[str, str], ...]


@dataclass
class Answer:
    """Everything that a client and the application's own code can tell about one request."""

    status: int | None = None
    """The HTTP status, also that of a denied handshake."""
    headers: Headers = ()
    body: bytes = b""
    events: list[str] = field(default_factory=list)
    """What a websocket sent, in words."""
    error: str = ""
    """The exception that the server would see."""
    ran: list[Ran] = field(default_factory=list)

    def outside(self) -> tuple[object, ...]:
        """Return all that can be seen from outside; the order of methods in ``Allow`` is that of a set."""
        headers = tuple(
            (name, ", ".join(sorted(value.split(", "))) if name == "allow" else value) for name, value in self.headers
        )
        return self.status, headers, self.body, tuple(self.events), self.error

    def code(self) -> list[Ran]:
        """Return the application code that ran; raised matching is the router's."""
        return [ran for ran in self.ran if ran.what not in ("matching", "redirecting")]


async def answer_to(app: ASGIApp, ask: Ask, scope: Scope | None = None) -> Answer:
    """Send one request and return what came back; ``scope`` is the request's own, else."""
    answer = Answer()
    done = asyncio.Event()
    incoming = _incoming(ask)

    async def receive() -> Message:
        if incoming:
            return incoming.pop(0)
        if ask.method != "WEBSOCKET":
            await done.wait()
            return {"type": "http.disconnect"}
        return {"type": "websocket.disconnect", "code": 1000}

    async def send(message: Message) -> None:
        _note(answer, message)
        if message["type"].endswith("http.response.body") and not message.get("more_body", False):
            done.set()

    scope = scope_of(ask) if scope is None else scope
    with opened(scope) as ran:
        try:
            await app(scope, receive, send)
        except Exception as error:  # the server would log it
            answer.error = f"{type(error).__name__}: {error}"
    answer.ran = ran
    return answer


def _incoming(ask: Ask) -> list[Message]:
    if ask.method == "WEBSOCKET":
        return [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "ping"}]
    return [{"type": "http.request", "body": b"payload", "more_body": False}]


def scope_of(ask: Ask) -> Scope:
    """Return the scope that a server makes of a request."""
    scope: dict[str, Any] = {
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "http",
        "path": ask.path,
        "raw_path": quote(ask.path).encode(),
        "root_path": ask.root_path,
        "query_string": ask.query.encode(),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in ask.headers],
        "client": ("203.0.113.7", 50000),
        "server": ("testserver", 80),
        "state": {},
    }
    if ask.method == "WEBSOCKET":
        extensions: dict[str, Any] = {"websocket.http.response": {}} if ask.denial else {}
        return {**scope, "type": "websocket", "scheme": "ws", "subprotocols": [], "extensions": extensions}
    return {**scope, "type": "http", "method": ask.method, "extensions": {}}


def _note(answer: Answer, message: Message) -> None:
    kind = message["type"]
    if kind.endswith("http.response.start"):
        answer.status = message["status"]
        answer.headers = tuple(
            (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in message.get("headers", ())
        )
    elif kind.endswith("http.response.body"):
        answer.body += message.get("body", b"")
    if kind.startswith("websocket."):
        detail = message.get("code") or message.get("text") or message.get("status") or ""
        answer.events.append(f"{kind} {detail}".strip())
