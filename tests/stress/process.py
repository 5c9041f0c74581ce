"""One process of many that write to a switch, or that read it; ``contention`` starts it and says when to begin.

    python -m tests.stress.process write PLACE NUMBER COUNT
    python -m tests.stress.process read PLACE

It says ``ready`` when it could begin, begins with a line of its input, and ends by telling what it saw as JSON. A
reader reads until there is another line.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from typing import Any

from fastapi_maintenance import BackendUnavailable, CorruptState, DeadlinePassed, MaintenanceState
from fastapi_maintenance.backends.base import StoreBackend
from fastapi_maintenance.concurrency import io_thread
from fastapi_maintenance.model.change import Change
from fastapi_maintenance.model.state import Hold
from fastapi_maintenance.switches.views.lookup import view_of
from tests.support.places import Place

_SECONDS_BETWEEN_READINGS = 0.001
"""Enough to leave the processors to the writers."""


def marker(writer: int, number: int) -> Change:
    """Return a writer's change of a number, which takes the place of the one before.

    So what the state says of each writer adds up to its version, whenever it is read.
    """
    return Change(put_holds={f"writer-{writer}": Hold(kind="on", owner=str(number))})


def is_whole(state: MaintenanceState) -> bool:
    """Return whether a state is one that the writers made, and not a mixture of two."""
    return state.version == sum(int(hold.owner) for hold in state.holds.values())


async def _write(backend: StoreBackend, writer: int, count: int) -> dict[str, Any]:
    seconds, again = [], 0
    view = view_of(backend)
    for number in range(1, count + 1):
        change = marker(writer, number)
        begin = time.perf_counter()
        while True:
            try:
                await view.apply(change)
            except (BackendUnavailable, DeadlinePassed) as error:
                if not again:
                    print(error, file=sys.stderr)  # shown if it never succeeds
                again += 1  # with the same id, so that it is made once whatever became of it
            else:
                break
        seconds.append(time.perf_counter() - begin)
    return {"seconds": seconds, "again": again}


async def _read(backend: StoreBackend, stop: threading.Event) -> dict[str, Any]:
    """Read the store and what requests would see, again and again."""
    view, reads, torn, failed, latest, latest_shown = view_of(backend), 0, 0, 0, 0, 0
    view.start(backend)
    while not stop.is_set():
        await asyncio.sleep(_SECONDS_BETWEEN_READINGS)
        try:
            state = await io_thread.run(backend.load())
        except BackendUnavailable:
            failed += 1
            continue
        except CorruptState:
            torn += 1
            continue
        reads += 1
        if state is not None:
            torn += not is_whole(state) or state.version < latest
            latest = state.version
        shown = view.peek()
        if shown is not None:
            torn += not is_whole(shown) or shown.version < latest_shown
            latest_shown = shown.version
    return {"reads": reads, "torn": torn, "failed": failed}


def _wait_for_a_line(then: threading.Event) -> None:
    sys.stdin.readline()
    then.set()


def main(task: str, place: str, *numbers: str) -> None:
    """Do one process's part."""
    backend = Place.from_json(place).backend()
    asyncio.run(io_thread.run(backend.load()))  # connected, and all is imported
    print("ready", flush=True)
    sys.stdin.readline()
    if task == "write":
        writer, count = map(int, numbers)
        seen = asyncio.run(_write(backend, writer, count))
    else:
        stop = threading.Event()
        threading.Thread(target=_wait_for_a_line, args=(stop,), daemon=True).start()
        seen = asyncio.run(_read(backend, stop))
    asyncio.run(backend.aclose())
    print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
