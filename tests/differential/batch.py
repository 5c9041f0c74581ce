"""Many requests out of one: what a `/$batch` middleware does, which gives each part a scope of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import anyio.from_thread
import anyio.to_thread
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from .ask import Answer, answer_to, scope_of
from .plan import Ask


class Batch:
    """The middleware. What it is to ask, and what came of it, is in the state of the request's scope."""

    path = "/$batch"

    def __init__(self, app: ASGIApp, way: str) -> None:
        self.app = app
        self.way = way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path") != self.path:
            await self.app(scope, receive, send)
            return
        # With all that the app itself puts there: routers make another 404 without it.
        app = scope.get("app")
        kept = {} if app is None else {"app": app}
        kept |= {"root_path": app.root_path} if app is not None and app.root_path else {}
        parts = [partial(answer_to, self.app, ask, {**scope_of(ask), **kept}) for ask in scope["state"]["asks"]]
        scope["state"]["answers"] += await self.answers(parts)
        await PlainTextResponse("done")(scope, receive, send)

    async def answers(self, parts: Sequence[Callable[[], Coroutine[Any, Any, Answer]]]) -> list[Answer]:
        """Return the answers to the parts, which are made one after the other, or all at once."""
        if self.way == "gathered":
            return list(await asyncio.gather(*(part() for part in parts)))
        if self.way == "thread":
            return await anyio.to_thread.run_sync(lambda: [anyio.from_thread.run(part) for part in parts])
        return [await part() for part in parts]


async def answers_to(app: ASGIApp, asks: Sequence[Ask]) -> list[Answer]:
    """Send some requests as the parts of one, and return what came back: nothing, if that one was refused."""
    answers: list[Answer] = []
    ask = Ask("BATCH", Batch.path)
    await answer_to(app, ask, {**scope_of(ask), "state": {"asks": asks, "answers": answers}})
    return answers
