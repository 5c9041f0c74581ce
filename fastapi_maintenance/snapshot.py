"""This process's view of a switch: what requests read, and what happens when the store fails.

One view per backend, shared by everything that uses the backend.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from datetime import UTC, datetime

from anyio import Lock
from anyio.lowlevel import RunVar
from pydantic import TypeAdapter

from .backends.base import BaseStateBackend, StateBackend
from .exceptions import ReadOnlyBackend, UnsupportedByBackend
from .state import Change, Hold, MaintenanceMode, MaintenanceState, as_mode

logger = logging.getLogger("fastapi_maintenance")

_ATTRIBUTE = "_fastapi_maintenance_view"


class View(ABC):
    """The state of one switch, as this process sees it."""

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
    async def apply(self, change: Change) -> MaintenanceState:
        """Carry out one change and return the state after it.

        Raises:
            ReadOnlyBackend: The stored mode can't be set from here.
            UnsupportedByBackend: The store has no room for what was asked.
        """


def view_of(backend: BaseStateBackend) -> View:
    """Return this process's view of a backend, always the same one."""
    view: View | None = vars(backend).get(_ATTRIBUTE)
    if view is None:
        made = StateView(backend) if isinstance(backend, StateBackend) else BooleanView(backend)
        # One call, so that threads that come together share one view.
        view = vars(backend).setdefault(_ATTRIBUTE, made)
    return view


class StateView(View):
    """The view of a backend that keeps the whole state: nothing to add."""

    def __init__(self, backend: StateBackend) -> None:
        self._backend = backend

    def peek(self) -> MaintenanceState:
        """Return the backend's state."""
        return self._backend.peek()

    def latest(self) -> MaintenanceState:
        """Return the backend's state."""
        return self._backend.peek()

    async def read(self) -> MaintenanceState:
        """Return the backend's state."""
        return self._backend.peek()

    async def apply(self, change: Change) -> MaintenanceState:
        """Carry out one change at the backend."""
        return await self._backend.apply(change)


class BooleanView(View):
    """The view of a backend that keeps on or off only: the holds live here, in this process.

    So that other processes see a block as well, the store has for its duration the value that the holds make, and
    gets its former value back from the last hold to leave, unless somebody else changed it meanwhile.
    """

    def __init__(self, backend: BaseStateBackend) -> None:
        self._backend = backend
        self._holds: dict[str, Hold] = {}
        self._written: MaintenanceMode | None = None
        """What the store has only because of the holds, until the last one has put the former value back."""
        self._below = MaintenanceMode.OFF
        """What the store would have without the holds; means something while ``_written`` does."""
        self._last_known = MaintenanceState()
        self._failing = False
        self._locks: RunVar[Lock] = RunVar(f"fastapi_maintenance.{id(self)}")

    def peek(self) -> MaintenanceState | None:
        """Return the state, if the backend can tell it without I/O."""
        stored = self._backend.peek()
        return None if stored is None else self._with_holds(stored)

    def latest(self) -> MaintenanceState:
        """Return the state, as it was last known where it takes I/O to know it."""
        return self.peek() or self._with_holds(self._last_known)

    async def read(self) -> MaintenanceState:
        """Return the state; when the backend fails, the last known one."""
        try:
            self._last_known = MaintenanceState(mode=await self._stored_mode())
        except Exception:
            if not self._failing:
                logger.exception(
                    "%r can't be read: the last known state stays, %s", self._backend, self._last_known.mode
                )
            self._failing = True
        else:
            if self._failing:
                logger.warning("%r can be read again: %s", self._backend, self._last_known.mode)
            self._failing = False
        return self._with_holds(self._last_known)

    async def apply(self, change: Change) -> MaintenanceState:
        """Carry out one change: the mode at the backend, the holds here."""
        async with self._lock():
            if change.fields:
                await self._set_mode(change)
            if change.put_holds or change.drop_holds:
                await self._set_holds(change)
        return await self.read()

    async def _set_mode(self, change: Change) -> None:
        mode: MaintenanceMode = change.fields["mode"]
        if self._backend.read_only:
            await self._backend.set_value(mode is not MaintenanceMode.OFF)  # raises, and says how to go about it
            raise ReadOnlyBackend(repr(self._backend), "it says itself that it is read-only")
        what = {
            "read_only": mode is MaintenanceMode.READ_ONLY,
            "a reason": change.fields["reason"] is not None,
            "an end": change.fields["until"] is not None,
        }
        if any(what.values()):
            raise UnsupportedByBackend(repr(self._backend), " and ".join(word for word in what if what[word]))
        below = self._below
        try:
            await self._write(mode)
        except BaseException:
            self._below = below
            raise

    async def _set_holds(self, change: Change) -> None:
        kept = {id_: hold for id_, hold in self._holds.items() if id_ not in change.drop_holds}
        # First here, so that from now on requests are judged by it, then for the other processes.
        self._holds = kept | dict(change.put_holds)
        if self._backend.read_only:
            return
        try:
            stored = await self._stored_mode()
            await self._write(self._below if stored is self._written else stored, stored=stored)
        except BaseException:
            self._holds = kept
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

    def _lock(self) -> Lock:
        """Return the lock that keeps the changes of this event loop apart; locks can't be shared among loops."""
        try:
            return self._locks.get()
        except LookupError:
            self._locks.set(lock := Lock())
            return lock


_BOOL = TypeAdapter(bool)
