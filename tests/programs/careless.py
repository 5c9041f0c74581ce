"""Apps with likely mistakes, and without, for ``fastapi-maintenance doctor tests.programs.careless:app``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from starlette.responses import PlainTextResponse

from fastapi_maintenance import (
    Exemptions,
    MaintenanceActive,
    MaintenanceGuard,
    MaintenanceModeMiddleware,
    maintenance_exception_handler,
)
from tests.programs.shop import nothing

guarded = APIRouter()
guarded.add_api_route("/live", nothing, dependencies=[Depends(MaintenanceGuard("billing"))])


async def answer(request: Any, exc: Exception) -> PlainTextResponse:
    """Answer a refusal in words of the app's own."""
    return PlainTextResponse("closed", 503)


app = FastAPI(openapi_url=None)
app.add_middleware(
    MaintenanceModeMiddleware,
    exemptions=Exemptions(
        paths=["/health", "/helth", "/item/**", "/items/**", "/items/welcome", "/items/*/x", "/odd/*", "/inner/z"]
    ),
)
app.add_api_route("/health", nothing)
app.add_api_route("/items/{name}", nothing)
app.add_api_route("/odd/{one:tests_odd}", nothing)
of_invoices = MaintenanceGuard("billing", exemptions=Exemptions(paths=["/invoices/*", "/invoice/*"]))
app.add_api_route("/invoices/{number:int}", nothing, dependencies=[Depends(of_invoices)])

inner = FastAPI(openapi_url=None)
inner.add_middleware(MaintenanceModeMiddleware, exemptions=Exemptions(paths=["/y"]))
inner.add_api_route("/y", nothing)
app.mount("/inner", inner)

plain = FastAPI(openapi_url=None)
plain.include_router(guarded)

answered = FastAPI(openapi_url=None, exception_handlers={MaintenanceActive: maintenance_exception_handler})
answered.include_router(guarded)

answered_by_status = FastAPI(openapi_url=None, exception_handlers={503: answer})
answered_by_status.include_router(guarded)

covered = FastAPI(openapi_url=None)
covered.add_middleware(MaintenanceModeMiddleware)
covered.mount("/plain", plain)
