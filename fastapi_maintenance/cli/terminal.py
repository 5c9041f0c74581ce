"""Output to the terminal, in lines that stored text can't forge, and exit statuses."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from ..backends.base import BaseStateBackend
from ..exceptions import (
    CorruptState,
    InvalidConfiguration,
    InvalidSwitchName,
    MaintenanceError,
    SwitchIsHeld,
    UnknownBackend,
)
from ..model.modes import MaintenanceMode
from ..model.state import Hold, MaintenanceState
from ..model.text import in_one_line
from ..model.windows.window import Window
from ..switches.app_switch import DEFAULT
from ..switches.control import describe_state
from .store import folder_suffix

if TYPE_CHECKING:
    import io

    from rich.console import Console
    from rich.text import Text


PROGRAM = "fastapi-maintenance"

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses, except those of ``run`` and ``status --exit-code``."""

_USAGE_ERRORS = (InvalidConfiguration, InvalidSwitchName, UnknownBackend)

_FIRST_TIME_VERSION = 10**14
"""Microseconds in 1973. Larger versions are times of changes, smaller ones are numbers of changes."""
_STYLES = {MaintenanceMode.OFF: "green", MaintenanceMode.ON: "bold red"}
_OTHER_STYLE = "bold yellow"


def escape_unprintable() -> None:
    """Escape characters that the terminal can't encode; standard error already does so."""
    cast("io.TextIOWrapper", sys.stdout).reconfigure(errors="backslashreplace")


def document_hint(switch: str) -> str:
    """Return a hint about how to store a document."""
    named = "" if switch == DEFAULT else f" {switch} --new"
    return f"'{PROGRAM} on{named}' and '{PROGRAM} off{named}' store one, which all workers follow"


def report_error(error: MaintenanceError, switch: str = "") -> int:
    """Print an error in one line on standard error, with a switch if given, and return the exit status."""
    hint = ""
    if isinstance(error, SwitchIsHeld):
        hint = "; --break-holds breaks them"
    elif isinstance(error, CorruptState) and error.revision is not None:
        hint = f"; '{PROGRAM} forget' replaces it"
    print_note(f"error: {switch and f'{switch}: '}{error}{hint}")
    return USAGE if isinstance(error, _USAGE_ERRORS) else FAILED


def report_usage_error(error: Any) -> int:
    """Print a usage error of click, and return the exit status."""
    command = PROGRAM if error.ctx is None else error.ctx.command_path
    hint = f" The command must come after '--': {command} -- COMMAND." if command == f"{PROGRAM} run" else ""
    print_note(f"error: {error.format_message()}{hint} See '{command} --help'.")
    return USAGE


def print_note(text: str) -> None:
    """Print a text on standard error, in one line."""
    print(in_one_line(text), file=sys.stderr, flush=True)  # noqa: T201


@contextmanager
def log_in_one_line() -> Iterator[None]:
    """Print each of the package's warnings in one line."""
    logger, handler = logging.getLogger("fastapi_maintenance"), _Handler(logging.WARNING)
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        reason = record.exc_info and record.exc_info[1]
        print_note(f"{record.levelname.lower()}: {record.getMessage()}" + (f": {reason}" if reason else ""))


def open_console() -> Console:
    """Return standard output: coloured on a terminal unless ``NO_COLOR`` is set, elsewhere without line breaks."""
    from rich.console import Console  # noqa: PLC0415 - an extra

    # No markup, emoji codes or highlighting, because the text may come from others.
    options: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}
    return Console(**options) if sys.stdout.isatty() else Console(**options, width=10_000)


def print_text(text: str | Text) -> None:
    """Print one or more lines on standard output."""
    open_console().print(text, soft_wrap=True)


def print_dimmed(text: str) -> None:
    """Print a dimmed line on standard output."""
    from rich.text import Text  # noqa: PLC0415 - an extra

    print_text(Text(text, style="dim"))


def print_json(document: object) -> None:
    """Print a document on standard output as JSON in one line of ASCII, with times in UTC to the second."""
    print(json.dumps(document, default=_format_json_time), flush=True)  # noqa: T201


def _format_json_time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def format_time(at: datetime) -> str:
    """Return a readable time in UTC to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def version_suffix(state: MaintenanceState | None) -> str:
    """Return the version for a line; empty if it is a time, as in a file that held a bare word."""
    return f", version {state.version}" if state is not None and state.version < _FIRST_TIME_VERSION else ""


def suffix_of(state: MaintenanceState, store: BaseStateBackend) -> str:
    """Return the version and the folder of a state for a line."""
    return f"{version_suffix(state)}{folder_suffix(store)}"


def summary_of(
    switch: str,
    state: MaintenanceState | None,
    now: datetime,
    *,
    nothing: str = "",
    before: str = "",
    more: str = "",
) -> Text:
    """Return one line about a switch: ``before``, name, mode, ``more``, reason.

    Without a state, ``nothing`` replaces the mode.
    """
    from rich.text import Text  # noqa: PLC0415 - an extra

    if state is None:
        return Text(f"{before}{switch}: {nothing}{more}")
    mode = state.mode_at(now)
    reason, until, _ = state.explanation_at(now)
    text = Text(f"{before}{switch}: ").append(mode.label, style=_STYLES.get(mode, _OTHER_STYLE))
    if mode is not MaintenanceMode.OFF and until is not None:
        text.append(f" until {format_time(until)}")
    text.append(more)
    if mode is not MaintenanceMode.OFF and reason:
        text.append(f": {in_one_line(reason)}")
    return text


def details_of(state: MaintenanceState, now: datetime, store: str) -> list[tuple[str, str]]:
    """Return the details of a switch as pairs of a label and a text."""
    explained = state.explanation_at(now)
    live = state.holds_at(now)
    rows: list[tuple[str, str]] = []
    if live or state.mode_at(now) is not state.mode:
        rows.append(("stored mode", _stored_mode_of(state, now)))
    if state.since is not None:
        rows.append(("since", format_time(state.since)))
    if explained.retry_after is not None:
        rows.append(("retry after", f"{explained.retry_after} s"))
    rows += [("hold", _describe_hold(hold)) for hold in live.values()]
    rows += [("window", describe_window(window)) for window in state.windows_left(now)]
    following = state.next_change_at(now)
    if following is not None:
        rows.append(("next change", f"{state.mode_at(following).label} from {format_time(following)}"))
    if state.updated_at is not None:
        by = f" by {state.updated_by}" if state.updated_by else ""
        rows.append(("changed", f"{format_time(state.updated_at)}{by}"))
    if version_suffix(state):
        rows.append(("version", str(state.version)))
    rows.append(("store", store))
    return [(name, in_one_line(value)) for name, value in rows]


def brief_of(state: MaintenanceState, now: datetime) -> str:
    """Return the holds of a switch and its next change for a line."""
    words = [
        f"held {hold.kind}" + (f" by {hold.owner}" if hold.owner else "") for hold in state.holds_at(now).values()
    ]
    following = state.next_change_at(now)
    if following is not None and following != state.explanation_at(now).until:
        words.append(f"{state.mode_at(following).label} from {format_time(following)}")
    return f" ({in_one_line('; '.join(words))})" if words else ""


def _stored_mode_of(state: MaintenanceState, now: datetime) -> str:
    if state.until is None or state.mode is MaintenanceMode.OFF:
        return state.mode
    return f"{state.mode}, {'ended' if now >= state.until else 'until'} {format_time(state.until)}"


def _describe_hold(hold: Hold) -> str:
    parts = [hold.kind, f"by {hold.owner}" if hold.owner else "", f"({hold.reason})" if hold.reason else ""]
    end = f", or at {format_time(hold.expires_at)} if its process has died" if hold.expires_at else ""
    return " ".join(filter(None, parts)) + f", until it is given back{end}"


def describe_window(window: Window) -> str:
    """Return a planned maintenance as text."""
    recurs = "" if window.rrule is None else f", again by {window.rrule} in {window.zone}"
    reason = f" ({window.reason})" if window.reason else ""
    return f"{window.id}: {window.mode} from {format_time(window.start)} to {format_time(window.end)}{recurs}{reason}"


def failure_of(switch: str, error: str, store: str) -> dict[str, Any]:
    """Return the JSON document of a switch that could not be read or changed."""
    return {"switch": switch, "mode": None, "error": error, "store": store}


def document_of(switch: str, stored: MaintenanceState | None, now: datetime, store: str) -> dict[str, Any]:
    """Return the JSON document of a switch."""
    state = stored or MaintenanceState()
    return {
        "switch": switch,
        "blocked": state.mode_at(now) is not MaintenanceMode.OFF,
        **describe_state(state, now),
        "since": state.since,
        "stored": stored is not None and not stored.forgotten,
        "store": store,
    }


def print_result(document: dict[str, Any], line: str | Text, *, as_json: bool, quiet: bool = False) -> None:
    """Print the result of a command for one switch."""
    if as_json:
        print_json(document)
    elif not quiet:
        print_text(line)
