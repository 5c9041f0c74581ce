"""Writers in processes of their own, all at once, and readers all the while."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from fastapi_maintenance import MaintenanceState
from fastapi_maintenance.concurrency import io_thread
from tests.support.places import Place, python

from .process import is_whole


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of all the changes of all the writers."""

    writers: int
    changes: int
    """Of each writer."""
    elapsed_seconds: float
    seconds: tuple[float, ...]
    """What each change took, in order of length."""
    again: int
    """How many changes had to be tried again, because the store did not make them in time."""
    lost: int
    """How many changes the version misses, or has too many."""
    missing: tuple[int, ...]
    """The writers whose last change is not there at the end."""
    reads: int
    torn: int
    """How many readings were no whole state, or older than one before."""
    failed_reads: int

    @property
    def is_right(self) -> bool:
        """Whether nothing is lost and nothing was read in pieces."""
        return not (self.lost or self.missing or self.torn) and self.reads > 0

    def percentile(self, percent: float) -> float:
        """Return the seconds within which so many of a hundred changes were made."""
        return self.seconds[min(int(len(self.seconds) * percent / 100), len(self.seconds) - 1)]

    @property
    def median(self) -> float:
        """Return the seconds within which half of the changes were made."""
        return statistics.median(self.seconds)


def contend(place: Place, *, writers: int, changes: int, readers: int = 2, limit_seconds: float = 120) -> Outcome:
    """Have all writers make their changes at the same time; return what became of them.

    Raises:
        AssertionError: A process failed, or it all took longer than ``limit_seconds``; the message has what they said.
    """
    told = place.to_json()
    tasks: list[tuple[str, ...]] = [("write", told, str(writer), str(changes)) for writer in range(writers)]
    tasks += [("read", told)] * readers
    with _processes(tasks, limit_seconds) as processes:
        for process in processes:
            assert _line_of(process) == "ready\n", _complaint(process)
        begin = time.perf_counter()
        for process in processes:
            _say(process, "go")
        written = [_told_by(process) for process in processes[:writers]]
        elapsed = time.perf_counter() - begin
        for process in processes[writers:]:
            _say(process, "stop")
        read = [_told_by(process) for process in processes[writers:]]
    state = _stored(place)
    last = {f"writer-{writer}": str(changes) for writer in range(writers)}
    found = {id_: hold.owner for id_, hold in state.holds.items()}
    return Outcome(
        writers=writers,
        changes=changes,
        elapsed_seconds=elapsed,
        seconds=tuple(sorted(second for seen in written for second in seen["seconds"])),
        again=sum(seen["again"] for seen in written),
        lost=abs(writers * changes - state.version),
        missing=tuple(number for number, id_ in enumerate(last) if found.get(id_) != last[id_]),
        reads=sum(seen["reads"] for seen in read),
        torn=sum(seen["torn"] for seen in read) + (not is_whole(state)),
        failed_reads=sum(seen["failed"] for seen in read),
    )


def _stored(place: Place) -> MaintenanceState:
    backend = place.backend()
    try:
        state: MaintenanceState | None = asyncio.run(io_thread.run(backend.load()))
    finally:
        asyncio.run(backend.aclose())
    assert state is not None
    return state


@contextlib.contextmanager
def _processes(tasks: Iterable[tuple[str, ...]], limit_seconds: float) -> Iterator[list[subprocess.Popen[str]]]:
    """Start a process for each task; those that have not ended within the limit, or with the block, are killed."""
    processes: list[subprocess.Popen[str]] = []

    def kill() -> None:
        for process in processes:
            process.kill()  # by its own id; does nothing to one whose end was taken note of

    clock = threading.Timer(limit_seconds, kill)
    clock.start()
    try:
        processes.extend(python("-m", "tests.stress.process", *task) for task in tasks)
        yield processes
    finally:
        clock.cancel()
        kill()
        for process in processes:
            process.communicate()


def _line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def _say(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it has ended, and what it does not tell will be missed
        process.stdin.write(f"{word}\n")
        process.stdin.flush()


def _told_by(process: subprocess.Popen[str]) -> dict[str, Any]:
    line = _line_of(process)
    assert line, _complaint(process)
    told: dict[str, Any] = json.loads(line)
    return told


def _complaint(process: subprocess.Popen[str]) -> str:
    """Return why a process says nothing any more."""
    _, errors = process.communicate()
    return f"ended with {process.returncode} (-9: it all took too long): {errors}"
