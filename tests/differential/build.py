"""From a plan to an application; the same plan gives the same application any number of times."""

# No "from __future__ import annotations": FastAPI has to see the real types of functions that are made in functions.

import atexit
import functools
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from pathlib import Path
from typing import Any

from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, params
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette._utils import get_route_path
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.datastructures import Headers, MutableHeaders
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.middleware import Middleware as StarletteMiddleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from .journal import write, write_matching_error, write_rewritten
from .plan import (
    AppPlan,
    Branch,
    Dependency,
    Endpoint,
    Frontend,
    Include,
    Leaf,
    Mark,
    Middleware,
    Node,
    RouterPlan,
    Scenario,
)

VERSION = "x-version"
"""The header that routes with their own ``matches`` want to be 2."""
GATE = "x-gate"
"""The header that routers with their own ``matches`` want."""
ANSWER = "x-answer"
"""The header that makes a middleware of effect ``answer`` answer by itself."""
REWRITERS = {
    "path": "x-original-url",
    "method": "x-http-method-override",
    "root_path": "x-forwarded-prefix",
    "host": "x-forwarded-host",
    "version": "x-set-version",
}
"""What a rewriting middleware changes, and the request header that tells it to."""

ASGI_KEYS = (
    *("type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path"),
    *("headers", "client", "server", "state", "extensions", "subprotocols"),
)
"""The keys of a scope that a server makes; beside these, FastAPI's endpoints need its stacks of open contexts."""

Marker = Callable[[Any, Mark], Any]
AnyFunction = Callable[..., Any]


class Builder:
    """Builds one application, and keeps hold of what changes later."""

    def __init__(
        self, *, marker: Marker, level: int | None = None, guard: str = "", guards: Sequence[params.Depends] = ()
    ) -> None:
        self.marker = marker
        self.level = level
        """Middlewares at this depth and below are left out; ``None`` leaves none out."""
        self.app_guards = list(guards) if guard == "app" else []
        self.route_guards = list(guards) if guard == "routes" else []
        self.markable: dict[str, Any] = {}
        self.routers: dict[str, tuple[Any, int]] = {}
        self.dependencies: dict[str, AnyFunction] = {}
        self.built: dict[str, Any] = {}

    def remark(self, target: str, mark: Mark) -> None:
        """Give something that was built another mark."""
        self.marker(self.markable[target], mark)

    def extend(self, plan: RouterPlan, how: str) -> None:
        """Add a router's late routes."""
        router, depth = self.routers[plan.id]
        for node in plan.late:
            self.add(router, node, how, depth)

    def rearrange(self, plan: RouterPlan, how: str) -> None:
        """Change a router's list of routes by hand."""
        router = self.routers[plan.id][0]
        router = getattr(router, "router", router)  # an app has one
        routes = router.routes
        if how == "reverse":
            routes.reverse()
        elif how == "rotate":
            router.routes = [*routes[1:], *routes[:1]]
        elif how == "swap":
            routes[:2] = routes[1::-1]
        else:
            del routes[-1:]

    def root(self, scenario: Scenario, *ours: StarletteMiddleware) -> ASGIApp:
        """Build the whole application, with or without the maintenance middleware and what stands inside of it."""
        outer = [StarletteMiddleware(around, plan=plan) for plan in scenario.outer]
        if scenario.placement == "around":
            app: ASGIApp = self.app(scenario.app, 0, is_around=True)
            for middleware in reversed([*outer, *ours]):
                app = middleware.cls(app, *middleware.args, **middleware.kwargs)
            return app
        in_constructor = scenario.placement == "constructor"
        root: ASGIApp = self.app(scenario.app, 0, above=[*outer, *ours], in_constructor=in_constructor)
        return root

    def mounted(self, plan: AppPlan, depth: int) -> ASGIApp:
        """Build an app as it is mounted, once."""
        app: ASGIApp = self.app(plan, depth)
        if plan.wrapper and plan.wrapper_id not in self.built:
            is_left_out = plan.wrapper == "cors" and self.leaves_out(depth)
            wrapped = WRAPPERS["class" if is_left_out else plan.wrapper](app, plan.wrapper_id)
            self.built[plan.wrapper_id] = self.marked(wrapped, plan.wrapper_id, plan.wrapper_mark)
        return self.built[plan.wrapper_id] if plan.wrapper else app

    def app(self, plan: AppPlan, depth: int, **options: Any) -> Any:
        """Build an app without what it is wrapped in, once."""
        if plan.id not in self.built:
            app = self.new_app(plan, depth, **options)
            self.built[plan.id] = self.marked(app, plan.id, plan.mark)
        return self.built[plan.id]

    def new_app(
        self,
        plan: AppPlan,
        depth: int,
        *,
        above: Sequence[StarletteMiddleware] = (),
        in_constructor: bool = False,
        is_around: bool = False,
    ) -> Any:
        """Build an app."""
        middlewares = [*above, *self.middlewares(plan.middlewares, depth)]
        own = self.overriding(plan, depth) if depth or is_around else lambda kind: kind
        app: Any
        if plan.kind == "opaque":
            return Opaque("opaque", plan.id)
        if plan.kind == "function":
            return Opaque("opaque", plan.id).function()
        if plan.kind == "fastapi":
            docs: dict[str, Any] = plan.docs
            app = own(FastAPI)(
                redirect_slashes=plan.redirect_slashes,
                root_path_in_servers=False,  # or FastAPI 0.115's schema depends on the requests before
                dependencies=[*self.app_guards, *self.depends(plan.dependencies)],
                middleware=middlewares if in_constructor else None,
                **docs,
            )
            app.root_path = plan.root_path  # as an argument it is deprecated, and does the same
            record_docs(app, plan.id)
        elif plan.kind == "starlette":
            app = own(Starlette)()
            app.router.redirect_slashes = plan.redirect_slashes
        elif plan.kind == "api_router":
            app = own(APIRouter)(redirect_slashes=plan.redirect_slashes, dependencies=self.depends(plan.dependencies))
        else:
            app = own(Router)(redirect_slashes=plan.redirect_slashes, middleware=middlewares)
        if isinstance(app, Starlette) and not in_constructor:
            for middleware in reversed(middlewares):
                app.add_middleware(middleware.cls, *middleware.args, **middleware.kwargs)
        router = app.router if isinstance(app, Starlette) else app
        if router is not app and plan.override is not None and plan.override.method.startswith("router."):
            router.__class__ = self.overriding(plan, depth)(type(router))
            router.middleware_stack = router.app
        if plan.default is not None:
            default = Opaque("default", plan.default.id)
            router.default = default.function() if plan.default.shape == "function" else default
            self.marked(router.default, plan.default.id, plan.default.mark)
        self.fill(router, plan.router, depth)
        return app

    def overriding(self, plan: AppPlan, depth: int) -> Callable[[type[Any]], type[Any]]:
        """Return what makes of a class the one that overrides what the plan says, if it is the class to do that."""

        def own(kind: type[Any]) -> type[Any]:
            override = plan.override
            of_router = override is not None and override.method.startswith("router.")
            if override is None or of_router == issubclass(kind, Starlette):
                return kind
            does = Middleware("none", "asgi") if self.leaves_out(depth) else override.does
            return overriding(kind, override.method.removeprefix("router."), plan.id, does)

        return own

    def leaves_out(self, depth: int) -> bool:
        """Return whether the middlewares of a place are left out."""
        return self.level is not None and depth >= self.level

    def middlewares(self, plans: Sequence[Middleware], depth: int) -> list[StarletteMiddleware]:
        """Build the middlewares of one place, unless they are left out."""
        if self.leaves_out(depth):
            return []
        return [StarletteMiddleware(around, plan=plan) for plan in plans]

    def fill(self, router: Any, plan: RouterPlan, depth: int) -> None:
        """Give a router the routes that it has from the start."""
        self.routers[plan.id] = router, depth
        for node in plan.children:
            self.add(router, node, "method", depth)

    def add(self, router: Any, node: Node, how: str, depth: int) -> None:
        """Add one route, by the router's own methods or by an ``append`` to its list."""
        if isinstance(node, Include):
            router.include_router(
                self.included(node.router, depth),
                prefix=node.prefix,
                dependencies=self.depends(node.dependencies),
            )
        elif isinstance(node, Branch):
            self.add_branch(router, node, how, depth + 1)
        elif isinstance(node, Frontend):
            router.frontend(node.path, directory=site(), fallback=node.fallback)
            record_frontend(router, node.id)
        elif node.kind == "api":
            self.add_api(router, node, how)
        elif node.kind == "socket":
            self.add_socket(router, node, how)
        else:
            self.add_plain(router, node, depth)

    def included(self, plan: RouterPlan, depth: int) -> APIRouter:
        """Build a router that is included, once."""
        if plan.id not in self.built:
            kind = GatedRouter if plan.gated else APIRouter
            self.built[plan.id] = kind(prefix=plan.prefix, dependencies=self.depends(plan.dependencies))
            self.fill(self.built[plan.id], plan, depth)
        router: APIRouter = self.built[plan.id]
        return router

    def add_branch(self, router: Any, node: Branch, how: str, depth: int) -> None:
        """Add a mount or a host."""
        middlewares = self.middlewares(node.middlewares, depth)
        if node.app.kind == "routes":
            inner = Router()
            self.fill(inner, node.app.router, depth)
            mount = Mount(node.at, routes=inner.routes, middleware=middlewares)
            self.routers[node.app.router.id] = mount._base_app, depth
            router.routes.append(mount)
            return
        app = self.mounted(node.app, depth)
        if node.host and how == "method":
            router.host(node.at, app)
        elif node.host:
            router.routes.append(Host(node.at, app))
        elif middlewares or how == "append":
            router.routes.append(Mount(node.at, app=app, middleware=middlewares))
        else:
            router.mount(node.at, app)

    def add_api(self, router: Any, leaf: Leaf, how: str) -> None:
        """Add a path operation."""
        endpoint = self.function(leaf.endpoint, request_function(leaf.endpoint, of_fastapi=True))
        options: dict[str, Any] = {
            "methods": list(leaf.methods),
            "dependencies": [*self.route_guards, *self.depends(leaf.dependencies)],
            "include_in_schema": False,
            "response_model": None,
        }
        route_class = API_ROUTE_CLASSES[leaf.route_class]
        if how == "append":
            router.routes.append(route_class(leaf.path, endpoint, **options))
        else:
            router.add_api_route(leaf.path, endpoint, route_class_override=route_class, **options)
        self.marked_above(leaf.endpoint)

    def add_socket(self, router: Any, leaf: Leaf, how: str) -> None:
        """Add a websocket of FastAPI."""
        endpoint = self.function(leaf.endpoint, socket_function(leaf.endpoint))
        dependencies = [*self.route_guards, *self.depends(leaf.dependencies)]
        if how == "append":
            router.routes.append(APIWebSocketRoute(leaf.path, endpoint, dependencies=dependencies))
        else:
            router.add_api_websocket_route(leaf.path, endpoint, dependencies=dependencies)
        self.marked_above(leaf.endpoint)

    def add_plain(self, router: Any, leaf: Leaf, depth: int) -> None:
        """Add a route of Starlette's."""
        spec = leaf.endpoint
        route: BaseRoute
        own = [Middleware(leaf.middleware, "closure")] if leaf.middleware else []
        middleware = self.middlewares(own, depth + 1) or None
        if leaf.kind == "custom":
            opaque = Opaque("endpoint", spec.id)
            endpoint = self.marked(opaque, spec.id, spec.mark)
            route = CustomRoute(leaf.path, endpoint, leaf.methods, named=spec.shape != "anonymous")
        elif leaf.kind == "plain_socket":
            if spec.shape == "class":
                endpoint = self.marked(socket_class(spec), spec.id, spec.mark)
            else:
                endpoint = self.function(spec, socket_function(spec))
            route = WebSocketRoute(leaf.path, endpoint, middleware=middleware)
        else:
            middleware = [StarletteMiddleware(around, plan=Middleware("none", "closure"))] if leaf.middleware else None
            if spec.shape in ("class", *RECORDED):
                endpoint = self.marked(self.http_class(spec), spec.id, spec.mark)
            elif spec.shape == "asgi":
                endpoint = self.marked(Opaque("endpoint", spec.id), spec.id, spec.mark)
            else:
                endpoint = self.function(spec, request_function(spec, of_fastapi=False))
            methods = list(leaf.methods) or None
            route = ROUTE_CLASSES[leaf.route_class](leaf.path, endpoint, methods=methods, middleware=middleware)
        router.routes.append(route)
        if hasattr(router, "_mark_routes_changed"):
            router._mark_routes_changed()
        self.marked_above(spec)

    def function(self, spec: Endpoint, function: AnyFunction) -> AnyFunction:
        """Return an endpoint in the shape that is asked for, marked unless its mark comes later."""
        carrier, endpoint = shaped(spec, function)
        self.markable[spec.id] = carrier if spec.mark_place == "inside" else endpoint
        if spec.mark is not None and spec.mark_place != "above":
            self.marker(self.markable[spec.id], spec.mark)
        return endpoint

    def marked_above(self, spec: Endpoint) -> None:
        """Apply the decorator that stands above the route's."""
        if spec.mark is not None and spec.mark_place == "above":
            self.marker(self.markable[spec.id], spec.mark)

    def marked(self, thing: Any, name: str, mark: Mark | None) -> Any:
        """Mark something that is not a function, and keep it for a later mark."""
        self.markable[name] = thing
        return thing if mark is None else self.marker(thing, mark)

    def http_class(self, spec: Endpoint) -> type[HTTPEndpoint]:
        """Return a class with a method per HTTP method."""
        methods: dict[str, AnyFunction] = {}
        for name, mark in spec.methods.items():
            methods[name] = self.marked(http_method(spec, name), f"{spec.id}.{name}", mark)
        base = RECORDED.get(spec.shape, HTTPEndpoint)
        return type(f"Endpoint_{spec.id}", (base,), {**methods, "test_id": spec.id})

    def depends(self, plans: Sequence[Dependency]) -> list[Any]:
        """Return what FastAPI takes for a list of dependencies."""
        for plan in plans:
            if plan.id not in self.dependencies:
                self.dependencies[plan.id] = dependency(plan)
        return [Depends(self.dependencies[plan.id]) for plan in plans]


# Endpoints.


def echo(name: str, connection: HTTPConnection) -> dict[str, Any]:
    """Return what an endpoint knows of its request: a judge that leaves traces in the scope is seen here."""
    scope = connection.scope
    return {
        "name": name,
        "path": scope["path"],
        "root_path": scope["root_path"],
        "app_root_path": scope.get("app_root_path"),
        "params": {key: str(value) for key, value in connection.path_params.items()},
        "url": str(connection.url),
        "endpoint": getattr(scope.get("endpoint"), "test_id", None),
    }


def request_function(spec: Endpoint, *, of_fastapi: bool) -> AnyFunction:
    """Return an endpoint function for requests."""

    async def background() -> None:
        write("background", spec.id, spec.id, {"type": "http", "method": "", "headers": []})

    async def chunks(content: dict[str, Any]) -> AsyncIterator[str]:
        for key, value in content.items():
            yield f"{key}={value};"

    def respond(request: Request) -> Any:
        write("endpoint", spec.id, spec.id, request.scope)
        content = echo(spec.id, request)
        if spec.outcome == "error":
            raise RuntimeError(spec.id)
        if spec.outcome == "http_error":
            raise HTTPException(418, spec.id)
        if spec.outcome == "stream":
            return StreamingResponse(chunks(content))
        if spec.outcome == "background":
            tasks = BackgroundTasks()
            tasks.add_task(background)
            return JSONResponse(content, background=tasks)
        return content if of_fastapi else JSONResponse(content)

    async def asynchronous(request: Request) -> Any:
        await request.body()
        return respond(request)

    def typed(request: Request, limit: int = 0) -> Any:
        return respond(request)

    def synchronous(request: Request) -> Any:
        return respond(request)

    if spec.shape == "typed":
        return typed
    # An instance's `__call__` is not seen to be a coroutine function by every FastAPI.
    return synchronous if spec.shape in ("sync", "instance") else asynchronous


def socket_function(spec: Endpoint) -> AnyFunction:
    """Return an endpoint function for websockets."""

    async def socket(websocket: WebSocket) -> None:
        write("endpoint", spec.id, spec.id, websocket.scope)
        if spec.outcome == "error":
            raise RuntimeError(spec.id)
        await websocket.accept()
        text = await websocket.receive_text()
        await websocket.send_text(f"{text} {echo(spec.id, websocket)}")
        await websocket.close()

    return socket


def socket_class(spec: Endpoint) -> type[WebSocketEndpoint]:
    """Return an endpoint class for websockets."""

    class Socket(WebSocketEndpoint):
        test_id = spec.id
        encoding = "text"

        async def on_connect(self, websocket: WebSocket) -> None:
            write("endpoint", spec.id, spec.id, websocket.scope)
            await websocket.accept()

        async def on_receive(self, websocket: WebSocket, data: Any) -> None:
            await websocket.send_text(f"{data} {echo(spec.id, websocket)}")

    return Socket


def http_method(spec: Endpoint, name: str) -> AnyFunction:
    """Return one method of an endpoint class."""
    subject = f"{spec.id}.{name}"

    async def method(self: HTTPEndpoint, request: Request) -> Response:
        write("endpoint", subject, subject, request.scope)
        return JSONResponse(echo(subject, request))

    return method


class RecordedDispatch(HTTPEndpoint):
    """An endpoint class with a ``dispatch`` of its own, which is application code for any method."""

    test_id: str

    async def dispatch(self) -> None:
        write("handle", self.test_id, subject_within(type(self), self.scope), self.scope)
        await super().dispatch()


class RecordedAwait(HTTPEndpoint):
    """An endpoint class that does something before it dispatches."""

    test_id: str

    def __await__(self) -> Generator[Any, None, None]:
        write("handle", self.test_id, subject_within(type(self), self.scope), self.scope)
        return super().__await__()


RECORDED: dict[str, type[HTTPEndpoint]] = {"dispatch": RecordedDispatch, "await": RecordedAwait}


def subject_within(endpoint: Any, scope: Scope) -> str:
    """Return what is about to answer: of an endpoint class, the method that has the request's name."""
    subject: str = endpoint.test_id
    if isinstance(endpoint, type) and issubclass(endpoint, HTTPEndpoint):
        method = scope["method"]
        name = "get" if method == "HEAD" and not hasattr(endpoint, "head") else method.lower()
        return f"{subject}.{name}" if hasattr(endpoint, name) else subject
    return subject


def shaped(spec: Endpoint, function: AnyFunction) -> tuple[Any, AnyFunction]:
    """Return the function and the endpoint that is made of it."""
    endpoint: Any = function
    if spec.shape == "partial":
        endpoint = functools.partial(function)
    elif spec.shape == "instance":
        endpoint = _class_with(function, "__call__")()
    elif spec.shape == "bound":
        endpoint = _class_with(function, "endpoint")().endpoint
    if spec.shape == "bound":
        endpoint.__func__.test_id = spec.id
        return endpoint.__func__, endpoint
    endpoint.test_id = spec.id
    return (getattr(type(endpoint), "__call__") if spec.shape == "instance" else function), endpoint  # noqa: B004, B009


def _class_with(function: AnyFunction, name: str) -> Any:
    """Return a class that has the function as a method; FastAPI reads the method's signature."""
    if function.__name__ == "socket":

        async def socket(self: object, websocket: WebSocket) -> None:
            await function(websocket)

        return type("Holder", (), {name: socket})
    if function.__name__ == "asynchronous":

        async def asynchronous(self: object, request: Request) -> Any:
            return await function(request)

        return type("Holder", (), {name: asynchronous})

    def synchronous(self: object, request: Request) -> Any:
        return function(request)

    return type("Holder", (), {name: synchronous})


class Opaque:
    """An ASGI app of which nobody knows what it does."""

    def __init__(self, what: str, name: str) -> None:
        self.what = what
        self.test_id = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        write(self.what, self.test_id, self.test_id, scope)
        if scope["type"] == "websocket":
            websocket = WebSocket(scope, receive, send)
            await websocket.accept()
            await websocket.send_text(str(echo(self.test_id, websocket)))
            await websocket.close()
            return
        await JSONResponse(echo(self.test_id, HTTPConnection(scope)))(scope, receive, send)

    def function(self) -> ASGIApp:
        """Return the same as a function."""

        async def opaque(scope: Scope, receive: Receive, send: Send) -> None:
            await self(scope, receive, send)

        return opaque


# Dependencies.


def dependency(plan: Dependency) -> AnyFunction:
    """Return a dependency that writes itself down."""

    def run(connection: HTTPConnection) -> None:
        subject = getattr(connection.scope.get("endpoint"), "test_id", None)
        write("dependency", plan.id, subject, connection.scope)
        if plan.denies and connection.query_params.get("deny"):
            raise HTTPException(401)

    async def asynchronous(connection: HTTPConnection) -> None:
        run(connection)

    async def yielding(connection: HTTPConnection) -> AsyncIterator[None]:
        run(connection)
        yield
        write("dependency", f"{plan.id} ends", None, connection.scope)

    class Class:
        def __init__(self, connection: HTTPConnection) -> None:
            run(connection)

    return {"async": asynchronous, "sync": run, "yield": yielding, "class": Class}[plan.style]


# Routes and routers.


class HeaderMatched(BaseRoute):
    """Matches only with a header."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if Headers(scope=scope).get(VERSION) != "2":
            return Match.NONE, {}
        return super().matches(scope)


class PartiallyMatched(BaseRoute):
    """Gives way to any other route that matches, and runs all the same when there is none."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        return (Match.NONE if match is Match.NONE else Match.PARTIAL), child_scope


class Handled(BaseRoute):
    """Has a ``handle`` of its own: application code, for a wrong method as well."""

    endpoint: Any

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        write("handle", self.endpoint.test_id, subject_within(self.endpoint, scope), scope)
        await super().handle(scope, receive, send)


class HeaderApiRoute(HeaderMatched, APIRoute):
    """A path operation with its own ``matches``."""


class PartialApiRoute(PartiallyMatched, APIRoute):
    """A path operation that gives way."""


class HandledApiRoute(Handled, APIRoute):
    """A path operation with its own ``handle``."""


class HeaderRoute(HeaderMatched, Route):
    """A Starlette route with its own ``matches``."""


class PartialRoute(PartiallyMatched, Route):
    """A Starlette route that gives way."""


class HandledRoute(Handled, Route):
    """A Starlette route with its own ``handle``."""


API_ROUTE_CLASSES: dict[str, type[APIRoute]] = {
    "stock": APIRoute,
    "header": HeaderApiRoute,
    "fallback": PartialApiRoute,
    "handle": HandledApiRoute,
}
ROUTE_CLASSES: dict[str, type[Route]] = {
    "stock": Route,
    "header": HeaderRoute,
    "fallback": PartialRoute,
    "handle": HandledRoute,
}


class CustomRoute(BaseRoute):
    """A route class of the user's own, which shares nothing with the stock ones."""

    def __init__(self, path: str, endpoint: ASGIApp, methods: Sequence[str], *, named: bool) -> None:
        self.path = path
        self.endpoint = endpoint
        self.methods = methods
        self.named = named

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http" or get_route_path(scope) != self.path:
            return Match.NONE, {}
        child_scope = {"endpoint": self.endpoint} if self.named else {}
        return (Match.FULL if scope["method"] in self.methods else Match.PARTIAL), child_scope

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.endpoint(scope, receive, send)


class GatedRouter(APIRouter):
    """A router whose routes exist only for requests with a header."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if GATE not in Headers(scope=scope):
            return Match.NONE, {}
        return super().matches(scope)


class ConvertorError(Exception):
    """What a convertor of a random app raises."""


class Explosive(Convertor[str]):
    """A convertor that raises."""

    regex = "[^/]+"

    def __init__(self, failure: Callable[[], Exception]) -> None:
        self.failure = failure

    def convert(self, value: str) -> str:
        if value == "boom":
            write_matching_error()
            raise self.failure()
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("boom", Explosive(lambda: ConvertorError("boom")))
register_url_convertor("missing", Explosive(lambda: HTTPException(404)))


# What does not write itself down: docs pages and frontends get a wrapper that does.


def record_docs(app: FastAPI, name: str) -> None:
    """Have an app's own pages written down."""

    def recorded(inner: ASGIApp) -> ASGIApp:
        async def docs(scope: Scope, receive: Receive, send: Send) -> None:
            write("docs", name, name, scope)
            await inner(scope, receive, send)

        return docs

    for route in app.routes:
        if isinstance(route, Route):
            route.app = recorded(route.app)


def record_frontend(router: Any, name: str) -> None:
    """Have the latest frontend of a router written down; other methods than these two are 404 or 405."""
    route = router._frontend_routes.routes[-1]
    inner = route.app.get_response_for_scope

    async def get_response_for_scope(scope: Scope) -> Response:
        if scope["method"] in ("GET", "HEAD"):
            write("frontend", name, name, scope)
        response: Response = await inner(scope)
        return response

    route.app.get_response_for_scope = get_response_for_scope


@functools.cache
def site() -> Path:
    """Return a folder with a built frontend, which goes away with the process."""
    folder = Path(tempfile.mkdtemp(prefix="frontend-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "index.html").write_text("<h1>home</h1>")
    (folder / "404.html").write_text("<h1>lost</h1>")
    (folder / "app.js").write_text("let a = 1;")
    return folder


# Middlewares.


def around(app: ASGIApp, plan: Middleware) -> ASGIApp:
    """Put a middleware around an app."""
    if plan.effect == "cors":
        return CORSMiddleware(app, allow_origins=["*"], allow_methods=["*"])
    if plan.style == "base":
        return BaseMiddleware(app, plan)
    if plan.style == "closure":
        return closure_around(app, plan)
    if plan.style == "hidden":
        return hidden_around(app, plan)
    return PlainMiddleware(app, plan)


class PlainMiddleware:
    """A middleware as a class with an ``app``."""

    def __init__(self, app: ASGIApp, plan: Middleware) -> None:
        self.app = app
        self.plan = plan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await pass_on(self.app, self.plan, scope, receive, send)


def closure_around(app: ASGIApp, plan: Middleware) -> ASGIApp:
    """Return a middleware as a function that closes over ``app``."""

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        await pass_on(app, plan, scope, receive, send)

    return middleware


def hidden_around(app: ASGIApp, plan: Middleware) -> ASGIApp:
    """Return a middleware that keeps the app where nobody finds it."""
    apps = {plan.effect: app}

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        await pass_on(apps[plan.effect], plan, scope, receive, send)

    return middleware


class BaseMiddleware(BaseHTTPMiddleware):
    """A middleware as most people write it."""

    def __init__(self, app: ASGIApp, plan: Middleware) -> None:
        super().__init__(app)
        self.plan = plan

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        if self.plan.effect == "answer" and ANSWER in request.headers:
            return PlainTextResponse("answered")
        request.scope.update(changes(self.plan, request.scope))
        write_rewritten(request.scope)
        response = await call_next(request)
        if self.plan.effect == "header":
            response.headers["x-inner"] = "base"
        return response


async def pass_on(app: ASGIApp, plan: Middleware, scope: Scope, receive: Receive, send: Send) -> None:
    """Call an app with the request as a middleware changes it."""
    if plan.effect == "answer" and scope["type"] == "http" and ANSWER in Headers(scope=scope):
        await PlainTextResponse("answered")(scope, receive, send)
        return

    async def send_with_header(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["x-inner"] = plan.style
        await send(message)

    if plan.style == "copy":
        scope = {**scope, **changes(plan, scope)}
    elif plan.style == "anew":
        known = {key: value for key, value in scope.items() if key in ASGI_KEYS or key.endswith("_astack")}
        scope = {**known, **changes(plan, scope)}
    else:
        scope.update(changes(plan, scope))
    write_rewritten(scope)
    await app(scope, receive, send_with_header if plan.effect == "header" else send)


def changes(plan: Middleware, scope: Scope) -> dict[str, Any]:
    """Return what a rewriting middleware changes in a scope."""
    value = Headers(scope=scope).get(REWRITERS.get(plan.effect, ""))
    if value is None:
        return {}
    if plan.effect in ("path", "root_path"):
        return {plan.effect: value}
    if plan.effect == "method":
        return {"method": value} if scope["type"] == "http" else {}
    name = b"host" if plan.effect == "host" else VERSION.encode()
    others = [header for header in scope["headers"] if header[0] != name]
    return {"headers": [*others, (name, value.encode())]}


def hidden(app: ASGIApp, name: str) -> ASGIApp:
    """Return an opaque ASGI app, which happens to call another."""
    apps = {name: app}

    async def opaque(scope: Scope, receive: Receive, send: Send) -> None:
        write("opaque", name, name, scope)
        await apps[name](scope, receive, send)

    return opaque


def overriding(kind: type[Any], method: str, name: str, plan: Middleware) -> type[Any]:
    """Return a subclass of an app's or router's class that does something, and then what it overrides."""

    async def override(self: Any, scope: Scope, receive: Receive, send: Send) -> None:
        write("override", name, name, scope)
        await pass_on(functools.partial(getattr(kind, method), self), plan, scope, receive, send)

    return type(f"Own{kind.__name__}", (kind,), {method: override})


class Facade(Opaque):
    """An opaque ASGI app that keeps another one, and never calls it."""

    def __init__(self, app: ASGIApp, name: str) -> None:
        super().__init__("opaque", name)
        self.app = app


WRAPPERS: dict[str, Callable[[ASGIApp, str], ASGIApp]] = {
    "class": lambda app, _: PlainMiddleware(app, Middleware("none", "asgi")),
    "closure": lambda app, _: closure_around(app, Middleware("none", "closure")),
    "hidden": hidden,
    "facade": Facade,
    "cors": lambda app, _: around(app, Middleware("cors", "asgi")),
    "bound": lambda app, _: app.app,  # type: ignore[attr-defined]
}
"""What an app can be wrapped in before it is mounted."""
