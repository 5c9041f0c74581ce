"""The decision whether a request may pass, by rules in order of precedence.

Pure functions; middleware and guard call the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from .decision import Decision, Facts, Mark, Rule
from .modes import MaintenanceMode
from .state import MaintenanceState

Opinion = tuple[bool, Rule]
"""Whether to block, and the rule that says so."""


def _nothing_runs(facts: Facts, _: MaintenanceMode) -> Opinion | None:
    return None if facts.runs else (False, Rule.NOTHING_RUNS)


def _forced(facts: Facts, _: MaintenanceMode) -> Opinion | None:
    if facts.mark is None:
        return None
    return (True, Rule.FORCED_ON) if facts.mark is Mark.ON else (False, Rule.FORCED_OFF)


def _exempt(facts: Facts, _: MaintenanceMode) -> Opinion | None:
    return None if facts.exemption is None else (False, Rule.EXEMPT)


def _mode(facts: Facts, mode: MaintenanceMode) -> Opinion | None:
    return mode.blocks(facts), Rule.MODE


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
    override: bool | None = None,
) -> Decision:
    """Return whether one request may pass: the first rule with an opinion wins.

    ``override`` is the app's ``enable_maintenance``: it overrides the stored mode, and holds override it.
    """
    mode = state.mode_at(now, override=override)
    blocked, rule = next(opinion for rule in PRECEDENCE if (opinion := rule(facts, mode)) is not None)
    if not blocked:
        return Decision(False, rule, switch, mode, exemption=facts.exemption)
    if rule is Rule.FORCED_ON:  # independent of the switch, so its reason and end do not apply
        return Decision(True, rule, switch, mode)
    reason, until, retry_after = state.explanation_at(now, override=override)
    return Decision(True, rule, switch, mode, reason, until, stated_retry_after=retry_after)
