"""Puts code of this package into the routers, middleware and handlers of an app."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from functools import partial
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakSet

from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from .apps import cell_of_app, inner_app_of, steps_of

if TYPE_CHECKING:
    from .walk import Target


class Entrance(ABC):
    """Runs in front of a router. If the router has its own middleware, another entrance runs behind that."""

    def __init__(self, router: Router, app: ASGIApp, *, is_innermost: bool) -> None:
        self.router = router
        self.app = cast("Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]", app)
        self.is_innermost = is_innermost
        """Whether no entrance of the same router is behind this one."""
        self.gates: WeakSet[Any] = WeakSet()
        """The gates that lead to this router, as found so far."""

    @abstractmethod
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Let a request in or answer it."""

    @abstractmethod
    def may_meet_cors(self, target: Target) -> bool:
        """Return whether a ``CORSMiddleware`` may answer a preflight between here and an endpoint."""


def put_entrance(router: Router, kind: type[Entrance]) -> Entrance:
    """Return the entrance of a router, put there if there is none."""
    entrance = router.middleware_stack
    if not isinstance(entrance, Entrance):
        has_inner = _wrap_innermost(router, partial(kind, router, is_innermost=True))
        entrance = router.middleware_stack = kind(router, entrance, is_innermost=not has_inner)
    return entrance


def put_behind_cors(cors: CORSMiddleware, kind: Callable[[ASGIApp], ASGIApp]) -> None:
    """Put an app of a kind between a ``CORSMiddleware`` and what it calls, unless it is there already."""
    if type(cors.app) is not kind:
        cors.app = kind(cors.app)


def put_handler(scope: Scope, kind: type[Exception], handler: Any, *, when: Callable[[Any], bool]) -> None:
    """Register a handler of an exception with the app that answers a request, if ``when`` accepts the present ones."""
    # Starlette's ExceptionMiddleware looks its handlers up in this dict, shared by all requests.
    handlers, _ = scope.get("starlette.exception_handlers", ({}, {}))
    if when(handlers):
        handlers[kind] = handler


def bypasses_entrance(app: Any, around: Any) -> bool:
    """Return whether ``app`` is the bound method ``router.app`` and ``around`` is not that router's entrance."""
    return isinstance(app, MethodType) and getattr(app, "__name__", "") == "app" and not isinstance(around, Entrance)


def _wrap_innermost(router: Router, wrap: Callable[[ASGIApp], ASGIApp]) -> bool:
    """Wrap a router inside its own middleware; return ``False`` if it has none or the middleware hides it."""
    for step in steps_of(router.middleware_stack, inner_app_of):
        if step is router:
            break  # it has no middleware
        inner = inner_app_of(step)
        if isinstance(inner, MethodType) and inner.__self__ is router:
            if isinstance(step, FunctionType):
                cell_of_app(step).cell_contents = wrap(inner)
            else:
                step.app = wrap(inner)
            return True
    return False
