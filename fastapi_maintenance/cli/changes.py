"""The commands that change a switch."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import typer

from ..backends.base import BaseStateBackend
from ..exceptions import CorruptState, InvalidConfiguration, MaintenanceError, UnknownWindow
from ..model.modes import MaintenanceMode, PlannedModeName
from ..model.state import MaintenanceState
from ..model.text import in_one_line
from ..model.windows.window import Window
from ..switches.app_switch import DEFAULT
from ..switches.control import cancel_maintenance, change_mode, forget_switch, schedule_maintenance
from ..switches.views.lookup import view_of
from .program import AsJson, Backend, BreakHolds, Name, Names, New, Quiet, ReadOnly, Reason, Results
from .store import (
    all_stores_of,
    check_known,
    check_writable,
    complete_names,
    is_file,
    load_state,
    place_of,
    read_state,
    store_of,
    stores_of,
)
from .terminal import (
    PROGRAM,
    describe_window,
    document_of,
    print_note,
    print_result,
    print_text,
    suffix_of,
    summary_of,
)
from .values import (
    SUNDAY,
    add_duration,
    operator_name,
    parse_duration,
    parse_end,
    parse_seconds,
    parse_time,
)


def turn_on(
    names: Names = None,
    *,
    backend: Backend = None,
    length: Annotated[
        str | None, typer.Option("--for", metavar="DURATION", help="End automatically after 90s, 15m, 2h, 1d, 1h30m.")
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(metavar="TIME", help=f"End automatically then: ISO 8601 with a zone, {SUNDAY}T04:00Z."),
    ] = None,
    reason: Reason = None,
    read_only: ReadOnly = False,
    retry_after: Annotated[
        str | None, typer.Option(metavar="SECONDS", help="When clients may retry, while the end is unknown.")
    ] = None,
    new: New = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    r"""Turn maintenance on. Also: down.

    \b
    fastapi-maintenance on
    fastapi-maintenance on billing orders --for 1h30m --reason 'invoices are being moved'
    fastapi-maintenance on --read-only --until {sunday}T04:00+01:00
    """
    if length is not None and until is not None:
        raise InvalidConfiguration("--for and --until must not be combined: both set the end")
    end = None if until is None else parse_time(until, "--until")
    if end is not None and end <= datetime.now(UTC):
        raise InvalidConfiguration(f"--until must be in the future, got {until!r}; nothing was changed")
    if length is not None:
        end = add_duration(datetime.now(UTC), parse_duration(length, "--for"), "--for")
    mode = MaintenanceMode.READ_ONLY if read_only else MaintenanceMode.ON
    change = partial(
        change_mode,
        mode,
        reason=reason,
        until=end,
        retry_after=None if retry_after is None else parse_seconds(retry_after, "--retry-after"),
    )
    stores = stores_of(backend, names or (DEFAULT,))
    _change(mode, stores, change, Results(as_json=as_json, quiet=quiet), new=new)


def turn_off(
    names: Names = None,
    *,
    backend: Backend = None,
    all_switches: Annotated[bool, typer.Option("--all", help="Turn all switches of the store off.")] = False,
    break_holds: BreakHolds = False,
    new: New = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    r"""Turn maintenance off. Also: up. Refused while running code holds the switch on.

    \b
    fastapi-maintenance off
    fastapi-maintenance off billing --break-holds
    fastapi-maintenance off --all
    """
    if all_switches and names:
        raise InvalidConfiguration(f"--all must come without names, got {', '.join(names)}; nothing was changed")
    stores = all_stores_of(backend) if all_switches else stores_of(backend, names or (DEFAULT,))
    change = partial(change_mode, MaintenanceMode.OFF, break_holds=break_holds)
    _change(MaintenanceMode.OFF, stores, change, Results(as_json=as_json, quiet=quiet), new=new)


def forget(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="The switches.", autocompletion=complete_names)],
    *,
    backend: Backend = None,
    break_holds: BreakHolds = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    r"""Forget switches that no app uses: turn them off, remove their windows, and list them no longer.

    \b
    fastapi-maintenance forget billing

    Refused while running code holds the switch on. An unreadable document is forgotten too.
    """
    stores, change = stores_of(backend, names), partial(_forget_and_read, break_holds=break_holds)
    results = Results(as_json=as_json, quiet=quiet)
    _change(MaintenanceMode.OFF, stores, change, results, new=None, words="forgotten, ")


async def _forget_and_read(backend: BaseStateBackend, *, break_holds: bool, by: str) -> MaintenanceState:
    await forget_switch(backend, name=DEFAULT, break_holds=break_holds, by=by)
    return await read_state(backend)


def _change(
    mode: MaintenanceMode,
    stores: dict[str, BaseStateBackend],
    change: Callable[..., Coroutine[Any, Any, MaintenanceState]],
    results: Results,
    *,
    new: bool | None,
    words: str = "",
) -> None:
    """Make a change that leads to a mode, in each of the stores."""
    for store in stores.values():
        check_writable(store)
    # All switches are read first, so that a mistyped name or a failing store changes none of them.
    before = asyncio.run(_read_before(stores, new=new))
    for name, store in stores.items():
        prefix = name if len(stores) > 1 else ""
        with results.catch_error(name, store, prefix):
            state, now = asyncio.run(change(backend=store, by=operator_name())), datetime.now(UTC)
            effective, former = state.mode_at(now), before.get(name)
            was = None if former is None else former.mode_at(now)
            results.add(name, state, now, store, before=was)
            if effective is not mode:
                held = f"{mode} is stored, but code holds the switch, so {effective} applies"
                print_note(f"warning: {prefix and f'{prefix}: '}{held}")
            if results.prints_lines:
                found = "nothing was stored" if name in before else "was unreadable"
                found = found if was is None else f"was {was.label}"
                print_text(summary_of(name, state, now, more=f" ({words}{found}){suffix_of(state, store)}"))
    results.finish()


async def _read_before(stores: dict[str, BaseStateBackend], *, new: bool | None) -> dict[str, MaintenanceState | None]:
    """Return the stored states, without unreadable ones: the store decides whether a change can replace these."""
    before: dict[str, MaintenanceState | None] = {}
    for name, store in stores.items():
        with contextlib.suppress(CorruptState):
            found = await load_state(store)
            check_known(name, store, found, new=new)
            # A missing file means off. If another store lost its document, only the workers know the mode.
            before[name] = MaintenanceState() if found is None and is_file(store) else found
    return before


def schedule(
    start: Annotated[
        str, typer.Argument(metavar="START", help="The start: ISO 8601 with a zone, or local time in --zone.")
    ],
    end: Annotated[str, typer.Argument(metavar="END", help="The end, or the duration: 2h.")],
    name: Name = DEFAULT,
    *,
    backend: Backend = None,
    reason: Reason = None,
    read_only: ReadOnly = False,
    rrule: Annotated[
        str | None, typer.Option(metavar="RULE", help="A recurrence rule of RFC 5545: 'FREQ=WEEKLY;BYDAY=SU'.")
    ] = None,
    zone: Annotated[
        str | None, typer.Option(metavar="ZONE", help="The time zone of the recurrence: Europe/Berlin.")
    ] = None,
    new: New = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    r"""Plan a maintenance. ``status`` lists planned ones, and ``off`` ends the current one.

    \b
    fastapi-maintenance schedule {sunday}T02:00Z 2h --reason 'new disks'
    fastapi-maintenance schedule {sunday}T02:30 30m billing --zone Europe/Berlin --rrule 'FREQ=WEEKLY;BYDAY=SU'
    """
    begins = parse_time(start, "START", zone)
    ends = parse_end(end, "END", zone, begins)
    if zone is not None and rrule is None:
        zone = None  # it was used only to parse the times
    store = store_of(backend, name)
    check_writable(store)
    options: dict[str, Any] = {"reason": reason, "rrule": rrule, "zone": zone, "by": operator_name()}
    mode: PlannedModeName = "read_only" if read_only else "on"

    async def make() -> tuple[Window, MaintenanceState]:
        check_known(name, store, await load_state(store), new=new)
        window = await schedule_maintenance(begins, ends, store, mode=mode, **options)
        return window, view_of(store).latest()

    window, state = asyncio.run(make())
    document = {"switch": name, "window": window.model_dump(), "version": state.version}
    line = in_one_line(f"{name}: planned{suffix_of(state, store)}: {describe_window(window)}")
    print_result(document, line, as_json=as_json, quiet=quiet)


def cancel(
    window_id: Annotated[str, typer.Argument(metavar="ID", help="The ID that schedule and status print.")],
    name: Name = DEFAULT,
    *,
    backend: Backend = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    r"""Cancel a planned maintenance, even while it is active.

    \b
    fastapi-maintenance cancel 3b1f0a2c
    fastapi-maintenance cancel 3b1f0a2c billing
    """
    store = store_of(backend, name)
    check_writable(store)

    async def make() -> MaintenanceState:
        await read_state(store)
        try:
            await cancel_maintenance(window_id, store, by=operator_name())
        except UnknownWindow as error:
            raise MaintenanceError(f"{error}; {await _find_window(window_id, name, backend)}") from None
        return view_of(store).latest()

    state, now = asyncio.run(make()), datetime.now(UTC)
    line = summary_of(name, state, now, more=f" ({window_id} is cancelled){suffix_of(state, store)}")
    print_result(document_of(name, state, now, place_of(store)), line, as_json=as_json, quiet=quiet)


async def _find_window(window_id: str, name: str, url: str | None) -> str:
    """Return a hint about the other switch in the store that has this window, if one is found."""
    store = store_of(url)
    others = [DEFAULT]
    with contextlib.suppress(MaintenanceError):
        others = await store.switch_names() or others
    for other in others:
        with contextlib.suppress(MaintenanceError):
            if other != name and window_id in (await read_state(store_of(url, other))).windows:
                return f"it belongs to switch {other!r}: {PROGRAM} cancel {window_id} {other}"
    return f"'{PROGRAM} cancel {shlex.quote(window_id)} NAME' cancels a window of another switch"
