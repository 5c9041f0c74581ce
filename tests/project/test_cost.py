"""A small guard of ``make bench``: what the middleware takes of a request, next to a no-op ``BaseHTTPMiddleware``.

Each bound is wide, since machines that test are busy: at least three times what is measured, and still a small part of
what it takes to match a request exactly, route by route. Compared is processor time, the least of some rounds by
turns, in processes of their own that count no lines.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.cases import PLACES, Contender, Measure, Scene, Shot, State, Tree
from benchmarks.rounds import Reading, Readings
from benchmarks.stores import Stores

CONTENDERS = (Contender.BARE, Contender.BASE_HTTP, Contender.OURS)
ROUTES = 1000
FLAT = 4.0
"""Times what a request takes with ten routes; measured: 1.0 to 2.0. Exact matching: 20 to 80."""
OFF = 0.07
"""Of what the no-op adds; measured: 0.02. Exact matching: 0.4 to 60."""
MARKED = EXEMPT = 0.35
"""The same; measured: 0.04 to 0.11. Exact matching: 0.4 to 60."""
BLOCKED = 1.6
"""Of what the no-op takes for its 503; measured: 0.25 to 0.53. Exact matching: 2.6 to 200."""
BOUNDS = {State.OFF: OFF, State.MARKED: MARKED, State.ON: BLOCKED}

Row = Mapping[Contender, Reading]


def measured(scene: Scene) -> dict[Shot, Row]:
    """Return what was measured of a scene, by request."""
    readings = Readings(rounds=9, round_seconds=0.003, contenders=CONTENDERS, python=Path(sys.executable))
    with Stores() as stores:
        readings.take(scene, stores.place)
    return {shot: readings.by_shot[scene, shot] for shot in scene.shots}


def least(row: Row, contender: Contender = Contender.OURS) -> float:
    """Return the nanoseconds that a contender takes of a request by itself, at least."""
    reading = row[contender]
    assert reading.error is None, reading.error
    assert reading.status == reading.expected_status
    taken = min(reading.nanoseconds)
    return taken if reading.status == 503 else taken - min(row[Contender.BARE].nanoseconds)


def shares(rows: Mapping[Shot, Row]) -> dict[Shot, float]:
    """Return what ours takes of each request, of what the no-op takes."""
    return {shot: least(row) / least(row, Contender.BASE_HTTP) for shot, row in rows.items()}


@pytest.mark.parametrize(
    ("state", "tree"),
    [
        (State.OFF, Tree.DIRECT),
        (State.OFF, Tree.INCLUDED),
        (State.MARKED, Tree.INCLUDED),
        (State.ON, Tree.DIRECT),
    ],
)
def test_it_takes_little_however_many_routes_there_are(state: State, tree: Tree) -> None:
    """Off, with forced endpoints, and while it blocks."""
    few, many = (measured(Scene(Measure.ALONE, state, routes, tree)) for routes in (10, ROUTES))
    found = shares(many)
    assert max(found[shot] for shot in PLACES) <= BOUNDS[state], found
    assert found.get(Shot.EXEMPT, 0.0) <= EXEMPT, found
    growth = {shot: least(many[shot]) / least(few[shot]) for shot in many if shot is not Shot.MISSING}
    assert max(growth.values()) <= FLAT, growth
