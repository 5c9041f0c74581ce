"""Share one switch by Redis, so that all workers on all hosts follow it within milliseconds.

    export REDIS_URL=redis://127.0.0.1:6379/0
    uvicorn examples.redis_workers:app --workers 4
    FASTAPI_MAINTENANCE_BACKEND=$REDIS_URL fastapi-maintenance on --for 10m

While Redis is away, workers keep to what they last knew; ``/health`` tells how well that is.
"""

import os

from fastapi import FastAPI

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    configure_backend,
    force_maintenance_mode_off,
    get_maintenance_mode,
    get_maintenance_status,
)

configure_backend(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"))

app = FastAPI()
app.add_middleware(MaintenanceModeMiddleware)


@app.get("/items/{item_id}")
async def read_item(item_id: int) -> dict[str, int]:
    """Answer 503 during maintenance, whichever worker is asked."""
    return {"item": item_id}


@app.get("/health")
@force_maintenance_mode_off
async def health() -> dict[str, object]:
    """Tell which worker this is and what it knows; it asks Redis nothing."""
    return {
        "worker": os.getpid(),
        "maintenance": await get_maintenance_mode(),
        "knowledge": get_maintenance_status().knowledge,
    }
