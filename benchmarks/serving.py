"""End to end: a uvicorn with one worker for each contender, on one CPU, and clients on another.

The servers are asked in turn, for a fraction of a second each, so that whatever else the machine does hits all alike.
Requests are counted by the clock, and by the processor time that the server used: that is what a server can do which
has a CPU for itself, and it stays the same where others want that CPU, too. The goals are about the latter. Two
processes of the same program differ by some per cent, so all servers are started anew several times.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median

from benchmarks.cases import Backend, Contender, Scene, Shot, State, request_paths, served
from benchmarks.environments import ROOT, python_of
from benchmarks.goals import Verdict
from benchmarks.processes import Process
from benchmarks.stores import Stores
from benchmarks.tables import NOT_FOR_IT, table

SHOT = Shot.FIRST
"""The route that takes the least to find: so all that a middleware adds counts most."""


class Second(StrEnum):
    """What requests are counted by."""

    CLOCK = "clock"
    PROCESSOR = "processor"


@dataclass
class Served:
    """What a server answered."""

    per_second: dict[Second, list[float]] = field(default_factory=lambda: {second: [] for second in Second})
    """Requests, by round."""
    statuses: set[int] = field(default_factory=set)
    error: str | None = None


Serving = dict[Scene, dict[Contender, Served]]


def serving(stores: Stores, *, quick: bool, tell: Callable[[str], None]) -> Serving:
    """Measure all scenes."""
    starts, rounds, seconds = (1, 9, 0.15) if quick else (5, 9, 0.2)
    found: Serving = {}
    for scene in served(quick=quick):
        found[scene] = {contender: Served() for contender in Contender}
        for start in range(starts):
            tell(f"uvicorn: {scene.state}, {scene.backend}, {start + 1}/{starts}")
            _take(found[scene], scene, stores, rounds, seconds)
    return found


def _take(found: dict[Contender, Served], scene: Scene, stores: Stores, rounds: int, seconds: float) -> None:
    """Start the servers and ask them, in turn."""
    cpu_of_servers, cpu_of_clients = _cpus()
    with ExitStack() as stack:
        servers = {
            contender: stack.enter_context(
                Process(
                    *(str(python_of(contender)), str(ROOT / "benchmarks" / "server.py"), contender),
                    *(json.dumps(scene.as_json()), stores.place(scene.backend, contender), cpu_of_servers),
                )
            )
            for contender in Contender
        }
        load = stack.enter_context(Process(sys.executable, str(ROOT / "benchmarks" / "load.py"), cpu_of_clients))
        ports = {}
        for contender, server in servers.items():
            answer = server.answer()
            if "error" in answer:
                found[contender].error = answer["error"]
            else:
                ports[contender] = answer["port"]
        [path] = request_paths(scene, SHOT)
        for turn in range(-1, rounds):  # the first is to warm up
            order = list(ports)
            for contender in order[turn % len(order) :] + order[: turn % len(order)]:
                begin = _cpu_of(servers[contender])
                load.tell(port=ports[contender], path=path, seconds=seconds)
                answer = load.answer()
                used = _cpu_of(servers[contender]) - begin
                found[contender].statuses.update(answer["statuses"])
                if turn >= 0:
                    per_second = found[contender].per_second
                    per_second[Second.CLOCK].append(answer["responses"] / answer["seconds"])
                    per_second[Second.PROCESSOR].append(answer["responses"] / used)


def _cpu_of(server: Process) -> float:
    """Return the seconds of processor time that a server has used."""
    server.tell()
    used: float = server.answer()["cpu"]
    return used


def _cpus() -> tuple[str, str]:
    """Return a CPU for the server that is asked, and another one for those who ask."""
    if sys.platform != "linux":
        return "", ""
    cpus = sorted(os.sched_getaffinity(0))
    return (str(cpus[0]), str(cpus[1])) if len(cpus) > 1 else ("", "")


def _base(scene: Scene) -> Contender:
    """Return what a scene is compared with: who passes all requests, or who blocked them first."""
    return Contender.REFERENCE if scene.state is State.ON else Contender.BARE


def _times_base(
    scene: Scene, contender: Contender, found: dict[Contender, Served], second: Second = Second.PROCESSOR
) -> float | None:
    mine, base = found[contender].per_second[second], found[_base(scene)].per_second[second]
    if not mine or not base:
        return None
    return median(one / other for one, other in zip(mine, base, strict=True))


def tables(found: Serving) -> Iterator[str]:
    """Yield the table, as lines."""
    yield from ("", "## End to end, uvicorn, 16 connections", "")
    header = [
        "work",
        "backend",
        "routes",
        "second of",
        "against",
        "its requests/s",
        *(f"{name}" for name in Contender),
    ]
    yield from table(header, (_row(scene, of_scene, second) for scene, of_scene in found.items() for second in Second))


def _row(scene: Scene, found: dict[Contender, Served], second: Second) -> Iterator[str]:
    base = _base(scene)
    yield from (scene.state, scene.backend, f"{scene.routes:,}", second, base)
    per_second = found[base].per_second[second]
    yield f"{median(per_second):,.0f}" if per_second else "–"
    for contender, served_ in found.items():
        ratio = _times_base(scene, contender, found, second)
        if ratio is None:
            yield "–" if (served_.error or "").startswith(NOT_FOR_IT) else "fails"
        else:
            wrong = served_.statuses - {scene.expected_status(contender, SHOT)}
            yield f"{ratio:.2f} ×" + (f" ({', '.join(map(str, sorted(wrong)))})" if wrong else "")


_GOALS = {
    (State.OFF, Backend.ENV): ("uvicorn, off: requests/s / bare", 0.95),
    (State.OFF, Backend.FILE): ("uvicorn, off, file backend: requests/s / bare", 0.90),
    (State.ON, Backend.ENV): ("uvicorn, blocked: 503s/s / 0.0.5's", 3.0),
}


def verdicts(found: Serving) -> Iterator[Verdict]:
    """Yield what became of the goals."""
    for scene, of_scene in found.items():
        goal = _GOALS.get((scene.state, scene.backend))
        ratio = _times_base(scene, Contender.OURS, of_scene)
        if goal is not None and ratio is not None:
            yield Verdict(*goal, [(ratio, f"{scene.routes} routes")], at_least=True)
