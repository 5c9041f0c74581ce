"""The commands that show switches."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ..backends.base import BaseStateBackend
from ..backends.env import EnvVarBackend
from ..exceptions import MaintenanceError, UnsupportedByBackend
from ..model.state import MaintenanceState
from ..model.text import in_one_line
from ..switches.app_switch import DEFAULT
from ..switches.backend_urls import BACKEND_VARIABLE
from ..switches.control import list_switches
from .changes import all_stores, among, finish
from .commands import BLOCKED, UNKNOWN
from .program import AsJson, Backend, Name, Names, Quiet, app
from .store import all_of, explained, is_file, load, nothing_in, place_of, read, store_of, stores_of
from .terminal import (
    FAILED,
    at_version,
    brief,
    complain,
    console,
    details,
    document,
    faint,
    hint_at_document,
    moment,
    note,
    summary,
    tell,
    tell_json,
)
from .values import seconds

if TYPE_CHECKING:
    from rich.text import Text


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
    r"""Show what switches do: without names the default one, then all others of the store. Nothing is written.

    \b
    fastapi-maintenance status
    fastapi-maintenance status billing orders --json
    fastapi-maintenance status --exit-code --quiet || echo 'under maintenance, or unknown'
    """
    try:
        stores = stores_of(backend, names or (DEFAULT,), var_name=var_name, file_path=file_path)
    except MaintenanceError as error:
        failure = complain(error)
        raise typer.Exit(UNKNOWN if exit_code else failure) from None
    said: list[dict[str, Any]] = []
    failed: dict[str, int] = {}
    has_others = not (names or var_name or file_path)
    for name, store in _with_others(stores, failed) if has_others else stores.items():
        try:
            state = asyncio.run(load(store))
        except MaintenanceError as error:
            failed[name] = max(complain(error, among(stores, name)), UNKNOWN if exit_code else FAILED)
            said.append({"switch": name, "mode": None, "error": explained(error, store), "store": place_of(store)})
            continue
        said.append(document(name, state, datetime.now(UTC), place_of(store)))
        if not quiet and not as_json:
            _show(name, store, state)
    finish(said, failed, as_json=as_json)
    if exit_code and any(one["blocked"] for one in said):
        raise typer.Exit(BLOCKED)


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
    r"""List all switches of the store, one line each. Nothing is written.

    \b
    fastapi-maintenance list
    fastapi-maintenance list --json
    """
    said: list[dict[str, Any]] = []
    failed: dict[str, int] = {}
    stores = all_stores(store_of(backend))
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
def watch(
    name: Name = DEFAULT,
    *,
    backend: Backend = None,
    interval: Annotated[str, typer.Option(metavar="SECONDS", help="How often the store is read.")] = "1s",
    as_json: AsJson = False,
) -> None:
    r"""Show what a switch does, live: a line for each change where there is no terminal. Ctrl-C ends it.

    \b
    fastapi-maintenance watch
    fastapi-maintenance watch billing --json --interval 5s
    """
    store, pause = store_of(backend, name), seconds(interval, "--interval", least=1)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(watch_switch(name, store, seconds=pause, as_json=as_json))


class Seen(NamedTuple):
    """What the store said at one time, or why it said nothing."""

    at: datetime
    state: MaintenanceState | None
    nothing: str
    """What there is to say without a state."""
    error: str = ""

    def differs_from(self, former: Seen | None) -> bool:
        """Return whether there is anything to tell."""
        return former is None or self.facts() != former.facts()

    def facts(self) -> tuple[object, ...]:
        """Return what is worth telling when it changes."""
        state = self.state
        if state is None:
            return (self.nothing,)
        return state.epoch, state.version, state.mode_at(self.at), *state.holds_at(self.at)


async def watch_switch(switch: str, backend: BaseStateBackend, *, seconds: float, as_json: bool) -> None:
    """Tell what a switch does, until this is cancelled."""
    if sys.stdout.isatty() and not as_json:
        await _watch_live(switch, backend, seconds)
    former: Seen | None = None
    async for seen in _readings(backend, seconds):
        if seen.differs_from(former):
            _tell(switch, seen, place_of(backend), as_json=as_json)
        former = seen


async def _readings(backend: BaseStateBackend, seconds: float) -> AsyncIterator[Seen]:
    while True:
        try:
            state = await load(backend)
            yield Seen(datetime.now(UTC), state, nothing_in(backend))
        except MaintenanceError as error:
            why = in_one_line(explained(error, backend))
            yield Seen(datetime.now(UTC), None, f"unknown: {why}", why)
        await asyncio.sleep(seconds)


def _tell(switch: str, seen: Seen, store: str, *, as_json: bool) -> None:
    if as_json:
        failure = {"switch": switch, "mode": None, "error": seen.error, "store": store}
        said = failure if seen.error else document(switch, seen.state, seen.at, store)
        tell_json({"at": seen.at, **said})
    else:
        tell(_line(switch, seen, before=f"{moment(seen.at)}  ", more=at_version(seen.state)))


def _line(switch: str, seen: Seen, *, before: str = "", more: str = "") -> Text:
    return summary(switch, seen.state, seen.at, nothing=seen.nothing, before=before, more=more)


async def _watch_live(switch: str, backend: BaseStateBackend, seconds: float) -> None:
    from rich.console import Group  # noqa: PLC0415 - an extra
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    with Live(console=console(), auto_refresh=False) as live:
        async for seen in _readings(backend, seconds):
            rows = () if seen.state is None else details(seen.state, seen.at, place_of(backend))
            lines = [_line(switch, seen), *(Text(f"  {name}: {value}") for name, value in rows)]
            live.update(Group(*lines, Text(f"  read: {moment(seen.at)}; Ctrl-C ends this")), refresh=True)
