"""What would run for the requests that come from one middleware, kept for as long as nothing of it changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.routing import Match, Router
from starlette.types import ASGIApp, Scope

from .apps import router_of
from .compat import has_stock_default
from .index import UNSURE, Leaf, index_of, method_of, route_path
from .marks import marks_set
from .walk import Target

_FULL = Match.FULL  # looking it up takes its time in Python 3.11


class KnownTargets:
    """The targets of requests of which nothing counts but type, path and method.

    It has them for the routes of the outermost router, by its index. Of all others it knows nothing.
    """

    def __init__(self, find: Callable[[ASGIApp, Scope], Target]) -> None:
        self._find = find
        self._way: _Way | None = None

    def of(self, start: ASGIApp, scope: Scope) -> Target | None:
        """Return what ``start`` would run for a request, or ``None`` if it has to be found out each time."""
        way = self._way
        if way is None or not way.is_still(scope):
            way = self._way = _way_from(start, scope)
            if way is None:
                return None
        method = method_of(scope)
        known = way.by_path.get((scope["path"], method))
        if known is not None and way.index.has(known.leaf) and known.is_still_for(method):
            return known.target
        found = way.index.find(scope, asks=False)
        if found is None:
            return self._nothing(way, start, scope)
        if found is UNSURE or found.match is not _FULL:
            return None
        return self._target(way, found.leaf, start, scope, method)

    def _nothing(self, way: _Way, start: ASGIApp, scope: Scope) -> Target | None:
        """Return the target of what comes to no route, if it is the same for all of that."""
        if not way.ends():
            return None
        if way.nothing is None:
            way.nothing = self._find(start, scope)
        return way.nothing

    def _target(self, way: _Way, leaf: Leaf, start: ASGIApp, scope: Scope, method: str | None) -> Target:
        """Return the target of a route that is selected."""
        known = way.by_leaf.get((leaf, method))
        if known is None or not known.is_still_for(method):
            target = self._find(start, scope)
            known = _Known(leaf, leaf.described.endpoint, target)
            if len(target.entries) != 1 or not known.can_be_kept(method):
                return target
            way.by_leaf[leaf, method] = known
        path = scope["path"]
        if way.has_alone_at(leaf, path):
            way.by_path[path, method] = known
        return known.target


class _Known(NamedTuple):
    """What is known of a route that was selected."""

    leaf: Leaf
    endpoint: Any
    target: Target

    def can_be_kept(self, method: str | None) -> bool:
        """Return whether it goes for all requests with this method that select the route."""
        # A class may get another method. There is no end of methods, where the route doesn't say which it has.
        is_class = isinstance(self.endpoint, type) and issubclass(self.endpoint, HTTPEndpoint)
        return not is_class and (method is None or bool(self.leaf.described.methods))

    def is_still_for(self, method: str | None) -> bool:
        """Return whether the route has its endpoint still, and the method."""
        described = self.leaf.described
        return described.endpoint is self.endpoint and (
            method is None or bool((methods := described.methods) and method in methods)
        )


class _Way:
    """How requests come from a middleware to the outermost router, and what was found there."""

    __slots__ = (
        "_app",
        "_marks",
        "_owner",
        "_owners_router",
        "_owners_stack",
        "_root_path",
        "_router",
        "_steps",
        "by_leaf",
        "by_path",
        "index",
        "nothing",
    )

    def __init__(self, steps: list[tuple[Any, Any]], root: Router | Starlette, scope: Scope) -> None:
        self._steps = steps
        self._owner = None if isinstance(root, Router) else root
        self._owners_stack = None if isinstance(root, Router) else root.middleware_stack
        self._owners_router = None if isinstance(root, Router) else root.router
        self._router = root if isinstance(root, Router) else router_of(root)
        self._app = scope.get("app")
        self._root_path = scope.get("root_path", "")
        self._marks = marks_set()
        self.index = index_of(self._router)
        self.by_leaf: dict[tuple[Leaf, str | None], _Known] = {}
        """By route and method."""
        self.by_path: dict[tuple[str, str | None], _Known] = {}
        """By path and method, where a route has this path alone and no other one stands before it."""

        self.nothing: Target | None = None
        """That of what comes to no route."""

    def is_still(self, scope: Scope) -> bool:
        """Return whether a request goes the same way, to the same routes with the same marks."""
        for step, following in self._steps:
            if step.app is not following:
                return False
        return (
            scope.get("app") is self._app
            and "router" not in scope
            and scope.get("root_path", "") == self._root_path
            and (self._owner is None or self._owner_is_still(self._owner))
            and self._marks == marks_set()
            and self.index.is_current()
        )

    def _owner_is_still(self, app: Starlette) -> bool:
        return (
            app.middleware_stack is self._owners_stack
            and app.router is self._owners_router
            and not _has_root_path(app)
        )

    def ends(self) -> bool:
        """Return whether what comes to no route runs nothing."""
        return has_stock_default(self._router) and not self.index.has_frontends()

    def has_alone_at(self, leaf: Leaf, path: str) -> bool:
        """Return whether a route has this path alone and no other one stands before it."""
        return self.index.is_alone_at(leaf, route_path(path, self._root_path))


def _way_from(start: Any, scope: Scope) -> _Way | None:
    """Return the way to the outermost router, or ``None`` if it isn't a plain one."""
    if "router" in scope:
        return None
    steps: list[tuple[Any, Any]] = []
    while not isinstance(start, (Router, Starlette)):
        following = vars(start).get("app") if hasattr(start, "__dict__") else None
        if following is None or len(steps) > _MOST_STEPS:
            return None
        steps.append((start, following))
        start = following
    if isinstance(start, Starlette) and _has_root_path(start):
        return None
    return _Way(steps, start, scope)


_MOST_STEPS = 64


def _has_root_path(app: Starlette) -> bool:
    """Return whether an app puts a root path of its own in the place of the request's."""
    return bool(getattr(app, "root_path", ""))
