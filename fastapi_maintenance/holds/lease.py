"""One block's hold on one switch: a lease that is renewed until the block ends."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any

import anyio
from anyio import CancelScope

from ..concurrency import io_thread
from ..exceptions import HoldLost, MaintenanceError, OutcomeUnknown
from ..model.change import Change
from ..model.state import Hold
from ..switches.view import View

logger = logging.getLogger("fastapi_maintenance")
_SECONDS_BETWEEN_LOOKS = 20.0
"""How often a hold that does not expire is looked after: whether an operator has broken it."""
_LONGEST_PAUSE = 1.0
"""Seconds between attempts while the store fails."""


class Lease:
    """One hold on one switch: taken, renewed until it is given back, and known to be lost if it is."""

    def __init__(self, view: View, hold: Hold, ttl: timedelta | None, on_loss: Callable[[], None]) -> None:
        self.view = view
        self.id = uuid.uuid4().hex
        self._hold = hold
        self._ttl = ttl if view.has_leases else None
        self._on_loss = on_loss
        self._heartbeat: concurrent.futures.Future[None] | None = None
        self._look_now = asyncio.Event()
        self._is_leaving = False
        self._is_lost = False
        """Whether the block was told that its hold was gone, be it for a moment."""
        self._is_gone = False
        """Whether the store does not have the hold."""

    async def take(self) -> None:
        """Hold the switch, and look after the hold from now on."""
        # Before, so that the state after the change is known here, whatever becomes of the store.
        self.view.start(self)
        try:
            await self.view.apply(self._change(put_holds={self.id: self._hold}))
        except MaintenanceError as error:
            # Then the store has said that nothing was changed, so there is nothing to give back.
            self._is_gone = self.view.has_leases and not isinstance(error, OutcomeUnknown)
            raise
        if self.view.has_leases:
            self._heartbeat = io_thread.submit(self._beat())
            self.view.watch(self.id, self._look)
        else:
            self.view.watch(self.id, self._lose_for_good)
            if self.id not in self.view.latest().holds:  # broken before it was watched
                self._lose_for_good()

    async def renew(self, *, has_expired: bool = False) -> None:
        """Let the hold live for another time to live.

        Args:
            has_expired: Take it again if it has expired, so that the rest of its block is protected.

        Raises:
            HoldLost: It is not there any more, or has expired.
        """
        mine = frozenset({self.id})  # one that has expired is still there, one that an operator broke is not
        await self.view.apply(
            self._change(put_holds={self.id: self._hold}, required_holds=mine, is_renewal=not has_expired)
        )

    async def give_back(self, fields: Mapping[str, Any] | None = None) -> None:
        """Drop the hold, and store ``fields`` in the same change; a lost one is left alone.

        Where the store fails, a hold that expires is left to do so, or to be dropped when the store is back. One that
        does not expire, or has ``fields``, stays, and whatever the store raised is raised.
        """
        if self._is_gone:
            self.abandon()
            return
        self._is_leaving = True
        mine = frozenset({self.id})
        # An emptied store must not begin anew with an "off", only because a block ends.
        required = mine if self.view.has_leases else frozenset()
        change = self._change(fields=fields or {}, drop_holds=mine, required_holds=required, ttl=None)
        try:
            await self.view.apply(change)
        except HoldLost:
            self._is_leaving = False
            self._lose_for_good()
        except Exception as error:
            if fields:
                self._is_leaving = False
                raise
            if self._ttl is None:
                self.abandon()
                raise
            logger.warning("a hold can't be given back, it expires within %s: %s", self._ttl, error)
            io_thread.submit(self._give_back_later(change, self._ttl))
        self.abandon()

    def abandon(self) -> None:
        """Look after the hold no longer: it stays until it expires."""
        self.view.unwatch(self.id)
        self.view.leave(self)
        if self._heartbeat is not None:
            self._heartbeat.cancel()

    async def release_quietly(self) -> None:
        """Drop a hold that may or may not have been taken."""
        try:
            await self.give_back()
        except Exception:
            logger.exception("a hold that could not be taken could not be given back either")

    def _change(self, **parts: Any) -> Change:
        return Change(**{"ttl": self._ttl, "by": self._hold.owner, **parts})

    async def _beat(self) -> None:
        """Renew the hold until it is lost; on the background thread, so that its block may run blocking code."""
        interval = _SECONDS_BETWEEN_LOOKS if self._ttl is None else self._ttl.total_seconds() / 3
        pause, is_failing, has_expired = interval, False, False
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._look_now.wait()
            self._look_now.clear()
            try:
                await self.renew(has_expired=has_expired)
            except HoldLost as error:
                if not error.expired:
                    self._lose_for_good()
                    return
                self._lose("it expired, because this process stood still or the store was away; it is taken again")
                has_expired, pause = True, 0.0
            except Exception as error:  # noqa: BLE001 - contained: a store may raise anything, and come back
                if not is_failing:
                    logger.warning("a hold of %s can't be renewed at the moment: %s", self._hold.owner, error)
                is_failing, pause = True, io_thread.jittered(min(interval, _LONGEST_PAUSE))
            else:
                if is_failing:
                    logger.warning("a hold of %s is renewed again", self._hold.owner)
                pause, is_failing, has_expired = interval, False, False

    def _look(self) -> None:
        """Ask the store at once: in the copy of this process, which may be an old one, the hold is missing."""
        self._look_now.set()

    def _lose_for_good(self) -> None:
        if not self._is_leaving:
            self._is_gone = True
            self.view.unwatch(self.id)
            self._lose("its block runs without it: an operator broke it, or it expired long ago")

    def _lose(self, reason: str) -> None:
        if self._is_leaving or self._is_lost:
            return
        self._is_lost = True
        logger.warning("the hold of %s on %r is lost, %s", self._hold.owner, self.view.backend, reason)
        self._on_loss()

    async def _give_back_later(self, change: Change, ttl: timedelta) -> None:
        """Try to give the hold back until it has expired."""
        end = time.monotonic() + ttl.total_seconds()
        while time.monotonic() < end:
            await asyncio.sleep(_LONGEST_PAUSE)
            try:
                with contextlib.suppress(HoldLost):  # then there is nothing to give back
                    await self.view.apply(change)
            except Exception as error:  # noqa: BLE001 - contained: there is nobody to raise it to
                logger.debug("a hold still can't be given back: %s", error)
            else:
                return


def left_to_expire(leases: list[Lease], ttl: timedelta | None) -> Callable[[], Awaitable[None]]:
    """Leave holds to their time to live; return what drops them earlier."""
    local = [lease for lease in leases if not lease.view.has_leases]
    for lease in leases:
        lease.abandon()

    async def release() -> None:
        await to_its_end(release_all_quietly(leases))

    async def release_later() -> None:
        await anyio.sleep((ttl or timedelta()).total_seconds())
        await release_all_quietly(local)  # nobody else would: they live in this process

    if local and ttl is not None:
        io_thread.starter_in_this_loop()(release_later)
    return release


async def release_all_quietly(leases: list[Lease]) -> None:
    for lease in leases:
        await lease.release_quietly()


async def to_its_end(release: Coroutine[Any, Any, object]) -> None:
    """Await a release to its end, however often the caller is cancelled meanwhile; that counts afterwards."""
    with CancelScope(shield=True):
        try:
            task = asyncio.create_task(release)
        except RuntimeError:  # trio, which cancels through scopes only
            await release
            return
        cancellation: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait({task})  # unlike a shield, it does not raise what the release raises
            except asyncio.CancelledError as error:
                cancellation = error
    if cancellation is None:
        task.result()
        return
    failure = task.exception()
    if failure is not None:
        logger.error("a hold could not be given back while its block was cancelled", exc_info=failure)
    raise cancellation
