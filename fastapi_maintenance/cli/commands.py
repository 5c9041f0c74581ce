"""The commands, as Typer reads them."""

# No `from __future__ import annotations`: Typer reads the annotations as they are.

import asyncio
import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import rich  # noqa: F401 - so that one that is missing is noticed before anything was done
import typer

from .. import __version__, background
from ..backends.base import BaseStateBackend
from ..backends.env import EnvVarBackend
from ..bypass import DEFAULT_LIFETIME, Bypass
from ..control import cancel_maintenance, change_mode, forgetting, list_switches, schedule_maintenance
from ..exceptions import CorruptState, InvalidConfiguration, MaintenanceError, UnknownWindow, UnsupportedByBackend
from ..holds import DEFAULT_TTL, maintenance_mode_on
from ..page import in_one_line
from ..registry import BACKEND_VARIABLE, DEFAULT
from ..schedule import Window
from ..snapshot import view_of
from ..state import MaintenanceMode, MaintenanceState
from .doctor import examine
from .running import NOT_FOUND, CommandFailed, Run
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
    nothing_in,
    place_of,
    read,
    seconds_until_seen,
    store_of,
    stores_of,
)
from .terminal import (
    DONE,
    FAILED,
    PROGRAM,
    USAGE,
    WORDS,
    at_version,
    brief,
    complain,
    described,
    details,
    document,
    faint,
    hint_at_document,
    note,
    summary,
    tell,
    tell_json,
)
from .values import SUNDAY, after, duration, end_of, moment_of, operator, seconds, start_of
from .watching import watch_switch

SECRET_VARIABLE = "FASTAPI_MAINTENANCE_BYPASS_SECRET"  # noqa: S105 - where one is
_BLOCKED, _UNKNOWN = 1, 2
"""What ``status --exit-code`` says."""

app = typer.Typer(
    name=PROGRAM,
    rich_markup_mode=None,  # plain help, which looks the same everywhere
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME", help="The switches: default, if none.", autocompletion=complete_names),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The switch.", autocompletion=complete_names)]
Backend = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help=f"The store: file:///path, redis://..., postgresql+asyncpg://... By default ${BACKEND_VARIABLE}, where "
        "a password is not shown to other users of the machine.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but what goes wrong.")]
New = Annotated[bool, typer.Option("--new", help="Set a named switch that was never set in this store.")]
ReadOnly = Annotated[bool, typer.Option("--read-only", help="Let requests pass that only read.")]
BreakHolds = Annotated[
    bool, typer.Option("--break-holds", help="Take away the holds of code that runs under maintenance.")
]
Reason = Annotated[str | None, typer.Option(metavar="TEXT", help="What to tell clients and colleagues.")]


def _dated(command: Callable[..., None]) -> Callable[..., None]:
    """Give the examples in a command's help a day to come."""
    command.__doc__ = (command.__doc__ or "").format(sunday=SUNDAY)
    return command


@app.callback(invoke_without_command=True)
def _program(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Take a FastAPI service, or a part of it, out of service for a while, and back.

    \b
    fastapi-maintenance on --for 2h --reason 'migration 42'
    fastapi-maintenance off
    fastapi-maintenance status billing --json
    fastapi-maintenance run --drain 30s -- ./migrate.sh

    Exit status: 0 done, 1 refused or failed, 2 wrong usage.
    """
    if version:
        tell(f"{PROGRAM} {__version__}")
        raise typer.Exit(DONE)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(USAGE)


@app.command("on")
@app.command("down", hidden=True)
@_dated
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
    """Turn maintenance on. Also: down.

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
    """Turn maintenance off. Also: up. Refused while running code holds the switch on.

    \b
    fastapi-maintenance off
    fastapi-maintenance off billing --break-holds
    fastapi-maintenance off --all
    """
    if all_switches and names:
        raise InvalidConfiguration(f"--all must come without names, got {', '.join(names)}; nothing was changed")
    requirements = {"break_holds": True} if break_holds else {"refuse_while_held": True}
    stores = _all_stores(store_of(backend)) if all_switches else stores_of(backend, names or (DEFAULT,))
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
    """Forget switches that no app uses any more: they are off, without windows, and no longer listed.

    \b
    fastapi-maintenance forget billing

    Refused while running code holds the switch on. A document that can't be read is forgotten too.
    """
    stores = stores_of(backend, names)
    requirements = {"break_holds": break_holds}
    _change(MaintenanceMode.OFF, stores, requirements, forgets=True, new=None, as_json=as_json, quiet=quiet)


def _all_stores(default: BaseStateBackend) -> dict[str, BaseStateBackend]:
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
            failed[name] = complain(error, _among(stores, name))
            said.append({"switch": name, "mode": None, "error": explained(error, store), "store": place_of(store)})
            continue
        now = datetime.now(UTC)
        former = before.get(name)
        was = None if former is None else former.mode_at(now)
        if state.mode_at(now) is not mode:
            held = f"{mode} is stored, but code holds the switch, so it counts as {state.mode_at(now)}"
            note(f"warning: {_among(stores, name, ': ')}{held}")
        said.append({**document(name, state, now, place_of(store)), "before": was})
        if not quiet and not as_json:
            words = "nothing was stored" if name in before else "was unreadable"
            words = words if was is None else f"was {WORDS[was]}"
            words = f"forgotten, {words}" if forgets else words
            tell(summary(name, state, now, more=f" ({words}){at_version(state)}{in_folder(store)}"))
    _finish(said, failed, as_json=as_json)


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


def _among(stores: dict[str, BaseStateBackend], name: str, end: str = "") -> str:
    """Return the name of a switch where there are several, else nothing."""
    return f"{name}{end}" if len(stores) > 1 else ""


def _finish(said: list[dict[str, Any]], failed: dict[str, int], *, as_json: bool) -> None:
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
def status(
    names: Names = None,
    *,
    backend: Backend = None,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 0 for off, 1 for on or read-only, 2 for unknown.")
    ] = False,
    var_name: Annotated[
        str | None, typer.Option(metavar="VAR", help="With --backend env, as in 0.0.5: the same as env://VAR.")
    ] = None,
    file_path: Annotated[
        str | None, typer.Option(metavar="PATH", help="With --backend file, as in 0.0.5: the same as file:PATH.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show what switches do: without names the default one, then all others of the store. Nothing is written.

    \b
    fastapi-maintenance status
    fastapi-maintenance status billing orders --json
    fastapi-maintenance status --exit-code --quiet || echo 'under maintenance, or unknown'
    """
    try:
        stores = stores_of(backend, names or (DEFAULT,), var_name=var_name, file_path=file_path)
    except MaintenanceError as error:
        failure = complain(error)
        raise typer.Exit(_UNKNOWN if exit_code else failure) from None
    said: list[dict[str, Any]] = []
    failed: dict[str, int] = {}
    has_others = not (names or var_name or file_path)
    for name, store in _with_others(stores, failed) if has_others else stores.items():
        try:
            state = asyncio.run(load(store))
        except MaintenanceError as error:
            failed[name] = max(complain(error, _among(stores, name)), _UNKNOWN if exit_code else FAILED)
            said.append({"switch": name, "mode": None, "error": explained(error, store), "store": place_of(store)})
            continue
        said.append(document(name, state, datetime.now(UTC), place_of(store)))
        if not quiet and not as_json:
            _show(name, store, state)
    _finish(said, failed, as_json=as_json)
    if exit_code and any(one["blocked"] for one in said):
        raise typer.Exit(_BLOCKED)


def _with_others(
    stores: dict[str, BaseStateBackend], failed: dict[str, int]
) -> Iterator[tuple[str, BaseStateBackend]]:
    """Yield the default switch, and then the others of its store, if that answers and can list them."""
    default = stores[DEFAULT]
    yield DEFAULT, default
    if failed:
        return
    try:
        names = asyncio.run(list_switches(default))
    except UnsupportedByBackend:
        return
    except MaintenanceError as error:
        note(f"warning: the other switches of the store can't be listed: {explained(error, default)}")
        return
    stores |= all_of(default, names)
    yield from ((name, store) for name, store in stores.items() if name != DEFAULT)


@app.command("list")
def list_all(*, backend: Backend = None, as_json: AsJson = False) -> None:
    """List all switches of the store, one line each. Nothing is written.

    \b
    fastapi-maintenance list
    fastapi-maintenance list --json
    """
    said: list[dict[str, Any]] = []
    failed: dict[str, int] = {}
    stores = _all_stores(store_of(backend))
    for name, store in stores.items():
        try:
            state = asyncio.run(read(store))
        except MaintenanceError as error:
            failed[name] = complain(error, name)
            said.append({"switch": name, "mode": None, "error": explained(error, store), "store": place_of(store)})
            continue
        now = datetime.now(UTC)
        said.append(document(name, state, now, place_of(store)))
        if not as_json:
            tell(summary(name, state, now, more=brief(state, now)))
    if as_json:
        tell_json(said)
    if failed:
        raise typer.Exit(max(failed.values()))


def _show(name: str, store: BaseStateBackend, state: MaintenanceState | None) -> None:
    """Show all there is to say of a switch, in words."""
    now = datetime.now(UTC)
    tell(summary(name, state, now, nothing=nothing_in(store)))
    for key, value in details(state or MaintenanceState(), now, place_of(store)):
        tell(f"  {key}: {value}")
    if isinstance(store, EnvVarBackend):
        tell(
            faint(
                f"  note: that is a variable of this shell, and not of the app; "
                f"--backend URL or {BACKEND_VARIABLE} says where the app keeps its switch"
            )
        )
    if state is None and not is_file(store):
        tell(faint(f"  hint: {hint_at_document(name)}"))


@app.command()
@_dated
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
    """Plan a maintenance. ``status`` lists what is planned, and ``off`` ends what goes on.

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
    """Cancel a planned maintenance, also while it goes on.

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
        others += await background.run(store.names_beside())
    for other in others:
        with contextlib.suppress(MaintenanceError):
            if other != name and window_id in (await read(store_of(url, other))).windows:
                return f"it is one of switch {other!r}: {PROGRAM} cancel {window_id} {other}"
    return f"'{PROGRAM} cancel {shlex.quote(window_id)} NAME' cancels one of another switch"


@app.command()
def watch(
    name: Name = DEFAULT,
    *,
    backend: Backend = None,
    interval: Annotated[str, typer.Option(metavar="SECONDS", help="How often the store is read.")] = "1s",
    as_json: AsJson = False,
) -> None:
    """Show what a switch does, live: a line for each change where there is no terminal. Ctrl-C ends it.

    \b
    fastapi-maintenance watch
    fastapi-maintenance watch billing --json --interval 5s
    """
    store, pause = store_of(backend, name), seconds(interval, "--interval", least=1)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(watch_switch(name, store, seconds=pause, as_json=as_json))


class OnFailure(StrEnum):
    """What becomes of maintenance when the command fails."""

    KEEP = "keep"
    RELEASE = "release"


@app.command(options_metavar="[OPTIONS]")
def run(
    context: typer.Context,
    name: Name = DEFAULT,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="-- COMMAND", help="What to run, and its arguments.")
    ] = None,
    *,
    backend: Backend = None,
    reason: Reason = None,
    drain: Annotated[
        str,
        typer.Option(
            metavar="SECONDS",
            help="Wait so long before the command begins, for requests that the service is already answering: "
            "as long as the slowest takes. This process can't see whether they are done. It always waits until all "
            "workers have seen the switch: 0.11 s with a file, 1.1 s with Redis or SQL.",
        ),
    ] = "0s",
    ttl: Annotated[
        str,
        typer.Option(metavar="SECONDS", help="How long maintenance outlives this process if it is killed; or never."),
    ] = f"{DEFAULT_TTL:g}s",
    on_failure: Annotated[
        OnFailure, typer.Option(help="Whether maintenance is kept, for good, when the command fails.")
    ] = OnFailure.RELEASE,
    kill_after: Annotated[
        str, typer.Option(metavar="SECONDS", help="How long the command has to end when it is told to.")
    ] = "10s",
    new: New = False,
    stop_when_lost: Annotated[
        bool, typer.Option("--stop-when-lost", help="End the command when somebody breaks its hold.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Run a command under maintenance: on, wait, run, off. The exit status is the command's.

    \b
    fastapi-maintenance run -- alembic upgrade head
    fastapi-maintenance run billing --drain 30s --on-failure keep -- ./move-invoices.sh --all

    SIGTERM, SIGINT, SIGHUP and SIGQUIT go to the command; a second one, or --kill-after, kills it. If this process is
    killed, the command is told to end (on Linux), and maintenance ends after --ttl.
    """
    if command or not context.obj:
        raise InvalidConfiguration(_hint_at_dashes(name, command or [], has_command=bool(context.obj)))
    store = store_of(backend, name)
    check_writable(store)
    running = Run(
        command=context.obj,
        drain_seconds=max(seconds(drain, "--drain"), seconds_until_seen(store)),
        kill_after_seconds=seconds(kill_after, "--kill-after"),
        stops_when_lost=stop_when_lost,
        fails_block=on_failure is OnFailure.KEEP,
    )
    block = maintenance_mode_on(
        store,
        reason=reason,
        ttl=None if ttl == "never" else seconds(ttl, "--ttl", least=1),
        keep_on_error=on_failure is OnFailure.KEEP,
        owner=f"{operator()}, process {os.getpid()}, which runs {running.command[0]}",
    )
    if not running.is_found():
        note(f"error: {running.command[0]}: there is no such command, nothing was changed")
        raise typer.Exit(NOT_FOUND)

    async def hold_and_run() -> None:
        running.take_signals()
        check_known(name, store, await load(store), new=new)  # a store that fails is told as such
        try:
            with contextlib.suppress(CommandFailed):
                async with block:
                    if not quiet:
                        version = at_version(view_of(store).latest())
                        note(f"{name}: ON while the command runs{version}{in_folder(store)}")
                    await running.within(block)
            if not quiet:
                now, state = datetime.now(UTC), await read(store)
                note(str(summary(name, state, now)))
                if running.status and running.fails_block and state.mode_at(now) is not MaintenanceMode.OFF:
                    note(
                        f"the command ended with {running.status}; {name} stays {WORDS[state.mode_at(now)]}, "
                        f"open it with: {_off_command(name, backend)}"
                    )
        except MaintenanceError as error:
            if running.status is None:
                raise
            complain(error)

    asyncio.run(hold_and_run())
    raise typer.Exit(running.status or DONE)


def _hint_at_dashes(name: str, words: list[str], *, has_command: bool) -> str:
    """Return what is wrong with a command that does not stand after ``--``, or with what stands before that."""
    if has_command:
        return f"before '--' must be one switch at most, got {shlex.join([name, *words])!r}"
    meant = "COMMAND" if name == DEFAULT and not words else shlex.join([name, *words])
    switch = f", or {PROGRAM} run {name} -- COMMAND if {name!r} is the switch" if meant == name else ""
    return f"the command must stand after '--': {PROGRAM} run -- {meant}{switch}"


def _off_command(name: str, url: str | None) -> str:
    """Return the command that turns a switch off; without the URL of the store, which may have a password."""
    named = "" if name == DEFAULT else f" {name}"
    return f"{PROGRAM} off{named}{'' if url is None else ' --backend ...'}"


@app.command()
def bypass(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="The switches that it opens: default, if none.")
    ] = None,
    *,
    url: Annotated[str, typer.Option(metavar="URL", help="The page that the link leads to.")] = "/",
    backend: Backend = None,
    lifetime: Annotated[
        str, typer.Option(metavar="DURATION", help="How long it opens, 30 days at most.")
    ] = f"{DEFAULT_LIFETIME // timedelta(hours=1)}h",
    holder: Annotated[str, typer.Option(metavar="WHO", help="Whom it is for, to be revoked by.")] = "",
    secret_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help=f"Where the app's secret is; '-': standard input. By default ${SECRET_VARIABLE}."
        ),
    ] = None,
    parameter: Annotated[
        str, typer.Option(help="The link's parameter, if the app has another.")
    ] = "maintenance_bypass",
    as_json: AsJson = False,
) -> None:
    """Print a link that lets a tester pass while maintenance is on.

    \b
    fastapi-maintenance bypass --url https://api.example/orders --holder alice
    fastapi-maintenance bypass billing default --lifetime 2h --secret-file /run/secrets/bypass
    """
    admits = Bypass(_secret(secret_file), parameter=parameter)
    length = duration(lifetime, "--lifetime")
    switches = tuple(names or (DEFAULT,))

    async def make() -> str:
        store = store_of(backend)
        for switch in switches:
            await read(store_of(backend, switch))  # a store that fails is another thing than a switch that is off
        return await admits.link(url, *switches, lifetime=length, holder=holder, backend=store)

    link = asyncio.run(make())
    if as_json:
        tell_json({"link": link, "switches": switches, "holder": holder})
    else:
        tell(link)


def _secret(file: str | None) -> str:
    """Return the secret, which is never an argument: all users of the machine see those."""
    if file is None:
        secret = os.environ.get(SECRET_VARIABLE, "")
        if not secret:
            raise InvalidConfiguration(f"the app's secret is needed: in ${SECRET_VARIABLE}, or by --secret-file FILE")
        return secret
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InvalidConfiguration(f"--secret-file {file!r}: {why}") from None
    return text.strip()


@app.command()
def doctor(
    target: Annotated[
        str | None, typer.Argument(metavar="MODULE:APP", help="The app, to see what it would block.")
    ] = None,
    name: Annotated[str, typer.Option(metavar="NAME", help="The switch whose store is examined.")] = DEFAULT,
    backend: Backend = None,
    as_json: AsJson = False,
) -> None:
    """Examine the store, and what an app would block.

    \b
    fastapi-maintenance doctor
    fastapi-maintenance doctor shop.main:app --backend redis://localhost

    The app is imported, from the working directory as well. The stores of its switches are examined: its own, if it
    brings some, else that of --backend.
    """
    if not examine(target, name, backend, as_json=as_json):
        raise typer.Exit(FAILED)
