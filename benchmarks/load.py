"""Clients of servers, in a process of their own: each of a few connections asks as soon as it has its answer.

It obeys commands, a JSON object per line: ``port`` and ``path`` say whom to ask for what, ``seconds`` for how long.
The answer has the number of responses, how long they took, and their statuses. Connections stay for the next time.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from typing import Any

CONNECTIONS = 16


class _Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, path: str) -> None:
        self.responses: Counter[int] = Counter()
        self._request = (
            f"GET {path} HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: load\r\nAccept: application/json\r\n\r\n"
        ).encode()
        self._transport: Any = None
        self._received = b""
        self._until = 0.0
        self._done: asyncio.Future[None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def ask(self, until: float) -> asyncio.Future[None]:
        """Begin to ask; the future is done with the last answer."""
        self._until, self._done = until, asyncio.get_running_loop().create_future()
        self.responses.clear()
        self._transport.write(self._request)
        return self._done

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer; ask again when it is complete."""
        received = self._received = self._received + data
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return
        at = received.find(b"content-length: ", 0, end) + 16
        if len(received) < end + 4 + int(received[at : received.index(b"\r", at)]):
            return
        self._received = b""
        self.responses[int(received[9:12])] += 1
        if time.monotonic() < self._until:
            self._transport.write(self._request)
        else:
            self._done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits that there is no answer."""
        if not self._done.done():
            self._done.set_exception(ConnectionError("the server closed a connection"))


class _Load:
    def __init__(self) -> None:
        self._clients: dict[tuple[int, str], list[_Client]] = {}

    async def run(self, port: int, path: str, seconds: float) -> dict[str, Any]:
        if (port, path) not in self._clients:
            connect = asyncio.get_running_loop().create_connection
            made = [await connect(lambda: _Client(path), "127.0.0.1", port) for _ in range(CONNECTIONS)]
            self._clients[port, path] = [client for _, client in made]
        clients = self._clients[port, path]
        begin = time.monotonic()
        await asyncio.wait_for(asyncio.gather(*(client.ask(begin + seconds) for client in clients)), seconds + 30)
        took = time.monotonic() - begin
        responses = sum((client.responses for client in clients), Counter[int]())
        return {"responses": responses.total(), "seconds": took, "statuses": sorted(responses)}


def main(cpu: str = "") -> None:
    """Obey until there are no more commands."""
    if cpu and sys.platform == "linux":
        os.sched_setaffinity(0, {int(cpu)})
    load = _Load()
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            print(json.dumps(runner.run(load.run(**json.loads(line)))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
