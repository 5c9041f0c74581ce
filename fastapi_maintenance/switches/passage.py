"""A request on its way through an app with the middleware: the only entry of this package in scopes and contexts."""

from __future__ import annotations

from contextvars import ContextVar
from copy import copy
from typing import Any

from starlette.types import Scope

from .app_switch import AppSwitch

SCOPE_KEY = "fastapi_maintenance"
"""The key of a request's innermost passage in its scope."""


class Passage:
    """One request in one app. It must not refer to the scope, which refers to it."""

    __slots__ = ("app", "around", "guarded", "is_over", "judgement", "key", "outer", "socket", "tokens")

    def __init__(self, app: AppSwitch, scope: Scope, outer: Passage | None, around: Passage | None = None) -> None:
        self.app = app
        self.key = id(scope)
        """The key among the requests in flight."""
        self.outer = outer
        """The passage of the same request through the next outer app, such as the app that mounts this app."""
        self.around = around
        """The passage that the calling code belongs to; of another request, if the code has sent this one itself."""
        self.is_over = False
        self.judgement: Any = None
        """The gate's ``Judgement``; ``None`` before, and in an app without a gate."""
        self.guarded: list[dict[int, Scope]] | None = None
        """The requests in flight of each switch whose guard has counted this request."""
        self.socket: Any = None
        """The ``Socket`` of a websocket connection."""
        self.tokens: dict[str, str] | None = None
        """The bypass tokens that were taken out of the query, by parameter."""

    def __deepcopy__(self, memo: object) -> Passage:
        """Return this passage: a copy of the scope belongs to the same request."""
        return self

    def with_outer(self, outer: Passage | None) -> Passage:
        """Return a copy with another outer passage; guards count both as one request."""
        if self.guarded is None:
            self.guarded = []
        twin = copy(self)
        twin.outer = outer
        return twin


current: ContextVar[Passage | None] = ContextVar("fastapi_maintenance", default=None)
"""The innermost passage of the request that the running code answers."""


def passage_of(scope: Scope) -> Passage | None:
    """Return the innermost passage of a request."""
    passage: Passage | None = scope.get(SCOPE_KEY)
    return passage


def with_outer_passages(passage: Passage | None) -> list[Passage]:
    """Return a passage and those of the same request through the outer apps, outermost first."""
    passages = []
    while passage is not None:
        passages.append(passage)
        passage = passage.outer
    return passages[::-1]


def answering_app() -> AppSwitch | None:
    """Return the app that answers the current request, if there is one."""
    passage = current.get()
    return None if passage is None else passage.app


def override_of_meant(backend: object, switch: str) -> bool | None:
    """Return the override of the stored mode, for the switch that ``Registry.resolve`` selects."""
    app = answering_app()
    return None if app is None or backend is not None else app.override_of(switch)
