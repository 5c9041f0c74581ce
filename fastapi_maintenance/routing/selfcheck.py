"""A check at the start that routing works as it is known here."""

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
    """Make sure that this FastAPI's router can be read, by reading one whose answers are known.

    Raises:
        UnsupportedFastAPI: An answer is wrong, or something that is needed is gone.
    """
    app, expected = _known_app()
    for (method, path), endpoint in expected.items():
        scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}
        target = resolve(app, scope)
        if target.failure is not None:
            raise UnsupportedFastAPI(f"{method} {path} of a known app raises {target.failure!r}") from target.failure
        if (target.endpoint if target.runs else None) is not endpoint:
            raise UnsupportedFastAPI(f"{method} {path} of a known app leads to {target.endpoint!r}")


def _known_app() -> tuple[FastAPI, dict[tuple[str, str], Any]]:
    """Return an app with a route of each kind that FastAPI has, and what its router would run."""

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
