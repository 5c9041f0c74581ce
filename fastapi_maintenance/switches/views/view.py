"""The interface of a view: one switch's state as this process sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from starlette.types import Scope

from ...backends.base import BaseStateBackend
from ...model.change import Change
from ...model.state import Hold, MaintenanceState
from ..transitions import Transitions


class Knowledge(StrEnum):
    """How current a process's copy of a switch is."""

    NOT_READY = "not_ready"
    """No state was read yet."""
    READY = "ready"
    STALE = "stale"
    """The store fails; its last state applies, or ``on_backend_error`` decides."""
    ERROR = "error"
    """The store has not answered since the start; ``initial`` applies."""


@dataclass(frozen=True, slots=True)
class SwitchStatus:
    """How current this process's copy of a switch is."""

    knowledge: Knowledge
    version: int | None = None
    """The version of the store's last state."""
    age_seconds: float | None = None
    """The seconds since the store last answered; ``None`` if it never did."""
    last_error: str | None = None
    """The store's current error, if any."""


class View(ABC):
    """One switch's state as this process sees it."""

    has_leases: ClassVar[bool] = False
    """Whether holds expire unless they are renewed, because they outlive this process."""
    stores_reasons: ClassVar[bool] = True
    """Whether the store can hold more than on and off."""

    def __init__(self, backend: BaseStateBackend) -> None:
        self.backend = backend
        self.in_flight: dict[int, Scope] = {}
        """This process's requests that the switch applies to, by the ``id`` of their scopes."""
        self.has_uncounted_requests = False
        """Whether there are requests whose end is not observed."""
        self._watched: dict[str, Callable[[], None]] = {}
        self.transitions = Transitions(backend)

    def watch(self, id_: str, on_missing: Callable[[], None]) -> None:
        """Call ``on_missing`` when a new state lacks that hold; it must not block or raise."""
        self._watched[id_] = on_missing

    def unwatch(self, id_: str) -> None:
        """Stop watching a hold."""
        self._watched.pop(id_, None)

    def _notify_missing(self, holds: Mapping[str, Hold]) -> None:
        """Call the callbacks of watched holds that are missing."""
        for id_, on_missing in tuple(self._watched.items()):
            if id_ not in holds:
                on_missing()

    @abstractmethod
    def peek(self) -> MaintenanceState | None:
        """Return the state without I/O, or ``None`` if it takes ``read`` to get it."""

    @abstractmethod
    def latest(self) -> MaintenanceState:
        """Return the last state that was read, without I/O."""

    async def read(self) -> MaintenanceState:
        """Return the state; if the store fails, the last one that was read."""
        return self.latest()

    def read_blocking(self) -> MaintenanceState:
        """Return the state like ``read``, for code outside an event loop."""
        return self.latest()

    @abstractmethod
    async def apply(self, change: Change) -> MaintenanceState:
        """Apply one change and return the new state.

        Raises:
            ReadOnlyBackend: The stored mode can't be set from here.
            UnsupportedByBackend: The store can't hold the change.
            ChangeRejected: The store refused the change.
            BackendUnavailable: The store did not answer, and nothing was changed.
            OutcomeUnknown: The store did not answer, and something may have been changed.
        """

    @abstractmethod
    def status(self) -> SwitchStatus:
        """Return how current this process's copy is."""

    def start(self, user: object) -> None:  # noqa: B027 - most views have nothing to start
        """Follow the store until ``user`` leaves or is garbage-collected, if this view follows a store."""

    def leave(self, user: object) -> None:  # noqa: B027 - most views have nothing to stop
        """Stop following the store for ``user``; without other users, stop altogether."""
