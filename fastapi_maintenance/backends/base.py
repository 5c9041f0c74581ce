"""What a state backend is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from ..state import Change, MaintenanceState


class BaseStateBackend(ABC):
    """Where the state of one switch is kept.

    A backend of your own needs ``get_value`` and ``set_value`` only. Both are awaited in the event loop of whoever
    asks, so it may share the app's clients. What either raises is contained: a request never sees it, and the last
    known state stays.
    """

    read_only: ClassVar[bool] = False
    """Whether the state can only be read from here."""

    @abstractmethod
    async def get_value(self) -> bool:
        """Return whether maintenance is on."""

    @abstractmethod
    async def set_value(self, value: bool) -> None:
        """Store whether maintenance is on.

        Raises:
            ReadOnlyBackend: The store can't be written from here.
        """

    def peek(self) -> MaintenanceState | None:
        """Return the stored state without any I/O, or ``None`` where it takes I/O to know it.

        Called for every request.
        """
        return None

    def sibling(self, name: str) -> BaseStateBackend | None:
        """Return the backend of the switch ``name`` in the same store, or ``None`` if the store has room for one."""
        return None


class StateBackend(BaseStateBackend):
    """A backend that keeps the whole state: modes, reasons, holds."""

    @abstractmethod
    def peek(self) -> MaintenanceState:
        """Return the state without any I/O."""

    @abstractmethod
    async def apply(self, change: Change) -> MaintenanceState:
        """Carry out one change at the store, as a whole or not at all, and return the state after it."""
