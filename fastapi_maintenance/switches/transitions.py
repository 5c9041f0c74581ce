"""Detects changes of the effective mode: by a new state, or because time has passed."""

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
"""The maximum seconds between two looks at the clock, since the clock may be set meanwhile."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of the effective mode in this process."""

    before: MaintenanceMode
    after: MaintenanceMode
    at: datetime
    """When this process noticed the change."""
    reason: str | None
    """The reason for the maintenance that began, if one began."""
    until: datetime | None
    """When that maintenance ends, if known."""
    by: str | None
    """The author of the change, if known; ``None`` if time alone changed the mode."""
    state: MaintenanceState
    switch: str = "default"


class Transitions:
    """Logs the transitions of one switch in order and calls the subscribers, on the I/O thread."""

    def __init__(self, where: object) -> None:
        self._where = where
        self._subscribers: list[Callable[[Transition], None]] = []
        self._mode: MaintenanceMode | None = None
        self._state: MaintenanceState | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._peek: Callable[[], MaintenanceState | None] | None = None
        self._epoch = object()
        """Replaced by each ``forget``, so that earlier states are ignored."""

    @property
    def has_subscribers(self) -> bool:
        """Whether there are subscribers."""
        return bool(self._subscribers)

    def subscribe(self, callback: Callable[[Transition], None], peek: Callable[[], MaintenanceState | None]) -> None:
        """Call ``callback`` with each transition from now on; it must not block or raise.

        ``peek`` returns the state without I/O, for states that change without ``observe``.
        """
        self._subscribers.append(callback)
        self._peek = peek
        state = peek()
        if state is not None:  # now, so that any later change is a transition
            self.observe(state)

    def unsubscribe(self, callback: Callable[[Transition], None]) -> None:
        """Stop calling ``callback``."""
        if callback in self._subscribers:
            self._subscribers.remove(callback)

    def observe(self, state: MaintenanceState) -> None:
        """Take over a new state; may be called from any thread."""
        epoch = self._epoch
        io_thread.call_soon(lambda: self._evaluate(state) if epoch is self._epoch else None)

    def forget(self) -> None:
        """Return to the initial state, as in a forked child: the next state is not a transition."""
        if self._timer is not None:
            self._timer.cancel()
        self._mode = self._state = self._timer = None
        self._epoch = object()
        if self._subscribers:
            io_thread.call_soon(self._evaluate_again)

    def _evaluate_again(self) -> None:
        state = None if self._peek is None else self._peek()
        state = state or self._state
        if state is not None:
            self._evaluate(state)

    def _evaluate(self, state: MaintenanceState) -> None:
        """Publish a transition if the mode has changed, and schedule the next evaluation."""
        now = datetime.now(UTC)
        mode, before = state.mode_at(now), self._mode
        is_new = state is not self._state
        self._mode, self._state = mode, state
        if before is not None and mode is not before:
            reason, until, _ = state.explanation_at(now) if mode is not MaintenanceMode.OFF else (None, None, None)
            self._publish(Transition(before, mode, now, reason, until, state.updated_by if is_new else None, state))
        if self._timer is not None:
            self._timer.cancel()
        due = state.same_until(now)
        seconds = None if due is None else min(max((due - now).total_seconds(), 0.0), _LONGEST_SLEEP)
        if self._subscribers and self._is_polled():
            seconds = min(seconds or 1.0, 1.0)
        self._timer = None if seconds is None else io_thread.call_later(seconds, self._evaluate_again)

    def _is_polled(self) -> bool:
        """Return whether the state can change unnoticed, as an environment variable can."""
        state = None if self._peek is None else self._peek()
        return state is not None and state.version == 0

    def _publish(self, transition: Transition) -> None:
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
        for callback in tuple(self._subscribers):
            callback(transition)
