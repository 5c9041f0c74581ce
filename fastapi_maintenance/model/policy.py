"""The decision: facts about a request, and the rules that answer it.

Everything here is a pure function of its arguments; middleware and guard ask the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from .decision import SAFE_METHODS, Decision, Facts, Mark, Rule
from .modes import MaintenanceMode
from .state import MaintenanceState

Opinion = tuple[bool, Rule]
"""Whether to block, and by which rule."""


def _nothing_runs(facts: Facts, _: MaintenanceMode) -> Opinion | None:
    return None if facts.runs else (False, Rule.NOTHING_RUNS)


def _forced(facts: Facts, _: MaintenanceMode) -> Opinion | None:
    if facts.mark is None:
        return None
    return (True, Rule.FORCED_ON) if facts.mark is Mark.ON else (False, Rule.FORCED_OFF)


def _exempt(facts: Facts, _: MaintenanceMode) -> Opinion | None:
    return None if facts.exemption is None else (False, Rule.EXEMPT)


def _mode(facts: Facts, mode: MaintenanceMode) -> Opinion | None:
    # A websocket handshake opens a channel in both directions: no method, not safe.
    blocked = mode is MaintenanceMode.ON or (mode is MaintenanceMode.READ_ONLY and facts.method not in SAFE_METHODS)
    return blocked, Rule.MODE


PRECEDENCE: tuple[Callable[[Facts, MaintenanceMode], Opinion | None], ...] = (
    _nothing_runs,
    _forced,
    _exempt,
    _mode,
)


def decide(
    facts: Facts,
    state: MaintenanceState,
    now: datetime,
    *,
    switch: str = "default",
    instead: bool | None = None,
) -> Decision:
    """Say whether one request may pass: the first rule with an opinion wins.

    ``instead`` is the app's ``enable_maintenance``: it stands above the stored mode and below the holds.
    """
    mode = state.mode_at(now, instead=instead)
    blocked, rule = next(opinion for rule in PRECEDENCE if (opinion := rule(facts, mode)) is not None)
    if not blocked:
        return Decision(False, rule, switch, mode, exemption=facts.exemption)
    if rule is Rule.FORCED_ON:  # whatever the switch says, so its reason and end are not the endpoint's
        return Decision(True, rule, switch, mode)
    reason, until, retry_after = state.explanation_at(now, instead=instead)
    return Decision(True, rule, switch, mode, reason, until, stated_retry_after=retry_after)
