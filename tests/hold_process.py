"""A process that holds a switch, told by its standard input: ``python -m tests.hold_process PLACE TTL``.

It says "held" when it does, then for each line of input: "block SECONDS" runs blocking code and says "blocked",
"leave" leaves the block and says "left"; before both "lost" if the hold was lost.
"""

from __future__ import annotations

import asyncio
import sys
import time

from fastapi_maintenance import maintenance_mode_on

from .places import Place


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
