"""Instructions per request, counted by callgrind: the same on a busy machine as on an idle one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import goals
from benchmarks.cases import COUNTED, Contender, Measure, State
from benchmarks.goals import Verdict
from benchmarks.processes import worker_command, worker_environment
from benchmarks.tables import table

Counts = dict[int, float | str]
"""Instructions per request by the index in ``COUNTED``, or why there are none."""


def instructions() -> Iterator[str]:
    """Yield the table, as lines."""
    yield from ("", "## Thousand instructions a request", "")
    if shutil.which("valgrind") is None:
        yield "valgrind is not installed: apt-get install -y valgrind"
        return
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = dict(zip(Contender, pool.map(_count, Contender), strict=True))
    header = ["measured", "work", "routes", "request", *Contender, "ours, added", "ours / bare"]
    yield from table(header, (_row(index, counts) for index in range(len(COUNTED))))
    yield ""
    yield 'Alone, "bare" is the stub; what passes includes it, a 503 does not.'
    yield from goals.tables(_verdicts(counts))


_GOALS = {State.OFF: 25, State.MARKED: 50, State.ON: 40}
"""Thousand instructions over the stub."""


def _verdicts(counts: dict[Contender, Counts]) -> Iterator[Verdict]:
    for state, bound in _GOALS.items():
        measured = [
            (more / 1000, f"{scene.routes:,} routes, {shot}")
            for index, (scene, shot) in enumerate(COUNTED)
            if scene.measure is Measure.ALONE and scene.state is state
            if (more := _added(index, counts)) is not None
        ]
        yield Verdict(f"alone, {state}: thousand instructions", bound, measured)


def _added(index: int, counts: dict[Contender, Counts]) -> float | None:
    """Return what ours adds to the stub, or takes by itself where it answers."""
    scene, shot = COUNTED[index]
    ours, bare = (counts[contender].get(index) for contender in (Contender.OURS, Contender.BARE))
    if not isinstance(ours, float) or not isinstance(bare, float):
        return None
    return ours - bare if scene.expected_status(Contender.OURS, shot) == 200 else ours


def _row(index: int, counts: dict[Contender, Counts]) -> Iterator[str]:
    scene, shot = COUNTED[index]
    yield from (scene.measure, scene.state, f"{scene.routes:,}", shot)
    cells = {contender: counts[contender].get(index, "fails") for contender in Contender}
    for cell in cells.values():
        yield cell if isinstance(cell, str) else f"{cell / 1000:,.1f}"
    added = _added(index, counts)
    yield "–" if added is None else f"{added / 1000:,.1f}"
    ours, bare = cells[Contender.OURS], cells[Contender.BARE]
    if isinstance(ours, str) or isinstance(bare, str) or scene.expected_status(Contender.OURS, shot) != 200:
        yield "–"
    else:
        yield f"{ours / bare:.3f} ×"


def _count(contender: Contender) -> Counts:
    """Run one contender under callgrind, which writes a file per process."""
    with tempfile.TemporaryDirectory() as folder:
        valgrind = ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={folder}/%p"]
        output = subprocess.run(
            [*valgrind, *worker_command(contender, "--count")],
            env=worker_environment(),
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        runs: dict[int, list[tuple[int, int]]] = {}
        counts: Counts = {}
        for line in output.splitlines():
            answer = json.loads(line)
            if "error" in answer:
                counts[answer["index"]] = "fails"
            else:
                total = _total(Path(folder) / str(answer["pid"]))
                runs.setdefault(answer["index"], []).append((answer["count"], total))
    for index, ((few, less), (many, more)) in runs.items():
        counts[index] = (more - less) / (many - few)
    return counts


def _total(path: Path) -> int:
    match = re.search(r"^(?:totals|summary): (\d+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    if match is None:
        msg = f"{path}: callgrind wrote no total"
        raise RuntimeError(msg)
    return int(match[1])
