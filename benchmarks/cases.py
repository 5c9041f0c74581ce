"""What is measured: scenes, shots, and the plan. Standard library only; driver and workers share it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Contender(StrEnum):
    """Whose cost is measured."""

    BARE = "bare"
    ASGI = "no-op ASGI"
    BASE_HTTP = "no-op BaseHTTPMiddleware"
    REFERENCE = "fastapi-maintenance 0.0.5"
    WAYGATE = "waygate 0.2.0"
    OURS = "ours"


class Measure(StrEnum):
    """How much of a request is measured."""

    ALONE = "alone"
    """The middleware over an app whose router is real and answers like a stub."""
    WHOLE = "whole"
    """The whole app."""


class State(StrEnum):
    """What is under maintenance."""

    OFF = "off"
    """Nothing."""
    MARKED = "5 % marked"
    """One route in twenty: half of them forced on, half forced off. The mode is off."""
    ON = "on"
    """Everything but ``EXEMPT_PATH``."""


class Tree(StrEnum):
    """How the routes are declared; the paths are the same."""

    DIRECT = "direct"
    INCLUDED = "included"
    """Ten to a router, three ``include_router`` deep."""


class Backend(StrEnum):
    """Where the mode is kept."""

    ENV = "env"
    """The environment variable; waygate, which has no such backend, keeps its own in memory."""
    OWN = "own"
    """A user's backend with ``get_value`` and ``set_value`` only."""
    FILE = "file"
    REDIS = "Redis"


class Shot(StrEnum):
    """Which request is sent."""

    FIRST = "first"
    MIDDLE = "middle"
    LAST = "last"
    PARAMETER = "parameter"
    """A path with a parameter, another value each time."""
    EXEMPT = "exempt"
    MISSING = "missing"
    UPLOAD = "64 KiB POST"
    STREAM = "100-chunk stream"


PLACES = (Shot.FIRST, Shot.MIDDLE, Shot.LAST, Shot.PARAMETER)
"""The shots at routes that a blocking switch blocks."""

PREFIX = "/api/v1"
EXEMPT_PATH = "/health"
MISSING_PATH = f"{PREFIX}/group0/missing"
UPLOAD_PATH = "/upload"
STREAM_PATH = "/stream"
WAIT_PATH = "/wait"
ROUTES_PER_ROUTER = 10
STREAM_CHUNKS = 100
UPLOAD_CHUNKS, UPLOAD_CHUNK_BYTES = 4, 16 * 1024
VALUES = 1024
"""How many values the parameter takes in turn."""


@dataclass(frozen=True, slots=True)
class Scene:
    """An app to measure: each contender has one process per scene."""

    measure: Measure
    state: State
    routes: int
    tree: Tree = Tree.DIRECT
    backend: Backend = Backend.ENV

    def as_json(self) -> dict[str, Any]:
        """Return what ``from_json`` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Scene:
        """Return the scene that ``as_json`` described."""
        return cls(
            Measure(data["measure"]),
            State(data["state"]),
            data["routes"],
            Tree(data["tree"]),
            Backend(data["backend"]),
        )

    @property
    def shots(self) -> tuple[Shot, ...]:
        """The requests that are sent to it."""
        if self.backend is not Backend.ENV:
            return (Shot.FIRST,)
        if self.state is State.ON:
            return (*PLACES, Shot.EXEMPT, Shot.MISSING)
        if self == Scene(Measure.WHOLE, State.OFF, 100):
            return (*PLACES, Shot.UPLOAD, Shot.STREAM)
        return PLACES

    def expected_status(self, contender: Contender, shot: Shot) -> int:
        """Return the right answer."""
        if shot is Shot.MISSING and self.measure is Measure.WHOLE:
            return 404
        blocked = self.state is State.ON and shot in PLACES and contender is not Contender.BARE
        return 503 if blocked else 200


def route_path(index: int) -> str:
    """Return the path of one route, three segments deep; every tenth has a parameter."""
    path = f"{PREFIX}/group{index // ROUTES_PER_ROUTER}/route{index}"
    return f"{path}/{{item}}" if index % 10 == 3 else path


def mark_of_route(index: int) -> bool | None:
    """Return whether a route is forced on or off in a marked scene, or ``None``."""
    if index % 40 not in (7, 33):
        return None
    return (index // 40 + (index % 40 == 33)) % 2 == 0


def request_paths(scene: Scene, shot: Shot) -> list[str]:
    """Return the paths that the requests of a shot have in turn."""
    last = scene.routes - 1
    match shot:
        case Shot.FIRST | Shot.MIDDLE | Shot.LAST:
            return [route_path({Shot.FIRST: 0, Shot.MIDDLE: scene.routes // 2, Shot.LAST: last}[shot])]
        case Shot.PARAMETER:
            path = route_path(last - 6)
            return [path.format(item=f"item-{value}") for value in range(VALUES)]
        case Shot.EXEMPT:
            return [EXEMPT_PATH]
        case Shot.MISSING:
            return [MISSING_PATH]
        case Shot.UPLOAD:
            return [UPLOAD_PATH]
        case Shot.STREAM:
            return [STREAM_PATH]


def plan(*, quick: bool) -> Iterator[Scene]:
    """Yield the scenes of a run."""
    if quick:
        for state in State:
            yield Scene(Measure.ALONE, state, 10)
            yield Scene(Measure.ALONE, state, 1000)
            yield Scene(Measure.ALONE, state, 1000, Tree.INCLUDED)
        yield Scene(Measure.WHOLE, State.OFF, 100)
        yield Scene(Measure.ALONE, State.OFF, 100, backend=Backend.FILE)
        yield Scene(Measure.ALONE, State.OFF, 100, backend=Backend.REDIS)
        return
    for measure in Measure:
        for state in State:
            for tree in Tree:
                for routes in (10, 100, 1000):
                    yield Scene(measure, state, routes, tree)
    for measure in Measure:
        for backend in (Backend.OWN, Backend.FILE, Backend.REDIS):
            yield Scene(measure, State.OFF, 100, backend=backend)


COUNTED: tuple[tuple[Scene, Shot], ...] = (
    (Scene(Measure.ALONE, State.OFF, 100), Shot.FIRST),
    (Scene(Measure.ALONE, State.MARKED, 100), Shot.PARAMETER),
    (Scene(Measure.ALONE, State.MARKED, 1000), Shot.PARAMETER),
    (Scene(Measure.ALONE, State.ON, 100), Shot.FIRST),
    (Scene(Measure.ALONE, State.ON, 1000), Shot.PARAMETER),
    (Scene(Measure.WHOLE, State.OFF, 100), Shot.UPLOAD),
    (Scene(Measure.WHOLE, State.OFF, 100), Shot.STREAM),
)
"""Whose instructions are counted."""

WAITING = Scene(Measure.WHOLE, State.OFF, 100)
"""In which the memory of waiting requests is taken."""


def started(*, quick: bool) -> tuple[Scene, ...]:
    """Return the scenes whose start is measured."""
    off = Scene(Measure.WHOLE, State.OFF, 1000)
    if quick:
        return (off,)
    return (
        off,
        Scene(Measure.WHOLE, State.MARKED, 1000),
        Scene(Measure.WHOLE, State.ON, 1000),
        Scene(Measure.WHOLE, State.OFF, 1000, Tree.INCLUDED),
        Scene(Measure.WHOLE, State.ON, 1000, Tree.INCLUDED),
    )


def served(*, quick: bool) -> tuple[Scene, ...]:
    """Return the scenes that are asked over the network."""
    scenes = (
        Scene(Measure.WHOLE, State.OFF, 100),
        Scene(Measure.WHOLE, State.OFF, 100, backend=Backend.FILE),
        Scene(Measure.WHOLE, State.ON, 100),
    )
    return scenes if quick else (*scenes, Scene(Measure.WHOLE, State.OFF, 100, backend=Backend.REDIS))
