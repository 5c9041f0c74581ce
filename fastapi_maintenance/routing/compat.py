"""Everything that depends on the version of FastAPI or Starlette, and every private name of theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import fastapi.routing
import fastapi.routing as fastapi_routing
from fastapi.applications import FastAPI
from fastapi.routing import APIRoute, APIRouter, APIWebSocketRoute
from starlette.applications import Starlette
from starlette.convertors import FloatConvertor, IntegerConvertor, StringConvertor, UUIDConvertor
from starlette.endpoints import HTTPEndpoint
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute

FASTAPI_SCOPE_KEY = "fastapi"
"""Where FastAPI keeps its own dict within the scope; matching writes to it."""


OF_ONE_SEGMENT = (StringConvertor, IntegerConvertor, FloatConvertor, UUIDConvertor)


def has_stock_default(router: Router) -> bool:
    """Return whether a router answers 404 to what it has nothing for."""
    return getattr(router.default, "__func__", None) is Router.not_found


def has_stock_dispatch(endpoint: type[HTTPEndpoint]) -> bool:
    return type(endpoint).__call__ is type.__call__ and all(
        getattr(endpoint, name, None) is getattr(HTTPEndpoint, name, None) for name in _DECIDES_WHAT_AN_ENDPOINT_RUNS
    )


_DECIDES_WHAT_AN_ENDPOINT_RUNS = (
    *("__new__", "__init__", "__await__", "__getattribute__", "__getattr__", "dispatch", "method_not_allowed"),
)


class _EveryMethod(HTTPEndpoint):
    """An endpoint class that seems to have a handler for every method there is."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda: None


# Newer Starlettes dispatch only the methods of a list, older ones whatever the class has an attribute for.
DISPATCH_KNOWS_ITS_METHODS = "_allowed_methods" in HTTPEndpoint.dispatch.__code__.co_names
DISPATCHED_METHODS = frozenset(
    _EveryMethod({"type": "http"}, None, None)._allowed_methods,  # type: ignore[arg-type]
)

# FastAPI >= 0.137 keeps included routers as one route each; before, it copied their routes.
IncludedRouter: type[Any] | None = getattr(fastapi_routing, "_IncludedRouter", None)
Context: type[Any] | None = getattr(fastapi_routing, "_EffectiveRouteContext", None)
CAN_LOOK_INSIDE = (
    IncludedRouter is not None
    and {"_effective_candidates", "_effective_candidates_version"} <= {field.name for field in fields(IncludedRouter)}
    and hasattr(APIRouter, "_get_routes_version")
)


STOCK_MATCHES = {each.matches for each in (Route, WebSocketRoute, Mount, APIRoute, APIWebSocketRoute)}


def is_included(route: Any) -> bool:
    """Return whether a route is a router that FastAPI keeps as it was included."""
    return IncludedRouter is not None and isinstance(route, IncludedRouter)


def is_like_stock(included: Any) -> bool:
    """Return whether an included router matches and handles requests as FastAPI's own do."""
    return (
        function_of(included, "matches") is IncludedRouter.matches  # type: ignore[union-attr]
        and function_of(included.original_router, "matches") is APIRouter.matches
        and has_stock_handle(included.original_router)
    )


def has_stock_handle(route: Any) -> bool:
    """Return whether a route, or an included router, does with a request what Starlette's and FastAPI's own do."""
    return _is_of(_HANDLING, "handle", function_of(route, "handle"))


def has_stock_call(app: Starlette | Router) -> bool:
    """Return whether an app or router is called as Starlette's and FastAPI's own are: its middleware comes first."""
    # Of a call, Python asks the class alone.
    return _is_of(_APPS if isinstance(app, Starlette) else _ROUTERS, "__call__", type(app).__call__)


def has_stock_app(router: Router) -> bool:
    """Return whether behind its own middleware, a router does what Starlette's and FastAPI's own do."""
    return _is_of(_ROUTERS, "app", function_of(router, "app"))


def _is_of(classes: tuple[type[Any], ...], method: str, function: Any) -> bool:
    """Return whether a function is the method that one of these classes has now.

    Now, because instrumentation replaces methods of Starlette's and FastAPI's classes at any time, by wrappers.
    """
    for each in classes:  # noqa: SIM110 - `any` takes twice as long
        if getattr(each, method) == function:
            return True
    return False


_APPS = (FastAPI, Starlette)
_ROUTERS = (APIRouter, Router)
_HANDLING = (APIRoute, Route, Mount, Host, *([APIRouter] if hasattr(APIRouter, "handle") else []))  # FastAPI >= 0.137


def function_of(carrier: Any, method: str) -> Any:
    """Return the function behind a method, or ``None`` where something else was put in its place."""
    # Not `vars()`: Python 3.11 reads all attributes of an object more slowly once it was asked for its dict.
    return getattr(getattr(carrier, method, None), "__func__", None)


INCLUDED_ROUTERS_ARE_KEPT = hasattr(fastapi.routing, "_IncludedRouter")
