"""From readings to Markdown: medians, ratios, goals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import median

from benchmarks.cases import PLACES, Backend, Contender, Measure, Scene, Shot, State, Tree
from benchmarks.rounds import Reading, Readings

_OTHERS = (Contender.ASGI, Contender.BASE_HTTP, Contender.REFERENCE, Contender.WAYGATE, Contender.OURS)
_PEERS = (Contender.REFERENCE, Contender.WAYGATE)

NOT_FOR_IT = "NotImplementedError"
"""How the error of a contender begins that has nothing of the kind that is measured."""

Row = dict[Contender, Reading]


def added(row: Row, contender: Contender) -> float | None:
    """Return the nanoseconds that a middleware takes of a request by itself, the median over the rounds.

    Where the request passes, that is what it adds to the bare app measured in the same round; where it answers by
    itself, all that it takes.
    """
    reading, bare = row.get(contender), row.get(Contender.BARE)
    if reading is None or not reading.nanoseconds or bare is None:
        return None
    if reading.status == 503:
        return median(reading.nanoseconds)
    return median(mine - base for mine, base in zip(reading.nanoseconds, bare.nanoseconds, strict=True))


def whole(row: Row, contender: Contender) -> float | None:
    """Return the nanoseconds of a whole request, the median over the rounds."""
    reading = row.get(contender)
    return median(reading.nanoseconds) if reading is not None and reading.nanoseconds else None


def times_bare(row: Row, contender: Contender) -> float | None:
    """Return how many times a bare whole request takes, the median over the rounds."""
    reading, bare = row.get(contender), row.get(Contender.BARE)
    if reading is None or not reading.nanoseconds or bare is None or not bare.nanoseconds:
        return None
    return median(mine / base for mine, base in zip(reading.nanoseconds, bare.nanoseconds, strict=True))


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table: the first columns are words, those with a unit or ratio are numbers."""
    names = list(header)
    yield "| " + " | ".join(names) + " |"
    yield "|" + "|".join("---" if name in _WORDS else "---:" for name in names) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


_WORDS = frozenset({"routes", "declared", "request", "goal", "worst at", "measured", "work", "met", "who", "why"})


def report(readings: Readings) -> Iterator[str]:
    """Yield all tables, as lines."""
    yield from _alone(readings)
    yield from _whole(readings)
    yield from _goals(readings)
    yield from _failures(readings)


def _alone(readings: Readings) -> Iterator[str]:
    titles: dict[tuple[State, Backend, bool], str] = {
        (State.OFF, Backend.ENV, True): "Alone: off, nothing forced on",
        (State.OFF, Backend.OWN, True): "Alone: off, a backend with two methods",
        (State.MARKED, Backend.ENV, True): "Alone: off, 5 % of the routes marked",
        (State.ON, Backend.ENV, True): "Alone: on, blocked",
        (State.ON, Backend.ENV, False): "Alone: on, exempt and missing paths",
    }
    for (state, backend, at_routes), title in titles.items():
        rows = _select(
            readings,
            lambda scene, shot, state=state, backend=backend, at_routes=at_routes: (  # type: ignore[misc]
                scene.measure is Measure.ALONE
                and scene.state is state
                and scene.backend is backend
                and (shot in PLACES) is at_routes
            ),
        )
        if not rows:
            continue
        yield from ("", f"## {title}", "")
        header = [
            *("routes", "declared", "request"),
            *(f"{contender}, µs" for contender in _OTHERS),
            *("ours / no-op BaseHTTP", "0.0.5 / ours", "waygate / ours"),
        ]
        yield from table(header, (_alone_row(scene, shot, row) for (scene, shot), row in rows.items()))


def _alone_row(scene: Scene, shot: Shot, row: Row) -> Iterator[str]:
    yield from (f"{scene.routes:,}", scene.tree, shot)
    for contender in _OTHERS:
        yield _cell(row.get(contender), _micro(added(row, contender)))
    ours = added(row, Contender.OURS)
    yield _number(_ratio(ours, added(row, Contender.BASE_HTTP)), "{:.4f}")
    for peer in _PEERS:
        yield _number(_ratio(added(row, peer), ours), "{:,.1f} ×")


def _whole(readings: Readings) -> Iterator[str]:
    rows = _select(readings, lambda scene, _: scene.measure is Measure.WHOLE)
    if not rows:
        return
    yield from ("", "## Whole requests, in process", "")
    header = ["work", "routes", "declared", "request", "bare, µs", *(f"{name} / bare" for name in _OTHERS)]
    yield from table(header, (_whole_row(scene, shot, row) for (scene, shot), row in rows.items()))


def _whole_row(scene: Scene, shot: Shot, row: Row) -> Iterator[str]:
    yield from (scene.state, f"{scene.routes:,}", scene.tree, shot, _micro(whole(row, Contender.BARE)))
    for contender in _OTHERS:
        yield _cell(row.get(contender), _number(times_bare(row, contender), "{:.2f} ×"))


@dataclass(frozen=True)
class Goal:
    """A bound on a ratio, for every shot that it is about."""

    text: str
    bound: float
    about: Callable[[Scene, Shot], bool]
    ratio: Callable[[Row], float | None]


def _over(contender: Contender) -> Callable[[Row], float | None]:
    return lambda row: _ratio(added(row, Contender.OURS), added(row, contender))


def _is_alone(state: State, *shots: Shot, routes: int | None = None) -> Callable[[Scene, Shot], bool]:
    return lambda scene, shot: (
        scene.measure is Measure.ALONE
        and scene.state is state
        and scene.backend is Backend.ENV
        and shot in shots
        and routes in (None, scene.routes)
    )


def _is_whole(*shots: Shot) -> Callable[[Scene, Shot], bool]:
    return lambda scene, shot: scene.measure is Measure.WHOLE and shot in shots


def _times_bare(row: Row) -> float | None:
    return times_bare(row, Contender.OURS)


GOALS = (
    Goal("alone, off / 0.0.5", 1 / 50, _is_alone(State.OFF, *PLACES), _over(Contender.REFERENCE)),
    Goal("alone, off / waygate", 1 / 50, _is_alone(State.OFF, *PLACES), _over(Contender.WAYGATE)),
    Goal("alone, off / no-op BaseHTTP", 0.015, _is_alone(State.OFF, *PLACES), _over(Contender.BASE_HTTP)),
    Goal("alone, 5 % marked, 1,000 routes / 0.0.5", 1 / 20,
         _is_alone(State.MARKED, *PLACES, routes=1000), _over(Contender.REFERENCE)),
    Goal("alone, 5 % marked, 1,000 routes / waygate", 1 / 20,
         _is_alone(State.MARKED, *PLACES, routes=1000), _over(Contender.WAYGATE)),
    Goal("alone, 5 % marked / no-op BaseHTTP", 0.04, _is_alone(State.MARKED, *PLACES), _over(Contender.BASE_HTTP)),
    Goal("alone, blocked, 1,000 routes / 0.0.5", 1,
         _is_alone(State.ON, *PLACES, routes=1000), _over(Contender.REFERENCE)),
    Goal("alone, blocked, 1,000 routes / waygate", 1,
         _is_alone(State.ON, *PLACES, routes=1000), _over(Contender.WAYGATE)),
    Goal("alone, blocked / no-op BaseHTTP's 503", 0.10, _is_alone(State.ON, *PLACES), _over(Contender.BASE_HTTP)),
    Goal("alone, exempt / no-op BaseHTTP", 0.04, _is_alone(State.ON, Shot.EXEMPT), _over(Contender.BASE_HTTP)),
    Goal("64 KiB POST / bare", 1.05, _is_whole(Shot.UPLOAD), _times_bare),
    Goal("100-chunk stream / bare", 1.05, _is_whole(Shot.STREAM), _times_bare),
)  # fmt: skip


def _goals(readings: Readings) -> Iterator[str]:
    yield from ("", "## Goals", "")
    yield from table(["goal", "at most", "best", "worst", "worst at", "met"], _goal_rows(readings))


def _goal_rows(readings: Readings) -> Iterator[list[str]]:
    for goal in GOALS:
        measured = [
            (ratio, f"{scene.routes:,} {scene.tree}, {shot}")
            for (scene, shot), row in _select(readings, goal.about).items()
            if (ratio := goal.ratio(row)) is not None
        ]
        if measured:
            worst, where = max(measured)
            verdict = "yes" if worst <= goal.bound else "**no**"
            yield [goal.text, f"{goal.bound:.3f}", f"{min(measured)[0]:.4f}", f"{worst:.4f}", where, verdict]
    for state, bound in ((State.OFF, 1.2), (State.MARKED, 1.2), (State.ON, 1.2)):
        growth = list(_growth(readings, state))
        if growth:
            worst, where = max(growth)
            verdict = "yes" if worst <= bound else "**no**"
            text = f"alone, {state}: 1,000 routes / 10 routes"
            yield [text, f"{bound:.3f}", f"{min(growth)[0]:.4f}", f"{worst:.4f}", where, verdict]


def _growth(readings: Readings, state: State) -> Iterator[tuple[float, str]]:
    """Yield by how much our cost grows from 10 to 1,000 routes, per kind of request."""
    for tree in Tree:
        for shot in PLACES:
            few, many = (
                added(readings.by_shot.get((Scene(Measure.ALONE, state, routes, tree), shot), {}), Contender.OURS)
                for routes in (10, 1000)
            )
            ratio = _ratio(many, few)
            if ratio is not None:
                yield ratio, f"{tree}, {shot}"


def _failures(readings: Readings) -> Iterator[str]:
    """Yield who failed where, and why; a contender that has no such backend did not fail."""
    where: dict[tuple[Contender, str], list[Scene]] = {}
    for (scene, _), row in readings.by_shot.items():
        for contender, reading in row.items():
            if reading.error is not None and not reading.error.startswith(NOT_FOR_IT):
                where.setdefault((contender, reading.error), []).append(scene)
    if where:
        yield from ("", "## Failures", "")
        rows = (
            (contender, ", ".join(sorted({scene.tree for scene in scenes})), f"`{error}`")
            for (contender, error), scenes in where.items()
        )
        yield from table(["who", "declared", "why"], rows)


def _select(readings: Readings, about: Callable[[Scene, Shot], bool]) -> dict[tuple[Scene, Shot], Row]:
    return {(scene, shot): row for (scene, shot), row in readings.by_shot.items() if about(scene, shot)}


def _cell(reading: Reading | None, text: str) -> str:
    """Return a figure, with a note where the answer is a wrong one."""
    if reading is None:
        return "–"
    if reading.error is not None:
        return "–" if reading.error.startswith(NOT_FOR_IT) else "fails"
    return text if reading.status == reading.expected_status else f"{text} ({reading.status})"


def _ratio(over: float | None, under: float | None) -> float | None:
    return None if over is None or not under or under < 0 else over / under


def _micro(nanoseconds: float | None) -> str:
    return _number(None if nanoseconds is None else nanoseconds / 1000, "{:,.2f}")


def _number(value: float | None, style: str) -> str:
    return "–" if value is None else style.format(value)
