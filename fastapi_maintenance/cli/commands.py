"""The commands, as Typer reads them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import sys
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
from ..switches.views import view_of
from .doctor import examine
from .program import SECRET_VARIABLE, AsJson, Backend, Name, New, Quiet, Reason, app
from .running import NOT_FOUND, CommandFailed, Run
from .store import check_known, check_writable, in_folder, load, read, seconds_until_seen, store_of
from .terminal import DONE, FAILED, PROGRAM, WORDS, at_version, complain, note, summary, tell, tell_json
from .values import duration, operator, seconds

BLOCKED, UNKNOWN = 1, 2
"""What ``status --exit-code`` says."""


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
