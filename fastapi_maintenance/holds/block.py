"""Blocks of code that hold a switch on or off.

A hold in a file, Redis or a database is a lease: it is renewed while its block runs, and expires after its process
has died. A hold in memory ends with its process.
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
from ..switches.backend_urls import check_name
from ..switches.control import check_reason
from ..switches.registry import check_backend, registry
from ..switches.views.lookup import view_of
from ..switches.views.view import View
from .in_flight import checked_seconds, wait_until_drained
from .lease import Lease, await_to_end, leave_to_expire, release_quietly

logger = logging.getLogger("fastapi_maintenance")

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_TTL = 60.0
_SHORTEST_TTL, _LONGEST_TTL = timedelta(seconds=1), timedelta(days=366)

_enclosing: ContextVar[tuple[tuple[View, str], ...]] = ContextVar("fastapi_maintenance_enclosing", default=())
"""The on-holds of the blocks around the current code, outermost first."""


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
    """The name of the holding code, for operators."""


class MaintenanceBlock:
    """Holds switches: an async context manager, and a decorator for async functions.

    ``maintenance_mode_on`` and ``maintenance_mode_off`` create it.
    """

    def __init__(self, options: _Options) -> None:
        self.lost = threading.Event()
        """Set once a hold of this block is lost: an operator broke it, or it expired and is taken again."""
        self._options = options
        self._leases: list[Lease] = []
        self._scope: CancelScope | None = None
        self._call_in_loop: Callable[[Callable[[], None]], None] | None = None

    def __repr__(self) -> str:
        return f"<maintenance_mode_{self._options.kind} of {', '.join(self._options.names)}>"

    async def __aenter__(self) -> Self:
        """Hold all switches, or none if one fails."""
        if self._leases:
            msg = "this block is entered already; make a new maintenance_mode_on/off(...) for each use"
            raise RuntimeError(msg)
        self.lost = threading.Event()
        self._leases = [self._make_lease(name) for name in self._options.names]
        try:
            for lease in self._leases:
                await lease.take()
            if self._options.drain is not None:
                await wait_until_drained(
                    [lease.view for lease in self._leases],
                    self._options.drain,
                    close_websockets=self._options.close_websockets,
                )
        except DrainTimeout as error:
            leases, self._leases = self._leases, []
            error.release = leave_to_expire(leases, self._options.ttl)
            raise
        except BaseException:
            leases, self._leases = self._leases, []
            await await_to_end(release_quietly(leases))
            raise
        if self._options.kind == "on":
            _enclosing.set((*_enclosing.get(), *self._hold_keys()))
        if self._options.cancel_when_lost:
            self._call_in_loop = io_thread.caller_in_this_loop()
            self._scope = CancelScope().__enter__()
            if self.lost.is_set():
                self._scope.cancel()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Release the holds, whatever the outcome of the block.

        Raises:
            HoldLost: The block was cancelled because one of its holds was lost.
            BackendUnavailable: The store failed, and the hold would never expire.
        """
        if not self._leases:
            msg = "this block was never entered"
            raise RuntimeError(msg)
        held = self._hold_keys()
        _enclosing.set(tuple(enclosing for enclosing in _enclosing.get() if enclosing not in held))
        leases, self._leases = self._leases, []
        scope, self._scope = self._scope, None
        try:
            await await_to_end(self._give_back(leases, exc))
        finally:
            swallows = scope is not None and scope.__exit__(exc_type, exc, traceback)
        if swallows and exc is not None:
            raise HoldLost([lease.id for lease in leases])

    def __call__(self, function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        """Return ``function`` wrapped to hold the switches during each call."""
        if not inspect.iscoroutinefunction(function):
            msg = f"{function!r} is not an async function; a sync function has no event loop to hold a switch from"
            raise TypeError(msg)
        options = replace(self._options, code=f"{function.__module__}.{function.__qualname__}")

        @functools.wraps(function)
        async def held(*args: P.args, **kwargs: P.kwargs) -> T:
            async with MaintenanceBlock(options):
                return await function(*args, **kwargs)

        return held

    def _make_lease(self, name: str) -> Lease:
        options = self._options
        view = view_of(registry.resolve(options.backend, name))
        if options.keep_on_error and view.backend.read_only:
            raise ReadOnlyBackend(repr(view.backend), "keep_on_error needs a backend that can be set from here")
        is_on = options.kind == "on"
        masks = frozenset(id_ for holder, id_ in _enclosing.get() if holder is view and not is_on)
        owner = options.owner or f"{options.code} in process {os.getpid()} on {socket.gethostname()}"[:MAX_OWNER]
        hold = Hold(kind=options.kind, owner=owner, reason=options.reason, masks=masks)
        return Lease(view, hold, options.ttl, self._mark_lost)

    def _hold_keys(self) -> tuple[tuple[View, str], ...]:
        return tuple((lease.view, lease.id) for lease in self._leases)

    def _mark_lost(self) -> None:
        self.lost.set()
        scope = self._scope
        if scope is not None and self._call_in_loop is not None:
            self._call_in_loop(scope.cancel)

    async def _give_back(self, leases: list[Lease], error: BaseException | None) -> None:
        """Release all holds, then raise the first failure; log the others."""
        failures: list[Exception] = []
        for lease in leases:
            fields = self._fields_to_keep(lease.view) if self._options.keep_on_error and error is not None else None
            try:
                await lease.give_back(fields)
            except Exception as failure:  # noqa: BLE001 - the other holds must be released as well
                failures.append(failure)
        for unraised in failures[1:]:
            logger.error("a hold could not be released, so it stays", exc_info=unraised)
        if failures:
            raise failures[0]

    def _fields_to_keep(self, view: View) -> Mapping[str, Any]:
        """Return the change of fields that stores the block's mode after a failure."""
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

    Blocks may overlap: the switch stays on until the last block ends, and a mode that an operator stores meanwhile
    takes effect after it. Blocks do not exclude each other: they are not locks.

    Args:
        backend: The switch's backend; ``None``: the default where the block is entered.
        name: The switch, or several, which are held all or not at all.
        reason: The reason that clients and operators see.
        ttl: The seconds or ``timedelta`` until a hold expires after its process has died. It is renewed every third
            of that, even while the block runs blocking code. ``None``: it never expires; an operator can break it.
        drain: The maximum seconds or ``timedelta`` to wait before the block begins, until this process has finished
            its earlier requests; the block's own request is ignored.
        keep_on_error: Whether to store the mode permanently when the block raises.
        cancel_when_lost: Whether to cancel the block when its hold is lost, for example broken by an operator. The
            block then raises ``HoldLost``. Its ``lost``, a ``threading.Event``, is set in any case.
        close_websockets: Whether draining closes websockets with code 1012; otherwise it waits for them to end.
        owner: The owner of the hold, for operators; by default code, process and host.

    Raises:
        InvalidConfiguration: An argument is invalid.
        InvalidSwitchName: A name is not valid for a switch.

    Entering raises the errors of ``set_maintenance_mode``, and ``DrainTimeout`` if requests are still running after
    ``drain`` seconds: maintenance then stays on for ``ttl``, or until ``await error.release()``. If the store fails
    when the block ends, a hold with ``ttl`` expires; a hold without it stays, and ``BackendUnavailable`` is raised.
    """
    return _make_block(
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

    It overrides the stored mode and the enclosing ``maintenance_mode_on`` blocks, but not the blocks of other code.
    It takes the arguments of ``maintenance_mode_on``, except those for draining.
    """
    return _make_block(
        "off", backend, name, reason, ttl, owner, keep_on_error=keep_on_error, cancel_when_lost=cancel_when_lost
    )


def _make_block(  # noqa: PLR0917
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
        raise InvalidConfiguration(f"name must contain at least one switch, got {name!r}")
    check_reason(reason)
    if owner is not None and not isinstance(owner, str):
        raise InvalidConfiguration(f"owner must be a string, got {owner!r}")
    if owner is not None and len(owner) > MAX_OWNER:
        raise InvalidConfiguration(f"owner must have at most {MAX_OWNER} characters, got {len(owner)}")
    if flags.get("close_websockets") and drain is None:
        raise InvalidConfiguration("close_websockets=True must be given with drain=..., which closes them")
    for flag, value in flags.items():
        if not isinstance(value, bool):
            raise InvalidConfiguration(f"{flag} must be True or False, got {value!r}")
    options = _Options(
        kind=kind,
        backend=None if backend is None else check_backend(backend),
        names=tuple(check_name(one) for one in names),
        reason=reason,
        ttl=_check_ttl(ttl),
        owner=owner,
        code=_name_of_caller(),
        drain=None if drain is None else checked_seconds(drain),
        **{"close_websockets": False, **flags},
    )
    return MaintenanceBlock(options)


def _check_ttl(ttl: float | timedelta | None) -> timedelta | None:
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
        f"ttl must be seconds or a timedelta from 1 s to 366 days, or None to never expire, got {ttl!r}"
    )


def _name_of_caller() -> str:
    """Return the name of the code that creates a block."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return "?" if frame is None else f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_qualname}"
