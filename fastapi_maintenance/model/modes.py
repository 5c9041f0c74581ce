"""The modes: how strong each is, what it is called, and how it is written."""

from __future__ import annotations

from enum import StrEnum

from pydantic import TypeAdapter, ValidationError

from ..exceptions import InvalidConfiguration


class MaintenanceMode(StrEnum):
    """What a switch does to requests."""

    OFF = "off"
    ON = "on"
    READ_ONLY = "read_only"
    """The safe methods of RFC 9110 pass, the others are answered with 503."""


STRENGTH = {MaintenanceMode.OFF: 0, MaintenanceMode.READ_ONLY: 1, MaintenanceMode.ON: 2}
RANKED = (MaintenanceMode.OFF, MaintenanceMode.READ_ONLY, MaintenanceMode.ON)
"""The modes by their rank in a timetable."""


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
