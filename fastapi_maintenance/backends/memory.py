"""The backend in this process's memory: for one worker, and for tests."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

from ..concurrency import io_thread
from ..model.change import Change, to_document
from ..model.modes import MaintenanceMode, as_mode
from ..model.state import MaintenanceState
from .base import StateBackend

_changing = threading.Lock()
"""Held while a backend changes. All backends share it, so that a forked child can replace it."""


class MemoryBackend(StateBackend):
    """Maintenance in this process's memory: other workers don't see it.

    Args:
        initial: The mode or the whole state at the start.
    """

    def __init__(self, initial: bool | MaintenanceMode | MaintenanceState = False) -> None:
        self._state = initial if isinstance(initial, MaintenanceState) else MaintenanceState(mode=as_mode(initial))

    def __repr__(self) -> str:
        return f"<MemoryBackend {self._state.mode} at {id(self):#x}>"

    def __str__(self) -> str:
        return "memory://"

    async def get_value(self) -> bool:
        """Return whether anything is blocked now."""
        return self._state.mode_at(datetime.now(UTC)) is not MaintenanceMode.OFF

    def peek(self) -> MaintenanceState:
        """Return the state without the holds that have expired."""
        state = self._state
        return state.without_expired_holds(datetime.now(UTC)) if state.holds else state

    async def apply(self, change: Change) -> MaintenanceState:
        """Apply one change and return the state after it."""
        with _changing:
            now = datetime.now(UTC)
            state = change.applied_to(self._state, now)
            state.prepare(now, self._state)
            to_document(state, self._state)  # refuses a state that would be too large for other stores
            self._state = state
            return state

    def sibling(self, name: str) -> MemoryBackend:
        """Return a backend with a state of its own."""
        return MemoryBackend()


@io_thread.call_after_fork
def _reset_after_fork() -> None:
    global _changing  # noqa: PLW0603 - the thread that held it exists only in the parent
    _changing = threading.Lock()
