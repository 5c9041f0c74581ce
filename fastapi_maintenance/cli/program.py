"""The Typer app, and the options and the form of results that several commands share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any

import rich  # noqa: F401 - so that a missing rich is reported before a command runs
import typer

from .. import __version__
from ..backends.base import BaseStateBackend
from ..exceptions import MaintenanceError
from ..model.state import MaintenanceState
from ..switches.backend_urls import BACKEND_VARIABLE
from .store import complete_names, message_of, place_of
from .terminal import DONE, PROGRAM, USAGE, document_of, failure_of, print_json, print_note, print_text, report_error
from .values import SUNDAY

SECRET_VARIABLE = "FASTAPI_MAINTENANCE_BYPASS_SECRET"  # noqa: S105 - a variable's name

app = typer.Typer(
    name=PROGRAM,
    rich_markup_mode=None,  # plain help looks the same everywhere
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="NAME", help="The switches; default if omitted.", autocompletion=complete_names),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The switch.", autocompletion=complete_names)]
Backend = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help=f"The store: file:///path, redis://..., postgresql+asyncpg://... By default ${BACKEND_VARIABLE}, where "
        "other users of the machine can't see a password.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors and warnings.")]
New = Annotated[bool, typer.Option("--new", help="Set a named switch for the first time in this store.")]
ReadOnly = Annotated[bool, typer.Option("--read-only", help="Let read requests pass.")]
BreakHolds = Annotated[bool, typer.Option("--break-holds", help="Break the holds of running code.")]
Reason = Annotated[str | None, typer.Option(metavar="TEXT", help="The reason shown to clients and colleagues.")]


class Results:
    """The results of a command by switch: printed one by one, or as JSON at the end."""

    def __init__(self, *, as_json: bool, quiet: bool = False) -> None:
        self._as_json = as_json
        self.prints_lines = not (as_json or quiet)
        self.documents: dict[str, dict[str, Any]] = {}
        self.failed: dict[str, int] = {}
        """The exit status of each switch that failed."""

    @contextmanager
    def catch_error(self, switch: str, store: BaseStateBackend, prefix: str) -> Iterator[None]:
        """Report an error of one switch, so that the command continues with the others."""
        try:
            yield
        except MaintenanceError as error:
            self.failed[switch] = report_error(error, prefix)
            self.documents[switch] = failure_of(switch, message_of(error, store), place_of(store))

    def add(
        self, switch: str, state: MaintenanceState | None, now: datetime, store: BaseStateBackend, **more: object
    ) -> None:
        """Add the state of a switch."""
        self.documents[switch] = {**document_of(switch, state, now, place_of(store)), **more}

    def finish(self, *, is_list: bool = False) -> None:
        """Print the results as JSON if requested, and exit with an error if a switch failed."""
        documents = list(self.documents.values())
        is_list = is_list or len(documents) > 1
        if self._as_json and (is_list or not self.failed):
            print_json(documents if is_list else documents[0])
        if self.failed and len(documents) > 1:
            done = [switch for switch in self.documents if switch not in self.failed]
            print_note(f"done: {', '.join(done) or 'none'}; failed: {', '.join(self.failed)}")
        if self.failed:
            raise typer.Exit(max(self.failed.values()))


def help_of(command: Callable[..., None]) -> str:
    """Return the help text in a command's docstring: a backspace makes click keep line breaks."""
    return inspect.cleandoc(command.__doc__ or "").replace(r"\b", "\b").replace("{sunday}", str(SUNDAY))


def run_program(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    r"""Take a FastAPI service, or a part of it, out of service temporarily.

    \b
    fastapi-maintenance on --for 2h --reason 'migration 42'
    fastapi-maintenance off
    fastapi-maintenance status billing --json
    fastapi-maintenance run --drain 30s -- ./migrate.sh

    Exit status: 0 done, 1 refused or failed, 2 wrong usage.
    """
    if version:
        print_text(f"{PROGRAM} {__version__}")
        raise typer.Exit(DONE)
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(USAGE)


app.callback(invoke_without_command=True, help=help_of(run_program))(run_program)
