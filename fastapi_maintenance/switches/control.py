"""Changing a switch: set its mode, ask what it says."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from anyio.lowlevel import current_token

from ..backends.base import BaseStateBackend, StoreBackend
from ..concurrency import io_thread
from ..exceptions import CorruptState, EmptiedStore, InvalidConfiguration, UnknownWindow, UnsupportedByBackend
from ..model.change import Change, set_mode
from ..model.limits import MAX_REASON, MAX_RETRY_AFTER
from ..model.modes import MaintenanceMode, as_mode
from ..model.moments import check_aware
from ..model.state import MaintenanceState
from ..model.text import check_text
from ..model.windows.plan import plan
from ..model.windows.window import Window
from .app_switch import DEFAULT, instead_of_meant
from .registry import registry
from .view import SwitchStatus, View
from .views import view_of

_CLOCKS_DIFFER = timedelta(days=1)
"""By how much at most, so that a window that is over for one host is not forgotten while it goes on for another."""


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
    """Return the state of a switch: its stored mode, reason, end, holds and windows.

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
    until: datetime | timedelta | None = None,
    retry_after: int | None = None,
    by: str | None = None,
) -> None:
    """Store the mode of a switch. While blocks hold the switch, it counts after them.

    Args:
        value: A bool or a mode.
        backend: Whose state to change; ``None``: the one that is meant here, see ``get_maintenance_mode``.
        name: The switch.
        reason: What to tell clients and colleagues.
        until: When the maintenance ends by itself: an aware datetime, or a ``timedelta`` from now.
        retry_after: After how many seconds clients are told to come back while the end isn't known.
        by: Who changes it, for people.

    Raises:
        ReadOnlyBackend: The state can't be set from here, as with an environment variable.
        UnsupportedByBackend: The backend stores on or off only, and more was asked.
        InvalidConfiguration: The mode, or an option, can't work.
        AmbiguousSwitch: Outside a request, where several apps have a backend of their own.
        InvalidSwitchName: The name can't be a switch's.
    """
    await change_mode(value, backend, name=name, reason=reason, until=until, retry_after=retry_after, by=by)


async def schedule_maintenance(
    start: datetime,
    end: datetime,
    backend: BaseStateBackend | None = None,
    *,
    name: str = DEFAULT,
    mode: MaintenanceMode | Literal["on", "read_only"] = "on",
    reason: str | None = None,
    rrule: str | None = None,
    zone: str | None = None,
    by: str | None = None,
) -> Window:
    """Plan a maintenance, once or again and again, and return it: its ``id`` cancels it.

    Nothing runs when it begins or ends: what the clock of a host says when a request comes is what counts. To store
    the mode "off" meanwhile ends what is going on, and a recurring one comes again.

    Args:
        start: When it begins, an aware datetime. Of a recurring one it is the first time.
        end: When it ends.
        backend: Whose state to change; ``None``: the one that is meant here, see ``get_maintenance_mode``.
        name: The switch.
        mode: What it does to requests.
        reason: What to tell clients and colleagues.
        rrule: By which rule it recurs (RFC 5545), such as ``"FREQ=WEEKLY;BYDAY=SU"``.
        zone: With ``rrule``: in which zone's local time it recurs, such as ``"Europe/Berlin"``; by default the
            ``ZoneInfo`` of ``start``.
        by: Who plans it, for people.

    Raises:
        InvalidConfiguration: It can't be what was meant, and why; or the state would become too large.
        ReadOnlyBackend: The state can't be set from here, as with an environment variable.
        UnsupportedByBackend: The backend stores on or off only.
        AmbiguousSwitch: Outside a request, where several apps have a backend of their own.
        InvalidSwitchName: The name can't be a switch's.
    """
    now = datetime.now(UTC)
    check_reason(reason)
    window = plan(start, end, now=now, mode=as_mode(mode).value, reason=reason, rrule=rrule, zone=zone)
    view = view_of(registry.meant(backend, name))
    await view.apply(
        Change(put_windows={window.id: window}, drop_windows=await _over(view, now - _CLOCKS_DIFFER), by=by)
    )
    return window


async def cancel_maintenance(
    window_id: str, backend: BaseStateBackend | None = None, *, name: str = DEFAULT, by: str | None = None
) -> None:
    """Cancel a planned maintenance, also while it goes on.

    Args:
        window_id: The ``id`` of what ``schedule_maintenance`` returned, as ``get_maintenance_state().windows`` has it.
        backend: Whose state to change; ``None``: the one that is meant here, see ``get_maintenance_mode``.
        name: The switch.
        by: Who cancels it, for people.

    Raises:
        UnknownWindow: There is none of that id; the error names those that are not over.
        ReadOnlyBackend: The state can't be set from here, as with an environment variable.
        UnsupportedByBackend: The backend stores on or off only.
        AmbiguousSwitch: Outside a request, where several apps have a backend of their own.
        InvalidSwitchName: The name can't be a switch's.
    """
    view, cancelled = view_of(registry.meant(backend, name)), frozenset({window_id})
    now = datetime.now(UTC)
    dropped = cancelled | await _over(view, now - _CLOCKS_DIFFER)
    try:
        await view.apply(Change(drop_windows=dropped, required_windows=cancelled, by=by))
    except UnknownWindow as error:
        # A store names all that it keeps, and does not read rules.
        raise UnknownWindow(error.ids, sorted(set(error.known) - await _over(view, now))) from None


async def break_hold(
    hold_id: str, backend: BaseStateBackend | None = None, *, name: str = DEFAULT, by: str | None = None
) -> None:
    """Take a hold away from the code that has it, which learns of it.

    Args:
        hold_id: Its id, as ``get_maintenance_state().holds`` has it.
        backend: Whose state to change; ``None``: the one that is meant here, see ``get_maintenance_mode``.
        name: The switch.
        by: Who breaks it, for people.

    Raises:
        HoldLost: There is none of that id any more.
    """
    broken = frozenset({hold_id})
    await view_of(registry.meant(backend, name)).apply(Change(drop_holds=broken, required_holds=broken, by=by))


async def list_switches(backend: BaseStateBackend | None = None) -> list[str]:
    """Return the names of the switches that have a state in a store, the default one first, without forgotten ones.

    Args:
        backend: That of the default switch; ``None``: the one that is meant here, see ``get_maintenance_mode``.

    Raises:
        UnsupportedByBackend: The store can't list its switches, as the environment and backends with two methods.
        BackendUnavailable: The store did not answer.
        AmbiguousSwitch: Outside a request, where several apps have a backend of their own.
    """
    backend = registry.meant(backend)
    names = await io_thread.run(backend.switch_names())
    if names is None:
        raise UnsupportedByBackend(repr(backend), "a list of its switches")
    return [name for name in names if not await _is_forgotten(registry.meant(backend, name))]


async def _is_forgotten(backend: BaseStateBackend) -> bool:
    """Return whether a switch was forgotten. One whose document can't be read was not."""
    state = None
    if isinstance(backend, StoreBackend):
        with contextlib.suppress(CorruptState, EmptiedStore):
            state = await io_thread.run(backend.load())
    return state is not None and state.forgotten


async def forget_switch(
    backend: BaseStateBackend | None = None, *, name: str, break_holds: bool = False, by: str | None = None
) -> None:
    """Forget a switch that no app uses any more: it is off, without windows, and no longer listed.

    This replaces a document that can't be read as well. To set the switch again makes it known again.

    Args:
        backend: Whose state to forget; ``None``: the one that is meant here, see ``get_maintenance_mode``.
        name: The switch.
        break_holds: Take away the holds of code that runs under maintenance.
        by: Who forgets it, for people.

    Raises:
        SwitchIsHeld: Code holds the switch on.
        ReadOnlyBackend: The state can't be set from here, as with an environment variable.
        UnsupportedByBackend: The backend stores on or off only.
        AmbiguousSwitch: Outside a request, where several apps have a backend of their own.
        InvalidSwitchName: The name can't be a switch's.
    """
    await view_of(registry.meant(backend, name)).apply(forgetting(break_holds=break_holds, by=by))


def forgetting(*, break_holds: bool, by: str | None) -> Change:
    """Return the change that forgets a switch."""
    return Change(forgets=True, break_holds=break_holds, refuse_while_held=not break_holds, by=by)


async def _over(view: View, now: datetime) -> frozenset[str]:
    """Return the ids of the windows that were over at a time."""
    return (view.peek() or await view.read()).timetable.over(now)


async def change_mode(
    value: bool | str,
    backend: BaseStateBackend | None = None,
    *,
    name: str = DEFAULT,
    reason: str | None = None,
    until: datetime | timedelta | None = None,
    retry_after: int | None = None,
    **requirements: Any,
) -> MaintenanceState:
    """Store the mode of a switch as the operator's tools do, and return the state after it.

    It takes what ``set_maintenance_mode`` takes and raises what that raises, and:

    Args:
        requirements: Members of ``Change``: ``by``, ``refuse_while_held``, ``break_holds``, ``expected_version``.

    Raises:
        VersionConflict, SwitchIsHeld: What the change requires isn't so.
    """
    mode, now = as_mode(value), datetime.now(UTC)
    check_reason(reason)
    if until is not None:
        until = _checked_end(until, now)
        if mode is MaintenanceMode.OFF:
            raise InvalidConfiguration("until goes with a mode that blocks, not with off")
    if retry_after is not None and (type(retry_after) is not int or not 0 <= retry_after <= MAX_RETRY_AFTER):
        raise InvalidConfiguration(f"retry_after={retry_after!r} must be whole seconds from 0 to {MAX_RETRY_AFTER}")
    change = set_mode(mode, now=now, reason=reason, until=until, retry_after=retry_after, **requirements)
    return await view_of(registry.meant(backend, name)).apply(change)


def check_reason(reason: str | None) -> None:
    """Raise ``InvalidConfiguration`` if a reason can't be stored."""
    if reason is None:
        return
    check_text(reason, "reason")
    if len(reason) > MAX_REASON:
        raise InvalidConfiguration(
            f"reason={reason[:20]!r}... has {len(reason)} characters, it must have at most {MAX_REASON}: "
            "give a link to the rest"
        )


def _checked_end(until: datetime | timedelta, now: datetime) -> datetime:
    """Return when a maintenance ends, or raise ``InvalidConfiguration`` if that can't be stored or is over."""
    try:
        end = now + until if isinstance(until, timedelta) else until
        check_aware(end, "until")
        end.astimezone(UTC)
    except ValueError as error:
        raise InvalidConfiguration(f"{error}; nothing was changed") from None
    except OverflowError:
        raise InvalidConfiguration(f"until={until}: that is outside of the years 1 to 9999") from None
    if end <= now:
        given = until if isinstance(until, timedelta) else until.isoformat()
        raise InvalidConfiguration(f"until={given}: that is over; a time to come is needed")
    return end


def _is_on(state: MaintenanceState, backend: BaseStateBackend | None, name: str) -> bool:
    """Return whether a state blocks anything now, for the app that is answering if that is what a call means."""
    instead = instead_of_meant(backend, name)
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
