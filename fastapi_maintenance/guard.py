"""The ``Depends`` face: ``MaintenanceGuard``."""

from __future__ import annotations

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
from .gate.exemptions import Exemptions
from .gate.gate import answer_to_link, mark_around, state_of
from .gate.options import BYPASS, ExemptHandler, ResponseHandler, Terms
from .gate.visits import Visit, visit_at_endpoint
from .holds.in_flight import count_guarded
from .model.decision import Decision, Facts, Mark, Rule
from .model.policy import decide
from .model.state import MaintenanceState
from .routing.apps import declared_path, root_of
from .routing.index import method_of, route_path
from .routing.marks import mark_of, marked_anywhere
from .switches.app_switch import DEFAULT, AppSwitch
from .switches.backend_urls import checked_name
from .switches.registry import registry
from .switches.views import view_of

_NO_APP = AppSwitch()
_unguarded: WeakKeyDictionary[object, AppSwitch] = WeakKeyDictionary()
"""Apps without the middleware."""


def unguarded_app(app: object) -> AppSwitch:
    """Return what stands for an app without the middleware."""
    return _unguarded.get(app) or _unguarded.setdefault(app, AppSwitch())


class MaintenanceGuard:
    """A dependency that refuses requests while its switch, or the app's default switch, is on.

    Use it as ``Depends(MaintenanceGuard("billing"))`` on a route, a router or an app, websocket routes included. It
    makes the middleware's decision where the router already stands: marks, exemptions and modes count alike. Where
    the app has the middleware, that one's exemptions, ``exempt_handler`` and ``enable_maintenance`` count too.

    It guards what FastAPI runs dependencies for. Starlette's own routes (``add_route``, ``HTTPEndpoint``, mounts)
    have none, so they need the middleware; and FastAPI reads a body first, so one that can't be parsed is a 422.

    Args:
        name: The switch.
        exemptions: What stays open here; by default nothing. A preflight that comes to a guard has passed every
            ``CORSMiddleware``, so it is judged like any other request.
        exempt_handler: As the middleware's.
        response_handler: As the middleware's. A guard without the middleware around answers by it, and by the client's
            ``Accept``, where ``maintenance_exception_handler`` is registered.
        answer: As the middleware's. It stands above the middleware's own answer and handler.

    Raises:
        InvalidConfiguration: An argument can't work.
        InvalidSwitchName: The name can't be a switch's.
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
        self.name = checked_name(name)
        self.terms = Terms(exemptions, exempt_handler, response_handler, answer)
        registry.add_guarded(name)

    def __repr__(self) -> str:
        return f"MaintenanceGuard({self.name!r})"

    async def __call__(self, connection: HTTPConnection) -> None:
        """Return if the request may pass.

        Raises:
            MaintenanceActive: It may not.
            HTTPException: It came by a bypass link: 303 to the same URL without the token.
        """
        visit = visit_at_endpoint(connection.scope)
        bypass = self.terms.exemptions.bypass
        if bypass is not None:
            app = _app(connection.scope, visit)
            headers = await answer_to_link(bypass, app, visit, connection.scope)
            if headers is not None:
                raise HTTPException(HTTP_303_SEE_OTHER, headers=dict(headers))
        count_guarded(view_of(registry.of_app(_app(connection.scope, visit), self.name)))
        decision = await self.decision(connection, visit)
        if decision.blocked or visit is None or decision.switch != DEFAULT:  # else the middleware has counted it
            metrics.count(decision, declared_path(connection.scope))
        if decision.blocked:
            await self._refuse(connection, visit, decision)

    async def decision(self, connection: HTTPConnection, visit: Visit | None) -> Decision:
        """Return what the guard decides about a request, which came through a gate or not."""
        scope = connection.scope
        app = _app(scope, visit)
        facts = Facts(runs=True, mark=_mark(scope, visit), method=method_of(scope))
        now = datetime.now(UTC)
        for switch in dict.fromkeys((self.name, DEFAULT)):
            instead = app.instead_of(switch)
            state = await state_of(app, switch, visit)
            decision = decide(facts, state, now, switch=switch, instead=instead)
            if decision.blocked and decision.rule is Rule.MODE:
                exemption = await self._exemption(connection, visit, switch, state, now)
                decision = decide(replace(facts, exemption=exemption), state, now, switch=switch, instead=instead)
                if exemption == BYPASS:
                    continue  # of this switch; what is exempt otherwise is so for both
            if decision.blocked or decision.rule is not Rule.MODE:
                break
        return decision

    async def _exemption(
        self, connection: HTTPConnection, visit: Visit | None, switch: str, state: MaintenanceState, now: datetime
    ) -> str | None:
        scope = connection.scope
        request = _request(connection)
        root_path = scope.get("app_root_path", scope.get("root_path", "")) if visit is None else visit.root_path
        path = route_path(scope["path"], root_path)
        for terms in (self.terms,) if visit is None else (self.terms, visit.gate.terms):
            exemption = await terms.exemption(request, path, switch, state, now, is_docs=False)
            if exemption is not None:
                return exemption
        return None

    async def _refuse(self, connection: HTTPConnection, visit: Visit | None, decision: Decision) -> None:
        terms = self.terms.within(None if visit is None else visit.gate.terms)
        answer, decision = terms.told(decision, datetime.now(UTC))
        refused = MaintenanceActive(
            decision,
            detail=answer.detail_of(decision),
            headers=answer.headers_of(decision),
            terms=terms,
            status=answer.status,
        )
        if isinstance(connection, WebSocket):
            if not can_deny(connection.scope):
                raise WebSocketMaintenanceActive(decision, detail=DETAIL, headers=refused.headers or {}, terms=terms)
            if not _starlette_answers_websockets():
                refusal = await terms.refusal(decision, _request(connection))
                await refusal(connection.scope, connection.receive, connection.send)
        if visit is not None:
            # Starlette's ExceptionMiddleware leaves there what it will look for a handler in, for all requests alike.
            handlers, _ = connection.scope.get("starlette.exception_handlers", ({}, {}))
            if has_stock_handler(handlers):
                handlers[MaintenanceActive] = maintenance_exception_handler
        raise refused


def _app(scope: Scope, visit: Visit | None) -> AppSwitch:
    """Return the app whose switches are asked."""
    if visit is not None:
        return visit.gate.app
    return unguarded_app(scope["app"]) if "app" in scope else _NO_APP


maintenance_guard = MaintenanceGuard()
"""The guard of the default switch."""


def has_stock_handler(handlers: Mapping[Any, Any]) -> bool:
    """Return whether of these handlers, by exception, FastAPI's would answer a guard's refusal, and none of the app's.

    A handler of the status is found before these.
    """
    handler = next((handlers[kind] for kind in MaintenanceActive.__mro__ if kind in handlers), None)
    return handler is http_exception_handler


async def maintenance_exception_handler(connection: HTTPConnection, exc: Exception) -> Response:
    """Answer a guard's refusal in full: with its ``response_handler``, else the middleware's, else the default.

    With the middleware around, it does so by itself, unless there is a handler of your own for ``MaintenanceActive``,
    an ``HTTPException`` or the status. With guards alone, register it:
    ``app.add_exception_handler(MaintenanceActive, maintenance_exception_handler)``.
    """
    if not isinstance(exc, MaintenanceActive):
        raise InvalidConfiguration(
            f"maintenance_exception_handler answers MaintenanceActive, not {type(exc).__name__}: "
            "register it by add_exception_handler(MaintenanceActive, maintenance_exception_handler)"
        ) from exc
    return cast("Response", await exc.terms.refusal(exc.decision, _request(connection)))


def _request(connection: HTTPConnection) -> Request:
    """Return the request that a handler gets; FastAPI's own one has read the body already."""
    if isinstance(connection, Request):
        return connection
    return request_of(connection.scope, cast("WebSocket", connection).receive)


def _mark(scope: Scope, visit: Visit | None) -> Mark | None:
    """Return the innermost mark on the way to the endpoint that is about to run."""
    if not marked_anywhere():
        return None
    endpoint = scope.get("endpoint")
    # A frontend leaves there the app that it is mounted in, whose mark is not the innermost.
    mark = None if root_of(endpoint) is not None else mark_of(endpoint)
    if mark is not None:
        return mark
    if visit is not None and visit.target is not None:
        return visit.target.mark
    return mark_around(None, scope)


@functools.cache
def _starlette_answers_websockets() -> bool:
    """Return whether this Starlette sends what an exception handler returns for a websocket; older ones drop it."""
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
