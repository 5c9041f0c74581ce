"""The index: it finds what asking one route after the other finds, and says where it can't know."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import fastapi.routing
import pytest
from fastapi import APIRouter, FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute, compile_path
from starlette.types import Scope
from starlette.websockets import WebSocket

from fastapi_maintenance.routing import index
from fastapi_maintenance.routing.index import UNSURE, Found, RouteIndex, Unsure, index_of
from tests.support.asgi import get, scope_of

has_included_routers = pytest.mark.skipif(
    not hasattr(fastapi.routing, "_IncludedRouter"), reason="FastAPI copies the routes of included routers"
)


async def endpoint(request: Request) -> Response:
    return PlainTextResponse("one")


async def other(request: Request) -> Response:
    return PlainTextResponse("other")


async def socket(websocket: WebSocket) -> None: ...


def by_asking(router: Router, view: Scope) -> tuple[BaseRoute, Match] | None:
    """Return what a router selects, found as the router finds it."""
    partial = None
    for route in router.routes:
        match, _ = route.matches(view)
        if match is Match.FULL:
            return route, match
        if match is Match.PARTIAL and partial is None:
            partial = route, match
    return partial


def found(router: Router, path: str, method: str = "GET", **more: Any) -> Any:
    """Return the route that the index finds, or what it says instead."""
    answer = index_of(router).find(scope_of(path, method), **more)
    return answer.leaf.route if isinstance(answer, Found) else answer


# What it finds

NAMES = ("a", "b", "a.b", "x-1", "ü")
PARAMETERS = ("{p}", "{p:int}", "{p:float}", "{p:uuid}", "{p:path}", "a{p}", "{p:int}b", "{p}.{q}", "{p:path}a")
SEGMENTS = st.sampled_from(("", *NAMES, *PARAMETERS))
TEMPLATES = st.lists(SEGMENTS, min_size=1, max_size=4).map("/".join).map(lambda rest: "/" + rest)
VALUES = ("", *NAMES, "7", "1.5", "7b", "x.y", "a/b", "٣", "00000000-0000-0000-0000-000000000000")
METHODS = ("GET", "POST", "HEAD", "PURGE")


def unique(template: str) -> str:
    """Return a template whose parameters have names of their own."""
    numbers = iter(range(20))
    return re.sub(r"\{[pq]", lambda match: f"{match[0]}{next(numbers)}", template)


def made(template: str, kind: str) -> BaseRoute:
    template = unique(template)
    if kind == "socket":
        return WebSocketRoute(template, socket)
    if kind == "mount":
        return Mount(template, app=PlainTextResponse("mounted"))
    return Route(template, endpoint, methods=[kind])


ROUTES = st.lists(
    st.builds(made, TEMPLATES, st.sampled_from(("GET", "GET", "POST", "socket", "mount"))), min_size=1, max_size=8
)
PATHS = st.lists(st.sampled_from(VALUES), min_size=1, max_size=5).map("/".join).map(lambda rest: "/" + rest)


@given(routes=ROUTES, paths=st.lists(PATHS, min_size=1, max_size=8), method=st.sampled_from((*METHODS, "WEBSOCKET")))
@settings(max_examples=400, deadline=None)
def test_it_finds_what_asking_each_route_finds(routes: list[BaseRoute], paths: list[str], method: str) -> None:
    """In declaration order, with the same kind of match; it is never unsure about stock routes."""
    router = Router(routes)
    for path in paths:
        view = scope_of(path, method) if method != "WEBSOCKET" else {**scope_of(path), "type": "websocket"}
        answer = index_of(router).find(view)
        assert not isinstance(answer, Unsure)
        assert (answer and (answer.leaf.route, answer.match)) == by_asking(router, view)
        first = index_of(router).find(view, first_match=True)
        assert (first is not None) is any(route.matches(view)[0] is not Match.NONE for route in routes)
        certain = index_of(router).find(view, asks=False)
        assert certain is UNSURE or (certain and certain[:2]) == (answer and answer[:2])


def test_it_finds_below_the_root_path() -> None:
    router = Router([Route("/a", endpoint)])
    assert isinstance(index_of(router).find({**scope_of("/in/a"), "root_path": "/in"}), Found)
    assert index_of(router).find({**scope_of("/in/a"), "root_path": "/on"}) is None


def test_the_tree_has_all_ways_that_a_path_may_lead() -> None:
    """Names and parameters of one segment alike, in whatever order they were declared."""
    templates = ["/{p}/{q}/c", "/a/{p}/c", "/{p}/b/c", "/a/b/{p}", "/{p:path}", "/a/b/c"]
    for begin in range(len(templates)):
        routes = [Route(template, endpoint) for template in templates[begin:] + templates[:begin]]
        assert found(Router(routes), "/a/b/c") is routes[0]


def test_a_mount_tells_what_it_passes_on() -> None:
    router = Router([Mount("/in/{name}", app=PlainTextResponse("mounted"))])
    answer = index_of(router).find(scope_of("/in/a/b"))
    assert isinstance(answer, Found)
    assert answer.child_scope["root_path"] == "/in/a"
    assert found(router, "/in/a/b", asks=False) is UNSURE
    assert found(router, "/in/a") is None


# What it can't know


class Picky(Route):
    """Matches by what the index doesn't read."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (Match.FULL, {}) if scope["headers"] else (Match.NONE, {})


class Unread(BaseRoute):
    """Has no pattern."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return Match.NONE, {}


def with_another_method() -> Route:
    route = Route("/x", endpoint)
    route.matches = lambda scope: (Match.NONE, {})  # type: ignore[method-assign]
    return route


def with_pattern(pattern: str, flags: int = 0) -> Route:
    route = Route("/x/{p}", endpoint)
    route.path_regex = re.compile(pattern, flags)
    return route


class Matching:
    """What matches as a pattern does, by rules of its own."""

    def match(self, path: str) -> re.Match[str] | None:
        return re.match("/x/(?P<p>y)", path)


def with_other_pattern(pattern: Any) -> Route:
    route = Route("/x/{p}", endpoint)
    route.path_regex = pattern
    return route


UNREADABLE: dict[str, Callable[[], BaseRoute]] = {
    "a host": lambda: Host("x.test", app=PlainTextResponse("x")),
    "another matches": lambda: Picky("/x", endpoint),
    "another matches of one": with_another_method,
    "no pattern": Unread,
    "no case": lambda: with_pattern("^/x/(?P<p>[^/]+)$", re.IGNORECASE),
    "no beginning": lambda: with_pattern("/x/(?P<p>[^/]+)$"),
    "no end": lambda: with_pattern("^/x/(?P<p>[^/]+)"),
    "no slash": lambda: with_pattern("^(?P<p>[^/]+)$"),
    "another group": lambda: with_pattern("^/x/(?P<p>[^/]+)/(a|b)$"),
    "another parameter": lambda: with_pattern("^/x/(?P<p>.+)$"),
    "an expression before": lambda: with_pattern("^/x+/(?P<p>[^/]+)$"),
    "a pattern of another kind": lambda: with_other_pattern("^/x/y$"),
    "something that matches": lambda: with_other_pattern(Matching()),
    "a NUL": lambda: with_pattern("^/x\0/(?P<p>[^/]+)$"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_it_is_unsure_behind_what_it_can_not_read(name: str) -> None:
    """And sure of what the router selects before."""
    before, behind = Route("/before", endpoint), Route("/behind", endpoint)
    router = Router([before, UNREADABLE[name](), behind])
    assert found(router, "/before") is before
    assert found(router, "/behind") is UNSURE
    assert found(router, "/nowhere") is UNSURE


def test_it_is_unsure_of_a_path_with_a_line_break() -> None:
    """Which the end of a pattern lets pass."""
    router = Router([Route("/a", endpoint)])
    assert router.routes[0].matches(scope_of("/a\n"))[0] is Match.FULL
    assert found(router, "/a\n") is UNSURE


def test_a_convertor_raises_what_it_raises() -> None:
    router = Router([Route("/{p:int}", endpoint)])
    with pytest.raises(ValueError, match="digits"):
        index_of(router).find(scope_of("/" + "7" * 5000))
    assert found(router, "/7", asks=False) is UNSURE


# When it is made anew


def test_it_stays_while_the_routes_do() -> None:
    router = Router([Route("/a", endpoint)])
    assert index_of(router) is index_of(router)


CHANGES: dict[str, Callable[[Router], object]] = {
    "append": lambda router: router.routes.append(Route("/new", endpoint)),
    "insert": lambda router: router.routes.insert(0, Route("/new", endpoint)),
    "set": lambda router: router.routes.__setitem__(1, Route("/new", endpoint)),
    "another list": lambda router: setattr(router, "routes", [Route("/new", endpoint)]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_it_notices_a_changed_list(name: str) -> None:
    router = Router([Route("/a", endpoint), Route("/b", endpoint)])
    assert found(router, "/new") is None
    CHANGES[name](router)
    assert found(router, "/new").path == "/new"


def test_a_route_that_is_equal_is_another_one() -> None:
    """Lists of equal routes are equal."""
    router = Router([Route("/a", endpoint)])
    before = router.routes
    assert found(router, "/a") is before[0]
    router.routes = [Route("/a", endpoint)]
    assert before == router.routes
    assert found(router, "/a") is UNSURE


def test_a_route_with_another_pattern_is_another_one() -> None:
    """It is found where it was put into the tree, and has to be asked."""
    route = Route("/x", endpoint)
    router = Router([route])
    assert found(router, "/x") is route
    route.path_regex, route.path_format, route.param_convertors = compile_path("/y")
    assert found(router, "/x") is UNSURE


def test_a_list_that_has_just_become_shorter_is_no_error() -> None:
    """Another thread can take a route away between two looks."""
    router = Router([Route("/a", endpoint), Route("/b", endpoint)])
    index = index_of(router)
    router.routes.pop()
    assert index.find(scope_of("/b")) is UNSURE


def test_a_copied_router_has_an_index_of_its_own() -> None:
    router = Router([Route("/a", endpoint)])
    index_of(router)
    copied = copy.copy(router)
    copied.routes = [Route("/b", other)]
    assert found(copied, "/b") is copied.routes[0]
    assert found(router, "/a") is router.routes[0]


# Included routers


def including(prefix: str = "/in") -> tuple[FastAPI, APIRouter]:
    app, router = FastAPI(openapi_url=None), APIRouter()
    router.get("/one")(endpoint)
    app.include_router(router, prefix=prefix)
    return app, router


@has_included_routers
@pytest.mark.anyio
async def test_an_included_router_is_known_once_fastapi_has_built_it() -> None:
    """Reading it before would hide from FastAPI what is added until then."""
    app, router = including()
    assert found(app.router, "/in/one") is UNSURE
    router.mount("/late", PlainTextResponse("late"))
    await get(app, "/in/one")
    assert found(app.router, "/in/one") is router.routes[0]
    assert (await get(app, "/in/late/x")).text == "late"
    assert isinstance(index_of(app.router).find(scope_of("/in/late/x")), Found)


@has_included_routers
@pytest.mark.anyio
async def test_what_fastapi_has_not_noticed_of_an_included_router_is_asked() -> None:
    """It goes by what it has built, until it is told of a change in its own way."""
    app, router = including()
    await get(app, "/in/one")
    router.mount("/late", PlainTextResponse("late"))
    assert (await get(app, "/in/late/x")).status_code == 404
    assert found(app.router, "/in/late/x") is UNSURE
    router.get("/two")(endpoint)
    assert (await get(app, "/in/late/x")).text == "late"
    assert isinstance(index_of(app.router).find(scope_of("/in/late/x")), Found)


@has_included_routers
@pytest.mark.anyio
async def test_routers_in_included_routers_are_known_with_their_prefixes() -> None:
    """Also where one of them is included twice."""
    app, outer, inner = FastAPI(openapi_url=None), APIRouter(), APIRouter(prefix="/i")
    inner.get("/{item}")(endpoint)
    inner.add_route("/plain/{item}", endpoint)
    inner.add_websocket_route("/socket", socket)
    hosts = APIRouter()
    hosts.host("x.test", PlainTextResponse("x"))
    outer.include_router(inner, prefix="/a")
    outer.include_router(inner, prefix="/b")
    outer.include_router(hosts)
    outer.include_router(inner, prefix="/c")
    app.include_router(outer, prefix="/o")
    await get(app, "/nowhere")
    for at in ("/o/a/i", "/o/b/i"):
        answer = index_of(app.router).find(scope_of(f"{at}/7"))
        assert isinstance(answer, Found)
        assert answer.leaf.routers == (app.router, outer, inner)
        assert answer.leaf.route is inner.routes[0]
    # A router's prefix is for FastAPI's routes; and a host may have anything that comes behind it.
    assert found(app.router, "/o/a/plain/7").path == "/o/a/plain/{item}"
    assert found(app.router, "/o/c/plain/7") is UNSURE


@has_included_routers
def test_an_included_router_with_matches_of_its_own_is_asked() -> None:
    class Gated(APIRouter):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            return super().matches(scope)

    app, router = FastAPI(openapi_url=None), Gated()
    router.get("/one")(endpoint)
    app.include_router(router)
    assert found(app.router, "/one") is UNSURE


@has_included_routers
@pytest.mark.anyio
@pytest.mark.parametrize("method", ["matches", "handle"])
async def test_an_included_router_that_gets_a_method_of_its_own_is_asked(method: str) -> None:
    """Until then FastAPI had built it."""
    app, router = including()
    await get(app, "/in/one")
    setattr(router, method, lambda scope: (Match.NONE, {}))
    assert RouteIndex(app.router).find(scope_of("/in/one")) is UNSURE


@has_included_routers
@pytest.mark.anyio
async def test_a_router_that_is_empty_is_asked_until_fastapi_has_built_it() -> None:
    """It builds it when it comes there first, which is to stay so."""
    app, router = FastAPI(openapi_url=None), APIRouter()
    app.include_router(router, prefix="/in")
    assert found(app.router, "/in/one") is UNSURE
    await get(app, "/in/one")
    assert found(app.router, "/in/one") is None


@has_included_routers
@pytest.mark.anyio
async def test_a_route_that_comes_deep_inside_is_known_at_the_next_request_but_one() -> None:
    """FastAPI builds all around it anew."""
    app, outer, inner = FastAPI(openapi_url=None), APIRouter(), APIRouter()
    inner.get("/one")(endpoint)
    outer.include_router(inner)
    app.include_router(outer)
    await get(app, "/one")
    inner.get("/two")(endpoint)
    assert found(app.router, "/two") is UNSURE
    await get(app, "/two")
    assert found(app.router, "/two") is inner.routes[1]


@has_included_routers
@pytest.mark.anyio
async def test_included_routers_are_asked_where_fastapi_keeps_them_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    app, _ = including()
    await get(app, "/in/one")
    monkeypatch.setattr(index, "CAN_LOOK_INSIDE", False)
    assert RouteIndex(app.router).find(scope_of("/in/one")) is UNSURE


@pytest.mark.skipif(not hasattr(FastAPI, "frontend"), reason="FastAPI has no frontends")
def test_it_says_whether_there_may_be_a_frontend(tmp_path: Any) -> None:
    """Of the router or one that it includes, whenever it was added."""
    app, router = including()
    index = index_of(app.router)
    assert not index.has_frontends()
    router.frontend("/site", directory=tmp_path)
    assert index.has_frontends()
