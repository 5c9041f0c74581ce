"""A complete service with two switches and the operator's page.

Run it with ``make serve`` and open http://127.0.0.1:8000, or see ``make demo``.

Two switches: ``default`` is the whole service, ``billing`` only the router ``/billing``. Both are kept in files, so
that all workers agree, and the command line can be used as well.
"""

import os
import tempfile
from pathlib import Path

from fastapi import APIRouter, Depends, FastAPI, WebSocket, WebSocketDisconnect
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse

from fastapi_maintenance import (
    MaintenanceGuard,
    MaintenanceModeMiddleware,
    configure_backend,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    get_maintenance_mode,
)
from fastapi_maintenance.admin import maintenance_admin

# All workers, and the command line, share the file; ``billing`` has one of its own beside it.
STATE_DIR = Path(os.environ.get("SERVICE_STATE_DIR", Path(tempfile.gettempdir()) / "example-service"))
STATE_DIR.mkdir(parents=True, exist_ok=True)
configure_backend("file", file_path=STATE_DIR / "maintenance")

app = FastAPI(title="Example service")
app.add_middleware(MaintenanceModeMiddleware)
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
    switches = {name: await get_maintenance_mode(name=name) for name in ("default", "billing")}
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
    return {"maintenance": await get_maintenance_mode(name="billing")}


app.include_router(billing)

# Everybody who reaches this example may switch it: a real service passes dependencies=[Depends(only_operators)].
app.include_router(maintenance_admin(insecure=True), prefix="/operator", include_in_schema=False)

LINKS = {
    "/items/7": "follows the default switch",
    "/billing/invoices/7": "follows both switches",
    "/billing/status": "stays open in a router under maintenance",
    "/legacy": "is out of service whatever the switches say",
    "/health": "stays open, and says which worker answers",
    "/missing": "is a 404 as always",
    "/docs": "stays open, too",
}
STYLE = """
body { margin: 0 auto; max-width: 40rem; padding: 2rem 1rem; font: 1rem/1.5 system-ui, sans-serif }
:root { color-scheme: light dark }
a.operator { display: inline-block; padding: .6rem 1rem; border-radius: .4rem; background: #1d5fbf; color: #fff;
  font-weight: 600; text-decoration: none }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1.5rem }
dt, dd { margin: 0; padding: .4rem 0 }
dt a { font-family: ui-monospace, monospace }
@media (max-width: 30rem) { dl { display: block } dt { padding: 1rem 0 0 } dd { padding: 0 } dt a { display: block } }
"""


@app.get("/", include_in_schema=False)
@force_maintenance_mode_off
async def show_start() -> HTMLResponse:
    """Lead to the operator's page, and to what the switches close and leave open."""
    links = "".join(f"<dt><a href={path}>{path}</a><dd>{meaning}" for path, meaning in LINKS.items())
    return HTMLResponse(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>Example service</title><style>{STYLE}</style><h1>Example service</h1>"
        "<p>Turn maintenance on, then see what each of these addresses answers."
        f"<p><a class=operator href=/operator/>The operator\u2019s page</a><dl>{links}</dl>"
    )
