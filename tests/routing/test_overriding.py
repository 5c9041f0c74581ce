"""Subclasses that override how an app or router is called: nobody sees through them, so something always runs."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import MemoryBackend
from tests.support.asgi import handshake, status
from tests.support.overrides import each_override, overriding
from tests.support.servers import uvicorn_server

pytestmark = pytest.mark.anyio

ran: list[str] = []
"""What ran, in order."""


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


def endpoint(name: str) -> Any:
    async def function(request: Any) -> Response:
        ran.append(name)
        return PlainTextResponse(name)

    return function


def routes() -> list[Any]:
    """Return one route of each kind of mark."""
    return [
        Route("/items", endpoint("items")),
        Route("/open", force_maintenance_mode_off(endpoint("open"))),
        Route("/closed", force_maintenance_mode_on(endpoint("closed"))),
    ]


async def guarded(*mounted: Any, on: bool = True) -> FastAPI:
    """Return an app with the middleware and these routes, in maintenance or not."""
    backend = MemoryBackend()
    app = FastAPI(routes=list(mounted))
    app.add_middleware(MaintenanceModeMiddleware, backend=backend)
    await set_maintenance_mode(on, backend)
    return app


@each_override
async def test_an_override_is_an_endpoint(base: type[Any], method: str) -> None:
    """Whatever its routes say: not even a forced-off one opens what runs before it."""
    app = await guarded(Mount("/in", overriding(base, method, ran)(routes=routes())))
    for path in ("/in/items", "/in/open", "/in/closed", "/in/none", "/in/items/", "/in"):
        assert await status(app, path) == (307 if path == "/in" else 503)
    assert (await handshake(app, "/in/items")).status == 503
    assert await status(app, "/in/items", "DELETE") == 503
    assert ran == []


@each_override
async def test_an_override_passes_while_off(base: type[Any], method: str) -> None:
    """What is forced on behind it is blocked all the same."""
    app = await guarded(Mount("/in", overriding(base, method, ran)(routes=routes())), on=False)
    assert [await status(app, path) for path in ("/in/items", "/in/open", "/in/none")] == [200, 200, 404]
    assert ran == ["override", "items", "override", "open", "override"]
    assert await status(app, "/in/closed") == 503
    assert len(ran) == 5


@each_override
async def test_a_mark_applies_to_an_override_and_what_is_within(base: type[Any], method: str) -> None:
    """The strictest one, of all that runs."""
    own = overriding(base, method, ran)(routes=routes())
    app = await guarded(force_maintenance_mode_off(Mount("/in", own)))
    assert [await status(app, f"/in/{path}") for path in ("items", "open", "none", "closed")] == [200, 200, 404, 503]
    app = await guarded(force_maintenance_mode_on(Mount("/in", own)), on=False)
    assert [await status(app, f"/in/{path}") for path in ("items", "open", "none", "closed")] == [503] * 4


@pytest.mark.parametrize("outer", [None, force_maintenance_mode_off])
@pytest.mark.parametrize("on", [True, False])
async def test_each_of_two_overrides_is_judged(outer: Callable[[Any], Any] | None, on: bool) -> None:
    """A mark of the inner one is not one of the outer one, nor does it open what is forced on there."""
    inner = force_maintenance_mode_off(overriding(FastAPI, "__call__", ran)(routes=routes()))
    middle = overriding(Starlette, "__call__", ran)(routes=[Mount("/deep", inner)])
    app = await guarded(Mount("/in", middle if outer is None else outer(middle)), on=on)
    expected = 503 if on and outer is None else 200
    assert await status(app, "/in/deep/items") == expected
    assert await status(app, "/in/deep/closed") == 503
    assert len(ran) == (3 if expected == 200 else 0)


async def test_a_forced_on_override_within_an_opened_one_is_blocked() -> None:
    """Nothing behind it opens it again."""
    inner = force_maintenance_mode_on(overriding(FastAPI, "__call__", ran)(routes=routes()))
    outer = force_maintenance_mode_off(overriding(Starlette, "__call__", ran)(routes=[Mount("/deep", inner)]))
    app = await guarded(Mount("/in", outer), on=False)
    assert [await status(app, f"/in/deep/{path}") for path in ("items", "open", "none")] == [503] * 3
    assert await status(app, "/in/none") == 404
    assert ran == ["override"]


@pytest.mark.parametrize("method", ["app", "__call__"])
async def test_the_router_of_the_app_itself_may_override(method: str) -> None:
    """Then all of the app is behind it."""
    app = FastAPI()
    app.router = overriding(APIRouter, method, ran)(routes=routes())
    backend = MemoryBackend()
    app.add_middleware(MaintenanceModeMiddleware, backend=backend)
    await set_maintenance_mode(True, backend)
    assert [await status(app, path) for path in ("/items", "/open", "/none")] == [503] * 3
    assert ran == []
    await set_maintenance_mode(False, backend)
    assert [await status(app, path) for path in ("/items", "/none", "/closed")] == [200, 404, 503]


async def test_a_call_that_is_overridden_around_the_middleware_changes_nothing() -> None:
    """The middleware stands inside of it, so it is no part of what a request comes to."""
    backend = MemoryBackend()
    app = overriding(FastAPI, "__call__", ran)(routes=routes())
    app.add_middleware(MaintenanceModeMiddleware, backend=backend)
    await set_maintenance_mode(True, backend)
    assert [await status(app, path) for path in ("/items", "/open", "/none", "/docs")] == [503, 200, 404, 200]


async def test_a_middleware_around_an_overriding_app_blocks_all_of_it() -> None:
    """The docs pages as well: another page may be in their place."""
    backend = MemoryBackend()
    app = MaintenanceModeMiddleware(overriding(FastAPI, "__call__", ran)(routes=routes()), backend=backend)
    await set_maintenance_mode(True, backend)
    assert [await status(app, path) for path in ("/items", "/open", "/none", "/docs")] == [503] * 4
    assert ran == []
    await set_maintenance_mode(False, backend)
    assert [await status(app, path) for path in ("/items", "/none", "/docs", "/closed")] == [200, 404, 200, 503]


@pytest.mark.parametrize("method", ["app", "__call__"])
async def test_an_override_of_an_included_router_never_runs(method: str) -> None:
    """FastAPI asks its routes alone."""
    app, own = FastAPI(), overriding(APIRouter, method, ran)()
    for route in routes():
        own.add_route(route.path, route.endpoint)
    app.include_router(own, prefix="/in")
    backend = MemoryBackend()
    app.add_middleware(MaintenanceModeMiddleware, backend=backend)
    await set_maintenance_mode(True, backend)
    assert [await status(app, f"/in/{path}") for path in ("items", "open", "none", "closed")] == [503, 200, 404, 503]
    await set_maintenance_mode(False, backend)
    assert await status(app, "/in/items") == 200
    assert ran == ["open", "items"]


async def test_an_override_may_rewrite_the_request() -> None:
    """At the router it is judged again, as after a middleware."""

    class Rewriting(FastAPI):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await super().__call__({**scope, "path": scope["path"].replace("items", "closed")}, receive, send)

    app = await guarded(Mount("/in", Rewriting(routes=routes())), on=False)
    assert await status(app, "/in/items") == 503
    assert await status(app, "/in/open") == 200
    app = await guarded(Mount("/in", force_maintenance_mode_off(Rewriting(routes=routes()))))
    assert await status(app, "/in/items") == 503
    assert await status(app, "/in/none") == 404
    assert ran == ["open"]


async def test_a_routers_middleware_that_cannot_be_read_may_rewrite_the_request() -> None:
    """Behind it, the request is judged again: it keeps the router as its ``app``."""

    class Unreadable:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            path = scope["path"].replace("items", "closed")
            await vars(self)["app"]({**scope, "path": path}, receive, send)

    app = await guarded(Mount("/in", Router(routes(), middleware=[Middleware(Unreadable)])), on=False)
    assert await status(app, "/in/open") == 200
    assert await status(app, "/in/items") == 503
    assert ran == ["open"]


async def test_a_route_whose_matching_raises_behind_a_forced_on_override_is_blocked() -> None:
    """The override would run before."""

    class Raising(Route):
        def matches(self, scope: Scope) -> Any:
            raise RuntimeError

    own = overriding(Starlette, "__call__", ran)(routes=[Raising("/items", endpoint("items"))])
    app = await guarded(Mount("/in", force_maintenance_mode_on(own)), on=False)
    assert await status(app, "/in/items") == 503
    assert ran == []


@pytest.mark.parametrize("owner", [Starlette, FastAPI, Router, APIRouter, Route, APIRoute, Mount])
@pytest.mark.parametrize("method", ["__call__", "app", "handle"])
async def test_instrumentation_of_all_apps_overrides_nothing(
    owner: type[Any], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It puts its own functions into the classes of the framework, before an app is made or after."""
    original = vars(owner).get(method)
    if original is None:
        return  # it inherits it

    async def instrumented(self: Any, scope: Scope, receive: Receive, send: Send) -> None:
        await original(self, scope, receive, send)

    def mounted() -> Mount:
        api = APIRouter()
        api.add_api_route("/api", lambda: "api")
        return Mount("/in", FastAPI(routes=[*routes(), *api.routes, Mount("/router", Router(routes()))]))

    before = await guarded(mounted())
    monkeypatch.setattr(owner, method, instrumented)
    for app in (before, await guarded(mounted())):
        for path in ("/in/none", "/in/router/none"):
            assert await status(app, path) == 404
        assert await status(app, "/in/api", "DELETE") == 405
        assert await status(app, "/in/items", "DELETE") == 405
        assert await status(app, "/in/router/open") == 200
        assert await status(app, "/in/items") == 503


class Facade:
    """Keeps an app, and calls something else."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ran.append("facade")
        await PlainTextResponse("facade")(scope, receive, send)


@pytest.mark.parametrize(
    "place",
    [
        lambda app: Mount("/in", app),
        lambda app: Mount("/in", Router([Mount("/deep", app)], default=app)),
        lambda app: Host("testserver", app),
        lambda app: Route("/{path:path}", app),
        lambda app: Mount("/", Router(default=app)),
    ],
    ids=["mount", "deep mount", "host", "route", "default"],
)
async def test_an_object_that_does_not_call_its_app_is_an_endpoint(place: Callable[[ASGIApp], Any]) -> None:
    """Nothing that is found by ``.app`` says what it runs."""
    marked = force_maintenance_mode_off(FastAPI(routes=routes()))
    app = await guarded(place(Facade(marked)))
    assert [await status(app, path) for path in ("/in/none", "/in/open", "/in/items")] == [503] * 3
    assert ran == []
    app = await guarded(place(force_maintenance_mode_off(Facade(marked))))
    assert [await status(app, path) for path in ("/in/none", "/in/closed", "/in/items")] == [200] * 3


async def test_the_middleware_around_an_object_that_does_not_call_its_app() -> None:
    """The request comes to the object, which is an endpoint."""
    backend = MemoryBackend()
    app = MaintenanceModeMiddleware(Facade(FastAPI(routes=routes())), backend=backend)
    await set_maintenance_mode(True, backend)
    assert [await status(app, path) for path in ("/none", "/open")] == [503] * 2
    assert ran == []


async def test_a_bound_method_of_a_router_is_not_the_router() -> None:
    """Unless it is how the router is called; ``not_found`` may be overridden, too."""

    class Own(Router):
        async def special(self, scope: Scope, receive: Receive, send: Send) -> None:
            ran.append("special")
            await PlainTextResponse("special")(scope, receive, send)

        not_found = special

    own = Own(routes())
    app = await guarded(Mount("/special", own.special), Mount("/call", own.__call__), Mount("/app", own.app))
    paths = ("/special/open", "/special/none", "/call/open", "/call/none", "/app/open", "/app/none")
    assert [await status(app, path) for path in paths] == [503, 503, 200, 503, 200, 503]
    assert ran == ["open", "open"]


@pytest.mark.parametrize("method", ["__await__", "dispatch"])
async def test_a_websocket_class_that_overrides_is_an_endpoint(method: str) -> None:
    """As any other is."""

    class Own(WebSocketEndpoint):
        def override(self) -> Any:
            ran.append("override")

    own = type("Marked", (Own,), {method: Own.override})
    app = await guarded(WebSocketRoute("/ws", own))
    assert (await handshake(app, "/ws")).status == 503
    assert ran == []


class Calling:
    """A middleware as most people write it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class Dispatching(BaseHTTPMiddleware):
    """A middleware on top of Starlette's."""

    async def dispatch(self, request: Any, call_next: Any) -> Response:
        answer: Response = await call_next(request)
        return answer


@pytest.mark.parametrize("middleware", [Calling, Dispatching])
async def test_what_is_in_a_middleware_is_seen(middleware: Any) -> None:
    """Wherever it stands: 404s and marks stay what they are."""
    sub = FastAPI(routes=routes())
    sub.add_middleware(middleware)
    app = await guarded(
        Mount("/around", middleware(middleware(FastAPI(routes=routes())))),
        Mount("/mount", FastAPI(routes=routes()), middleware=[Middleware(middleware)]),
        Mount("/sub", sub),
    )
    for place in ("/around", "/mount", "/sub"):
        answers = [await status(app, f"{place}/{path}") for path in ("items", "open", "none", "closed")]
        assert answers == [503, 200, 404, 503]


@pytest.mark.parametrize("implementation", ["httptools", "h11"])
@pytest.mark.parametrize("on", [True, False])
async def test_overrides_behind_a_server(implementation: str, on: bool) -> None:
    """One of each kind, as a client meets it."""
    app = await guarded(
        Mount("/router", overriding(APIRouter, "app", ran)(routes=routes())),
        Mount("/app", overriding(FastAPI, "__call__", ran)(routes=routes())),
        Mount("/facade", Facade(FastAPI(routes=routes()))),
        on=on,
    )
    expected = [503] * 9 if on else [200, 404, 503, 200, 404, 503, 200, 200, 200]
    answers = []
    with uvicorn_server(app, http=implementation) as server:
        for place in ("router", "app", "facade"):
            for path in ("items", "none", "closed"):
                connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
                connection.request("GET", f"/{place}/{path}")
                answers.append(connection.getresponse().status)
                connection.close()
    assert answers == expected
    assert bool(ran) is not on
