"""The command line: ``fastapi-maintenance``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..exceptions import MaintenanceError, MissingExtra
from .terminal import (
    DONE,
    INTERRUPTED,
    PROGRAM,
    escape_unprintable,
    log_in_one_line,
    report_error,
    report_usage_error,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status; an error is printed in one line on standard error."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command: list[str] = []
    if arguments[:1] == ["run"] and "--" in arguments:  # the rest belongs to another program
        end = arguments.index("--")
        arguments, command = arguments[:end], arguments[end + 1 :]
    try:
        from .commands import app  # noqa: PLC0415 - an extra
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        return report_error(MissingExtra("the command line", "cli"))
    escape_unprintable()
    with log_in_one_line():
        try:
            status = app(arguments, standalone_mode=False, prog_name=PROGRAM, obj=command)
        except MaintenanceError as error:
            return report_error(error)
        except Exception as error:
            # Depending on its version, Typer uses click or its own copy of it.
            if type(error).__name__ == "Abort":  # Typer's name for Ctrl-C
                return INTERRUPTED
            if not hasattr(error, "format_message"):
                raise
            return report_usage_error(error)
    return status if isinstance(status, int) else DONE
