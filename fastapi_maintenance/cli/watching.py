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
from .store import read
from .terminal import at_version, console, details, document, moment, summary, tell, tell_json

if TYPE_CHECKING:
    from rich.text import Text


class Seen(NamedTuple):
    """What the store said at one time, or why it said nothing."""

    at: datetime
    state: MaintenanceState | None
    error: str = ""

    def differs_from(self, former: Seen | None) -> bool:
        """Return whether there is anything to tell."""
        return former is None or self.facts() != former.facts()

    def facts(self) -> tuple[object, ...]:
        """Return what is worth telling when it changes."""
        state = self.state
        if state is None:
            return (self.error,)
        return state.epoch, state.version, state.mode_at(self.at), *state.holds_at(self.at)


async def watch_switch(switch: str, backend: BaseStateBackend, *, seconds: float, as_json: bool) -> None:
    """Tell what a switch does, until this is cancelled."""
    if sys.stdout.isatty() and not as_json:
        await _watch_live(switch, backend, seconds)
    former: Seen | None = None
    async for seen in _readings(backend, seconds):
        if seen.differs_from(former):
            _tell(switch, seen, repr(backend), as_json=as_json)
        former = seen


async def _readings(backend: BaseStateBackend, seconds: float) -> AsyncIterator[Seen]:
    while True:
        try:
            state = await read(backend)
            yield Seen(datetime.now(UTC), state)
        except MaintenanceError as error:
            yield Seen(datetime.now(UTC), None, in_one_line(str(error)))
        await asyncio.sleep(seconds)


def _tell(switch: str, seen: Seen, store: str, *, as_json: bool) -> None:
    if as_json:
        said = {"switch": switch, "mode": None, "error": seen.error, "store": store}
        if seen.state is not None:
            said = document(switch, seen.state, seen.at, store)
        tell_json({"at": seen.at.isoformat(), **said})
    elif seen.state is None:
        tell(f"{moment(seen.at)}  {switch}: unknown: {seen.error}")
    else:
        tell(summary(switch, seen.state, seen.at, before=f"{moment(seen.at)}  ", more=at_version(seen.state)))


async def _watch_live(switch: str, backend: BaseStateBackend, seconds: float) -> None:
    from rich.console import Group  # noqa: PLC0415 - an extra
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    with Live(console=console(), auto_refresh=False) as live:
        async for seen in _readings(backend, seconds):
            lines = [Text(f"{switch}: unknown: {seen.error}")] if seen.state is None else _lines(switch, seen, backend)
            live.update(Group(*lines, Text(f"  read: {moment(seen.at)}; Ctrl-C ends this")), refresh=True)


def _lines(switch: str, seen: Seen, backend: BaseStateBackend) -> list[Text]:
    from rich.text import Text  # noqa: PLC0415 - an extra

    state = seen.state or MaintenanceState()
    rows = details(state, seen.at, repr(backend))
    return [summary(switch, state, seen.at), *(Text(f"  {name}: {value}") for name, value in rows)]
