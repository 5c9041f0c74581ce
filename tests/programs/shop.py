"""An app with every kind of route, for ``fastapi-maintenance doctor tests.programs.shop:app``."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.staticfiles import StaticFiles
from starlette.convertors import Convertor, register_url_convertor
from starlette.endpoints import HTTPEndpoint
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router

from fastapi_maintenance import (
    Exemptions,
    MaintenanceGuard,
    MaintenanceModeMiddleware,
    configure_backend,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
)
from fastapi_maintenance.backends import BaseStateBackend, MemoryBackend


class Odd(Convertor[str]):
    """What no path that anybody could make up fits."""

    regex = "odd-[0-9]{7}"

    def convert(self, value: str) -> str:
        raise ZeroDivisionError

    def to_string(self, value: str) -> str:
        return value


class Strict(Odd):
    """What raises when it matches."""

    regex = "[^/]+"


register_url_convertor("tests_odd", Odd())
register_url_convertor("tests_strict", Strict())


class Page(HTTPEndpoint):
    """An endpoint with two methods."""

    async def get(self, request: Any) -> PlainTextResponse:
        return PlainTextResponse("")

    async def put(self, request: Any) -> PlainTextResponse:
        return PlainTextResponse("")


class Broken(BaseStateBackend):
    """A user's own store, which fails."""

    async def get_value(self) -> bool:
        raise OSError("no such disk")

    async def set_value(self, value: bool) -> None:
        raise OSError("no such disk")


class Own(Broken):
    """A user's own store, which works."""

    async def get_value(self) -> bool:
        return False


async def nothing() -> None:
    """Answer."""


@force_maintenance_mode_off
async def health() -> None:
    """Answer always."""


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()


configure_backend(Own(), name="reports")
configure_backend("memory", name="billing", initial=True)

billing = APIRouter(prefix="/billing", dependencies=[Depends(MaintenanceGuard("billing"))])
billing.add_api_route("/invoices/{number:int}", nothing, methods=["GET", "POST"])
billing.add_api_websocket_route("/live", echo)

app = FastAPI(docs_url=None, redoc_url=None)
app.add_middleware(MaintenanceModeMiddleware, exemptions=Exemptions(paths=["/public/*"]))
app.add_api_route("/items/{item_id}/{when}/{path:path}", nothing)
app.add_api_route("/items/{item_id}/1/x", health)
app.add_api_route("/health", health)
app.add_api_route("/uuid/{one:uuid}", nothing)
app.add_api_route("/public/{page}", nothing)
app.add_api_route("/odd/{one:tests_odd}", nothing)
app.add_api_route("/strict/{one:tests_strict}", nothing)


@app.get("/gone")
@force_maintenance_mode_on
async def gone() -> None:
    """Answer never."""


@app.get("/reports", dependencies=[Depends(nothing), Depends(MaintenanceGuard("reports"))])
async def reports(of: UUID | None = None) -> None:
    """Answer."""


app.include_router(billing)
app.routes.append(Route("/page", Page))
app.mount("/static", StaticFiles(directory="."))

inner = FastAPI(openapi_url=None)
inner.add_middleware(MaintenanceModeMiddleware, backend=Broken(), exemptions=Exemptions(paths=["/open"]))
inner.add_api_route("/open", nothing)
inner.add_api_route("/closed", nothing)
app.mount("/inner", inner)
app.routes.append(Host("{tenant}.example", FastAPI(openapi_url=None, routes=[Route("/tenant", Page)])))
app.routes.append(Host("{tenant:tests_odd}.example", FastAPI(openapi_url=None, routes=[Route("/tenant", Page)])))
app.routes.append(Mount("/wrapped", app=inner, middleware=[]))

app.mount("/plain", Router([Route("/", Page)]))


class OwnKind(BaseRoute):
    """A user's own kind of route."""

    def matches(self, scope: Any) -> Any:
        return Match.NONE, {}


app.routes.append(OwnKind())

bare = FastAPI(openapi_url=None)
bare.add_api_route("/", nothing)
wrapped = MaintenanceModeMiddleware(bare, backend=MemoryBackend(initial=True), exemptions=Exemptions(paths=["/x"]))
