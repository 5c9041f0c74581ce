"""A window: a planned period, once or recurring, and its validation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ..modes import PlannedModeName
from ..moments import Moment, zone_named
from .recurrence import Recurrence
from .rule import MAX_RULE_LENGTH, Rule

MAX_WINDOWS = 100
"""The most windows of one switch."""

_FIRST_YEAR, _LAST_YEAR = 1900, 2999
"""The years in which the first occurrence of a recurring window may begin."""

_LAST_YEAR_PLACED = 8998
"""The last year of occurrences; ``Recurrence`` ends later."""

_LONGEST = timedelta(days=366)
"""The longest recurring window."""

_DAY = timedelta(days=1)


class Window(BaseModel):
    """A planned period of maintenance: ``start`` belongs to it, ``end`` does not."""

    # Members that only newer versions know are kept.
    model_config = ConfigDict(frozen=True, extra="allow")

    id: str = Field(min_length=1, max_length=64)
    start: Moment
    """The start of the first occurrence."""
    end: Moment
    """The end of the first occurrence."""
    mode: PlannedModeName = "on"
    reason: str | None = None
    rrule: str | None = Field(default=None, max_length=MAX_RULE_LENGTH)
    """The recurrence rule (RFC 5545, without ``RRULE:``)."""
    zone: str | None = None
    """The IANA zone for the local times of a recurring window."""
    ended: Moment | None = None
    """Occurrences that began up to then were ended early by an operator."""

    @field_validator("rrule")
    @classmethod
    def _normalize_rrule(cls, rrule: str | None) -> str | None:
        return None if rrule is None else rrule.strip().upper().removeprefix("RRULE:")

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.end <= self.start:
            raise ValueError(f"the end {self.end} is not after the start {self.start}")
        if (self.rrule is None) is not (self.zone is None):
            raise ValueError(
                "a recurring window needs both: a rule (rrule), and the IANA zone of its local times (zone), "
                "such as 'Europe/Berlin'"
            )
        if self.rrule is not None and self.zone is not None:
            zone_named(self.zone)
            if self.duration > _LONGEST:
                raise ValueError(f"a recurring window must last {_LONGEST.days} days at most, got {self.duration}")
            if not _FIRST_YEAR <= self.start.year <= _LAST_YEAR:
                raise ValueError(
                    f"a recurring window must begin in the years {_FIRST_YEAR} to {_LAST_YEAR}, got {self.start}"
                )
            recurrence_of(self)  # after the zone: problems are cached, and missing zones may be installed later
        return self

    @property
    def duration(self) -> timedelta:
        """How long each occurrence lasts."""
        return self.end - self.start


def zone_of(start: datetime) -> str:
    """Return the IANA name of a time's zone.

    Raises:
        ValueError: It has only an offset.
    """
    if start.tzinfo is UTC:
        return "UTC"
    key = getattr(start.tzinfo, "key", None)
    if not isinstance(key, str):
        raise ValueError(  # noqa: TRY004 - its type is right, its zone is not
            f"start {start} has an offset but no IANA zone, which defines when clocks change: "
            "give it as tzinfo=ZoneInfo('Europe/Berlin'), or pass zone='Europe/Berlin'"
        )
    return key


def check_existence(start: datetime) -> None:
    """Raise ``ValueError`` if clocks skip a time."""
    if start.replace(tzinfo=None) != start.astimezone(UTC).astimezone(start.tzinfo).replace(tzinfo=None):
        raise ValueError(f"start {start} does not exist in {start.tzinfo}, clocks skip it: begin on another day")


class _Starts:
    """The starts of a recurring window: its rule's local times, converted from its zone."""

    def __init__(self, rrule: str, zone: str, first: datetime) -> None:
        self.zone = zone_named(zone)
        self._first = first
        self.recurrence = Recurrence(Rule.parse(rrule), first.astimezone(self.zone).replace(tzinfo=None))

    def since(self, moment: datetime) -> Iterator[datetime]:
        """Yield the starts from a moment on, in order."""
        since = max(moment, self._first)
        if since.year > _LAST_YEAR_PLACED:
            return
        # A local time that is skipped or occurs twice may convert to `since` or later although it reads earlier.
        reads = min((since + by).astimezone(self.zone).replace(tzinfo=None) - by for by in (-_DAY, 0 * _DAY, _DAY))
        until = self.recurrence.until
        for start in self._place(self.recurrence.occurs_from(reads)):
            if until is not None and start > until:
                return
            if start >= since:
                yield start

    def _place(self, walls: Iterable[datetime]) -> Iterator[datetime]:
        """Yield the moments of local times: the first of two, or later by the gap if clocks skip the time."""
        moved: list[datetime] = []
        for wall in walls:
            start = wall.replace(tzinfo=self.zone).astimezone(UTC)
            if start.astimezone(self.zone).replace(tzinfo=None) != wall:
                moved.append(start)  # after later local times of `walls`
                continue
            if moved:
                yield from (other for other in moved if other < start)
                moved = [other for other in moved if other > start]
            yield start
        yield from moved


def recurrence_of(window: Window) -> _Starts:
    """Return the starts of a recurring window.

    Raises:
        ValueError: The window is a mistake; the message explains why.
    """
    recurrence = _starts_or_problem(window.rrule or "", window.zone or "", window.start, window.duration)
    if isinstance(recurrence, str):
        raise ValueError(recurrence)  # noqa: TRY004 - the cached problem
    return recurrence


@lru_cache(maxsize=4 * MAX_WINDOWS)  # a document is read every second, its windows rarely change
def _starts_or_problem(rrule: str, zone: str, start: datetime, duration: timedelta) -> _Starts | str:
    """Return the starts of a window, or its problem."""
    try:
        starts = _Starts(rrule, zone, start)
    except ValueError as error:
        return str(error)
    begins = start.astimezone(starts.zone)
    if begins.fold:
        return f"start {begins} is the second time with this name, and a window recurs at the first: begin with that"
    first = next(starts.since(start), None)
    if first is None:
        return f"a window with the rule {rrule!r} never occurs"
    if first != start:
        return (
            f"start {begins} is not an occurrence of the rule {rrule!r}: "
            f"begin with the first occurrence, {first.astimezone(starts.zone)}"
        )
    gap = starts.recurrence.shorter_gap(duration)
    if gap is not None:
        return (
            f"a window of {duration} with the rule {rrule!r} overlaps itself, it recurs after {gap}: "
            "make it shorter, or let it recur less often"
        )
    return starts
