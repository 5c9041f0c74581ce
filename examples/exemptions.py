"""Stay reachable for some during maintenance: paths, and requests that a handler knows.

Run it under maintenance; ``/health``, all below ``/internal``, and testers get in::

    FASTAPI_MAINTENANCE_MODE=1 uvicorn examples.exemptions:app
    curl -H 'X-Tester: let-me-in' http://127.0.0.1:8000/items/7
"""

import secrets

from fastapi import FastAPI, Request

from fastapi_maintenance import Exemptions, MaintenanceModeMiddleware

TESTER_KEY = "let-me-in"  # A real service reads it from its settings.


def is_tester(request: Request) -> bool:
    """Return whether the request comes from somebody who is to try things out before the others."""
    return secrets.compare_digest(request.headers.get("x-tester", "").encode(), TESTER_KEY.encode())


app = FastAPI()
app.add_middleware(
    MaintenanceModeMiddleware,
    exempt_handler=is_tester,
    exemptions=Exemptions(paths=("/health", "/internal/**")),
)


@app.get("/health")
async def health() -> dict[str, str]:
    """Answer the load balancer."""
    return {"status": "ok"}


@app.get("/internal/jobs/{job_id}")
async def read_job(job_id: int) -> dict[str, int]:
    """Answer colleagues."""
    return {"job": job_id}


@app.get("/items/{item_id}")
async def read_item(item_id: int) -> dict[str, int]:
    """Answer everybody, except during maintenance."""
    return {"item": item_id}
