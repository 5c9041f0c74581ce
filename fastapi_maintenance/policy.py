"""The decision: facts about a request, and the rules that answer it.

Everything here is a pure function of its arguments; middleware and guard ask the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from .state import MaintenanceMode, MaintenanceState

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods that only read (RFC 9110, section 9.2.1)."""


class Mark(StrEnum):
    """What ``@force_maintenance_mode_on/off`` put on an endpoint."""

    ON = "on"
    OFF = "off"


class Rule(StrEnum):
    """The rule that decided, in the order in which they are asked."""

    NOTHING_RUNS = "nothing_runs"
    FORCED_ON = "forced_on"
    FORCED_OFF = "forced_off"
    EXEMPT = "exempt"
    MODE = "mode"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one request."""

    runs: bool
    """Whether application code would run: not for 404, 405 and slash redirects."""
    mark: Mark | None
    """The innermost mark on the way to what would run."""
    method: str | None
    """The HTTP method, ``None`` for a websocket handshake."""
    exemption: str | None = None
    """Why the request is exempt, if it is."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Pass or block, and why."""

    blocked: bool
    rule: Rule
    switch: str
    mode: MaintenanceMode
    """The mode that counted."""
    reason: str | None = None
    """What the operator said about the maintenance."""
    until: datetime | None = None
    """When the maintenance is known to end."""
    exemption: str | None = None
    retry_after: int | None = None
    """After how many seconds the client is told to come back; a ``response_handler`` always sees it."""
    stated_retry_after: int | None = None
    """What the operator said of that; it counts while the end isn't known."""


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
