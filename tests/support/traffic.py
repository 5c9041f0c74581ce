"""An app that is asked all the time, so that a test can tell what its clients saw and how long they waited."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import anyio
from fastapi import FastAPI

from fastapi_maintenance import MaintenanceModeMiddleware
from fastapi_maintenance.backends.base import BaseStateBackend
from tests.support.asgi import call, scope_of

PER_SECOND = 200

OFF = {("GET", 200), ("POST", 200)}
ON = {("GET", 503), ("POST", 503)}
READ_ONLY = {("GET", 200), ("POST", 503)}
"""What clients see under each mode."""


class Asked(NamedTuple):
    """One request and its answer."""

    at: float
    """When it came, by ``time.monotonic()``."""
    method: str
    status: int
    seconds: float
    """How long it took, without the time that this thread could have run and other processes had the processor."""


class Moment(NamedTuple):
    """A moment, and the processor time that this process had used until then."""

    at: float
    cpu: float

    @classmethod
    def now(cls) -> Moment:
        return cls(time.monotonic(), time.process_time())


class Processor:
    """What Linux knows of a thread, the calling one or a process's main one; elsewhere, nothing."""

    def __init__(self, process_id: int | None = None) -> None:
        path = Path(f"/proc/{process_id or 'thread-self'}/schedstat")
        self._descriptor = os.open(path, os.O_RDONLY) if path.exists() else None

    def waited_for(self) -> float:
        """Return for how many seconds the thread could have run and did not get a processor."""
        return 0.0 if self._descriptor is None else int(os.pread(self._descriptor, 64, 0).split()[1]) / 1e9

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


@dataclass(frozen=True)
class Figures:
    """What clients saw between two moments."""

    answers: set[tuple[str, int]]
    seconds: Sequence[float]
    cpu: float
    """Processor time that this process used, in seconds for each second."""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def p99(self) -> float:
        return sorted(self.seconds)[len(self.seconds) * 99 // 100]

    def __str__(self) -> str:
        return f"p50 {self.median * 1e3:.2f} ms, p99 {self.p99 * 1e3:.2f} ms, {self.cpu:.2f} CPU, {len(self.seconds)}"


class Traffic:
    """An app under the middleware, on an event loop of its own, and its clients: GET and POST by turns.

    A request that waits holds up no other, and all count.
    """

    def __init__(self, backend: BaseStateBackend, *, per_second: int = PER_SECOND) -> None:
        self.app = FastAPI()
        self.app.add_middleware(MaintenanceModeMiddleware, backend=backend)
        self.app.add_api_route("/", _nothing, methods=["GET", "POST"])
        self._pause = 1 / per_second
        self._asked: list[Asked] = []
        self._waiting: set[float] = set()
        self._should_end = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._ask()), name="traffic")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._should_end.set()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def answers(self, since: float = 0.0) -> set[tuple[str, int]]:
        """Return what the requests got that came since a moment: methods and statuses."""
        return {(asked.method, asked.status) for asked in list(self._asked) if asked.at >= since}

    def figures(self, begin: Moment, end: Moment) -> Figures:
        """Return what clients saw between two moments; waits for their answers."""
        wait_until(lambda: not any(begin.at <= at < end.at for at in list(self._waiting)), 10)
        asked = [one for one in list(self._asked) if begin.at <= one.at < end.at]
        return Figures(
            {(one.method, one.status) for one in asked},
            [one.seconds for one in asked],
            (end.cpu - begin.cpu) / (end.at - begin.at),
        )

    def watch(self, seconds: float) -> Figures:
        """Return what clients see during some time from now on."""
        begin = Moment.now()
        time.sleep(seconds)
        return self.figures(begin, Moment.now())

    def wait_until_seen(self, answers: set[tuple[str, int]], seconds: float) -> float:
        """Wait until all requests get these answers; return for how many seconds that took."""
        begin = time.monotonic()

        def is_seen() -> bool:
            recent = list(self._asked)[-4:]
            return (
                len(recent) == 4 and recent[0].at >= begin and {(one.method, one.status) for one in recent} == answers
            )

        wait_until(is_seen, seconds)
        return time.monotonic() - begin

    async def _ask(self) -> None:
        tasks: set[asyncio.Task[None]] = set()
        due = time.monotonic()
        processor = Processor()
        while not self._should_end.is_set():
            for method in ("GET", "POST"):
                task = asyncio.create_task(self._ask_once(method, processor))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                due = max(due + self._pause, time.monotonic() - 0.1)
                await asyncio.sleep(due - time.monotonic())
        await asyncio.gather(*tasks)
        processor.close()

    async def _ask_once(self, method: str, processor: Processor) -> None:
        at, waited = time.monotonic(), processor.waited_for()
        self._waiting.add(at)
        try:
            status = (await call(self.app, scope_of("/", method))).status or 0
        except Exception:
            status = 500
        seconds = time.monotonic() - at - (processor.waited_for() - waited)
        self._asked.append(Asked(at, method, status, seconds))
        self._waiting.discard(at)


async def _nothing() -> dict[str, str]:
    return {}


def wait_until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait until a condition is true; the machine may be busy."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f"it did not come true within {seconds:g} s"
        time.sleep(0.005)


async def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait until a condition is true, on an event loop."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f"it did not come true within {seconds:g} s"
        await anyio.sleep(0.005)


@contextmanager
def untraced() -> Iterator[None]:
    """Take no note of coverage in this thread, which takes longer than what is measured."""
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(tracer)
