"""What the router would run: one kind of route after the other, and what happens when FastAPI can't be read."""

from __future__ import annotations

import copy
import functools
from abc import ABCMeta
from collections.abc import Callable, Iterator
from typing import Any

import fastapi
import fastapi.routing
import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    UnsupportedFastAPI,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    route_index,
    routes,
)
from fastapi_maintenance.policy import Mark
from fastapi_maintenance.route_index import route_path
from fastapi_maintenance.routes import Target, _update, check_fastapi, declared_path, resolve, root_of

from .asgi import get, handshake, scope_of, status

has_included_routers = pytest.mark.skipif(
    not hasattr(fastapi.routing, "_IncludedRouter"), reason="FastAPI copies the routes of included routers"
)
knows_its_methods = pytest.mark.skipif(
    not routes._DISPATCH_KNOWS_ITS_METHODS, reason="this Starlette looks for an attribute of any name"
)
has_frontends = pytest.mark.skipif(not hasattr(FastAPI, "frontend"), reason="FastAPI has no frontends")


@pytest.fixture(autouse=True)
def _check_anew() -> Iterator[None]:
    """What one test finds out about FastAPI is not for the next one."""
    check_fastapi.cache_clear()
    yield
    check_fastapi.cache_clear()


def endpoint(name: str = "endpoint") -> Any:
    """Return a new endpoint."""

    async def function() -> str:
        return name

    function.__name__ = name
    return function


async def opaque(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("opaque")(scope, receive, send)


def target(app: ASGIApp, path: str, method: str = "GET", **more: Any) -> Target:
    return resolve(app, scope_of(path, method, **more))


def proxied(app: FastAPI) -> FastAPI:
    """Give an app a root path of its own; the argument for it is deprecated."""
    app.root_path = "/proxied"
    return app


def runs(app: ASGIApp, path: str, method: str = "GET", **more: Any) -> Any:
    """Return what would run, ``None`` for nothing."""
    found = target(app, path, method, **more)
    assert found.runs or found.endpoint is None
    return found.endpoint if found.runs else None


# Routes of a FastAPI app


def test_a_route_runs_its_endpoint() -> None:
    """For its methods; other methods, paths and a missing slash run nothing."""
    app, one = FastAPI(), endpoint()
    app.get("/items/{id}")(one)
    assert runs(app, "/items/1") is one
    assert runs(app, "/items/1", "POST") is None
    assert runs(app, "/items/1", "HEAD") is None
    assert runs(app, "/items/1", "OPTIONS") is None
    assert runs(app, "/items/1/") is None
    assert runs(app, "/items") is None
    assert runs(app, "/ITEMS/1") is None


def test_the_first_full_match_runs() -> None:
    """In declaration order, whatever a later one would match, and before any partial one."""
    app, one, other, posted = FastAPI(), endpoint(), endpoint(), endpoint()
    app.post("/users/{id}")(posted)
    app.get("/users/me")(one)
    app.get("/users/{id}")(other)
    assert runs(app, "/users/me") is one
    assert runs(app, "/users/you") is other
    assert runs(app, "/users/me", "POST") is posted
    assert runs(app, "/users/me", "PUT") is None


def test_included_routers_run_their_endpoints_under_their_prefixes() -> None:
    """However deep they are included, and however often."""
    app, outer, inner, one = FastAPI(), APIRouter(prefix="/outer/{tenant}"), APIRouter(prefix="/inner"), endpoint()
    inner.get("/{item}")(one)
    outer.include_router(inner, prefix="/a")
    outer.include_router(inner, prefix="/b")
    app.include_router(outer)
    app.include_router(inner, prefix="/again")
    for path in ("/outer/1/a/inner/2", "/outer/1/b/inner/2", "/again/inner/2"):
        assert runs(app, path) is one
        assert runs(app, path, "DELETE") is None
        assert runs(app, path + "/") is None
    for path in ("/inner/2", "/outer/1/inner/2", "/outer/1/a/inner", "/again"):
        assert runs(app, path) is None


def test_a_route_added_to_an_included_router_is_seen_when_the_router_sees_it() -> None:
    """Resolving before it is added neither hides it nor makes it up."""
    asked, unasked = FastAPI(), FastAPI()
    router, late = APIRouter(), endpoint()
    router.get("/early")(endpoint())
    for app in (asked, unasked):
        app.include_router(router, prefix="/in")
    runs(asked, "/in/late")
    router.get("/late")(late)
    assert runs(asked, "/in/late") is runs(unasked, "/in/late")


def test_routes_added_to_the_app_later_are_seen() -> None:
    """The tree is read anew for each request."""
    app, late = FastAPI(), endpoint()
    assert runs(app, "/late") is None
    app.get("/late")(late)
    assert runs(app, "/late") is late


def test_a_callable_and_a_partial_are_endpoints() -> None:
    """What stands in the decorator's place is the endpoint."""

    class Called:
        async def __call__(self) -> str:
            return "called"

    app, called, partial = FastAPI(), Called(), functools.partial(endpoint())
    app.add_api_route("/called", called)
    app.add_api_route("/partial", partial)
    assert runs(app, "/called") is called
    assert runs(app, "/partial") is partial


def test_a_users_route_class_is_asked_itself() -> None:
    """Its own ``matches`` decides, included or not."""

    class Versioned(APIRoute):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            if (b"x-version", b"2") not in scope["headers"]:
                return Match.NONE, {}
            return super().matches(scope)

    router, new, old = APIRouter(route_class=Versioned), endpoint("new"), endpoint("old")
    router.get("/items")(new)
    app = FastAPI()
    app.include_router(router)
    app.get("/items")(old)
    assert runs(app, "/items", headers={"X-Version": "2"}) is new
    assert runs(app, "/items") is old


def test_a_users_handle_runs_whatever_the_method() -> None:
    """Who overrides ``handle`` may answer what the stock one answers with 405."""

    class Anything(APIRoute):
        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            await opaque(scope, receive, send)

    router, one = APIRouter(route_class=Anything), endpoint()
    router.get("/items")(one)
    app = FastAPI()
    app.include_router(router)
    assert runs(app, "/items") is one
    assert runs(app, "/items", "POST") is one


def test_a_handle_of_one_route_runs_whatever_the_method() -> None:
    """Who puts one into a route may answer anything."""
    app, one = FastAPI(), endpoint()
    app.get("/items")(one)
    app.router.routes[-1].handle = opaque  # type: ignore[method-assign]
    assert runs(app, "/items", "POST") is one


@pytest.mark.skipif(not hasattr(APIRouter, "handle"), reason="FastAPI copies the routes of included routers")
def test_a_routers_handle_runs_whatever_its_routes_do() -> None:
    """405 or nothing at all, wherever the router claims the request."""

    class Own(APIRouter):
        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            await opaque(scope, receive, send)

    class Claiming(Own):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            return Match.FULL, {}

    for kind, path in ((Own, "/items"), (Claiming, "/nowhere")):
        app, router, one = FastAPI(), kind(), endpoint()
        router.get("/items")(one)
        app.include_router(router)
        assert runs(app, path, "POST") is router
        assert runs(app, "/items") is one


def test_a_router_behind_a_route_sees_the_parameters() -> None:
    """A route of a user's own may go by them."""

    class Tenant(BaseRoute):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            return (Match.FULL, {}) if scope["path_params"] == {"tenant": "acme"} else (Match.NONE, {})

    app = Starlette(routes=[Route("/{tenant}", Router([Tenant()]))])
    assert target(app, "/acme").runs
    assert not target(app, "/other").runs


def test_an_app_runs_the_router_that_its_middleware_stack_was_built_around() -> None:
    """One that it gets later is not asked; one before is."""
    old, new = endpoint("old"), endpoint("new")
    inner = Starlette(routes=[Route("/early", old)])
    app = Starlette(routes=[Mount("/in", inner)])
    inner.router = Router([Route("/old", old)])
    assert runs(app, "/in/early") is None
    assert runs(app, "/in/old") is old
    inner.middleware_stack = inner.build_middleware_stack()
    inner.router = Router([Route("/new", new)])
    assert runs(app, "/in/old") is old
    assert runs(app, "/in/new") is None


def test_a_route_class_that_defers_to_the_stock_handle_is_no_stock_one() -> None:
    """What it does before cannot be known, so something runs."""

    class Logged(Route):
        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            await super().handle(scope, receive, send)

    app, one = FastAPI(), endpoint()
    app.router.routes.append(Logged("/items", one, methods=["GET"]))
    assert runs(app, "/items", "POST") is one


def test_a_websocket_route_runs_for_handshakes_only() -> None:
    """And an HTTP route for requests only."""
    app, socket, page = FastAPI(), endpoint("socket"), endpoint("page")
    app.websocket("/ws")(socket)
    app.get("/page")(page)
    router, included = APIRouter(prefix="/in"), endpoint("included")
    router.websocket("/{room}")(included)
    app.include_router(router)
    assert runs(app, "/ws", kind="websocket") is socket
    assert runs(app, "/in/1", kind="websocket") is included
    for path in ("/page", "/none", "/ws/", "/in/1/"):
        assert runs(app, path, kind="websocket") is None
    assert runs(app, "/ws") is None


# Routes of Starlette


def test_a_starlette_route_answers_head_as_well() -> None:
    """Starlette adds HEAD to GET, FastAPI does not."""

    async def one(request: Request) -> Response:
        return PlainTextResponse("one")

    app = FastAPI()
    app.add_route("/one", one)
    app.router.routes.append(Route("/any", opaque))
    assert runs(app, "/one") is one
    assert runs(app, "/one", "HEAD") is one
    assert runs(app, "/one", "POST") is None
    assert runs(app, "/any", "HEAD") is opaque


class Page(HTTPEndpoint):
    """A class with a method for each HTTP method."""

    async def get(self, request: Request) -> Response:
        return PlainTextResponse("page")

    @force_maintenance_mode_on
    async def post(self, request: Request) -> Response:
        return PlainTextResponse("posted")


@pytest.mark.parametrize(
    ("method", "expected", "mark"),
    [
        ("GET", Page, Mark.OFF),
        ("HEAD", Page, Mark.OFF),
        ("POST", Page, Mark.ON),
        ("PUT", None, None),
        ("OPTIONS", None, None),
        pytest.param("DISPATCH", None, None, marks=knows_its_methods),
    ],
)
def test_an_endpoint_class_runs_the_methods_that_it_has(method: str, expected: Any, mark: Mark | None) -> None:
    """HEAD falls back to ``get``, others are 405; a method's mark counts more than the class's."""
    page = force_maintenance_mode_off(type("Marked", (Page,), {}))
    app = FastAPI()
    app.router.routes.append(Route("/page", page))
    found = target(app, "/page", method)
    assert (found.endpoint, found.mark) == (page if expected else None, mark)
    assert found.runs is (expected is not None)


def test_a_head_method_of_an_endpoint_class_counts_for_head() -> None:
    """There is no fallback then."""

    class Headed(Page):
        @force_maintenance_mode_on
        async def head(self, request: Request) -> Response:
            return Response()

    app = FastAPI()
    app.router.routes.append(Route("/page", Headed))
    assert target(app, "/page", "HEAD").mark is Mark.ON
    assert target(app, "/page").mark is None


@pytest.mark.parametrize("metaclass", [type, ABCMeta])
def test_an_endpoint_class_that_overrides_nothing_answers_405_itself(metaclass: type) -> None:
    """What it is made by matters only where that calls it in its own way."""
    page = metaclass("Stock", (Page,), {})
    app = FastAPI()
    app.router.routes.append(Route("/page", page))
    assert runs(app, "/page", "PUT") is None
    assert runs(app, "/page") is page


def test_an_endpoint_class_whose_class_is_called_in_its_own_way_runs_always() -> None:
    """It may return anything."""

    class Meta(type):
        def __call__(cls, *arguments: Any) -> Any:
            return opaque(*arguments)

    page = Meta("Own", (Page,), {})
    app = FastAPI()
    app.router.routes.append(Route("/page", page))
    assert runs(app, "/page", "PUT") is page


@pytest.mark.parametrize(
    "method",
    ["dispatch", "method_not_allowed", "__init__", "__new__", "__await__", "__getattr__", "__getattribute__"],
)
def test_an_endpoint_class_with_a_dispatch_of_its_own_runs_always(method: str) -> None:
    """What it does with a method that it has not is its own affair."""

    def own(self: object, *arguments: object) -> None: ...

    page = type("Own", (Page,), {method: own})
    app = FastAPI()
    app.router.routes.append(Route("/page", page))
    assert runs(app, "/page", "PUT") is page


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "OPTIONS", "DISPATCH"])
@pytest.mark.anyio
async def test_an_endpoint_class_is_judged_as_it_answers(method: str) -> None:
    """Where it answers 405, nothing is said to run, and the other way round."""
    app = FastAPI()
    app.router.routes.append(Route("/page", Page))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        answer = await client.request(method, "/page")
    assert (runs(app, "/page", method) is None) is (answer.status_code == 405)


def test_a_websocket_endpoint_class_runs() -> None:
    """As a whole."""

    class Socket(WebSocketEndpoint): ...

    app = FastAPI(routes=[WebSocketRoute("/ws", force_maintenance_mode_off(Socket))])
    found = target(app, "/ws", kind="websocket")
    assert (found.runs, found.endpoint, found.mark) == (True, Socket, Mark.OFF)


def test_a_route_to_an_app_leads_into_the_app() -> None:
    """An object with routes is asked what it would run."""
    inner, one = Starlette(), endpoint()
    inner.router.routes.append(Route("/items", one))
    app = Starlette(routes=[Route("/items", inner), Route("/opaque", Opaque())])
    assert runs(app, "/items") is one
    assert isinstance(runs(app, "/opaque"), Opaque)


class Opaque:
    """An ASGI app that does not tell what it would run."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await opaque(scope, receive, send)


# Mounts and hosts


@pytest.mark.parametrize("make", [FastAPI, Starlette, Router, APIRouter])
def test_a_mounted_app_is_entered(make: Any) -> None:
    """Its own 404 and 405 run nothing; deeper mounts alike."""
    inner, middle, one = make(), Starlette(), endpoint()
    (inner if isinstance(inner, Router) else inner.router).routes.append(Route("/items", one, methods=["POST"]))
    middle.mount("/inner", inner)
    app = FastAPI()
    app.mount("/middle/{tenant}", middle)
    path = "/middle/1/inner/items"
    assert runs(app, path, "POST") is one
    assert runs(app, path) is None
    assert runs(app, "/middle/1/items", "POST") is None
    assert runs(app, "/middle/1/inner/none", "POST") is None


def test_an_opaque_mounted_app_is_an_endpoint() -> None:
    """It runs for all below its path, and for websockets too."""
    app = FastAPI()
    app.mount("/opaque", opaque)
    for path in ("/opaque/", "/opaque/a/b"):
        assert runs(app, path, "PURGE") is opaque
    assert runs(app, "/opaque/a", kind="websocket") is opaque
    assert runs(app, "/opaquer") is None


def test_a_mount_below_an_included_router_is_entered() -> None:
    """With the prefix in front, in those FastAPI versions that serve it."""
    router, files = APIRouter(), force_maintenance_mode_off(StaticFiles(directory="."))
    router.mount("/files", files)
    app = FastAPI()
    app.include_router(router, prefix="/in")
    expected = files if hasattr(fastapi.routing, "_IncludedRouter") else None
    assert runs(app, "/in/files/a") is expected


def test_a_host_is_entered_for_its_requests() -> None:
    """Others go to what comes after it."""
    inner, one, other = FastAPI(), endpoint("one"), endpoint("other")
    inner.get("/items")(one)
    app = FastAPI()
    app.host("api.example", inner)
    app.get("/items")(other)
    assert runs(app, "/items", headers={"Host": "api.example"}) is one
    assert runs(app, "/none", headers={"Host": "api.example"}) is None
    assert runs(app, "/items", headers={"Host": "www.example"}) is other


def test_a_users_mount_with_a_handle_of_its_own_is_an_endpoint() -> None:
    """Nobody knows where it leads."""

    class Own(Mount):
        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            await opaque(scope, receive, send)

    inner = FastAPI()
    app = FastAPI(routes=[Own("/own", inner)])
    found = target(app, "/own/none")
    assert (found.runs, found.endpoint) == (True, inner)


def test_a_users_own_kind_of_route_runs_when_it_matches() -> None:
    """Fully or in part: its ``handle`` is called either way."""

    class Own(BaseRoute):
        def __init__(self, match: Match) -> None:
            self.match = match

        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            return self.match, {}

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...  # or it can't be marked

    for match, does_run in ((Match.FULL, True), (Match.PARTIAL, True), (Match.NONE, False)):
        app = Starlette(routes=[force_maintenance_mode_on(Own(match))])
        found = target(app, "/any")
        assert (found.runs, found.mark) == ((True, Mark.ON) if does_run else (False, None))


# Behind the routes


def test_a_slash_redirect_runs_nothing() -> None:
    """In either direction, mounted or not; a router without redirects answers 404, which is nothing as well."""
    app, inner = FastAPI(), Starlette()
    app.get("/with/")(endpoint())
    app.get("/without")(endpoint())
    inner.router.routes.append(Route("/without", endpoint()))
    app.mount("/inner", inner)
    for path in ("/with", "/without/", "/inner/without/", "/inner"):
        assert runs(app, path) is None
    app.router.redirect_slashes = False
    assert runs(app, "/with") is None


def test_a_custom_default_runs_for_what_nothing_matches() -> None:
    """After the slash redirects."""
    app = FastAPI()
    app.get("/items")(endpoint())
    app.router.default = opaque
    assert runs(app, "/none") is opaque
    assert runs(app, "/items", "POST") is None
    assert runs(app, "/items/") is None
    assert runs(app, "/") is opaque
    assert runs(app, "/items/", kind="websocket") is opaque
    app.router.redirect_slashes = False
    assert runs(app, "/items/") is opaque


def test_a_custom_default_may_be_an_app() -> None:
    """It is entered like any other, and may have nothing either."""
    behind, one = FastAPI(), endpoint()
    behind.get("/legacy")(one)
    app = FastAPI()
    app.router.default = force_maintenance_mode_off(behind)
    found = target(app, "/legacy")
    assert (found.endpoint, found.mark) == (one, Mark.OFF)
    assert runs(app, "/none") is None


def test_the_default_of_a_mounted_router_runs() -> None:
    """A router of Starlette's has one as well."""
    router = Router(routes=[Route("/items", endpoint())], default=opaque)
    app = FastAPI()
    app.mount("/in", router)
    assert runs(app, "/in/none") is opaque
    assert runs(app, "/in/items/") is None


@has_frontends
def test_a_frontend_runs_behind_the_routes_and_redirects(tmp_path: Any) -> None:
    """For the methods that it has, at its path only; included ones under their prefix."""
    (tmp_path / "index.html").write_text("home")
    app, router, one = FastAPI(), APIRouter(prefix="/in"), endpoint()
    app.get("/site/api")(one)
    router.frontend("/app", directory=tmp_path)
    app.include_router(router)
    app.frontend("/site", directory=tmp_path)
    assert runs(app, "/site/api") is one
    assert runs(app, "/site/api/") is None
    for path in ("/site", "/site/index.html", "/in/app/index.html"):
        assert runs(app, path) is not None
        assert runs(app, path, "POST") is None
        assert runs(app, path, kind="websocket") is None
    assert runs(app, "/none") is None
    app.router.default = opaque
    assert runs(app, "/none") is opaque


@has_included_routers
def test_an_included_router_with_matches_of_its_own_is_believed() -> None:
    """When it claims what none of its routes has, its default answers."""

    class Greedy(APIRouter):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            return Match.FULL, {}

    router, one = Greedy(), endpoint()
    router.get("/items")(one)
    app = FastAPI()
    app.include_router(router)
    app.get("/other")(endpoint())
    assert runs(app, "/items") is one
    assert runs(app, "/other") is None
    router.default = opaque
    assert runs(app, "/other") is opaque


# Marks


def test_the_innermost_mark_counts() -> None:
    """Endpoint over class, over inner app, over outer app."""
    inner, marked, unmarked = FastAPI(), force_maintenance_mode_on(endpoint()), endpoint()
    inner.get("/marked")(marked)
    inner.get("/unmarked")(unmarked)
    app = FastAPI()
    app.mount("/inner", force_maintenance_mode_off(inner))
    app.get("/direct")(endpoint())
    force_maintenance_mode_on(app)
    assert target(app, "/inner/marked").mark is Mark.ON
    assert target(app, "/inner/unmarked").mark is Mark.OFF
    assert target(app, "/direct").mark is Mark.ON
    assert resolve(inner, scope_of("/unmarked"), mark=Mark.ON).mark is Mark.OFF


def test_a_mark_from_outside_counts_where_there_is_none_inside() -> None:
    """The caller may know more than the tree."""
    app, one = FastAPI(), endpoint()
    app.get("/one")(one)
    assert resolve(app, scope_of("/one"), mark=Mark.ON).mark is Mark.ON
    assert resolve(opaque, scope_of("/one"), mark=Mark.OFF).mark is Mark.OFF


def test_a_mark_on_what_wraps_a_mounted_app_counts() -> None:
    """A middleware around it may be what was marked."""
    inner = FastAPI()
    inner.get("/one")(endpoint())
    app = FastAPI()
    app.mount("/inner", force_maintenance_mode_on(GZipMiddleware(inner)))
    assert target(app, "/inner/one").mark is Mark.ON


async def starlette_endpoint(request: Request) -> Response:
    return PlainTextResponse("endpoint")


@pytest.mark.parametrize(
    ("route", "path"),
    [
        (Route("/one", starlette_endpoint), "/one"),
        (Route("/page", Page), "/page"),
        (Mount("/files", StaticFiles(directory=".")), "/files/any"),
        (Mount("/in", Starlette(routes=[Route("/one", starlette_endpoint)])), "/in/one"),
        (Host("testserver", Starlette(routes=[Route("/one", starlette_endpoint)])), "/one"),
    ],
)
def test_a_mark_on_a_route_is_not_lost(route: BaseRoute, path: str) -> None:
    """A route can be called, so it takes a mark; then this counts for what is behind it."""
    app = FastAPI(routes=[force_maintenance_mode_on(route)])
    assert target(app, path, headers={"Host": "testserver"}).mark is Mark.ON


@has_included_routers  # where they are copied, a router takes no mark: see the tests of decorators
def test_a_mark_on_an_included_router_is_not_lost() -> None:
    """A router is an ASGI app, so it takes a mark."""
    router, app = APIRouter(), FastAPI()
    router.get("/one")(endpoint())
    app.include_router(force_maintenance_mode_on(router))
    assert target(app, "/one").mark is Mark.ON


def test_marks_count_per_method_of_a_path() -> None:
    """They do not leak to what shares the path."""
    app = FastAPI()
    app.get("/items")(endpoint())
    app.post("/items")(force_maintenance_mode_on(endpoint()))
    assert (target(app, "/items").mark, target(app, "/items", "POST").mark) == (None, Mark.ON)


# Docs pages

DOCS = ("/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc")


def test_the_pages_of_an_app_are_docs() -> None:
    """All four, for the methods that they have."""
    app = FastAPI()
    app.get("/items")(endpoint())
    for path in DOCS:
        assert target(app, path).docs
        assert target(app, path, "HEAD").docs
        assert not target(app, path, "POST").docs
        assert not target(app, path + "-export").docs
    assert not target(app, "/items").docs


def test_the_pages_of_an_app_are_docs_where_it_has_them() -> None:
    """At its own URLs, and not at the usual ones."""
    app = FastAPI(docs_url="/help", redoc_url=None, openapi_url="/schema")
    for path in ("/docs", "/redoc"):
        app.get(path)(endpoint())
    assert [target(app, path).docs for path in ("/help", "/schema", "/docs", "/redoc")] == [True, True, False, False]


def test_the_pages_of_a_mounted_app_are_docs() -> None:
    """Of that app, below where it is mounted."""
    inner = FastAPI(docs_url="/help")
    inner.get("/docs")(endpoint())
    app = FastAPI()
    app.mount("/inner", inner)
    assert target(app, "/inner/help").docs
    assert target(app, "/inner/openapi.json").docs
    assert not target(app, "/inner/docs").docs


def test_the_pages_of_an_app_are_docs_behind_a_proxy() -> None:
    """With a root path of the server's or of the app's."""
    assert target(FastAPI(), "/api/docs", root_path="/api").docs
    assert target(proxied(FastAPI()), "/docs").docs


@pytest.mark.parametrize("prefix", ["/in", ""])
@pytest.mark.parametrize("docs_url", ["/docs", "/help", None])
def test_an_included_route_that_looks_like_docs_is_none(prefix: str, docs_url: str | None) -> None:
    """It is the application's own code."""
    router, one = APIRouter(), endpoint()
    router.get("/docs")(one)
    app = FastAPI(docs_url=docs_url)
    app.include_router(router, prefix=prefix)
    found = target(app, prefix + "/docs")
    assert found.docs is (docs_url == "/docs" and not prefix)
    assert found.docs is (found.endpoint is not one)


@has_included_routers
def test_an_included_look_alike_in_front_of_the_docs_is_none() -> None:
    """Whoever puts a route before them gets the request, and is no docs page."""
    router, one = APIRouter(), endpoint()
    router.get("/docs")(one)
    app = FastAPI()
    app.include_router(router)
    app.router.routes.insert(0, app.router.routes.pop())
    found = target(app, "/docs")
    assert (found.endpoint, found.docs) == (one, False)


def test_a_mounted_look_alike_is_no_docs_page() -> None:
    """A Starlette app or a router has no pages of its own."""
    one = endpoint()
    for inner in (Starlette(routes=[Route("/docs", one)]), Router(routes=[Route("/docs", one)])):
        app = FastAPI()
        app.mount("/inner", inner)
        app.mount("/docs-of", inner)
        assert not target(app, "/inner/docs").docs
    app = FastAPI(docs_url="/docs")
    app.router.routes.insert(0, Mount("", Router(routes=[Route("/docs", one)])))
    found = target(app, "/docs")
    assert (found.endpoint, found.docs) == (one, False)


# What leads to a router


def test_a_stack_of_middlewares_leads_to_its_app() -> None:
    """By ``.app``, as Starlette's own and most others have it."""
    app = FastAPI()
    assert root_of(GZipMiddleware(GZipMiddleware(app))) is app
    assert root_of(app.router) is app.router
    assert root_of(app.router.app) is app.router
    assert root_of(opaque) is None


def test_a_closure_over_an_app_leads_to_it() -> None:
    """Middlewares are written as functions, too; the variable has to be called ``app``."""
    fastapi_app = FastAPI()

    def wrapped(app: ASGIApp) -> ASGIApp:
        async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
            await app(scope, receive, send)

        return middleware

    def renamed(inner: ASGIApp) -> ASGIApp:
        async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
            await inner(scope, receive, send)

        return middleware

    assert root_of(wrapped(wrapped(fastapi_app))) is fastapi_app
    assert root_of(renamed(fastapi_app)) is None
    assert root_of(wrapped(opaque)) is None


def test_a_closure_over_a_variable_that_is_not_set_leads_nowhere() -> None:
    """An empty cell is no error."""

    def make() -> ASGIApp:
        async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
            await app(scope, receive, send)

        apps: list[ASGIApp] = []
        for app in apps:  # noqa: B007 - never assigned, and a variable of this function all the same
            pass
        return middleware

    assert root_of(make()) is None


def test_apps_that_wrap_each_other_lead_nowhere() -> None:
    """A cycle ends the way, and what stands there is opaque."""

    class Wrapper:
        app: Any = None

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.app(scope, receive, send)

    one, other = Wrapper(), Wrapper()
    one.app, other.app = other, force_maintenance_mode_off(one)
    assert root_of(one) is None
    assert resolve(one, scope_of()) == Target(runs=True, endpoint=one, mark=Mark.OFF, handed_to=one)
    one.app = None
    assert root_of(one) is None


def test_the_middleware_of_a_mount_is_passed_through() -> None:
    """It stands around the mounted app, and leads to it."""
    inner, one = FastAPI(), endpoint()
    inner.get("/one")(one)
    app = FastAPI(routes=[Mount("/inner", inner, middleware=[Middleware(GZipMiddleware)])])
    assert runs(app, "/inner/one") is one
    assert runs(app, "/inner/none") is None


def test_the_routers_on_the_way_are_told() -> None:
    """Outermost first, with what they were entered with, and the app that is answering there."""
    inner = proxied(FastAPI())
    inner.get("/one")(endpoint())
    app = FastAPI()
    app.mount("/inner", force_maintenance_mode_off(inner))
    outer_entry, inner_entry = target(app, "/root/inner/one", root_path="/root").entries
    assert outer_entry == (app.router, "/root", None, app)
    assert (inner_entry.router, inner_entry.mark, inner_entry.app) == (inner.router, Mark.OFF, inner)
    assert target(app, "/none").entries == ((app.router, "", None, app),)


@pytest.mark.anyio
@pytest.mark.parametrize("was_asked", [False, True])
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_the_dependencies_on_the_way_are_told(kind: str, was_asked: bool) -> None:
    """Of the app, each router and its inclusion, and the route; before FastAPI has built the routers, and after."""
    app, router, outer = FastAPI(dependencies=[on("app")]), APIRouter(dependencies=[on("router")]), APIRouter()
    add = router.websocket if kind == "websocket" else router.get
    add("/{item}", dependencies=[on("route")])(endpoint())
    outer.include_router(router, prefix="/in", dependencies=[on("inclusion")])
    app.include_router(outer, prefix="/out", dependencies=[on("outer inclusion")])
    mounted = FastAPI(dependencies=[on("mounted")])
    mounted.include_router(router)
    app.mount("/mounted", mounted)
    if was_asked:
        for path in ("/out/in/1", "/mounted/1"):
            await (handshake(app, path) if kind == "websocket" else get(app, path))
    told = {
        path: (found.route, [call.__name__ for call in found.dependencies])
        for path in ("/out/in/1", "/mounted/1")
        for found in [resolve(app, scope_of(path, kind=kind), with_dependencies=True)]
    }
    assert told == {
        "/out/in/1": ("/out/in/{item}", ["app", "outer inclusion", "inclusion", "router", "route"]),
        "/mounted/1": ("/mounted/{item}", ["mounted", "router", "route"]),
    }


def on(name: str) -> Any:
    """Return a dependency on something of that name."""
    return Depends(endpoint(name))


@pytest.mark.anyio
async def test_the_path_of_a_route_is_told_as_it_was_declared() -> None:
    """While it runs: for all kinds of routes, included and mounted ones as well."""
    told: list[str | None] = []

    def tell(connection: HTTPConnection) -> None:
        told.append(declared_path(connection.scope))

    async def chat(websocket: WebSocket) -> None:
        await websocket.close()

    def filled(router: Any) -> Any:
        router.get("/api/{item}", dependencies=[Depends(tell)])(endpoint())
        router.websocket("/chat/{room}", dependencies=[Depends(tell)])(chat)
        return router

    inner, outer = filled(FastAPI()), filled(APIRouter())
    inner.include_router(filled(APIRouter()), prefix="/deep")
    outer.mount("/mounted", inner)
    app = filled(FastAPI())
    app.include_router(outer, prefix="/in")
    app.mount("/inner", inner)
    for prefix in ("", "/in", "/inner", "/inner/deep", "/in/mounted", "/in/mounted/deep"):
        if prefix.startswith("/in/mounted") and not hasattr(fastapi.routing, "_IncludedRouter"):
            continue  # it leaves out what is mounted
        await get(app, f"{prefix}/api/1")
        await handshake(app, f"{prefix}/chat/1")
        assert told == [f"{prefix}/api/{{item}}", f"{prefix}/chat/{{room}}"]
        told.clear()


# Scopes


@pytest.mark.parametrize(
    ("path", "method", "kind"),
    [("/in/1", "GET", "http"), ("/inner/1", "GET", "http"), ("/in/1/", "GET", "http"), ("/ws", "", "websocket")],
)
def test_the_scope_stays_untouched(path: str, method: str, kind: str) -> None:
    """Also the dict that FastAPI keeps in it."""
    router, inner = APIRouter(prefix="/in"), proxied(FastAPI())
    router.get("/{item}")(endpoint())
    inner.get("/{item}")(endpoint())
    app = FastAPI()
    app.include_router(router)
    app.mount("/inner", inner)
    app.websocket("/ws")(endpoint())
    extras: list[dict[str, Any]] = [{}, {"fastapi": {"mine": [1]}, "path_params": {"tenant": "1"}}]
    for more in extras:
        scope = scope_of(path, method, kind=kind, **more)
        before = copy.deepcopy(scope)
        assert resolve(app, scope).entries
        assert scope == before


@pytest.mark.parametrize(
    ("path", "root_path", "expected"),
    [
        ("/items", "", "/items"),
        ("/api/items", "/api", "/items"),
        ("/api", "/api", ""),
        ("/apis", "/api", "/apis"),
        ("/items", "/api", "/items"),
        ("/api/api", "/api", "/api"),
        ("/items", "/", "/items"),
    ],
)
def test_the_routed_path_is_the_one_without_the_root_path(path: str, root_path: str, expected: str) -> None:
    """As the installed Starlette cuts it off: before 0.39, it took the root path for a regular expression."""
    from starlette._utils import get_route_path

    assert route_path(path, root_path) == get_route_path({"path": path, "root_path": root_path})
    if get_route_path({"path": "/apis", "root_path": "/api"}) == "/apis":
        assert route_path(path, root_path) == expected


# FastAPI can't be read


class Unknown(BaseRoute):
    """A kind of route that a later FastAPI may have."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return Match.FULL, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await opaque(scope, receive, send)


Unknown.__module__ = "fastapi.routing"


def guarded(app: FastAPI, *, on: bool = True) -> FastAPI:
    app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=on)
    return app


@pytest.mark.anyio
async def test_an_unknown_kind_of_route_fails_loudly() -> None:
    """Rather than to answer wrongly, with the version of FastAPI in the message."""
    app = FastAPI()
    app.router.routes.append(Unknown())
    with pytest.raises(UnsupportedFastAPI, match="it has routes of an unknown kind, Unknown") as error:
        await get(guarded(app), "/any")
    assert f"can't read the routes of FastAPI {fastapi.__version__}: " in str(error.value)
    assert "upgrade fastapi-maintenance" in str(error.value)
    assert await status(app, "/docs") == 200


def test_this_fastapi_can_be_read() -> None:
    """Whatever version the tests run with."""
    check_fastapi()


def test_a_fastapi_without_frontends_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they were before there were any."""
    monkeypatch.setattr(routes, "_FrontendRouteGroup", None)
    monkeypatch.delattr(FastAPI, "frontend", raising=False)
    check_fastapi()


def break_match(monkeypatch: pytest.MonkeyPatch, replacement: Any) -> None:
    included: Any = fastapi.routing._IncludedRouter  # type: ignore[attr-defined,unused-ignore]
    if replacement is None:
        monkeypatch.delattr(included, "_match")
    else:
        monkeypatch.setattr(included, "_match", replacement)


@has_included_routers
@pytest.mark.parametrize(
    ("replacement", "problem"),
    [
        (None, "of a known app raises AttributeError"),
        (lambda self, scope: (Match.NONE, {}), "of a known app raises ValueError"),
        (lambda self, scope: (Match.NONE, {}, None, None), "GET /outer/inner/1 of a known app leads to None"),
    ],
)
def test_a_router_that_answers_otherwise_is_noticed(
    replacement: Callable[..., Any] | None, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An internal that is gone or changed its meaning shows with an app whose answers are known."""
    break_match(monkeypatch, replacement)
    with pytest.raises(UnsupportedFastAPI) as error:
        check_fastapi()
    assert problem in error.value.problem
    assert fastapi.__version__ in str(error.value)
    monkeypatch.undo()
    check_fastapi()


@has_included_routers
@pytest.mark.anyio
@pytest.mark.usefixtures("nothing_marked")
@pytest.mark.parametrize("on", [True, False])
async def test_a_fastapi_that_can_not_be_read_fails_at_the_first_request(
    on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only on the day of the maintenance."""
    app = FastAPI()
    app.get("/direct")(endpoint())
    break_match(monkeypatch, None)
    with pytest.raises(UnsupportedFastAPI, match="_match"):
        await get(guarded(app, on=on), "/direct")


@has_included_routers
@pytest.mark.anyio
async def test_an_included_router_of_another_name_is_of_an_unknown_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later FastAPI may rename what is private to it."""
    monkeypatch.setattr(route_index, "IncludedRouter", None)
    app, router = FastAPI(), APIRouter()
    router.get("/in")(endpoint())
    app.include_router(router)
    with pytest.raises(UnsupportedFastAPI, match="_IncludedRouter"):
        await get(guarded(app), "/in")


@has_frontends
@pytest.mark.anyio
async def test_frontends_of_another_name_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for frontends."""
    monkeypatch.setattr(routes, "_FrontendRouteGroup", None)
    with pytest.raises(UnsupportedFastAPI, match="_FrontendRouteGroup"):
        await get(guarded(FastAPI()), "/docs")


def test_what_matching_finds_of_fastapi_is_merged() -> None:
    """As FastAPI's router does it: the outer match's own members stay."""
    scope = {"path_params": {"a": 1}, "fastapi": {"outer": 1}}
    _update(scope, {"path_params": {"b": 2}, "fastapi": {"inner": 2}})
    assert scope == {"path_params": {"b": 2}, "fastapi": {"outer": 1, "inner": 2}}
