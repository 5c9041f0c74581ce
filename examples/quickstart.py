"""Begin here: a service of which all is closed during maintenance but its health check.

    FASTAPI_MAINTENANCE_MODE=1 uvicorn examples.quickstart:app
    curl -i http://127.0.0.1:8000/items/7

Without the variable, or with ``0``, it is a service as any other.
"""

from fastapi import FastAPI

from fastapi_maintenance import MaintenanceModeMiddleware, force_maintenance_mode_off

app = FastAPI()
app.add_middleware(MaintenanceModeMiddleware)


@app.get("/items/{item_id}")
async def read_item(item_id: int) -> dict[str, int]:
    """Answer 503 during maintenance."""
    return {"item": item_id}


@app.get("/health")
@force_maintenance_mode_off
async def health() -> dict[str, str]:
    """Answer always."""
    return {"status": "ok"}
