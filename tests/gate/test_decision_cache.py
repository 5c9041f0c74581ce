"""Decisions that are kept for many requests, and the answers that are kept with them: as long as they are right."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.types import Scope

from fastapi_maintenance import Answer, MaintenanceMode, MaintenanceModeMiddleware, MaintenanceState
from fastapi_maintenance.answers.answer import DEFAULT_ANSWER, HTML, OFFERED
from fastapi_maintenance.answers.body import JSON
from fastapi_maintenance.backends import MemoryBackend, memory
from fastapi_maintenance.gate import gate
from fastapi_maintenance.gate.decision_cache import PASSED_AT_ONCE, CachedDecision, DecisionCache
from fastapi_maintenance.model.decision import Decision, Mark, Rule
from fastapi_maintenance.model.state import Hold
from fastapi_maintenance.routing.walk import Target
from tests.support.asgi import scope_of, status
from tests.support.windows import HOUR, NOW, TICK, window

ON, READ_ONLY, OFF = MaintenanceMode.ON, MaintenanceMode.READ_ONLY, MaintenanceMode.OFF


class Clock:
    """The time of day, which somebody may change."""

    def __init__(self) -> None:
        self.at = NOW

    def now(self, zone: object) -> datetime:
        assert zone is UTC
        return self.at

    def time(self) -> float:
        return self.at.timestamp()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clock by which requests are judged."""
    clock = Clock()
    monkeypatch.setattr(gate, "datetime", clock)
    monkeypatch.setattr(memory, "datetime", clock)
    return clock


def target(*, runs: bool = True, mark: Mark | None = None) -> Target:
    return Target(runs=runs, mark=mark)


# Which requests they go for


def test_requests_that_are_alike_share_a_verdict(clock: Clock) -> None:
    """All safe methods are, and all others."""
    taken = DecisionCache(MaintenanceState(mode=READ_ONLY), None, clock.at)
    safe, unsafe = taken.of(target(), "GET"), taken.of(target(), "POST")
    assert (safe.blocked, unsafe.blocked) == (False, True)
    assert all(taken.of(target(), method) is safe for method in ("GET", "HEAD", "OPTIONS", "TRACE"))
    assert all(taken.of(target(), method) is unsafe for method in ("POST", "PUT", "PATCH", "DELETE", "X-ANY", None))


def test_requests_that_differ_have_verdicts_of_their_own(clock: Clock) -> None:
    """In what would run, in its mark, or in what exempts them."""
    taken = DecisionCache(MaintenanceState(mode=ON), None, clock.at)
    asked = {
        "plain": taken.of(target(), "GET"),
        "nothing": taken.of(target(runs=False), "GET"),
        "forced on": taken.of(target(mark=Mark.ON), "GET"),
        "forced off": taken.of(target(mark=Mark.OFF), "GET"),
        "exempt": taken.of(target(), "GET", "path"),
        "exempt otherwise": taken.of(target(), "GET", "network"),
    }
    assert len({id(cached) for cached in asked.values()}) == len(asked)
    assert {name for name, cached in asked.items() if cached.blocked} == {"plain", "forced on"}
    assert {name for name, cached in asked.items() if cached.blocked_by_mode} == {"plain"}
    assert {name for name, cached in asked.items() if not cached.is_counted} == {"nothing", "forced off"}
    assert asked["exempt"].decision.exemption == "path"


def test_what_passes_at_once_is_neither_blocked_nor_counted() -> None:
    assert not PASSED_AT_ONCE.blocked
    assert not PASSED_AT_ONCE.blocked_by_mode
    assert not PASSED_AT_ONCE.is_counted


# How long they go


def test_verdicts_go_for_one_state_and_for_what_stands_in_for_its_mode(clock: Clock) -> None:
    """An equal state is another one: comparing them would take longer than deciding."""
    state = MaintenanceState(mode=ON)
    taken = DecisionCache(state, None, clock.at)
    assert taken.is_valid(state, None, clock.at)
    assert not taken.is_valid(state.model_copy(), None, clock.at)
    assert not taken.is_valid(state, False, clock.at)
    assert not DecisionCache(state, True, clock.at).is_valid(state, None, clock.at)
    assert DecisionCache(state, False, clock.at).of(target(), "GET").blocked is False


@pytest.mark.parametrize(
    "state",
    [
        MaintenanceState(mode=ON, until=NOW + HOUR),
        MaintenanceState(windows={"w": window(NOW - HOUR, NOW + HOUR)}),
        MaintenanceState(windows={"w": window(NOW + HOUR, NOW + 2 * HOUR)}),
    ],
    ids=["an end", "a window's end", "a window's beginning"],
)
def test_verdicts_end_when_a_time_has_come(clock: Clock, state: MaintenanceState) -> None:
    """Not before, and not later."""
    taken = DecisionCache(state, None, clock.at)
    blocked = taken.of(target(), "GET").blocked
    clock.at = NOW + HOUR - TICK
    assert taken.is_valid(state, None, clock.at)
    clock.at = NOW + HOUR
    assert not taken.is_valid(state, None, clock.at)
    assert DecisionCache(state, None, clock.at).of(target(), "GET").blocked is not blocked


def test_a_clock_that_is_put_back_ends_verdicts_as_well(clock: Clock) -> None:
    """Before they began, the state may say something else: here they have no end any more."""
    state = MaintenanceState(mode=ON, until=NOW + HOUR)
    clock.at = NOW + 2 * HOUR
    taken = DecisionCache(state, None, clock.at)
    assert not taken.of(target(), "GET").blocked
    clock.at = NOW + 3000 * HOUR
    assert taken.is_valid(state, None, clock.at)
    clock.at = NOW + 2 * HOUR - TICK
    assert not taken.is_valid(state, None, clock.at)
    clock.at = NOW
    assert DecisionCache(state, None, clock.at).of(target(), "GET").blocked


@pytest.mark.anyio
@pytest.mark.parametrize(
    "state",
    [
        MaintenanceState(mode=READ_ONLY, windows={"w": window(NOW - HOUR, NOW + HOUR)}),
        MaintenanceState(
            windows={"r": window(NOW, NOW + 9 * HOUR, "r", mode="read_only"), "w": window(NOW, NOW + HOUR)}
        ),
        MaintenanceState(mode=READ_ONLY, holds={"h": Hold(kind="on", expires_at=NOW + HOUR)}),
    ],
    ids=["a window", "a window in another", "a hold"],
)
async def test_requests_of_a_clock_that_is_put_back_are_judged_by_it(clock: Clock, state: MaintenanceState) -> None:
    """What was over is on again, and over again."""
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=MemoryBackend(state))
    app.api_route("/", methods=["GET", "POST"])(lambda: None)
    for at, code in ((2 * HOUR, 200), (timedelta(0), 503), (HOUR - TICK, 503), (HOUR, 200), (timedelta(0), 503)):
        clock.at = NOW + at
        assert await status(app) == code
        assert await status(app, method="POST") == 503


# The answers that are kept with them


def blocked(**more: Any) -> CachedDecision:
    return CachedDecision(Decision(True, Rule.MODE, "default", ON, **more))


def asking(accept: str = JSON, method: str = "GET", **more: Any) -> Scope:
    headers: Mapping[str, str] = {"Accept": accept}
    return scope_of("/", method, headers=headers, **more)


def test_an_answer_is_made_once_for_those_who_prefer_the_same(clock: Clock) -> None:
    """However they say so, and wherever they ask."""
    cached = blocked()
    kept = {kind: cached.answer_to(asking(kind), DEFAULT_ANSWER, NOW) for kind in OFFERED}
    assert len({id(response) for response in kept.values()}) == len(OFFERED)
    for kind, response in kept.items():
        assert response is not None
        assert response.media_type == kind
        assert cached.answer_to(asking(f"{kind};q=0.5, image/png"), DEFAULT_ANSWER, NOW) is response
    assert cached.answer_to(asking("*/*"), DEFAULT_ANSWER, NOW) is kept[JSON]


def test_get_and_head_have_answers_of_their_own(clock: Clock) -> None:
    """A HEAD has no body, and a page reloads itself for GET only; all other methods are alike."""
    cached = blocked()
    made = {method: cached.answer_to(asking(HTML, method), DEFAULT_ANSWER, NOW) for method in ("GET", "HEAD", "POST")}
    assert len({id(response) for response in made.values()}) == 3
    assert made["HEAD"] is not None
    assert made["HEAD"].body == b""
    assert made["GET"] is not None
    assert made["GET"].body
    for method in ("PUT", "DELETE", "X-ANY"):
        assert cached.answer_to(asking(HTML, method), DEFAULT_ANSWER, NOW) is made["POST"]


@pytest.mark.parametrize(
    ("cached", "answer"), [(blocked(), Answer(jitter_seconds=1)), (blocked(until=NOW + HOUR), DEFAULT_ANSWER)]
)
def test_what_is_another_answer_each_time_is_not_kept(cached: CachedDecision, answer: Answer) -> None:
    """By chance, or because less time is left."""
    assert cached.answer_to(asking(), answer, NOW) is None
    assert cached._answers == {}


def test_a_handshake_has_no_answer_that_could_be_kept() -> None:
    """It is denied by a response of its own, or closed."""
    assert blocked().answer_to(asking(kind="websocket"), DEFAULT_ANSWER, NOW) is None
