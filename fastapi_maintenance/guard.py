"""``MaintenanceGuard``: maintenance for the routes with a dependency."""

# No `from __future__ import annotations`: FastAPI 0.115 reads the annotations of a callable object as they are.

import functools
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast
from weakref import WeakKeyDictionary

from fastapi.exception_handlers import http_exception_handler
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.status import HTTP_303_SEE_OTHER
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from .answers.answer import DETAIL, Answer
from .answers.refusal import can_deny, request_of
from .exceptions import InvalidConfiguration, MaintenanceActive, WebSocketMaintenanceActive
from .gate import metrics
from .gate.entrances import passage_at_endpoint
from .gate.exemptions import Exemptions
from .gate.gate import answer_to_link, state_of
from .gate.judgement import Judgement
from .gate.options import BYPASS, ExemptHandler, Options, ResponseHandler
from .holds.in_flight import count_guarded
from .model.decision import Decision, Facts, Mark, Rule
from .model.policy import decide
from .model.state import MaintenanceState
from .routing.apps import declared_path, root_of
from .routing.entrance import put_handler
from .routing.index import method_of, route_path
from .routing.marks import mark_of, marked_anywhere
from .routing.selfcheck import check_fastapi
from .routing.walk import mark_around
from .switches.app_switch import DEFAULT, AppSwitch
from .switches.backend_urls import check_name
from .switches.passage import Passage
from .switches.registry import registry
from .switches.views.lookup import view_of

_NO_APP = AppSwitch()
_unguarded: WeakKeyDictionary[object, AppSwitch] = WeakKeyDictionary()
"""Apps without the middleware."""


def unguarded_app(app: object) -> AppSwitch:
    """Return the ``AppSwitch`` of an app without the middleware."""
    return _unguarded.get(app) or _unguarded.setdefault(app, AppSwitch())


class MaintenanceGuard:
    """A dependency that refuses requests while its switch, or the app's default switch, is on.

    Use it as ``Depends(MaintenanceGuard("billing"))`` on a route, a router or an app, websocket routes included. It
    decides like the middleware, with the same marks, exemptions and modes, but after routing. If the app has the
    middleware, its exemptions, ``exempt_handler`` and ``enable_maintenance`` apply too.

    It guards routes for which FastAPI runs dependencies. Starlette's own routes (``add_route``, ``HTTPEndpoint``,
    mounts) have none and need the middleware. FastAPI reads the body first, so a body that can't be parsed is a 422.

    Args:
        name: The switch.
        exemptions: The requests that remain open here; by default none. A preflight that reaches a guard has passed
            every ``CORSMiddleware``, so it is judged like any other request.
        exempt_handler: As the middleware's.
        response_handler: As the middleware's. A guard without the middleware uses it, and the client's ``Accept``, if
            ``maintenance_exception_handler`` is registered.
        answer: As the middleware's; overrides the middleware's answer and handler.

    Raises:
        InvalidConfiguration: An argument is invalid.
        InvalidSwitchName: The name is invalid.
    """

    def __init__(
        self,
        name: str = DEFAULT,
        *,
        exemptions: Exemptions | None = None,
        exempt_handler: ExemptHandler | None = None,
        response_handler: ResponseHandler | None = None,
        answer: Answer | None = None,
    ) -> None:
        self.name = check_name(name)
        self.options = Options(exemptions, exempt_handler, response_handler, answer)
        registry.add_guarded(name)

    def __repr__(self) -> str:
        return f"MaintenanceGuard({self.name!r})"

    async def __call__(self, connection: HTTPConnection) -> None:
        """Return if the request may pass.

        Raises:
            MaintenanceActive: It may not.
            HTTPException: It came by a bypass link: 303 to the same URL without the token.
        """
        scope, now = connection.scope, datetime.now(UTC)
        passage = passage_at_endpoint(scope)
        app = _app_of(scope, passage)
        bypass = self.options.exemptions.bypass
        if bypass is not None:
            headers = await answer_to_link(bypass, app, scope)
            if headers is not None:
                raise HTTPException(HTTP_303_SEE_OTHER, headers=dict(headers))
        count_guarded(view_of(registry.of_app(app, self.name)), scope)
        decision = await self.decision(connection, passage, now)
        if decision.blocked or app.gate is None or decision.switch != DEFAULT:  # else the middleware has counted it
            metrics.count(decision, declared_path(scope))
        if decision.blocked:
            await self._refuse(connection, app, decision, now)

    async def decision(self, connection: HTTPConnection, passage: Passage | None, now: datetime) -> Decision:
        """Return the guard's decision about a request; ``passage`` is ``None`` if it passed no gate."""
        scope = connection.scope
        app = _app_of(scope, passage)
        judgement: Judgement | None = None if passage is None else passage.judgement
        facts = Facts(runs=True, mark=_mark_of(scope, judgement), method=method_of(scope))
        for switch in dict.fromkeys((self.name, DEFAULT)):
            override = app.override_of(switch)
            state = await state_of(app, switch, passage)
            decision = decide(facts, state, now, switch=switch, override=override)
            if decision.blocked and decision.rule is Rule.MODE:
                exemption = await self._exemption(connection, app, judgement, switch=switch, state=state, now=now)
                decision = decide(replace(facts, exemption=exemption), state, now, switch=switch, override=override)
                if exemption == BYPASS:
                    continue  # exempt of this switch only; any other exemption applies to both
            if decision.blocked or decision.rule is not Rule.MODE:
                break
        return decision

    async def _exemption(
        self,
        connection: HTTPConnection,
        app: AppSwitch,
        judgement: Judgement | None,
        *,
        switch: str,
        state: MaintenanceState,
        now: datetime,
    ) -> str | None:
        scope = connection.scope
        request = _request_of(connection)
        around = scope.get("app_root_path", scope.get("root_path", ""))
        path = route_path(scope["path"], around if judgement is None else judgement.root_path)
        for options in (self.options,) if app.gate is None else (self.options, app.gate.options):
            exemption = await options.exemption(request, path, switch, state, now, is_docs=False)
            if exemption is not None:
                return exemption
        return None

    async def _refuse(self, connection: HTTPConnection, app: AppSwitch, decision: Decision, now: datetime) -> None:
        options = self.options.within(None if app.gate is None else app.gate.options)
        answer, decision = options.answer_to(decision, now)
        refused = MaintenanceActive(
            decision,
            detail=answer.detail_of(decision),
            headers=answer.headers_of(decision),
            terms=options,
            status=answer.status,
        )
        if isinstance(connection, WebSocket):
            if not can_deny(connection.scope):
                raise WebSocketMaintenanceActive(decision, detail=DETAIL, headers=refused.headers or {}, terms=options)
            if not _starlette_answers_websockets():
                refusal = await options.refusal(decision, _request_of(connection), now)
                await refusal(connection.scope, connection.receive, connection.send)
        if app.gate is not None:
            put_handler(connection.scope, MaintenanceActive, maintenance_exception_handler, when=has_stock_handler)
        raise refused


def _app_of(scope: Scope, passage: Passage | None) -> AppSwitch:
    """Return the ``AppSwitch`` that a request belongs to."""
    if passage is not None:
        return passage.app
    return unguarded_app(scope["app"]) if "app" in scope else _NO_APP


maintenance_guard = MaintenanceGuard()
"""The guard of the default switch."""


def has_stock_handler(handlers: Mapping[Any, Any]) -> bool:
    """Return whether FastAPI's own handler, not the app's, would answer a guard's refusal.

    ``handlers`` are by exception; Starlette prefers a handler of the status to them.
    """
    handler = next((handlers[kind] for kind in MaintenanceActive.__mro__ if kind in handlers), None)
    return handler is http_exception_handler


async def maintenance_exception_handler(connection: HTTPConnection, exc: Exception) -> Response:
    """Return the full answer to a guard's refusal: by its ``response_handler``, the middleware's, or the default.

    The middleware registers it, unless you have your own handler for ``MaintenanceActive``, ``HTTPException`` or the
    status. With guards alone, register it yourself:
    ``app.add_exception_handler(MaintenanceActive, maintenance_exception_handler)``.
    """
    if not isinstance(exc, MaintenanceActive):
        raise InvalidConfiguration(
            f"maintenance_exception_handler answers MaintenanceActive, not {type(exc).__name__}: "
            "register it by add_exception_handler(MaintenanceActive, maintenance_exception_handler)"
        ) from exc
    return cast("Response", await exc.terms.refusal(exc.decision, _request_of(connection), datetime.now(UTC)))


def _request_of(connection: HTTPConnection) -> Request:
    """Return the request for a handler; FastAPI's own request has already read the body."""
    if isinstance(connection, Request):
        return connection
    return request_of(connection.scope, cast("WebSocket", connection).receive)


def _mark_of(scope: Scope, judgement: Judgement | None) -> Mark | None:
    """Return the innermost mark on the way to the endpoint that is about to run."""
    if not marked_anywhere():
        return None
    endpoint = scope.get("endpoint")
    # For a frontend this is the app that mounts it, whose mark is not the innermost.
    mark = None if root_of(endpoint) is not None else mark_of(endpoint)
    if mark is not None:
        return mark
    if judgement is not None and judgement.target is not None:
        return judgement.target.mark
    check_fastapi()
    return mark_around(None, scope)


@functools.cache
def _starlette_answers_websockets() -> bool:
    """Return whether this Starlette sends an exception handler's response on a websocket; older versions drop it."""
    sent: list[Message] = []

    async def raises(scope: Scope, receive: Receive, send: Send) -> None:
        raise HTTPException(503)

    async def answers(connection: object, exc: Exception) -> Response:
        return Response()

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/", "headers": []}
    app = ExceptionMiddleware(raises, handlers={HTTPException: answers})
    with suppress(StopIteration):
        app(scope, cast("Receive", None), send).send(None)  # a coroutine that never waits
    return bool(sent)
