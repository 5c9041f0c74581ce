"""The gate of an app: it judges requests when they arrive, and again at each router that they reach changed.

A request has one visit for each gate that it passed, and its scope keeps the innermost visit. The entrance of each
router compares the request with its visits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast
from weakref import WeakSet

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..answers.answer import DEFAULT_ANSWER
from ..answers.refusal import request_of
from ..model.decision import Mark
from ..model.modes import MaintenanceMode
from ..model.state import MaintenanceState
from ..routing.apps import cors_of, root_of, router_of, routers_of, wrap_innermost
from ..routing.index import method_of, route_path
from ..routing.marks import forced_on_anywhere, mark_of, marked_anywhere
from ..routing.selfcheck import check_fastapi
from ..routing.target_cache import KnownTargets
from ..routing.walk import Target, resolve
from ..switches.app_switch import DEFAULT, AppSwitch, answering
from ..switches.registry import registry
from ..switches.views.lookup import leave, leave_all, view_for
from ..switches.views.view import View
from . import metrics
from .bypass import Bypass, hand_over
from .decision_cache import PASSED_AT_ONCE, CachedDecision, DecisionCache
from .exemptions import PREFLIGHT
from .options import Options
from .visits import (
    SCOPE_KEY,
    UNKNOWN,
    Visit,
    judged_again,
    link,
    visit_of,
    visits_around,
    visits_judged_again,
    visits_of,
)

logger = logging.getLogger("fastapi_maintenance")

_OFF = MaintenanceState()
_MODE_OFF = MaintenanceMode.OFF  # access to an enum's member is slow in Python 3.11


class Gate:
    """Judges the requests of one app by its default switch and its options."""

    def __init__(self, app: AppSwitch, options: Options) -> None:
        self.app = app
        app.gate = self
        self.options = options
        self._view: View | None = None
        self._registry_version = -1
        self._lasting_off: MaintenanceState | None = None
        """The last state that is off at any time, so that its mode needn't be computed again."""
        self.passing = Visit(self, {}, None, _OFF)
        """The shared visit of requests that pass because the switch is off and nothing is forced on."""
        self.root: Router | None = None
        """The outermost router behind the gate."""
        self._watches_all = False
        self._targets = KnownTargets(self._target_of)
        self._decision_cache = DecisionCache(_OFF, None)

    def __deepcopy__(self, memo: object) -> Gate:
        """Return this gate: a request's scope refers to it through the app, and may be copied."""
        return self

    def watch_root(self, app: ASGIApp, scope: Scope) -> None:
        """Watch the router that a middleware around ``app`` leads to."""
        root = root_of(_start_of(app, scope)[0])
        if root is not None:
            self.root = router_of(root) if isinstance(root, Starlette) else root
            watch(self.root)

    def leads_to(self, router: Router) -> bool:
        """Return whether requests that pass this gate may be routed to a router."""
        if self.root is None:
            return False
        entrance = router.middleware_stack
        if isinstance(entrance, Entrance) and self in entrance.gates:
            return True
        if not any(found is router for found in routers_of(self.root)):
            return False
        watch(router).gates.add(self)
        return True

    def find_outer(self, scope: Scope) -> None:
        """Put the visits to outer gates into a scope that an inner middleware built anew."""
        if SCOPE_KEY not in scope and self.root is not None:
            visit = link(visits_around(scope, self.root, inner=self))
            if visit is not None:
                scope[SCOPE_KEY] = visit

    def visit_of_part(self, outer_scope: Scope, scope: Scope, visits: list[Visit]) -> Visit:
        """Return the visit of a request that code made within another; while that one runs, its state applies."""
        outer = next((visit for visit in visits if visit.gate is self), None)
        visit = Visit(self, scope, None)
        if self.options.exemptions.bypass is not None:
            hand_over(outer_scope, scope)
        if outer is None:
            visit.invalidate(None)
            return visit
        visit.root_path = outer.root_path
        if scope.get("method") == "HEAD":
            # If the client used another method, its server waits for a body.
            visit._method = outer._method or outer_scope.get("method")  # noqa: SLF001 - of the same kind
        if self.view().in_flight.get(id(outer_scope)) is outer_scope:
            visit.state = outer.state
            if outer.target is None:
                return visit
        visit.invalidate(outer.target)
        return visit

    def _target_of(self, app: ASGIApp, scope: Scope) -> Target:
        """Return what would run for a request to a middleware around ``app``."""
        if not self._watches_all:
            # A middleware may send a request to any router.
            self._watches_all = True
            for router in () if self.root is None else routers_of(self.root):
                watch(router)
        start, mark = _start_of(app, scope)
        return target_of(start, scope, mark)

    def view(self) -> View:
        """Return the view of the app's default switch."""
        version = registry.version
        if self._view is None or self._registry_version != version:
            former, self._view = self._view, view_for(self.app, registry.of_app(self.app))
            if former is not None and former is not self._view:
                leave(self.app, former)
            self._registry_version = version
            self._lasting_off = None
        return self._view

    def leave(self) -> None:
        """Stop following stores for the app; its next request starts again."""
        self._view = None
        leave_all(self.app)

    def judge_at_once(self, start: ASGIApp, scope: Scope, view: View) -> CachedDecision | None:
        """Return the decision about a request that arrives, or ``None`` if it takes I/O or a user's handler."""
        state = view.peek()
        if state is None:
            return None
        if (state is self._lasting_off or self._is_off(state)) and not forced_on_anywhere():
            outer = scope.get(SCOPE_KEY)
            # If this is the only gate, requests share one visit.
            is_plain = outer is None and not scope.get("root_path")
            scope[SCOPE_KEY] = self.passing if is_plain else Visit(self, scope, outer, _OFF)
            return PASSED_AT_ONCE
        target = self._targets.of(start, scope)
        if target is None:
            return None
        cached = self._decide(state, target, scope, scope.get("root_path", ""))
        if cached is not None and not cached.blocked:
            outer = scope.get(SCOPE_KEY)
            scope[SCOPE_KEY] = Visit(self, scope, outer, state, target, is_preflight=cached.is_preflight)
        return cached

    def _is_off(self, state: MaintenanceState) -> bool:
        """Return whether a state is off now; remember a state that stays off."""
        if state.mode is _MODE_OFF and not state.holds and not state.windows and self.app.override is None:
            self._lasting_off = state
            return True
        return state.mode_at(datetime.now(UTC), override=self.app.override) is _MODE_OFF

    def arrive(self, scope: Scope) -> Visit:
        """Return a new visit of a request, stored in its scope."""
        visit = Visit(self, scope, scope.get(SCOPE_KEY))
        scope[SCOPE_KEY] = visit
        return visit

    async def judge(
        self, visit: Visit, start: ASGIApp, request: Request | None, scope: Scope, receive: Receive
    ) -> tuple[CachedDecision, Receive]:
        """Return the decision about a request that arrives, and the ``receive`` for the app.

        ``start`` is the app that it is sent to. Pass ``request`` if other code reads its body as well.
        """
        view = self.view()
        visit.state = view.peek() or await view.read()
        if not forced_on_anywhere() and self._is_off(visit.state):
            return PASSED_AT_ONCE, receive
        target = self._targets.of(start, scope)
        if target is None:
            target = self._target_of(start, scope)
            visit.note(target, scope)
        else:
            visit.target = target
        return await self._judge(visit, target, request, scope, receive)

    async def judge_again(
        self, visit: Visit, entrance: Entrance, scope: Scope, receive: Receive
    ) -> tuple[CachedDecision, Receive]:
        """Return the decision about a request that reaches an entrance changed, and the ``receive`` for the app."""
        router = entrance.router
        if visit.state is None:
            view = self.view()
            visit.state = view.peek() or await view.read()
        if visit.is_at_root(router):
            visit.root_path = scope.get("root_path", "")
        entry = visit.entry_of(router)
        known = scope if entry is None or entry.app is None else {**scope, "app": entry.app}
        target = target_of(router, known, visit.mark_outside(router, scope))
        visit.note(target, scope)
        return await self._judge(visit, target, None, scope, receive, may_meet_cors=entrance.may_meet_cors)

    async def judge_behind_cors(self, visit: Visit, scope: Scope, receive: Receive) -> tuple[CachedDecision, Receive]:
        """Return the decision about a preflight that ``CORSMiddleware`` passed on, which ends its exemption."""
        target = visit.target or UNKNOWN
        return await self._judge(visit, target, None, scope, receive, may_meet_cors=_meets_no_cors)

    async def _judge(
        self,
        visit: Visit,
        target: Target,
        request: Request | None,
        scope: Scope,
        receive: Receive,
        *,
        may_meet_cors: Callable[[Target], bool] | None = None,
    ) -> tuple[CachedDecision, Receive]:
        state = visit.state or _OFF
        cached = self._decide(state, target, scope, visit.root_path, may_meet_cors)
        if cached is not None:
            visit.is_preflight = cached.is_preflight
            return cached, receive
        visit.is_preflight = False
        recording = _Recording(receive)
        if request is None:
            request = request_of(scope, recording)
        path = route_path(scope["path"], visit.root_path)
        now = datetime.now(UTC)
        exemption = await self.options.exemption(request, path, DEFAULT, state, now, is_docs=target.docs)
        cached = self._cache_of(state).of(target, method_of(scope), exemption)
        metrics.count(cached.decision, target.route)
        return cached, recording.replayed()

    def _decide(
        self,
        state: MaintenanceState,
        target: Target,
        scope: Scope,
        root_path: str,
        may_meet_cors: Callable[[Target], bool] | None = None,
    ) -> CachedDecision | None:
        """Return the decision about a request, or ``None`` if a bypass or a user's handler may exempt it."""
        method = method_of(scope)
        cache = self._cache_of(state)
        cached = cache.of(target, method)
        if cached.blocked_by_mode:
            path = route_path(scope["path"], root_path)
            exemptions, is_docs = self.options.exemptions, target.docs
            exemption = exemptions.of_request(scope, path, is_docs=is_docs)
            if exemption == PREFLIGHT and not (may_meet_cors or _may_meet_cors)(target):
                exemption = exemptions.of_request(scope, path, is_docs=is_docs, preflight=False)
            if exemption is not None:
                cached = cache.of(target, method, exemption)
            elif self.options.has_further_exemptions:
                return None
        if cached.is_counted:
            metrics.count(cached.decision, target.route)
        return cached

    def _cache_of(self, state: MaintenanceState) -> DecisionCache:
        if not self._decision_cache.is_valid(state, self.app.override):
            self._decision_cache = DecisionCache(state, self.app.override)
        return self._decision_cache

    async def refuse(self, cached: CachedDecision, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refused request, over HTTP or a websocket."""
        options = self.options
        own = options.response_handler is not None
        response = None if own else cached.answer_to(scope, options.answer or DEFAULT_ANSWER)
        if response is None:
            refusal = await options.refusal(cached.decision, request_of(scope, receive))
            await refusal(scope, receive, send)
            return
        # A copy, because outer middleware may change the headers.
        headers = list(response.raw_headers)
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})


def _may_meet_cors(target: Target) -> bool:
    """Return whether a ``CORSMiddleware`` may answer an arriving preflight before it reaches an endpoint."""
    # Before the last router on the way, any middleware may be one. Behind it, only the app that it calls.
    return bool(target.routers_before_code) or _watch_cors(target.handed_to)


def _meets_no_cors(target: Target) -> bool:
    return False


def _watch_cors(app: ASGIApp | None) -> bool:
    """Return whether ``app`` is a ``CORSMiddleware``; if so, judge again what it passes on."""
    cors = cors_of(app)
    if cors is None:
        return False
    if not isinstance(cors.app, _BehindCors):
        cors.app = _BehindCors(cors.app)
    return True


def target_of(start: ASGIApp, scope: Scope, mark: Mark | None = None) -> Target:
    """Return what would run, and watch the routers on the way for changes of the request."""
    check_fastapi()
    target = resolve(start, scope, mark=mark)
    if target.failure is not None:
        logger.debug("matching %r raised %r", scope["path"], target.failure)
    for entry in target.entries:
        watch(entry.router)
    return target


def _start_of(app: ASGIApp, scope: Scope) -> tuple[ASGIApp, Mark | None]:
    """Return where a middleware around ``app`` enters the route tree, and the mark outside of that."""
    owner: Starlette | None = scope.get("app")
    endpoint = scope.get("endpoint")
    root = root_of(app)
    if root is None and owner is not None and (endpoint is None or endpoint is owner or root_of(endpoint) is owner):
        # A middleware in between hides what it wraps, which is the answering app. But if that app's router has already
        # routed the request, the middleware is on a route, and `app` is the endpoint.
        root = app = owner.router
    if root is None:
        return app, mark_of(endpoint)
    return app, mark_around(root, scope) if marked_anywhere() else None


def mark_around(root: Router | Starlette | None, scope: Scope) -> Mark | None:
    """Return the innermost mark outside of a router that the request reached; ``None``: outside of its endpoint.

    Mounts leave no trace of their marks in the scope, so the outermost router is resolved again.
    """
    if "router" in scope:
        at_outermost = {**scope, "root_path": scope.get("app_root_path", scope.get("root_path", ""))}
        at_outermost.pop("fastapi", None)
        target = target_of(scope["router"], at_outermost)
        if root is None:
            return target.mark
        router = root.router if isinstance(root, Starlette) else root
        for entry in target.entries:
            if entry.router is router:
                return entry.mark
    return mark_of(scope.get("app"))


class _Recording:
    """A ``receive`` that records its messages, so that the app can receive them again."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: list[Message] = []

    async def __call__(self) -> Message:
        """Receive and record one message."""
        message = await self._receive()
        self._messages.append(message)
        return message

    def replayed(self) -> Receive:
        """Return a ``receive`` that begins with the recorded messages."""
        if not self._messages:
            return self._receive
        messages = iter(self._messages)

        async def replay() -> Message:
            for message in messages:
                return message
            return await self._receive()

        return replay


async def state_of(app: AppSwitch, switch: str, visit: Visit | None) -> MaintenanceState:
    """Return the state of a switch for a request; of the default switch, the state when the request arrived."""
    if switch == DEFAULT and visit is not None and visit.state is not None:
        return visit.state
    view = view_for(app, registry.of_app(app, switch))
    return view.peek() or await view.read()


async def answer_to_link(
    bypass: Bypass, app: AppSwitch, visit: Visit | None, scope: Scope
) -> Mapping[str, str] | None:
    """Take a bypass token out of a request's query; return the headers of its redirect, or ``None``."""
    if not bypass.take(scope):
        return None
    now = datetime.now(UTC)

    async def blocking(switch: str) -> MaintenanceState | None:
        state = await state_of(app, switch, visit)
        return None if state.mode_at(now, override=app.override_of(switch)) is MaintenanceMode.OFF else state

    return await bypass.answer_to_link(scope, blocking, now)


def watch(router: Router) -> Entrance:
    """Put an entrance in front of a router and, if it has its own middleware, another entrance behind that."""
    entrance = router.middleware_stack
    if not isinstance(entrance, Entrance):
        has_inner = wrap_innermost(router, partial(Entrance, router, is_innermost=True))
        entrance = router.middleware_stack = Entrance(router, entrance, is_innermost=not has_inner)
    return entrance


class Entrance:
    """Judges a request again if a middleware between the gate and the router changed it."""

    def __init__(self, router: Router, app: ASGIApp, *, is_innermost: bool) -> None:
        self.router = router
        self.app = cast("Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]", app)
        self.is_innermost = is_innermost
        """Whether no entrance of the same router is behind this one."""
        self.gates: WeakSet[Gate] = WeakSet()
        """The gates that lead to this router, as found so far."""

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Let the request in unless a gate that it passed blocks it in its current form."""
        visit: Visit | None = scope.get(SCOPE_KEY)
        if visit is None:
            if answering.get() is None:
                return self.app(scope, receive, send)
        elif visit is visit.gate.passing or (visit.outer is None and visit.covers(self, scope)):
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
        innermost = visit_of(scope)
        visits = visits_around(scope, self.router) if innermost is None else visits_of(innermost)
        outer = None
        for visit in visits:
            # Copies of the scope share a visit, and a refused request may come again. So the shared visit is not
            # changed, and the visit of an admitted request is for this scope alone.
            current = visit if visit.outer is outer else visit.with_outer(outer)
            if not visit.covers(self, scope):
                current = visit.with_outer(outer)
                cached, receive = await visit.gate.judge_again(current, self, scope, receive)
                if cached.blocked:
                    await visit.gate.refuse(cached, visit.with_original_method(scope), receive, send)
                    return
            outer = current
        if outer is None or outer is innermost:
            await self.app(scope, receive, send)
            return
        scope[SCOPE_KEY] = outer
        before = judged_again.get()
        judged_again.set((answering.get(), outer))
        try:
            await self.app(scope, receive, send)
        finally:
            judged_again.set(before)


class _BehindCors:
    """Judges again any preflight that Starlette's own ``CORSMiddleware`` does not answer but passes on."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request in, unless it was a preflight at a gate that blocks it in its current form."""
        visits = visits_of(visit_of(scope))
        if not visits:  # a middleware in front has built the scope anew
            around = answering.get()
            visits = visits_judged_again() or ([] if around is None else visits_of(visit_of(around[1])))
        for visit in visits:
            if visit.is_preflight:
                current = visit.with_outer(visit.outer)
                cached, receive = await visit.gate.judge_behind_cors(current, scope, receive)
                if cached.blocked:
                    await visit.gate.refuse(cached, visit.with_original_method(scope), receive, send)
                    return
        await self.app(scope, receive, send)
