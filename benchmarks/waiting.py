"""Memory of requests that wait: what each of thousands holds while its endpoint awaits something.

Counted is what Python has allocated (tracemalloc), which is the same each time. The resident memory of the process
counts pages and free lists instead: it strays by more than the goal allows.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.cases import WAITING, Contender
from benchmarks.goals import Verdict
from benchmarks.rounds import Worker
from benchmarks.tables import table

COUNT = 2000

Waiting = dict[Contender, float | str]
"""Bytes of one request, or why there is none."""


def waiting() -> Waiting:
    """Measure all contenders, one after the other."""
    found: Waiting = {}
    for contender in Contender:
        with Worker(contender) as worker:
            worker.tell(do="prepare", scene=WAITING.as_json(), store="")
            worker.answer()
            worker.tell(do="park", count=COUNT)
            answer = worker.answer()
            found[contender] = answer.get("error") or answer["bytes"] / COUNT
    return found


def tables(found: Waiting) -> Iterator[str]:
    """Yield the table, as lines."""
    yield from ("", f"## Memory of a waiting request ({COUNT:,} wait, {WAITING.state}, {WAITING.routes} routes)", "")
    yield from table(["who", "bytes", "of bare"], (_row(contender, found) for contender in found))


def _row(contender: Contender, found: Waiting) -> Iterator[str]:
    size, ratio = found[contender], _of_bare(contender, found)
    yield contender
    yield "fails" if isinstance(size, str) else f"{size:,.0f}"
    yield "–" if ratio is None else f"{ratio:.3f} ×"


def _of_bare(contender: Contender, found: Waiting) -> float | None:
    size, bare = found[contender], found[Contender.BARE]
    return None if isinstance(size, str) or isinstance(bare, str) else size / bare


def verdicts(found: Waiting) -> Iterator[Verdict]:
    """Yield what became of the goal."""
    ratio = _of_bare(Contender.OURS, found)
    yield Verdict("memory of a waiting request / bare", 1.03, [] if ratio is None else [(ratio, "100 routes")])
