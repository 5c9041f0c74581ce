"""A long run of one server under steady traffic of every kind while its switches toggle; prints Markdown.

    python -m tests.stress.soak                         file and Redis, five minutes each
    python -m tests.stress.soak --seconds 60 redis      only this one, for a minute

One uvicorn process with one worker. Its clients rest every few seconds and the server's memory, open files, threads
and tasks are counted: what is then there is what was left behind. After a warm-up it must be flat: in the last quarter
the median of the resident memory is at most 2 % or 1 MiB above that of the quarter before; open files, threads and
tasks are no more in the second half than they were in the first; nothing is in flight. Ends with 1 if something grows,
an answer is a wrong one, or the server reports an error. The tests have a slice of it.

To see which lines took memory between two calls of GET ``/memory``, serve ``tests.stress.soaked:app`` with
``PYTHONTRACEMALLOC=10`` and ``FASTAPI_MAINTENANCE_BACKEND`` set.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import psutil  # type: ignore[import-untyped]  # it has no types, and its stubs are one more dependency

from fastapi_maintenance import maintenance_mode_on, set_maintenance_mode
from fastapi_maintenance.backends.base import StoreBackend
from tests.programs.store_scripts import patient
from tests.support.commands import environment
from tests.support.stores import free_port

from .toggling import STORES, ended, takes_connections

CLIENTS = 8
SECONDS_BETWEEN_REQUESTS = 0.01
SECONDS_BETWEEN_TOGGLES = 0.2
MAY_GROW_BYTES = 1 << 20
MAY_GROW = 0.02
_GUARDED = "billing"
"""The switch of the guard in ``soaked``, which only a server can import."""
_LOOKS = 5
"""So often files and threads are counted for a sample, to take the least: a follower has its file open for moments."""
_SECONDS_TO_SETTLE = 5.0
_NO_ERROR = "ASGI callable returned without completing handshake"
"""What uvicorn says of every websocket that is answered with a response, Starlette's own denials included."""


@dataclass(frozen=True)
class Sample:
    """What the server had while its clients rested."""

    rss: int
    fds: int
    threads: int
    tasks: int
    in_flight: int


@dataclass(frozen=True)
class Outcome:
    """What became of a run."""

    samples: list[Sample]
    answers: Mapping[tuple[str, int], int]
    """By kind of request and status; 0 is an answer that was lost."""
    toggles: int
    errors: list[str]
    """The lines that the server reported."""

    @property
    def growth_bytes(self) -> float:
        """By how much the memory of the last quarter is above that of the quarter before."""
        quarter = len(self.samples) // 4
        last, before = self.samples[-quarter:], self.samples[-2 * quarter : -quarter]
        return statistics.median(one.rss for one in last) - statistics.median(one.rss for one in before)

    def growing(self, *, may_grow_bytes: float = MAY_GROW_BYTES) -> list[str]:
        """Return what is not flat."""
        early, late = self._halves()
        bound = max(may_grow_bytes, MAY_GROW * early[-1].rss)
        found = [f"memory: {self.growth_bytes:,.0f} bytes"] if self.growth_bytes > bound else []
        for name in ("fds", "threads", "tasks"):
            before, after = (max(getattr(one, name) for one in half) for half in (early, late))
            if after > before:
                found.append(f"{name}: {before} to {after}")
        if left := max(one.in_flight for one in self.samples):
            found.append(f"in flight: {left}")
        return found

    @property
    def wrong(self) -> list[tuple[str, int]]:
        """The answers that no switch gives, and those that never came."""
        right = {(name, status) for name, kind in _KINDS.items() for status in kind.right}
        return sorted(right ^ self.answers.keys())

    def _halves(self) -> tuple[list[Sample], list[Sample]]:
        """Return the samples of the first half, without the warm-up, and of the second."""
        middle = len(self.samples) // 2
        return self.samples[middle // 2 : middle], self.samples[middle:]


# The traffic


async def _answered(port: int, method: str, path: str) -> int:
    """Ask on a connection of its own that ends with the answer."""
    async with _connected(port) as (reader, writer):
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        return _status(answer)


async def _left(port: int, path: str) -> int:
    """Go away before the answer is complete."""
    async with _connected(port) as (reader, writer):
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reader.read(100), 0.01)
        writer.transport.abort()
        return _GONE


async def _talked(port: int, *, politely: bool) -> int:
    """Open a websocket and hear an echo; leave with or without a word."""
    async with _connected(port) as (reader, writer):
        writer.write(_HANDSHAKE)
        head = await reader.readuntil(b"\r\n\r\n")
        if _status(head) == _SWITCHING:
            writer.write(b"\x81\x82\0\0\0\0hi")
            assert await reader.readexactly(4) == b"\x81\x02hi"
            if politely:
                writer.write(b"\x88\x80\0\0\0\0")
                await reader.read()
            else:
                writer.transport.abort()
        return _status(head)


@contextlib.asynccontextmanager
async def _connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _status(head: bytes) -> int:
    return int(head.split(maxsplit=2)[1]) if head else 0


_GONE = -1
"""In the place of a status: the client did not wait for it."""
_SWITCHING = 101
_HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@dataclass(frozen=True)
class _Kind:
    """A kind of request, and the statuses that it must get, each of them sooner or later."""

    ask: Callable[[int], Awaitable[int]]
    right: frozenset[int]


_KINDS: Mapping[str, _Kind] = {
    "GET": _Kind(lambda port: _answered(port, "GET", "/"), frozenset({200, 503})),
    "POST": _Kind(lambda port: _answered(port, "POST", "/"), frozenset({200, 503})),
    "guard": _Kind(lambda port: _answered(port, "GET", "/guarded/1"), frozenset({200, 503})),
    "missing": _Kind(lambda port: _answered(port, "GET", "/missing"), frozenset({404})),
    "stream": _Kind(lambda port: _answered(port, "GET", "/stream"), frozenset({200, 503})),
    "websocket": _Kind(lambda port: _talked(port, politely=True), frozenset({101, 503})),
    "left websocket": _Kind(lambda port: _talked(port, politely=False), frozenset({101, 503})),
    "left request": _Kind(lambda port: _left(port, "/slow"), frozenset({_GONE})),
    "left stream": _Kind(lambda port: _left(port, "/stream"), frozenset({_GONE})),
}


class _Traffic:
    """Clients that ask for everything in turn, and can be told to rest."""

    def __init__(self, port: int) -> None:
        self.answers: collections.Counter[tuple[str, int]] = collections.Counter()
        self._port = port
        self._asking = 0
        self._nobody_asks = asyncio.Event()
        self._nobody_asks.set()
        self._may_ask = asyncio.Event()
        self._may_ask.set()

    async def run(self, client: int) -> None:
        """Ask until cancelled."""
        names = list(_KINDS)
        random.Random(client).shuffle(names)
        while True:
            for name in names:
                await self._may_ask.wait()
                self._asking += 1
                self._nobody_asks.clear()
                try:
                    status = await asyncio.wait_for(_KINDS[name].ask(self._port), 20)
                except (OSError, EOFError):
                    status = 0
                finally:
                    self._asking -= 1
                    if not self._asking:
                        self._nobody_asks.set()
                self.answers[name, status] += 1
                await asyncio.sleep(SECONDS_BETWEEN_REQUESTS)

    @contextlib.asynccontextmanager
    async def resting(self) -> AsyncIterator[None]:
        """Have nobody ask for the duration of a block."""
        self._may_ask.clear()
        await self._nobody_asks.wait()
        try:
            yield
        finally:
            self._may_ask.set()


class _Switches:
    """The operator, in another process than the server."""

    def __init__(self, url: str) -> None:
        self.toggles = 0
        self._backend = patient(url)
        guarded = self._backend.sibling(_GUARDED)
        assert isinstance(guarded, StoreBackend)
        self._guarded = guarded

    async def run(self) -> None:
        """Toggle until cancelled: every mode, both switches, and blocks."""
        while True:
            for act in (self._default, self._of_guard, self._block):
                await act()
                self.toggles += 1

    async def _default(self) -> None:
        for mode in (True, "read_only", False):
            await set_maintenance_mode(mode, self._backend)
            await asyncio.sleep(SECONDS_BETWEEN_TOGGLES)

    async def _of_guard(self) -> None:
        for mode in (True, False):
            await set_maintenance_mode(mode, self._guarded)
            await asyncio.sleep(SECONDS_BETWEEN_TOGGLES)

    async def _block(self) -> None:
        async with maintenance_mode_on(self._backend, reason="soak"):
            await asyncio.sleep(SECONDS_BETWEEN_TOGGLES)
        await asyncio.sleep(SECONDS_BETWEEN_TOGGLES)

    async def close(self) -> None:
        await self._backend.aclose()
        await self._guarded.aclose()


# The measuring


async def _sample(process: psutil.Process, port: int) -> Sample:
    """Count what the server has; its clients rest, and it may take a moment to note that some went away."""
    give_up = time.monotonic() + _SECONDS_TO_SETTLE
    looks = []
    while True:
        inside = await _inside(port)
        if not inside["in_flight"]:
            looks.append((process.num_fds(), process.num_threads(), inside["tasks"]))
        if len(looks) == _LOOKS or time.monotonic() > give_up:
            break
        await asyncio.sleep(0.02)
    looks = looks or [(process.num_fds(), process.num_threads(), inside["tasks"])]
    fds, threads, tasks = (min(column) for column in zip(*looks, strict=True))
    return Sample(process.memory_info().rss, fds, threads, tasks, inside["in_flight"])


async def _inside(port: int) -> dict[str, int]:
    async with _connected(port) as (reader, writer):
        writer.write(b"GET /inside HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        told: dict[str, int] = json.loads((await reader.read()).partition(b"\r\n\r\n")[2])
        return told


async def _run(
    url: str, port: int, process: psutil.Process, seconds: float, tell: Callable[[str], None]
) -> tuple[list[Sample], _Traffic, int]:
    traffic, switches, samples = _Traffic(port), _Switches(url), []
    count = max(16, round(seconds / 5))
    begin = time.monotonic()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(traffic.run(client)) for client in range(CLIENTS)]
        tasks.append(group.create_task(switches.run()))
        for _ in range(count):
            await asyncio.sleep(seconds / count)
            async with traffic.resting():
                samples.append(await _sample(process, port))
            tell(f"{time.monotonic() - begin:.0f} s {json.dumps(asdict(samples[-1]))}")
        for task in tasks:
            task.cancel()
    await switches.close()
    return samples, traffic, switches.toggles


@contextlib.contextmanager
def _serving(url: str, errors: Any) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port = free_port()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "uvicorn", "tests.stress.soaked:app", "--host", "127.0.0.1", "--port", str(port)),
            *("--no-access-log", "--log-level", "warning"),
        ],
        env=environment({"FASTAPI_MAINTENANCE_BACKEND": url, "PYTHONWARNINGS": "ignore"}),
        stderr=errors,
    )
    try:
        assert takes_connections(port), "the server does not answer"
        yield process, port
    finally:
        ended(process)


def soak(url: str, seconds: float, tell: Callable[[str], None] = lambda _: None) -> Outcome:
    """Have a server with its switches at a URL under traffic for some time; ``tell`` hears of each sample."""
    with tempfile.TemporaryFile() as errors:
        with _serving(url, errors) as (process, port):
            samples, traffic, toggles = asyncio.run(_run(url, port, psutil.Process(process.pid), seconds, tell))
        errors.seek(0)
        told = [line for line in errors.read().decode().splitlines() if _NO_ERROR not in line]
        return Outcome(samples, traffic.answers, toggles, told)


_COLUMNS = (
    *("store", "time", "toggles", "200", "503", "404", "websockets", "left early", "memory", "last quarter"),
    *("files", "threads", "tasks", "in flight", "flat"),
)
_COUNTED = ("fds", "threads", "tasks", "in_flight")


def _row(name: str, seconds: float, outcome: Outcome) -> str:
    first, last = outcome.samples[0], outcome.samples[-1]
    by_status = collections.Counter[int]()
    for (_, status), count in outcome.answers.items():
        by_status[status] += count
    cells = (
        name,
        f"{seconds:.0f} s",
        str(outcome.toggles),
        *(f"{by_status[status]:,}" for status in (200, 503, 404, 101, _GONE)),
        f"{first.rss / 1e6:.1f} to {last.rss / 1e6:.1f} MB",
        f"{outcome.growth_bytes / 1024:+,.0f} KiB",
        *(f"{max(getattr(one, kind) for one in outcome.samples)}" for kind in _COUNTED),
        ", ".join(outcome.growing()) or "yes",
    )
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Soak the stores, all or those that are named, and print a row of each; return the exit status."""
    parser = argparse.ArgumentParser(description="One server under all kinds of traffic; what grows is reported.")
    parser.add_argument("--seconds", type=float, default=600, help="of the whole run (default: ten minutes)")
    parser.add_argument("stores", nargs="*", metavar="STORE", help="file, redis (both), postgresql")
    arguments = parser.parse_args()
    names = arguments.stores or ["file", "redis"]
    seconds, is_right = arguments.seconds / len(names), True
    print(f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}", flush=True)
    for name in names:
        with STORES[name]() as url:
            outcome = soak(url, seconds, lambda text: print(text, file=sys.stderr, flush=True))
        print(_row(name, seconds, outcome), flush=True)
        for problem in (*outcome.growing(), *map(str, outcome.wrong), *outcome.errors[-20:]):
            print(f"{name}: {problem}", file=sys.stderr)
            is_right = False
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
