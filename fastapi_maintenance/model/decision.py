"""The facts about a request, and the decision about it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from .modes import MaintenanceMode


class Mark(StrEnum):
    """The mark that ``@force_maintenance_mode_on/off`` put on an endpoint."""

    ON = "on"
    OFF = "off"


class Rule(StrEnum):
    """The rule that decided; the rules are in order of precedence."""

    NOTHING_RUNS = "nothing_runs"
    FORCED_ON = "forced_on"
    FORCED_OFF = "forced_off"
    EXEMPT = "exempt"
    MODE = "mode"


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts about one request."""

    runs: bool
    """Whether application code would run: false for 404, 405 and slash redirects."""
    mark: Mark | None
    """The innermost mark on the way to the code that would run."""
    method: str | None
    """The HTTP method; ``None`` for a websocket handshake."""
    exemption: str | None = None
    """Why the request is exempt, if it is."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Pass or block, and why."""

    blocked: bool
    rule: Rule
    switch: str
    mode: MaintenanceMode
    """The effective mode."""
    reason: str | None = None
    """The operator's reason for the maintenance."""
    until: datetime | None = None
    """When the maintenance is known to end."""
    exemption: str | None = None
    retry_after: int | None = None
    """``Retry-After`` of the answer, in seconds; always set for a ``response_handler``."""
    stated_retry_after: int | None = None
    """The operator's ``retry_after`` in seconds; it applies while the end is unknown."""
