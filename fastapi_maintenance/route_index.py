"""Which of a router's routes it would select, found by the path instead of by asking one route after the other.

An index knows only routes whose answer depends on type, path and method alone: those of Starlette's and FastAPI's own
classes, with patterns as Starlette writes them. Where a request could come to any other, it says so, and the routes
have to be asked. It matches nothing ahead of the router, and of an included router it reads what FastAPI has built.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from enum import Enum, StrEnum
from typing import Any, NamedTuple

import fastapi.routing as fastapi_routing
from fastapi.applications import FastAPI
from fastapi.routing import APIRoute, APIRouter, APIWebSocketRoute
from starlette._utils import get_route_path
from starlette.applications import Starlette
from starlette.convertors import FloatConvertor, IntegerConvertor, PathConvertor, StringConvertor
from starlette.routing import Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.types import Scope

_ATTRIBUTE = "_fastapi_maintenance_index"

# FastAPI >= 0.137 keeps included routers as one route each; before, it copied their routes.
IncludedRouter: type[Any] | None = getattr(fastapi_routing, "_IncludedRouter", None)
_Context: type[Any] | None = getattr(fastapi_routing, "_EffectiveRouteContext", None)
_CAN_LOOK_INSIDE = (
    IncludedRouter is not None
    and {"_effective_candidates", "_effective_candidates_version"} <= {field.name for field in fields(IncludedRouter)}
    and hasattr(APIRouter, "_get_routes_version")
)


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
        self._tree = _Node()
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
        if _Context is not None and type(route) is _Context:
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
        if _CAN_LOOK_INSIDE and type(included) is IncludedRouter and is_like_stock(included):
            is_latest = included._effective_candidates_version == router._get_routes_version()
            if is_latest and _are_built_of(included._effective_candidates, router.routes):
                for candidate in included._effective_candidates:
                    self._add(candidate, (*routers, router), position, top)
                return
            self._unbuilt.append(included)
        self._place(Leaf(Kind.UNKNOWN, included, None, included, routers, position, top))

    def _place(self, leaf: Leaf) -> None:
        number = len(self._leaves)
        pattern = None if leaf.kind is Kind.UNKNOWN else _pattern_of(leaf.described)
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


class _Pattern(NamedTuple):
    """What a route's regular expression says of a path's segments."""

    segments: tuple[str | None, ...]
    """The first ones; ``None`` is any that is not empty."""
    is_open: bool
    """Whether more follow, at least one, of which nothing is said."""
    is_certain: bool
    """Whether each path that is so matches, and no convertor raises."""

    @property
    def is_literal(self) -> bool:
        """Return whether one path alone is meant."""
        return not self.is_open and None not in self.segments


class _Node:
    """The paths that begin with the same segments."""

    __slots__ = ("_any", "_below", "_by_segment", "_here")

    def __init__(self) -> None:
        self._by_segment: dict[str, _Node] = {}
        self._any: _Node | None = None
        """For any segment that is not empty."""
        self._here: list[int] = []
        """What ends here."""
        self._below: list[int] = []
        """What goes on from here in any way."""

    def add(self, pattern: _Pattern, number: int) -> None:
        """Put a leaf where paths that match its pattern lead to."""
        node = self
        for segment in pattern.segments:
            if segment is None:
                node._any = node._any or _Node()
                node = node._any
            else:
                node = node._by_segment.setdefault(segment, _Node())
        (node._below if pattern.is_open else node._here).append(number)

    def led_to(self, path: str) -> list[int]:
        """Return what a path leads to, in no order."""
        segments = path.split("/")
        numbers: list[int] = []
        others: list[tuple[_Node, int]] = []
        """Other ways to go, with how many segments they have behind them."""
        node, behind = self, 0
        while True:
            following = None
            if behind == len(segments):
                numbers += node._here
            else:
                numbers += node._below
                segment = segments[behind]
                behind += 1
                following = node._by_segment.get(segment)
                if node._any is not None and segment:
                    if following is not None:
                        others.append((node._any, behind))
                    else:
                        following = node._any
            if following is not None:
                node = following
            elif others:
                node, behind = others.pop()
            else:
                return numbers


_WITHOUT_SLASH = {StringConvertor: "[^/]+", IntegerConvertor: "[0-9]+", FloatConvertor: r"[0-9]+(\.[0-9]+)?"}
"""Convertors that take one segment at most, and their expressions."""


def _pattern_of(described: Any) -> _Pattern | None:
    """Return what a route's pattern says, or ``None`` if it is not written as Starlette writes it."""
    try:
        return _read(described)
    except (AttributeError, TypeError):  # it is something else that can match
        return None


def _read(described: Any) -> _Pattern | None:
    expression: re.Pattern[str] = described.path_regex
    text = expression.pattern
    if expression.flags != re.UNICODE or not text.startswith("^") or not text.endswith("$"):
        return None
    rest, template, convertors = text[1:-1], "", []
    for name, convertor in described.param_convertors.items():
        literal, group, rest = rest.partition(f"(?P<{name}>{convertor.regex})")
        if not group or not _is_literal(literal):
            return None
        template += _unescaped(literal) + _PARAMETER
        convertors.append(convertor)
    if not _is_literal(rest):
        return None
    return _pattern(template + _unescaped(rest), convertors)


_PARAMETER = "\0"
"""What stands for a parameter in a template; a path that has it itself is not read."""


def _pattern(template: str, convertors: list[Any]) -> _Pattern | None:
    """Return what a template says, with its parameters' convertors in order."""
    if template.count(_PARAMETER) != len(convertors) or not template.startswith("/"):
        return None
    segments: list[str | None] = []
    is_certain = True
    parts = template.split("/")
    for part in parts:
        if _PARAMETER not in part:
            segments.append(part)
            continue
        convertor = convertors.pop(0)
        kind = type(convertor)
        if part == _PARAMETER and _WITHOUT_SLASH.get(kind) == convertor.regex:
            is_certain = is_certain and kind is StringConvertor
            segments.append(None)
            continue
        takes_the_rest = kind is PathConvertor and convertor.regex == ".*" and template.endswith("/" + _PARAMETER)
        is_last = len(segments) == len(parts) - 1
        return _Pattern(tuple(segments), True, is_certain and takes_the_rest and is_last)
    return _Pattern(tuple(segments), False, is_certain)


def _unescaped(literal: str) -> str:
    return re.sub(r"\\(.)", r"\1", literal, flags=re.DOTALL)


def _is_literal(expression: str) -> bool:
    """Return whether an expression is what ``re.escape`` makes of some text."""
    return re.escape(_unescaped(expression)) == expression


def _kind_of(route: Any) -> Kind:
    """Return what a route is for, if it matches like those of Starlette and FastAPI do."""
    if _function_of(route, "matches") not in _STOCK_MATCHES:
        return Kind.UNKNOWN
    if isinstance(route, Route):
        return Kind.HTTP
    return Kind.MOUNT if isinstance(route, Mount) else Kind.WEBSOCKET


_STOCK_MATCHES = {each.matches for each in (Route, WebSocketRoute, Mount, APIRoute, APIWebSocketRoute)}


def is_included(route: Any) -> bool:
    """Return whether a route is a router that FastAPI keeps as it was included."""
    return IncludedRouter is not None and isinstance(route, IncludedRouter)


def is_like_stock(included: Any) -> bool:
    """Return whether an included router matches and handles requests as FastAPI's own do."""
    return (
        _function_of(included, "matches") is IncludedRouter.matches  # type: ignore[union-attr]
        and _function_of(included.original_router, "matches") is APIRouter.matches
        and has_stock_handle(included.original_router)
    )


def has_stock_handle(route: Any) -> bool:
    """Return whether a route, or an included router, does with a request what Starlette's and FastAPI's own do."""
    return _is_of(_HANDLING, "handle", _function_of(route, "handle"))


def has_stock_call(app: Starlette | Router) -> bool:
    """Return whether an app or router is called as Starlette's and FastAPI's own are: its middleware comes first."""
    # Of a call, Python asks the class alone.
    return _is_of(_APPS if isinstance(app, Starlette) else _ROUTERS, "__call__", type(app).__call__)


def has_stock_app(router: Router) -> bool:
    """Return whether behind its own middleware, a router does what Starlette's and FastAPI's own do."""
    return _is_of(_ROUTERS, "app", _function_of(router, "app"))


def _is_of(classes: tuple[type[Any], ...], method: str, function: Any) -> bool:
    """Return whether a function is the method that one of these classes has now.

    Now, because instrumentation replaces methods of Starlette's and FastAPI's classes at any time, by wrappers.
    """
    for each in classes:  # noqa: SIM110 - `any` takes twice as long
        if getattr(each, method) == function:
            return True
    return False


_APPS = (FastAPI, Starlette)
_ROUTERS = (APIRouter, Router)
_HANDLING = (APIRoute, Route, Mount, Host, *([APIRouter] if hasattr(APIRouter, "handle") else []))  # FastAPI >= 0.137


def _function_of(carrier: Any, method: str) -> Any:
    """Return the function behind a method, or ``None`` where something else was put in its place."""
    # Not `vars()`: Python 3.11 reads all attributes of an object more slowly once it was asked for its dict.
    return getattr(getattr(carrier, method, None), "__func__", None)


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
