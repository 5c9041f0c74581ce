"""Reads and changes the document of one switch, for every store."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, TypeVar

from ..concurrency import io_thread
from ..exceptions import BackendUnavailable, CorruptState, EmptiedStore, MaintenanceError, OutcomeUnknown
from ..model.change import Change, to_document
from ..model.state import MaintenanceState
from .contract import Conflict, DocumentStore, Reading

T = TypeVar("T")

logger = logging.getLogger("fastapi_maintenance")

OnEmptied = Literal["restore", "keep"]

_SHORTEST_WAIT = 0.001
_ATTEMPTS_AT_ONCE = 8
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.01, 0.04
"""Seconds between attempts to write a document that others write as well."""


class _Found(NamedTuple):
    """The parsed document at one moment."""

    state: MaintenanceState | None
    revision: str | None
    now: datetime

    @property
    def living(self) -> MaintenanceState | None:
        """The state without the holds that have expired."""
        return None if self.state is None else self.state.without_expired_holds(self.now)


class _Overtaken(Exception):
    """Another process wrote first; nothing was written."""

    def __init__(self, found: _Found | None) -> None:
        self.found = found
        super().__init__()


class StoredSwitch:
    """The document of one switch, used on the private event loop.

    Only one request to the store runs at a time, so a late answer never replaces a newer document. The changes of this
    process queue up.

    Args:
        store: The store.
        key: The name of the switch in the store.
        timeout_seconds: How long one read or change may take, including its time in the queue.
        on_emptied: ``"restore"`` writes the newest document that this process has seen back to a store that has lost
            it; ``"keep"`` leaves the store unchanged.
    """

    def __init__(self, store: DocumentStore, key: str, *, timeout_seconds: float, on_emptied: OnEmptied) -> None:
        self.store = store
        self.key = key
        self.timeout_seconds = timeout_seconds
        self.on_reading: Callable[[MaintenanceState | None], None] = lambda state: None
        """Called with each state that was read or written, or ``None`` without a document. It must not raise."""
        self.clock_ahead = timedelta()
        """How far this host's clock is ahead of the store's clock."""
        self._restores = on_emptied == "restore"
        self.begin_anew()
        io_thread.call_after_fork(self.begin_anew)

    @property
    def where(self) -> str:
        """The name of the document for logs and errors."""
        return self.store.describe(self.key)

    def forget(self) -> None:
        """Forget the document, so that this process does not restore it if the store loses it."""
        self._newest: MaintenanceState | None = None
        """The newest document that this process has seen."""
        self._parsed: tuple[bytes, MaintenanceState] | None = None
        self._warned_of_loss = False

    def begin_anew(self) -> None:
        """Forget the document and create new locks: a forked child has none of the tasks that hold them."""
        self.forget()
        self._request_lock = asyncio.Lock()
        self._change_lock = asyncio.Lock()

    async def read(self) -> MaintenanceState | None:
        """Return the state without expired holds, or ``None`` without a document; restore a lost document.

        Raises:
            BackendUnavailable: The store did not answer within ``timeout_seconds``.
            CorruptState: The stored document is not a valid state.
            EmptiedStore: The store has lost the document, and it was not restored.
        """
        end = _loop_time() + self.timeout_seconds
        found = await self._read(end)
        while (lost := self._find_lost(found)) is not None:
            if not self._restores:
                raise EmptiedStore(self.where)
            found = await self._restore(lost, found, end)
        return found.living

    async def change(self, change: Change) -> MaintenanceState:
        """Apply one change and return the state after it.

        Raises:
            ChangeRejected: The change does not fit the document, or its deadline passed; nothing was changed.
            BackendUnavailable: The store did not answer; nothing was changed.
            OutcomeUnknown: The store did not answer; the change may have been made.
            CorruptState: The stored document is not a valid state; nothing was changed.
            InvalidConfiguration: The document would become too large.
        """
        end = _loop_time() + self.timeout_seconds
        try:
            async with asyncio.timeout_at(end):
                await self._change_lock.acquire()
        except TimeoutError:
            raise self._unavailable("earlier changes of this process used up the time") from None
        try:
            return await self._change(change, end)
        finally:
            self._change_lock.release()

    async def _change(self, change: Change, end: float) -> MaintenanceState:
        """Read, apply and replace; repeat after a conflict or a lost answer."""
        before: _Found | None = None
        unknown: _Unknown | None = None
        attempts = 0
        while _loop_time() < end:
            try:
                before = await self._find_base(change, before, end)
                if before.state is not None and before.state.remembers(change.id):
                    return before.living or before.state
                if unknown is not None:
                    unknown = unknown.after(before, change)
                state = before.state or MaintenanceState()
                after = change.applied_to(state, before.now)
                content = to_document(after, state)
                written = await self._replace(content, before.revision, end, quiet=change.is_renewal)
            except _Overtaken as overtaken:
                before = overtaken.found
            except OutcomeUnknown as error:
                before, unknown = None, unknown or _Unknown(error, before)
            except MaintenanceError:
                if unknown is None:
                    raise
                break
            else:
                return written.living or after
            attempts += 1
            await asyncio.sleep(_pause_after(attempts, has_document=before is not None))
        raise self._unavailable("other writers kept changing the document") if unknown is None else unknown.error

    async def _find_base(self, change: Change, found: _Found | None, end: float) -> _Found:
        """Return the document to apply a change to: the found document, or the restored one if it was lost."""
        if found is None:
            found = await self._read(end, replaces_anything=change.forgets)
        lost = self._find_lost(found)
        if lost is None or not self._restores or change.forgets:
            return found
        return await self._restore(lost, found, end)

    def _find_lost(self, found: _Found) -> MaintenanceState | None:
        """Return the newest document that this process has seen if the store has lost it, or ``None``.

        An older version is a loss only if it is marked as restored, by a process that knew no newer version. Without
        the mark, an operator may have written it since.
        """
        newest, state = self._newest, found.state
        if newest is None or self.store.missing_is_off:
            return None
        if state is None or (state.restored and state.epoch == newest.epoch and state.version < newest.version):
            return newest
        return None

    async def _restore(self, lost: MaintenanceState, found: _Found, end: float) -> _Found:
        """Restore the document that the store has lost; return it, or the document that another process wrote first.

        Raises:
            EmptiedStore: The document could not be restored.
        """
        await asyncio.sleep(_random.uniform(0, _SHORTEST_PAUSE))  # all workers notice the loss at the same time
        try:
            content = lost.model_copy(update={"restored": True}).to_json()
            put_back = await self._replace(content, found.revision, end)
        except _Overtaken as overtaken:
            return overtaken.found or await self._read(end)
        except MaintenanceError as error:
            if not self._warned_of_loss:
                logger.warning("%s has lost its document, which can't be put back: %s", self.where, error)
            self._warned_of_loss = True
            raise EmptiedStore(self.where) from error
        self._warned_of_loss = False
        logger.warning("%s had lost its document: version %d was put back", self.where, lost.version)
        return put_back

    async def _read(self, end: float, *, replaces_anything: bool = False) -> _Found:
        """Return the document. For a change that replaces anything, an invalid document is treated as missing."""
        begun = datetime.now(UTC)
        async with self._take_turn(end) as seconds:
            reading = Reading(None, None)
            try:
                reading = await self.ask(self.store.read(self.key), seconds)
                return self._accept(reading, begun)
            except CorruptState as error:
                error.revision = error.revision or reading.revision
                if error.revision is None or not replaces_anything:
                    raise
                logger.warning("replacing a document that can't be read: %s", error)
                return _Found(None, error.revision, reading.now or begun)

    async def ask(self, request: Coroutine[Any, Any, T], seconds: float | None = None) -> T:
        """Return the store's answer to a request.

        Raises:
            BackendUnavailable: The store failed, or did not answer within these seconds or ``timeout_seconds``.
        """
        try:
            return await io_thread.run_within(request, self.timeout_seconds if seconds is None else seconds)
        except MaintenanceError:
            raise
        except Exception as error:
            raise self._unavailable(self._explain(error)) from error

    async def _replace(self, content: bytes, revision: str | None, end: float, *, quiet: bool = False) -> _Found:
        """Replace a revision of the document and return the stored document."""
        begun = datetime.now(UTC)
        async with self._take_turn(end) as seconds:
            writing = self.store.replace(self.key, content, revision, seconds=seconds, quiet=quiet)
            try:
                return self._accept(await io_thread.run_within(writing, seconds), begun)
            except Conflict as conflict:
                found = None if conflict.reading is None else self._accept(conflict.reading, begun)
                raise _Overtaken(found) from None
            except MaintenanceError:
                raise
            except Exception as error:
                raise OutcomeUnknown(self.where, self._explain(error)) from error

    @contextlib.asynccontextmanager
    async def _take_turn(self, end: float) -> AsyncIterator[float]:
        """Wait until no other request runs, hold the lock, and yield the seconds that remain."""
        try:
            async with asyncio.timeout_at(end):
                await self._request_lock.acquire()
        except TimeoutError:
            raise self._unavailable(self._explain(TimeoutError())) from None
        try:
            yield max(end - _loop_time(), _SHORTEST_WAIT)
        finally:
            self._request_lock.release()

    def _accept(self, reading: Reading, begun: datetime) -> _Found:
        """Parse an answer, record it as the newest one, and return the document."""
        now = reading.now or begun
        state = None if reading.content is None else self._parse(reading.content)
        self.clock_ahead = begun - now
        found = _Found(state, reading.revision, now)
        if self._find_lost(found) is None:
            self._newest = state
            self.on_reading(found.living)
        return found

    def _parse(self, content: bytes) -> MaintenanceState:
        # Compared by content: an operator may edit a row and leave its revision unchanged.
        if self._parsed is None or self._parsed[0] != content:
            self._parsed = content, MaintenanceState.from_json(content, where=self.where)
        return self._parsed[1]

    def _explain(self, error: Exception) -> str:
        if isinstance(error, TimeoutError) and error.errno is None:  # the whole time has passed, not only the rest
            return f"no answer within {self.timeout_seconds:g} s"
        return str(error) or type(error).__name__

    def _unavailable(self, problem: str) -> BackendUnavailable:
        return BackendUnavailable(self.where, problem)


class _Unknown(NamedTuple):
    """A write with an unknown outcome."""

    error: OutcomeUnknown
    base: _Found | None
    """The document to replace."""

    def after(self, found: _Found, change: Change) -> _Unknown | None:
        """Return this if the write may still happen, or ``None``; ``found`` is a document without the change.

        Raises:
            OutcomeUnknown: The change may have been made, and its id forgotten since.
        """
        base = self.base or found
        if found.revision == base.revision:
            return self  # if the write happens now, the next attempt conflicts
        state = base.state or MaintenanceState()
        if change.is_renewal or (found.state is not None and found.state.remembers_all_since(state)):
            return None
        raise self.error


def _pause_after(attempts: int, *, has_document: bool) -> float:
    """Return how many seconds to wait before the next attempt of a change.

    A writer that got the newer document with the conflict tries at once, before writers that must read it first. After
    several attempts there must be many writers, and immediate attempts would only cost processor time.
    """
    if attempts > _ATTEMPTS_AT_ONCE:
        return _random.uniform(0, min(_SHORTEST_PAUSE * 2 ** (attempts - _ATTEMPTS_AT_ONCE), _LONGEST_PAUSE))
    return 0 if has_document else _random.uniform(0, _SHORTEST_PAUSE)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


_random = random.Random()  # noqa: S311 - no secret
