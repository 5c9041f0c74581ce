"""The maintenance modes: their order, names and texts, and the requests that each blocks.

Nothing else compares or ranks modes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import TypeAdapter, ValidationError

from ..exceptions import InvalidConfiguration

if TYPE_CHECKING:
    from .decision import Facts

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""RFC 9110, section 9.2.1."""

ModeName = Literal["off", "read_only", "on"]
PlannedModeName = Literal["read_only", "on"]
"""The mode of a window."""


class MaintenanceMode(StrEnum):
    """The effect of a switch on requests; the later one of two is the stronger one."""

    OFF = "off"
    READ_ONLY = "read_only"
    """The safe methods of RFC 9110 pass; all others are answered with 503."""
    ON = "on"

    strength: int
    """0 for "off"; a mode that blocks more has a higher number."""

    @property
    def label(self) -> str:
        """The mode in capitals, for operators."""
        return self.value.upper().replace("_", "-")

    @property
    def texts(self) -> PartialTexts | None:
        """The texts for refused clients, for a mode that blocks a part of the requests only."""
        return _TEXTS.get(self)

    def blocks(self, facts: Facts) -> bool:
        """Return whether a request is blocked. A websocket handshake has no method, and is not safe."""
        return _BLOCKS[self](facts)


class PartialTexts(NamedTuple):
    """The texts for refused clients while other requests pass."""

    title: str
    detail: str
    note: str
    """Which requests pass."""
    banner: str
    """For the docs page."""


for strength, mode in enumerate(MaintenanceMode):
    mode.strength = strength  # an attribute: a property with a dictionary takes four times as long

_BLOCKS: dict[MaintenanceMode, Callable[[Facts], bool]] = {
    MaintenanceMode.OFF: lambda facts: False,
    MaintenanceMode.READ_ONLY: lambda facts: facts.method not in SAFE_METHODS,
    MaintenanceMode.ON: lambda facts: True,
}
_TEXTS = {
    MaintenanceMode.READ_ONLY: PartialTexts(
        title="Read-only for now",
        detail="Service temporarily read-only due to maintenance",
        note="Reading works, changing does not.",
        banner="Read-only for maintenance",
    )
}


def strongest(modes: Iterable[MaintenanceMode]) -> MaintenanceMode:
    """Return the mode that blocks most; "off" if there is none."""
    return max(modes, key=lambda mode: mode.strength, default=MaintenanceMode.OFF)


def as_mode(value: bool | str) -> MaintenanceMode:
    """Return the mode for a bool, a mode or a mode's name.

    Raises:
        InvalidConfiguration: The value is none of these.
    """
    if isinstance(value, bool):
        return MaintenanceMode.ON if value else MaintenanceMode.OFF
    try:
        return MaintenanceMode(value)
    except ValueError:
        modes = ", ".join(repr(mode.value) for mode in MaintenanceMode)
        raise InvalidConfiguration(f"maintenance mode must be True, False or one of {modes}, got {value!r}") from None


_BOOL = TypeAdapter(bool)
PARTIAL = [mode.value for mode in _TEXTS]
"""The modes under which a part of the requests passes."""
ACCEPTED_WORDS = f"1/on/true/yes, 0/off/false/no or {', '.join(PARTIAL)}"


def parse_mode(text: str) -> MaintenanceMode:
    """Return the mode for a text: a boolean as pydantic reads it, or a mode such as ``read_only``.

    Raises:
        ValueError: The text is neither; the message lists the accepted values.
    """
    word = text.strip().lower().replace("-", "_")
    if word in PARTIAL:
        return MaintenanceMode(word)
    try:
        return MaintenanceMode.ON if _BOOL.validate_python(word) else MaintenanceMode.OFF
    except ValidationError:
        msg = f"maintenance mode must be {ACCEPTED_WORDS}, got {text!r}"
        raise ValueError(msg) from None
