"""The gate of an app: it judges requests when they arrive, and again at a router if they were changed on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from datetime import UTC, datetime

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..answers.answer import DEFAULT_ANSWER
from ..answers.refusal import request_of
from ..model.modes import MaintenanceMode
from ..model.state import MaintenanceState
from ..routing.apps import root_of, router_of, routers_of
from ..routing.entrance import Entrance
from ..routing.index import method_of, route_path
from ..routing.marks import forced_on_anywhere
from ..routing.target_cache import TargetCache
from ..routing.walk import Target, resolve, start_of
from ..switches.app_switch import DEFAULT, AppSwitch
from ..switches.passage import SCOPE_KEY, Passage, current, passage_of
from ..switches.registry import registry
from ..switches.views.lookup import leave, leave_all, view_for
from ..switches.views.view import View
from . import metrics
from .bypass import Bypass
from .decision_cache import PASSED_AT_ONCE, CachedDecision, DecisionCache
from .entrances import may_meet_cors, meets_no_cors, outer_passages, watch
from .exemptions import PREFLIGHT
from .judgement import PASSED, UNKNOWN, Judgement
from .options import Options

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
        """The last state that is off at any time, so that no request has to read a clock."""
        self.root: Router | None = None
        """The outermost router behind the gate."""
        self._watches_all = False
        self._targets = TargetCache(self._find)
        self._decision_cache: DecisionCache | None = None

    def __deepcopy__(self, memo: object) -> Gate:
        """Return this gate: a request's scope refers to it through the app, and may be copied."""
        return self

    def watch_root(self, app: ASGIApp, scope: Scope) -> None:
        """Watch the router that a middleware around ``app`` leads to."""
        root = root_of(start_of(app, scope)[0])
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

    def _find(self, app: ASGIApp, scope: Scope) -> Target:
        """Return what would run for a request to a middleware around ``app``, and watch the routers on the way."""
        if not self._watches_all:
            # A middleware may send a request to any router.
            self._watches_all = True
            for router in () if self.root is None else routers_of(self.root):
                watch(router)
        start, mark = start_of(app, scope)
        return _watched(resolve(start, scope, mark=mark))

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

    def arrive(self, scope: Scope) -> Passage:
        """Return the passage of a request that arrives, stored in its scope."""
        around = current.get()
        passage = Passage(self.app, scope, scope.get(SCOPE_KEY), around)
        if around is not None and passage.outer is None and self.root is not None:
            # A middleware may have built the scope anew, without our entry.
            passage.outer = outer_passages(scope, self.root, inner=self)
        scope[SCOPE_KEY] = passage
        return passage

    def passage_in(self, scope: Scope) -> Passage:
        """Return the passage of a request that a user's ``dispatch`` passes on, perhaps in another scope."""
        passage = passage_of(scope)
        if passage is None or passage.app is not self.app:
            own = current.get()
            if own is not None and own.app is self.app:
                passage = own.with_outer(passage)
            else:
                passage = Passage(self.app, scope, passage)
            scope[SCOPE_KEY] = passage
        return passage

    def judge_at_once(self, passage: Passage, start: ASGIApp, scope: Scope, view: View) -> CachedDecision | None:
        """Return the decision about a request that arrives, or ``None`` if only ``judge`` can tell.

        That one can wait for the store and for a user's handler, and it knows requests that can't be cached.
        ``start`` is the app that the request is sent to.
        """
        state = view.peek()
        if state is None:
            return None
        if (state is self._lasting_off or self._is_off(state)) and not forced_on_anywhere():
            # A request that code makes within this one is judged by its root path.
            passage.judgement = Judgement(scope, _OFF) if scope.get("root_path") else PASSED
            return PASSED_AT_ONCE
        target = self._targets.of(start, scope)
        if target is None:
            return None
        cached = self._decide(self._cache_of(state), target, scope, scope.get("root_path", ""))
        if cached is not None and not cached.blocked:
            passage.judgement = Judgement(scope, state, target, is_preflight=cached.is_preflight)
        return cached

    def _is_off(self, state: MaintenanceState) -> bool:
        """Return whether a state is off now; remember a state that stays off."""
        if state.mode is _MODE_OFF and not state.holds and not state.windows and self.app.override is None:
            self._lasting_off = state
            return True
        return self._cache_of(state).is_off

    async def judge(
        self, passage: Passage, start: ASGIApp, request: Request | None, scope: Scope, receive: Receive
    ) -> tuple[CachedDecision, Receive]:
        """Return the decision about a request that arrives, and the ``receive`` for the app.

        ``start`` is the app that it is sent to. Pass ``request`` if other code reads its body as well.
        """
        view = self.view()
        state = view.peek() or await view.read()
        judgement = passage.judgement = Judgement(scope, state)
        if self._is_off(state) and not forced_on_anywhere():
            return PASSED_AT_ONCE, receive
        judgement.target = self._targets.of(start, scope)
        if judgement.target is None:
            judgement.note(self._find(start, scope), scope)
        return await self._judge(judgement, request, scope, receive)

    async def judge_again(
        self, passage: Passage, entrance: Entrance, scope: Scope, receive: Receive
    ) -> tuple[CachedDecision, Receive]:
        """Return the decision about a request that reaches an entrance changed, and the ``receive`` for the app."""
        router = entrance.router
        former: Judgement = passage.judgement
        judgement = passage.judgement = copy(former)
        if former.state is None:
            view = self.view()
            judgement.state = view.peek() or await view.read()
        entry = former.entry_of(router)
        if self._is_at_root(router, former):
            judgement.root_path = scope.get("root_path", "")
        within = scope if entry is None or entry.app is None else {**scope, "app": entry.app}
        mark = former.mark_outside(router, scope, self.leads_to)
        judgement.note(_watched(resolve(router, within, mark=mark)), scope)
        # A scope that was built anew lacks the entry, and gets it only if the request is admitted.
        known = {**scope, SCOPE_KEY: passage}
        return await self._judge(judgement, None, known, receive, may_meet=entrance.may_meet_cors)

    def _is_at_root(self, router: Router, judgement: Judgement) -> bool:
        """Return whether a router is the first on a request's way."""
        entries = () if judgement.target is None else judgement.target.entries
        return entries[0].router is router if entries else self.root is router

    async def judge_behind_cors(
        self, passage: Passage, scope: Scope, receive: Receive
    ) -> tuple[CachedDecision, Receive]:
        """Return the decision about a preflight that ``CORSMiddleware`` passed on, which ends its exemption."""
        passage.judgement = copy(passage.judgement)
        return await self._judge(passage.judgement, None, scope, receive, may_meet=meets_no_cors)

    async def _judge(
        self,
        judgement: Judgement,
        request: Request | None,
        scope: Scope,
        receive: Receive,
        *,
        may_meet: Callable[[Target], bool] | None = None,
    ) -> tuple[CachedDecision, Receive]:
        state, target = judgement.state or _OFF, judgement.target or UNKNOWN
        cache = self._cache_of(state)
        cached = self._decide(cache, target, scope, judgement.root_path, may_meet)
        if cached is not None:
            judgement.is_preflight = cached.is_preflight
            return cached, receive
        judgement.is_preflight = False
        recording = _Recording(receive)
        if request is None:
            request = request_of(scope, recording)
        path = route_path(scope["path"], judgement.root_path)
        now = datetime.now(UTC)
        exemption = await self.options.exemption(request, path, DEFAULT, state, now, is_docs=target.docs)
        cached = cache.of(target, method_of(scope), exemption)
        metrics.count(cached.decision, target.route)
        return cached, recording.replayed()

    def _decide(
        self,
        cache: DecisionCache,
        target: Target,
        scope: Scope,
        root_path: str,
        may_meet: Callable[[Target], bool] | None = None,
    ) -> CachedDecision | None:
        """Return the decision about a request, or ``None`` if a bypass or a user's handler may exempt it."""
        method = method_of(scope)
        cached = cache.of(target, method)
        if cached.blocked_by_mode:
            path = route_path(scope["path"], root_path)
            exemptions, is_docs = self.options.exemptions, target.docs
            exemption = exemptions.of_request(scope, path, is_docs=is_docs)
            if exemption == PREFLIGHT and not (may_meet or may_meet_cors)(target):
                exemption = exemptions.of_request(scope, path, is_docs=is_docs, preflight=False)
            if exemption is not None:
                cached = cache.of(target, method, exemption)
            elif self.options.has_further_exemptions:
                return None
        if cached.is_counted:
            metrics.count(cached.decision, target.route)
        return cached

    def _cache_of(self, state: MaintenanceState) -> DecisionCache:
        now, cache = datetime.now(UTC), self._decision_cache
        if cache is None or not cache.is_valid(state, self.app.override, now):
            cache = self._decision_cache = DecisionCache(state, self.app.override, now)
        return cache

    async def refuse(self, cached: CachedDecision, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refused request, over HTTP or a websocket; a guard refuses in ``guard.py``."""
        options, now = self.options, datetime.now(UTC)
        own = options.response_handler is not None
        response = None if own else cached.answer_to(scope, options.answer or DEFAULT_ANSWER, now)
        if response is None:
            refusal = await options.refusal(cached.decision, request_of(scope, receive), now)
            await refusal(scope, receive, send)
            return
        # A copy, because outer middleware may change the headers.
        headers = list(response.raw_headers)
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})


def _watched(target: Target) -> Target:
    """Return a target after watching the routers on the way for changes of the request."""
    for entry in target.entries:
        watch(entry.router)
    return target


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


async def state_of(app: AppSwitch, switch: str, passage: Passage | None) -> MaintenanceState:
    """Return the state of a switch for a request; of the default switch, the state when the request arrived."""
    judgement: Judgement | None = None if passage is None else passage.judgement
    if switch == DEFAULT and judgement is not None and judgement.state is not None:
        return judgement.state
    view = view_for(app, registry.of_app(app, switch))
    return view.peek() or await view.read()


async def answer_to_link(bypass: Bypass, app: AppSwitch, scope: Scope) -> Mapping[str, str] | None:
    """Take a bypass token out of a request's query; return the headers of its redirect, or ``None``."""
    if not bypass.take(scope, app):
        return None
    passage, now = passage_of(scope), datetime.now(UTC)

    async def blocking(switch: str) -> MaintenanceState | None:
        state = await state_of(app, switch, passage)
        return None if state.mode_at(now, override=app.override_of(switch)) is MaintenanceMode.OFF else state

    return await bypass.answer_to_link(scope, blocking, now)
