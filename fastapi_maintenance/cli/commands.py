"""The program with all its commands: ``run``, ``bypass`` and ``doctor`` here, the others from their modules."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..exceptions import InvalidConfiguration, MaintenanceError
from ..gate.bypass import DEFAULT_LIFETIME, Bypass
from ..holds.block import DEFAULT_TTL, maintenance_mode_on
from ..model.modes import MaintenanceMode
from ..switches.app_switch import DEFAULT
from ..switches.views.lookup import view_of
from .changes import cancel, forget, schedule, turn_off, turn_on
from .doctor import examine
from .program import SECRET_VARIABLE, AsJson, Backend, Name, New, Quiet, Reason, app, help_of
from .reports import list_all, status, watch
from .running import NOT_FOUND, CommandFailed, Run
from .store import check_known, check_writable, load_state, read_state, seconds_until_seen, store_of
from .terminal import DONE, FAILED, PROGRAM, print_note, print_result, report_error, suffix_of, summary_of
from .values import operator_name, parse_duration, parse_seconds

__all__ = ["app"]


class OnFailure(StrEnum):
    """Values of ``--on-failure``."""

    KEEP = "keep"
    RELEASE = "release"


def run(
    context: typer.Context,
    name: Name = DEFAULT,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="-- COMMAND", help="The command and its arguments.")
    ] = None,
    *,
    backend: Backend = None,
    reason: Reason = None,
    drain: Annotated[
        str,
        typer.Option(
            metavar="SECONDS",
            help="How long to wait for requests in flight before the command starts: as long as the slowest takes. "
            "This process can't see them. It always waits until all workers have seen the switch: 0.11 s with a file, "
            "1.1 s with Redis or SQL.",
        ),
    ] = "0s",
    ttl: Annotated[
        str,
        typer.Option(metavar="SECONDS", help="How long maintenance outlasts this process if it is killed, or never."),
    ] = f"{DEFAULT_TTL:g}s",
    on_failure: Annotated[
        OnFailure, typer.Option(help="Whether to keep maintenance on when the command fails.")
    ] = OnFailure.RELEASE,
    kill_after: Annotated[
        str, typer.Option(metavar="SECONDS", help="How long the command may take to end after a signal.")
    ] = "10s",
    new: New = False,
    stop_when_lost: Annotated[
        bool, typer.Option("--stop-when-lost", help="End the command if somebody breaks its hold.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    r"""Run a command under maintenance: on, wait, run, off. The exit status is the command's.

    \b
    fastapi-maintenance run -- alembic upgrade head
    fastapi-maintenance run billing --drain 30s --on-failure keep -- ./move-invoices.sh --all

    SIGTERM, SIGINT, SIGHUP and SIGQUIT are forwarded to the command; a second one, or --kill-after, kills it. If this
    process is killed, the command gets SIGTERM (on Linux), and maintenance ends after --ttl.
    """
    if command or not context.obj:
        raise InvalidConfiguration(_dashes_hint(name, command or [], has_command=bool(context.obj)))
    store = store_of(backend, name)
    check_writable(store)
    running = Run(
        command=context.obj,
        drain_seconds=max(parse_seconds(drain, "--drain"), seconds_until_seen(store)),
        kill_after_seconds=parse_seconds(kill_after, "--kill-after"),
        stops_when_lost=stop_when_lost,
        fails_block=on_failure is OnFailure.KEEP,
    )
    block = maintenance_mode_on(
        store,
        reason=reason,
        ttl=None if ttl == "never" else parse_seconds(ttl, "--ttl", least=1),
        keep_on_error=on_failure is OnFailure.KEEP,
        owner=f"{operator_name()}, process {os.getpid()}, which runs {running.command[0]}",
    )
    if shutil.which(running.command[0]) is None:
        print_note(f"error: {running.command[0]}: no such command, nothing was changed")
        raise typer.Exit(NOT_FOUND)

    async def hold_and_run() -> None:
        running.take_signals()
        check_known(name, store, await load_state(store), new=new)  # reports a failing store before the switch is held
        try:
            with contextlib.suppress(CommandFailed):
                async with block:
                    if not quiet:
                        suffix = suffix_of(view_of(store).latest(), store)
                        print_note(f"{name}: ON while the command runs{suffix}")
                    await running.within(block)
            if not quiet:
                now, state = datetime.now(UTC), await read_state(store)
                print_note(str(summary_of(name, state, now)))
                if running.status and running.fails_block and state.mode_at(now) is not MaintenanceMode.OFF:
                    # Without the store's URL, which may contain a password.
                    options = f"{'' if name == DEFAULT else f' {name}'}{'' if backend is None else ' --backend ...'}"
                    print_note(
                        f"the command ended with {running.status}; {name} stays {state.mode_at(now).label}, "
                        f"open it with: {PROGRAM} off{options}"
                    )
        except MaintenanceError as error:
            if running.status is None:
                raise
            report_error(error)

    asyncio.run(hold_and_run())
    raise typer.Exit(running.status or DONE)


def _dashes_hint(name: str, words: list[str], *, has_command: bool) -> str:
    """Return the error for a command without ``--``, or for more than one name before it."""
    if has_command:
        return f"there must be at most one switch before '--', got {shlex.join([name, *words])!r}"
    meant = "COMMAND" if name == DEFAULT and not words else shlex.join([name, *words])
    switch = f", or {PROGRAM} run {name} -- COMMAND if {name!r} is the switch" if meant == name else ""
    return f"the command must come after '--': {PROGRAM} run -- {meant}{switch}"


def bypass(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="The switches that the link opens; default if omitted.")
    ] = None,
    *,
    url: Annotated[str, typer.Option(metavar="URL", help="The page that the link opens.")] = "/",
    backend: Backend = None,
    lifetime: Annotated[
        str, typer.Option(metavar="DURATION", help="How long the link is valid, at most 30 days.")
    ] = f"{DEFAULT_LIFETIME // timedelta(hours=1)}h",
    holder: Annotated[str, typer.Option(metavar="WHO", help="Who the link is for; lets you revoke it.")] = "",
    secret_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help=f"The app's secret; '-' reads standard input. By default ${SECRET_VARIABLE}."
        ),
    ] = None,
    parameter: Annotated[
        str, typer.Option(help="The link's parameter, if the app changed it.")
    ] = "maintenance_bypass",
    as_json: AsJson = False,
) -> None:
    r"""Print a link that lets a tester pass while maintenance is on.

    \b
    fastapi-maintenance bypass --url https://api.example/orders --holder alice
    fastapi-maintenance bypass billing default --lifetime 2h --secret-file /run/secrets/bypass
    """
    admits = Bypass(_read_secret(secret_file), parameter=parameter)
    length = parse_duration(lifetime, "--lifetime")
    switches = tuple(names or (DEFAULT,))

    async def make() -> str:
        store = store_of(backend)
        for switch in switches:
            await read_state(store_of(backend, switch))  # a failing store would look like a switch that is off
        return await admits.link(url, *switches, lifetime=length, holder=holder, backend=store)

    link = asyncio.run(make())
    print_result({"link": link, "switches": switches, "holder": holder}, link, as_json=as_json)


def _read_secret(file: str | None) -> str:
    """Return the secret. It can't be an argument, because all users of the machine see those."""
    if file is None:
        secret = os.environ.get(SECRET_VARIABLE, "")
        if not secret:
            raise InvalidConfiguration(f"the app's secret must be in ${SECRET_VARIABLE} or --secret-file FILE")
        return secret
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InvalidConfiguration(f"--secret-file {file!r}: {why}") from None
    return text.strip()


def doctor(
    target: Annotated[
        str | None, typer.Argument(metavar="MODULE:APP", help="The app whose routes are examined.")
    ] = None,
    name: Annotated[str, typer.Option(metavar="NAME", help="The switch to examine, without an app.")] = DEFAULT,
    backend: Backend = None,
    as_json: AsJson = False,
) -> None:
    r"""Examine the store, and the routes that an app would block.

    \b
    fastapi-maintenance doctor
    fastapi-maintenance doctor shop.main:app --backend redis://localhost

    The app is imported, also from the working directory. Its own stores are examined, or that of --backend if it has
    none.
    """
    if not examine(target, name, backend, as_json=as_json):
        raise typer.Exit(FAILED)


def _register(command: Callable[..., None], *names: str) -> None:
    """Add a command to the program; names after the first one are hidden aliases."""
    for name in names:
        app.command(name, help=help_of(command), hidden=name != names[0], options_metavar="[OPTIONS]")(command)


# In the order of the help.
_register(turn_on, "on", "down")
_register(turn_off, "off", "up")
_register(forget, "forget")
_register(status, "status")
_register(list_all, "list")
_register(schedule, "schedule")
_register(cancel, "cancel")
_register(watch, "watch")
_register(run, "run")
_register(bypass, "bypass")
_register(doctor, "doctor")
