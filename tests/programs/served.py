"""The app that tests have real servers serve; its switch is where ``FASTAPI_MAINTENANCE_BACKEND`` says.

With ``ASKED_BEFORE_FORK`` set, the process that imports it follows the store already, before a server forks it.
"""

from __future__ import annotations

import os
import threading
import time

from fastapi import FastAPI

from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    configure_backend,
    force_maintenance_mode_off,
    get_maintenance_mode,
    get_maintenance_status,
    is_maintenance_on,
)
from tests.programs.store_scripts import patient

configure_backend(patient(os.environ["FASTAPI_MAINTENANCE_BACKEND"]))

app = FastAPI()
app.add_middleware(MaintenanceModeMiddleware)


@app.get("/")
async def index() -> dict[str, str]:
    return {}


@app.get("/worker")
@force_maintenance_mode_off
async def worker() -> dict[str, object]:
    """Tell which worker this is and what it knows; slowly, so that the next request finds another one."""
    is_on = await get_maintenance_mode()
    time.sleep(0.02)  # noqa: ASYNC251 - what else the worker could do meanwhile is the point
    return {
        "pid": os.getpid(),
        "on": is_on,
        "knowledge": get_maintenance_status().knowledge,
        "followers": sum(thread.name == "fastapi-maintenance" for thread in threading.enumerate()),
    }


if "ASKED_BEFORE_FORK" in os.environ:
    is_maintenance_on()
