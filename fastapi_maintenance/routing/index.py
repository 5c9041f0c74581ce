"""Which of a router's routes it would select, found by the path instead of by asking one route after the other.

An index knows only routes whose answer depends on type, path and method alone: those of Starlette's and FastAPI's own
classes, with patterns as Starlette writes them. Where a request could come to any other, it says so, and the routes
have to be asked. It matches nothing ahead of the router, and of an included router it reads what FastAPI has built.
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
    """What a route is for, as scopes call it."""

    HTTP = "http"
    WEBSOCKET = "websocket"
    MOUNT = "mount"
    UNKNOWN = "unknown"
    """It has to be asked."""


# In Python 3.11, looking a member up takes longer than all else that a request needs here.
_HTTP, _MOUNT, _UNKNOWN = Kind.HTTP, Kind.MOUNT, Kind.UNKNOWN
_FULL, _PARTIAL = Match.FULL, Match.PARTIAL


class Unsure(Enum):
    """The answer of an index where only asking the routes can tell."""

    UNSURE = "unsure"


UNSURE = Unsure.UNSURE


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """A route as a router sees it, through the routers that it is included by."""

    kind: Kind
    route: Any
    context: Any
    """How FastAPI >= 0.137 sees the route from the place where it is included, else ``None``."""
    described: Any
    """What has the pattern and the methods that count: the one or the other."""
    routers: tuple[Router, ...]
    """The routers that it is in, outermost first."""
    position: int
    """Where the outermost one has what leads to it."""
    top: Any
    """What leads to it."""
    path_regex: re.Pattern[str] | None = None
    """Its pattern when it was put into the tree."""
    is_certain: bool = False
    """Whether every path that leads to it in the tree matches, and its convertors can't raise."""


class Found(NamedTuple):
    """A route that matches."""

    leaf: Leaf
    match: Match
    child_scope: Scope


class RouteIndex:
    """The routes of one router, by their paths."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self._leaves: list[Leaf] = []
        """In the order in which the router asks."""
        self._everywhere: list[int] = []
        """The numbers of those that any path may lead to."""
        self._tree = Node()
        self._literal: dict[str, list[int] | None] = {}
        """What the paths of routes without parameters lead to; ``None`` until somebody asks."""
        self._included: list[Any] = []
        """The routers that are included, at any depth."""
        self._unbuilt: list[Any] = []
        """How those are included of which FastAPI hasn't built what they have now."""
        self._routes = list(router.routes)
        self._note_included(self._routes, {id(router)})
        self._included_routes = [list(each.routes) for each in self._included]
        for position, route in enumerate(self._routes):
            self._add(route, (router,), position, route)
        self._unbuilt_of = [included._effective_candidates_version for included in self._unbuilt]

    def is_current(self) -> bool:
        """Return whether the routers have the routes that they had, and FastAPI has built no more of them."""
        # Lists are compared quickly where the items are the same objects: 0.6 µs for a thousand of them.
        return self.router.routes == self._routes and (not self._included or self._included_are_current())

    def _included_are_current(self) -> bool:
        return [each.routes for each in self._included] == self._included_routes and (
            not self._unbuilt or [each._effective_candidates_version for each in self._unbuilt] == self._unbuilt_of
        )

    def has(self, leaf: Leaf) -> bool:
        """Return whether a route is still the same one, with the same pattern: one that is equal need not be."""
        try:
            return self.router.routes[leaf.position] is leaf.top and leaf.described.path_regex is leaf.path_regex
        except IndexError:  # another thread has just taken routes away
            return False

    def is_alone_at(self, leaf: Leaf, path: str) -> bool:
        """Return whether a path, as a router sees it, leads to this route first, and has no parameters in it."""
        numbers = self._literal.get(path)
        return numbers is not None and self._leaves[numbers[0]] is leaf

    def has_frontends(self) -> bool:
        """Return whether there may be something behind the routes."""
        return any(getattr(each, "_low_priority_routes", ()) for each in (self.router, *self._included))

    def find(self, view: Scope, *, first_match: bool = False, asks: bool = True) -> Found | Unsure | None:
        """Return the route that the router would select, or ``None`` if none matches.

        Args:
            view: The scope; a private copy, if routes may be asked.
            first_match: Whether the first that matches at all is enough, as it is for a redirect.
            asks: Whether to ask those routes of which only the place in the tree is known.

        Raises:
            Exception: What a route's convertor raises.
        """
        root_path = view.get("root_path", "")
        numbers = self._led_to(route_path(view["path"], root_path) if root_path else view["path"])
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

    def _led_to(self, path: str) -> list[int] | None:
        """Return the numbers of the leaves that a path leads to, in order, or ``None`` if it can't be told."""
        numbers = self._literal.get(path)
        if numbers is not None:
            return numbers
        if "\n" in path:  # which "$" takes for an end
            return None
        numbers = self._tree.led_to(path)
        if self._everywhere:
            numbers += self._everywhere
        numbers.sort()
        if path in self._literal:
            self._literal[path] = numbers
        return numbers

    def _note_included(self, routes: list[Any], seen: set[int]) -> None:
        """Take note of the routers that are included by these routes."""
        for route in routes:
            if is_included(route) and id(route.original_router) not in seen:
                seen.add(id(route.original_router))
                self._included.append(route.original_router)
                self._note_included(list(route.original_router.routes), seen)

    def _add(self, route: Any, routers: tuple[Router, ...], position: int, top: Any) -> None:
        """Take in a route as a router has it, or as FastAPI has built it for where it is included."""
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
        """Take in what FastAPI has built of an included router.

        Building it here would hide from it what is mounted before the router itself builds it.
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
    """Return whether FastAPI has built these of the routes that there are: then it will build the same again."""
    return len(candidates) == len(routes) and all(
        is_included(route) and candidate.original_router is route.original_router
        if is_included(candidate)
        else candidate.original_route is route
        for candidate, route in zip(candidates, routes, strict=True)
    )


def _kind_of(route: Any) -> Kind:
    """Return what a route is for, if it matches like those of Starlette and FastAPI do."""
    if function_of(route, "matches") not in STOCK_MATCHES:
        return Kind.UNKNOWN
    if isinstance(route, Route):
        return Kind.HTTP
    return Kind.MOUNT if isinstance(route, Mount) else Kind.WEBSOCKET


def index_of(router: Router) -> RouteIndex:
    """Return the index of a router, which is made anew when its routes have changed."""
    index: RouteIndex | None = getattr(router, _ATTRIBUTE, None)
    if index is None or index.router is not router or not index.is_current():
        index = RouteIndex(router)
        setattr(router, _ATTRIBUTE, index)
    return index


def route_path(path: str, root_path: str) -> str:
    """Return the path that a router matches: the decoded one without ``root_path``, as this Starlette cuts it off."""
    return get_route_path({"path": path, "root_path": root_path}) if root_path else path


def method_of(scope: Scope) -> str | None:
    """Return the HTTP method of a request; a handshake has none, whatever stands in its scope."""
    return scope["method"] if scope["type"] == "http" else None
