"""Notices when another mode counts than before: by a new state, or because a time has come."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from ..concurrency import io_thread
from ..model.modes import MaintenanceMode
from ..model.state import MaintenanceState
from ..model.text import in_one_line

logger = logging.getLogger("fastapi_maintenance")

_LONGEST_SLEEP = 30.0
"""Seconds until the clock is looked at again, where a time matters: it may have been set meanwhile."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of the mode that counts in this process."""

    before: MaintenanceMode
    after: MaintenanceMode
    at: datetime
    """When this process saw it."""
    reason: str | None
    """What clients are told of the maintenance that began, if one did."""
    until: datetime | None
    """When that is known to end."""
    by: str | None
    """Who changed the state last, if that is known; nobody is it where a time has come."""
    state: MaintenanceState
    switch: str = "default"


class Transitions:
    """The transitions of one switch, in order: logged, and told to those who want to know.

    Everything happens on the background thread.
    """

    def __init__(self, where: object) -> None:
        self._where = where
        self._subscribers: list[Callable[[Transition], None]] = []
        self._mode: MaintenanceMode | None = None
        self._state: MaintenanceState | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._next_look: Callable[[], MaintenanceState | None] | None = None
        self._beginning = object()
        """Another one each time that this begins anew: a state from before says nothing then."""

    @property
    def are_wanted(self) -> bool:
        """Whether anybody wants to know."""
        return bool(self._subscribers)

    def subscribe(self, tell: Callable[[Transition], None], look: Callable[[], MaintenanceState | None]) -> None:
        """Have ``tell`` called with each transition from now on; it must not block nor raise.

        ``look`` tells the state without I/O, where that can change without ``heard``.
        """
        self._subscribers.append(tell)
        self._next_look = look
        state = look()
        if state is not None:  # now, and not when the thread comes to it: what happens in between is a transition
            self.heard(state)

    def unsubscribe(self, tell: Callable[[Transition], None]) -> None:
        """Call ``tell`` no longer."""
        if tell in self._subscribers:
            self._subscribers.remove(tell)

    def heard(self, state: MaintenanceState) -> None:
        """Take note of a new state; from any thread."""
        beginning = self._beginning
        io_thread.call_soon(lambda: self._look(state) if beginning is self._beginning else None)

    def forget(self) -> None:
        """Begin anew, as a forked child does: the first state is no transition."""
        if self._timer is not None:
            self._timer.cancel()
        self._mode = self._state = self._timer = None
        self._beginning = object()
        if self._subscribers:
            io_thread.call_soon(self._look_again)

    def _look_again(self) -> None:
        state = None if self._next_look is None else self._next_look()
        state = state or self._state
        if state is not None:
            self._look(state)

    def _look(self, state: MaintenanceState) -> None:
        """Tell a transition if there is one now, and come back when the next may be due."""
        now = datetime.now(UTC)
        mode, before = state.mode_at(now), self._mode
        is_new = state is not self._state
        self._mode, self._state = mode, state
        if before is not None and mode is not before:
            reason, until, _ = state.explanation_at(now) if mode is not MaintenanceMode.OFF else (None, None, None)
            self._tell(Transition(before, mode, now, reason, until, state.updated_by if is_new else None, state))
        if self._timer is not None:
            self._timer.cancel()
        due = state.same_until(now)
        seconds = None if due is None else min(max((due - now).total_seconds(), 0.0), _LONGEST_SLEEP)
        if self._subscribers and self._is_polled():
            seconds = min(seconds or 1.0, 1.0)
        self._timer = None if seconds is None else io_thread.call_later(seconds, self._look_again)

    def _is_polled(self) -> bool:
        """Return whether the state can change without anybody telling, as an environment variable does."""
        state = None if self._next_look is None else self._next_look()
        return state is not None and state.version == 0

    def _tell(self, transition: Transition) -> None:
        logger.info(
            "%r: maintenance went from %s to %s%s",
            self._where,
            transition.before,
            transition.after,
            f": {in_one_line(transition.reason)}" if transition.reason else "",
            extra={
                "maintenance_before": transition.before.value,
                "maintenance_after": transition.after.value,
                "maintenance_reason": transition.reason,
                "maintenance_until": None if transition.until is None else transition.until.isoformat(),
                "maintenance_by": transition.by,
                "maintenance_version": transition.state.version,
            },
        )
        for tell in tuple(self._subscribers):
            tell(transition)
