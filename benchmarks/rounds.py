"""The measuring itself: a worker process per contender, asked in short interleaved rounds."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.cases import Backend, Contender, Scene, Shot
from benchmarks.processes import Process, worker_command


def _cpu_of(turn: int) -> int | None:
    """Return the CPU for a round: the same for all contenders, since some are busier with other things than others."""
    if sys.platform != "linux":
        return None
    cpus = sorted(os.sched_getaffinity(0))
    return cpus[turn % len(cpus)]


class Worker(Process):
    """A contender's process."""

    def __init__(self, contender: Contender, *, python: Path | None = None) -> None:
        super().__init__(*worker_command(contender, python=python))
        self.contender = contender

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
