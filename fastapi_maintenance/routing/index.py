"""An index of a router's routes by path, which finds the route that the router would select.

The index resolves only routes whose match depends on type, path and method: routes of Starlette's and FastAPI's own
classes, with patterns as Starlette writes them. If a path may lead to another route, it returns ``UNSURE``, and the
caller must ask each route. Of included routers, it reads only the routes that FastAPI has already built.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from typing import Any, NamedTuple

from fastapi.routing import APIRoute
from starlette._utils import get_route_path
from starlette.routing import Match, Mount, Route, Router
from starlette.types import Scope

from .compat import CAN_LOOK_INSIDE, STOCK_MATCHES, Context, IncludedRouter, function_of, is_included, is_like_stock
from .patterns import Node, pattern_of

_ATTRIBUTE = "_fastapi_maintenance_index"


class Kind(StrEnum):
    """The scope type that a route handles, or how to match it."""

    HTTP = "http"
    WEBSOCKET = "websocket"
    MOUNT = "mount"
    UNKNOWN = "unknown"
    """Only the route itself can match."""


# In Python 3.11, looking up an enum member takes longer than everything else here.
_HTTP, _MOUNT, _UNKNOWN = Kind.HTTP, Kind.MOUNT, Kind.UNKNOWN
_FULL, _PARTIAL = Match.FULL, Match.PARTIAL


class Unsure(Enum):
    """The result of an index if each route must be asked."""

    UNSURE = "unsure"


UNSURE = Unsure.UNSURE


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """A route as the indexed router sees it, through included routers."""

    kind: Kind
    route: Any
    context: Any
    """The route as included, for FastAPI >= 0.137, else ``None``."""
    described: Any
    """The route or context that has the effective pattern and methods."""
    routers: tuple[Router, ...]
    """The routers that contain it, outermost first."""
    position: int
    """The position of ``top`` in the outermost router."""
    top: Any
    """The outermost router's route that contains this one."""
    path_regex: re.Pattern[str] | None = None
    """The pattern when the route was indexed."""
    is_certain: bool = False
    """Whether every path that the tree finds for the route matches it, and its convertors can't raise."""


class Found(NamedTuple):
    """A route that matches."""

    leaf: Leaf
    match: Match
    child_scope: Scope


class RouteIndex:
    """The routes of one router by path."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self._leaves: list[Leaf] = []
        """In the router's order."""
        self._everywhere: list[int] = []
        """The numbers of the leaves that may match any path."""
        self._tree = Node()
        self._literal: dict[str, list[int] | None] = {}
        """The leaf numbers for the paths of routes without parameters; ``None`` until first requested."""
        self._included: list[Any] = []
        """The included routers, at any depth."""
        self._unbuilt: list[Any] = []
        """The inclusions whose current routes FastAPI has not built yet."""
        self._routes = list(router.routes)
        self._note_included(self._routes, {id(router)})
        self._included_routes = [list(each.routes) for each in self._included]
        for position, route in enumerate(self._routes):
            self._add(route, (router,), position, route)
        self._unbuilt_versions = [included._effective_candidates_version for included in self._unbuilt]

    def is_current(self) -> bool:
        """Return whether the routers' routes are unchanged and FastAPI has built no more of them."""
        # Comparing lists of the same objects is quick: 0.6 µs for a thousand items.
        return self.router.routes == self._routes and (not self._included or self._included_are_current())

    def _included_are_current(self) -> bool:
        return [each.routes for each in self._included] == self._included_routes and (
            not self._unbuilt
            or [each._effective_candidates_version for each in self._unbuilt] == self._unbuilt_versions
        )

    def has(self, leaf: Leaf) -> bool:
        """Return whether the router still has the identical route, with the identical pattern."""
        try:
            return self.router.routes[leaf.position] is leaf.top and leaf.described.path_regex is leaf.path_regex
        except IndexError:  # another thread just removed routes
            return False

    def is_alone_at(self, leaf: Leaf, path: str) -> bool:
        """Return whether a routed path belongs to a route without parameters and this leaf is its first candidate."""
        numbers = self._literal.get(path)
        return numbers is not None and self._leaves[numbers[0]] is leaf

    def has_frontends(self) -> bool:
        """Return whether a router here has frontends, which FastAPI tries after the routes."""
        return any(getattr(each, "_low_priority_routes", ()) for each in (self.router, *self._included))

    def find(self, view: Scope, *, first_match: bool = False, asks: bool = True) -> Found | Unsure | None:
        """Return the route that the router would select, or ``None`` if none matches.

        Args:
            view: The scope; must be a private copy if ``asks`` is true.
            first_match: Whether to return the first match, full or partial, as for a redirect.
            asks: Whether to call ``matches`` of candidates that the tree can't decide; else return ``UNSURE``.

        Raises:
            Exception: Any error of a route's convertor.
        """
        root_path = view.get("root_path", "")
        numbers = self._leaf_numbers_of(route_path(view["path"], root_path) if root_path else view["path"])
        if numbers is None:
            return UNSURE
        kind = view["type"]
        partial: Found | None = None
        for number in numbers:
            leaf = self._leaves[number]
            if leaf.kind is _UNKNOWN or not self.has(leaf):
                return UNSURE
            if leaf.kind is not _MOUNT and leaf.kind != kind:
                continue
            if not leaf.is_certain or leaf.kind is _MOUNT:
                if not asks:
                    return UNSURE
                match, child_scope = leaf.described.matches(view)
            elif leaf.kind is _HTTP and (methods := leaf.described.methods) and view["method"] not in methods:
                match, child_scope = _PARTIAL, {}
            else:
                match, child_scope = _FULL, {"endpoint": leaf.described.endpoint}
            if match is _FULL or (first_match and match is _PARTIAL):
                return Found(leaf, match, child_scope)
            if match is _PARTIAL and partial is None:
                partial = Found(leaf, match, child_scope)
        return partial

    def _leaf_numbers_of(self, path: str) -> list[int] | None:
        """Return the numbers of the leaves that may match a path, in order, or ``None`` if that is uncertain."""
        numbers = self._literal.get(path)
        if numbers is not None:
            return numbers
        if "\n" in path:  # "$" also matches before a final line break
            return None
        numbers = self._tree.leaf_numbers_of(path)
        if self._everywhere:
            numbers += self._everywhere
        numbers.sort()
        if path in self._literal:
            self._literal[path] = numbers
        return numbers

    def _note_included(self, routes: list[Any], seen: set[int]) -> None:
        """Record the routers that these routes include, at any depth."""
        for route in routes:
            if is_included(route) and id(route.original_router) not in seen:
                seen.add(id(route.original_router))
                self._included.append(route.original_router)
                self._note_included(list(route.original_router.routes), seen)

    def _add(self, route: Any, routers: tuple[Router, ...], position: int, top: Any) -> None:
        """Index a router's route, or a candidate that FastAPI has built for an included router."""
        if is_included(route):
            self._add_included(route, routers, position, top)
            return
        context, described = None, route
        if Context is not None and type(route) is Context:
            context, route = route, route.original_route
            if isinstance(route, APIRoute):
                described = context
            else:
                described = route = context.starlette_route or route
        self._place(Leaf(_kind_of(route), route, context, described, routers, position, top))

    def _add_included(self, included: Any, routers: tuple[Router, ...], position: int, top: Any) -> None:
        """Index the candidates that FastAPI has built for an included router.

        Building them here would hide routes that are mounted before the router builds them itself.
        """
        router = included.original_router
        if CAN_LOOK_INSIDE and type(included) is IncludedRouter and is_like_stock(included):
            is_latest = included._effective_candidates_version == router._get_routes_version()
            if is_latest and _are_built_of(included._effective_candidates, router.routes):
                for candidate in included._effective_candidates:
                    self._add(candidate, (*routers, router), position, top)
                return
            self._unbuilt.append(included)
        self._place(Leaf(Kind.UNKNOWN, included, None, included, routers, position, top))

    def _place(self, leaf: Leaf) -> None:
        number = len(self._leaves)
        pattern = None if leaf.kind is Kind.UNKNOWN else pattern_of(leaf.described)
        if pattern is None:
            self._leaves.append(replace(leaf, kind=Kind.UNKNOWN))
            self._everywhere.append(number)
            return
        self._leaves.append(replace(leaf, path_regex=leaf.described.path_regex, is_certain=pattern.is_certain))
        self._tree.add(pattern, number)
        if pattern.is_literal:
            self._literal["/".join(map(str, pattern.segments))] = None


def _are_built_of(candidates: list[Any], routes: list[Any]) -> bool:
    """Return whether FastAPI built these candidates of exactly these routes, so that it would build the same again."""
    return len(candidates) == len(routes) and all(
        is_included(route) and candidate.original_router is route.original_router
        if is_included(candidate)
        else candidate.original_route is route
        for candidate, route in zip(candidates, routes, strict=True)
    )


def _kind_of(route: Any) -> Kind:
    """Return the kind of a route; ``UNKNOWN`` if it has its own ``matches``."""
    if function_of(route, "matches") not in STOCK_MATCHES:
        return Kind.UNKNOWN
    if isinstance(route, Route):
        return Kind.HTTP
    return Kind.MOUNT if isinstance(route, Mount) else Kind.WEBSOCKET


def index_of(router: Router) -> RouteIndex:
    """Return the index of a router, rebuilt if its routes have changed."""
    index: RouteIndex | None = getattr(router, _ATTRIBUTE, None)
    if index is None or index.router is not router or not index.is_current():
        index = RouteIndex(router)
        setattr(router, _ATTRIBUTE, index)
    return index


def route_path(path: str, root_path: str) -> str:
    """Return the path that a router matches: the decoded path without ``root_path``, as this Starlette removes it."""
    return get_route_path({"path": path, "root_path": root_path}) if root_path else path


def method_of(scope: Scope) -> str | None:
    """Return the HTTP method of a request, or ``None`` for a WebSocket handshake, even if its scope has a method."""
    return scope["method"] if scope["type"] == "http" else None
