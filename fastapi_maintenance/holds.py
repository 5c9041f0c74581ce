"""Blocks of code that hold a switch on or off, and the leases by which they do it.

A hold in a file, Redis or a database is a lease: it is renewed for as long as its block runs, and expires when its
process has died. One in this process's memory ends with the process anyway.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import inspect
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Literal, ParamSpec, Self, TypeVar

import anyio
from anyio import CancelScope

from . import background
from .backends.base import BaseStateBackend
from .control import check_reason
from .drain import checked_seconds, drained
from .exceptions import (
    DrainTimeout,
    HoldLost,
    InvalidConfiguration,
    MaintenanceError,
    OutcomeUnknown,
    ReadOnlyBackend,
)
from .registry import DEFAULT, checked_backend, checked_name, registry
from .snapshot import View, view_of
from .state import MAX_OWNER, Change, Hold, MaintenanceMode, set_mode

logger = logging.getLogger("fastapi_maintenance")

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_TTL = 60.0
_SHORTEST_TTL, _LONGEST_TTL = timedelta(seconds=1), timedelta(days=366)
_SECONDS_BETWEEN_LOOKS = 20.0
"""How often a hold that does not expire is looked after: whether an operator has broken it."""
_LONGEST_PAUSE = 1.0
"""Seconds between attempts while the store fails."""

_enclosing: ContextVar[tuple[tuple[View, str], ...]] = ContextVar("fastapi_maintenance_enclosing", default=())
"""The on-holds whose blocks this code is in, outermost first."""


class _Lease:
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
            self._heartbeat = background.submit(self._beat())
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
            background.submit(self._give_back_later(change, self._ttl))
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
                is_failing, pause = True, background.jittered(min(interval, _LONGEST_PAUSE))
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


@dataclass(frozen=True, kw_only=True)
class _Options:
    """How a block holds its switches."""

    kind: Literal["on", "off"]
    backend: BaseStateBackend | None
    names: tuple[str, ...]
    reason: str | None
    ttl: timedelta | None
    keep_on_error: bool
    cancel_when_lost: bool
    drain: float | None
    close_websockets: bool
    owner: str | None
    code: str
    """The name of the code that holds, for people."""


class MaintenanceBlock:
    """A block of code that holds switches: an async context manager, and a decorator for async functions.

    ``maintenance_mode_on`` and ``maintenance_mode_off`` make one.
    """

    def __init__(self, options: _Options) -> None:
        self.lost = threading.Event()
        """Set once a hold of this block is gone before its end: an operator broke it, or it expired."""
        self._options = options
        self._leases: list[_Lease] = []
        self._scope: CancelScope | None = None
        self._call_in_loop: Callable[[Callable[[], None]], None] | None = None

    def __repr__(self) -> str:
        return f"<maintenance_mode_{self._options.kind} of {', '.join(self._options.names)}>"

    async def __aenter__(self) -> Self:
        """Hold the switches: all, or none if one of them fails."""
        if self._leases:
            msg = "this block is entered already; make a new maintenance_mode_on/off(...) for each"
            raise RuntimeError(msg)
        self.lost = threading.Event()
        self._leases = [self._lease(name) for name in self._options.names]
        try:
            for lease in self._leases:
                await lease.take()
            if self._options.drain is not None:
                await drained(
                    [lease.view for lease in self._leases],
                    self._options.drain,
                    close_websockets=self._options.close_websockets,
                )
        except DrainTimeout as error:
            leases, self._leases = self._leases, []
            error.release = _left_to_expire(leases, self._options.ttl)
            raise
        except BaseException:
            leases, self._leases = self._leases, []
            await _to_its_end(_release_quietly(leases))
            raise
        if self._options.kind == "on":
            _enclosing.set((*_enclosing.get(), *self._held()))
        if self._options.cancel_when_lost:
            self._call_in_loop = background.caller_in_this_loop()
            self._scope = CancelScope().__enter__()
            if self.lost.is_set():
                self._scope.cancel()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the switches back, whatever happened.

        Raises:
            HoldLost: The block was cancelled because a hold of it was lost.
            BackendUnavailable: The store failed, and the hold would stay for ever.
        """
        if not self._leases:
            msg = "this block was never entered"
            raise RuntimeError(msg)
        held = self._held()
        _enclosing.set(tuple(enclosing for enclosing in _enclosing.get() if enclosing not in held))
        leases, self._leases = self._leases, []
        scope, self._scope = self._scope, None
        try:
            await _to_its_end(self._give_back(leases, exc))
        finally:
            swallows = scope is not None and scope.__exit__(exc_type, exc, traceback)
        if swallows and exc is not None:
            raise HoldLost([lease.id for lease in leases])

    def __call__(self, function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        """Hold the switches whenever ``function`` runs."""
        if not inspect.iscoroutinefunction(function):
            msg = f"{function!r} is not an async function; inside a sync one there is no loop to hold a switch from"
            raise TypeError(msg)
        options = replace(self._options, code=f"{function.__module__}.{function.__qualname__}")

        @functools.wraps(function)
        async def held(*args: P.args, **kwargs: P.kwargs) -> T:
            async with MaintenanceBlock(options):
                return await function(*args, **kwargs)

        return held

    def _lease(self, name: str) -> _Lease:
        options = self._options
        view = view_of(registry.meant(options.backend, name))
        if options.keep_on_error and view.backend.read_only:
            raise ReadOnlyBackend(repr(view.backend), "keep_on_error needs a backend that can be set from here")
        is_on = options.kind == "on"
        masks = frozenset(id_ for whose, id_ in _enclosing.get() if whose is view and not is_on)
        owner = options.owner or f"{options.code} in process {os.getpid()} on {socket.gethostname()}"[:MAX_OWNER]
        return _Lease(
            view, Hold(kind=options.kind, owner=owner, reason=options.reason, masks=masks), options.ttl, self._lose
        )

    def _held(self) -> tuple[tuple[View, str], ...]:
        return tuple((lease.view, lease.id) for lease in self._leases)

    def _lose(self) -> None:
        self.lost.set()
        scope = self._scope
        if scope is not None and self._call_in_loop is not None:
            self._call_in_loop(scope.cancel)

    async def _give_back(self, leases: list[_Lease], error: BaseException | None) -> None:
        """Give all holds back; of what goes wrong, the first is raised."""
        failures: list[Exception] = []
        for lease in leases:
            fields = self._kept(lease.view) if self._options.keep_on_error and error is not None else None
            try:
                await lease.give_back(fields)
            except Exception as failure:  # noqa: BLE001 - one switch must not keep the others
                failures.append(failure)
        for unraised in failures[1:]:
            logger.error("a hold could not be given back, so it stays", exc_info=unraised)
        if failures:
            raise failures[0]

    def _kept(self, view: View) -> Mapping[str, Any]:
        """Return the fields of the mode that outlives a block that failed."""
        mode = MaintenanceMode.ON if self._options.kind == "on" else MaintenanceMode.OFF
        reason = self._options.reason if view.stores_reasons else None
        return set_mode(mode, now=datetime.now(UTC), reason=reason).fields


def _left_to_expire(leases: list[_Lease], ttl: timedelta | None) -> Callable[[], Awaitable[None]]:
    """Leave holds to their time to live; return what drops them earlier."""
    local = [lease for lease in leases if not lease.view.has_leases]
    for lease in leases:
        lease.abandon()

    async def release() -> None:
        await _to_its_end(_release_quietly(leases))

    async def release_later() -> None:
        await anyio.sleep((ttl or timedelta()).total_seconds())
        await _release_quietly(local)  # nobody else would: they live in this process

    if local and ttl is not None:
        background.starter_in_this_loop()(release_later)
    return release


async def _release_quietly(leases: list[_Lease]) -> None:
    for lease in leases:
        await lease.release_quietly()


async def _to_its_end(release: Coroutine[Any, Any, object]) -> None:
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


def maintenance_mode_on(
    backend: BaseStateBackend | None = None,
    *,
    name: str | Iterable[str] = DEFAULT,
    reason: str | None = None,
    ttl: float | timedelta | None = DEFAULT_TTL,
    drain: float | timedelta | None = None,
    keep_on_error: bool = False,
    cancel_when_lost: bool = False,
    close_websockets: bool = False,
    owner: str | None = None,
) -> MaintenanceBlock:
    """Hold a switch on for the duration of a block, or of each call of a decorated async function.

    Blocks overlap in any order: the switch stays on until the last one leaves, and what an operator stores meanwhile
    counts after it. A block excludes nobody else's: it is not a lock.

    Args:
        backend: Whose switch; ``None``: the one that is meant where the block is entered.
        name: The switch, or several, which are held all or not at all.
        reason: What to tell clients and colleagues.
        ttl: After how many seconds a hold is gone whose process has died; it is renewed every third of that, also
            while the block runs blocking code. ``None``: never, until an operator breaks it.
        drain: For how many seconds at most to wait, before the block begins, until the requests are done that this
            process has begun to answer; the one that the block is in does not count.
        keep_on_error: Whether to store the mode for good when the block raises.
        cancel_when_lost: Whether to cancel the block when its hold is lost, as by an operator who breaks it. It then
            raises ``HoldLost``. Either way the block's ``lost``, a ``threading.Event``, is set.
        close_websockets: Whether draining closes websockets, with code 1012; else they have to end by themselves.
        owner: Whose the hold is, for people; by default code, process and host.

    Raises:
        InvalidConfiguration: An argument can't work.
        InvalidSwitchName: A name can't be a switch's.

    Entering raises what ``set_maintenance_mode`` raises, and ``DrainTimeout`` where requests are still running after
    ``drain`` seconds: maintenance then stays on for ``ttl``, or until ``await error.release()``. Where the store fails
    when the block ends, a hold without ``ttl`` would stay for ever: that raises ``BackendUnavailable``; another one
    expires.
    """
    return _block(
        "on",
        backend,
        name,
        reason,
        ttl,
        owner,
        drain,
        keep_on_error=keep_on_error,
        cancel_when_lost=cancel_when_lost,
        close_websockets=close_websockets,
    )


def maintenance_mode_off(
    backend: BaseStateBackend | None = None,
    *,
    name: str | Iterable[str] = DEFAULT,
    reason: str | None = None,
    ttl: float | timedelta | None = DEFAULT_TTL,
    keep_on_error: bool = False,
    cancel_when_lost: bool = False,
    owner: str | None = None,
) -> MaintenanceBlock:
    """Hold a switch off for the duration of a block, or of each call of a decorated async function.

    It opens what an operator stored, and the ``maintenance_mode_on`` blocks that it is in itself; those of other code
    stay closed. Takes what ``maintenance_mode_on`` takes, but for draining.
    """
    return _block(
        "off", backend, name, reason, ttl, owner, keep_on_error=keep_on_error, cancel_when_lost=cancel_when_lost
    )


def _block(  # noqa: PLR0917
    kind: Literal["on", "off"],
    backend: object,
    name: str | Iterable[str],
    reason: str | None,
    ttl: float | timedelta | None,
    owner: str | None,
    drain: float | timedelta | None = None,
    **flags: bool,
) -> MaintenanceBlock:
    if callable(backend) and not isinstance(backend, BaseStateBackend):
        raise InvalidConfiguration(f"maintenance_mode_{kind} decorates with parentheses: @maintenance_mode_{kind}()")
    names = (name,) if isinstance(name, str) else tuple(dict.fromkeys(name))
    if not names:
        raise InvalidConfiguration(f"name={name!r}: at least one switch is needed")
    check_reason(reason)
    if owner is not None and not isinstance(owner, str):
        raise InvalidConfiguration(f"owner={owner!r}: a text is needed")
    if owner is not None and len(owner) > MAX_OWNER:
        raise InvalidConfiguration(f"owner={owner[:20]!r}... must have at most {MAX_OWNER} characters")
    if flags.get("close_websockets") and drain is None:
        raise InvalidConfiguration("close_websockets=True goes with drain=..., which closes them")
    for flag, value in flags.items():
        if not isinstance(value, bool):
            raise InvalidConfiguration(f"{flag}={value!r}: True or False is needed")
    options = _Options(
        kind=kind,
        backend=None if backend is None else checked_backend(backend),
        names=tuple(checked_name(one) for one in names),
        reason=reason,
        ttl=_checked_ttl(ttl),
        owner=owner,
        code=_caller(),
        drain=None if drain is None else checked_seconds(drain),
        **{"close_websockets": False, **flags},
    )
    return MaintenanceBlock(options)


def _checked_ttl(ttl: float | timedelta | None) -> timedelta | None:
    """Return a time to live, or raise ``InvalidConfiguration``."""
    if ttl is None:
        return None
    try:
        duration = ttl if isinstance(ttl, timedelta) else timedelta(seconds=ttl)
        if not isinstance(ttl, bool) and _SHORTEST_TTL <= duration <= _LONGEST_TTL:
            return duration
    except (TypeError, ValueError, OverflowError):
        pass
    raise InvalidConfiguration(
        f"ttl={ttl!r}: seconds or a timedelta are needed, from 1 s to 366 days; None for a hold that never expires"
    )


def _caller() -> str:
    """Return the name of the code that makes a block."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return "?" if frame is None else f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_qualname}"
