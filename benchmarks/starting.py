"""From nothing to the first answer: import, start-up and first request, each time in a new process.

Processor time. "Import" is all until FastAPI and the contender are there, the interpreter's own start included;
"start-up" builds the app with its routes and goes through the start of its lifespan; "first" is its first request.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from statistics import median

from benchmarks.cases import Contender, Scene, started
from benchmarks.processes import worker_command, worker_environment
from benchmarks.tables import table

STEPS = ("import", "start-up", "first")

Start = dict[str, float]
"""Seconds by step."""
Starts = dict[Scene, dict[Contender, list[Start] | str]]
"""Of each round, or why there are none."""


def starting(*, quick: bool, tell: Callable[[str], None]) -> Starts:
    """Start all contenders again and again, in turn."""
    found: Starts = {}
    rounds = 3 if quick else 7
    for scene in started(quick=quick):
        of_scene = found.setdefault(scene, {})
        for turn in range(rounds):
            tell(f"starts: {scene.state}, {scene.routes:,} {scene.tree}, {turn + 1}/{rounds}")
            for contender in Contender:
                before = of_scene.setdefault(contender, [])
                if isinstance(before, list):
                    answer = _started(contender, scene)
                    if isinstance(answer, str):
                        of_scene[contender] = answer
                    else:
                        before.append(answer)
    return found


def _started(contender: Contender, scene: Scene) -> Start | str:
    output = subprocess.run(
        worker_command(contender, "--start", json.dumps(scene.as_json())),
        env=worker_environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    answer: Start | str = json.loads(output)
    return answer


def tables(found: Starts) -> Iterator[str]:
    """Yield the table, as lines."""
    yield from ("", "## Start, in new processes", "")
    others = [contender for contender in Contender if contender is not Contender.BARE]
    header = ["work", "routes", "declared", "step", "bare, ms", *(f"{contender}, ms more" for contender in others)]
    yield from table(header, (_row(scene, step, found[scene]) for scene, step in _rows(found)))
    yield from ("", "A first request that is blocked runs no endpoint, so it can take less than the bare one.")


def _rows(found: Starts) -> Iterator[tuple[Scene, str]]:
    for number, scene in enumerate(found):
        # The import knows nothing of a scene.
        yield from ((scene, step) for step in (STEPS if number == 0 else STEPS[1:]))


def _row(scene: Scene, step: str, found: dict[Contender, list[Start] | str]) -> Iterator[str]:
    words = ("–", "–", "–") if step == "import" else (scene.state, f"{scene.routes:,}", scene.tree)
    yield from (*words, step)
    bare = found[Contender.BARE]
    assert not isinstance(bare, str), bare
    yield f"{median(one[step] for one in bare) * 1000:,.1f}"
    for contender in Contender:
        if contender is not Contender.BARE:
            mine = found[contender]
            yield "fails" if isinstance(mine, str) else _compared(mine, bare, step)


def _compared(mine: Sequence[Start], bare: Sequence[Start], step: str) -> str:
    pairs = [(one[step], other[step]) for one, other in zip(mine, bare, strict=True)]
    more, times = median(one - other for one, other in pairs), median(one / other for one, other in pairs)
    return f"{more * 1000:+,.1f} ({times:.2f} ×)"
