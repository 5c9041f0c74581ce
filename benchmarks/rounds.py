"""The measuring itself: a worker process per contender, asked in short interleaved rounds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from benchmarks.cases import Backend, Contender, Scene, Shot
from benchmarks.environments import ROOT, python_of

WORKER = ROOT / "benchmarks" / "worker.py"


def worker_command(contender: Contender, *options: str, python: Path | None = None) -> list[str]:
    """Return the command line of a contender's worker; ``python`` is another than the contender's own."""
    return [str(python or python_of(contender)), str(WORKER), contender, *options]


def worker_environment() -> dict[str, str]:
    """Return the environment of a worker: nothing of the caller's decides what it does, hashes are the same."""
    others = ("FASTAPI_MAINTENANCE", "PYTHON", "COVERAGE")
    mine = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    return {**mine, "PYTHONHASHSEED": "0"}


def _cpu_of(turn: int) -> int | None:
    """Return the CPU for a round: the same for all contenders, since some are busier with other things than others."""
    if sys.platform != "linux":
        return None
    cpus = sorted(os.sched_getaffinity(0))
    return cpus[turn % len(cpus)]


class Worker:
    """A contender's process."""

    def __init__(self, contender: Contender, *, python: Path | None = None) -> None:
        self.contender = contender
        self._process = subprocess.Popen(
            worker_command(contender, python=python),
            env=worker_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def tell(self, **command: Any) -> None:
        """Send a command; ``answer`` must follow."""
        if self._process.stdin is not None:
            print(json.dumps(command), file=self._process.stdin, flush=True)

    def answer(self) -> dict[str, Any]:
        """Wait for the answer."""
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            msg = f"the worker of {self.contender} ended with exit status {self._process.wait()}"
            raise RuntimeError(msg)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def run(self, shot: Shot, count: int, turn: int = 0) -> float:
        """Have requests sent; return the nanoseconds that one took, on average."""
        self.tell(do="run", shot=shot, count=count, cpu=_cpu_of(turn))
        answer = self.answer()
        if "error" in answer:
            msg = f"{self.contender}, {shot}: {answer['error']}"
            raise RuntimeError(msg)
        return float(answer["ns"]) / count


@dataclass
class Reading:
    """What was measured of one contender in one shot."""

    expected_status: int
    status: int | None = None
    error: str | None = None
    nanoseconds: list[float] = field(default_factory=list)
    """Of one request, by round."""


@dataclass
class Readings:
    """Everything that was measured."""

    rounds: int
    round_seconds: float
    contenders: Sequence[Contender] = tuple(Contender)
    python: Path | None = None
    """An interpreter for all, instead of each contender's own."""
    by_shot: dict[tuple[Scene, Shot], dict[Contender, Reading]] = field(default_factory=dict)
    versions: dict[Contender, dict[str, str | None]] = field(default_factory=dict)

    def take(self, scene: Scene, place: Callable[[Backend, Contender], str] = lambda *_: "") -> None:
        """Measure a scene; ``place`` gives the store of a backend that needs one."""
        with ExitStack() as stack:
            workers = [stack.enter_context(Worker(contender, python=self.python)) for contender in self.contenders]
            for worker in workers:
                store = place(scene.backend, worker.contender)
                worker.tell(do="prepare", scene=scene.as_json(), store=store)
            ready = []
            for worker in workers:
                answer = worker.answer()
                if "error" in answer:
                    for shot in scene.shots:
                        self._reading(scene, shot, worker.contender).error = answer["error"]
                else:
                    self.versions[worker.contender] = answer["versions"]
                    ready.append(worker)
            self._take(scene, ready)

    def _take(self, scene: Scene, workers: list[Worker]) -> None:
        counts = {
            (shot, worker.contender): count
            for shot in scene.shots
            for worker in workers
            if (count := self._count(scene, shot, worker))
        }
        for turn in range(self.rounds):
            for shot in scene.shots:
                # Another one begins each time: nobody always runs after the same neighbour.
                for worker in workers[turn % len(workers) :] + workers[: turn % len(workers)]:
                    if (shot, worker.contender) in counts:
                        took = worker.run(shot, counts[shot, worker.contender], turn)
                        self._reading(scene, shot, worker.contender).nanoseconds.append(took)

    def _count(self, scene: Scene, shot: Shot, worker: Worker) -> int:
        """Check a shot's answer, warm up, and return how many requests make a round; 0 if there is no answer."""
        reading = self._reading(scene, shot, worker.contender)
        worker.tell(do="check", shot=shot)
        answer = worker.answer()
        reading.status, reading.error = answer.get("status"), answer.get("error")
        if reading.error is not None:
            return 0
        worker.run(shot, 4)  # what the first requests set up would make the rounds too short
        count = 4
        while (took := worker.run(shot, count) * count / 1e9) < self.round_seconds / 4:
            count *= 2
        return max(1, round(count * self.round_seconds / took))

    def _reading(self, scene: Scene, shot: Shot, contender: Contender) -> Reading:
        readings = self.by_shot.setdefault((scene, shot), {})
        return readings.setdefault(contender, Reading(scene.expected_status(contender, shot)))
