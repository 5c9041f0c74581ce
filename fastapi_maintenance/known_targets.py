"""What would run for the requests that come from one middleware, kept for as long as nothing of it changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Match, Router
from starlette.types import ASGIApp, Scope

from .decorators import marks_set
from .route_index import UNSURE, Leaf, index_of, route_path
from .routes import Target, has_stock_default

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
        known = way.by_path.get((scope["path"], scope.get("method")))
        if known is not None and way.index.has(known[0]):
            return known[1]
        found = way.index.find(scope, asks=False)
        if found is None:
            return self._nothing(way, start, scope)
        if found is UNSURE or found.match is not _FULL:
            return None
        return self._target(way, found.leaf, start, scope)

    def _nothing(self, way: _Way, start: ASGIApp, scope: Scope) -> Target | None:
        """Return the target of what comes to no route, if it is the same for all of that."""
        if not way.ends():
            return None
        if way.nothing is None:
            way.nothing = self._find(start, scope)
        return way.nothing

    def _target(self, way: _Way, leaf: Leaf, start: ASGIApp, scope: Scope) -> Target:
        """Return the target of a route that is selected."""
        path, method = scope["path"], scope.get("method")
        target = way.by_leaf.get((leaf, method))
        if target is None:
            target = self._find(start, scope)
            # There is no end of methods, where the route doesn't say which it has.
            if len(target.entries) != 1 or not (method is None or leaf.described.methods):
                return target
            way.by_leaf[leaf, method] = target
        if way.has_literal(path):
            way.by_path[path, method] = leaf, target
        return target


class _Way:
    """How requests come from a middleware to the outermost router, and what was found there."""

    __slots__ = (
        "_app",
        "_marks",
        "_owner",
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
        self._router = root if isinstance(root, Router) else root.router
        self._app = scope.get("app")
        self._root_path = scope.get("root_path", "")
        self._marks = marks_set()
        self.index = index_of(self._router)
        self.by_leaf: dict[tuple[Leaf, str | None], Target] = {}
        """By route and method."""
        self.by_path: dict[tuple[str, str | None], tuple[Leaf, Target]] = {}
        """By path and method, where a route has this path alone."""

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
            and (self._owner is None or _router_of(self._owner) is self._router)
            and self._marks == marks_set()
            and self.index.is_current()
        )

    def ends(self) -> bool:
        """Return whether what comes to no route runs nothing."""
        return has_stock_default(self._router) and not self.index.has_frontends()

    def has_literal(self, path: str) -> bool:
        """Return whether a route has this path alone."""
        return self.index.is_literal(route_path(path, self._root_path))


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
    if isinstance(start, Starlette) and _router_of(start) is None:
        return None
    return _Way(steps, start, scope)


_MOST_STEPS = 64


def _router_of(app: Starlette) -> Router | None:
    """Return the router of an app that passes a request on as it is."""
    return None if getattr(app, "root_path", "") else app.router
