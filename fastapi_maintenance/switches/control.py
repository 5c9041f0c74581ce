"""Reads and changes a switch: its mode, its windows and its holds."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

from anyio.lowlevel import current_token

from ..backends.base import BaseStateBackend, StoreBackend
from ..exceptions import CorruptState, EmptiedStore, InvalidConfiguration, UnknownWindow, UnsupportedByBackend
from ..model.change import Change, set_mode
from ..model.limits import MAX_REASON, MAX_RETRY_AFTER
from ..model.modes import MaintenanceMode, ModeName, PlannedModeName, as_mode
from ..model.moments import to_utc
from ..model.state import MaintenanceState
from ..model.text import check_text
from ..model.windows.plan import plan
from ..model.windows.window import Window
from .app_switch import DEFAULT
from .passage import override_of_meant
from .registry import registry
from .views.lookup import view_of
from .views.view import SwitchStatus, View

_CLOCKS_DIFFER = timedelta(days=1)
"""The maximum clock difference between hosts, so that no window is dropped that is still active for another host."""


async def get_maintenance_mode(backend: BaseStateBackend | None = None, *, name: str = DEFAULT) -> bool:
    """Return whether anything is blocked now: ``True`` under ``read_only`` too.

    Inside a request, without ``backend`` and ``name``, this is the effective mode of the app that is answering,
    including its ``enable_maintenance``.

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
    view = view_of(registry.resolve(backend, name))
    return view.peek() or await view.read()


def get_maintenance_status(backend: BaseStateBackend | None = None, *, name: str = DEFAULT) -> SwitchStatus:
    """Return how current this process's copy of a switch is: its version, its age, and the last error.

    Does no I/O. Before the first request that uses the switch, it is ``not_ready``.

    Raises:
        AmbiguousSwitch: Outside a request, where several apps have a backend of their own.
        InvalidSwitchName: The name can't be a switch's.
    """
    return view_of(registry.resolve(backend, name)).status()


def is_maintenance_on(backend: BaseStateBackend | None = None, *, name: str = DEFAULT) -> bool:
    """Return whether anything is blocked now, for code outside an event loop, such as job workers and scripts.

    With a file, Redis or SQL, the first call of a process waits for the store's first answer, up to
    ``init_timeout`` seconds; later calls read this process's copy.

    Raises:
        RuntimeError: It was called on an event loop, which it could block.
        AmbiguousSwitch: Several apps have a backend of their own.
        InvalidSwitchName: The name can't be a switch's.
    """
    view = view_of(registry.resolve(backend, name))
    state = view.peek()
    if state is None:
        if _is_on_event_loop():
            msg = "is_maintenance_on() would block this event loop: use `await get_maintenance_mode()` here"
            raise RuntimeError(msg)
        state = view.read_blocking()
    return _is_on(state, backend, name)


async def set_maintenance_mode(
    value: bool | MaintenanceMode | ModeName,
    backend: BaseStateBackend | None = None,
    *,
    name: str = DEFAULT,
    reason: str | None = None,
    until: datetime | timedelta | None = None,
    retry_after: int | None = None,
    by: str | None = None,
) -> None:
    """Store the mode of a switch. While blocks hold the switch, the mode takes effect after them.

    Args:
        value: A bool or a mode.
        backend: The backend to change; ``None``: the answering app's, the only app's own, or the configured one.
        name: The switch.
        reason: The reason that clients and operators see.
        until: When the maintenance ends by itself: an aware datetime, or a ``timedelta`` from now.
        retry_after: The ``Retry-After`` of refused requests in seconds, while the end isn't known.
        by: Who makes the change; recorded for operators.

    Raises:
        ReadOnlyBackend: The state can't be set from here, as with an environment variable.
        UnsupportedByBackend: The backend stores only on or off, and the call needs more.
        InvalidConfiguration: The mode or an option is invalid.
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
    mode: MaintenanceMode | PlannedModeName = "on",
    reason: str | None = None,
    rrule: str | None = None,
    zone: str | None = None,
    by: str | None = None,
) -> Window:
    """Schedule a maintenance window, once or recurring, and return it: pass its ``id`` to cancel it.

    Nothing runs when the window begins or ends: each request compares it with the clock of its host. Storing the mode
    "off" ends an active window; a recurring window returns at its next time.

    Args:
        start: When it begins, an aware datetime; for a recurring window, the first time.
        end: When it ends, an aware datetime.
        backend: The backend to change; ``None``: the answering app's, the only app's own, or the configured one.
        name: The switch.
        mode: The mode during the window.
        reason: The reason that clients and operators see.
        rrule: The recurrence rule (RFC 5545), such as ``"FREQ=WEEKLY;BYDAY=SU"``.
        zone: With ``rrule``: the time zone in which it recurs, such as ``"Europe/Berlin"``; by default the
            ``ZoneInfo`` of ``start``.
        by: Who schedules it; recorded for operators.

    Raises:
        InvalidConfiguration: The window is invalid, or the state would become too large.
        ReadOnlyBackend: The state can't be set from here, as with an environment variable.
        UnsupportedByBackend: The backend stores on or off only.
        AmbiguousSwitch: Outside a request, where several apps have a backend of their own.
        InvalidSwitchName: The name can't be a switch's.
    """
    now = datetime.now(UTC)
    check_reason(reason)
    window = plan(start, end, now=now, mode=as_mode(mode).value, reason=reason, rrule=rrule, zone=zone)
    view = view_of(registry.resolve(backend, name))
    finished = await _finished_windows(view, now - _CLOCKS_DIFFER)
    await view.apply(Change(put_windows={window.id: window}, drop_windows=finished, by=by))
    return window


async def cancel_maintenance(
    window_id: str, backend: BaseStateBackend | None = None, *, name: str = DEFAULT, by: str | None = None
) -> None:
    """Cancel a maintenance window, even while it is active.

    Args:
        window_id: The ``id`` of the window, from ``schedule_maintenance`` or ``get_maintenance_state().windows``.
        backend: The backend to change; ``None``: the answering app's, the only app's own, or the configured one.
        name: The switch.
        by: Who cancels it; recorded for operators.

    Raises:
        UnknownWindow: No window has this id; the error lists the ids of all windows that are not over.
        ReadOnlyBackend: The state can't be set from here, as with an environment variable.
        UnsupportedByBackend: The backend stores on or off only.
        AmbiguousSwitch: Outside a request, where several apps have a backend of their own.
        InvalidSwitchName: The name can't be a switch's.
    """
    view, cancelled = view_of(registry.resolve(backend, name)), frozenset({window_id})
    now = datetime.now(UTC)
    dropped = cancelled | await _finished_windows(view, now - _CLOCKS_DIFFER)
    try:
        await view.apply(Change(drop_windows=dropped, required_windows=cancelled, by=by))
    except UnknownWindow as error:
        # A store lists every window that it keeps, since it does not evaluate rules.
        raise UnknownWindow(error.ids, sorted(set(error.known) - await _finished_windows(view, now))) from None


async def break_hold(
    hold_id: str, backend: BaseStateBackend | None = None, *, name: str = DEFAULT, by: str | None = None
) -> None:
    """Remove a hold; the code that holds the switch is notified.

    Args:
        hold_id: The hold's id, from ``get_maintenance_state().holds``.
        backend: The backend to change; ``None``: the answering app's, the only app's own, or the configured one.
        name: The switch.
        by: Who breaks it; recorded for operators.

    Raises:
        HoldLost: No hold has this id any more.
    """
    broken = frozenset({hold_id})
    await view_of(registry.resolve(backend, name)).apply(Change(drop_holds=broken, required_holds=broken, by=by))


async def list_switches(backend: BaseStateBackend | None = None) -> list[str]:
    """Return the names of the switches with a state in the store: the default switch first, no forgotten switches.

    Args:
        backend: The default switch's; ``None``: the answering app's, the only app's own, or the configured one.

    Raises:
        UnsupportedByBackend: The store can't list its switches, such as the environment or a two-method backend.
        BackendUnavailable: The store did not answer.
        AmbiguousSwitch: Outside a request, where several apps have a backend of their own.
    """
    backend = registry.resolve(backend)
    names = await backend.switch_names()
    if names is None:
        raise UnsupportedByBackend(repr(backend), "a list of its switches")
    return [name for name in names if not await _is_forgotten(registry.resolve(backend, name))]


async def _is_forgotten(backend: BaseStateBackend) -> bool:
    """Return whether a switch was forgotten; a switch with an unreadable document was not."""
    state = None
    if isinstance(backend, StoreBackend):
        with contextlib.suppress(CorruptState, EmptiedStore):
            state = await backend.load()
    return state is not None and state.forgotten


async def forget_switch(
    backend: BaseStateBackend | None = None, *, name: str, break_holds: bool = False, by: str | None = None
) -> None:
    """Forget a switch that no app uses any more: it is off, has no windows, and is no longer listed.

    This also replaces an unreadable document. Setting the switch again lists it again.

    Args:
        backend: The backend to change; ``None``: the answering app's, the only app's own, or the configured one.
        name: The switch.
        break_holds: Remove the holds of code that runs under maintenance.
        by: Who forgets it; recorded for operators.

    Raises:
        SwitchIsHeld: Code holds the switch on.
        ReadOnlyBackend: The state can't be set from here, as with an environment variable.
        UnsupportedByBackend: The backend stores on or off only.
        AmbiguousSwitch: Outside a request, where several apps have a backend of their own.
        InvalidSwitchName: The name can't be a switch's.
    """
    change = Change(forgets=True, break_holds=break_holds, by=by)
    await view_of(registry.resolve(backend, name)).apply(change)


def describe_state(state: MaintenanceState, now: datetime) -> dict[str, Any]:
    """Return the fields that operators see of a switch, for the command line and the admin."""
    explained = state.explanation_at(now)
    shown = {"kind", "owner", "reason", "expires_at"}
    return {
        "mode": state.mode_at(now),
        **explained._asdict(),
        "stored_mode": state.mode,
        "holds": [{"id": id_, **hold.model_dump(include=shown)} for id_, hold in state.holds_at(now).items()],
        "windows": [window.model_dump() for window in state.windows_left(now)],
        "next_change_at": state.next_change_at(now),
        "updated_by": state.updated_by,
        "updated_at": state.updated_at,
        "version": state.version,
    }


async def _finished_windows(view: View, now: datetime) -> frozenset[str]:
    """Return the ids of the windows that are over at ``now``."""
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
    """Store the mode of a switch for an operator's tool, and return the new state.

    It takes the arguments and raises the errors of ``set_maintenance_mode``, and in addition:

    Args:
        requirements: Members of ``set_mode``: ``by``, ``break_holds``, ``expected_version``.

    Raises:
        VersionConflict, SwitchIsHeld: The change's requirements are not met.
    """
    mode, now = as_mode(value), datetime.now(UTC)
    check_reason(reason)
    if until is not None:
        until = _check_end(until, now)
        if mode is MaintenanceMode.OFF:
            raise InvalidConfiguration("until must be given with a mode that blocks, got off")
    if retry_after is not None and (type(retry_after) is not int or not 0 <= retry_after <= MAX_RETRY_AFTER):
        raise InvalidConfiguration(f"retry_after={retry_after!r} must be whole seconds from 0 to {MAX_RETRY_AFTER}")
    change = set_mode(mode, now=now, reason=reason, until=until, retry_after=retry_after, **requirements)
    return await view_of(registry.resolve(backend, name)).apply(change)


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


def _check_end(until: datetime | timedelta, now: datetime) -> datetime:
    """Return when a maintenance ends, or raise ``InvalidConfiguration`` if it is invalid or not in the future."""
    try:
        end = now + until if isinstance(until, timedelta) else until
        to_utc(end, "until")
    except ValueError as error:
        raise InvalidConfiguration(f"{error}; nothing was changed") from None
    except OverflowError:
        raise InvalidConfiguration(f"until must be within the years 1 to 9999, got {until}") from None
    if end <= now:
        given = until if isinstance(until, timedelta) else until.isoformat()
        raise InvalidConfiguration(f"until must be in the future, got {given}")
    return end


def _is_on(state: MaintenanceState, backend: BaseStateBackend | None, name: str) -> bool:
    """Return whether a state blocks anything now, including the mode override of the answering app."""
    override = override_of_meant(backend, name)
    return state.mode_at(datetime.now(UTC), override=override) is not MaintenanceMode.OFF


def _is_on_event_loop() -> bool:
    """Return whether this thread is running asyncio or trio; anyio does not detect asyncio's callbacks."""
    for detect in (asyncio.get_running_loop, current_token):
        try:
            detect()
        except RuntimeError:
            continue
        return True
    return False
