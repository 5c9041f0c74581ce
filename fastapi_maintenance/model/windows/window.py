"""A window: a planned period, once or recurring."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ..moments import Moment, zone_named
from .recurrence import Recurrence
from .rule import MAX_RULE_LENGTH, Rule

MAX_WINDOWS = 100
"""How many windows a switch may have."""

_FIRST_YEAR, _LAST_YEAR = 1900, 2999
"""The years in which a recurring window may begin for the first time."""

_LAST_YEAR_PLACED = 8998
"""Until then recurrences are looked for, whose own end is later."""

_LONGEST = timedelta(days=366)
"""The longest recurring window."""

_DAY = timedelta(days=1)


class Window(BaseModel):
    """A planned period of maintenance: ``start`` belongs to it, ``end`` does not."""

    # Members that only newer versions know are kept.
    model_config = ConfigDict(frozen=True, extra="allow")

    id: str = Field(min_length=1, max_length=64)
    start: Moment
    """When it begins, or begins for the first time."""
    end: Moment
    """When it ends, or ends for the first time."""
    mode: Literal["on", "read_only"] = "on"
    reason: str | None = None
    rrule: str | None = Field(default=None, max_length=MAX_RULE_LENGTH)
    """By which rule it recurs (RFC 5545, without ``RRULE:``)."""
    zone: str | None = None
    """The IANA zone in whose local time a recurring window recurs."""
    ended: Moment | None = None
    """Occurrences that began up to then are over, since an operator ended them early."""

    @field_validator("rrule")
    @classmethod
    def _one_spelling(cls, rrule: str | None) -> str | None:
        return None if rrule is None else rrule.strip().upper().removeprefix("RRULE:")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.end <= self.start:
            raise ValueError(f"the end {self.end} is not after the start {self.start}")
        if (self.rrule is None) is not (self.zone is None):
            raise ValueError(
                "a recurring window needs both: a rule (rrule) and an IANA zone such as 'Europe/Berlin' (zone), "
                "in whose local time it recurs"
            )
        if self.rrule is not None and self.zone is not None:
            zone_named(self.zone)
            if self.duration > _LONGEST:
                raise ValueError(f"a recurring window lasts {_LONGEST.days} days at most, not {self.duration}")
            if not _FIRST_YEAR <= self.start.year <= _LAST_YEAR:
                raise ValueError(f"a recurring window begins in the years {_FIRST_YEAR} to {_LAST_YEAR}: {self.start}")
            recurrence_of(self)  # the zone before: what is wrong is cached, and zones may be installed
        return self

    @property
    def duration(self) -> timedelta:
        """How long each occurrence lasts."""
        return self.end - self.start


def zone_of(start: datetime) -> str:
    if start.tzinfo is UTC:
        return "UTC"
    key = getattr(start.tzinfo, "key", None)
    if not isinstance(key, str):
        raise ValueError(  # noqa: TRY004 - the type is right, what it has to say is too little
            f"start {start} has an offset but no IANA zone, which says what becomes of it when clocks change: "
            "give it as tzinfo=ZoneInfo('Europe/Berlin'), or pass zone='Europe/Berlin'"
        )
    return key


def check_existence(start: datetime) -> None:
    """Raise ``ValueError`` if clocks skip a time."""
    if start.replace(tzinfo=None) != start.astimezone(UTC).astimezone(start.tzinfo).replace(tzinfo=None):
        raise ValueError(f"start {start} does not exist in {start.tzinfo}, clocks skip it: begin on another day")


class _Starts:
    """When a recurring window begins: its rule's local times, placed in its zone."""

    def __init__(self, rrule: str, zone: str, first: datetime) -> None:
        self.zone = zone_named(zone)
        self._first = first
        self.recurrence = Recurrence(Rule.parse(rrule), first.astimezone(self.zone).replace(tzinfo=None))

    def since(self, moment: datetime) -> Iterator[datetime]:
        """Yield when it begins, from a moment on, in order."""
        since = max(moment, self._first)
        if since.year > _LAST_YEAR_PLACED:
            return
        # A local time that is skipped or comes twice may be placed at or after `since` although it reads earlier.
        reads = min((since + by).astimezone(self.zone).replace(tzinfo=None) - by for by in (-_DAY, 0 * _DAY, _DAY))
        until = self.recurrence.until
        for start in self._placed(self.recurrence.occurs_from(reads)):
            if until is not None and start > until:
                return
            if start >= since:
                yield start

    def _placed(self, walls: Iterable[datetime]) -> Iterator[datetime]:
        """Yield the moments of local times: the first if there are two, and later by the gap if there is none."""
        moved: list[datetime] = []
        for wall in walls:
            start = wall.replace(tzinfo=self.zone).astimezone(UTC)
            if start.astimezone(self.zone).replace(tzinfo=None) != wall:
                moved.append(start)  # past local times that are still to come
                continue
            if moved:
                yield from (other for other in moved if other < start)
                moved = [other for other in moved if other > start]
            yield start
        yield from moved


def recurrence_of(window: Window) -> _Starts:
    """Return when a recurring window begins.

    Raises:
        ValueError: It can't be what was meant, and why.
    """
    recurrence = _checked_recurrence(window.rrule or "", window.zone or "", window.start, window.duration)
    if isinstance(recurrence, str):
        raise ValueError(recurrence)  # noqa: TRY004 - what is wrong with the window
    return recurrence


@lru_cache(maxsize=4 * MAX_WINDOWS)  # a document is read every second, and its windows are the same for weeks
def _checked_recurrence(rrule: str, zone: str, start: datetime, duration: timedelta) -> _Starts | str:
    """Return when a window begins, or what is wrong with it."""
    try:
        starts = _Starts(rrule, zone, start)
    except ValueError as error:
        return str(error)
    begins = start.astimezone(starts.zone)
    if begins.fold:
        return f"start {begins} is the second of that name, and a window recurs at the first: begin with that"
    first = next(starts.since(start), None)
    if first is None:
        return f"a window by the rule {rrule!r} never occurs"
    if first != start:
        return (
            f"start {begins} is no occurrence of the rule {rrule!r}: "
            f"begin with the first one that is, {first.astimezone(starts.zone)}"
        )
    gap = starts.recurrence.shorter_gap(duration)
    if gap is not None:
        return (
            f"a window of {duration} by the rule {rrule!r} overlaps itself, it recurs after {gap}: "
            "let it be shorter, or recur less often"
        )
    return starts
