"""From readings to Markdown: medians and ratios."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from statistics import median

from benchmarks.cases import PLACES, Backend, Contender, Measure, Scene, Shot, State
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


_WORDS = frozenset(
    {"routes", "declared", "backend", "request", "goal", "worst at", "measured", "work", "step", "second of"}
    | {"against", "met", "who", "why"}
)


def tables(readings: Readings) -> Iterator[str]:
    """Yield all tables, as lines."""
    yield from _alone(readings)
    yield from _whole(readings)


def _alone(readings: Readings) -> Iterator[str]:
    titles: dict[tuple[State, Backend, bool], str] = {
        (State.OFF, Backend.ENV, True): "Alone: off, nothing forced on",
        (State.OFF, Backend.OWN, True): "Alone: off, a backend with two methods",
        (State.OFF, Backend.FILE, True): "Alone: off, file backend",
        (State.OFF, Backend.REDIS, True): "Alone: off, Redis backend",
        (State.MARKED, Backend.ENV, True): "Alone: off, 5 % of the routes marked",
        (State.ON, Backend.ENV, True): "Alone: on, blocked",
        (State.ON, Backend.ENV, False): "Alone: on, exempt and missing paths",
    }
    for (state, backend, at_routes), title in titles.items():
        rows = select(
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
    yield _number(ratio_of(ours, added(row, Contender.BASE_HTTP)), "{:.4f}")
    for peer in _PEERS:
        yield _number(ratio_of(added(row, peer), ours), "{:,.1f} ×")


def _whole(readings: Readings) -> Iterator[str]:
    rows = select(readings, lambda scene, _: scene.measure is Measure.WHOLE)
    if not rows:
        return
    yield from ("", "## Whole requests, in process", "")
    header = ["work", "backend", "routes", "declared", "request", "bare, µs", *(f"{name} / bare" for name in _OTHERS)]
    yield from table(header, (_whole_row(scene, shot, row) for (scene, shot), row in rows.items()))


def _whole_row(scene: Scene, shot: Shot, row: Row) -> Iterator[str]:
    yield from (scene.state, scene.backend, f"{scene.routes:,}", scene.tree, shot, _micro(whole(row, Contender.BARE)))
    for contender in _OTHERS:
        yield _cell(row.get(contender), _number(times_bare(row, contender), "{:.2f} ×"))


def failures(readings: Readings) -> Iterator[str]:
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


def select(readings: Readings, about: Callable[[Scene, Shot], bool]) -> dict[tuple[Scene, Shot], Row]:
    """Return the rows that something is about."""
    return {(scene, shot): row for (scene, shot), row in readings.by_shot.items() if about(scene, shot)}


def _cell(reading: Reading | None, text: str) -> str:
    """Return a figure, with a note where the answer is a wrong one."""
    if reading is None:
        return "–"
    if reading.error is not None:
        return "–" if reading.error.startswith(NOT_FOR_IT) else "fails"
    return text if reading.status == reading.expected_status else f"{text} ({reading.status})"


def ratio_of(over: float | None, under: float | None) -> float | None:
    """Return a ratio, or ``None`` where there is none to tell."""
    return None if over is None or not under or under < 0 else over / under


def _micro(nanoseconds: float | None) -> str:
    return _number(None if nanoseconds is None else nanoseconds / 1000, "{:,.2f}")


def _number(value: float | None, style: str) -> str:
    return "–" if value is None else style.format(value)
