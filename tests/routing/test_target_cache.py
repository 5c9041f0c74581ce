"""Known targets: the same as those that are found out each time, for as long as nothing of them changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, Router, WebSocketRoute, compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import force_maintenance_mode_off, force_maintenance_mode_on
from fastapi_maintenance.model.decision import Mark
from fastapi_maintenance.routing.target_cache import TargetCache
from fastapi_maintenance.routing.walk import Target, resolve
from tests.support.asgi import scope_of


class Wrapper:
    """Does nothing."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class Finding:
    """Finds out what would run, and counts how often it had to."""

    def __init__(self, start: Any) -> None:
        self.start = start
        self.times = 0
        self.targets = TargetCache(self._find)

    def _find(self, start: ASGIApp, scope: Scope) -> Target:
        self.times += 1
        return resolve(start, scope)

    def __call__(self, path: str, method: str = "GET", **more: Any) -> Target | None:
        scope = scope_of(path, method, **more)
        target = self.targets.of(self.start, scope)
        if target is not None:
            assert target == resolve(self.start, scope)
        return target


async def endpoint(request: Request) -> Response:
    return PlainTextResponse("one")


class Class(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        return PlainTextResponse("get")


def a_router() -> Router:
    return Router(
        [
            Route("/a", endpoint, methods=["GET", "POST"]),
            Route("/items/{item}", endpoint),
            Route("/class", Class),
            Route("/app", Router()),
            WebSocketRoute("/socket", endpoint),
            Mount("/mounted", app=PlainTextResponse("mounted")),
        ]
    )


def test_a_target_is_found_out_once() -> None:
    """For each route and method, whatever the parameters are."""
    find = Finding(Wrapper(Wrapper(a_router())))
    for _ in range(3):
        for path, method in (("/a", "GET"), ("/a", "POST"), ("/items/1", "GET"), ("/items/2", "HEAD")):
            target = find(path, method)
            assert target is not None
            assert target.endpoint is endpoint
        assert find("/items/3") is find("/items/4")
        assert find("/socket", kind="websocket") is not None
    assert find.times == 5


def test_nothing_is_found_out_once() -> None:
    """Also the 404 of all paths is one target."""
    find = Finding(a_router())
    assert find("/nowhere") is find("/elsewhere")
    assert find("/nowhere") is not None
    assert find.times == 1


def test_what_depends_on_more_is_not_known() -> None:
    """Another method, a mounted app, a default app."""
    router = a_router()
    find = Finding(router)
    assert find("/a", "DELETE") is None
    assert find("/mounted/x") is None
    router.default = PlainTextResponse("default")
    assert find("/nowhere") is None
    assert find.times == 0


def test_methods_without_end_are_not_kept() -> None:
    """A class is asked which methods it has; a router behind a route has more to say."""
    find = Finding(a_router())
    for _ in range(2):
        target, nothing = find("/class"), find("/class", "PURGE")
        assert target is not None
        assert nothing is not None
        assert (target.runs, nothing.runs) == (True, False)
        assert find("/app") is not None
    assert find.times == 6


def test_a_route_that_leads_into_another_app_is_not_kept() -> None:
    """Whose routes may change without a sign of it here."""
    inner = Starlette()
    find = Finding(Router([Route("/app", inner, methods=["GET"])]))
    for is_there in (False, True):
        target = find("/app")
        assert target is not None
        assert target.runs is is_there
        inner.router.routes.append(Route("/app", endpoint))


@pytest.mark.parametrize("around", [lambda router: router, Wrapper, lambda router: Starlette(routes=router.routes)])
def test_a_changed_list_is_noticed(around: Callable[[Router], Any]) -> None:
    """By whatever the routes are come to."""
    start = around(a_router())
    find = Finding(start)
    find("/a"), find("/new")
    router: Any = start.app if isinstance(start, Wrapper) else start
    router.routes.insert(0, Route("/new", endpoint))
    target = find("/new")
    assert target is not None
    assert target.endpoint is endpoint
    del router.routes[1]
    nothing = find("/a")
    assert nothing is not None
    assert not nothing.runs


def test_a_route_that_is_equal_is_another_one() -> None:
    router = a_router()
    find = Finding(router)
    assert find("/a") is not None
    router.routes[0] = Route("/a", endpoint, methods=["GET", "POST"])
    assert find("/a") is None


def test_a_route_that_is_changed_in_place_is_noticed() -> None:
    """Its endpoint, its methods and its pattern, from the next request on."""
    router = a_router()
    find = Finding(router)
    route: Any = router.routes[0]

    async def another(request: Request) -> Response:
        return PlainTextResponse("another")

    for path in ("/a", "/a"):
        assert find(path) is not None
    route.endpoint = route.app = another
    target = find("/a")
    assert target is not None
    assert target.endpoint is another
    route.methods = {"POST"}
    assert find("/a") is None
    assert find("/a", "POST") is not None
    route.methods.add("GET")
    assert find("/a") is not None
    route.path_regex, route.path_format, route.param_convertors = compile_path("/b")
    assert find("/a") is None


def test_a_route_before_another_one_of_the_same_path_is_asked() -> None:
    """Which methods it has may change."""
    first, second = Route("/a", endpoint, methods=["GET"]), Route("/a", PlainTextResponse("2"), methods=["POST"])
    find = Finding(Router([first, second]))
    for _ in range(3):
        target = find("/a", "POST")
    assert target is not None
    assert target.endpoint is second.endpoint
    assert first.methods is not None
    first.methods.add("POST")
    target = find("/a", "POST")
    assert target is not None
    assert target.endpoint is endpoint


def test_a_class_may_get_another_method() -> None:
    """So it is asked each time which methods it has."""

    class Own(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            return PlainTextResponse("get")

    find = Finding(Router([Route("/own", Own, methods=["GET", "POST"])]))
    target = find("/own", "POST")
    assert target is not None
    assert not target.runs
    Own.post = Own.get  # type: ignore[attr-defined]
    target = find("/own", "POST")
    assert target is not None
    assert target.runs


def test_a_handshake_has_no_method_whatever_its_scope_says() -> None:
    """A middleware may have put one there."""
    router = Router([Route("/x", endpoint, methods=["GET"]), WebSocketRoute("/x", PlainTextResponse("socket"))])
    find = Finding(router)
    assert find("/x") is not None
    socket = find("/x", kind="websocket", method="GET")
    assert socket is not None
    assert socket.endpoint is router.routes[1].endpoint  # type: ignore[attr-defined]
    assert find("/x", kind="websocket") is socket


def test_another_router_of_an_app_is_noticed() -> None:
    """Until its middleware stack is built, an app leads to the router that it has; from then on to that of then."""
    app, late = Starlette(), Router([Route("/late", endpoint)])
    find = Finding(app)
    assert find("/late") is not None
    app.router = late
    target = find("/late")
    assert target is not None
    assert target.runs
    app.middleware_stack = app.build_middleware_stack()
    app.router = Router()
    target = find("/late")
    assert target is not None
    assert target.runs


def test_a_later_mark_is_noticed() -> None:
    async def one(request: Request) -> Response:
        return PlainTextResponse("one")

    find = Finding(Router([Route("/one", one)]))
    for mark, marker in ((None, None), (Mark.ON, force_maintenance_mode_on), (Mark.OFF, force_maintenance_mode_off)):
        if marker is not None:
            marker(one)
        target = find("/one")
        assert target is not None
        assert target.mark is mark


def test_another_way_to_the_router_is_noticed() -> None:
    """A middleware may get something else inside it, and an app another router."""
    one, two = Router([Route("/a", endpoint)]), Router([])
    wrapper = Wrapper(one)
    find = Finding(wrapper)
    assert [target and target.runs for target in (find("/a"), find("/b"))] == [True, False]
    wrapper.app = two
    target = find("/a")
    assert target is not None
    assert not target.runs
    app = Starlette(routes=[Route("/a", endpoint)])
    find = Finding(app)
    find("/a")
    app.router = two
    target = find("/a")
    assert target is not None
    assert not target.runs


def test_another_root_path_is_noticed() -> None:
    find = Finding(a_router())
    for root_path, path in (("", "/a"), ("/in", "/in/a"), ("/on", "/on/a"), ("", "/a")):
        target = find(path, root_path=root_path)
        assert target is not None
        assert target.endpoint is endpoint
    assert find.times == 4


def test_what_is_no_plain_way_is_not_known() -> None:
    """An app with a root path of its own, a router behind another one, an opaque app, circles."""
    app = FastAPI()
    app.root_path = "/own"
    circle = Wrapper(Router())
    circle.app = circle
    for start in (app, PlainTextResponse("opaque"), a_router().app, circle, Slots(a_router())):
        assert TargetCache(resolve).of(start, scope_of("/a")) is None
    router = a_router()
    assert TargetCache(resolve).of(router, scope_of("/a", router=router)) is None


def test_an_app_that_gets_a_root_path_is_not_known_any_more() -> None:
    app = FastAPI(openapi_url=None)
    app.add_route("/a", endpoint)
    find = Finding(app)
    assert find("/a") is not None
    app.root_path = "/own"
    assert find("/own/a") is None


class Slots:
    """A middleware without a dict, which may have its app anywhere."""

    __slots__ = ("app",)

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...
