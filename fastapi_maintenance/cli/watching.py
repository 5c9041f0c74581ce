"""A switch, watched: live on a terminal, elsewhere a line for each change."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from ..backends.base import BaseStateBackend
from ..exceptions import MaintenanceError
from ..page import in_one_line
from ..state import MaintenanceState
from .store import explained, load, nothing_in, place_of
from .terminal import at_version, console, details, document, moment, summary, tell, tell_json

if TYPE_CHECKING:
    from rich.text import Text


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
