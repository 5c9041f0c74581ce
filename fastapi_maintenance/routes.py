"""What the router would run for a request: the only reader of Starlette's and FastAPI's route tree.

The tree is asked the way the router itself asks it, route by route, in the router's own order and on a private copy
of the scope, so the answer is the router's own; an index leaves out those that can't match. Nothing is matched before
the first request, nor in another order: matching an included router makes FastAPI cache its routes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import CellType, FunctionType, MethodType
from typing import Any, NamedTuple

import fastapi.routing as fastapi_routing
from fastapi.applications import FastAPI  # not `fastapi.FastAPI`, which instrumentation replaces by a subclass
from fastapi.routing import APIRoute, APIRouter
from starlette.applications import Starlette
from starlette.convertors import FloatConvertor, IntegerConvertor, StringConvertor, UUIDConvertor
from starlette.endpoints import HTTPEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from .decorators import mark_of
from .exceptions import UnsupportedFastAPI
from .policy import Mark
from .route_index import (
    UNSURE,
    has_stock_app,
    has_stock_call,
    has_stock_handle,
    index_of,
    is_included,
    is_like_stock,
    route_path,
)
from .wrappers import reads_app

# FastAPI >= 0.138 has frontends.
_FrontendRouteGroup: type[Any] | None = getattr(fastapi_routing, "_FrontendRouteGroup", None)
_FASTAPI_SCOPE_KEY = "fastapi"
"""Where FastAPI keeps its own dict within the scope; matching writes to it."""


class Entry(NamedTuple):
    """A router on the way to what would run, and how the request came to it."""

    router: Router
    root_path: str
    mark: Mark | None
    """The innermost mark outside this router."""
    app: Any
    """The app that is answering there, where it is known."""


@dataclass(frozen=True, slots=True)
class Target:
    """What the router would run for one request."""

    runs: bool
    """Whether application code would run: not for 404, 405 and slash redirects."""
    endpoint: Any = None
    """The function, class or ASGI app that would run, where it is known."""
    mark: Mark | None = None
    """The innermost mark on the way: endpoint over class, endpoint over mounted app."""
    docs: bool = False
    """Whether it is one of a FastAPI app's own pages: docs, ReDoc, schema, OAuth2 redirect."""
    entries: tuple[Entry, ...] = ()
    """The routers on the way, outermost first."""
    route: str | None = None
    """The path of the route as it was declared, with the prefixes of mounts, where it is known."""
    dependencies: tuple[Any, ...] = ()
    """What FastAPI calls before the endpoint, at any depth; only if it was asked for."""
    failure: Exception | None = None
    """What matching raised, if it did: then something may run, and nothing is known of it."""
    before_code: int | None = None
    """How many of ``entries`` come before any code but that of routers and middleware; ``None``: all of them."""
    handed_to: Any = None
    """The ASGI app that the last of those routers calls, with the middleware of the route or mount around it."""

    @property
    def routers_before_code(self) -> list[Router]:
        """The routers at whose entrances only middleware has run before. A preflight's exemption ends at the last."""
        return [entry.router for entry in self.entries[: self.before_code]]


def resolve(app: ASGIApp, scope: Scope, *, mark: Mark | None = None, with_dependencies: bool = False) -> Target:
    """Return what ``app`` would run for this request; the scope stays untouched.

    ``app`` is a router, an app, or anything that leads to one by ``.app``; what leads to none is an opaque ASGI app,
    which is an endpoint. ``mark`` is the innermost mark outside of ``app``.

    Matching may raise, where a convertor does. The router will raise the same, so nothing opens by assuming that
    something runs.

    Raises:
        UnsupportedFastAPI: The tree holds a FastAPI-internal route of an unknown kind.
    """
    walk = _Walk(_private_copy(scope), mark, with_dependencies=with_dependencies)
    try:
        target = walk.app(app)
    except UnsupportedFastAPI:
        raise
    except Exception as error:  # noqa: BLE001 - it is the user's, and told in the answer
        target = Target(runs=True, entries=tuple(walk.entries), failure=error)
    return walk.ended(target)


def root_of(app: ASGIApp | None) -> Router | Starlette | None:
    """Return the router or app that ``app`` leads to, or ``None``."""
    for step in steps_of(app):
        if isinstance(step, (Router, Starlette)):
            return step
    return None


def router_of(app: Starlette) -> Router:
    """Return the router that an app's requests come to: that of its middleware stack, once this is built."""
    behind = () if app.middleware_stack is None else steps_of(app.middleware_stack)
    return next((step for step in behind if isinstance(step, Router)), app.router)


def declared_path(scope: Scope) -> str | None:
    """Return the path, as it was declared, of the route that the router has come to; with the mounts before it."""
    route = scope.get("route")
    context = scope.get(_FASTAPI_SCOPE_KEY, {}).get("effective_route_context")
    # It stays there when the way goes on into what is mounted.
    if context is not None and (context.original_route is route or is_included(route)):
        route = getattr(context, "starlette_route", None) or context
    path = getattr(route, "path", None)
    if not isinstance(path, str):
        return None
    root_path: str = scope.get("root_path", "")
    return root_path.removeprefix(scope.get("app_root_path", root_path)) + path


def routers_of(app: ASGIApp) -> Iterator[Router]:
    """Yield the routers that an app leads to, outermost first, by reading lists alone: that leaves no traces."""
    seen: set[int] = set()
    apps = [app]
    while apps:
        root = root_of(apps.pop())
        router = router_of(root) if isinstance(root, Starlette) else root
        if router is None or id(router) in seen:
            continue
        seen.add(id(router))
        yield router
        apps.append(router.default)
        for route in router.routes:
            if isinstance(route, (Mount, Host)):
                apps.append(_mounted_app(route))
            elif is_included(route):
                apps.append(route.original_router)  # type: ignore[attr-defined]
            elif not isinstance(route, APIRoute):
                apps.append(getattr(route, "app", None))  # type: ignore[arg-type]


def cors_of(app: Any) -> CORSMiddleware | None:
    """Return Starlette's own ``CORSMiddleware`` around an endpoint: it calls nothing for a preflight."""
    for step in steps_of(app):
        if isinstance(step, (Router, Starlette)):
            break
        if type(step) is CORSMiddleware:
            return step
    return None


def wrap_innermost(router: Router, wrap: Callable[[ASGIApp], ASGIApp]) -> bool:
    """Put something between a router's own middleware and the router; return whether that middleware lets us."""
    for step in steps_of(router.middleware_stack, _kept):
        if step is router:
            break  # it has none
        inner = _kept(step)
        if isinstance(inner, MethodType) and inner.__self__ is router:
            if isinstance(step, FunctionType):
                _cell_of_app(step).cell_contents = wrap(inner)
            else:
                step.app = wrap(inner)
            return True
    return False


def steps_of(app: Any, inner_of: Callable[[Any], Any] | None = None) -> Iterator[Any]:
    """Yield ``app`` and what it wraps, outermost first. A router or Starlette app ends the way.

    ``inner_of`` returns what one step wraps; by default what its code is seen to call.
    """
    seen: set[int] = set()
    while app is not None and id(app) not in seen:
        seen.add(id(app))
        yield app
        app = (inner_of or _wrapped)(app)


def _wrapped(app: Any) -> Any:
    """Return the ASGI app that a middleware calls: an ``.app`` that its own code never reads is none."""
    inner = _kept(app)
    if inner is None or isinstance(app, (FunctionType, MethodType)) or reads_app(type(app)):
        return inner
    return None


def _kept(app: Any) -> Any:
    """Return the ASGI app that a middleware keeps: its ``.app``, or a closure's variable ``app``.

    A router's own middleware ends at the bound method ``router.app``, which leads to the router.
    """
    if isinstance(app, MethodType):
        owner = app.__self__
        return owner if isinstance(owner, Router) and getattr(app, "__name__", "") in ("app", "__call__") else None
    if not isinstance(app, FunctionType):
        return getattr(app, "app", None)
    try:
        return _cell_of_app(app).cell_contents
    except ValueError:  # no such variable, or none yet
        return None


def _bypasses_entrance(app: Any, around: Any) -> bool:
    """Return whether ``app`` is the bound method ``router.app`` and ``around`` is not that router's entrance."""
    return (
        isinstance(app, MethodType) and getattr(app, "__name__", "") == "app" and not hasattr(around, "is_innermost")
    )


def _cell_of_app(closure: FunctionType) -> CellType:
    """Return where a closure keeps its variable ``app``, or raise ``ValueError``."""
    return (closure.__closure__ or ())[closure.__code__.co_freevars.index("app")]


class _Walk:
    """One way down the tree: the private scope, and the innermost mark and the routers so far."""

    def __init__(self, scope: Scope, mark: Mark | None, *, with_dependencies: bool) -> None:
        self.scope = scope
        self.with_dependencies = with_dependencies
        self.mark = mark
        self.overriding: list[tuple[Any, Mark | None]] = []
        """The apps and routers so far that do something else than Starlette's and FastAPI's own, with their marks."""
        self.code_begins: tuple[int, Any] | None = None
        """``before_code`` and ``handed_to``, as they were when ``begin_code`` was first called."""
        self.entries: list[Entry] = []
        self.handed_to: Any = None
        self.prefix = ""
        """The paths of the mounts so far."""

    def app(self, app: ASGIApp, handed_to: Any = None) -> Target:
        """Enter an ASGI app, which may stand within ``handed_to``."""
        self.handed_to = handed_to or app
        around: Any = None
        for step in steps_of(app):
            self.note_mark(step)
            if _bypasses_entrance(step, around):
                self.begin_code()
            around = step
            if isinstance(step, Starlette):
                if isinstance(step, FastAPI) and step.root_path:
                    self.scope["root_path"] = step.root_path  # as FastAPI.__call__ does
                self.scope["app"] = step
                if not has_stock_call(step):
                    self.note_overriding(step)
                return self.router(router_of(step))
            if isinstance(step, Router):
                return self.router(step)
        return self.target(app)

    def router(self, router: Router) -> Target:
        """Enter a router: the first full match, else the first partial one, else what is behind the routes."""
        if not has_stock_call(router):
            self.note_overriding(router)
        self.entries.append(Entry(router, self.scope.get("root_path", ""), self.mark, self.scope.get("app")))
        self.handed_to = None
        if not has_stock_app(router):
            self.note_overriding(router)
        matched = self.select(router)
        return self.behind(router) if matched is None else self.route(matched)

    def select(self, router: Router) -> _Matched | None:
        """Return the route that a router selects, or ``None``."""
        found = index_of(router).find(self.scope)
        if found is UNSURE:
            return self.ask_each(router)
        if found is None:
            return None
        leaf = found.leaf
        for outer in leaf.routers[:-1]:
            self.note_mark(outer)
        return _Matched(found.match, found.child_scope, leaf.route, leaf.context, leaf.routers[-1])

    def ask_each(self, router: Router) -> _Matched | None:
        """Return the route that a router selects, or ``None``, by asking one after the other."""
        partial: _Matched | None = None
        for route in router.routes:
            matched = self.match(route, router)
            if matched.match is Match.FULL:
                return matched
            if matched.match is Match.PARTIAL and partial is None:
                partial = matched
        return partial

    def behind(self, router: Router) -> Target:
        """Enter what a router has behind its routes: a slash redirect, the frontends, the default app."""
        has_frontends = index_of(router).has_frontends()
        if not has_frontends and has_stock_default(router):
            return self.nothing()  # a redirect or 404: no code of the application either way
        if self.redirects(router):
            return self.nothing()
        if has_frontends:
            match, child_scope, route, context = router._match_low_priority(self.scope)  # type: ignore[attr-defined]
            matched = _Matched(match, child_scope, route, context, router)
            if matched.match is not Match.NONE:
                return self.route(matched)
        return self.default(router)

    def redirects(self, router: Router) -> bool:
        """Return whether the router would answer with a redirect to the path with, or without, the slash."""
        if self.scope["type"] != "http" or not router.redirect_slashes:
            return False
        root_path = self.scope.get("root_path", "")
        if route_path(self.scope["path"], root_path) == "/":
            return False
        path = self.scope["path"]
        with_other_slash = _private_copy(self.scope)
        # Like the router: it looks at the routed path's end, and changes the whole path's.
        ends_with_slash = route_path(path, root_path).endswith("/")
        with_other_slash["path"] = path.rstrip("/") if ends_with_slash else path + "/"
        found = index_of(router).find(with_other_slash, first_match=True)
        if found is UNSURE:
            return any(route.matches(with_other_slash)[0] is not Match.NONE for route in router.routes)
        return found is not None

    def match(self, route: BaseRoute, router: Router) -> _Matched:
        """Ask one route of ``router`` whether it matches."""
        if is_included(route) and is_like_stock(route):
            # `matches()` asks the same, and throws away all but the first part of the answer.
            return self.match_included(route)
        match, child_scope = route.matches(self.scope)
        return _Matched(match, child_scope, route, None, router)

    def match_included(self, included: Any) -> _Matched:
        """Ask an included router, as FastAPI does, for its best candidate."""
        match, child_scope, route, context = included._match(self.scope)
        return _Matched(match, child_scope, route, context, included.original_router)

    def route(self, matched: _Matched) -> Target:
        """Enter a selected route as its ``handle`` would."""
        match, child_scope, route, context, router = matched
        _update(self.scope, child_scope)
        self.note_mark(router)
        if is_included(route):
            return self.included(route)
        original = route if context is None else context.original_route
        self.note_mark(original)
        if _FrontendRouteGroup is not None and isinstance(original, _FrontendRouteGroup):
            return self.target(original) if match is Match.FULL else self.nothing()
        if isinstance(route, (Mount, Host)) and has_stock_handle(route):
            return self.mounted(route)
        if isinstance(route, Route):
            return self.http_route(route, context, router)
        if not isinstance(route, WebSocketRoute) and type(route).__module__.startswith("fastapi."):
            raise UnsupportedFastAPI(f"it has routes of an unknown kind, {type(route).__qualname__}")
        # A websocket route, or a user's own kind of route: its `handle` runs, whatever the match.
        endpoint = child_scope.get("endpoint")
        self.note_mark(endpoint)
        return self.target(endpoint, route)

    def mounted(self, route: Mount | Host) -> Target:
        """Enter what is mounted; a mount knows it also where its middleware hides it."""
        self.prefix += getattr(route, "path", "")
        app = _mounted_app(route)
        if app is not route.app:
            for step in steps_of(route.app):
                self.note_mark(step)
        return self.app(app, route.app)

    def included(self, included: Any) -> Target:
        """Enter an included router: its best candidate, which may be a router included into it."""
        matched = self.match_included(included)
        # Where none matches, a user's own `matches` claimed the request.
        target = self.default(matched.router) if matched.match is Match.NONE else self.route(matched)
        # A user's own `handle` may run something where the routes would not.
        return target if target.runs or has_stock_handle(matched.router) else self.target(matched.router)

    def default(self, router: Router) -> Target:
        """Enter the app that a router calls when it has nothing for the request: a 404, unless it was replaced."""
        return self.nothing() if has_stock_default(router) else self.app(router.default)

    def http_route(self, route: Route, context: Any, router: Router) -> Target:
        """Enter an HTTP route: its endpoint runs unless its ``handle`` answers 405."""
        described = context if context is not None and isinstance(route, APIRoute) else route
        method = self.scope["method"]
        answers_405_itself = has_stock_handle(route)
        if answers_405_itself and described.methods and method not in described.methods:
            return self.nothing()
        endpoint = described.endpoint
        self.handed_to = route.app if answers_405_itself else None
        if not isinstance(route, APIRoute):
            if isinstance(endpoint, type) and issubclass(endpoint, HTTPEndpoint):
                return self.http_endpoint(endpoint, method, described, is_all=answers_405_itself)
            if root_of(route.app) is not None:
                # An index tells no parameters, which may matter further in.
                _update(self.scope, route.matches(self.scope)[1])
                return self.app(route.app)
        self.note_mark(endpoint)
        return self.target(endpoint, described, docs=self.is_docs(described, router))

    def http_endpoint(self, endpoint: type[HTTPEndpoint], method: str, route: Any, *, is_all: bool) -> Target:
        """Enter a class with a method per HTTP method; HEAD falls back to ``get``.

        ``is_all`` says that nothing of the application runs before it.
        """
        self.note_mark(endpoint)
        name = "get" if method == "HEAD" and not hasattr(endpoint, "head") else method.lower()
        handler = getattr(endpoint, name, None)
        has_none = handler is None or (_DISPATCH_KNOWS_ITS_METHODS and method not in _DISPATCHED_METHODS)
        if has_none and is_all and _has_stock_dispatch(endpoint):
            return self.nothing()  # its `method_not_allowed` answers 405
        self.note_mark(handler)
        return self.target(endpoint, route)

    def is_docs(self, route: Any, router: Router) -> bool:
        """Return whether a route is one of the FastAPI app's own pages, at the URL that the app has for it."""
        app = self.scope.get("app")
        return (
            isinstance(app, FastAPI)
            and app.router is router
            and self.scope["method"] in ("GET", "HEAD")
            and route.path in (app.openapi_url, app.docs_url, app.redoc_url, app.swagger_ui_oauth2_redirect_url)
            # A route of the user's own may stand before it.
            and getattr(route.endpoint, "__module__", None) == FastAPI.__module__
        )

    def note_mark(self, carrier: Any) -> None:
        """Take over the mark of something further in, if it has one."""
        self.mark = mark_of(carrier) or self.mark

    def note_overriding(self, app: Starlette | Router) -> None:
        """Take note that an app or router runs code of its own before its routes, or in their place."""
        self.note_mark(app)
        self.overriding.append((app, self.mark))
        self.begin_code()

    def begin_code(self) -> None:
        """Take note that from here on, a request may come to code before it comes to another router's entrance."""
        self.code_begins = self.code_begins or (len(self.entries), self.handed_to)

    def ended(self, target: Target) -> Target:
        """Return the target, with all that was noted on the way to it."""
        if self.overriding:
            target = self.with_overriding(target)
        if self.code_begins is None:
            return target
        before_code, handed_to = self.code_begins
        return replace(target, before_code=before_code, handed_to=handed_to)

    def with_overriding(self, target: Target) -> Target:
        """Return the target of a way on which overriding apps and routers run, too: their strictest mark applies."""
        marks = [mark for _, mark in self.overriding] + ([target.mark] if target.runs else [])
        mark = Mark.ON if Mark.ON in marks else None if None in marks else Mark.OFF
        endpoint = target.endpoint if target.runs else self.overriding[-1][0]
        return replace(target, runs=True, endpoint=endpoint, mark=mark, docs=False)

    def target(self, endpoint: Any, route: Any = None, *, docs: bool = False) -> Target:
        """Return the end of a way on which something runs."""
        path = self.prefix + getattr(route, "path", "") or None
        dependant = getattr(route, "dependant", None) if self.with_dependencies else None
        dependencies = () if dependant is None else tuple(_calls(dependant))
        entries = tuple(self.entries)
        return Target(True, endpoint, self.mark, docs, entries, path, dependencies, handed_to=self.handed_to)

    def nothing(self) -> Target:
        """Return the end of a way on which no application code runs."""
        return Target(False, entries=tuple(self.entries))


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


_OF_ONE_SEGMENT = (StringConvertor, IntegerConvertor, FloatConvertor, UUIDConvertor)


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
                        name for name, one in described.param_convertors.items() if type(one) not in _OF_ONE_SEGMENT
                    ),
                    frozenset(described.methods),
                    mark_of(described.endpoint) or mark_of(app),
                    tuple(_calls(described.dependant)),
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
                yield from _declared(_mounted_app(described), f"{described.host}{prefix}", inner, apps)
            elif isinstance(described, Mount):
                path = _example(described.path_format.removesuffix("/{path}"), described.param_convertors)
                inner = _with_path(scope, path)
                yield from _declared(_mounted_app(described), prefix + described.path, inner, apps)
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


def _mounted_app(route: Mount | Host) -> Any:
    """Return what is mounted; a mount knows it also where its middleware hides it."""
    hidden = getattr(route, "_base_app", None)
    return hidden if hidden is not None and root_of(route.app) is None else route.app


def _methods(route: Any) -> tuple[str, ...]:
    """Return a route's methods; HEAD goes with GET, and need not be told."""
    endpoint = route.endpoint
    if route.methods is None and isinstance(endpoint, type) and issubclass(endpoint, HTTPEndpoint):
        return tuple(sorted(method for method in _DISPATCHED_METHODS if hasattr(endpoint, method.lower())))
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


def _calls(dependant: Any) -> Iterator[Any]:
    for dependency in dependant.dependencies:
        yield dependency.call
        yield from _calls(dependency)


class _Matched(NamedTuple):
    """A route that matched, as FastAPI's ``_match`` tells it."""

    match: Match
    child_scope: Scope
    route: Any
    context: Any
    """How FastAPI >= 0.137 sees a route from the place where it is included, else ``None``."""
    router: Router
    """The router that has the route."""


def _private_copy(scope: Scope) -> Scope:
    """Return a copy of a scope that matching may write to."""
    view = dict(scope)
    if isinstance(view.get(_FASTAPI_SCOPE_KEY), dict):
        view[_FASTAPI_SCOPE_KEY] = dict(view[_FASTAPI_SCOPE_KEY])
    return view


def _update(view: Scope, child_scope: Scope) -> None:
    """Take over what matching found, as FastAPI's router does: its own dict is merged, not replaced."""
    mine = view.get(_FASTAPI_SCOPE_KEY)
    view.update(child_scope)
    if isinstance(mine, dict) and _FASTAPI_SCOPE_KEY in child_scope:
        view[_FASTAPI_SCOPE_KEY] = {**mine, **child_scope[_FASTAPI_SCOPE_KEY]}


def has_stock_default(router: Router) -> bool:
    """Return whether a router answers 404 to what it has nothing for."""
    return getattr(router.default, "__func__", None) is Router.not_found


def _has_stock_dispatch(endpoint: type[HTTPEndpoint]) -> bool:
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
_DISPATCH_KNOWS_ITS_METHODS = "_allowed_methods" in HTTPEndpoint.dispatch.__code__.co_names
_DISPATCHED_METHODS = frozenset(
    _EveryMethod({"type": "http"}, None, None)._allowed_methods,  # type: ignore[arg-type]
)


@functools.cache
def check_fastapi() -> None:
    """Make sure that this FastAPI's router can be read, by reading one whose answers are known.

    Raises:
        UnsupportedFastAPI: An answer is wrong, or something that is needed is gone.
    """
    app, expected = _known_app()
    for (method, path), endpoint in expected.items():
        scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}
        target = resolve(app, scope)
        if target.failure is not None:
            raise UnsupportedFastAPI(f"{method} {path} of a known app raises {target.failure!r}") from target.failure
        if (target.endpoint if target.runs else None) is not endpoint:
            raise UnsupportedFastAPI(f"{method} {path} of a known app leads to {target.endpoint!r}")


def _known_app() -> tuple[FastAPI, dict[tuple[str, str], Any]]:
    """Return an app with a route of each kind that FastAPI has, and what its router would run."""

    def endpoint() -> None: ...  # pragma: no cover - only looked up

    async def mounted(scope: Scope, receive: Receive, send: Send) -> None: ...  # pragma: no cover - the same

    app, outer, inner = FastAPI(openapi_url=None), APIRouter(prefix="/outer"), APIRouter()
    inner.get("/{item}")(endpoint)
    outer.include_router(inner, prefix="/inner")
    inner_mount = FastAPI(openapi_url=None)
    inner_mount.get("/page")(endpoint)
    app.include_router(outer)
    app.get("/direct")(endpoint)
    app.mount("/app", inner_mount)
    app.mount("/opaque", mounted)
    expected: dict[tuple[str, str], Any] = {
        ("GET", "/direct"): endpoint,
        ("POST", "/direct"): None,
        ("GET", "/outer/inner/1"): endpoint,
        ("POST", "/outer/inner/1"): None,
        ("GET", "/outer/inner/1/"): None,
        ("GET", "/outer/1"): None,
        ("GET", "/app/page"): endpoint,
        ("GET", "/app/none"): None,
        ("GET", "/opaque/any"): mounted,
        ("GET", "/none"): None,
    }
    if _FrontendRouteGroup is not None or hasattr(app, "frontend"):
        outer.frontend("/site", directory=".", check_dir=False)
        outer_frontend = outer._frontend_routes
        expected |= {("GET", "/outer/site/any"): outer_frontend, ("POST", "/outer/site/any"): None}
    return app, expected
