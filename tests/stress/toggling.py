"""Toggling by the command line while clients load a uvicorn with four workers; prints Markdown.

    python -m tests.stress.toggling                           all stores, for half a minute each
    python -m tests.stress.toggling --seconds 600 redis file  only these, for ten minutes together

Ends with 1 unless every answer is 200 or 503 and none is lost. The tests have a slice of it.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tests.support.commands import environment, run
from tests.support.stores import PostgresServer, RedisServer, free_port

WORKERS, CLIENTS = 4, 16
_REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass(frozen=True)
class Outcome:
    """What clients saw, and how long the commands took."""

    answers: Mapping[int, int]
    lost: int
    toggles: int
    seconds: float

    @property
    def is_right(self) -> bool:
        return not self.lost and set(self.answers) == {200, 503}


class _Clients:
    """Clients that ask again and again, each on a connection that stays."""

    def __init__(self, port: int) -> None:
        self.answers: collections.Counter[int] = collections.Counter()
        self.lost = 0
        self.should_end = False
        self._port = port

    async def ask(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while not self.should_end:
            writer.write(_REQUEST)
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
            except (OSError, asyncio.IncompleteReadError, IndexError):
                self.lost += 1
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            else:
                self.answers[int(head.split()[1])] += 1
        writer.close()


@contextlib.contextmanager
def _serving(url: str) -> Iterator[int]:
    """Start uvicorn with its workers and wait until it answers; gives the port."""
    port = free_port()
    process = subprocess.Popen(
        [
            *(
                sys.executable,
                "-m",
                "uvicorn",
                "tests.programs.served:app",
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
            ),
            *("--workers", str(WORKERS), "--no-access-log", "--log-level", "warning"),
        ],
        env=environment({"FASTAPI_MAINTENANCE_BACKEND": url, "PYTHONWARNINGS": "ignore"}),
    )
    try:
        assert takes_connections(port), "the server does not answer"
        yield port
    finally:
        ended(process)


def ended(process: subprocess.Popen[bytes]) -> None:
    """End a server in good order; one that takes too long is killed."""
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def takes_connections(port: int) -> bool:
    """Wait until a server takes connections; return whether it did so within a minute."""
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
        time.sleep(0.1)
    return False


async def _load(port: int, url: str, seconds: float) -> Outcome:
    clients = _Clients(port)
    asking = [asyncio.create_task(clients.ask()) for _ in range(CLIENTS)]
    begin, toggles = time.monotonic(), 0
    while time.monotonic() - begin < seconds or toggles % 2:
        ended = await asyncio.to_thread(run, ("on", "off")[toggles % 2], "--backend", url)
        assert ended.status == 0, ended
        toggles += 1
        await asyncio.sleep(0.3)
    clients.should_end = True
    await asyncio.gather(*asking)
    return Outcome(clients.answers, clients.lost, toggles, time.monotonic() - begin)


def toggle(url: str, seconds: float) -> Outcome:
    """Have a server loaded while its switch is turned on and off by the command line."""
    with _serving(url) as port:
        return asyncio.run(_load(port, url, seconds))


@contextlib.contextmanager
def file_url() -> Iterator[str]:
    """Give the URL of a file."""
    with tempfile.TemporaryDirectory() as directory:
        yield f"file://{Path(directory) / 'switch'}"


@contextlib.contextmanager
def redis_url() -> Iterator[str]:
    """Give the URL of a Redis."""
    with RedisServer() as server:
        yield server.url


@contextlib.contextmanager
def postgresql_url() -> Iterator[str]:
    """Give the URL of a PostgreSQL."""
    with PostgresServer() as server:
        yield server.url()


STORES: Mapping[str, Callable[[], AbstractContextManager[str]]] = {
    "file": file_url,
    "redis": redis_url,
    "postgresql": postgresql_url,
}


def main() -> int:
    """Load all stores, or those that are named, and print a row of each; return the exit status."""
    parser = argparse.ArgumentParser(description="Toggle by the command line while clients ask; nothing may be lost.")
    parser.add_argument("--seconds", type=float, default=90, help="of the whole run (default: %(default)s)")
    parser.add_argument("stores", nargs="*", default=list(STORES), metavar="STORE", help="all: file redis postgresql")
    arguments = parser.parse_args()
    print("| store | time | toggles | 200 | 503 | others | lost |\n|---|---|---|---|---|---|---|", flush=True)
    is_right = True
    for name in arguments.stores:
        with STORES[name]() as url:
            outcome = toggle(url, arguments.seconds / len(arguments.stores))
        others = sum(count for status, count in outcome.answers.items() if status not in (200, 503))
        answered = f"{outcome.answers[200]:,} | {outcome.answers[503]:,} | {others}"
        print(f"| {name} | {outcome.seconds:.0f} s | {outcome.toggles} | {answered} | {outcome.lost} |", flush=True)
        is_right &= outcome.is_right
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
