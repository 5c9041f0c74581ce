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
from .exceptions import UnsupportedByBackend
from .state import Change, Hold, MaintenanceMode, MaintenanceState, as_mode

logger = logging.getLogger("fastapi_maintenance")

_ATTRIBUTE = "_fastapi_maintenance_view"


class View(ABC):
    """The state of one switch, as this process sees it."""

    @abstractmethod
    def peek(self) -> MaintenanceState | None:
        """Return the state without I/O, or ``None`` where only ``read`` can tell."""

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
        """What the store has because of the holds, if anything was written for them."""
        self._below = MaintenanceMode.OFF
        """What the store would have without the holds; means something while ``_written`` does."""
        self._last_known = MaintenanceState()
        self._failing = False
        self._locks: RunVar[Lock] = RunVar(f"fastapi_maintenance.{id(self)}")

    def peek(self) -> MaintenanceState | None:
        """Return the state, if the backend can tell it without I/O."""
        stored = self._backend.peek()
        return None if stored is None else self._with_holds(stored)

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
        what = {
            "read_only": mode is MaintenanceMode.READ_ONLY,
            "a reason": change.fields["reason"] is not None,
            "an end": change.fields["until"] is not None,
        }
        if any(what.values()) and not self._backend.read_only:
            raise UnsupportedByBackend(repr(self._backend), " and ".join(word for word in what if what[word]))
        await self._write(mode, self._holds)

    async def _set_holds(self, change: Change) -> None:
        kept = {id_: hold for id_, hold in self._holds.items() if id_ not in change.drop_holds}
        # First here, so that from now on requests are judged by it, then for the other processes.
        self._holds = kept | dict(change.put_holds)
        if not self._backend.read_only:
            stored = await self._stored_mode()
            below = self._below if stored is self._written else stored
            await self._write(below, self._holds, stored=stored)

    async def _write(
        self, below: MaintenanceMode, holds: dict[str, Hold], *, stored: MaintenanceMode | None = None
    ) -> None:
        """Store what ``below`` and the holds make, unless it is ``stored`` already."""
        target = MaintenanceState(mode=below, holds=holds).mode_at(datetime.now(UTC))
        # Before it is written: if that fails half-way, the store's value tells next time whether it was.
        self._below, self._written = below, target if holds else None
        if target is not stored:
            await self._backend.set_value(target is not MaintenanceMode.OFF)

    async def _stored_mode(self) -> MaintenanceMode:
        state = self._backend.peek()
        if state is not None:
            return state.mode
        return as_mode(_BOOL.validate_python(await self._backend.get_value()))

    def _with_holds(self, stored: MaintenanceState) -> MaintenanceState:
        if not self._holds:
            return stored
        mode = self._below if stored.mode is self._written else stored.mode
        return stored.model_copy(update={"mode": mode, "holds": self._holds})

    def _lock(self) -> Lock:
        """Return the lock that keeps the changes of this event loop apart; locks can't be shared among loops."""
        try:
            return self._locks.get()
        except LookupError:
            self._locks.set(lock := Lock())
            return lock


_BOOL = TypeAdapter(bool)
