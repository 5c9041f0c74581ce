"""A complete service with maintenance mode, and a switch backend of its own.

Run it with ``make serve`` and open http://127.0.0.1:8000/operator, or see ``make demo``.

Two switches: ``default`` is the whole service, ``billing`` only the router ``/billing``. Both are kept in
files, so that all workers agree.
"""

import os
import tempfile
from enum import StrEnum
from pathlib import Path

from fastapi import APIRouter, Depends, FastAPI, WebSocket, WebSocketDisconnect, status
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse, RedirectResponse

from fastapi_maintenance import (
    MaintenanceGuard,
    MaintenanceModeMiddleware,
    configure_backend,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    get_maintenance_mode,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import BaseStateBackend


class FlagFile(BaseStateBackend):
    """A switch that is on while a file exists: two methods are a whole backend."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def get_value(self) -> bool:
        """Look at every request: one ``stat`` takes a microsecond, less than a thread would."""
        return self.path.exists()

    async def set_value(self, value: bool) -> None:
        """Create or remove the file."""
        if value:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
        else:
            self.path.unlink(missing_ok=True)


class Switch(StrEnum):
    """What an operator can switch."""

    DEFAULT = "default"
    BILLING = "billing"


class Setting(StrEnum):
    """Under maintenance or not."""

    ON = "on"
    OFF = "off"


STATE_DIR = Path(os.environ.get("SERVICE_STATE_DIR", Path(tempfile.gettempdir()) / "example-service"))
BACKENDS = {switch: FlagFile(STATE_DIR / f"{switch}.maintenance") for switch in Switch}

# The named switch goes to the registry, where the guard finds it; the default one is the middleware's own.
configure_backend(BACKENDS[Switch.BILLING], name=Switch.BILLING)

app = FastAPI(title="Example service")
app.add_middleware(MaintenanceModeMiddleware, backend=BACKENDS[Switch.DEFAULT])
# Added after ours, so it stands outside: browsers may read the 503, too.
app.add_middleware(CORSMiddleware, allow_origins=["https://shop.example"])


@app.get("/items/{item_id}")
async def read_item(item_id: int) -> dict[str, int]:
    """Stand for any normal endpoint: follows the default switch."""
    return {"item": item_id}


@app.post("/items")
async def create_item() -> dict[str, bool]:
    """Stand for any endpoint that writes."""
    return {"created": True}


@app.get("/legacy")
@force_maintenance_mode_on
async def read_legacy() -> dict[str, str]:
    """Never run: out of service whatever the switches say."""
    return {"legacy": "still here"}


@app.get("/health")
@force_maintenance_mode_off
async def health() -> dict[str, object]:
    """Always answer, and say which worker does and what it knows."""
    switches = {switch: await get_maintenance_mode(backend) for switch, backend in BACKENDS.items()}
    return {"status": "ok", "worker": os.getpid(), "maintenance": switches}


@app.websocket("/echo")
async def echo(websocket: WebSocket) -> None:
    """Send every text back; refused with a 503 while the default switch is on."""
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        return


billing = APIRouter(prefix="/billing", tags=["billing"], dependencies=[Depends(MaintenanceGuard("billing"))])


@billing.get("/invoices/{number}")
async def read_invoice(number: int) -> dict[str, int]:
    """Follow both switches: ``billing`` by the router's guard, ``default`` as everything does."""
    return {"invoice": number}


@billing.get("/status")
@force_maintenance_mode_off
async def billing_status() -> dict[str, bool]:
    """Stay reachable inside a router under maintenance."""
    return {"maintenance": await get_maintenance_mode(BACKENDS[Switch.BILLING])}


app.include_router(billing)

# A real service puts its own authentication here: APIRouter(dependencies=[Depends(require_operator)]).
operator = APIRouter(prefix="/operator", include_in_schema=False)


@operator.get("")
@force_maintenance_mode_off
async def show_switches() -> HTMLResponse:
    """Show the switches as a page with buttons."""
    rows = []
    for switch, backend in BACKENDS.items():
        now, other = (Setting.ON, Setting.OFF) if await get_maintenance_mode(backend) else (Setting.OFF, Setting.ON)
        rows.append(
            f"<form method=post action=/operator/{switch}/{other}>"
            f"Maintenance of <b>{switch}</b> is <b>{now}</b> <button>turn {other}</button></form>"
        )
    links = "".join(
        f"<li><a href={path}>{path}</a>"
        for path in (
            "/items/7",
            "/legacy",
            "/health",
            "/billing/invoices/7",
            "/billing/status",
            "/missing",
            "/docs",
        )
    )
    return HTMLResponse(f"<!doctype html><title>Switches</title><h1>Switches</h1>{''.join(rows)}<ul>{links}</ul>")


@operator.post("/{switch}/{setting}")
@force_maintenance_mode_off
async def set_switch(switch: Switch, setting: Setting) -> RedirectResponse:
    """Turn a switch on or off for all workers."""
    await set_maintenance_mode(setting is Setting.ON, BACKENDS[switch])
    return RedirectResponse("/operator", status_code=status.HTTP_303_SEE_OTHER)


app.include_router(operator)
