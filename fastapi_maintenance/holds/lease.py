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
from ..switches.views.view import View

logger = logging.getLogger("fastapi_maintenance")
_SECONDS_BETWEEN_LOOKS = 20.0
"""Seconds between checks whether an operator has broken a hold that does not expire."""
_LONGEST_PAUSE = 1.0
"""Seconds between attempts while the store fails."""


class Lease:
    """One hold on one switch: renews it until its release, and reports its loss."""

    def __init__(self, view: View, hold: Hold, ttl: timedelta | None, on_loss: Callable[[], None]) -> None:
        self.view = view
        self.id = uuid.uuid4().hex
        self._hold = hold
        self._ttl = ttl if view.has_leases else None
        self._on_loss = on_loss
        self._heartbeat: concurrent.futures.Future[None] | None = None
        self._check_requested = asyncio.Event()
        self._is_releasing = False
        self._has_reported_loss = False
        """Whether a loss was reported to the block, even a temporary one."""
        self._is_missing = False
        """Whether the hold is missing in the store."""

    async def take(self) -> None:
        """Hold the switch, and renew the hold from now on."""
        # Followed before the change, so that its new state is known even if the store fails later.
        self.view.start(self)
        try:
            await self.view.apply(self._change(put_holds={self.id: self._hold}))
        except MaintenanceError as error:
            # The store has confirmed that it changed nothing, so no release is due.
            self._is_missing = self.view.has_leases and not isinstance(error, OutcomeUnknown)
            raise
        if self.view.has_leases:
            self._heartbeat = io_thread.submit(self._beat())
            self.view.watch(self.id, self._check_now)
        else:
            self.view.watch(self.id, self._lose_for_good)
            if self.id not in self.view.latest().holds:  # an operator broke it before it was watched
                self._lose_for_good()

    async def renew(self, *, retakes: bool = False) -> None:
        """Extend the hold by its time to live.

        Args:
            retakes: Take the hold again if it has expired, to protect the rest of its block.

        Raises:
            HoldLost: The hold was broken or has expired.
        """
        mine = frozenset({self.id})  # an expired hold is still stored, a broken one is not
        await self.view.apply(
            self._change(put_holds={self.id: self._hold}, required_holds=mine, is_renewal=not retakes)
        )

    async def give_back(self, fields: Mapping[str, Any] | None = None) -> None:
        """Drop the hold and store ``fields`` in the same change; ignore a lost hold.

        If the store fails, a hold with a time to live expires, or is dropped once the store recovers. Without it, or
        with ``fields``, the hold stays, in the latter case renewed, and the store's error is raised.
        """
        if self._is_missing:
            self.stop_renewing()
            return
        self._is_releasing = True
        mine = frozenset({self.id})
        # The end of a block must not write a first "off" to an emptied store.
        required = mine if self.view.has_leases else frozenset()
        change = self._change(fields=fields or {}, drop_holds=mine, required_holds=required, ttl=None)
        try:
            await self.view.apply(change)
        except HoldLost:
            self._is_releasing = False
            self._lose_for_good()
        except Exception as error:
            if fields:
                self._is_releasing = False  # and it is still renewed: the switch must not open
                raise
            if self._ttl is None:
                self.stop_renewing()
                raise
            logger.warning("a hold can't be released, it expires within %s: %s", self._ttl, error)
            io_thread.submit(self._give_back_later(change, self._ttl))
        self.stop_renewing()

    def stop_renewing(self) -> None:
        """Stop renewing the hold; unless it was dropped, it stays until it expires."""
        self.view.unwatch(self.id)
        self.view.leave(self)
        if self._heartbeat is not None:
            self._heartbeat.cancel()

    def _change(self, **parts: Any) -> Change:
        return Change(**{"ttl": self._ttl, "by": self._hold.owner, **parts})

    async def _beat(self) -> None:
        """Renew the hold until it is lost; on the I/O thread, so that its block may run blocking code."""
        interval = _SECONDS_BETWEEN_LOOKS if self._ttl is None else self._ttl.total_seconds() / 3
        pause, is_failing, retakes = interval, False, False
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._check_requested.wait()
            self._check_requested.clear()
            try:
                await self.renew(retakes=retakes)
            except HoldLost as error:
                if not error.expired:
                    self._lose_for_good()
                    return
                self._report_loss("it expired: this process was suspended or the store failed; it is taken again")
                retakes, pause = True, 0.0
            except Exception as error:  # noqa: BLE001 - a store may raise anything, and recover
                if not is_failing:
                    logger.warning("a hold of %s can't be renewed at the moment: %s", self._hold.owner, error)
                is_failing, pause = True, io_thread.add_jitter(min(interval, _LONGEST_PAUSE))
            else:
                if is_failing:
                    logger.warning("a hold of %s is renewed again", self._hold.owner)
                pause, is_failing, retakes = interval, False, False

    def _check_now(self) -> None:
        """Check the store at once: the hold is missing in this process's copy, which may be outdated."""
        self._check_requested.set()

    def _lose_for_good(self) -> None:
        if not self._is_releasing:
            self._is_missing = True
            self.view.unwatch(self.id)
            self._report_loss("its block runs without it: an operator broke it, or it expired long ago")

    def _report_loss(self, reason: str) -> None:
        if self._is_releasing or self._has_reported_loss:
            return
        self._has_reported_loss = True
        logger.warning("the hold of %s on %r is lost, %s", self._hold.owner, self.view.backend, reason)
        self._on_loss()

    async def _give_back_later(self, change: Change, ttl: timedelta) -> None:
        """Retry the release of the hold until it has expired."""
        end = time.monotonic() + ttl.total_seconds()
        while time.monotonic() < end:
            await asyncio.sleep(_LONGEST_PAUSE)
            try:
                with contextlib.suppress(HoldLost):  # then no release is due
                    await self.view.apply(change)
            except Exception as error:  # noqa: BLE001 - no caller can handle it
                logger.debug("a hold still can't be released: %s", error)
            else:
                return


def leave_to_expire(leases: list[Lease], ttl: timedelta | None) -> Callable[[], Awaitable[None]]:
    """Leave holds to expire; return a function that drops them earlier."""
    local = [lease for lease in leases if not lease.view.has_leases]
    for lease in leases:
        lease.stop_renewing()

    async def release() -> None:
        await await_to_end(release_quietly(leases))

    async def release_later() -> None:
        await anyio.sleep((ttl or timedelta()).total_seconds())
        await release_quietly(local)  # holds in this process do not expire by themselves

    if local and ttl is not None:
        io_thread.starter_in_this_loop()(release_later)
    return release


async def release_quietly(leases: list[Lease]) -> None:
    """Drop holds that may or may not have been taken; log errors."""
    for lease in leases:
        try:
            await lease.give_back()
        except Exception:
            logger.exception("a hold of a block that did not begin could not be released")


async def await_to_end(release: Coroutine[Any, Any, object]) -> None:
    """Await a release to its end even if the caller is cancelled; the cancellation is raised afterwards."""
    with CancelScope(shield=True):
        try:
            task = asyncio.create_task(release)
        except RuntimeError:  # trio cancels through scopes only
            await release
            return
        cancellation: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait({task})  # unlike ``shield``, it does not raise the release's error
            except asyncio.CancelledError as error:
                cancellation = error
    if cancellation is None:
        task.result()
        return
    failure = task.exception()
    if failure is not None:
        logger.error("a hold could not be released while its block was cancelled", exc_info=failure)
    raise cancellation
