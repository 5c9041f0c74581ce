"""The facts about a request, and the decision about it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from .modes import MaintenanceMode

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
