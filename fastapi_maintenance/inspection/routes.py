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
from ..routing.compat import DISPATCHED_METHODS, OF_ONE_SEGMENT, is_included
from ..routing.marks import mark_of
from ..routing.walk import calls


class Operation(NamedTuple):
    """A path and its methods, as an app's OpenAPI schema describes them."""

    path: str
    """With the names of its parameters: ``/items/{item_id}``."""
    deep: frozenset[str]
    """The parameters that may span several segments, or none: ``{p:path}``, and what a convertor of the app's is."""
    methods: frozenset[str]
    mark: Mark | None
    dependencies: tuple[Any, ...]
    """What is called for them, at any depth."""


def operations_of(app: FastAPI) -> Iterator[Operation]:
    """Yield what an app's OpenAPI schema describes, in the router's order.

    FastAPI builds included routers for it, as it does for the schema; so this is for when somebody asks for that.
    """
    for route in app.router.routes:
        of_router = is_included(route)
        described: Any
        for described in route.effective_route_contexts() if of_router else (route,):  # type: ignore[attr-defined]
            if isinstance(getattr(described, "original_route", described), APIRoute) and described.include_in_schema:
                yield Operation(
                    described.path_format,
                    frozenset(
                        name for name, one in described.param_convertors.items() if type(one) not in OF_ONE_SEGMENT
                    ),
                    frozenset(described.methods),
                    mark_of(described.endpoint) or mark_of(app),
                    tuple(calls(described.dependant)),
                )


class Declared(NamedTuple):
    """A route as it was declared, and a request that would come to it if no other route were before it."""

    path: str
    """With the names of its parameters, and with the path of what it is mounted in: ``/shop/items/{item_id}``."""
    methods: tuple[str, ...] | None
    """Of HTTP, in order, ``*`` where the route has no say in it; ``None`` for a websocket."""
    example: Scope | None
    """The request, without its method; ``None`` where no path could be made up that fits."""
    endpoint: Any
    apps: tuple[Starlette, ...]
    """The apps on the way to it, outermost first."""


def declared_in(app: ASGIApp) -> Iterator[Declared]:
    """Yield the routes that an app leads to, in the routers' order, those of mounted apps included.

    Frontends are left out: they take what no route does. As for ``operations_of``, included routers are built for it.
    """
    scope: Scope = {"path": "", "root_path": "", "headers": [], "query_string": b"", "client": None, "scheme": "http"}
    return _declared(app, "", scope, ())


def _declared(app: Any, prefix: str, scope: Scope | None, apps: tuple[Starlette, ...]) -> Iterator[Declared]:
    root = root_of(app)
    if root is None:
        yield Declared(f"{prefix}/*", ("*",), _with_path(scope, "/-"), app, apps)
        return
    if isinstance(root, Starlette):
        apps = (*apps, root)
    for route in root.routes:
        of_router = is_included(route)
        one: Any
        for one in route.effective_route_contexts() if of_router else (route,):  # type: ignore[attr-defined]
            described = getattr(one, "starlette_route", None) or one
            if isinstance(described, Host):
                host = _example(described.host_format, described.param_convertors)
                inner: Scope | None = None
                if scope is not None and host is not None:
                    inner = {**scope, "headers": [(b"host", host.encode())]}
                yield from _declared(mounted_app(described), f"{described.host}{prefix}", inner, apps)
            elif isinstance(described, Mount):
                path = _example(described.path_format.removesuffix("/{path}"), described.param_convertors)
                inner = _with_path(scope, path)
                yield from _declared(mounted_app(described), prefix + described.path, inner, apps)
            elif hasattr(described, "path_format"):
                path = _example(described.path_format, described.param_convertors)
                original = getattr(one, "original_route", described)
                yield Declared(
                    prefix + described.path_format,
                    None if isinstance(original, WebSocketRoute) else _methods(described),
                    _with_path(scope, path),
                    described.endpoint,
                    apps,
                )
            else:  # a user's own kind, whose `matches` alone knows
                yield Declared(f"{prefix}/<{type(described).__name__}>", ("*",), None, described, apps)


def _methods(route: Any) -> tuple[str, ...]:
    """Return a route's methods; HEAD goes with GET, and need not be told."""
    endpoint = route.endpoint
    if route.methods is None and isinstance(endpoint, type) and issubclass(endpoint, HTTPEndpoint):
        return tuple(sorted(method for method in DISPATCHED_METHODS if hasattr(endpoint, method.lower())))
    methods = sorted(route.methods or ("*",))
    return tuple(method for method in methods if method != "HEAD" or "GET" not in methods)


def _with_path(scope: Scope | None, path: str | None) -> Scope | None:
    return None if scope is None or path is None else {**scope, "path": scope["path"] + path}


_VALUES = ("1", "a", "00000000-0000-0000-0000-000000000000", "2000-01-01")
"""What a parameter may be: the first that fits."""


def _example(template: str, convertors: Mapping[str, Any]) -> str | None:
    """Return a path that fits a template, or ``None`` if none could be made up."""
    for name, convertor in convertors.items():
        if f"{{{name}}}" in template:
            value = next((value for value in _VALUES if re.fullmatch(convertor.regex, value)), None)
            if value is None:
                return None
            template = template.replace(f"{{{name}}}", value)
    return template
