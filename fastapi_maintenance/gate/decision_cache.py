"""The decisions that go for many requests, and the answers that were made for them."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from ..answers.answer import Answer, preferred_by
from ..model.decision import SAFE_METHODS, Decision, Facts, Mark, Rule
from ..model.modes import MaintenanceMode
from ..model.policy import decide
from ..model.state import MaintenanceState
from ..routing.walk import Target
from ..switches.app_switch import DEFAULT
from .exemptions import PREFLIGHT

# Looking a member of an enum up takes its time in Python 3.11.
_FORCED_ON, _FORCED_OFF = Mark.ON, Mark.OFF


class Verdict:
    """A decision that goes for many requests, with the answers that were made for it."""

    __slots__ = ("_answers", "blocked", "blocked_by_mode", "decision", "is_counted", "is_preflight")

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self.blocked = decision.blocked
        self.blocked_by_mode = decision.blocked and decision.rule is Rule.MODE
        self.is_counted = decision.blocked or decision.exemption is not None
        self.is_preflight = decision.exemption == PREFLIGHT
        self._answers: dict[tuple[str, str], Response] = {}

    def answer_to(self, scope: Scope, answer: Answer) -> Response | None:
        """Return the default answer, which must not be changed, or ``None`` if that is another one each time."""
        if answer.varies(self.decision) or scope["type"] != "http":
            return None
        method = scope["method"]
        key = preferred_by(scope), method if method in ("GET", "HEAD") else ""
        response = self._answers.get(key)
        if response is None:
            now = datetime.now(UTC)
            response = self._answers[key] = answer.response(answer.told(self.decision, now), Request(scope), now)
        return response


class Verdicts:
    """The decisions by one state, until time changes what it says: a few, that are taken again and again."""

    def __init__(self, state: MaintenanceState, instead: bool | None) -> None:
        now = datetime.now(UTC)
        end = state.same_until(now)
        self.state = state
        self.instead = instead
        self._begin = now.timestamp()
        """Before that, by a clock that was put back, the state may say something else."""
        self._end = math.inf if end is None else end.timestamp()
        self._taken: dict[tuple[bool, bool, bool, bool, str | None], Verdict] = {}

    def are_still(self, state: MaintenanceState, instead: bool | None) -> bool:
        """Return whether they go for requests of now."""
        return state is self.state and instead is self.instead and self._begin <= time.time() < self._end

    def of(self, target: Target, method: str | None, exemption: str | None = None) -> Verdict:
        """Return the decision about a request."""
        # All safe methods are alike, and there is no end of the others.
        mark = target.mark
        key = target.runs, mark is _FORCED_ON, mark is _FORCED_OFF, method in SAFE_METHODS, exemption
        verdict = self._taken.get(key)
        if verdict is None:
            facts = Facts(target.runs, mark, method, exemption)
            verdict = self._taken[key] = Verdict(decide(facts, self.state, datetime.now(UTC), instead=self.instead))
        return verdict


PASSED_AT_ONCE = Verdict(Decision(False, Rule.MODE, DEFAULT, MaintenanceMode.OFF))
"""That of requests which pass whatever they are."""
