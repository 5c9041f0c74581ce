"""``MaintenanceModeMiddleware``: maintenance for a whole ASGI app."""

from __future__ import annotations

import weakref
from datetime import UTC, datetime
from functools import partial
from typing import cast

from starlette.middleware.base import BaseHTTPMiddleware, DispatchFunction, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.status import HTTP_303_SEE_OTHER
from starlette.types import ASGIApp, Receive, Scope, Send

from .answers.answer import Answer
from .answers.refusal import with_fallback
from .backends.base import BaseStateBackend
from .concurrency.io_thread import running_loop
from .exceptions import InvalidConfiguration, MaintenanceError
from .gate import metrics
from .gate.bypass import Bypass
from .gate.exemptions import Exemptions
from .gate.gate import Gate, answer_to_link
from .gate.judgement import Judgement
from .gate.options import ExemptHandler, Options, ResponseHandler
from .holds.in_flight import Socket, leave
from .routing.selfcheck import check_fastapi
from .switches.app_switch import AppSwitch
from .switches.passage import Passage, current
from .switches.registry import check_backend, registry
from .switches.views.lookup import view_for


class MaintenanceModeMiddleware(BaseHTTPMiddleware):
    """Answers 503 instead of running application code that is under maintenance.

    It resolves which endpoint the app's router would run and lets everything else through: an unknown path remains
    404, a wrong method 405, a slash redirect a redirect. Websocket handshakes are judged like requests. While nothing
    is under maintenance, requests pass with one more scope entry: no task group, no copy of the body.

    Args:
        app: The ASGI app inside; Starlette passes it.
        enable_maintenance: ``True`` or ``False`` replaces the stored mode; blocks of ``maintenance_mode_on/off``
            override it. ``None``: the backend decides.
        backend: The backend of this app's default switch. ``None``: the backend that ``configure_backend`` set.
        exempt_handler: Called with a ``Request`` that the mode would block; a true result lets it pass. Sync (run off
            the event loop) or async. If it raises, the request is not exempt.
        response_handler: Called with a blocked ``Request``, and with the ``Decision`` if its second positional
            parameter has no default or is called ``decision``; returns the Starlette response to send. Sync or async.
            If it raises, the default answer is sent.
        exemptions: The requests that remain open; by default preflights and docs pages.
        answer: The default answer's status, headers, times and texts.
        dispatch: A function as for ``BaseHTTPMiddleware``, called around the decision: its ``call_next(request)``
            returns the app's answer or the refusal.

    Raises:
        InvalidConfiguration: An argument is invalid. Starlette builds middleware lazily, so it is raised at start-up
            or at the first request, not at ``add_middleware``.
    """

    def __init__(
        self,
        app: ASGIApp,
        enable_maintenance: bool | None = None,
        backend: BaseStateBackend | None = None,
        exempt_handler: ExemptHandler | None = None,
        response_handler: ResponseHandler | None = None,
        *,
        exemptions: Exemptions | None = None,
        answer: Answer | None = None,
        dispatch: DispatchFunction | None = None,
    ) -> None:
        super().__init__(app)
        if enable_maintenance is not None and not isinstance(enable_maintenance, bool):
            raise InvalidConfiguration(f"enable_maintenance must be True, False or None, got {enable_maintenance!r}")
        own = None if backend is None else check_backend(backend, beside_name=False)
        switch = AppSwitch(own, enable_maintenance)
        switch.owner = weakref.ref(self)
        registry.add_app(switch)
        self.gate = Gate(switch, Options(exemptions, exempt_handler, response_handler, answer))
        self._bypass = self.gate.options.exemptions.bypass
        if dispatch is not None and not callable(dispatch):
            raise InvalidConfiguration(f"dispatch must be an async function(request, call_next), got {dispatch!r}")
        if dispatch is not None:
            self.dispatch_func = partial(self._dispatch_around, dispatch)
        # Plain requests never reach the slow `BaseHTTPMiddleware.__call__`: only a user's own `dispatch` needs it.
        self._is_plain = dispatch is None and type(self).dispatch is MaintenanceModeMiddleware.dispatch
        self._is_set_up = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Judge one connection, then pass it on as it is or refuse it."""
        kind = scope["type"]
        if kind not in ("http", "websocket"):
            await self._pass_on(scope, receive, send)
            return
        gate = self.gate
        if not self._is_set_up:
            check_fastapi()
            gate.watch_root(self.app, scope)
            metrics.register_gauges()
            self._is_set_up = True
        view = gate.view()  # raises without a backend, so it comes before anything that has to be undone
        passage = gate.arrive(scope)
        # Counted before the switch is read: who changes it and then looks misses no request that saw the former state.
        counts = view.in_flight
        is_first = passage.key not in counts  # and no app around this app has counted it
        if is_first:
            counts[passage.key] = scope
        current.set(passage)
        try:
            if self._bypass is not None and await self._redirects(self._bypass, scope, receive, send):
                return
            if kind == "websocket":
                passage.socket = Socket(send)
                send = passage.socket.send
            cached = gate.judge_at_once(passage, self.app, scope, view) if self._is_plain else None
            if cached is None:
                await self._judge_and_answer(passage, scope, receive, send)
            elif cached.blocked:
                await gate.refuse(cached, scope, receive, send)
            else:
                await self.app(scope, receive, send)
        finally:
            # Not `reset(token)`: a discarded request ends in another context, where that raises.
            current.set(passage.around)
            leave(passage, counts if is_first else None)

    async def _redirects(self, bypass: Bypass, scope: Scope, receive: Receive, send: Send) -> bool:
        """Return whether a request came by a bypass link and was redirected."""
        headers = await answer_to_link(bypass, self.gate.app, scope)
        if headers is None:
            return False
        await Response(status_code=HTTP_303_SEE_OTHER, headers=headers)(scope, receive, send)
        return True

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a lifespan or another scope that is no request; follow the switches' stores during the lifespan."""
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
            return
        gate, app = self.gate, self.gate.app
        loop = running_loop()
        app.lifespans.append(loop)
        try:
            try:
                gate.view()
                for name in registry.guarded():
                    view_for(app, registry.of_app(app, name))
            except MaintenanceError as error:
                # If it is only raised, servers assume an app without lifespan support, and start.
                await receive()
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                raise
            await self.app(scope, receive, send)
        finally:
            app.lifespans.remove(loop)
            if not app.lifespans:
                gate.leave()

    async def _judge_and_answer(self, passage: Passage, scope: Scope, receive: Receive, send: Send) -> None:
        """Judge a connection, then pass it on or refuse it."""
        gate = self.gate
        if scope["type"] == "http" and not self._is_plain:
            # Once a user's `dispatch` has refused the request, an error can't make that a 500.
            passage.judgement = Judgement(scope, None)
            await with_fallback(super().__call__, lambda: passage.judgement.default_answer, scope, receive, send)
            return
        cached, receive = await gate.judge(passage, self.app, None, scope, receive)
        if cached.blocked:
            await gate.refuse(cached, scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _dispatch_around(
        self, function: DispatchFunction, request: Request, call_next: RequestResponseEndpoint
    ) -> Response:
        return await function(request, partial(self._dispatch_next, call_next))

    async def _dispatch_next(self, call_next: RequestResponseEndpoint, request: Request) -> Response:
        return await self.dispatch(request, call_next)

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Return the app's answer or the refusal, for a subclass that adds code before or after.

        A subclass that doesn't call ``super().dispatch(request, call_next)`` decides by itself.
        """
        gate = self.gate
        passage = gate.passage_in(request.scope)
        cached, _ = await gate.judge(passage, self.app, request, request.scope, request.receive)
        if not cached.blocked:
            return await call_next(request)
        refusal = await gate.options.refusal(cached.decision, request, datetime.now(UTC))
        passage.judgement.default_answer = refusal.fallback
        return cast("Response", refusal.response)
