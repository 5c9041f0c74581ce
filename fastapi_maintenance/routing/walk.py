"""What the router would run for a request: the only reader of Starlette's and FastAPI's route tree.

The tree is asked the way the router itself asks it, route by route, in the router's own order and on a private copy
of the scope, so the answer is the router's own; an index leaves out those that can't match. Nothing is matched before
the first request, nor in another order: matching an included router makes FastAPI cache its routes.
"""

from __future__ import annotations

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
from .apps import bypasses_entrance, mounted_app, root_of, router_of, steps_of
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
from .index import UNSURE, index_of, route_path
from .marks import mark_of

# FastAPI >= 0.138 has frontends.
FrontendRouteGroup: type[Any] | None = getattr(fastapi_routing, "_FrontendRouteGroup", None)


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
            if bypasses_entrance(step, around):
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
        if FrontendRouteGroup is not None and isinstance(original, FrontendRouteGroup):
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
        app = mounted_app(route)
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
        has_none = handler is None or (DISPATCH_KNOWS_ITS_METHODS and method not in DISPATCHED_METHODS)
        if has_none and is_all and has_stock_dispatch(endpoint):
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
        dependencies = () if dependant is None else tuple(calls(dependant))
        entries = tuple(self.entries)
        return Target(True, endpoint, self.mark, docs, entries, path, dependencies, handed_to=self.handed_to)

    def nothing(self) -> Target:
        """Return the end of a way on which no application code runs."""
        return Target(False, entries=tuple(self.entries))


def calls(dependant: Any) -> Iterator[Any]:
    for dependency in dependant.dependencies:
        yield dependency.call
        yield from calls(dependency)


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
    if isinstance(view.get(FASTAPI_SCOPE_KEY), dict):
        view[FASTAPI_SCOPE_KEY] = dict(view[FASTAPI_SCOPE_KEY])
    return view


def _update(view: Scope, child_scope: Scope) -> None:
    """Take over what matching found, as FastAPI's router does: its own dict is merged, not replaced."""
    mine = view.get(FASTAPI_SCOPE_KEY)
    view.update(child_scope)
    if isinstance(mine, dict) and FASTAPI_SCOPE_KEY in child_scope:
        view[FASTAPI_SCOPE_KEY] = {**mine, **child_scope[FASTAPI_SCOPE_KEY]}
