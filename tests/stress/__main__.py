"""All of the contention, which takes minutes; prints Markdown. The tests have a slice of it.

    python -m tests.stress               all stores
    python -m tests.stress redis file    only these

Ends with 1 if a change was lost, or something was read in pieces.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tests.support.places import Place, file_place, postgres_place, redis_place, sqlite_place
from tests.support.stores import PostgresServer, RedisServer

from .contention import Outcome, contend

_TIMEOUT_SECONDS = 30.0
"""So long may a change wait for the others; what it really took stands in the table."""


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


@contextlib.contextmanager
def _file() -> Iterator[Place]:
    with _directory() as directory:
        yield file_place(directory, timeout_seconds=_TIMEOUT_SECONDS)


@contextlib.contextmanager
def _redis() -> Iterator[Place]:
    with RedisServer() as server:
        yield redis_place(server, timeout_seconds=_TIMEOUT_SECONDS)


@contextlib.contextmanager
def _postgresql() -> Iterator[Place]:
    with PostgresServer() as server:
        yield postgres_place(server, timeout_seconds=_TIMEOUT_SECONDS)


@contextlib.contextmanager
def _sqlite() -> Iterator[Place]:
    with _directory() as directory:
        yield sqlite_place(directory, timeout_seconds=_TIMEOUT_SECONDS)


@dataclass(frozen=True)
class Scenario:
    """A store, how many write to it, and how often each."""

    place: Callable[[], AbstractContextManager[Place]]
    writers: int
    changes: int

    def run(self, *, limit_seconds: float) -> Outcome:
        """Start the store and have it written."""
        with self.place() as place:
            return contend(place, writers=self.writers, changes=self.changes, limit_seconds=limit_seconds)


FULL: Mapping[str, Scenario] = {
    "file": Scenario(_file, 50, 100),
    "redis": Scenario(_redis, 100, 20),
    "postgresql": Scenario(_postgresql, 20, 50),
    "sqlite": Scenario(_sqlite, 10, 50),
}
SLICE: Mapping[str, Scenario] = {
    "file": Scenario(_file, 5, 50),
    "redis": Scenario(_redis, 5, 40),
    "postgresql": Scenario(_postgresql, 4, 25),
    "sqlite": Scenario(_sqlite, 4, 10),
}
"""What ``make test`` has time for."""

_LIMIT_SECONDS = 240

_HEAD = """\
| store | processes × changes | time | p50 | p99 | max | tried again | lost | readings | torn |
|---|---|---|---|---|---|---|---|---|---|"""


def row(name: str, outcome: Outcome) -> str:
    """Return a row of the table."""
    times = (outcome.median, outcome.percentile(99), outcome.seconds[-1])
    cells = (
        name,
        f"{outcome.writers} × {outcome.changes}",
        f"{outcome.elapsed_seconds:.1f} s",
        *(f"{seconds * 1000:,.1f} ms" for seconds in times),
        str(outcome.again),
        str(outcome.lost + len(outcome.missing)),
        f"{outcome.reads:,}",
        str(outcome.torn),
    )
    return f"| {' | '.join(cells)} |"


def main(*names: str) -> int:
    """Run the scenarios, all or those that are named, and print a row of each; return the exit status."""
    print(_HEAD, flush=True)
    is_right = True
    for name in names or FULL:
        outcome = FULL[name].run(limit_seconds=_LIMIT_SECONDS)
        print(row(name, outcome), flush=True)
        is_right &= outcome.is_right
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
