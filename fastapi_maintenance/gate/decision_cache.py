"""Caches decisions, and their answers, for requests that are alike."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from ..answers.answer import Answer, preferred_type_of
from ..model.decision import Decision, Facts, Mark, Rule
from ..model.modes import SAFE_METHODS, MaintenanceMode
from ..model.policy import decide
from ..model.state import MaintenanceState
from ..routing.walk import Target
from ..switches.app_switch import DEFAULT
from .exemptions import PREFLIGHT

# Access to an enum's member is slow in Python 3.11.
_FORCED_ON, _FORCED_OFF = Mark.ON, Mark.OFF
_NEVER = datetime.max.replace(tzinfo=UTC)


class CachedDecision:
    """A decision that applies to many requests, with its answers."""

    __slots__ = ("_answers", "blocked", "blocked_by_mode", "decision", "is_counted", "is_preflight")

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self.blocked = decision.blocked
        self.blocked_by_mode = decision.blocked and decision.rule is Rule.MODE
        self.is_counted = decision.blocked or decision.exemption is not None
        self.is_preflight = decision.exemption == PREFLIGHT
        self._answers: dict[tuple[str, str], Response] = {}

    def answer_to(self, scope: Scope, answer: Answer, now: datetime) -> Response | None:
        """Return the shared default answer, ``None`` for a websocket, or if it differs each time."""
        if answer.varies(self.decision) or scope["type"] != "http":
            return None
        method = scope["method"]
        key = preferred_type_of(scope), method if method in ("GET", "HEAD") else ""
        response = self._answers.get(key)
        if response is None:
            decision = answer.with_retry_after(self.decision, now)
            response = self._answers[key] = answer.response(decision, Request(scope), now)
        return response


class DecisionCache:
    """Caches the decisions for one state until its meaning changes with time."""

    def __init__(self, state: MaintenanceState, override: bool | None, now: datetime) -> None:
        self.state = state
        self.override = override
        self.is_off = state.mode_at(now, override=override) is MaintenanceMode.OFF
        self._begin = now
        """Before this time the state may mean something else; a clock can be set back."""
        self._end = state.same_until(now) or _NEVER
        self._decisions: dict[tuple[bool, bool, bool, bool, str | None], CachedDecision] = {}

    def is_valid(self, state: MaintenanceState, override: bool | None, now: datetime) -> bool:
        """Return whether the cache is still valid."""
        return state is self.state and override is self.override and self._begin <= now < self._end

    def of(self, target: Target, method: str | None, exemption: str | None = None) -> CachedDecision:
        """Return the decision about a request."""
        # Only the safety of the method matters, and clients can make up methods without end.
        mark = target.mark
        key = target.runs, mark is _FORCED_ON, mark is _FORCED_OFF, method in SAFE_METHODS, exemption
        cached = self._decisions.get(key)
        if cached is None:
            facts = Facts(target.runs, mark, method, exemption)
            decision = decide(facts, self.state, self._begin, override=self.override)
            cached = self._decisions[key] = CachedDecision(decision)
        return cached


PASSED_AT_ONCE = CachedDecision(Decision(False, Rule.MODE, DEFAULT, MaintenanceMode.OFF))
"""The decision for any request while the switch is off and nothing is forced on."""
