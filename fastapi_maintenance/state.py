"""The state of one switch, and how a change makes the next state of it.

Everything here is a pure function of its arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from .exceptions import InvalidConfiguration


class MaintenanceMode(StrEnum):
    """What a switch does to requests."""

    OFF = "off"
    ON = "on"
    READ_ONLY = "read_only"
    """The safe methods of RFC 9110 pass, the others are answered with 503."""


class Hold(BaseModel):
    """A temporary override by running code: for as long as it lives, the switch is held on or off."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["on", "off"]
    reason: str | None = None
    masks: frozenset[str] = frozenset()
    """Ids of the on-holds that an off-hold opens: those that enclose it in its own execution context."""


class MaintenanceState(BaseModel):
    """What is known of one switch: immutable, a change makes a new one with the next ``version``.

    ``mode`` is the stored mode, what an operator set; ``mode_at(now)`` is what counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 0
    mode: MaintenanceMode = MaintenanceMode.OFF
    reason: str | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    holds: Mapping[str, Hold] = Field(default_factory=dict)

    def mode_at(self, now: datetime, *, instead: bool | None = None) -> MaintenanceMode:
        """Return the mode that counts at ``now``.

        An on-hold that no off-hold masks wins; then any off-hold opens; then the stored mode until its end.
        ``instead`` (an app's ``enable_maintenance``) stands in for the stored mode.
        """
        if self.holds:
            # Where no on-hold closes, there is an off-hold: alone, or masking the others.
            return MaintenanceMode.ON if self._closing_holds() else MaintenanceMode.OFF
        if instead is not None:
            return MaintenanceMode.ON if instead else MaintenanceMode.OFF
        if self.until is not None and now >= self.until:
            return MaintenanceMode.OFF
        return self.mode

    def explanation_at(self, now: datetime, *, instead: bool | None = None) -> tuple[str | None, datetime | None]:
        """Return the reason to tell clients at ``now``, and when the maintenance is known to end.

        Both belong to what closes: while code holds the switch on, or ``instead`` closes, the end is not known.
        """
        for hold in self._closing_holds():
            return hold.reason or self.reason, None
        if instead is not None or (self.until is not None and now >= self.until):
            return None, None
        return self.reason, self.until

    def _closing_holds(self) -> list[Hold]:
        """Return the on-holds that no off-hold masks."""
        masked = frozenset().union(*(hold.masks for hold in self.holds.values() if hold.kind == "off"))
        return [hold for id_, hold in self.holds.items() if hold.kind == "on" and id_ not in masked]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a write does to the state: plain fields to set, holds to put and to drop."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    put_holds: Mapping[str, Hold] = field(default_factory=dict)
    drop_holds: frozenset[str] = frozenset()

    def applied_to(self, state: MaintenanceState) -> MaintenanceState:
        """Return the state that follows ``state``."""
        holds = {id_: hold for id_, hold in state.holds.items() if id_ not in self.drop_holds}
        return state.model_copy(
            update={**self.fields, "holds": {**holds, **self.put_holds}, "version": state.version + 1}
        )


def set_mode(
    mode: MaintenanceMode, *, now: datetime, reason: str | None = None, until: datetime | None = None
) -> Change:
    """Return the change that stores ``mode``; reason and end belong to it and replace the former ones."""
    since = None if mode is MaintenanceMode.OFF else now
    return Change(fields={"mode": mode, "reason": reason, "since": since, "until": until})


def as_mode(value: bool | str) -> MaintenanceMode:
    """Return the mode that a caller means by a bool, a mode or a mode's name.

    Raises:
        InvalidConfiguration: It is none of these.
    """
    if isinstance(value, bool):
        return MaintenanceMode.ON if value else MaintenanceMode.OFF
    try:
        return MaintenanceMode(value)
    except ValueError:
        modes = ", ".join(repr(mode.value) for mode in MaintenanceMode)
        raise InvalidConfiguration(f"maintenance mode {value!r}: accepted are True, False, {modes}") from None


_BOOL = TypeAdapter(bool)


def parse_mode(text: str) -> MaintenanceMode:
    """Return the mode that a human or a variable wrote: a boolean as pydantic reads it, or ``read_only``.

    Raises:
        ValueError: Naming what is accepted.
    """
    word = text.strip().lower().replace("-", "_")
    if word == MaintenanceMode.READ_ONLY:
        return MaintenanceMode.READ_ONLY
    try:
        return MaintenanceMode.ON if _BOOL.validate_python(word) else MaintenanceMode.OFF
    except ValidationError:
        msg = f"{text!r} is no maintenance mode: accepted are 1/on/true/yes, 0/off/false/no, and read_only"
        raise ValueError(msg) from None
