"""Changing a switch: set its mode, hold it on or off for the duration of a block, ask what it says."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, ParamSpec, Self, TypeVar

from anyio import CancelScope
from anyio.lowlevel import current_token

from .backends.base import BaseStateBackend
from .exceptions import InvalidConfiguration
from .registry import DEFAULT, answering, checked_backend, checked_name, registry
from .snapshot import SwitchStatus, View, view_of
from .state import Change, Hold, MaintenanceMode, MaintenanceState, as_mode, set_mode

logger = logging.getLogger("fastapi_maintenance")

P = ParamSpec("P")
T = TypeVar("T")


async def get_maintenance_mode(backend: BaseStateBackend | None = None, *, name: str = DEFAULT) -> bool:
    """Return whether anything is blocked now: ``True`` under ``read_only`` too.

    Without ``backend`` and ``name``, inside a request: what counts for the app that is answering, its
    ``enable_maintenance`` included.

    Raises:
        AmbiguousSwitch: Outside a request, where several apps have a backend of their own.
        InvalidSwitchName: The name can't be a switch's.
    """
    return _is_on(await get_maintenance_state(backend, name=name), backend, name)


async def get_maintenance_state(backend: BaseStateBackend | None = None, *, name: str = DEFAULT) -> MaintenanceState:
    """Return the state of a switch: its stored mode, reason, end and holds.

    Raises:
        AmbiguousSwitch: Outside a request, where several apps have a backend of their own.
        InvalidSwitchName: The name can't be a switch's.
    """
    view = view_of(registry.meant(backend, name))
    return view.peek() or await view.read()


def get_maintenance_status(backend: BaseStateBackend | None = None, *, name: str = DEFAULT) -> SwitchStatus:
    """Return how well this process knows a switch: ready, stale or not, since when, at which version, what failed.

    Does no I/O: before the first request that needs the switch it is ``not_ready``.

    Raises:
        AmbiguousSwitch: Outside a request, where several apps have a backend of their own.
        InvalidSwitchName: The name can't be a switch's.
    """
    return view_of(registry.meant(backend, name)).status()


def is_maintenance_on(backend: BaseStateBackend | None = None, *, name: str = DEFAULT) -> bool:
    """Return what ``get_maintenance_mode`` returns, for code that is not on an event loop: job workers, scripts.

    With a file, Redis or SQL, the first call of a process waits for the first answer of the store, up to
    ``init_timeout``; the others read this process's last copy.

    Raises:
        RuntimeError: Called on an event loop, which it could block.
        AmbiguousSwitch: Several apps have a backend of their own.
        InvalidSwitchName: The name can't be a switch's.
    """
    view = view_of(registry.meant(backend, name))
    state = view.peek()
    if state is None:
        if _is_on_event_loop():
            msg = "is_maintenance_on() would block this event loop: use `await get_maintenance_mode()` here"
            raise RuntimeError(msg)
        state = view.read_blocking()
    return _is_on(state, backend, name)


async def set_maintenance_mode(
    value: bool | MaintenanceMode | Literal["off", "on", "read_only"],
    backend: BaseStateBackend | None = None,
    *,
    name: str = DEFAULT,
    reason: str | None = None,
    until: datetime | None = None,
) -> None:
    """Store the mode of a switch. While blocks hold the switch, it counts after them.

    Args:
        value: A bool or a mode.
        backend: Whose state to change; ``None``: the one that is meant here, see ``get_maintenance_mode``.
        name: The switch.
        reason: What to tell clients and colleagues.
        until: When the maintenance ends by itself, an aware datetime.

    Raises:
        ReadOnlyBackend: The state can't be set from here, as with an environment variable.
        UnsupportedByBackend: The backend stores on or off only, and more was asked.
        InvalidConfiguration: The mode, reason or end can't work.
        AmbiguousSwitch: Outside a request, where several apps have a backend of their own.
        InvalidSwitchName: The name can't be a switch's.
    """
    await change_mode(value, backend, name=name, reason=reason, until=until)


async def change_mode(
    value: bool | str,
    backend: BaseStateBackend | None = None,
    *,
    name: str = DEFAULT,
    reason: str | None = None,
    until: datetime | None = None,
    retry_after: int | None = None,
    **requirements: Any,
) -> MaintenanceState:
    """Store the mode of a switch as the operator's tools do, and return the state after it.

    It takes what ``set_maintenance_mode`` takes and raises what that raises, and:

    Args:
        retry_after: After how many seconds clients are told to come back while the end isn't known.
        requirements: Members of ``Change``: ``by``, ``refuse_while_held``, ``break_holds``, ``expected_version``.

    Raises:
        VersionConflict, SwitchIsHeld: What the change requires isn't so.
    """
    mode, now = as_mode(value), datetime.now(UTC)
    _check_reason(reason)
    if until is not None:
        end: object = until
        if not isinstance(end, datetime) or end.tzinfo is None:
            raise InvalidConfiguration(
                f"until={until!r}: an aware datetime is needed, such as datetime.now(UTC) + ..."
            )
        if until <= now:
            raise InvalidConfiguration(f"until={until.isoformat()}: that is over; a time to come is needed")
        if mode is MaintenanceMode.OFF:
            raise InvalidConfiguration("until goes with a mode that blocks, not with off")
    if retry_after is not None and (type(retry_after) is not int or retry_after < 0):
        raise InvalidConfiguration(f"retry_after={retry_after!r}: whole seconds, 0 or more, are needed")
    change = set_mode(mode, now=now, reason=reason, until=until, retry_after=retry_after, **requirements)
    return await view_of(registry.meant(backend, name)).apply(change)


def _check_reason(reason: str | None) -> None:
    try:
        if reason is not None:
            str.encode(reason)
    except (TypeError, UnicodeEncodeError):
        raise InvalidConfiguration(f"reason={reason!r}: a text is needed") from None


def _is_on(state: MaintenanceState, backend: BaseStateBackend | None, name: str) -> bool:
    """Return whether a state blocks anything now, for the app that is answering if that is what a call means."""
    app = answering.get()
    instead = app.instead if app is not None and backend is None and name == DEFAULT else None
    return state.mode_at(datetime.now(UTC), instead=instead) is not MaintenanceMode.OFF


def _is_on_event_loop() -> bool:
    """Return whether this thread is running asyncio or trio; in a callback of asyncio's, anyio doesn't know."""
    for tell in (asyncio.get_running_loop, current_token):
        try:
            tell()
        except RuntimeError:
            continue
        return True
    return False


_enclosing: ContextVar[tuple[tuple[View, str], ...]] = ContextVar("fastapi_maintenance_enclosing", default=())
"""The on-holds whose blocks this code is in, outermost first."""


class _Block:
    """A block of code that holds a switch: an async context manager, and a decorator for async functions."""

    def __init__(
        self, kind: Literal["on", "off"], backend: BaseStateBackend | None, name: str, reason: str | None
    ) -> None:
        given: object = backend
        if callable(given) and not isinstance(given, BaseStateBackend):
            raise InvalidConfiguration(
                f"maintenance_mode_{kind} decorates with parentheses: @maintenance_mode_{kind}()"
            )
        if backend is not None:
            checked_backend(backend)
        checked_name(name)
        _check_reason(reason)
        self._kind = kind
        self._backend = backend
        self._name = name
        self._reason = reason
        self._held: tuple[View, str] | None = None

    async def __aenter__(self) -> Self:
        if self._held is not None:
            msg = "this block is entered already; make a new maintenance_mode_on/off(...) for each"
            raise RuntimeError(msg)
        view, id_ = view_of(registry.meant(self._backend, self._name)), uuid.uuid4().hex
        masks = frozenset(enclosing for whose, enclosing in _enclosing.get() if whose is view and self._kind == "off")
        self._held = view, id_
        try:
            await view.apply(Change(put_holds={id_: Hold(kind=self._kind, reason=self._reason, masks=masks)}))
        except BaseException:
            self._held = None
            await _to_its_end(_give_back(view, id_))
            raise
        if self._kind == "on":
            _enclosing.set((*_enclosing.get(), self._held))
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        held = self._held
        if held is None:
            msg = "this block was never entered"
            raise RuntimeError(msg)
        self._held = None
        _enclosing.set(tuple(enclosing for enclosing in _enclosing.get() if enclosing != held))
        await _to_its_end(held[0].apply(Change(drop_holds=frozenset({held[1]}))))

    def __call__(self, function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        """Hold the switch whenever ``function`` runs."""
        if not inspect.iscoroutinefunction(function):
            msg = f"{function!r} is not an async function; inside a sync one there is no loop to hold a switch from"
            raise TypeError(msg)

        @functools.wraps(function)
        async def held(*args: P.args, **kwargs: P.kwargs) -> T:
            async with type(self)(self._kind, self._backend, self._name, self._reason):
                return await function(*args, **kwargs)

        return held


async def _give_back(view: View, id_: str) -> None:
    """Release a hold that may or may not have been taken."""
    try:
        await view.apply(Change(drop_holds=frozenset({id_})))
    except Exception:
        logger.exception("a hold that could not be taken could not be given back either")


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
                await asyncio.shield(task)
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
    backend: BaseStateBackend | None = None, *, name: str = DEFAULT, reason: str | None = None
) -> _Block:
    """Hold a switch on for the duration of a block, or of each call of a decorated async function.

    Blocks overlap in any order: the switch stays on until the last one leaves, and what an operator stores meanwhile
    counts after it. A block excludes nobody else's: it is not a lock.

    Args:
        backend: Whose switch; ``None``: the one that is meant where the block is entered.
        name: The switch.
        reason: What to tell clients and colleagues.
    """
    return _Block("on", backend, name, reason)


def maintenance_mode_off(
    backend: BaseStateBackend | None = None, *, name: str = DEFAULT, reason: str | None = None
) -> _Block:
    """Hold a switch off for the duration of a block, or of each call of a decorated async function.

    It opens what an operator stored, and the ``maintenance_mode_on`` blocks that it is in itself; those of other code
    stay closed. Takes what ``maintenance_mode_on`` takes.
    """
    return _Block("off", backend, name, reason)
