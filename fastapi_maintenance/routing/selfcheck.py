"""A check at startup that this package can read the routes of the installed FastAPI."""

from __future__ import annotations

import functools
from typing import Any

from fastapi.applications import FastAPI
from fastapi.routing import APIRouter
from starlette.types import Receive, Scope, Send

from ..exceptions import UnsupportedFastAPI
from .walk import FrontendRouteGroup, resolve


@functools.cache
def check_fastapi() -> None:
    """Raise an error if the targets of requests to an example app are not as expected.

    Raises:
        UnsupportedFastAPI: A target is wrong, or a FastAPI internal is missing.
    """
    app, expected = _build_app()
    for (method, path), endpoint in expected.items():
        scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}
        target = resolve(app, scope)
        if target.failure is not None:
            raise UnsupportedFastAPI(
                f"{method} {path} of the self-check app raises {target.failure!r}"
            ) from target.failure
        if (target.endpoint if target.runs else None) is not endpoint:
            raise UnsupportedFastAPI(f"{method} {path} of the self-check app leads to {target.endpoint!r}")


def _build_app() -> tuple[FastAPI, dict[tuple[str, str], Any]]:
    """Return an app with every kind of route in FastAPI, and the endpoint expected for each request."""

    def endpoint() -> None: ...  # pragma: no cover - only looked up

    async def mounted(scope: Scope, receive: Receive, send: Send) -> None: ...  # pragma: no cover - the same

    app, outer, inner = FastAPI(openapi_url=None), APIRouter(prefix="/outer"), APIRouter()
    inner.get("/{item}")(endpoint)
    outer.include_router(inner, prefix="/inner")
    inner_mount = FastAPI(openapi_url=None)
    inner_mount.get("/page")(endpoint)
    app.include_router(outer)
    app.get("/direct")(endpoint)
    app.mount("/app", inner_mount)
    app.mount("/opaque", mounted)
    expected: dict[tuple[str, str], Any] = {
        ("GET", "/direct"): endpoint,
        ("POST", "/direct"): None,
        ("GET", "/outer/inner/1"): endpoint,
        ("POST", "/outer/inner/1"): None,
        ("GET", "/outer/inner/1/"): None,
        ("GET", "/outer/1"): None,
        ("GET", "/app/page"): endpoint,
        ("GET", "/app/none"): None,
        ("GET", "/opaque/any"): mounted,
        ("GET", "/none"): None,
    }
    if FrontendRouteGroup is not None or hasattr(app, "frontend"):
        outer.frontend("/site", directory=".", check_dir=False)
        outer_frontend = outer._frontend_routes
        expected |= {("GET", "/outer/site/any"): outer_frontend, ("POST", "/outer/site/any"): None}
    return app, expected
