"""The app of the soak: something of every kind; its switches are where ``FASTAPI_MAINTENANCE_BACKEND`` says."""

from __future__ import annotations

import asyncio
import os
import tracemalloc
from collections.abc import AsyncIterator

from fastapi import Depends, FastAPI, WebSocket
from fastapi.responses import StreamingResponse

from fastapi_maintenance import (
    MaintenanceGuard,
    MaintenanceModeMiddleware,
    configure_backend,
    force_maintenance_mode_off,
    in_flight,
)
from tests.programs.store_scripts import patient

GUARDED = "billing"
CHUNKS = 50

configure_backend(patient(os.environ["FASTAPI_MAINTENANCE_BACKEND"]))

app = FastAPI()
app.add_middleware(MaintenanceModeMiddleware)


@app.api_route("/", methods=["GET", "POST"])
async def index() -> dict[str, str]:
    return {}


@app.get("/guarded/{item}", dependencies=[Depends(MaintenanceGuard(GUARDED))])
async def guarded(item: str) -> dict[str, str]:
    return {"item": item}


@app.get("/stream")
async def stream() -> StreamingResponse:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(CHUNKS):
            yield b"x" * 1000
            await asyncio.sleep(0)

    return StreamingResponse(chunks())


@app.get("/slow")
async def slow() -> dict[str, str]:
    """Give clients the time to go away."""
    await asyncio.sleep(0.05)
    return {}


@app.websocket("/ws")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)


@app.get("/inside")
@force_maintenance_mode_off
async def inside() -> dict[str, int]:
    """Tell what only this process knows: what is in flight beside this request, and tasks that run."""
    return {
        "in_flight": len(in_flight()) - 1 + len(in_flight(name=GUARDED)),
        "tasks": len(asyncio.all_tasks()),
    }


@app.get("/memory")
@force_maintenance_mode_off
async def memory() -> list[str]:
    """Tell where the memory is that was taken since the last call; for looking, with PYTHONTRACEMALLOC=10."""
    latest = tracemalloc.take_snapshot()
    before, _remembered[:] = _remembered[:], [latest]
    if not before:
        return []
    return [str(difference) for difference in latest.compare_to(before[0], "lineno")[:40]]


_remembered: list[tracemalloc.Snapshot] = []
