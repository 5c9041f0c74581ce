"""What the terminal is told: lines that nothing stored can forge, and exit statuses."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

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

if TYPE_CHECKING:
    import io

    from rich.console import Console
    from rich.text import Text


PROGRAM = "fastapi-maintenance"

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses. That of ``run`` is its command's, that of ``status --exit-code`` says what the switch does."""

_MISTYPED = (InvalidConfiguration, InvalidSwitchName, UnknownBackend)

WORDS = {MaintenanceMode.OFF: "OFF", MaintenanceMode.ON: "ON", MaintenanceMode.READ_ONLY: "READ-ONLY"}
_FIRST_TIME = 10**14
"""Microseconds in 1973: no store counts so far by ones."""
_STYLES = {MaintenanceMode.OFF: "green", MaintenanceMode.ON: "bold red", MaintenanceMode.READ_ONLY: "bold yellow"}


def escape_what_cannot_be_shown() -> None:
    """Have what the terminal's encoding lacks told all the same; standard error does so by itself."""
    cast("io.TextIOWrapper", sys.stdout).reconfigure(errors="backslashreplace")


def hint_at_document(switch: str) -> str:
    """Return how the store of a switch gets a document."""
    named = "" if switch == DEFAULT else f" {switch} --new"
    return f"'{PROGRAM} on{named}' and '{PROGRAM} off{named}' store one, which all workers follow"


def complain(error: MaintenanceError, switch: str = "") -> int:
    """Tell what went wrong in one line on standard error, of one switch of several, and return the exit status."""
    hint = ""
    if isinstance(error, SwitchIsHeld):
        hint = "; --break-holds breaks them"
    elif isinstance(error, CorruptState) and error.revision is not None:
        hint = f"; '{PROGRAM} forget' replaces it"
    note(f"error: {switch and f'{switch}: '}{error}{hint}")
    return USAGE if isinstance(error, _MISTYPED) else FAILED


def complain_of_usage(error: Any) -> int:
    """Tell what is wrong with the arguments, as click knows it, and return the exit status."""
    command = PROGRAM if error.ctx is None else error.ctx.command_path
    hint = f" The command must stand after '--': {command} -- COMMAND." if command == f"{PROGRAM} run" else ""
    note(f"error: {error.format_message()}{hint} See '{command} --help'.")
    return USAGE


def note(text: str) -> None:
    """Tell something on standard error, in one line."""
    print(in_one_line(text), file=sys.stderr, flush=True)  # noqa: T201


@contextmanager
def logging_in_one_line() -> Iterator[None]:
    """Have the package's warnings told in one line each."""
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
        note(f"{record.levelname.lower()}: {record.getMessage()}" + (f": {reason}" if reason else ""))


def console() -> Console:
    """Return standard output: with colours on a terminal, unless ``NO_COLOR`` is set; elsewhere no line is broken."""
    from rich.console import Console  # noqa: PLC0415 - an extra

    # Markup, emoji codes and highlighting are for authors of programs: what is told here was written by others.
    options: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}
    return Console(**options) if sys.stdout.isatty() else Console(**options, width=10_000)


def tell(text: str | Text) -> None:
    """Tell a line, or several, on standard output."""
    console().print(text, soft_wrap=True)


def faint(text: str) -> Text:
    """Return a line that stands back behind the others, on a terminal."""
    from rich.text import Text  # noqa: PLC0415 - an extra

    return Text(text, style="dim")


def tell_json(document: object) -> None:
    """Tell a document on standard output, in one line of ASCII; times in UTC and to the second."""
    print(json.dumps(document, default=_plain), flush=True)  # noqa: T201


def _plain(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def moment(at: datetime) -> str:
    """Return a time as people read it, in UTC and to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def at_version(state: MaintenanceState | None) -> str:
    """Return what a line says of the version: nothing of the time that a file has for one after a bare word."""
    return f", version {state.version}" if state is not None and state.version < _FIRST_TIME else ""


def summary(
    switch: str,
    state: MaintenanceState | None,
    now: datetime,
    *,
    nothing: str = "",
    before: str = "",
    more: str = "",
) -> Text:
    """Return in one line what a switch does to requests; ``more`` stands before what others wrote.

    Without a state, ``nothing`` is what it does.
    """
    from rich.text import Text  # noqa: PLC0415 - an extra

    if state is None:
        return Text(f"{before}{switch}: {nothing}{more}")
    mode = state.mode_at(now)
    reason, until, _ = state.explanation_at(now)
    text = Text(f"{before}{switch}: ").append(WORDS[mode], style=_STYLES[mode])
    if mode is not MaintenanceMode.OFF and until is not None:
        text.append(f" until {moment(until)}")
    text.append(more)
    if mode is not MaintenanceMode.OFF and reason:
        text.append(f": {in_one_line(reason)}")
    return text


def details(state: MaintenanceState, now: datetime, store: str) -> list[tuple[str, str]]:
    """Return what else there is to say of a switch: names, and what goes with them."""
    explained = state.explanation_at(now)
    live = state.holds_at(now)
    rows: list[tuple[str, str]] = []
    if live or state.mode_at(now) is not state.mode:
        rows.append(("stored mode", _stored(state, now)))
    if state.since is not None:
        rows.append(("since", moment(state.since)))
    if explained.retry_after is not None:
        rows.append(("retry after", f"{explained.retry_after} s"))
    rows += [("hold", _of_hold(hold)) for hold in live.values()]
    rows += [("window", described(window)) for window in state.windows_left(now)]
    following = state.next_change_at(now)
    if following is not None:
        rows.append(("next change", f"{WORDS[state.mode_at(following)]} from {moment(following)}"))
    if state.updated_at is not None:
        rows.append(("changed", moment(state.updated_at) + (f" by {state.updated_by}" if state.updated_by else "")))
    if at_version(state):
        rows.append(("version", str(state.version)))
    rows.append(("store", store))
    return [(name, in_one_line(value)) for name, value in rows]


def brief(state: MaintenanceState, now: datetime) -> str:
    """Return in a few words, for a line, who holds a switch and when its mode changes next."""
    words = [
        f"held {hold.kind}" + (f" by {hold.owner}" if hold.owner else "") for hold in state.holds_at(now).values()
    ]
    following = state.next_change_at(now)
    if following is not None and following != state.explanation_at(now).until:
        words.append(f"{WORDS[state.mode_at(following)]} from {moment(following)}")
    return f" ({in_one_line('; '.join(words))})" if words else ""


def _stored(state: MaintenanceState, now: datetime) -> str:
    if state.until is None or state.mode is MaintenanceMode.OFF:
        return state.mode
    return f"{state.mode}, {'ended' if now >= state.until else 'until'} {moment(state.until)}"


def _of_hold(hold: Hold) -> str:
    parts = [hold.kind, f"by {hold.owner}" if hold.owner else "", f"({hold.reason})" if hold.reason else ""]
    end = f", or at {moment(hold.expires_at)} if its process has died" if hold.expires_at else ""
    return " ".join(filter(None, parts)) + f", until it is given back{end}"


def described(window: Window) -> str:
    """Return what there is to say of a planned maintenance."""
    recurs = "" if window.rrule is None else f", again by {window.rrule} in {window.zone}"
    reason = f" ({window.reason})" if window.reason else ""
    return f"{window.id}: {window.mode} from {moment(window.start)} to {moment(window.end)}{recurs}{reason}"


def document(switch: str, stored: MaintenanceState | None, now: datetime, store: str) -> dict[str, Any]:
    """Return all there is to say of a switch, for ``tell_json``."""
    state = stored or MaintenanceState()
    mode, explained = state.mode_at(now), state.explanation_at(now)
    return {
        "switch": switch,
        "mode": mode,
        "blocked": mode is not MaintenanceMode.OFF,
        "reason": explained.reason,
        "until": explained.until,
        "retry_after": explained.retry_after,
        "stored_mode": state.mode,
        "since": state.since,
        "holds": [
            {
                "id": id_,
                "kind": hold.kind,
                "owner": hold.owner,
                "reason": hold.reason,
                "expires_at": hold.expires_at,
            }
            for id_, hold in state.holds_at(now).items()
        ],
        "windows": [window.model_dump() for window in state.windows_left(now)],
        "next_change_at": state.next_change_at(now),
        "updated_by": state.updated_by,
        "updated_at": state.updated_at,
        "version": state.version,
        "stored": stored is not None and not stored.forgotten,
        "store": store,
    }
