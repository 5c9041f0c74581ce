"""One switch in a store: its document is read and changed here, for every store alike."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import weakref
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

from .. import background
from ..exceptions import BackendUnavailable, CorruptState, EmptiedStore, MaintenanceError, OutcomeUnknown
from ..state import Change, MaintenanceState
from .contract import Conflict, DocumentStore, Reading

logger = logging.getLogger("fastapi_maintenance")

OnEmptied = Literal["restore", "keep"]

_SHORTEST_WAIT = 0.001
_ATTEMPTS_AT_ONCE = 8
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.01, 0.04
"""Seconds, between attempts to write what others write as well."""


class _Found(NamedTuple):
    """The document at one moment, understood."""

    state: MaintenanceState | None
    revision: str | None
    now: datetime

    @property
    def living(self) -> MaintenanceState | None:
        """The state without the holds that have expired."""
        return None if self.state is None else self.state.without_expired_holds(self.now)


class _Overtaken(Exception):
    """Somebody else wrote first; nothing was written."""

    def __init__(self, found: _Found | None) -> None:
        self.found = found
        super().__init__()


class StoredSwitch:
    """The document of one switch, used on the private event loop.

    One message to the store is under way at a time, so a late answer never replaces a newer document. The changes of
    this process queue up.

    Args:
        store: Where the document is.
        key: The switch's name there.
        timeout_seconds: How long one reading may take, or one change, its time in the queue included.
        on_emptied: ``"restore"`` puts the newest document known here back into a store that has lost it; ``"keep"``
            leaves the store as it is.
    """

    def __init__(self, store: DocumentStore, key: str, *, timeout_seconds: float, on_emptied: OnEmptied) -> None:
        self.store = store
        self.key = key
        self.timeout_seconds = timeout_seconds
        self.heard: Callable[[MaintenanceState | None], None] = lambda state: None
        """Called with each state that was read or written, ``None`` without a document. It must not raise."""
        self.clock_ahead = timedelta()
        """How far this host's clock is ahead of the store's."""
        self._restores = on_emptied == "restore"
        self.begin_anew()
        _switches.add(self)

    @property
    def where(self) -> str:
        """The document's place, for logs and errors."""
        return self.store.describe(self.key)

    def forget(self) -> None:
        """Forget the document. A store that loses it later does not get it back from here."""
        self._newest: MaintenanceState | None = None
        """The newest document that this process has seen."""
        self._parsed: tuple[bytes, MaintenanceState] | None = None
        self._warned_of_loss = False

    def begin_anew(self) -> None:
        """Know nothing, as in a forked child."""
        self.forget()
        self._one_message = asyncio.Lock()
        self._one_change = asyncio.Lock()

    async def read(self) -> MaintenanceState | None:
        """Return the state without the holds that have expired, or ``None`` without a document.

        A store that has lost the document gets it back.

        Raises:
            BackendUnavailable: The store did not answer within ``timeout_seconds``.
            CorruptState: It has something else.
            EmptiedStore: It has lost the document, which was not put back.
        """
        end = _time() + self.timeout_seconds
        found = await self._read(end)
        while (lost := self._lost(found)) is not None:
            if not self._restores:
                raise EmptiedStore(self.where)
            found = await self._restore(lost, found, end)
        return found.living

    async def change(self, change: Change) -> MaintenanceState:
        """Carry out one change and return the state after it.

        Raises:
            ChangeRejected: The change does not fit the document, or its time was up; nothing was changed.
            BackendUnavailable: The store did not answer; nothing was changed.
            OutcomeUnknown: The store did not answer; the change may have been made or not.
            CorruptState: The store has something else, which is left alone.
            InvalidConfiguration: The document would become too large.
        """
        end = _time() + self.timeout_seconds
        try:
            async with asyncio.timeout_at(end):
                await self._one_change.acquire()
        except TimeoutError:
            raise self._unavailable("other changes of this process took all the time") from None
        try:
            return await self._change(change, end)
        finally:
            self._one_change.release()

    async def _change(self, change: Change, end: float) -> MaintenanceState:
        """Read, apply, replace; the same again after a conflict or a lost answer."""
        before: _Found | None = None
        unknown: _Unknown | None = None
        attempts = 0
        while _time() < end:
            try:
                before = await self._base(change, before, end)
                if before.state is not None and before.state.remembers(change.id):
                    return before.living or before.state
                if unknown is not None:
                    unknown = unknown.after(before, change)
                after = change.applied_to(before.state or MaintenanceState(), before.now)
                written = await self._replace(after, before.revision, end, quiet=change.is_renewal)
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
        raise self._unavailable("others changed it all the time") if unknown is None else unknown.error

    async def _base(self, change: Change, found: _Found | None, end: float) -> _Found:
        """Return the document to which a change is to be applied: the one that was found, unless the store lost it."""
        if found is None:
            found = await self._read(end, replaces_anything=change.forgets)
        lost = self._lost(found)
        if lost is None or not self._restores or change.forgets:
            return found
        return await self._restore(lost, found, end)

    def _lost(self, found: _Found) -> MaintenanceState | None:
        """Return the document that the store has lost, if this process has seen a newer one.

        An older version is a loss only where it is marked as put back, by somebody who knew no newer one. Without the
        mark it may be an operator's word since then.
        """
        newest, state = self._newest, found.state
        if newest is None or self.store.missing_is_off:
            return None
        if state is None or (state.restored and state.epoch == newest.epoch and state.version < newest.version):
            return newest
        return None

    async def _restore(self, lost: MaintenanceState, found: _Found, end: float) -> _Found:
        """Put back the document that the store has lost; return it, or the one that somebody else has put there.

        Raises:
            EmptiedStore: It could not be put back, and why.
        """
        await asyncio.sleep(_random.uniform(0, _SHORTEST_PAUSE))  # all workers notice the loss together
        try:
            put_back = await self._replace(lost.model_copy(update={"restored": True}), found.revision, end)
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
        """Return the document. One that can't be read seems to be missing to a change that replaces anything."""
        begun = datetime.now(UTC)
        async with self._alone_until(end) as seconds:
            reading = Reading(None, None)
            try:
                reading = await background.bounded(self.store.read(self.key), seconds)
                return self._take(reading, begun)
            except CorruptState as error:
                error.revision = error.revision or reading.revision
                if error.revision is None or not replaces_anything:
                    raise
                logger.warning("a document that can't be read is replaced: %s", error)
                return _Found(None, error.revision, reading.now or begun)
            except MaintenanceError:
                raise
            except Exception as error:
                raise self._unavailable(self._text(error)) from error

    async def _replace(
        self, state: MaintenanceState, revision: str | None, end: float, *, quiet: bool = False
    ) -> _Found:
        """Write a document in place of a revision, and return it as the store has it."""
        content, begun = state.to_json(), datetime.now(UTC)
        async with self._alone_until(end) as seconds:
            writing = self.store.replace(self.key, content, revision, seconds=seconds, quiet=quiet)
            try:
                return self._take(await background.bounded(writing, seconds), begun)
            except Conflict as conflict:
                found = None if conflict.reading is None else self._take(conflict.reading, begun)
                raise _Overtaken(found) from None
            except MaintenanceError:
                raise
            except Exception as error:
                raise OutcomeUnknown(self.where, self._text(error)) from error

    @contextlib.asynccontextmanager
    async def _alone_until(self, end: float) -> AsyncIterator[float]:
        """Wait for the message that is under way, and give the seconds that are left for the next one."""
        try:
            async with asyncio.timeout_at(end):
                await self._one_message.acquire()
        except TimeoutError:
            raise self._unavailable(self._text(TimeoutError())) from None
        try:
            yield max(end - _time(), _SHORTEST_WAIT)
        finally:
            self._one_message.release()

    def _take(self, reading: Reading, begun: datetime) -> _Found:
        """Understand an answer, which is newer than all before it."""
        now = reading.now or begun
        state = None if reading.content is None else self._parse(reading.content)
        self.clock_ahead = begun - now
        found = _Found(state, reading.revision, now)
        if self._lost(found) is None:
            self._newest = state
            self.heard(found.living)
        return found

    def _parse(self, content: bytes) -> MaintenanceState:
        # Compared by content: somebody may write a row by hand, and leave its revision.
        if self._parsed is None or self._parsed[0] != content:
            self._parsed = content, MaintenanceState.from_json(content, where=self.where)
        return self._parsed[1]

    def _text(self, error: Exception) -> str:
        if isinstance(error, TimeoutError) and error.errno is None:  # all the time was up, not only what was left
            return f"no answer within {self.timeout_seconds:g} s"
        return str(error) or type(error).__name__

    def _unavailable(self, problem: str) -> BackendUnavailable:
        return BackendUnavailable(self.where, problem)


_switches: weakref.WeakSet[StoredSwitch] = weakref.WeakSet()


@background.call_after_fork
def _begin_anew_in_child() -> None:
    """Renew the locks: tasks that have them are in the parent."""
    for switch in _switches:
        switch.begin_anew()


class _Unknown(NamedTuple):
    """An attempt to write of which nobody knows whether it was made."""

    error: OutcomeUnknown
    base: _Found | None
    """The document that it was to replace."""

    def after(self, found: _Found, change: Change) -> _Unknown | None:
        """Return this if the attempt may still be made, once a document without the change was found.

        Raises:
            OutcomeUnknown: The change may have been made, and be forgotten since.
        """
        base = self.base or found
        if found.revision == base.revision:
            return self  # if it comes now, the next attempt meets a conflict
        state = base.state or MaintenanceState()
        if change.is_renewal or (found.state is not None and found.state.remembers_all_since(state)):
            return None
        raise self.error


def _pause_after(attempts: int, *, has_document: bool) -> float:
    """Return how many seconds to wait before a change is tried again.

    Whoever got the newer document with the conflict tries at once, ahead of those who have yet to read it. After some
    attempts there must be many writers: they would only take each other's processor time.
    """
    if attempts > _ATTEMPTS_AT_ONCE:
        return _random.uniform(0, min(_SHORTEST_PAUSE * 2 ** (attempts - _ATTEMPTS_AT_ONCE), _LONGEST_PAUSE))
    return 0 if has_document else _random.uniform(0, _SHORTEST_PAUSE)


def _time() -> float:
    return asyncio.get_running_loop().time()


_random = random.Random()  # noqa: S311 - no secret
