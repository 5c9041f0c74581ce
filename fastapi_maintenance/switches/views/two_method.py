"""The view of a backend that stores only on or off."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from datetime import UTC, datetime

import anyio
from pydantic import TypeAdapter

from ...backends.base import BaseStateBackend
from ...concurrency import io_thread
from ...exceptions import ReadOnlyBackend, UnsupportedByBackend
from ...model.change import Change
from ...model.modes import MaintenanceMode, as_mode
from ...model.state import Hold, MaintenanceState
from .view import Knowledge, SwitchStatus, View

logger = logging.getLogger("fastapi_maintenance")

_SECONDS_BETWEEN_TRIES = 0.001
_STATE_OF_MODE = {mode: MaintenanceState(mode=mode) for mode in MaintenanceMode}
"""A state for each bare mode; reused, so that decisions can be cached by state."""


class BooleanView(View):
    """The view of a backend that stores only on or off; holds are kept in this process.

    To show holds to other processes, their effective mode is written to the store. The last hold to leave restores
    the former value, unless somebody else has changed it meanwhile.
    """

    stores_reasons = False

    def __init__(self, backend: BaseStateBackend) -> None:
        super().__init__(backend)
        self._backend = backend
        self._holds: dict[str, Hold] = {}
        self._written: MaintenanceMode | None = None
        """The mode that was written because of holds, until the last hold restores the former mode."""
        self._below = MaintenanceMode.OFF
        """The mode without the holds; valid while ``_written`` is set."""
        self._last_known = MaintenanceState()
        self._failing = False
        self._fresh_until = 0.0
        """When the cached state expires, in ``time.monotonic()`` seconds."""
        self._readings = self._last_reading = 0
        """The number of readings begun, and the number of the reading that set ``_last_known``."""
        self._change_lock = threading.Lock()
        io_thread.call_after_fork(self.reset_after_fork)

    def reset_after_fork(self) -> None:
        """Replace the lock in a forked child: its owner may be a thread of the parent."""
        self._change_lock = threading.Lock()

    def peek(self) -> MaintenanceState | None:
        """Return the state, if it is available without I/O."""
        stored = self._backend.peek()
        if stored is None and self._fresh_until and time.monotonic() < self._fresh_until:
            stored = self._last_known
        return None if stored is None else self._with_holds(stored)

    def latest(self) -> MaintenanceState:
        """Return the state, or the last known state if reading takes I/O."""
        return self.peek() or self._with_holds(self._last_known)

    async def read(self) -> MaintenanceState:
        """Return the state; if the backend fails, the last known state."""
        if self._fresh_until:  # others use the cached state while one reads
            self._fresh_until = time.monotonic() + self._backend.cache_seconds
        self._readings += 1
        reading = self._readings
        try:
            state = _STATE_OF_MODE[await self._stored_mode()]
        except Exception:
            if not self._failing:
                logger.exception(
                    "%r can't be read: the last known state stays, %s", self._backend, self._last_known.mode
                )
            self._failing = True
        except BaseException:  # cancelled: no state was read
            self._fresh_until = 0.0
            raise
        else:
            if reading > self._last_reading:  # a later reading may have finished first
                self._last_known, self._last_reading = state, reading
            if self._failing:
                logger.warning("%r can be read again: %s", self._backend, self._last_known.mode)
            self._failing = False
        if self._backend.cache_seconds and self._last_reading:
            self._fresh_until = time.monotonic() + self._backend.cache_seconds
        known = self._with_holds(self._last_known)
        if self.transitions.has_subscribers:
            self.transitions.observe(known)
        return known

    def read_blocking(self) -> MaintenanceState:
        """Return the state like ``read``, on a new event loop."""
        return self.peek() or asyncio.run(self.read())

    def status(self) -> SwitchStatus:
        """Return whether the last reading failed."""
        return SwitchStatus(Knowledge.STALE if self._failing else Knowledge.READY)

    async def apply(self, change: Change) -> MaintenanceState:
        """Apply one change: the mode to the backend, the holds to this process."""
        if change.put_windows or change.required_windows or change.forgets:
            await self._check_writable()
            raise UnsupportedByBackend(repr(self._backend), "a forgotten switch" if change.forgets else "windows")
        lock = self._change_lock
        # One change at a time across event loops and threads: an async lock or event serves only one loop.
        while not lock.acquire(blocking=False):  # noqa: ASYNC110
            await anyio.sleep(_SECONDS_BETWEEN_TRIES)
        try:
            after = change.applied_to(self._with_holds(self._last_known), datetime.now(UTC))
            if change.fields:
                await self._set_mode(after)
            if change.put_holds or change.drop_holds or change.break_holds:
                await self._set_holds(after.holds, dropped=change.drop_holds)
        finally:
            lock.release()
        self._notify_missing(self._holds)
        return await self.read()

    async def _set_mode(self, state: MaintenanceState) -> None:
        await self._check_writable(state.mode)
        what = {
            state.mode.value: state.mode.texts is not None,
            "a reason": state.reason is not None,
            "an end": state.until is not None,
            "a retry_after": state.retry_after is not None,
        }
        if any(what.values()):
            raise UnsupportedByBackend(repr(self._backend), " and ".join(word for word in what if what[word]))
        below = self._below
        try:
            await self._write(state.mode)
        except BaseException:
            self._below = below
            raise

    async def _check_writable(self, mode: MaintenanceMode = MaintenanceMode.ON) -> None:
        if self._backend.read_only:
            await self._backend.set_value(mode is not MaintenanceMode.OFF)  # raises an error with the way out
            raise ReadOnlyBackend(repr(self._backend), "it declares itself read-only")

    async def _set_holds(self, holds: dict[str, Hold], *, dropped: frozenset[str]) -> None:
        before = self._holds
        # First for the requests of this process, then for the other processes.
        self._holds = holds
        if self._backend.read_only:
            return
        try:
            stored = await self._stored_mode()
            await self._write(self._below if stored is self._written else stored, stored=stored)
        except BaseException:
            self._holds = {id_: hold for id_, hold in before.items() if id_ not in dropped}
            raise

    async def _write(self, below: MaintenanceMode, *, stored: MaintenanceMode | None = None) -> None:
        """Store the mode of ``below`` with the holds, unless it is ``stored`` already."""
        target = MaintenanceState(mode=below, holds=self._holds).mode_at(datetime.now(UTC))
        self._below = below
        if target is not below:
            self._written = target  # set first: the next reading shows whether the write succeeded
        if target is not stored:
            await self._backend.set_value(target is not MaintenanceMode.OFF)
        if target is below:
            self._written = None

    async def _stored_mode(self) -> MaintenanceMode:
        state = self._backend.peek()
        if state is not None:
            return state.mode
        return as_mode(_BOOL.validate_python(await self._backend.get_value()))

    def _with_holds(self, stored: MaintenanceState) -> MaintenanceState:
        is_ours = stored.mode is self._written
        if not self._holds and not is_ours:
            return stored
        return stored.model_copy(update={"mode": self._below if is_ours else stored.mode, "holds": self._holds})


_BOOL = TypeAdapter(bool)
