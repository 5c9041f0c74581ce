"""CORS preflights: one passes on its way to a ``CORSMiddleware``, and never to an endpoint that is blocked."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

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
    MaintenanceModeMiddleware,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    maintenance_guard,
)
from fastapi_maintenance.backends import MemoryBackend

from .asgi import PREFLIGHT, call, request, scope_of, status
from .servers import uvicorn_server

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
}


@pytest.mark.parametrize("name", FORGED_AT)
async def test_a_forged_preflight_runs_nothing(name: str) -> None:
    """Two headers make a preflight of any request by OPTIONS; it ends before an endpoint, each time."""
    app = FORGED_AT[name]()
    for _ in range(2):
        assert await status(app, "/x", "OPTIONS", headers=FORGED) == 503
    assert ran == []


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
