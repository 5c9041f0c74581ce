"""Holds a switch, and obeys its standard input: ``python -m tests.programs.hold_process PLACE TTL``.

It says "held" when it does, then for each line of input: "block SECONDS" runs blocking code and says "blocked",
"leave" leaves the block and says "left"; before both "lost" if the hold was lost.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi_maintenance import maintenance_mode_on
from tests.support.places import Place, python


class Holder:
    """A process that holds a switch, and obeys a test."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process, self._input, self.output = process, process.stdin, process.stdout

    def tell(self, *lines: str) -> None:
        self._input.write("".join(f"{line}\n" for line in lines))
        self._input.flush()


@contextmanager
def holder(place: Place, ttl: float) -> Iterator[Holder]:
    """Have another process hold a switch; if it is still there at the end, it is killed."""
    process = python("-m", "tests.programs.hold_process", place.to_json(), str(ttl))
    try:
        held = Holder(process)
        assert held.output.readline() == "held\n"
        yield held
    finally:
        process.kill()
        process.communicate()


async def main(place: str, ttl: str) -> None:
    backend = Place.from_json(place).backend()
    async with maintenance_mode_on(backend, ttl=float(ttl), reason="migrating", owner="the process") as block:
        print("held", flush=True)
        for line in sys.stdin:  # no await: to the event loop this is blocking code
            command, *seconds = line.split()
            if block.lost.is_set():
                print("lost", flush=True)
            if command == "leave":
                break
            time.sleep(float(seconds[0]))  # noqa: ASYNC251 - that is the point
            print("blocked", flush=True)
    print("left", flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
