"""The commands that show switches."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ..backends.base import BaseStateBackend
from ..backends.env import EnvVarBackend
from ..exceptions import MaintenanceError, UnsupportedByBackend
from ..model.state import MaintenanceState
from ..model.text import in_one_line
from ..switches.app_switch import DEFAULT
from ..switches.backend_urls import BACKEND_VARIABLE
from ..switches.control import list_switches
from .program import AsJson, Backend, Name, Names, Quiet, Results
from .store import (
    all_stores_of,
    describe_empty_store,
    is_file,
    load_state,
    message_of,
    place_of,
    read_state,
    siblings_of,
    store_of,
    stores_of,
)
from .terminal import (
    brief_of,
    details_of,
    document_hint,
    document_of,
    failure_of,
    format_time,
    open_console,
    print_dimmed,
    print_note,
    print_result,
    print_text,
    report_error,
    summary_of,
    version_suffix,
)
from .values import parse_seconds

if TYPE_CHECKING:
    from rich.text import Text

_BLOCKED, _UNKNOWN = 1, 2
"""Exit statuses of ``status --exit-code``."""


def status(
    names: Names = None,
    *,
    backend: Backend = None,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 0 for off, 1 for on or read-only, 2 for unknown.")
    ] = False,
    var_name: Annotated[
        str | None, typer.Option(metavar="VAR", help="With --backend env, as in 0.0.5: equals env://VAR.")
    ] = None,
    file_path: Annotated[
        str | None, typer.Option(metavar="PATH", help="With --backend file, as in 0.0.5: equals file:PATH.")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    r"""Show switches: without names, all in the store, the default one first. Nothing is written.

    \b
    fastapi-maintenance status
    fastapi-maintenance status billing orders --json
    fastapi-maintenance status --exit-code --quiet || echo 'under maintenance, or unknown'
    """
    try:
        stores = stores_of(backend, names or (DEFAULT,), var_name=var_name, file_path=file_path)
    except MaintenanceError as error:
        failure = report_error(error)
        raise typer.Exit(_UNKNOWN if exit_code else failure) from None
    results = Results(as_json=as_json, quiet=quiet)
    has_others = not (names or var_name or file_path)
    for name, store in _add_other_switches(stores, results) if has_others else stores.items():
        with results.catch_error(name, store, name if len(stores) > 1 else ""):
            state, now = asyncio.run(load_state(store)), datetime.now(UTC)
            results.add(name, state, now, store)
            if results.prints_lines:
                _print_details(name, store, state, now)
    if exit_code:
        results.failed = dict.fromkeys(results.failed, _UNKNOWN)
    results.finish()
    if exit_code and any(result["blocked"] for result in results.documents.values()):
        raise typer.Exit(_BLOCKED)


def _add_other_switches(
    stores: dict[str, BaseStateBackend], results: Results
) -> Iterator[tuple[str, BaseStateBackend]]:
    """Yield the default switch, then the others in its store if it can list them."""
    default = stores[DEFAULT]
    yield DEFAULT, default
    if results.failed:
        return
    try:
        names = asyncio.run(list_switches(default))
    except UnsupportedByBackend:
        return
    except MaintenanceError as error:
        print_note(f"warning: the other switches of the store can't be listed: {message_of(error, default)}")
        return
    stores |= siblings_of(default, names)
    yield from ((name, store) for name, store in stores.items() if name != DEFAULT)


def list_all(*, backend: Backend = None, as_json: AsJson = False) -> None:
    r"""List all switches in the store, one line each. Nothing is written.

    \b
    fastapi-maintenance list
    fastapi-maintenance list --json
    """
    results = Results(as_json=as_json)
    for name, store in all_stores_of(backend).items():
        with results.catch_error(name, store, name):
            state, now = asyncio.run(read_state(store)), datetime.now(UTC)
            results.add(name, state, now, store)
            if results.prints_lines:
                print_text(summary_of(name, state, now, more=brief_of(state, now)))
    results.finish(is_list=True)


def _print_details(name: str, store: BaseStateBackend, state: MaintenanceState | None, now: datetime) -> None:
    """Print the state of a switch and its details."""
    print_text(summary_of(name, state, now, nothing=describe_empty_store(store)))
    for key, value in details_of(state or MaintenanceState(), now, place_of(store)):
        print_text(f"  {key}: {value}")
    if isinstance(store, EnvVarBackend):
        note = f"a variable of this shell, not of the app; --backend URL or {BACKEND_VARIABLE} selects the app's store"
        print_dimmed(f"  note: {note}")
    if state is None and not is_file(store):
        print_dimmed(f"  hint: {document_hint(name)}")


def watch(
    name: Name = DEFAULT,
    *,
    backend: Backend = None,
    interval: Annotated[str, typer.Option(metavar="SECONDS", help="The time between readings.")] = "1s",
    as_json: AsJson = False,
) -> None:
    r"""Show a switch live, or print a line per change if there is no terminal. Ctrl-C ends it.

    \b
    fastapi-maintenance watch
    fastapi-maintenance watch billing --json --interval 5s
    """
    store, pause = store_of(backend, name), parse_seconds(interval, "--interval", least=1)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(watch_switch(name, store, seconds=pause, as_json=as_json))


class Reading(NamedTuple):
    """One reading of the store, or its error."""

    at: datetime
    state: MaintenanceState | None
    nothing: str
    """The text to show without a state."""
    error: str = ""

    def facts(self) -> tuple[object, ...]:
        """Return the values that are compared."""
        state = self.state
        if state is None:
            return (self.nothing,)
        return state.epoch, state.version, state.mode_at(self.at), *state.holds_at(self.at)


async def watch_switch(switch: str, backend: BaseStateBackend, *, seconds: float, as_json: bool) -> None:
    """Print the state of a switch at each change until cancelled."""
    if sys.stdout.isatty() and not as_json:
        await _watch_live(switch, backend, seconds)
    former: tuple[object, ...] = ()
    async for reading in _readings(backend, seconds):
        if reading.facts() != former:
            _print_reading(switch, reading, place_of(backend), as_json=as_json)
        former = reading.facts()


async def _readings(backend: BaseStateBackend, seconds: float) -> AsyncIterator[Reading]:
    while True:
        try:
            state = await load_state(backend)
            yield Reading(datetime.now(UTC), state, describe_empty_store(backend))
        except MaintenanceError as error:
            why = in_one_line(message_of(error, backend))
            yield Reading(datetime.now(UTC), None, f"unknown: {why}", why)
        await asyncio.sleep(seconds)


def _print_reading(switch: str, reading: Reading, store: str, *, as_json: bool) -> None:
    at, state = reading.at, reading.state
    found = failure_of(switch, reading.error, store) if reading.error else document_of(switch, state, at, store)
    line = _line_of(switch, reading, before=f"{format_time(at)}  ", more=version_suffix(state))
    print_result({"at": at, **found}, line, as_json=as_json)


def _line_of(switch: str, reading: Reading, *, before: str = "", more: str = "") -> Text:
    return summary_of(switch, reading.state, reading.at, nothing=reading.nothing, before=before, more=more)


async def _watch_live(switch: str, backend: BaseStateBackend, seconds: float) -> None:
    from rich.console import Group  # noqa: PLC0415 - an extra
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    with Live(console=open_console(), auto_refresh=False) as live:
        async for reading in _readings(backend, seconds):
            rows = () if reading.state is None else details_of(reading.state, reading.at, place_of(backend))
            lines = [_line_of(switch, reading), *(Text(f"  {name}: {value}") for name, value in rows)]
            live.update(Group(*lines, Text(f"  read: {format_time(reading.at)}; Ctrl-C ends this")), refresh=True)
