"""Path confusion: however a path is spelled, only what the router maps to an exempt path passes.

Every endpoint tells which one it is; only the exempt ones may ever be heard.
"""

# No `from __future__ import annotations`: FastAPI reads the annotations of endpoints made in functions.

import asyncio
import json
import re
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from fastapi_maintenance import (
    Exemptions,
    MaintenanceGuard,
    MaintenanceModeMiddleware,
    configure_backend,
    force_maintenance_mode_on,
)
from fastapi_maintenance.routing.index import route_path
from tests.support.asgi import call, scope_of
from tests.support.servers import Server, uvicorn_server

pytestmark = pytest.mark.anyio

PATHS = ("/health", "/open/*", "/files/**", "/sub/health")
EXEMPT = {"health", "open", "files", "sub-health"}


def endpoint(name: str) -> Any:
    """Return an endpoint that tells its name."""

    async def tell(request: Request) -> dict[str, str]:
        return {"ran": name}

    return tell


async def opaque(scope: Scope, receive: Receive, send: Send) -> None:
    """Tell that something other than the router's own endpoints ran."""
    await PlainTextResponse('{"ran": "opaque"}')(scope, receive, send)


def add_routes(made: Any) -> None:
    """Add exempt paths, those that look like them, and one that takes whatever is left."""
    for path, name in {
        "/health": "health",
        "/open/{name}": "open",
        "/files/{path:path}": "files",
        "/healthz": "healthz",
        "/health/live": "live",
        "/Health": "Health",
        "/HEALTH": "HEALTH",
        "/health.": "health.",
        "/health ": "health ",
        "/health;x": "health;x",
        "/admin": "admin",
        "/open": "open-root",
        "/open/": "open-empty",
        "/open/{name}/admin": "open-admin",
    }.items():
        made.get(path)(endpoint(name))


def app() -> FastAPI:
    """Return an app under maintenance, with mounts and an endpoint behind everything."""
    made = FastAPI()
    made.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True, exemptions=Exemptions(paths=PATHS))
    add_routes(made)
    sub = FastAPI()
    sub.get("/health")(endpoint("sub-health"))
    sub.get("/admin")(endpoint("sub-admin"))
    sub.get("/{path:path}")(endpoint("sub-rest"))
    made.mount("/sub", sub)
    made.mount("/opaque", opaque)
    made.get("/{path:path}")(endpoint("rest"))
    return made


def guarded() -> FastAPI:
    """Return the same behind a guard, without the mounts."""
    configure_backend("memory", initial=True)
    made = FastAPI()
    router = APIRouter(dependencies=[Depends(MaintenanceGuard(exemptions=Exemptions(paths=PATHS)))])
    add_routes(router)
    router.get("/{path:path}")(endpoint("rest"))
    made.include_router(router)
    return made


RAW = {
    # what is exempt
    "/health": "health",
    "/%68ealth": "health",
    "/%68%65%61%6C%74%68": "health",
    "/health?x=/../admin": "health",
    "%2fhealth": "health",
    "/open/a": "open",
    "/open/a%20b": "open",
    "/open/%25": "open",
    "/open/..a": "open",
    "/open/a;b": "open",
    "/open/caf%C3%A9": "open",
    "/files/a/b": "files",
    "/files/": "files",
    "/files/a%2Fb": "files",
    "/sub/health": "sub-health",
    # one slash at the end does not count, and a route that takes everything takes that as well
    "/sub/health/": "sub-rest",
    # slashes that are encoded, doubled, turned round
    "/health%2f..%2fadmin": None,
    "/health%2F..%2Fadmin": None,
    "/health/../admin": None,
    "/health/%2e%2e/admin": None,
    "/health/.%2e/admin": None,
    "/health/..;/admin": None,
    "/health/..;x=y/admin": None,
    "/health/;/admin": None,
    "/health;x": None,
    "/health;/../admin": None,
    "/health%3B/admin": None,
    "//health": None,
    "///health": None,
    "/./health": None,
    "/%2e/health": None,
    "/admin/..//health": None,
    "/admin/../health": None,
    "/%2fhealth": None,
    "/health//": None,
    "/health/.": None,
    "/health/..": None,
    "/health%5C..%5Cadmin": None,
    "/health\\..\\admin": None,
    "\\health": None,
    "/\\health": None,
    "/health%252f..%252fadmin": None,
    "/%2568ealth": None,
    # encoded twice: a proxy or a middleware may decode once more
    "/files/%252e%252e/admin": None,
    "/files/%252E%252E/admin": None,
    "/files/.%252e/admin": None,
    "/files/%252e": None,
    "/files/..%252fadmin": None,
    "/files/..%255cadmin": None,
    "/files/..%253b/admin": None,
    "/files/%2500/admin": None,
    "/files/%25252e%25252e/admin": None,
    "/files/100%25-off": "files",
    "/files/caf%25C3%25A9": "files",
    "/files/../admin": None,
    "/files/..%2fadmin": None,
    "/files/%2e%2e/admin": None,
    "/files/..;/admin": None,
    "/files/a/../../admin": None,
    "/files//admin": None,
    "/files/./admin": None,
    "/files\\..\\admin": None,
    "/files/..%5cadmin": None,
    "/files/%00/admin": None,
    "/filesadmin": None,
    "/open/../admin": None,
    "/open/a%2fadmin": None,
    "/open/a/admin": None,
    "/open/": None,
    "/open": None,
    "/open/..": None,
    "/open/%2e%2e": None,
    "/open/.": None,
    "/open//": None,
    # what only begins or ends alike
    "/healthz": None,
    "/health-export": None,
    "/health/live": None,
    "/xhealth": None,
    "/x/health": None,
    "/health.": None,
    "/health..": None,
    "/health.json": None,
    "/health%2e": None,
    "/health%20": None,
    "/health+": None,
    "/%20/health": None,
    "/health%3Fx": None,
    "/health%23x": None,
    "/health*": None,
    # control characters
    "/health%00": None,
    "/health%00.png": None,
    "/%00health": None,
    "/health%0a": None,
    "/health%0d%0a": None,
    "/health%09": None,
    "/health%7f": None,
    "/health%0aadmin": None,
    # case, look-alikes, other spellings of the same letters, broken UTF-8
    "/Health": None,
    "/HEALTH": None,
    "/%48ealth": None,
    "/%EF%BD%88ealth": None,
    "/%EF%BC%8Fhealth": None,
    "/health%EF%BC%8Fadmin": None,
    "/health%E2%88%95admin": None,
    "/health%E2%81%84..%E2%81%84admin": None,
    "/he%D0%B0lth": None,
    "/hea%C5%82th": None,
    "/he%CC%80alth": None,
    "/health%E2%80%8B": None,
    "/health%E2%80%8E": None,
    "/health%EF%BB%BF": None,
    "/health%C2%A0": None,
    "/health%C2%85": None,
    "/health%E2%80%A8": None,
    "/health%C2%AD": None,
    "/health%C0%AFadmin": None,
    "/health%C0%80": None,
    "/health%FF": None,
    "/%C1%A8ealth": None,
    "/health%u002fadmin": None,
    # mounts
    "/sub/health/../admin": None,
    "/sub/health%2f..%2fadmin": None,
    "/sub//health": None,
    "/sub/sub/health": None,
    "/sub/admin": None,
    "/sub/Health": None,
    "/sub%2fhealth%2f..%2fadmin": None,
    "/opaque/health": None,
    "/opaque/../health": None,
    "/opaque": None,
    # whole URLs as a proxy is asked for them
    "http://x/health/../admin": None,
    "/http://x/health": None,
}
"""Request targets as they go over the wire, and what may run for them."""


def ran(status: int | None, body: bytes) -> str | None:
    """Return which endpoint ran."""
    return json.loads(body)["ran"] if status == 200 else None


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Return a real server, which decodes the targets in its own way."""
    with uvicorn_server(app()) as one:
        yield one


def raw_answer(server: Server, target: bytes, *lines: bytes) -> tuple[int, bytes]:
    """Send a request as it is, byte by byte; return its status and body."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        head = b"\r\n".join([b"GET " + target + b" HTTP/1.1", b"Host: x", *lines, b"Connection: close"])
        connection.sendall(head + b"\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), body


@pytest.mark.parametrize(("target", "expected"), RAW.items())
def test_a_real_server_runs_only_what_is_exempt(server: Server, target: str, expected: str | None) -> None:
    """What isn't exempt is a 503, or a redirect, or a request that the server itself refuses."""
    status, body = raw_answer(server, target.encode())
    assert ran(status, body) == expected
    assert status in ((200,) if expected else (503, 307, 400, 404))


@pytest.mark.parametrize("make", [app, guarded])
@pytest.mark.parametrize(("target", "expected"), RAW.items())
async def test_a_decoded_path_runs_only_what_is_exempt(make: Any, target: str, expected: str | None) -> None:
    """The same without a server's own opinion, for the middleware and for a guard."""
    raw = target.partition("?")[0]
    answer = await call(make(), scope_of(unquote(raw), raw_path=raw.encode()))
    if make is guarded and target.startswith("/sub/health") and expected:
        expected = "rest"  # it has no mounts
    assert ran(answer.status, answer.body) == expected


@pytest.mark.parametrize("header", ["X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Path", "X-Forwarded-Prefix"])
def test_no_header_rewrites_the_path(server: Server, header: str) -> None:
    """As other frameworks have it."""
    for path, other in (("/admin", "/health"), ("/health", "/admin")):
        status, body = raw_answer(server, path.encode(), f"{header}: {other}".encode())
        assert ran(status, body) == ("health" if path == "/health" else None)


def test_another_method_is_judged_by_the_same_path(server: Server) -> None:
    """A method that the endpoint hasn't is 405, exempt or not."""
    for path in ("/health", "/admin"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(f"DELETE {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            assert b" 405 " in connection.recv(100)


@pytest.mark.parametrize(
    ("root_path", "path", "expected"),
    [
        ("/api", "/api/health", "health"),
        ("/api", "/health", "health"),
        ("/api", "/api/health/../admin", None),
        ("/api", "/apihealth", None),
        ("/api", "/api//health", None),
        ("/api", "/api/api/health", None),
        ("/api", "/API/health", None),
        ("/health", "/health", None),
        ("/health", "/health/admin", None),
        ("/health", "/health/health", "health"),
        ("/files", "/files/admin", None),
        ("/files/..", "/files/../admin", None),
        ("/", "/health", "health"),
        ("/api/", "/api/health", "health"),
    ],
)
async def test_the_path_is_what_the_router_sees(root_path: str, path: str, expected: str | None) -> None:
    """Without ``root_path``, where the server says that there is one; exactly where the router takes it away."""
    answer = await call(app(), scope_of(path, root_path=root_path))
    exempt_or_nothing = ran(answer.status, answer.body)
    if root_path.endswith("/"):
        assert exempt_or_nothing in (expected, None)
    else:
        assert exempt_or_nothing == expected


async def test_a_mounted_app_has_its_own_exemptions_and_its_own_path() -> None:
    """``/health`` of the inner app is ``/sub/health`` of the outer one."""
    inner = Starlette(routes=[Route("/health", endpoint_of("inner")), Route("/admin", endpoint_of("inner-admin"))])
    inner.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True, exemptions=Exemptions(paths=["/health"]))
    outer = Starlette(routes=[Mount("/sub", inner), Mount("/health", inner)])
    for path, expected in {
        "/sub/health": "inner",
        "/sub/admin": None,
        "/sub/sub/health": None,
        "/health/health": "inner",
        "/health/admin": None,
        "/health": None,
        "/sub//health": None,
    }.items():
        answer = await call(outer, scope_of(path))
        assert ran(answer.status, answer.body) == expected, path


def endpoint_of(name: str) -> Any:
    async def tell(request: Request) -> PlainTextResponse:
        return PlainTextResponse(json.dumps({"ran": name}))

    return tell


async def test_an_exempt_path_does_not_open_what_is_forced_on_there() -> None:
    """Nothing does."""
    made = FastAPI()
    made.add_middleware(MaintenanceModeMiddleware, exemptions=Exemptions(paths=["/**"]))
    made.get("/health")(force_maintenance_mode_on(endpoint("health")))
    assert (await call(made, scope_of("/health"))).status == 503


async def test_a_path_that_is_rewritten_on_the_way_is_judged_as_what_it_became() -> None:
    """A middleware inside may decode or normalise once more."""

    class Normalising:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            path = re.sub("//+", "/", unquote(scope["path"])).replace("/files/up/", "/")
            await self.app({**scope, "path": path}, receive, send)

    made = FastAPI()
    made.add_middleware(Normalising)
    made.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True, exemptions=Exemptions(paths=PATHS))
    add_routes(made)
    made.get("/{path:path}")(endpoint("rest"))
    for path, expected in {
        "/files/up/admin": None,
        "/files/up/health": "health",
        "/files/%75p/health": "health",
        "/files/%2e%2e/x": None,
        "/files/%252e%252e/x": None,
        "//admin": None,
        "/health": "health",
    }.items():
        answer = await call(made, scope_of(path))
        assert ran(answer.status, answer.body) == expected, path


PIECES = ["/", "//", "health", "Health", "open", "files", "admin", "sub", "..", ".", ";", "\\", "%2f", "%2e", "a"]
ODD_PIECES = ["?", "#", "*", "z", " ", "\u2215", "\uff0f", "\u0430", "\x00", "\n"]
pieces = st.lists(st.sampled_from(PIECES + ODD_PIECES), max_size=7).map(lambda parts: "/" + "".join(parts))


@settings(deadline=None)
@given(pieces, st.sampled_from(["", "/api", "/health", "/files"]))
def test_whatever_passes_is_what_the_router_maps_to_an_exempt_endpoint(path: str, root_path: str) -> None:
    """Random spellings: a route that takes everything takes an exempt path with a slash at its end, and no other."""
    answer = asyncio.run(call(app(), scope_of(path, raw_path=b"/", root_path=root_path)))
    what, routed = ran(answer.status, answer.body), route_path(path, root_path)
    if what in {"rest", "sub-rest"}:
        assert re.fullmatch(r"/health/|/sub/health/|/open/[^/]+/|/files", routed)
    else:
        assert what in {*EXEMPT, None}
    if routed == "/health":
        assert what == "health"
