"""What a view of a switch is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from starlette.types import Scope

from ..backends.base import BaseStateBackend
from ..model.change import Change
from ..model.state import Hold, MaintenanceState
from .transitions import Transitions


class Knowledge(StrEnum):
    """How well a process knows a switch."""

    NOT_READY = "not_ready"
    """Nothing was read yet."""
    READY = "ready"
    STALE = "stale"
    """The store fails; what it last said counts, or what ``on_backend_error`` says."""
    ERROR = "error"
    """The store never answered since the start; ``initial`` counts."""


@dataclass(frozen=True, slots=True)
class SwitchStatus:
    """How well this process knows a switch."""

    knowledge: Knowledge
    version: int | None = None
    """The version of the last state that the store had."""
    age_seconds: float | None = None
    """How long ago the store last answered; ``None`` if it never did."""
    last_error: str | None = None
    """Why the store fails, if it does."""


class View(ABC):
    """The state of one switch, as this process sees it."""

    has_leases: ClassVar[bool] = False
    """Whether holds expire unless they are renewed: where they outlive this process."""
    stores_reasons: ClassVar[bool] = True
    """Whether the store has room for more than on and off."""

    def __init__(self, backend: BaseStateBackend) -> None:
        self.backend = backend
        self.in_flight: dict[int, Scope] = {}
        """The requests of this process that the switch governs, by the ``id`` of their scopes."""
        self.has_uncounted_requests = False
        """Whether there are some of which nobody sees the end."""
        self._watched: dict[str, Callable[[], None]] = {}
        self.transitions = Transitions(backend)
        """What is told of the modes that count in this process."""

    def watch(self, id_: str, missing: Callable[[], None]) -> None:
        """Have ``missing`` called when a state comes in without that hold; it must not block nor raise."""
        self._watched[id_] = missing

    def unwatch(self, id_: str) -> None:
        """Watch a hold no longer."""
        self._watched.pop(id_, None)

    def _notice(self, holds: Mapping[str, Hold]) -> None:
        """Tell those whose holds are missing."""
        for id_, missing in tuple(self._watched.items()):
            if id_ not in holds:
                missing()

    @abstractmethod
    def peek(self) -> MaintenanceState | None:
        """Return the state without I/O, or ``None`` where only ``read`` can tell."""

    @abstractmethod
    def latest(self) -> MaintenanceState:
        """Return the state without I/O, as it was when it was last read."""

    @abstractmethod
    async def read(self) -> MaintenanceState:
        """Return the state; a store that fails leaves the last known one."""

    @abstractmethod
    def read_blocking(self) -> MaintenanceState:
        """Return what ``read`` does, for code that is not on an event loop."""

    @abstractmethod
    async def apply(self, change: Change) -> MaintenanceState:
        """Carry out one change and return the state after it.

        Raises:
            ReadOnlyBackend: The stored mode can't be set from here.
            UnsupportedByBackend: The store has no room for what was asked.
            ChangeRejected: The store refused it.
            BackendUnavailable: The store did not answer, and nothing was changed.
            OutcomeUnknown: The store did not answer, and something may have been changed.
        """

    @abstractmethod
    def status(self) -> SwitchStatus:
        """Return how well the switch is known."""

    def start(self, user: object) -> None:  # noqa: B027 - most views have nothing to start
        """Follow the store until ``user`` leaves or is gone, if that is what the view does."""

    def leave(self, user: object) -> None:  # noqa: B027 - most views have nothing to stop
        """Follow the store no longer for ``user``; without any other user, not at all."""
