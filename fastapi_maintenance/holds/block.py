"""Blocks of code that hold a switch on or off, and the leases by which they do it.

A hold in a file, Redis or a database is a lease: it is renewed for as long as its block runs, and expires when its
process has died. One in this process's memory ends with the process anyway.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Literal, ParamSpec, Self, TypeVar

from anyio import CancelScope

from ..backends.base import BaseStateBackend
from ..concurrency import io_thread
from ..exceptions import DrainTimeout, HoldLost, InvalidConfiguration, ReadOnlyBackend
from ..model.change import set_mode
from ..model.limits import MAX_OWNER
from ..model.modes import MaintenanceMode
from ..model.state import Hold
from ..switches.app_switch import DEFAULT
from ..switches.backend_urls import checked_name
from ..switches.control import check_reason
from ..switches.registry import checked_backend, registry
from ..switches.view import View
from ..switches.views import view_of
from .in_flight import checked_seconds, drained
from .lease import Lease, left_to_expire, release_all_quietly, to_its_end

logger = logging.getLogger("fastapi_maintenance")

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_TTL = 60.0
_SHORTEST_TTL, _LONGEST_TTL = timedelta(seconds=1), timedelta(days=366)

_enclosing: ContextVar[tuple[tuple[View, str], ...]] = ContextVar("fastapi_maintenance_enclosing", default=())
"""The on-holds whose blocks this code is in, outermost first."""


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
        self._leases: list[Lease] = []
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
            error.release = left_to_expire(leases, self._options.ttl)
            raise
        except BaseException:
            leases, self._leases = self._leases, []
            await to_its_end(release_all_quietly(leases))
            raise
        if self._options.kind == "on":
            _enclosing.set((*_enclosing.get(), *self._held()))
        if self._options.cancel_when_lost:
            self._call_in_loop = io_thread.caller_in_this_loop()
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
            await to_its_end(self._give_back(leases, exc))
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

    def _lease(self, name: str) -> Lease:
        options = self._options
        view = view_of(registry.meant(options.backend, name))
        if options.keep_on_error and view.backend.read_only:
            raise ReadOnlyBackend(repr(view.backend), "keep_on_error needs a backend that can be set from here")
        is_on = options.kind == "on"
        masks = frozenset(id_ for whose, id_ in _enclosing.get() if whose is view and not is_on)
        owner = options.owner or f"{options.code} in process {os.getpid()} on {socket.gethostname()}"[:MAX_OWNER]
        return Lease(
            view, Hold(kind=options.kind, owner=owner, reason=options.reason, masks=masks), options.ttl, self._lose
        )

    def _held(self) -> tuple[tuple[View, str], ...]:
        return tuple((lease.view, lease.id) for lease in self._leases)

    def _lose(self) -> None:
        self.lost.set()
        scope = self._scope
        if scope is not None and self._call_in_loop is not None:
            self._call_in_loop(scope.cancel)

    async def _give_back(self, leases: list[Lease], error: BaseException | None) -> None:
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
