"""The commands that change a switch."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import typer

from ..backends.base import BaseStateBackend
from ..concurrency import io_thread
from ..exceptions import CorruptState, InvalidConfiguration, MaintenanceError, UnknownWindow
from ..model.modes import MaintenanceMode
from ..model.state import MaintenanceState
from ..model.text import in_one_line
from ..model.windows.window import Window
from ..switches.app_switch import DEFAULT
from ..switches.control import cancel_maintenance, change_mode, forgetting, schedule_maintenance
from ..switches.views import view_of
from .program import AsJson, Backend, BreakHolds, Name, Names, New, Quiet, ReadOnly, Reason, app, dated
from .store import (
    all_of,
    check_known,
    check_writable,
    complete_names,
    explained,
    in_folder,
    is_file,
    load,
    names_in,
    place_of,
    read,
    store_of,
    stores_of,
)
from .terminal import PROGRAM, WORDS, at_version, complain, described, document, note, summary, tell, tell_json
from .values import SUNDAY, after, duration, end_of, moment_of, operator, seconds, start_of


@app.command("on")
@app.command("down", hidden=True)
@dated
def turn_on(
    names: Names = None,
    *,
    backend: Backend = None,
    length: Annotated[
        str | None, typer.Option("--for", metavar="DURATION", help="End by itself after 90s, 15m, 2h, 1d, 1h30m.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help=f"End by itself then: ISO 8601 with a zone, {SUNDAY}T04:00Z.")
    ] = None,
    reason: Reason = None,
    read_only: ReadOnly = False,
    retry_after: Annotated[
        str | None,
        typer.Option(metavar="SECONDS", help="After what time clients are to come back, while the end isn't known."),
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
        raise InvalidConfiguration("--for and --until are two ways to say when it ends: give one of them")
    end = None if until is None else moment_of(until, "--until")
    if end is not None and end <= datetime.now(UTC):
        raise InvalidConfiguration(f"--until {until!r}: that is over; a time to come is needed; nothing was changed")
    if length is not None:
        end = after(datetime.now(UTC), duration(length, "--for"), "--for")
    options = {
        "reason": reason,
        "until": end,
        "retry_after": None if retry_after is None else seconds(retry_after, "--retry-after"),
    }
    mode = MaintenanceMode.READ_ONLY if read_only else MaintenanceMode.ON
    _change(mode, stores_of(backend, names or (DEFAULT,)), options, new=new, as_json=as_json, quiet=quiet)


@app.command("off")
@app.command("up", hidden=True)
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
    requirements = {"break_holds": True} if break_holds else {"refuse_while_held": True}
    stores = all_stores(store_of(backend)) if all_switches else stores_of(backend, names or (DEFAULT,))
    _change(MaintenanceMode.OFF, stores, requirements, new=new, as_json=as_json, quiet=quiet)


@app.command()
def forget(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="The switches.", autocompletion=complete_names)],
    *,
    backend: Backend = None,
    break_holds: BreakHolds = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    r"""Forget switches that no app uses any more: they are off, without windows, and no longer listed.

    \b
    fastapi-maintenance forget billing

    Refused while running code holds the switch on. A document that can't be read is forgotten too.
    """
    stores = stores_of(backend, names)
    requirements = {"break_holds": break_holds}
    _change(MaintenanceMode.OFF, stores, requirements, forgets=True, new=None, as_json=as_json, quiet=quiet)


def all_stores(default: BaseStateBackend) -> dict[str, BaseStateBackend]:
    """Return the backends of all switches of a store."""
    return all_of(default, asyncio.run(names_in(default)))


def _change(
    mode: MaintenanceMode,
    stores: dict[str, BaseStateBackend],
    options: dict[str, Any],
    *,
    forgets: bool = False,
    new: bool | None,
    as_json: bool,
    quiet: bool,
) -> None:
    for store in stores.values():
        check_writable(store)
    # All are read before the first is changed: a mistyped name or a store that fails changes none.
    before = asyncio.run(_read_before(stores, new=new))
    said: list[dict[str, Any]] = []
    failed: dict[str, int] = {}
    for name, store in stores.items():
        try:
            state = asyncio.run(_make(mode, store, options, forgets=forgets))
        except MaintenanceError as error:
            failed[name] = complain(error, among(stores, name))
            said.append({"switch": name, "mode": None, "error": explained(error, store), "store": place_of(store)})
            continue
        now = datetime.now(UTC)
        former = before.get(name)
        was = None if former is None else former.mode_at(now)
        if state.mode_at(now) is not mode:
            held = f"{mode} is stored, but code holds the switch, so it counts as {state.mode_at(now)}"
            note(f"warning: {among(stores, name, ': ')}{held}")
        said.append({**document(name, state, now, place_of(store)), "before": was})
        if not quiet and not as_json:
            words = "nothing was stored" if name in before else "was unreadable"
            words = words if was is None else f"was {WORDS[was]}"
            words = f"forgotten, {words}" if forgets else words
            tell(summary(name, state, now, more=f" ({words}){at_version(state)}{in_folder(store)}"))
    finish(said, failed, as_json=as_json)


async def _make(
    mode: MaintenanceMode, store: BaseStateBackend, options: dict[str, Any], *, forgets: bool
) -> MaintenanceState:
    """Make the change at the switch of a backend, and return the state after it."""
    if not forgets:
        return await change_mode(mode, store, by=operator(), **options)
    return await view_of(store).apply(forgetting(by=operator(), **options))


async def _read_before(stores: dict[str, BaseStateBackend], *, new: bool | None) -> dict[str, MaintenanceState | None]:
    """Return what the stores have, without those that can't be read: whether they can be replaced, the store knows."""
    before: dict[str, MaintenanceState | None] = {}
    for name, store in stores.items():
        with contextlib.suppress(CorruptState):
            found = await load(store)
            check_known(name, store, found, new=new)
            # No file is off; of a store that lost its document, only the workers know what they do.
            before[name] = MaintenanceState() if found is None and is_file(store) else found
    return before


def among(stores: dict[str, BaseStateBackend], name: str, end: str = "") -> str:
    """Return the name of a switch where there are several, else nothing."""
    return f"{name}{end}" if len(stores) > 1 else ""


def finish(said: list[dict[str, Any]], failed: dict[str, int], *, as_json: bool) -> None:
    """Answer in JSON if that was asked for, and end the program if something failed: of several, say what did not."""
    if len(said) > 1:
        done = [one["switch"] for one in said if one["switch"] not in failed]
        if as_json:
            tell_json(said)
        if failed:
            note(f"done: {', '.join(done) or 'none'}; failed: {', '.join(failed)}")
    elif as_json and not failed:
        tell_json(said[0])
    if failed:
        raise typer.Exit(max(failed.values()))


@app.command()
@dated
def schedule(
    start: Annotated[
        str, typer.Argument(metavar="START", help="When it begins: ISO 8601 with a zone, or in the one of --zone.")
    ],
    end: Annotated[str, typer.Argument(metavar="END", help="When it ends, or how long it lasts: 2h.")],
    name: Name = DEFAULT,
    *,
    backend: Backend = None,
    reason: Reason = None,
    read_only: ReadOnly = False,
    rrule: Annotated[
        str | None, typer.Option(metavar="RULE", help="Again and again, by RFC 5545: 'FREQ=WEEKLY;BYDAY=SU'.")
    ] = None,
    zone: Annotated[
        str | None, typer.Option(metavar="ZONE", help="In which local time it recurs: Europe/Berlin.")
    ] = None,
    new: New = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    r"""Plan a maintenance. ``status`` lists what is planned, and ``off`` ends what goes on.

    \b
    fastapi-maintenance schedule {sunday}T02:00Z 2h --reason 'new disks'
    fastapi-maintenance schedule {sunday}T02:30 30m billing --zone Europe/Berlin --rrule 'FREQ=WEEKLY;BYDAY=SU'
    """
    begins = start_of(start, "START", zone)
    ends = end_of(end, "END", zone, begins)
    if zone is not None and rrule is None:
        zone = None  # it was only needed to understand the times
    store = store_of(backend, name)
    check_writable(store)
    options: dict[str, Any] = {"reason": reason, "rrule": rrule, "zone": zone, "by": operator()}
    mode: Literal["on", "read_only"] = "read_only" if read_only else "on"

    async def make() -> tuple[Window, MaintenanceState]:
        check_known(name, store, await load(store), new=new)
        window = await schedule_maintenance(begins, ends, store, mode=mode, **options)
        return window, view_of(store).latest()

    window, state = asyncio.run(make())
    if as_json:
        tell_json({"switch": name, "window": window.model_dump(), "version": state.version})
    elif not quiet:
        tell(in_one_line(f"{name}: planned{at_version(state)}{in_folder(store)}: {described(window)}"))


@app.command()
def cancel(
    window_id: Annotated[str, typer.Argument(metavar="ID", help="As schedule and status tell it.")],
    name: Name = DEFAULT,
    *,
    backend: Backend = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    r"""Cancel a planned maintenance, also while it goes on.

    \b
    fastapi-maintenance cancel 3b1f0a2c
    fastapi-maintenance cancel 3b1f0a2c billing
    """
    store = store_of(backend, name)
    check_writable(store)

    async def make() -> MaintenanceState:
        await read(store)
        try:
            await cancel_maintenance(window_id, store, by=operator())
        except UnknownWindow as error:
            raise MaintenanceError(f"{error}; {await _place_of_window(window_id, name, backend)}") from None
        return view_of(store).latest()

    state, now = asyncio.run(make()), datetime.now(UTC)
    if as_json:
        tell_json(document(name, state, now, place_of(store)))
    elif not quiet:
        more = f" ({window_id} is cancelled){at_version(state)}{in_folder(store)}"
        tell(summary(name, state, now, more=more))


async def _place_of_window(window_id: str, name: str, url: str | None) -> str:
    """Return which other switch of the store has a window, as far as the store can tell."""
    store = store_of(url)
    others: list[str] = [DEFAULT]
    with contextlib.suppress(MaintenanceError):
        others += await io_thread.run(store.names_beside())
    for other in others:
        with contextlib.suppress(MaintenanceError):
            if other != name and window_id in (await read(store_of(url, other))).windows:
                return f"it is one of switch {other!r}: {PROGRAM} cancel {window_id} {other}"
    return f"'{PROGRAM} cancel {shlex.quote(window_id)} NAME' cancels one of another switch"
