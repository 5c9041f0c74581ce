"""The gate asks: from a request to its facts, and from these to a decision. Middleware and guard share it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import metrics
from .answers import DEFAULT_ANSWER
from .bypass import Bypass
from .decorators import forced_on_anywhere, mark_of, marked_anywhere
from .known_targets import KnownTargets
from .policy import Decision, Mark
from .registry import DEFAULT, AppSwitch, registry
from .responses import request_of
from .route_index import method_of, route_path
from .routes import Entry, Target, check_fastapi, resolve, root_of, wrap_innermost
from .snapshot import View, leave, leave_all, view_for
from .state import MaintenanceMode, MaintenanceState
from .terms import Terms
from .verdicts import PASSED_AT_ONCE, Verdict, Verdicts

logger = logging.getLogger("fastapi_maintenance")

_SCOPE_KEY = "fastapi_maintenance"
"""Where the scope of a request keeps its visit to the innermost gate."""

_OFF = MaintenanceState()
_MODE_OFF = MaintenanceMode.OFF  # looking it up takes its time in Python 3.11


class Visit:
    """One request at one gate: as what it was judged, and how."""

    __slots__ = ("_beyond", "_facts", "_method", "_path", "gate", "outer", "refused", "root_path", "state", "target")

    def __init__(
        self,
        gate: Gate,
        scope: Scope,
        outer: Visit | None,
        state: MaintenanceState | None = None,
        target: Target | None = None,
    ) -> None:
        self.gate = gate
        self.outer = outer
        """The visit to the gate around this one, such as that of the app that this one is mounted in."""
        self.state = state
        """What the switch said when the request was judged, which counts to its end; before, ``None``."""
        self.target = target
        """What would run, if type, path and method alone say so; ``None`` where nobody had to know."""
        self.refused: Decision | None = None
        """Why a user's ``dispatch`` was told to refuse it."""
        self.root_path: str = scope.get("root_path", "")
        self._path = scope.get("path")
        self._method: str | None = scope.get("method")
        self._facts: object = None
        """By what else the target was found, if by anything else."""
        self._beyond = False
        """Whether the request is behind the last router that was expected, so within its target."""

    def note(self, target: Target, scope: Scope) -> None:
        """Take note of what would run, and of all that it was found by."""
        self.target, self._beyond, self._facts = target, False, _routing_facts(scope)

    def covers(self, router: Router, scope: Scope) -> bool:
        """Return whether the request comes to a router as it was judged."""
        if self.target is None:
            return True  # off, and nothing forced on: whatever it is by now, it passes
        entry = self._entry_of(router)
        if entry is None or entry.root_path != scope.get("root_path", ""):
            return False
        if self._facts is None:
            if scope["path"] != self._path or scope.get("method") != self._method:
                return False
        elif self._facts != _routing_facts(scope):
            return False
        self._beyond = entry is self.target.entries[-1]
        return True

    def as_it_came(self, scope: Scope) -> Scope:
        """Return a scope with the method by which the client asked, which the answer must fit."""
        return scope if scope.get("method") == self._method else {**scope, "method": self._method}

    def mark_around(self, router: Router) -> Mark | None:
        """Return the innermost mark outside of a router, as far as it is known."""
        entry = self._entry_of(router)
        if entry is not None:
            return entry.mark
        # Within an opaque app there may be a router, and what the app is marked with goes for all of it.
        return self.target.mark if self.target is not None and self._beyond else None

    def is_at_root(self, router: Router) -> bool:
        """Return whether a router is the first on the way."""
        return self.target is not None and self.target.entries[:1] == (self._entry_of(router),)

    def _entry_of(self, router: Router) -> Entry | None:
        for entry in () if self.target is None else self.target.entries:
            if entry.router is router:
                return entry
        return None


def _routing_facts(scope: Scope) -> object:
    """Return a copy of what routing goes by, the root path apart."""
    return scope["path"], scope.get("method"), scope.get("query_string"), tuple(map(tuple, scope["headers"]))


def visit_of(scope: Scope) -> Visit | None:
    """Return the visit of a request to the innermost gate that it came through."""
    visit: Visit | None = scope.get(_SCOPE_KEY)
    return visit


def _visits(scope: Scope) -> list[Visit]:
    """Return the visits of a request to all gates that it came through, outermost first."""
    visits, visit = [], visit_of(scope)
    while visit is not None:
        visits.append(visit)
        visit = visit.outer
    return visits[::-1]


class Gate:
    """The gate of one app: its default switch, and its terms."""

    def __init__(self, app: AppSwitch, terms: Terms) -> None:
        self.app = app
        self.terms = terms
        self._view: View | None = None
        self._registry_version = -1
        self._known_off: MaintenanceState | None = None
        """The state that was found to be off last and that no time changes: it needn't be asked again."""
        self.passing = Visit(self, {}, None, _OFF)
        """The visit of all requests of which nothing needs to be known."""
        self._targets = KnownTargets(_target)
        self._verdicts = Verdicts(_OFF, None)

    def view(self) -> View:
        """Return the view of the app's default switch."""
        version = registry.version
        if self._view is None or self._registry_version != version:
            former, self._view = self._view, view_for(self.app, registry.of_app(self.app))
            if former is not None and former is not self._view:
                leave(self.app, former)
            self._registry_version = version
            self._known_off = None
        return self._view

    def leave(self) -> None:
        """Have no store followed for the app any more; its next request begins anew."""
        self._view = None
        leave_all(self.app)

    def judge_at_once(self, start: ASGIApp, scope: Scope, view: View) -> Verdict | None:
        """Judge a request that arrives, where that takes neither I/O nor a user's handler; else return ``None``.

        Most requests pass so: the switch is off, and nothing is forced on that could matter all the same.
        """
        state = view.peek()
        if state is None:
            return None
        if (state is self._known_off or self._is_off(state)) and not forced_on_anywhere():
            outer = scope.get(_SCOPE_KEY)
            # Nothing of theirs needs to be kept, if this is the only gate.
            is_plain = outer is None and not scope.get("root_path")
            scope[_SCOPE_KEY] = self.passing if is_plain else Visit(self, scope, outer, _OFF)
            return PASSED_AT_ONCE
        target = self._targets.of(start, scope)
        if target is None:
            return None
        verdict = self._verdict(state, target, scope, scope.get("root_path", ""))
        if verdict is not None and not verdict.blocked:
            scope[_SCOPE_KEY] = Visit(self, scope, scope.get(_SCOPE_KEY), state, target)
        return verdict

    def _is_off(self, state: MaintenanceState) -> bool:
        """Return whether a state blocks nothing by itself now; one that stays so is remembered."""
        if state.mode is _MODE_OFF and not state.holds and not state.windows and self.app.instead is None:
            self._known_off = state
            return True
        return state.mode_at(datetime.now(UTC), instead=self.app.instead) is _MODE_OFF

    def arrive(self, scope: Scope) -> Visit:
        """Begin the visit of a request that has to be judged."""
        visit = Visit(self, scope, scope.get(_SCOPE_KEY))
        scope[_SCOPE_KEY] = visit
        return visit

    async def judge(
        self, visit: Visit, start: ASGIApp, request: Request | None, scope: Scope, receive: Receive
    ) -> tuple[Verdict, Receive]:
        """Judge a request that arrives; return the decision, and what the app is to receive from.

        ``start`` is what the request goes to. ``request`` is given where somebody else reads the body, too.
        """
        view = self.view()
        visit.state = view.peek() or await view.read()
        if not forced_on_anywhere() and self._is_off(visit.state):
            return PASSED_AT_ONCE, receive
        target = self._targets.of(start, scope)
        if target is None:
            target = _target(start, scope)
            visit.note(target, scope)
        else:
            visit.target = target
        return await self._judge(visit, target, request, scope, receive)

    async def judge_again(
        self, visit: Visit, router: Router, scope: Scope, receive: Receive
    ) -> tuple[Verdict, Receive]:
        """Judge a request that comes to ``router`` as something else than it was judged as."""
        if visit.is_at_root(router):
            visit.root_path = scope.get("root_path", "")
        target = target_of(router, scope, visit.mark_around(router))
        visit.note(target, scope)
        return await self._judge(visit, target, None, scope, receive)

    async def _judge(
        self, visit: Visit, target: Target, request: Request | None, scope: Scope, receive: Receive
    ) -> tuple[Verdict, Receive]:
        state = visit.state or _OFF
        verdict = self._verdict(state, target, scope, visit.root_path)
        if verdict is not None:
            return verdict, receive
        recording = _Recording(receive)
        if request is None:
            request = request_of(scope, recording)
        path = route_path(scope["path"], visit.root_path)
        now = datetime.now(UTC)
        exemption = await self.terms.exemption(request, path, DEFAULT, state, now, is_docs=target.docs)
        verdict = self._verdicts_by(state).of(target, method_of(scope), exemption)
        metrics.count(verdict.decision, target.route)
        return verdict, recording.replayed()

    def _verdict(self, state: MaintenanceState, target: Target, scope: Scope, root_path: str) -> Verdict | None:
        """Return the decision about a request, or ``None`` where a bypass or a user's handler has a say in it."""
        method = method_of(scope)
        verdicts = self._verdicts_by(state)
        verdict = verdicts.of(target, method)
        if verdict.blocked_by_mode:
            path = route_path(scope["path"], root_path)
            exemption = self.terms.exemptions.of_request(scope, path, is_docs=target.docs)
            if exemption is not None:
                verdict = verdicts.of(target, method, exemption)
            elif self.terms.ask_further:
                return None
        if verdict.is_counted:
            metrics.count(verdict.decision, target.route)
        return verdict

    def _verdicts_by(self, state: MaintenanceState) -> Verdicts:
        if not self._verdicts.are_still(state, self.app.instead):
            self._verdicts = Verdicts(state, self.app.instead)
        return self._verdicts

    async def refuse(self, verdict: Verdict, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that is refused, over HTTP or a websocket."""
        terms = self.terms
        own = terms.response_handler is not None
        response = None if own else verdict.answer_to(scope, terms.answer or DEFAULT_ANSWER)
        if response is None:
            refusal = await terms.refusal(verdict.decision, request_of(scope, receive))
            await refusal(scope, receive, send)
            return
        # Middlewares further out may change the headers that they get.
        headers = list(response.raw_headers)
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})


def _target(app: ASGIApp, scope: Scope) -> Target:
    """Return what would run for a request that comes to a middleware around ``app``."""
    start, mark = _start(app, scope)
    return target_of(start, scope, mark)


def target_of(start: ASGIApp, scope: Scope, mark: Mark | None = None) -> Target:
    """Return what would run, and have the routers on the way watch for what changes the request."""
    check_fastapi()
    target = resolve(start, scope, mark=mark)
    if target.failure is not None:
        logger.debug("matching %r raised %r", scope["path"], target.failure)
    for entry in target.entries:
        watch(entry.router)
    return target


def _start(app: ASGIApp, scope: Scope) -> tuple[ASGIApp, Mark | None]:
    """Return where to enter the route tree from a middleware around ``app``, and the mark outside of there."""
    answering: Starlette | None = scope.get("app")
    endpoint = scope.get("endpoint")
    root = root_of(app)
    if (
        root is None
        and answering is not None
        and (endpoint is None or endpoint is answering or root_of(endpoint) is answering)
    ):
        # A middleware in between doesn't tell what it wraps: the app that is answering. Unless routing has left that
        # one's router already: then the middleware stands on a route, and `app` is the endpoint.
        root = app = answering.router
    if root is None:
        return app, mark_of(endpoint)
    return app, mark_around(root, scope) if marked_anywhere() else None


def mark_around(root: Router | Starlette | None, scope: Scope) -> Mark | None:
    """Return the innermost mark outside of a router that the request has come to, or of its endpoint if ``None``.

    Mounts leave no trace of their marks in the scope, so the way is gone again from the outermost router.
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
    """A ``receive`` that notes what was received through it, so that the app can receive it again."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: list[Message] = []

    async def __call__(self) -> Message:
        """Receive and note one message."""
        message = await self._receive()
        self._messages.append(message)
        return message

    def replayed(self) -> Receive:
        """Return a ``receive`` that begins with what was noted."""
        if not self._messages:
            return self._receive
        messages = iter(self._messages)

        async def replay() -> Message:
            for message in messages:
                return message
            return await self._receive()

        return replay


async def state_of(app: AppSwitch, switch: str, visit: Visit | None) -> MaintenanceState:
    """Return what a switch says to a request; the default one says what it said when the request came."""
    if switch == DEFAULT and visit is not None and visit.state is not None:
        return visit.state
    view = view_for(app, registry.of_app(app, switch))
    return view.peek() or await view.read()


async def answer_to_link(
    bypass: Bypass, app: AppSwitch, visit: Visit | None, scope: Scope
) -> Mapping[str, str] | None:
    """Take a bypass token out of a request's query; return the headers of the redirect that it is good for, if any."""
    if not bypass.take(scope):
        return None
    now = datetime.now(UTC)

    async def blocking(switch: str) -> MaintenanceState | None:
        state = await state_of(app, switch, visit)
        return None if state.mode_at(now, instead=app.instead_of(switch)) is MaintenanceMode.OFF else state

    return await bypass.answer_to_link(scope, blocking, now)


def watch_root(app: ASGIApp, scope: Scope) -> None:
    """Watch the router that a middleware around ``app`` leads to."""
    root = root_of(_start(app, scope)[0])
    if root is not None:
        watch(root.router if isinstance(root, Starlette) else root)


def watch(router: Router) -> None:
    """Have a router's entrance judge again what comes to it changed, also by the router's own middleware."""
    if not isinstance(router.middleware_stack, _Entrance):
        wrap_innermost(router, partial(_Entrance, router))
        router.middleware_stack = _Entrance(router, router.middleware_stack)


class _Entrance:
    """A router's entrance. A middleware inside of the gate may have rewritten the request on its way here."""

    def __init__(self, router: Router, app: ASGIApp) -> None:
        self._router = router
        self.app = cast("Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]", app)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Let the request in unless a gate that it came through blocks what it is now."""
        visit: Visit | None = scope.get(_SCOPE_KEY)
        if visit is None or visit is visit.gate.passing or (visit.outer is None and visit.covers(self._router, scope)):
            return self.app(scope, receive, send)
        return self._let_in(scope, receive, send)

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        for visit in _visits(scope):
            if not visit.covers(self._router, scope):
                verdict, receive = await visit.gate.judge_again(visit, self._router, scope, receive)
                if verdict.blocked:
                    await visit.gate.refuse(verdict, visit.as_it_came(scope), receive, send)
                    return
        await self.app(scope, receive, send)
