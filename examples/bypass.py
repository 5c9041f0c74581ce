"""Let testers in while everybody else gets the 503: by a signed link, which leaves a cookie.

    export FASTAPI_MAINTENANCE_BACKEND=file:/tmp/bypass-example
    export FASTAPI_MAINTENANCE_BYPASS_SECRET=$(python -c 'import secrets; print(secrets.token_urlsafe(32))')
    uvicorn examples.bypass:app
    fastapi-maintenance on
    fastapi-maintenance bypass --url http://127.0.0.1:8000/items/7 --holder alice --lifetime 2h

Open in a browser what the last command prints. A token opens one maintenance: it is no good for the next.
"""

import os

from fastapi import FastAPI

from fastapi_maintenance import Bypass, Exemptions, MaintenanceModeMiddleware

bypass = Bypass(os.environ["FASTAPI_MAINTENANCE_BYPASS_SECRET"])

app = FastAPI()
app.add_middleware(MaintenanceModeMiddleware, exemptions=Exemptions(bypass=bypass))


@app.get("/items/{item_id}")
async def read_item(item_id: int) -> dict[str, int]:
    """Answer testers always, others while there is no maintenance."""
    return {"item": item_id}
