"""Holds, operators and clocks in any order, for ten thousand steps per store; prints Markdown.

    python -m tests.stress.holds               all stores
    python -m tests.stress.holds redis file    only these

A step after which a switch says something else than the model ends it with the shortest way there. The tests have a
slice of it.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from tests.support.hold_machine import run_machine
from tests.support.places import Place

from .__main__ import FULL

STEPS = 10_000


def _two_methods() -> AbstractContextManager[Place]:
    return nullcontext(Place("TwoMethods", {"path": str(Path(tempfile.mkdtemp()) / "switch")}))


PLACES: Mapping[str, Callable[[], AbstractContextManager[Place]]] = {
    "memory": lambda: nullcontext(Place("MemoryBackend")),
    "two methods": _two_methods,
    **{name: scenario.place for name, scenario in FULL.items()},
}


def main(*names: str) -> None:
    """Run the model against the stores, all or those that are named, and print a row of each."""
    logging.getLogger("fastapi_maintenance").setLevel(logging.ERROR)
    print("| store | steps | time | wrong states |\n|---|---|---|---|", flush=True)
    for name in names or PLACES:
        begin = time.perf_counter()
        with PLACES[name]() as place:
            steps = run_machine(place, STEPS)
        print(f"| {name} | {steps:,} | {time.perf_counter() - begin:.1f} s | 0 |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
