"""A chat that says goodbye when maintenance begins: who is in it is told, and who comes then gets a 503.

    FASTAPI_MAINTENANCE_BACKEND=file:/tmp/chat-example uvicorn examples.websocket_chat:app
    python -m websockets ws://127.0.0.1:8000/chat
    FASTAPI_MAINTENANCE_BACKEND=file:/tmp/chat-example fastapi-maintenance on --reason 'back in a minute'

A handshake is judged like a request. A websocket that is open already goes on, unless the app ends it, as here.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
from fastapi import FastAPI, WebSocket, WebSocketDisconnect, status

from fastapi_maintenance import MaintenanceMode, MaintenanceModeMiddleware, Transition, on_change

guests: dict[WebSocket, anyio.CancelScope] = {}


async def tell_everybody(text: str) -> None:
    """Send a text to all guests of this worker."""
    for guest in list(guests):
        with suppress(WebSocketDisconnect, RuntimeError):  # who has left meanwhile
            await guest.send_text(text)


async def close(reason: str) -> None:
    """Say goodbye to everybody."""
    await tell_everybody(f"Closed for maintenance: {reason}")
    for stay in guests.values():
        stay.cancel()


@asynccontextmanager
async def following_the_switch(_: FastAPI) -> AsyncIterator[None]:
    """Close the chat when maintenance begins."""
    loop = asyncio.get_running_loop()

    def close_unless_off(transition: Transition) -> None:
        if transition.after is not MaintenanceMode.OFF:  # told in a thread of the package's own
            asyncio.run_coroutine_threadsafe(close(transition.reason or "back soon"), loop)

    subscription = on_change(close_unless_off)
    yield
    subscription.cancel()


app = FastAPI(lifespan=following_the_switch)
app.add_middleware(MaintenanceModeMiddleware)


@app.websocket("/chat")
async def chat(websocket: WebSocket) -> None:
    """Send every text to everybody."""
    await websocket.accept()
    with anyio.CancelScope() as stay:
        guests[websocket] = stay
        try:
            async for text in websocket.iter_text():
                await tell_everybody(text)
        finally:
            del guests[websocket]
    if stay.cancelled_caught:
        await websocket.close(status.WS_1012_SERVICE_RESTART)
