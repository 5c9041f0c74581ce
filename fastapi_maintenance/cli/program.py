"""The program and the options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from .. import __version__
from ..switches.backend_urls import BACKEND_VARIABLE
from .store import complete_names
from .terminal import DONE, PROGRAM, USAGE, tell
from .values import SUNDAY

SECRET_VARIABLE = "FASTAPI_MAINTENANCE_BYPASS_SECRET"  # noqa: S105 - where one is

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


def dated(command: Callable[..., None]) -> Callable[..., None]:
    """Give the examples in a command's help a day to come."""
    command.__doc__ = (command.__doc__ or "").format(sunday=SUNDAY)
    return command


@app.callback(invoke_without_command=True)
def _program(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    r"""Take a FastAPI service, or a part of it, out of service for a while, and back.

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
