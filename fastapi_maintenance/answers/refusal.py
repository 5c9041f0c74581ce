"""Sends a refusal over HTTP and websockets, and never fails into a 500."""

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
    """A response over HTTP or a websocket that can't fail into a 500.

    It is called like a Starlette response and has the attributes of ``response``. If ``response`` raises before it has
    sent anything (a file is missing, say), ``fallback`` is sent. Where the server can't answer a handshake by a
    response, the connection is closed with 1013, and neither is used.
    """

    def __init__(self, response: Response, fallback: Response) -> None:
        vars(self).update(response=response, fallback=fallback)

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["response"], name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(vars(self)["response"], name, value)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response to the client of ``scope``."""
        own, fallback = vars(self)["response"], vars(self)["fallback"]
        if scope["type"] == "websocket":
            if not can_deny(scope):
                # Close without accepting, which servers turn into a 403. Once accepted, the client would be in.
                await send({"type": "websocket.close", "code": WS_1013_TRY_AGAIN_LATER, "reason": DETAIL})
                return
            scope, receive, send = _as_http(scope), _http_receive(receive), _denial_send(send)
            own = _buffer(own)
        await with_fallback(own, lambda: fallback, scope, receive, send)


async def with_fallback(
    app: ASGIApp, fallback: Callable[[], Response | None], scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer by ``app``; if it raises before it sends, answer by ``fallback()``, unless that returns ``None``."""
    began = False

    async def send_and_note(message: Message) -> None:
        nonlocal began
        began = True
        await send(message)

    try:
        await app(scope, receive, send_and_note)
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
    """Return the request for a handler; a websocket handshake becomes the GET request that it is on the wire."""
    if scope["type"] == "http":
        return Request(scope, receive)
    return Request(_as_http(scope), _http_receive(receive))


def _as_http(scope: Scope) -> Scope:
    return {**scope, "type": "http", "method": "GET", "extensions": {}}


def _http_receive(receive: Receive) -> Receive:
    """Return a ``receive`` that reports websocket events as HTTP events."""

    async def receive_http() -> Message:
        message = await receive()
        if message["type"] == "websocket.connect":
            return {"type": "http.request", "body": b"", "more_body": False}
        return {"type": "http.disconnect"}

    return receive_http


def _buffer(response: ASGIApp) -> ASGIApp:
    """Return an app that sends a complete response at once: one uvicorn protocol drops a denial's later parts."""

    async def send_complete(scope: Scope, receive: Receive, send: Send) -> None:
        messages: list[Message] = []

        async def hold(message: Message) -> None:
            messages.append(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                for each in messages:
                    await send(each)

        await response(scope, receive, hold)

    return send_complete


def _denial_send(send: Send) -> Send:
    """Return a ``send`` that sends a response as a websocket's denial."""

    async def send_denial(message: Message) -> None:
        await send({**message, "type": "websocket." + message["type"]})

    return send_denial
