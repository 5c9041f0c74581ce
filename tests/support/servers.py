"""Real servers on a free loopback port, each in a thread of its own and stopped within bounds."""

from __future__ import annotations

import asyncio
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import uvicorn
from hypercorn.asyncio import serve
from hypercorn.config import Config
from starlette.types import ASGIApp

GRACE_SECONDS = 2
"""How long a server that is to stop waits for its connections."""
STOP_SECONDS = 20


@dataclass(frozen=True)
class Server:
    """A server that listens already."""

    port: int

    def http(self, path: str = "/") -> str:
        """Return the URL of a page."""
        return f"http://127.0.0.1:{self.port}{path}"

    def ws(self, path: str = "/ws") -> str:
        """Return the URL of a websocket."""
        return f"ws://127.0.0.1:{self.port}{path}"


@contextmanager
def uvicorn_server(
    app: ASGIApp, *, http: str = "h11", ws: str = "auto", lifespan: Any = "off", access_log: bool = False
) -> Iterator[Server]:
    """Serve ``app`` with uvicorn and its implementations ``http`` and ``ws``."""
    config = uvicorn.Config(
        app,
        http=http,
        ws=ws,
        lifespan=lifespan,
        access_log=access_log,
        log_config=None,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one implementation is deprecated, and so is what it stands on
        config.load()
    server = uvicorn.Server(config)

    def stop() -> None:
        server.should_exit = True

    with _listening() as listener, _thread(partial(server.run, [listener]), stop):
        yield Server(listener.getsockname()[1])


def exchange(port: int, request: str | bytes) -> bytes:
    """Return all that a server answers to a request in raw bytes, until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=STOP_SECONDS) as connection:
        # Who refuses a request answers before it was sent as a whole, and then reads no more of it.
        with suppress(ConnectionError):
            connection.sendall(request.encode("latin-1") if isinstance(request, str) else request)
        answer = b""
        with suppress(ConnectionError):
            while part := connection.recv(65536):
                answer += part
        return answer


@contextmanager
def hypercorn_server(app: ASGIApp) -> Iterator[Server]:
    """Serve ``app`` with hypercorn."""
    loop = asyncio.new_event_loop()
    stopping = asyncio.Event()

    def run(bind: str) -> None:
        config = Config()
        config.bind = [bind]
        config.errorlog = None
        config.graceful_timeout = GRACE_SECONDS
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve(cast("Any", app), config, shutdown_trigger=stopping.wait))

    def stop() -> None:
        loop.call_soon_threadsafe(stopping.set)

    with _listening() as listener:
        # Hypercorn closes what it listens on, so it gets a descriptor of its own.
        bind = f"fd://{listener.dup().detach()}"
        with _thread(partial(run, bind), stop):
            yield Server(listener.getsockname()[1])


SERVERS: dict[str, Callable[[ASGIApp], AbstractContextManager[Server]]] = {
    "uvicorn-websockets": partial(uvicorn_server, ws="websockets"),
    "uvicorn-websockets-sansio": partial(uvicorn_server, ws="websockets-sansio"),
    "uvicorn-wsproto": partial(uvicorn_server, ws="wsproto"),
    "hypercorn": hypercorn_server,
}
"""Every server and websocket implementation that can answer a handshake with a response."""


@contextmanager
def _listening() -> Iterator[socket.socket]:
    """Listen on a free port: clients may connect at once, and wait for their answer until the server is up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@contextmanager
def _thread(run: Callable[[], object], stop: Callable[[], None]) -> Iterator[None]:
    """Run something in a thread for the duration of a block."""
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop()
        thread.join(STOP_SECONDS)
        if thread.is_alive():
            raise TimeoutError(f"the server did not stop within {STOP_SECONDS} s")
