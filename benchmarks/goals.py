"""The goals, and what became of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from benchmarks.cases import PLACES, Backend, Contender, Measure, Scene, Shot, State, Tree
from benchmarks.rounds import Readings
from benchmarks.tables import Row, added, ratio_of, select, table, times_bare


@dataclass(frozen=True)
class Verdict:
    """What became of a goal."""

    text: str
    bound: float
    measured: list[tuple[float, str]]
    """Figures, and where each was measured."""
    at_least: bool = False
    """Whether the bound is one from below."""

    @property
    def is_met(self) -> bool:
        """Whether no figure is beyond the bound."""
        return all(figure >= self.bound if self.at_least else figure <= self.bound for figure, _ in self.measured)


def tables(verdicts: Iterable[Verdict]) -> Iterator[str]:
    """Yield the table of those that were measured, as lines."""
    yield from ("", "## Goals", "")
    rows = (_cells(verdict) for verdict in verdicts if verdict.measured)
    yield from table(["goal", "bound", "best", "worst", "worst at", "met"], rows)


def _cells(verdict: Verdict) -> Iterator[str]:
    worst, best = max(verdict.measured), min(verdict.measured)
    if verdict.at_least:
        worst, best = best, worst
    yield from (verdict.text, f"{'≥' if verdict.at_least else '≤'} {verdict.bound:g}", f"{best[0]:.4g}")
    yield from (f"{worst[0]:.4g}", worst[1], "yes" if verdict.is_met else "**no**")


@dataclass(frozen=True)
class _Goal:
    """A bound on a ratio, for every shot that it is about."""

    text: str
    bound: float
    about: Callable[[Scene, Shot], bool]
    ratio: Callable[[Row], float | None]


def _over(contender: Contender) -> Callable[[Row], float | None]:
    return lambda row: ratio_of(added(row, Contender.OURS), added(row, contender))


def _is_alone(
    state: State, *shots: Shot, routes: int | None = None, backend: Backend = Backend.ENV
) -> Callable[[Scene, Shot], bool]:
    return lambda scene, shot: (
        scene.measure is Measure.ALONE
        and scene.state is state
        and scene.backend is backend
        and shot in shots
        and routes in (None, scene.routes)
    )


def _is_whole(*shots: Shot) -> Callable[[Scene, Shot], bool]:
    return lambda scene, shot: scene.measure is Measure.WHOLE and shot in shots


def _times_bare(row: Row) -> float | None:
    return times_bare(row, Contender.OURS)


_OFF = _is_alone(State.OFF, *PLACES)
_OFF_FILE = _is_alone(State.OFF, *PLACES, backend=Backend.FILE)
_MANY_MARKED = _is_alone(State.MARKED, *PLACES, routes=1000)
_MANY_BLOCKED = _is_alone(State.ON, *PLACES, routes=1000)

_GOALS = (
    _Goal("alone, off / 0.0.5", 1 / 50, _OFF, _over(Contender.REFERENCE)),
    _Goal("alone, off / waygate", 1 / 50, _OFF, _over(Contender.WAYGATE)),
    _Goal("alone, off / no-op BaseHTTP", 0.015, _OFF, _over(Contender.BASE_HTTP)),
    _Goal("alone, off, file backend / 0.0.5", 1 / 50, _OFF_FILE, _over(Contender.REFERENCE)),
    _Goal("alone, off, file backend / waygate", 1 / 50, _OFF_FILE, _over(Contender.WAYGATE)),
    _Goal("alone, off, file backend / no-op BaseHTTP", 0.03, _OFF_FILE, _over(Contender.BASE_HTTP)),
    _Goal("alone, 5 % marked, 1,000 routes / 0.0.5", 1 / 20, _MANY_MARKED, _over(Contender.REFERENCE)),
    _Goal("alone, 5 % marked, 1,000 routes / waygate", 1 / 20, _MANY_MARKED, _over(Contender.WAYGATE)),
    _Goal("alone, 5 % marked / no-op BaseHTTP", 0.04, _is_alone(State.MARKED, *PLACES), _over(Contender.BASE_HTTP)),
    _Goal("alone, blocked, 1,000 routes / 0.0.5", 1, _MANY_BLOCKED, _over(Contender.REFERENCE)),
    _Goal("alone, blocked, 1,000 routes / waygate", 1, _MANY_BLOCKED, _over(Contender.WAYGATE)),
    _Goal("alone, blocked / no-op BaseHTTP's 503", 0.10, _is_alone(State.ON, *PLACES), _over(Contender.BASE_HTTP)),
    _Goal("alone, exempt / no-op BaseHTTP", 0.04, _is_alone(State.ON, Shot.EXEMPT), _over(Contender.BASE_HTTP)),
    _Goal("64 KiB POST / bare", 1.05, _is_whole(Shot.UPLOAD), _times_bare),
    _Goal("100-chunk stream / bare", 1.05, _is_whole(Shot.STREAM), _times_bare),
)
_GROWTH = 1.2
_GROWING = (("off", State.OFF, PLACES), ("5 % marked", State.MARKED, PLACES), ("blocked", State.ON, PLACES),
            ("exempt", State.ON, (Shot.EXEMPT,)))  # fmt: skip


def verdicts(readings: Readings) -> Iterator[Verdict]:
    """Yield what became of the goals of requests in process."""
    for goal in _GOALS:
        measured = [
            (ratio, f"{scene.routes:,} {scene.tree}, {shot}")
            for (scene, shot), row in select(readings, goal.about).items()
            if (ratio := goal.ratio(row)) is not None
        ]
        yield Verdict(goal.text, goal.bound, measured)
    for name, state, shots in _GROWING:
        yield Verdict(f"alone, {name}: 1,000 routes / 10 routes", _GROWTH, list(_growth(readings, state, shots)))


def _growth(readings: Readings, state: State, shots: Iterable[Shot]) -> Iterator[tuple[float, str]]:
    """Yield by how much our cost grows from 10 to 1,000 routes, per kind of request."""
    for tree in Tree:
        for shot in shots:
            few, many = (
                added(readings.by_shot.get((Scene(Measure.ALONE, state, routes, tree), shot), {}), Contender.OURS)
                for routes in (10, 1000)
            )
            ratio = ratio_of(many, few)
            if ratio is not None:
                yield ratio, f"{tree}, {shot}"
