"""Judges a request again at the entrance of a router, if it reaches the router as another request."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from ..routing.apps import cors_of
from ..routing.entrance import Entrance, put_behind_cors, put_entrance
from ..routing.walk import Target
from ..switches.passage import SCOPE_KEY, Passage, current, passage_of, with_outer_passages
from .judgement import Judgement

if TYPE_CHECKING:
    from .gate import Gate


def watch(router: Router) -> Entrance:
    """Judge again the requests that reach a router changed; return the router's entrance."""
    return put_entrance(router, GuardedEntrance)


class GuardedEntrance(Entrance):
    """Judges a request again if a middleware between a gate and the router changed it."""

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Let the request in unless a gate that it passed blocks it in its current form."""
        passage: Passage | None = scope.get(SCOPE_KEY)
        if passage is None:
            if current.get() is None:
                return self.app(scope, receive, send)
        elif passage.outer is None and ((judged := passage.judgement) is None or judged.covers(self, scope)):
            return self.app(scope, receive, send)
        return self._judge_and_let_in(scope, receive, send)

    def may_meet_cors(self, target: Target) -> bool:
        """Return whether a ``CORSMiddleware`` may answer a preflight between here and an endpoint."""
        routers = target.routers_before_code
        if not any(router is self.router for router in routers):
            return False  # code that overrides how the router is called has run
        if not self.is_innermost or routers[-1] is not self.router:
            return True
        return _watch_cors(target.handed_to) or _watch_cors(self.app)

    async def _judge_and_let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        innermost = passage_of(scope)
        outer = None
        for passage in with_outer_passages(innermost or outer_passages(scope, self.router)):
            # Copies of the scope share a passage, and a refused request may come again. So the shared passage is not
            # changed, and the passage of an admitted request is for this scope alone.
            admitted = passage if passage.outer is outer else passage.with_outer(outer)
            if passage.judgement is not None and not passage.judgement.covers(self, scope):
                admitted, gate = passage.with_outer(outer), passage.app.gate
                cached, receive = await gate.judge_again(admitted, self, scope, receive)
                if cached.blocked:
                    await gate.refuse(cached, passage.judgement.with_method(scope), receive, send)
                    return
            outer = admitted
        if outer is None or outer is innermost:
            await self.app(scope, receive, send)
            return
        scope[SCOPE_KEY] = outer
        before = current.get()
        current.set(outer)
        try:
            await self.app(scope, receive, send)
        finally:
            current.set(before)


class BehindCors:
    """Judges again any preflight that Starlette's own ``CORSMiddleware`` does not answer but passes on."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request in, unless it was a preflight at a gate that blocks it in its current form."""
        # Without an entry, a middleware in front has built the scope anew.
        for passage in with_outer_passages(passage_of(scope) or current.get()):
            if passage.judgement is not None and passage.judgement.is_preflight:
                gate = passage.app.gate
                cached, receive = await gate.judge_behind_cors(passage.with_outer(passage.outer), scope, receive)
                if cached.blocked:
                    await gate.refuse(cached, passage.judgement.with_method(scope), receive, send)
                    return
        await self.app(scope, receive, send)


def may_meet_cors(target: Target) -> bool:
    """Return whether a ``CORSMiddleware`` may answer an arriving preflight before it reaches an endpoint."""
    # Before the last router on the way, any middleware may be one. Behind it, only the app that it calls.
    return bool(target.routers_before_code) or _watch_cors(target.handed_to)


def meets_no_cors(target: Target) -> bool:
    """Return ``False``, for a preflight that ``CORSMiddleware`` has passed on."""
    return False


def _watch_cors(app: ASGIApp | None) -> bool:
    """Return whether ``app`` is a ``CORSMiddleware``; if so, judge again what it passes on."""
    cors = cors_of(app)
    if cors is not None:
        put_behind_cors(cors, BehindCors)
    return cors is not None


def passage_at_endpoint(scope: Scope) -> Passage | None:
    """Return the innermost passage of a request at an endpoint, even if an inner middleware built the scope anew."""
    passage = passage_of(scope)
    if passage is None and "router" in scope:
        passage = outer_passages(scope, scope["router"])
        if passage is not None:
            scope[SCOPE_KEY] = passage
    return passage


def outer_passages(scope: Scope, router: Router, inner: Gate | None = None) -> Passage | None:
    """Return the innermost of new passages for a request whose scope was built anew, within another request.

    It is judged as a request of its own, because a middleware may make many requests out of one. Only gates that lead
    to the router judge it, because an app may also call an app that it does not contain. ``inner`` is left out.
    """
    around = current.get()
    newest = {passage.app: passage for passage in with_outer_passages(around)}
    parts: dict[Gate, Passage] = {}
    while around is not None:
        gate: Gate | None = around.app.gate
        if gate is not None and gate is not inner and gate not in parts and gate.leads_to(router):
            parts[gate] = _part_of(around, newest.get(around.app, around).judgement or _UNJUDGED, scope)
        around = around.around
    outer = None
    for part in reversed(parts.values()):
        part.outer = outer
        outer = part
    return outer


_UNJUDGED = Judgement({}, None)
_UNJUDGED.invalidate(None)


def _part_of(passage: Passage, outer: Judgement, scope: Scope) -> Passage:
    """Return the passage of a request that code made within another, which was judged as ``outer``.

    While the other one runs, its state applies.
    """
    part = passage.with_outer(None)
    part.judgement = judgement = Judgement(scope, None)
    judgement.root_path = outer.root_path
    if scope.get("method") == "HEAD":  # the server may wait for a body if the client used another method
        judgement.method = outer.method or "HEAD"
    if not passage.is_over:
        judgement.state = outer.state
        if outer.target is None:
            return part
    judgement.invalidate(outer.target)
    return part
