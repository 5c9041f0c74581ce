"""Give operators a page with all switches, and programs an API for them, behind a password.

    export FASTAPI_MAINTENANCE_BACKEND=file:/tmp/admin-example OPERATORS_PASSWORD=...
    uvicorn examples.admin:app

Open http://127.0.0.1:8000/ops/maintenance/, or switch by a program::

    curl -u "ops:$OPERATORS_PASSWORD" -X PUT http://127.0.0.1:8000/ops/maintenance/api/switches/billing/mode \
        --json '{"mode": "on", "reason": "new tax rates"}'
"""

import os
from secrets import compare_digest
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, status
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from fastapi_maintenance import MaintenanceGuard, MaintenanceModeMiddleware
from fastapi_maintenance.admin import maintenance_admin


def only_operators(credentials: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())]) -> None:
    """Refuse everybody who does not know the password."""
    password = os.environ["OPERATORS_PASSWORD"]
    if not password or not compare_digest(credentials.password.encode(), password.encode()):
        raise HTTPException(status.HTTP_401_UNAUTHORIZED, headers={"WWW-Authenticate": "Basic"})


app = FastAPI()
app.add_middleware(MaintenanceModeMiddleware)
app.include_router(maintenance_admin(dependencies=[Depends(only_operators)]), prefix="/ops/maintenance")


@app.get("/items/{item_id}")
async def read_item(item_id: int) -> dict[str, int]:
    """Follow the default switch."""
    return {"item": item_id}


@app.get("/invoices/{number}", dependencies=[Depends(MaintenanceGuard("billing"))])
async def read_invoice(number: int) -> dict[str, int]:
    """Follow both switches."""
    return {"invoice": number}
