"""The command line: ``fastapi-maintenance``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..exceptions import MaintenanceError, MissingExtra
from .terminal import (
    DONE,
    INTERRUPTED,
    PROGRAM,
    complain,
    complain_of_usage,
    escape_what_cannot_be_shown,
    logging_in_one_line,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status; what goes wrong is told in one line on standard error."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command: list[str] = []
    if arguments[:1] == ["run"] and "--" in arguments:  # what follows is another program's
        end = arguments.index("--")
        arguments, command = arguments[:end], arguments[end + 1 :]
    try:
        from .program import app  # noqa: PLC0415 - an extra
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        return complain(MissingExtra("the command line", "cli"))
    escape_what_cannot_be_shown()
    with logging_in_one_line():
        try:
            status = app(arguments, standalone_mode=False, prog_name=PROGRAM, obj=command)
        except MaintenanceError as error:
            return complain(error)
        except Exception as error:
            # Depending on its version, Typer uses click or has a copy of its own.
            if type(error).__name__ == "Abort":  # what it makes of Ctrl-C
                return INTERRUPTED
            if not hasattr(error, "format_message"):
                raise
            return complain_of_usage(error)
    return status if isinstance(status, int) else DONE
