"""How a refusal is sent: over HTTP and websockets, and without ever failing into a 500."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.status import WS_1013_TRY_AGAIN_LATER
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .answer import DETAIL

logger = logging.getLogger("fastapi_maintenance")

_DENIAL_EXTENSION = "websocket.http.response"


class Refusal:
    """A response that is sent over HTTP and websockets alike, and that can't fail into a 500.

    It is called like a Starlette response and has the attributes of the one that it sends. Should that raise before
    anything was sent (a file is missing, say), ``fallback`` is sent.
    """

    def __init__(self, response: Response, fallback: Response) -> None:
        vars(self).update(_response=response, _fallback=fallback)

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["_response"], name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(vars(self)["_response"], name, value)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response to the client of ``scope``."""
        own, fallback = vars(self)["_response"], vars(self)["_fallback"]
        if scope["type"] == "websocket":
            if not can_deny(scope):
                # Accepting just to close would tell the client that it had got in.
                await send({"type": "websocket.close", "code": WS_1013_TRY_AGAIN_LATER, "reason": DETAIL})
                return
            scope, receive, send = _as_http(scope), _receiving_http(receive), _sending_denial(send)
            own = _at_once(own)
        await with_fallback(own, lambda: fallback, scope, receive, send)


async def with_fallback(
    app: ASGIApp, fallback: Callable[[], Response | None], scope: Scope, receive: Receive, send: Send
) -> None:
    """Have ``app`` answer; if it raises before it began to, ``fallback()`` answers, unless it returns ``None``."""
    began = False

    async def noting_the_beginning(message: Message) -> None:
        nonlocal began
        began = True
        await send(message)

    try:
        await app(scope, receive, noting_the_beginning)
    except Exception:
        response = None if began else fallback()
        if response is None:
            raise
        logger.exception("the maintenance response could not be sent: the default one is sent instead")
        await response(scope, receive, send)


def can_deny(scope: Scope) -> bool:
    """Return whether the server can answer a websocket handshake with an HTTP response."""
    return _DENIAL_EXTENSION in scope.get("extensions", {})


def request_of(scope: Scope, receive: Receive) -> Request:
    """Return the request that a handler gets: a websocket handshake is the GET request that it is on the wire."""
    if scope["type"] == "http":
        return Request(scope, receive)
    return Request(_as_http(scope), _receiving_http(receive))


def _as_http(scope: Scope) -> Scope:
    return {**scope, "type": "http", "method": "GET", "extensions": {}}


def _receiving_http(receive: Receive) -> Receive:
    """Return a ``receive`` that tells what happens on a websocket as if it happened to a request."""

    async def receive_http() -> Message:
        message = await receive()
        if message["type"] == "websocket.connect":
            return {"type": "http.request", "body": b"", "more_body": False}
        return {"type": "http.disconnect"}

    return receive_http


def _at_once(response: ASGIApp) -> ASGIApp:
    """Return what sends a response when it is complete: one of uvicorn's drops what follows a pause in a denial."""

    async def send_at_once(scope: Scope, receive: Receive, send: Send) -> None:
        held: list[Message] = []

        async def hold(message: Message) -> None:
            held.append(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                for each in held:
                    await send(each)

        await response(scope, receive, hold)

    return send_at_once


def _sending_denial(send: Send) -> Send:
    """Return a ``send`` that sends a response as a websocket's denial."""

    async def send_denial(message: Message) -> None:
        await send({**message, "type": "websocket." + message["type"]})

    return send_denial
