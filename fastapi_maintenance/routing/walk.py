"""Find the code that the router would run for a request, by walking Starlette's and FastAPI's route tree.

The walk asks routes as the router does, in the router's order and on a private copy of the scope, so the answer is the
router's own; an index skips routes that can't match. Nothing is matched before the first request, nor in another
order: matching an included router makes FastAPI cache its routes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import fastapi.routing as fastapi_routing
from fastapi.applications import FastAPI
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Scope

from ..exceptions import UnsupportedFastAPI
from ..model.decision import Mark
from .apps import mounted_app, root_of, router_of, steps_of
from .compat import (
    DISPATCH_KNOWS_ITS_METHODS,
    DISPATCHED_METHODS,
    FASTAPI_SCOPE_KEY,
    has_stock_app,
    has_stock_call,
    has_stock_default,
    has_stock_dispatch,
    has_stock_handle,
    is_included,
    is_like_stock,
)
from .entrance import bypasses_entrance
from .index import UNSURE, index_of, route_path
from .marks import mark_of, marked_anywhere

logger = logging.getLogger("fastapi_maintenance")

# FastAPI >= 0.138 has frontends.
FrontendRouteGroup: type[Any] | None = getattr(fastapi_routing, "_FrontendRouteGroup", None)


class Entry(NamedTuple):
    """A router on the way to the endpoint, with the state of the request there."""

    router: Router
    root_path: str
    mark: Mark | None
    """The innermost mark outside this router."""
    app: Any
    """The app of the scope there, or ``None``."""


@dataclass(frozen=True, slots=True)
class Target:
    """The code that the router would run for one request."""

    runs: bool
    """Whether application code would run: not for 404, 405 and slash redirects."""
    endpoint: Any = None
    """The function, class or ASGI app that would run, if known."""
    mark: Mark | None = None
    """The innermost mark on the way: an endpoint's overrides that of its class or mounted app."""
    docs: bool = False
    """Whether the endpoint is a FastAPI app's own page: docs, ReDoc, schema, OAuth2 redirect."""
    entries: tuple[Entry, ...] = ()
    """The routers on the way, outermost first."""
    route: str | None = None
    """The declared path of the route, with the prefixes of mounts, if known."""
    dependencies: tuple[Any, ...] = ()
    """The dependencies that FastAPI calls before the endpoint, at any depth; only ``with_dependencies``."""
    failure: Exception | None = None
    """The error that matching raised, if any: then unknown code may run."""
    before_code: int | None = None
    """The number of ``entries`` before any code other than routers and middleware; ``None`` for all."""
    handed_to: Any = None
    """The ASGI app that the last of these routers calls, inside the middleware of the route or mount."""

    @property
    def routers_before_code(self) -> list[Router]:
        """The routers before which only middleware runs. A preflight's exemption ends at the last of them."""
        return [entry.router for entry in self.entries[: self.before_code]]


def resolve(app: ASGIApp, scope: Scope, *, mark: Mark | None = None, with_dependencies: bool = False) -> Target:
    """Return the target of a request to ``app``; the scope stays unchanged.

    ``app`` is a router, an app, or middleware that leads to one by ``.app``; any other ASGI app is an endpoint.
    ``mark`` is the innermost mark outside ``app``.

    If matching raises, as a convertor may, the target has ``runs`` set and the error as ``failure``: the router will
    raise the same error, so this opens nothing.

    Raises:
        UnsupportedFastAPI: The tree holds a FastAPI-internal route of an unknown kind.
    """
    walk = _Walk(_copy_scope(scope), mark, with_dependencies=with_dependencies)
    try:
        target = walk.enter_app(app)
    except UnsupportedFastAPI:
        raise
    except Exception as error:  # noqa: BLE001 - an error of the user's code, returned in the target
        logger.debug("matching %r raised %r", scope["path"], error)
        target = Target(runs=True, entries=tuple(walk.entries), failure=error)
    return walk.finish(target)


def start_of(app: ASGIApp, scope: Scope) -> tuple[ASGIApp, Mark | None]:
    """Return where a middleware around ``app`` enters the route tree, and the mark outside of that."""
    owner: Starlette | None = scope.get("app")
    endpoint = scope.get("endpoint")
    root = root_of(app)
    if root is None and owner is not None and (endpoint is None or endpoint is owner or root_of(endpoint) is owner):
        # A middleware in between hides what it wraps, which is the answering app. But if that app's router has already
        # routed the request, the middleware is on a route, and `app` is the endpoint.
        root = app = owner.router
    if root is None:
        return app, mark_of(endpoint)
    return app, mark_around(root, scope) if marked_anywhere() else None


def mark_around(root: Router | Starlette | None, scope: Scope) -> Mark | None:
    """Return the innermost mark outside of a router that the request reached; ``None``: outside of its endpoint.

    Mounts leave no trace of their marks in the scope, so the outermost router is resolved again.
    """
    if "router" in scope:
        at_outermost = {**scope, "root_path": scope.get("app_root_path", scope.get("root_path", ""))}
        at_outermost.pop(FASTAPI_SCOPE_KEY, None)
        target = resolve(scope["router"], at_outermost)
        if root is None:
            return target.mark
        router = root.router if isinstance(root, Starlette) else root
        for entry in target.entries:
            if entry.router is router:
                return entry.mark
    return mark_of(scope.get("app"))


class _Walk:
    """One walk down the tree: the private scope, and the innermost mark and the routers so far."""

    def __init__(self, scope: Scope, mark: Mark | None, *, with_dependencies: bool) -> None:
        self.scope = scope
        self.with_dependencies = with_dependencies
        self.mark = mark
        self.overriding: list[tuple[Any, Mark | None]] = []
        """The apps and routers so far that replace Starlette's and FastAPI's own code, with their marks."""
        self.code_begins: tuple[int, Any] | None = None
        """``before_code`` and ``handed_to`` at the first call of ``begin_code``."""
        self.entries: list[Entry] = []
        self.handed_to: Any = None
        self.prefix = ""
        """The concatenated paths of the mounts so far."""

    def enter_app(self, app: ASGIApp, handed_to: Any = None) -> Target:
        """Enter an ASGI app, which ``handed_to`` may wrap."""
        self.handed_to = handed_to or app
        around: Any = None
        for step in steps_of(app):
            self.note_mark(step)
            if bypasses_entrance(step, around):
                self.begin_code()
            around = step
            if isinstance(step, Starlette):
                if isinstance(step, FastAPI) and step.root_path:
                    self.scope["root_path"] = step.root_path  # as FastAPI.__call__ does
                self.scope["app"] = step
                if not has_stock_call(step):
                    self.note_overriding(step)
                return self.enter_router(router_of(step))
            if isinstance(step, Router):
                return self.enter_router(step)
        return self.reach(app)

    def enter_router(self, router: Router) -> Target:
        """Enter a router: the first full match, else the first partial match, else the fallback."""
        if not has_stock_call(router):
            self.note_overriding(router)
        self.entries.append(Entry(router, self.scope.get("root_path", ""), self.mark, self.scope.get("app")))
        self.handed_to = None
        if not has_stock_app(router):
            self.note_overriding(router)
        matched = self.select(router)
        return self.enter_fallback(router) if matched is None else self.enter_route(matched)

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
        """Return the route that a router selects, or ``None``, by asking each route in order."""
        partial: _Matched | None = None
        for route in router.routes:
            matched = self.match(route, router)
            if matched.match is Match.FULL:
                return matched
            if matched.match is Match.PARTIAL and partial is None:
                partial = matched
        return partial

    def enter_fallback(self, router: Router) -> Target:
        """Enter what a router tries after its routes: a slash redirect, the frontends, the default app."""
        has_frontends = index_of(router).has_frontends()
        if not has_frontends and has_stock_default(router):
            return self.reach_nothing()  # a redirect or 404: no code of the application either way
        if self.redirects(router):
            return self.reach_nothing()
        if has_frontends:
            match, child_scope, route, context = router._match_low_priority(self.scope)  # type: ignore[attr-defined]
            matched = _Matched(match, child_scope, route, context, router)
            if matched.match is not Match.NONE:
                return self.enter_route(matched)
        return self.enter_default(router)

    def redirects(self, router: Router) -> bool:
        """Return whether the router would redirect to the path with the final slash added or removed."""
        if self.scope["type"] != "http" or not router.redirect_slashes:
            return False
        root_path = self.scope.get("root_path", "")
        if route_path(self.scope["path"], root_path) == "/":
            return False
        path = self.scope["path"]
        with_other_slash = _copy_scope(self.scope)
        # The router also checks the end of the routed path but changes the whole path.
        ends_with_slash = route_path(path, root_path).endswith("/")
        with_other_slash["path"] = path.rstrip("/") if ends_with_slash else path + "/"
        found = index_of(router).find(with_other_slash, first_match=True)
        if found is UNSURE:
            return any(route.matches(with_other_slash)[0] is not Match.NONE for route in router.routes)
        return found is not None

    def match(self, route: BaseRoute, router: Router) -> _Matched:
        """Return how one route of ``router`` matches."""
        if is_included(route) and is_like_stock(route):
            # `matches()` calls the same method but discards most of the result.
            return self.match_included(route)
        match, child_scope = route.matches(self.scope)
        return _Matched(match, child_scope, route, None, router)

    def match_included(self, included: Any) -> _Matched:
        """Return the best candidate of an included router, as FastAPI selects it."""
        match, child_scope, route, context = included._match(self.scope)
        return _Matched(match, child_scope, route, context, included.original_router)

    def enter_route(self, matched: _Matched) -> Target:
        """Enter a selected route as its ``handle`` would."""
        match, child_scope, route, context, router = matched
        _update_scope(self.scope, child_scope)
        self.note_mark(router)
        if is_included(route):
            return self.enter_included(route)
        original = route if context is None else context.original_route
        self.note_mark(original)
        if FrontendRouteGroup is not None and isinstance(original, FrontendRouteGroup):
            return self.reach(original) if match is Match.FULL else self.reach_nothing()
        if isinstance(route, (Mount, Host)) and has_stock_handle(route):
            return self.enter_mount(route)
        if isinstance(route, Route):
            return self.enter_http_route(route, context, router)
        if not isinstance(route, WebSocketRoute) and type(route).__module__.startswith("fastapi."):
            raise UnsupportedFastAPI(f"it has routes of an unknown kind, {type(route).__qualname__}")
        # The `handle` of a websocket route or a user's own kind of route runs whatever the match.
        endpoint = child_scope.get("endpoint")
        self.note_mark(endpoint)
        return self.reach(endpoint, route)

    def enter_mount(self, route: Mount | Host) -> Target:
        """Enter the mounted app, even if the mount's middleware hides it."""
        self.prefix += getattr(route, "path", "")
        app = mounted_app(route)
        if app is not route.app:
            for step in steps_of(route.app):
                self.note_mark(step)
        return self.enter_app(app, route.app)

    def enter_included(self, included: Any) -> Target:
        """Enter an included router: its best candidate, which may be another included router."""
        matched = self.match_included(included)
        # If no candidate matches, a user's own `matches` claimed the request.
        target = self.enter_default(matched.router) if matched.match is Match.NONE else self.enter_route(matched)
        # A user's own `handle` may run code even if the routes would not.
        return target if target.runs or has_stock_handle(matched.router) else self.reach(matched.router)

    def enter_default(self, router: Router) -> Target:
        """Enter the app that a router calls if no route matches: a 404, unless it was replaced."""
        return self.reach_nothing() if has_stock_default(router) else self.enter_app(router.default)

    def enter_http_route(self, route: Route, context: Any, router: Router) -> Target:
        """Enter an HTTP route: its endpoint runs unless its ``handle`` answers 405."""
        described = context if context is not None and isinstance(route, APIRoute) else route
        method = self.scope["method"]
        answers_405_itself = has_stock_handle(route)
        if answers_405_itself and described.methods and method not in described.methods:
            return self.reach_nothing()
        endpoint = described.endpoint
        self.handed_to = route.app if answers_405_itself else None
        if not isinstance(route, APIRoute):
            if isinstance(endpoint, type) and issubclass(endpoint, HTTPEndpoint):
                return self.enter_http_endpoint(endpoint, method, described, is_all=answers_405_itself)
            if root_of(route.app) is not None:
                # The index returns no parameters, but an inner router may use them.
                _update_scope(self.scope, route.matches(self.scope)[1])
                return self.enter_app(route.app)
        self.note_mark(endpoint)
        return self.reach(endpoint, described, docs=self.is_docs(described, router))

    def enter_http_endpoint(self, endpoint: type[HTTPEndpoint], method: str, route: Any, *, is_all: bool) -> Target:
        """Enter a class with a method per HTTP method; HEAD falls back to ``get``.

        ``is_all``: no application code runs before the class.
        """
        self.note_mark(endpoint)
        name = "get" if method == "HEAD" and not hasattr(endpoint, "head") else method.lower()
        handler = getattr(endpoint, name, None)
        has_none = handler is None or (DISPATCH_KNOWS_ITS_METHODS and method not in DISPATCHED_METHODS)
        if has_none and is_all and has_stock_dispatch(endpoint):
            return self.reach_nothing()  # its `method_not_allowed` answers 405
        self.note_mark(handler)
        return self.reach(endpoint, route)

    def is_docs(self, route: Any, router: Router) -> bool:
        """Return whether a route is one of the FastAPI app's own pages, at its configured URL."""
        app = self.scope.get("app")
        return (
            isinstance(app, FastAPI)
            and app.router is router
            and self.scope["method"] in ("GET", "HEAD")
            and route.path in (app.openapi_url, app.docs_url, app.redoc_url, app.swagger_ui_oauth2_redirect_url)
            # A user's route may precede it.
            and getattr(route.endpoint, "__module__", None) == FastAPI.__module__
        )

    def note_mark(self, carrier: Any) -> None:
        """Replace the mark with that of an inner object, if it has one."""
        self.mark = mark_of(carrier) or self.mark

    def note_overriding(self, app: Starlette | Router) -> None:
        """Record that an app or router runs its own code before its routes, or instead of them."""
        self.note_mark(app)
        self.overriding.append((app, self.mark))
        self.begin_code()

    def begin_code(self) -> None:
        """Record that from here on, code may run before the request reaches another router's entrance."""
        self.code_begins = self.code_begins or (len(self.entries), self.handed_to)

    def finish(self, target: Target) -> Target:
        """Return the target with everything recorded on the way to it."""
        if self.overriding:
            target = self.apply_overriding(target)
        if self.code_begins is None:
            return target
        before_code, handed_to = self.code_begins
        return replace(target, before_code=before_code, handed_to=handed_to)

    def apply_overriding(self, target: Target) -> Target:
        """Return the target with the overriding apps and routers, which run too: the strictest mark applies."""
        marks = [mark for _, mark in self.overriding] + ([target.mark] if target.runs else [])
        mark = Mark.ON if Mark.ON in marks else None if None in marks else Mark.OFF
        endpoint = target.endpoint if target.runs else self.overriding[-1][0]
        return replace(target, runs=True, endpoint=endpoint, mark=mark, docs=False)

    def reach(self, endpoint: Any, route: Any = None, *, docs: bool = False) -> Target:
        """Return the target for an endpoint that runs."""
        path = self.prefix + getattr(route, "path", "") or None
        dependant = getattr(route, "dependant", None) if self.with_dependencies else None
        dependencies = () if dependant is None else tuple(dependency_calls_of(dependant))
        entries = tuple(self.entries)
        return Target(True, endpoint, self.mark, docs, entries, path, dependencies, handed_to=self.handed_to)

    def reach_nothing(self) -> Target:
        """Return the target for a request that runs no application code."""
        return Target(False, entries=tuple(self.entries))


def dependency_calls_of(dependant: Any) -> Iterator[Any]:
    """Yield the callables of a dependant's dependencies, at any depth, outermost first."""
    for dependency in dependant.dependencies:
        yield dependency.call
        yield from dependency_calls_of(dependency)


class _Matched(NamedTuple):
    """The result of matching, with the fields of FastAPI's ``_match``."""

    match: Match
    child_scope: Scope
    route: Any
    context: Any
    """The route as included, for FastAPI >= 0.137, else ``None``."""
    router: Router
    """The router that contains the route."""


def _copy_scope(scope: Scope) -> Scope:
    """Return a copy of a scope that matching may write to."""
    view = dict(scope)
    if isinstance(view.get(FASTAPI_SCOPE_KEY), dict):
        view[FASTAPI_SCOPE_KEY] = dict(view[FASTAPI_SCOPE_KEY])
    return view


def _update_scope(view: Scope, child_scope: Scope) -> None:
    """Update a scope with a child scope as FastAPI's router does: FastAPI's own dict is merged, not replaced."""
    mine = view.get(FASTAPI_SCOPE_KEY)
    view.update(child_scope)
    if isinstance(mine, dict) and FASTAPI_SCOPE_KEY in child_scope:
        view[FASTAPI_SCOPE_KEY] = {**mine, **child_scope[FASTAPI_SCOPE_KEY]}
