"""CORS preflights: one passes on its way to a ``CORSMiddleware``, and never to an endpoint that is blocked."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from fastapi import Depends, FastAPI
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import (
    Exemptions,
    MaintenanceGuard,
    MaintenanceModeMiddleware,
    configure_backend,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    maintenance_guard,
)
from fastapi_maintenance.backends import MemoryBackend
from tests.support.asgi import PREFLIGHT, call, request, scope_of, status
from tests.support.overrides import each_override, overriding
from tests.support.servers import uvicorn_server

pytestmark = pytest.mark.anyio

FORGED = {**PREFLIGHT, "X-HTTP-Method-Override": "POST"}
CORS = Middleware(CORSMiddleware, allow_origins=["*"])

ran: list[str] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    """Begin with an empty list of what ran."""
    ran.clear()


async def endpoint(request: Request) -> Response:
    """Answer any method, and note it."""
    ran.append(request.method)
    return PlainTextResponse("ran")


async def opaque(scope: Scope, receive: Receive, send: Send) -> None:
    """Do the same, as an app that nobody can look into."""
    await (await endpoint(Request(scope)))(scope, receive, send)


class Class(HTTPEndpoint):
    """Answers by itself, as a class."""

    async def options(self, request: Request) -> Response:
        """Answer a preflight."""
        return await endpoint(request)


class Plain:
    """A middleware that does nothing."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class Overriding(Plain):
    """Takes the method from a header, as some frameworks do."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        override = dict(scope["headers"]).get(b"x-http-method-override")
        await self.app({**scope, "method": override.decode()} if override else scope, receive, send)


class OverridingAnew(Plain):
    """Does the same in a scope that has the keys of ASGI only."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        override = dict(scope["headers"]).get(b"x-http-method-override", scope["method"].encode())
        keys = ("type", "asgi", "path", "root_path", "headers", "query_string", "client", "server", "scheme")
        await self.app({**{key: scope[key] for key in keys}, "method": override.decode()}, receive, send)


class Base(BaseHTTPMiddleware):
    """A middleware as most people write it."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Do nothing."""
        return await call_next(request)


def hiding(app: ASGIApp) -> ASGIApp:
    """Return a middleware that keeps what it wraps where nobody finds it."""
    apps = [app]

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        await apps[0](scope, receive, send)

    return middleware


class OwnCors(CORSMiddleware):
    """A subclass, which may call what it wraps for a preflight as well."""


def closed(*routes: Any, inside: tuple[Any, ...] = (), outside: tuple[Any, ...] = (), **options: Any) -> FastAPI:
    """Return an app under maintenance, with middleware on either side of ours."""
    ours = Middleware(MaintenanceModeMiddleware, backend=MemoryBackend(True), **options)
    return FastAPI(routes=list(routes), middleware=[*outside, ours, *inside], openapi_url=None)


def own(path: str = "/x", **options: Any) -> Route:
    """Return a route that takes preflights itself."""
    return Route(path, endpoint, methods=["OPTIONS", "POST"], **options)


def sub(*middleware: Middleware) -> FastAPI:
    """Return an app to be mounted."""
    return FastAPI(routes=[own()], middleware=list(middleware), openapi_url=None)


def guarded() -> FastAPI:
    """Return an app whose endpoint has a guard."""
    app = closed()
    app.options("/x", dependencies=[Depends(maintenance_guard)])(lambda: ran.append("guarded"))
    return app


def catching_all() -> FastAPI:
    """Return an app with a default app of its own."""
    app = closed()
    app.router.default = opaque
    return app


def with_router(method: str, *inside: Middleware, app: FastAPI | None = None) -> FastAPI:
    """Return an app whose router overrides a method."""
    app = app or closed(inside=inside)
    app.router.__class__ = overriding(type(app.router), method, ran)
    app.router.middleware_stack = app.router.app
    app.router.routes.append(own())
    return app


FORGED_AT: dict[str, Callable[[], FastAPI]] = {
    "a route": lambda: closed(own()),
    "a class": lambda: closed(Route("/x", Class)),
    "a catch-all": lambda: closed(own("/{path:path}")),
    "a default app": catching_all,
    "a guarded route": guarded,
    "an opaque mount": lambda: closed(Mount("", opaque)),
    "an opaque host": lambda: closed(Host("testserver", opaque)),
    "an overriding mount": lambda: closed(Mount("", Overriding(opaque))),
    "a mounted app": lambda: closed(Mount("", sub()), Mount("", sub())),
    "an overriding mount of an app": lambda: closed(Mount("", Overriding(sub()))),
    "an overriding mount with a new scope": lambda: closed(Mount("", OverridingAnew(sub()))),
    "an overriding app": lambda: closed(own(), inside=(Middleware(Overriding),)),
    "an overriding app with a new scope": lambda: closed(own(), inside=(Middleware(OverridingAnew),)),
    "a router with middleware": lambda: closed(Mount("", Router([own()], middleware=[Middleware(Plain)]))),
    "a router that is hidden": lambda: closed(Mount("", Router([own()], middleware=[Middleware(hiding)]))),
    "cors that is hidden": lambda: closed(Mount("", hiding(CORSMiddleware(opaque)))),
    "cors of a user's own": lambda: closed(Mount("", OwnCors(opaque))),
    "cors behind an overriding mount": lambda: closed(Mount("", Overriding(CORSMiddleware(opaque)))),
    "cors behind a new scope": lambda: closed(Mount("", OverridingAnew(CORSMiddleware(opaque)))),
    "cors behind an overriding route": lambda: closed(own(middleware=[Middleware(Overriding), CORS])),
    "cors outside of an overriding app": lambda: closed(own(), inside=(Middleware(Overriding), CORS)),
    "a router's method app": lambda: closed(Mount("", Router([own()]).app)),
    "a router's method app within a middleware": lambda: closed(Mount("", Plain(Router([own()]).app))),
    "an app that overrides behind a router's method app": lambda: closed(
        Mount("", Router([Mount("", overriding(FastAPI, "__call__", ran)(routes=[own()]))]).app)
    ),
    "a router that overrides app, at the root": lambda: with_router("app"),
    "a router that overrides __call__, at the root": lambda: with_router("__call__"),
    "a router that overrides app, in a mounted app": lambda: closed(Mount("", with_router("app", app=FastAPI()))),
    "a router that overrides __call__, in a mounted app": lambda: closed(
        Mount("", with_router("__call__", app=FastAPI()))
    ),
    "an override within an override": lambda: closed(
        Mount("", overriding(Router, "app", ran)([Mount("", overriding(FastAPI, "__call__", ran)(routes=[own()]))]))
    ),
    "cors in an app that overrides __call__": lambda: closed(
        Mount("", overriding(FastAPI, "__call__", ran)(routes=[own()], middleware=[CORS]))
    ),
    "cors in an app within a router that overrides app": lambda: closed(
        Mount("", overriding(Router, "app", ran)([Mount("", sub(CORS))]))
    ),
}


@pytest.mark.parametrize("name", FORGED_AT)
async def test_a_forged_preflight_runs_nothing(name: str) -> None:
    """Two headers make a preflight of any request by OPTIONS; it ends before an endpoint, each time."""
    app = FORGED_AT[name]()
    for _ in range(2):
        assert await status(app, "/x", "OPTIONS", headers=FORGED) == 503
    assert ran == []


@each_override
@pytest.mark.parametrize("is_deep", [False, True], ids=["mounted", "deep"])
@pytest.mark.parametrize("inside", [(), (CORS,)], ids=["bare", "behind cors"])
async def test_a_forged_preflight_does_not_come_to_an_override(
    base: type[Any], method: str, is_deep: bool, inside: tuple[Middleware, ...]
) -> None:
    """It ends in the router before it, or where a ``CORSMiddleware`` answers it; 404 and redirects are within it."""
    mounted = overriding(base, method, ran)(routes=[own()])
    if is_deep:
        mounted = Router([Mount("", mounted)])
    app = closed(Mount("/in", mounted), inside=inside)
    expected = 200 if inside else 503
    for path in ("/in/x", "/in/none", "/in/x/"):
        for _ in range(2):
            assert await status(app, path, "OPTIONS", headers=FORGED) == expected
    assert await status(app, "/in/x", "OPTIONS") == 503
    assert ran == []
    app = closed(force_maintenance_mode_off(Mount("/in", mounted)))
    assert await status(app, "/in/x", "OPTIONS", headers=FORGED) == 200
    assert ran == ["override", "OPTIONS"]


@each_override
@pytest.mark.parametrize("inner", [Overriding, OverridingAnew], ids=["copy", "anew"])
async def test_a_new_scope_does_not_bring_a_preflight_to_an_override(base: type[Any], method: str, inner: Any) -> None:
    """Neither by another method, nor as the preflight that it is."""
    app = closed(Mount("", overriding(base, method, ran)(routes=[own()])), inside=(Middleware(inner),))
    for headers in (PREFLIGHT, FORGED):
        assert await status(app, "/x", "OPTIONS", headers=headers) == 503
        assert await status(app, "/x", "POST", headers=headers) == 503
    assert ran == []


class Batch(Plain):
    """Makes two requests out of one, a preflight and another, with the keys of ASGI only."""

    statuses: ClassVar[list[int | None]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/$batch":
            await self.app(scope, receive, send)
            return
        for method, headers in (("OPTIONS", FORGED), ("POST", {})):
            part = scope_of("/x", method, headers=headers)
            self.statuses.append((await call(self.app, part)).status)
        await PlainTextResponse("done")(scope, receive, send)


async def parts_of(app: FastAPI) -> list[int | None]:
    """Return how the two parts of a batch are answered."""
    Batch.statuses.clear()
    assert await status(app, "/$batch", "POST") == 200
    return Batch.statuses


def batching(*routes: Any) -> FastAPI:
    """Return an app that answers batches while it is under maintenance."""
    return closed(*routes, inside=(Middleware(Batch),), exemptions=Exemptions(paths=["/$batch"]))


@each_override
async def test_the_parts_of_a_batch_do_not_come_to_an_override(base: type[Any], method: str) -> None:
    """Each is judged at the router before it, with CORS around it or in it, as any request is."""
    for mounted in (
        overriding(base, method, ran)(routes=[own()]),
        Router([Mount("", overriding(base, method, ran)(routes=[own()]))]),
        CORSMiddleware(overriding(base, method, ran)(routes=[own()]), allow_origins=["*"]),
    ):
        expected = [200 if isinstance(mounted, CORSMiddleware) else 503, 503]
        assert await parts_of(batching(Mount("", mounted))) == expected
    assert ran == []


async def test_a_part_of_a_batch_that_is_no_preflight_any_more_does_not_come_through_cors() -> None:
    """Behind the router, in a scope that was built for the second time, it is known as what was judged there."""
    assert await parts_of(batching(Mount("", OverridingAnew(CORSMiddleware(opaque))))) == [503, 503]
    assert ran == []


@pytest.mark.parametrize("method", ["app", "__call__"])
async def test_the_parts_of_a_batch_do_not_come_past_a_root_router_that_overrides(method: str) -> None:
    """Of ``__call__`` nobody knows before it runs, as of a middleware; the routes are not come to in any case."""
    assert await parts_of(with_router(method, app=batching())) == [503, 503]
    assert ran == ([] if method == "app" else ["override"] * 2)


async def test_the_parts_of_a_batch_in_an_app_that_overrides_are_judged_at_its_router() -> None:
    """The middleware around the app judges the batch; its parts are judged where they come to a router."""
    app = overriding(FastAPI, "__call__", ran)(routes=[own()], openapi_url=None)
    gate = MaintenanceModeMiddleware(Batch(app), backend=MemoryBackend(True), exemptions=Exemptions(paths=["/$batch"]))
    Batch.statuses.clear()
    assert await status(gate, "/$batch", "POST") == 200
    assert Batch.statuses == [503, 503]
    assert ran == ["override"] * 2
    for headers in ({}, FORGED):
        assert await status(gate, "/x", "OPTIONS", headers=headers) == 503
    assert ran == ["override"] * 2


@each_override
async def test_a_guard_within_an_override_knows_no_preflight(base: type[Any], method: str) -> None:
    """Its own switch is on while the app's is off, so the override runs, and the endpoint does not."""
    inner = FastAPI(openapi_url=None)
    configure_backend(MemoryBackend(True), name="inner")
    guard = MaintenanceGuard("inner")
    inner.options("/x", dependencies=[Depends(guard)])(lambda: ran.append("guarded"))
    app = FastAPI(routes=[Mount("", overriding(base, method, ran)(routes=inner.routes))], openapi_url=None)
    app.add_middleware(MaintenanceModeMiddleware, backend=MemoryBackend())
    assert await status(app, "/x", "OPTIONS", headers=FORGED) == 503
    assert ran == ["override"]


ANSWERED: dict[str, Callable[[], FastAPI]] = {
    "outside": lambda: closed(own(), outside=(CORS,)),
    "inside": lambda: closed(own(), inside=(CORS,)),
    "inside, hidden": lambda: closed(own(), inside=(Middleware(hiding), CORS)),
    "inside, of a user's own": lambda: closed(own(), inside=(Middleware(OwnCors, allow_origins=["*"]),)),
    "in a mounted app": lambda: closed(Mount("", sub(CORS))),
    "around a mounted app": lambda: closed(Mount("", CORSMiddleware(sub(), allow_origins=["*"]))),
    "around an opaque app": lambda: closed(Mount("", CORSMiddleware(opaque, allow_origins=["*"]))),
    "behind others around an opaque app": lambda: closed(
        Mount("", Base(Plain(CORSMiddleware(opaque, allow_origins=["*"]))))
    ),
    "on a mount": lambda: closed(Mount("", sub(), middleware=[CORS])),
    "on a mount of an opaque app": lambda: closed(Mount("", opaque, middleware=[Middleware(Base), CORS])),
    "on a host": lambda: closed(Host("testserver", CORSMiddleware(opaque, allow_origins=["*"]))),
    "on a router": lambda: closed(Mount("", Router([own()], middleware=[CORS]))),
    "on a router that is hidden": lambda: closed(Mount("", Router([own()], middleware=[CORS, Middleware(hiding)]))),
    "on a route": lambda: closed(own(middleware=[CORS])),
    "on a route of a class": lambda: closed(Route("/x", Class, middleware=[CORS])),
    "behind others on a route": lambda: closed(own(middleware=[Middleware(Plain), CORS])),
    "around a router's method app": lambda: closed(
        Mount("", CORSMiddleware(Router([own()]).app, allow_origins=["*"]))
    ),
    "on a router that overrides app": lambda: closed(
        Mount("", overriding(Router, "app", ran)([own()], middleware=[Middleware(Plain), CORS]))
    ),
    "in a mounted app whose router overrides app": lambda: closed(
        Mount("", with_router("app", app=FastAPI(middleware=[CORS])))
    ),
    "inside, with a router that overrides app": lambda: with_router("app", Middleware(hiding), CORS),
    "inside, with a router that overrides __call__": lambda: with_router("__call__", Middleware(Plain), CORS),
    "around an app that overrides __call__": lambda: closed(
        Mount("", CORSMiddleware(overriding(FastAPI, "__call__", ran)(routes=[own()]), allow_origins=["*"]))
    ),
}


@pytest.mark.parametrize("name", ANSWERED)
async def test_a_cors_middleware_answers_it_wherever_it_stands(name: str) -> None:
    """Without its 200, a browser would report a network error instead of the 503."""
    app = ANSWERED[name]()
    for _ in range(2):
        answer = await request(app, "OPTIONS", "/x", headers=PREFLIGHT)
        assert (answer.status_code, answer.text) == (200, "OK")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert await status(app, "/x", "OPTIONS") == 503
    assert ran == []


async def test_without_a_router_what_the_middleware_wraps_has_to_be_cors() -> None:
    """An opaque app is an endpoint, and one around it answers as on a route."""
    for app, code in ((opaque, 503), (CORSMiddleware(opaque, allow_origins=["*"]), 200), (Overriding(opaque), 503)):
        gate = MaintenanceModeMiddleware(app, enable_maintenance=True)
        assert await status(gate, "/x", "OPTIONS", headers=FORGED) == code
    overriding = MaintenanceModeMiddleware(Overriding(CORSMiddleware(opaque)), enable_maintenance=True)
    assert await status(overriding, "/x", "OPTIONS", headers=FORGED) == 503
    assert ran == []


async def test_what_gets_through_a_cors_middleware_is_judged_behind_it() -> None:
    """Also where that does not take it for a preflight, as by names in upper case, which no server lets through."""
    app = closed(Mount("", CORSMiddleware(opaque, allow_origins=["*"])), exemptions=Exemptions(paths=["/exempt"]))
    scope = scope_of("/x", "OPTIONS")
    scope["headers"] = [(name.upper().encode(), value.encode()) for name, value in PREFLIGHT.items()]
    assert (await call(app, scope)).status == 503
    assert await status(app, "/exempt") == 200
    assert ran == ["GET"]


async def test_what_answers_preflights_by_itself_is_marked_so() -> None:
    """A mark opens it, and nothing opens what is forced on."""
    app = closed()
    app.options("/open")(force_maintenance_mode_off(lambda: "open"))
    app.options("/forced")(force_maintenance_mode_on(lambda: "forced"))
    assert await status(app, "/open", "OPTIONS", headers=PREFLIGHT) == 200
    assert await status(app, "/forced", "OPTIONS", headers=PREFLIGHT) == 503


async def test_what_runs_nothing_stays_what_it_is() -> None:
    """404, 405 and a redirect."""
    app = closed(Route("/get", endpoint), own("/slash/"))
    for path, code in (("/none", 404), ("/get", 405), ("/slash", 307)):
        assert await status(app, path, "OPTIONS", headers=PREFLIGHT) == code


async def test_other_exemptions_open_it_all_the_same() -> None:
    """It is judged as any other request where its own exemption ends, also behind ``CORSMiddleware``."""
    app = closed(own(), Mount("/m", Overriding(CORSMiddleware(opaque))), exemptions=Exemptions(paths=["/x", "/m/**"]))
    assert await status(app, "/x", "OPTIONS", headers=PREFLIGHT) == 200
    assert await status(app, "/m/x", "OPTIONS", headers=FORGED) == 200
    asked: list[str] = []

    def exempt(request: Request) -> bool:
        asked.append(request.url.path)
        return True

    app = closed(own(), exempt_handler=exempt)
    assert await status(app, "/x", "OPTIONS", headers=PREFLIGHT) == 200
    assert asked == ["/x"]
    assert ran == ["OPTIONS", "POST", "OPTIONS"]


async def test_the_exemption_can_be_switched_off() -> None:
    """Then ``CORSMiddleware`` inside of ours does not see it."""
    app = closed(own(), inside=(CORS,), exemptions=Exemptions(preflight=False))
    assert await status(app, "/x", "OPTIONS", headers=PREFLIGHT) == 503


@pytest.mark.parametrize("http", ["httptools", "h11"])
async def test_on_the_wire_a_forged_preflight_runs_nothing(http: str) -> None:
    """As bytes, by either of uvicorn's parsers; header names in any case, and values that may be empty."""
    app = closed(own(), Mount("/mount", Overriding(opaque)), Mount("/cors", Overriding(CORSMiddleware(opaque))))
    headers = (
        b"Origin: x\r\nAccess-Control-Request-Method: y",
        b"origin:\r\nACCESS-CONTROL-REQUEST-METHOD:",
        b"Origin: x\r\nAccess-Control-Request-Method: POST\r\nX-HTTP-Method-Override: POST",
    )
    with uvicorn_server(app, http=http) as server:
        for path in (b"/x", b"/mount/any", b"/cors/any"):
            for each in headers if path != b"/cors/any" else headers[2:]:
                with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
                    connection.sendall(
                        b"OPTIONS " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + each + b"\r\n\r\n"
                    )
                    answer = b"".join(iter(lambda: connection.recv(65536), b""))
                assert answer.startswith(b"HTTP/1.1 503 "), (path, each, answer)
    assert ran == []
