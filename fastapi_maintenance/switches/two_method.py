"""The view of a backend that has only on and off."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
import weakref
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import anyio
from pydantic import TypeAdapter

from ..backends.base import BaseStateBackend
from ..exceptions import ReadOnlyBackend, UnsupportedByBackend
from ..model.change import Change
from ..model.modes import MaintenanceMode, as_mode
from ..model.state import Hold, MaintenanceState
from .view import Knowledge, SwitchStatus, View

logger = logging.getLogger("fastapi_maintenance")

_SECONDS_BETWEEN_TRIES = 0.001
of_one_bit: weakref.WeakSet[BooleanView] = weakref.WeakSet()


_BARE = {mode: MaintenanceState(mode=mode) for mode in MaintenanceMode}
"""The states that say nothing but the mode: always the same ones, so that what was decided by them can be kept."""


class BooleanView(View):
    """The view of a backend that keeps on or off only: the holds live here, in this process.

    So that other processes see a block as well, the store has for its duration the value that the holds make, and
    gets its former value back from the last hold to leave, unless somebody else changed it meanwhile.
    """

    stores_reasons = False

    def __init__(self, backend: BaseStateBackend) -> None:
        super().__init__(backend)
        self._backend = backend
        self._holds: dict[str, Hold] = {}
        self._written: MaintenanceMode | None = None
        """What the store has only because of the holds, until the last one has put the former value back."""
        self._below = MaintenanceMode.OFF
        """What the store would have without the holds; means something while ``_written`` does."""
        self._last_known = MaintenanceState()
        self._failing = False
        self._fresh_until = 0.0
        """Until when, by ``time.monotonic()``, what was last read needn't be read again."""
        self._readings = self._last_reading = 0
        """How many readings have begun, and which of them ``_last_known`` is from."""
        self._changing = threading.Lock()
        of_one_bit.add(self)

    def reset_after_fork(self) -> None:
        """Let the child make changes: whoever was just making one is in the parent."""
        self._changing = threading.Lock()

    def peek(self) -> MaintenanceState | None:
        """Return the state, if the backend can tell it without I/O."""
        stored = self._backend.peek()
        if stored is None and self._fresh_until and time.monotonic() < self._fresh_until:
            stored = self._last_known
        return None if stored is None else self._with_holds(stored)

    def latest(self) -> MaintenanceState:
        """Return the state, as it was last known where it takes I/O to know it."""
        return self.peek() or self._with_holds(self._last_known)

    async def read(self) -> MaintenanceState:
        """Return the state; when the backend fails, the last known one."""
        if self._fresh_until:  # what was read once counts for the others while one reads again
            self._fresh_until = time.monotonic() + self._backend.cache_seconds
        self._readings += 1
        reading = self._readings
        try:
            state = _BARE[await self._stored_mode()]
        except Exception:
            if not self._failing:
                logger.exception(
                    "%r can't be read: the last known state stays, %s", self._backend, self._last_known.mode
                )
            self._failing = True
        except BaseException:  # cancelled: nothing was read
            self._fresh_until = 0.0
            raise
        else:
            if reading > self._last_reading:  # or a later one was through first
                self._last_known, self._last_reading = state, reading
            if self._failing:
                logger.warning("%r can be read again: %s", self._backend, self._last_known.mode)
            self._failing = False
        if self._backend.cache_seconds and self._last_reading:
            self._fresh_until = time.monotonic() + self._backend.cache_seconds
        known = self._with_holds(self._last_known)
        if self.transitions.are_wanted:
            self.transitions.heard(known)
        return known

    def read_blocking(self) -> MaintenanceState:
        """Return what ``read`` does, on an event loop of its own."""
        return self.peek() or asyncio.run(self.read())

    def status(self) -> SwitchStatus:
        """Return whether the last reading failed."""
        return SwitchStatus(Knowledge.STALE if self._failing else Knowledge.READY)

    async def apply(self, change: Change) -> MaintenanceState:
        """Carry out one change: the mode at the backend, the holds here."""
        if change.put_windows or change.required_windows or change.forgets:
            await self._check_writable()
            raise UnsupportedByBackend(repr(self._backend), "a forgotten switch" if change.forgets else "windows")
        async with self._changing_alone():
            after = change.applied_to(self._with_holds(self._last_known), datetime.now(UTC))
            if change.fields:
                await self._set_mode(after)
            if change.put_holds or change.drop_holds or change.break_holds:
                await self._set_holds(after.holds, dropped=change.drop_holds)
        self._notice(self._holds)
        return await self.read()

    async def _set_mode(self, state: MaintenanceState) -> None:
        await self._check_writable(state.mode)
        what = {
            "read_only": state.mode is MaintenanceMode.READ_ONLY,
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
            await self._backend.set_value(mode is not MaintenanceMode.OFF)  # raises, and says how to go about it
            raise ReadOnlyBackend(repr(self._backend), "it says itself that it is read-only")

    async def _set_holds(self, holds: dict[str, Hold], *, dropped: frozenset[str]) -> None:
        before = self._holds
        # First here, so that from now on requests are judged by it, then for the other processes.
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
        """Store what ``below`` and the holds make, unless it is ``stored`` already."""
        target = MaintenanceState(mode=below, holds=self._holds).mode_at(datetime.now(UTC))
        self._below = below
        if target is not below:
            self._written = target  # before it is written: whether it was, tells the store next time
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

    @contextlib.asynccontextmanager
    async def _changing_alone(self) -> AsyncIterator[None]:
        """Keep the changes apart, those of other event loops and threads as well, which no async lock could."""
        changing = self._changing
        while not changing.acquire(blocking=False):  # noqa: ASYNC110 - an event belongs to one loop as well
            await anyio.sleep(_SECONDS_BETWEEN_TRIES)
        try:
            yield
        finally:
            changing.release()


_BOOL = TypeAdapter(bool)
