"""Close a part of a service by a switch of its own: two routers with a guard each, and what is left stays open.

    export FASTAPI_MAINTENANCE_BACKEND=file:/tmp/two-switches
    uvicorn examples.two_switches:app
    fastapi-maintenance on billing --new --reason 'new tax rates'

The default switch (``fastapi-maintenance on``) closes both: it stands above each guard's own.
"""

from fastapi import APIRouter, Depends, FastAPI

from fastapi_maintenance import MaintenanceGuard, force_maintenance_mode_off

billing = APIRouter(prefix="/billing", dependencies=[Depends(MaintenanceGuard("billing"))])
search = APIRouter(prefix="/search", dependencies=[Depends(MaintenanceGuard("search"))])


@billing.get("/invoices/{number}")
async def read_invoice(number: int) -> dict[str, int]:
    """Follow the switch ``billing``."""
    return {"invoice": number}


@billing.get("/terms")
@force_maintenance_mode_off
async def read_terms() -> dict[str, str]:
    """Answer always, though the router is guarded."""
    return {"terms": "30 days"}


@search.get("")
async def find(q: str = "") -> dict[str, str]:
    """Follow the switch ``search``."""
    return {"found": q}


app = FastAPI()
app.include_router(billing)
app.include_router(search)


@app.get("/")
async def index() -> dict[str, str]:
    """Answer always: neither a guard nor the middleware stands before it."""
    return {"shop": "open"}
