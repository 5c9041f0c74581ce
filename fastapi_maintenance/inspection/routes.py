"""The operations and routes that an app declares."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from fastapi.applications import FastAPI
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.routing import Host, Mount, WebSocketRoute
from starlette.types import ASGIApp, Scope

from ..model.decision import Mark
from ..routing.apps import mounted_app, root_of
from ..routing.compat import DISPATCHED_METHODS, ONE_SEGMENT_CONVERTORS, is_included
from ..routing.marks import mark_of
from ..routing.walk import dependency_calls_of


class Operation(NamedTuple):
    """A path and its methods, as an app's OpenAPI schema describes them."""

    path: str
    """The path with parameter names: ``/items/{item_id}``."""
    deep: frozenset[str]
    """The parameters that may span any number of segments: ``{p:path}`` and those with custom convertors."""
    methods: frozenset[str]
    mark: Mark | None
    dependencies: tuple[Any, ...]
    """The callables of its dependencies, at any depth."""


def operations_of(app: FastAPI) -> Iterator[Operation]:
    """Yield the operations that an app's OpenAPI schema describes, in the router's order.

    This makes FastAPI build included routers, as reading the schema does.
    """
    for route in app.router.routes:
        of_router = is_included(route)
        described: Any
        for described in route.effective_route_contexts() if of_router else (route,):  # type: ignore[attr-defined]
            if isinstance(getattr(described, "original_route", described), APIRoute) and described.include_in_schema:
                yield Operation(
                    described.path_format,
                    frozenset(
                        name
                        for name, one in described.param_convertors.items()
                        if type(one) not in ONE_SEGMENT_CONVERTORS
                    ),
                    frozenset(described.methods),
                    mark_of(described.endpoint) or mark_of(app),
                    tuple(dependency_calls_of(described.dependant)),
                )


class Declared(NamedTuple):
    """A route as declared, with an example request that reaches it unless another route precedes it."""

    path: str
    """The path with parameter names and mount prefixes: ``/shop/items/{item_id}``."""
    methods: tuple[str, ...] | None
    """The HTTP methods, sorted; ``*`` if the route accepts any; ``None`` for a WebSocket."""
    example: Scope | None
    """The scope of the request, without a method; ``None`` if no example path fits."""
    endpoint: Any
    apps: tuple[Starlette, ...]
    """The apps on the way to it, outermost first."""


def declared_in(app: ASGIApp) -> Iterator[Declared]:
    """Yield the routes that an app leads to, in the routers' order, including those of mounted apps.

    Frontends are left out: they handle only requests that match no route. This makes FastAPI build included routers.
    """
    scope: Scope = {"path": "", "root_path": "", "headers": [], "query_string": b"", "client": None, "scheme": "http"}
    return _walk_declared(app, "", scope, ())


def _walk_declared(app: Any, prefix: str, scope: Scope | None, apps: tuple[Starlette, ...]) -> Iterator[Declared]:
    root = root_of(app)
    if root is None:
        yield Declared(f"{prefix}/*", ("*",), _append_path(scope, "/-"), app, apps)
        return
    if isinstance(root, Starlette):
        apps = (*apps, root)
    for route in root.routes:
        of_router = is_included(route)
        one: Any
        for one in route.effective_route_contexts() if of_router else (route,):  # type: ignore[attr-defined]
            described = getattr(one, "starlette_route", None) or one
            if isinstance(described, Host):
                host = _example_path_of(described.host_format, described.param_convertors)
                inner: Scope | None = None
                if scope is not None and host is not None:
                    inner = {**scope, "headers": [(b"host", host.encode())]}
                yield from _walk_declared(mounted_app(described), f"{described.host}{prefix}", inner, apps)
            elif isinstance(described, Mount):
                path = _example_path_of(described.path_format.removesuffix("/{path}"), described.param_convertors)
                inner = _append_path(scope, path)
                yield from _walk_declared(mounted_app(described), prefix + described.path, inner, apps)
            elif hasattr(described, "path_format"):
                path = _example_path_of(described.path_format, described.param_convertors)
                original = getattr(one, "original_route", described)
                yield Declared(
                    prefix + described.path_format,
                    None if isinstance(original, WebSocketRoute) else _methods_of(described),
                    _append_path(scope, path),
                    described.endpoint,
                    apps,
                )
            else:  # a user's own kind, whose `matches` alone determines the path
                yield Declared(f"{prefix}/<{type(described).__name__}>", ("*",), None, described, apps)


def _methods_of(route: Any) -> tuple[str, ...]:
    """Return a route's methods, without HEAD if GET is among them."""
    endpoint = route.endpoint
    if route.methods is None and isinstance(endpoint, type) and issubclass(endpoint, HTTPEndpoint):
        return tuple(sorted(method for method in DISPATCHED_METHODS if hasattr(endpoint, method.lower())))
    methods = sorted(route.methods or ("*",))
    return tuple(method for method in methods if method != "HEAD" or "GET" not in methods)


def _append_path(scope: Scope | None, path: str | None) -> Scope | None:
    return None if scope is None or path is None else {**scope, "path": scope["path"] + path}


_VALUES = ("1", "a", "00000000-0000-0000-0000-000000000000", "2000-01-01")
"""Example values for a parameter; the first that fits is used."""


def _example_path_of(template: str, convertors: Mapping[str, Any]) -> str | None:
    """Return an example path for a template, or ``None`` if no example value fits."""
    for name, convertor in convertors.items():
        if f"{{{name}}}" in template:
            value = next((value for value in _VALUES if re.fullmatch(convertor.regex, value)), None)
            if value is None:
                return None
            template = template.replace(f"{{{name}}}", value)
    return template
