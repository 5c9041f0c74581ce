"""A service that tells a webhook when its maintenance begins and ends.

    WEBHOOK_URL=http://127.0.0.1:9000/ uvicorn examples.webhook:app

The hook runs in a thread of its own, so that a webhook that is slow or away holds up nothing.
"""

import json
import logging
import os
import urllib.request

from fastapi import FastAPI

from fastapi_maintenance import MaintenanceModeMiddleware, Transition, configure_backend, on_change

logger = logging.getLogger(__name__)

configure_backend(os.environ.get("FASTAPI_MAINTENANCE_BACKEND", "memory"))

app = FastAPI()
app.add_middleware(MaintenanceModeMiddleware)


@app.get("/items")
async def items() -> list[str]:
    """Return what there is."""
    return ["anvil"]


def tell_webhook(transition: Transition) -> None:
    """Post one transition; what goes wrong is logged by whoever calls this."""
    told = {
        "switch": transition.switch,
        "mode": transition.after.value,
        "reason": transition.reason,
        "until": None if transition.until is None else transition.until.isoformat(),
        "by": transition.by,
    }
    request = urllib.request.Request(  # noqa: S310 - the operator's own URL
        os.environ["WEBHOOK_URL"], json.dumps(told).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
        logger.info("the webhook answered %s", answer.status)


on_change(tell_webhook)
