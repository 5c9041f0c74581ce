"""How long it takes from a toggle until each of eight worker processes acts on it.

    python benchmarks/latency.py                    all stores, some minutes; ends with 1 if a goal is missed
    python benchmarks/latency.py redis-push file    only these

Each worker is a process of its own with an app that it asks a thousand times a second, in-process, as a busy server
would; it follows the switch by itself and notes when its answer has changed. One more process, this one, toggles the
switch and waits until all workers have seen it, and then for a random time, so that toggles come at any moment between
two polls. What counts is the time from the call that toggles, the writing included, to the worker's first new answer.
All clocks are the same: the monotonic one of the machine.

Before each toggle the workers get a byte through a pipe, and the time until their next question is taken as well: so
slow is the machine itself at the moment, and no store can be faster. A goal that is missed while that is slow, too,
says more of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import queue
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from fastapi import FastAPI

from fastapi_maintenance import MaintenanceModeMiddleware, set_maintenance_mode
from tests.support.places import Place, file_place, postgres_place, python, redis_place
from tests.support.stores import PostgresServer, RedisServer

WORKERS = 8
GOAL_OF_PUSH_SECONDS = 0.05
GIVE_UP_SECONDS = 30.0

_SECONDS_BETWEEN_REQUESTS = 0.001
_ECHO = 0
"""What a worker prints instead of a status when it got a byte."""


# A worker


def _app(place: Place) -> FastAPI:
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=place.backend())

    @app.get("/")
    async def endpoint() -> None: ...

    return app


async def _status(app: FastAPI) -> int:
    """Return the status of the app's answer to one request."""
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {"type": "http", "method": "GET", "path": "/", "root_path": "", "query_string": b"", "headers": []}
    await app(scope, receive, send)
    return statuses[0]


async def _work(place: Place) -> None:
    """Ask the app again and again, until the input ends; print each change of its answer and the time of it.

    What comes in by the pipe is a change, too.
    """
    app, former = _app(place), 0
    came: list[bytes] = []
    asyncio.get_running_loop().add_reader(0, lambda: came.append(os.read(0, 1)))
    while b"" not in came:
        status = await _status(app)
        now = time.monotonic()
        if came == [b"\n"]:
            came.clear()
            print(now, _ECHO, flush=True)
        if status != former:
            print(now, status, flush=True)
            former = status
        await asyncio.sleep(_SECONDS_BETWEEN_REQUESTS)


# The driver


class _Worker:
    """A worker process, and what it has told."""

    def __init__(self, place: Place) -> None:
        self._process = python(__file__, "--worker", place.to_json(), stderr=None)
        self._told: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._told.put(line)

    def answered(self, status: int) -> float:
        """Wait for what the worker tells next, which must be a change to ``status``; return when that was."""
        try:
            at, answer = self._told.get(timeout=GIVE_UP_SECONDS).split()
        except queue.Empty:
            msg = f"a worker did not see {status} within {GIVE_UP_SECONDS:g} s"
            raise TimeoutError(msg) from None
        if int(answer) != status:
            msg = f"a worker answered {answer} instead of {status}"
            raise RuntimeError(msg)
        return float(at)

    def poke(self) -> None:
        """Send a byte, which is answered with ``_ECHO``."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextlib.contextmanager
def _workers(place: Place, count: int) -> Iterator[list[_Worker]]:
    workers: list[_Worker] = []
    try:
        workers.extend(_Worker(place) for _ in range(count))
        for worker in workers:
            worker.answered(200)
        yield workers
    finally:
        for worker in workers:
            worker.close()


@dataclass(frozen=True)
class Latencies:
    """What was measured, in seconds, once for each toggle and worker."""

    of_toggles: list[float] = field(default_factory=list)
    of_pipes: list[float] = field(default_factory=list)


async def _toggle(place: Place, workers: Sequence[_Worker], toggles: int, pause_seconds: float) -> Latencies:
    backend, found = place.backend(timeout_seconds=10), Latencies()
    try:
        for number in range(toggles):
            begin = time.monotonic()
            for worker in workers:
                worker.poke()
            found.of_pipes.extend(worker.answered(_ECHO) - begin for worker in workers)
            await asyncio.sleep(random.uniform(0, pause_seconds))
            is_on = number % 2 == 0
            begin = time.monotonic()
            await set_maintenance_mode(is_on, backend)
            found.of_toggles.extend(worker.answered(503 if is_on else 200) - begin for worker in workers)
    finally:
        await backend.aclose()
    return found


def measure(place: Place, *, toggles: int, workers: int = WORKERS, pause_seconds: float = 0.05) -> Latencies:
    """Return the time from each toggle to each worker's first new answer.

    Raises:
        TimeoutError: A worker did not see a toggle at all.
    """
    with _workers(place, workers) as started:
        return asyncio.run(_toggle(place, started, toggles, pause_seconds))


def percentile(seconds: Iterable[float], percent: float) -> float:
    """Return the time that so many of a hundred do not exceed."""
    in_order = sorted(seconds)
    return in_order[min(int(len(in_order) * percent / 100), len(in_order) - 1)]


# What is measured


@contextlib.contextmanager
def _file(**options: Any) -> Iterator[Place]:
    with tempfile.TemporaryDirectory() as directory:
        yield file_place(Path(directory), **options)


@contextlib.contextmanager
def _redis(**options: Any) -> Iterator[Place]:
    with RedisServer() as server:
        yield redis_place(server, **options)


@contextlib.contextmanager
def _postgresql(**options: Any) -> Iterator[Place]:
    with PostgresServer() as server:
        yield postgres_place(server, **options)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A store, and how it is followed."""

    title: str
    place: Callable[..., AbstractContextManager[Place]]
    toggles: int
    poll_seconds: float
    timeout_seconds: float = 1.0
    is_pushed: bool = False
    options: Mapping[str, Any] | None = None

    @property
    def goal_seconds(self) -> float:
        """Within which 99 of 100 toggles are to be seen."""
        return GOAL_OF_PUSH_SECONDS if self.is_pushed else 1.1 * self.poll_seconds + self.timeout_seconds

    def is_met_by(self, found: Latencies) -> bool:
        """Return whether they are."""
        return percentile(found.of_toggles, 99) <= self.goal_seconds

    def measured(self) -> Latencies:
        """Start the store and measure."""
        options = {"poll_seconds": self.poll_seconds, "timeout_seconds": self.timeout_seconds, **(self.options or {})}
        with self.place(**options) as place:
            pause = GOAL_OF_PUSH_SECONDS if self.is_pushed else self.poll_seconds
            return measure(place, toggles=self.toggles, pause_seconds=pause)


# The time-outs of those that poll are shorter than the stores' own, or the goal would say little.
CASES: Mapping[str, Case] = {
    "redis-push": Case(title="Redis, push", place=_redis, toggles=200, poll_seconds=1.0, is_pushed=True),
    "redis-poll": Case(
        title="Redis, polling only",
        place=_redis,
        toggles=60,
        poll_seconds=1.0,
        timeout_seconds=0.25,
        options={"kind": "PollingRedis"},
    ),
    "file": Case(title="file", place=_file, toggles=200, poll_seconds=0.1, timeout_seconds=0.1),
    "postgresql": Case(
        title="PostgreSQL, polling", place=_postgresql, toggles=60, poll_seconds=1.0, timeout_seconds=0.25
    ),
}

_HEAD = """\
| store | polled every | time-out | toggles × workers | p50 | p99 | max | goal for p99 | | a pipe's p99 |
|---|---|---|---|---|---|---|---|---|---|"""


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.1f} ms"


def _row(case: Case, found: Latencies) -> str:
    seconds = found.of_toggles
    cells = (
        case.title,
        f"{case.poll_seconds:g} s",
        f"{case.timeout_seconds:g} s",
        f"{case.toggles} × {WORKERS}",
        *(_milliseconds(percentile(seconds, percent)) for percent in (50, 99, 100)),
        _milliseconds(case.goal_seconds),
        "met" if case.is_met_by(found) else "**missed**",
        _milliseconds(percentile(found.of_pipes, 99)),
    )
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Measure, print a row of each case, and return the exit status."""
    parser = argparse.ArgumentParser(description="Measure how soon workers see a toggle; print Markdown.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; without any: all")
    parser.add_argument("--worker", metavar="PLACE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        asyncio.run(_work(Place.from_json(arguments.worker)))
        return 0
    if unknown := set(arguments.cases) - set(CASES):
        parser.error(f"no case {', '.join(sorted(unknown))}")
    print(_HEAD, flush=True)
    is_met = True
    for name in arguments.cases or CASES:
        case = CASES[name]
        found = case.measured()
        print(_row(case, found), flush=True)
        is_met &= case.is_met_by(found)
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())
