"""A cache of the targets of one middleware's requests, valid until the app, its routes or marks change."""

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
from .marks import count_marks
from .walk import Target

_FULL = Match.FULL  # looking up an enum member is slow in Python 3.11


class TargetCache:
    """Caches the targets of requests that depend on type, path and method alone.

    It caches only targets that the index of the outermost router finds.
    """

    def __init__(self, find: Callable[[ASGIApp, Scope], Target]) -> None:
        self._find = find
        self._chain: _Chain | None = None

    def of(self, start: ASGIApp, scope: Scope) -> Target | None:
        """Return the target of a request to ``start``, or ``None`` if it can't be cached."""
        chain = self._chain
        if chain is None or not chain.is_valid_for(scope):
            chain = self._chain = _build_chain(start, scope)
            if chain is None:
                return None
        method = method_of(scope)
        cached = chain.by_path.get((scope["path"], method))
        if cached is not None and chain.index.has(cached.leaf) and cached.is_valid_for(method):
            return cached.target
        found = chain.index.find(scope, asks=False)
        if found is None:
            return self._target_without_route(chain, start, scope)
        if found is UNSURE or found.match is not _FULL:
            return None
        return self._target_of(chain, found.leaf, start, scope, method)

    def _target_without_route(self, chain: _Chain, start: ASGIApp, scope: Scope) -> Target | None:
        """Return the target of requests that match no route, or ``None`` if it may differ between them."""
        if not chain.has_stock_fallback():
            return None
        if chain.nothing is None:
            chain.nothing = self._find(start, scope)
        return chain.nothing

    def _target_of(self, chain: _Chain, leaf: Leaf, start: ASGIApp, scope: Scope, method: str | None) -> Target:
        """Return the target of a request that selects the route of a leaf."""
        cached = chain.by_leaf.get((leaf, method))
        if cached is None or not cached.is_valid_for(method):
            target = self._find(start, scope)
            cached = _CachedTarget(leaf, leaf.described.endpoint, target)
            if len(target.entries) != 1 or not cached.is_cacheable(method):
                return target
            chain.by_leaf[leaf, method] = cached
        path = scope["path"]
        if chain.is_alone_at(leaf, path):
            chain.by_path[path, method] = cached
        return cached.target


class _CachedTarget(NamedTuple):
    """The cached target of one route."""

    leaf: Leaf
    endpoint: Any
    target: Target

    def is_cacheable(self, method: str | None) -> bool:
        """Return whether the target applies to all requests with this method that select the route."""
        # A class may gain a method later. A route without declared methods would fill the cache with arbitrary ones.
        is_class = isinstance(self.endpoint, type) and issubclass(self.endpoint, HTTPEndpoint)
        return not is_class and (method is None or bool(self.leaf.described.methods))

    def is_valid_for(self, method: str | None) -> bool:
        """Return whether the route still has the same endpoint and the method."""
        described = self.leaf.described
        return described.endpoint is self.endpoint and (
            method is None or bool((methods := described.methods) and method in methods)
        )


class _Chain:
    """The middleware from one app to the outermost router, with the targets cached for that router."""

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
        self._marks = count_marks()
        self.index = index_of(self._router)
        self.by_leaf: dict[tuple[Leaf, str | None], _CachedTarget] = {}
        self.by_path: dict[tuple[str, str | None], _CachedTarget] = {}
        """By path and method, for paths without parameters that lead to the route first."""
        self.nothing: Target | None = None
        """The target of requests that match no route."""

    def is_valid_for(self, scope: Scope) -> bool:
        """Return whether a request takes the same chain, to the same routes with the same marks."""
        for step, following in self._steps:
            if step.app is not following:
                return False
        return (
            scope.get("app") is self._app
            and "router" not in scope
            and scope.get("root_path", "") == self._root_path
            and (self._owner is None or self._is_owner_unchanged(self._owner))
            and self._marks == count_marks()
            and self.index.is_current()
        )

    def _is_owner_unchanged(self, app: Starlette) -> bool:
        return (
            app.middleware_stack is self._owners_stack
            and app.router is self._owners_router
            and not _has_root_path(app)
        )

    def has_stock_fallback(self) -> bool:
        """Return whether a request that matches no route runs nothing."""
        return has_stock_default(self._router) and not self.index.has_frontends()

    def is_alone_at(self, leaf: Leaf, path: str) -> bool:
        """Return whether a route has this path without parameters and is its first candidate."""
        return self.index.is_alone_at(leaf, route_path(path, self._root_path))


def _build_chain(start: Any, scope: Scope) -> _Chain | None:
    """Return the chain to the outermost router, or ``None`` if it isn't one of plain ``.app`` attributes."""
    if "router" in scope:
        return None
    steps: list[tuple[Any, Any]] = []
    while not isinstance(start, (Router, Starlette)):
        following = vars(start).get("app") if hasattr(start, "__dict__") else None
        if following is None or len(steps) > _MAX_STEPS:
            return None
        steps.append((start, following))
        start = following
    if isinstance(start, Starlette) and _has_root_path(start):
        return None
    return _Chain(steps, start, scope)


_MAX_STEPS = 64


def _has_root_path(app: Starlette) -> bool:
    """Return whether an app replaces the root path of requests."""
    return bool(getattr(app, "root_path", ""))
