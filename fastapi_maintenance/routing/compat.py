"""Differences between versions of FastAPI and Starlette, and most of their private names used here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import fastapi.routing as fastapi_routing
from fastapi.applications import FastAPI
from fastapi.routing import APIRoute, APIRouter, APIWebSocketRoute
from starlette.applications import Starlette
from starlette.convertors import FloatConvertor, IntegerConvertor, StringConvertor, UUIDConvertor
from starlette.endpoints import HTTPEndpoint
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute

FASTAPI_SCOPE_KEY = "fastapi"
"""The scope key of FastAPI's own dict; matching writes to it."""

ONE_SEGMENT_CONVERTORS = (StringConvertor, IntegerConvertor, FloatConvertor, UUIDConvertor)


def has_stock_default(router: Router) -> bool:
    """Return whether a router answers 404 when no route matches."""
    return getattr(router.default, "__func__", None) is Router.not_found


def has_stock_dispatch(endpoint: type[HTTPEndpoint]) -> bool:
    """Return whether Starlette's own code selects the method that an endpoint class runs."""
    return type(endpoint).__call__ is type.__call__ and all(
        getattr(endpoint, name, None) is getattr(HTTPEndpoint, name, None) for name in _DISPATCH_ATTRIBUTES
    )


_DISPATCH_ATTRIBUTES = (
    *("__new__", "__init__", "__await__", "__getattribute__", "__getattr__", "dispatch", "method_not_allowed"),
)


class _EveryMethod(HTTPEndpoint):
    """An endpoint class with a handler for every HTTP method."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda: None


# Newer Starlette versions dispatch only the methods of a list; older versions dispatch any attribute of the class.
DISPATCH_KNOWS_ITS_METHODS = "_allowed_methods" in HTTPEndpoint.dispatch.__code__.co_names
DISPATCHED_METHODS = frozenset(
    _EveryMethod({"type": "http"}, None, None)._allowed_methods,  # type: ignore[arg-type]
)

# FastAPI >= 0.137 keeps each included router as one route; older versions copied its routes.
IncludedRouter: type[Any] | None = getattr(fastapi_routing, "_IncludedRouter", None)
INCLUDED_ROUTERS_ARE_KEPT = IncludedRouter is not None
Context: type[Any] | None = getattr(fastapi_routing, "_EffectiveRouteContext", None)
CAN_LOOK_INSIDE = (
    IncludedRouter is not None
    and {"_effective_candidates", "_effective_candidates_version"} <= {field.name for field in fields(IncludedRouter)}
    and hasattr(APIRouter, "_get_routes_version")
)
STOCK_MATCHES = {each.matches for each in (Route, WebSocketRoute, Mount, APIRoute, APIWebSocketRoute)}


def is_included(route: Any) -> bool:
    """Return whether a route is an included router, kept as one route."""
    return IncludedRouter is not None and isinstance(route, IncludedRouter)


def is_like_stock(included: Any) -> bool:
    """Return whether an included router matches and handles requests with FastAPI's own code."""
    return (
        function_of(included, "matches") is IncludedRouter.matches  # type: ignore[union-attr]
        and function_of(included.original_router, "matches") is APIRouter.matches
        and has_stock_handle(included.original_router)
    )


def has_stock_handle(route: Any) -> bool:
    """Return whether a route or included router handles requests with Starlette's or FastAPI's own code."""
    return _is_stock_method(_HANDLING, "handle", function_of(route, "handle"))


def has_stock_call(app: Starlette | Router) -> bool:
    """Return whether an app or router has Starlette's or FastAPI's ``__call__``, which runs its middleware first."""
    # Python looks `__call__` up on the class only.
    return _is_stock_method(_APPS if isinstance(app, Starlette) else _ROUTERS, "__call__", type(app).__call__)


def has_stock_app(router: Router) -> bool:
    """Return whether a router runs Starlette's or FastAPI's own code after its middleware."""
    return _is_stock_method(_ROUTERS, "app", function_of(router, "app"))


def _is_stock_method(classes: tuple[type[Any], ...], method: str, function: Any) -> bool:
    """Return whether a function is currently the method of one of these classes.

    Instrumentation may replace methods of Starlette's and FastAPI's classes with wrappers at any time.
    """
    for each in classes:  # noqa: SIM110 - `any` takes twice as long
        if getattr(each, method) == function:
            return True
    return False


_APPS = (FastAPI, Starlette)
_ROUTERS = (APIRouter, Router)
_HANDLING = (APIRoute, Route, Mount, Host, *([APIRouter] if hasattr(APIRouter, "handle") else []))  # FastAPI >= 0.137


def function_of(carrier: Any, method: str) -> Any:
    """Return the function of a bound method, or ``None`` if the attribute is anything else."""
    # Not `vars()`: Python 3.11 reads the attributes of an object more slowly once its dict was requested.
    return getattr(getattr(carrier, method, None), "__func__", None)
