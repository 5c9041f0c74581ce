"""Windows: periods of maintenance that are known beforehand, once or by a recurrence rule.

Everything here is a pure function of its arguments, ``now`` included: nothing runs at the start or the end of a
window. So a restart, a clock that jumps and a host that slept through the start change nothing: what counts is what
the clock says when a request comes. (A timetable remembers what it worked out last, which no caller can see.)

How windows recur (RFC 5545, sections 3.3.5, 3.3.10 and 3.8.5.3):

- A recurring window begins at the same local time in its zone. Where clocks went forward past that time, it begins
  as much later as they skipped (02:30 becomes 03:30); where the time comes twice, at the first.
- It always lasts as long as its first occurrence did, in elapsed time: start and end are ``DTSTART`` and ``DTEND``,
  which repeat the exact duration. One of 01:00 to 05:00 ends at 06:00 on the day on which clocks go forward in
  between, and at 04:00 on the day on which they go back.
- The start belongs to the window and the end does not.
- Days that a month or a year lacks are left out: a window of 29 February recurs in leap years.
- ``HOURLY`` and ``MINUTELY`` mean hours and minutes of the local day, the same ones every day.
"""

from __future__ import annotations

import re
import uuid
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from heapq import merge
from itertools import islice, pairwise
from typing import Annotated, Any, Literal, NamedTuple, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from .exceptions import InvalidConfiguration, MissingExtra

MAX_RULE_LENGTH = 512
"""The longest recurrence rule that is accepted, in characters."""

_MOST_OCCURRENCES = 1000
"""The largest ``COUNT``."""

_FIRST_YEAR, _LAST_YEAR = 1900, 2999
"""The years in which a recurring window may begin for the first time."""

_LONGEST = timedelta(days=366)
"""The longest recurring window."""

_AT_A_TIME = 8
"""How many starts to come a window works out at once."""

_LOOKAHEAD = 100
"""How many windows, or changes, ahead an end is looked for."""

_DAY = timedelta(days=1)
_ALWAYS = datetime.min.replace(tzinfo=UTC)
_NEVER = datetime.max.replace(tzinfo=UTC)

_ERA_YEARS, _ERA = 400, timedelta(days=146_097)
"""The Gregorian calendar repeats itself after this time, on the same days of the week."""

_CALENDAR_ENDS = 9899
"""Rules are followed in the last era that begins no later than this year.

dateutil looks for an occurrence up to the year 9999 and can't be told to stop earlier. From here it takes 0.5 s at
most (a few µs if there is one soon), from today 10 s, and it still sees the next hundred years: as far as anybody
here is concerned, what does not occur for so long does not occur again.
"""


def check_aware(moment: object, name: str) -> None:
    """Raise ``ValueError``, with the way out, unless it is a time with a time zone."""
    if not isinstance(moment, datetime):
        raise ValueError(f"{name}={moment!r}: an aware datetime is needed")  # noqa: TRY004 - one error for all of it
    if moment.utcoffset() is None:
        example = f"datetime({moment.year}, {moment.month}, {moment.day}, {moment.hour}, {moment.minute}"
        raise ValueError(
            f"{name} {moment} has no time zone, so it would mean another moment on each host: "
            f"give {example}, tzinfo=ZoneInfo('Europe/Berlin')), or tzinfo=UTC"
        )


def _in_utc(moment: datetime, info: ValidationInfo) -> datetime:
    check_aware(moment, info.field_name or "the time")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{info.field_name} {moment} is outside of the years 1 to 9999") from None


# A validator that runs before would take the strictness of JSON away: there a time is a string.
Moment = Annotated[datetime, AfterValidator(_in_utc)]
"""An aware time, kept in UTC."""


class UnknownZone(ValueError):
    """This host knows no such time zone."""


def zone_named(name: str) -> ZoneInfo:
    """Return the IANA time zone of that name.

    Raises:
        UnknownZone: This host knows none, with what may help.
    """
    try:
        return ZoneInfo(name)
    except (LookupError, OSError, ValueError):  # a path, a directory of zones, a name of no known zone
        raise UnknownZone(
            f"unknown time zone {name!r}: give an IANA name such as 'Europe/Berlin' or 'UTC' "
            "(where the host has no time zones: pip install tzdata)"
        ) from None


class Window(BaseModel):
    """A planned period of maintenance: ``start`` belongs to it, ``end`` does not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
            _Rule.parse(self.rrule)
            zone_named(self.zone)
            if self.duration > _LONGEST:
                raise ValueError(f"a recurring window lasts {_LONGEST.days} days at most, not {self.duration}")
            if not _FIRST_YEAR <= self.start.year <= _LAST_YEAR:
                raise ValueError(f"a recurring window begins in the years {_FIRST_YEAR} to {_LAST_YEAR}: {self.start}")
        return self

    @property
    def duration(self) -> timedelta:
        """How long each occurrence lasts."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One time that a window occurs."""

    window: Window
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Segment:
    """A time from ``since`` until just before ``until`` in which the answer is the same."""

    since: datetime
    until: datetime | None
    """``None``: for ever."""
    occurrence: Occurrence | None
    """The occurrence that counts: ``on`` before ``read_only``, among equals the one that ends last."""
    ends: datetime | None = None
    """When no window of at least this mode follows or overlaps any more; ``None``: that is not in sight."""


def plan(
    start: datetime,
    end: datetime,
    *,
    now: datetime,
    mode: str = "on",
    reason: str | None = None,
    rrule: str | None = None,
    zone: str | None = None,
) -> Window:
    """Return a new window, after all the checks that spare an operator a surprise.

    Args:
        start: Aware. Of a recurring window it is an occurrence too, as RFC 5545 demands.
        end: Aware. It belongs to the window no more.
        now: A window that is over by then is a mistake.
        mode: ``"on"`` or ``"read_only"``.
        reason: What clients are told.
        rrule: The rule by which it recurs, such as ``"FREQ=WEEKLY;BYDAY=SU"``.
        zone: In which zone's local time it recurs; by default the ``ZoneInfo`` of ``start``.

    Raises:
        InvalidConfiguration: It can't be what was meant, and why.
        MissingExtra: A recurring window needs python-dateutil.
    """
    try:
        check_aware(start, "start")
        check_aware(end, "end")
        check_aware(now, "now")
        if rrule is None and zone is not None:
            raise ValueError(  # noqa: TRY301 - told as the others are
                f"zone={zone!r} goes with rrule, to say where a recurring window recurs; "
                "the times of one that does not recur have their zones in themselves: leave it out"
            )
        if rrule is not None and zone is None:
            zone = _zone_of(start)
        window = Window.model_validate(
            {
                "id": uuid.uuid4().hex[:12],
                "start": start,
                "end": end,
                "mode": mode,
                "reason": reason,
                "rrule": rrule,
                "zone": zone,
            }
        )
        if window.rrule is not None:
            _check_recurrence(window, given=start)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        cause = first.get("ctx", {}).get("error")
        problem = cause or f"{'.'.join(str(part) for part in first['loc'])} {first['input']!r}: {first['msg']}"
        raise InvalidConfiguration(f"{problem}; nothing was scheduled") from None
    except ValueError as error:
        raise InvalidConfiguration(f"{error}; nothing was scheduled") from None
    if is_over(window, now):
        raise InvalidConfiguration(
            f"the window from {start} to {end} has no occurrence after now, which is {now}; nothing was scheduled"
        )
    return window


def _zone_of(start: datetime) -> str:
    if start.tzinfo is UTC:
        return "UTC"
    key = getattr(start.tzinfo, "key", None)
    if not isinstance(key, str):
        raise ValueError(  # noqa: TRY004 - the type is right, what it has to say is too little
            f"start {start} has an offset but no IANA zone, which says what becomes of it when clocks change: "
            "give it as tzinfo=ZoneInfo('Europe/Berlin'), or pass zone='Europe/Berlin'"
        )
    return key


def _check_recurrence(window: Window, *, given: datetime) -> None:
    recurrence = _Recurrence(window)
    begins = window.start.astimezone(recurrence.zone)
    if given.replace(tzinfo=None) != window.start.astimezone(given.tzinfo).replace(tzinfo=None):
        raise ValueError(f"start {given} does not exist in {given.tzinfo}, clocks skip it: begin on another day")
    if begins.fold:
        raise ValueError(
            f"start {begins} is the second of that name, and a window recurs at the first: begin with that"
        )
    first = next(recurrence.starts(window.start), None)
    if first is None:
        raise ValueError(f"a window by the rule {window.rrule!r} never occurs")
    if first != window.start:
        raise ValueError(
            f"start {begins} is no occurrence of the rule {window.rrule!r}: "
            f"begin with the first one that is, {first.astimezone(recurrence.zone)}"
        )
    walls = list(islice(recurrence.walls(recurrence.start), _MOST_OCCURRENCES))
    gap = min((later - earlier for earlier, later in pairwise(walls)), default=window.duration)
    if window.duration > gap:
        raise ValueError(
            f"a window of {window.duration} by the rule {window.rrule!r} overlaps itself, it recurs after {gap}: "
            "let it be shorter, or recur less often"
        )


_WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
_FREQUENCIES = ("YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY")
_PART = re.compile(r"([A-Z]+)=([A-Z0-9,+-]+)")
_NUMBER = re.compile(r"[+-]?[0-9]{1,4}")
_DAY_OF_WEEK = re.compile(rf"([+-]?[1-9][0-9]?)?({'|'.join(_WEEKDAYS)})")
_UNTIL = re.compile(r"[0-9]{8}T[0-9]{6}Z")

_NUMBERS = {
    "INTERVAL": range(1, 367),
    "COUNT": range(1, _MOST_OCCURRENCES + 1),
    "BYMONTH": range(1, 13),
    "BYWEEKNO": range(1, 54),
    "BYYEARDAY": range(1, 367),
    "BYMONTHDAY": range(1, 32),
    "BYHOUR": range(24),
    "BYMINUTE": range(60),
    "BYSETPOS": range(1, 367),
}
_FROM_THE_END = frozenset({"BYWEEKNO", "BYYEARDAY", "BYMONTHDAY", "BYSETPOS"})
_SINGLE = frozenset({"INTERVAL", "COUNT"})
_NOT_WITH = {
    "BYWEEKNO": frozenset({"MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY"}),
    "BYYEARDAY": frozenset({"MONTHLY", "WEEKLY", "DAILY"}),
    "BYMONTHDAY": frozenset({"WEEKLY"}),
    "BYSETPOS": frozenset({"HOURLY", "MINUTELY"}),
}
"""The frequencies with which a part has no meaning (RFC 5545, section 3.3.10; for ``BYSETPOS`` our own limit)."""

_ELSEWHERE = {
    "DTSTART": "the window's start says when it begins",
    "BYSECOND": "a window begins at the second of its start",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """A recurrence rule as it is written."""

    frequency: str
    numbers: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """The parts that are numbers, sorted."""
    days: tuple[tuple[int, int], ...] = ()
    """``BYDAY``: which one of the period (0: each), and which day of the week from Monday, 0."""
    week_start: int = 0
    until: datetime | None = None

    @property
    def interval(self) -> int:
        return self.numbers.get("INTERVAL", (1,))[0]

    @property
    def count(self) -> int | None:
        return self.numbers.get("COUNT", (None,))[0]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the rule that was written.

        Raises:
            ValueError: It is none, or none that a window can have.
        """
        try:
            return cls._parse(text)
        except ValueError as error:
            raise ValueError(f"rrule {text!r}: {error}") from None

    @classmethod
    def _parse(cls, text: str) -> Self:
        parts: dict[str, str] = {}
        for part in text.split(";"):
            name = part.partition("=")[0].partition(":")[0]
            if name in _ELSEWHERE:
                raise ValueError(f"{name} has no place in it, {_ELSEWHERE[name]}")
            match = _PART.fullmatch(part)
            if match is None:
                raise ValueError(f"{part!r} is no part of a rule such as 'FREQ=WEEKLY;BYDAY=SU'")
            if name in parts:
                raise ValueError(f"{name} stands there twice")
            parts[name] = match[2]
        frequency = parts.pop("FREQ", None)
        if frequency not in _FREQUENCIES:
            raise ValueError(f"FREQ is one of {', '.join(_FREQUENCIES)}")
        readers: dict[str, Callable[[str], Any]] = {
            "BYDAY": _days_of_week,
            "WKST": lambda value: _days_of_week(value)[0][1],
            "UNTIL": _utc,
        }
        numbers = {name: _numbers(name, value) for name, value in parts.items() if name not in readers}
        others = {name: readers[name](value) for name, value in parts.items() if name in readers}
        rule = cls(
            frequency=frequency,
            numbers=numbers,
            days=others.get("BYDAY", ()),
            week_start=others.get("WKST", 0),
            until=others.get("UNTIL"),
        )
        rule._check()
        return rule

    def _check(self) -> None:
        if self.until is not None and self.count is not None:
            raise ValueError("COUNT and UNTIL exclude each other")
        for name in self.numbers:
            if self.frequency in _NOT_WITH.get(name, ()):
                raise ValueError(f"{name} has no meaning with FREQ={self.frequency}")
        if any(nth for nth, _ in self.days):
            if self.frequency not in {"YEARLY", "MONTHLY"} or "BYWEEKNO" in self.numbers:
                raise ValueError("numbered days such as 1MO need FREQ=MONTHLY, or FREQ=YEARLY without BYWEEKNO")
            if not all(nth for nth, _ in self.days):
                raise ValueError("BYDAY has either numbered days such as 1MO or plain ones, make two windows of it")
        if (
            "BYSETPOS" in self.numbers
            and not self.days
            and not any(name.startswith("BY") and name != "BYSETPOS" for name in self.numbers)
        ):
            raise ValueError("BYSETPOS chooses from what another BY... part names, and there is none")
        if self.frequency == "HOURLY" and 24 % self.interval:
            raise ValueError("the INTERVAL of hours divides 24, so that they are the same ones every day")
        if self.frequency == "MINUTELY" and 60 % self.interval:
            raise ValueError("the INTERVAL of minutes divides 60, so that they are the same ones every hour")


def _numbers(name: str, value: str) -> tuple[int, ...]:
    accepted = _NUMBERS.get(name)
    if accepted is None:
        raise ValueError(
            f"{name} is no part of a rule that is known here: FREQ, UNTIL, BYDAY, WKST, {', '.join(_NUMBERS)}"
        )
    words = value.split(",")
    if any(_NUMBER.fullmatch(word) is None for word in words) or (name in _SINGLE and len(words) > 1):
        raise ValueError(f"{name}={value} is no number")
    numbers = {int(word) for word in words}
    for number in numbers:
        if number not in accepted and not (name in _FROM_THE_END and -number in accepted):
            minus = "-" if name in _FROM_THE_END else ""
            also = f" or {minus}{accepted[0]} to {minus}{accepted[-1]}" if minus else ""
            raise ValueError(f"{name}={number}: accepted are {accepted[0]} to {accepted[-1]}{also}")
    return tuple(sorted(numbers))


def _days_of_week(value: str) -> tuple[tuple[int, int], ...]:
    matches = [_DAY_OF_WEEK.fullmatch(word) for word in value.split(",")]
    days = {(int(match[1] or 0), _WEEKDAYS.index(match[2])) for match in matches if match is not None}
    if None in matches or any(abs(nth) not in range(54) for nth, _ in days):
        raise ValueError(f"{value} are no days: accepted are {', '.join(_WEEKDAYS)}, numbered up to 53: 1MO, -1FR")
    return tuple(sorted(days))


def _utc(value: str) -> datetime:
    if _UNTIL.fullmatch(value) is None:
        raise ValueError(f"UNTIL={value}: a time in UTC such as 20301231T235959Z is needed (RFC 5545, section 3.3.10)")
    return datetime.strptime(value, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def dateutil(what: str = "a recurring window") -> Any:
    """Return what follows recurrence rules.

    Raises:
        MissingExtra: It isn't installed; ``what`` needs it.
    """
    try:
        from dateutil import rrule  # noqa: PLC0415 - an optional dependency
    except ImportError:
        raise MissingExtra(what, "schedule") from None
    return rrule


class _Recurrence:
    """When a recurring window begins: found in local time without a zone, then placed in the zone."""

    def __init__(self, window: Window) -> None:
        dateutil()
        self.zone = zone_named(window.zone or "")
        self._first = window.start
        self.start = window.start.astimezone(self.zone).replace(tzinfo=None)
        self._rule = rule = _Rule.parse(window.rrule or "")
        by_day = rule.frequency in {"DAILY", "HOURLY", "MINUTELY"}
        self._frequency = "DAILY" if by_day else rule.frequency
        self._interval = 1 if by_day and rule.frequency != "DAILY" else rule.interval
        self._options = self._explicit_dates() | self._explicit_times()
        self._last: datetime | None = None
        if rule.count is not None:
            self._last = max(islice(self.walls(self.start), rule.count), default=self.start)

    def _explicit_dates(self) -> dict[str, Any]:
        """Return dateutil's options for the days, those included that a rule leaves to its start.

        So the rule can be followed from any period on, not only from the first.
        """
        rule = self._rule
        options: dict[str, Any] = {name.lower(): values for name, values in rule.numbers.items() if name[:2] == "BY"}
        says = rule.numbers.keys() & {"BYWEEKNO", "BYYEARDAY", "BYMONTHDAY"}
        if rule.days:
            options["byweekday"] = tuple(
                dateutil().weekday(day, nth) if nth else dateutil().weekday(day) for nth, day in rule.days
            )
        elif rule.frequency == "WEEKLY" or says == {"BYWEEKNO"}:
            options["byweekday"] = (self.start.weekday(),)
        elif rule.frequency in {"YEARLY", "MONTHLY"} and not says:
            options["bymonthday"] = (self.start.day,)
            if rule.frequency == "YEARLY":
                options.setdefault("bymonth", (self.start.month,))
        return options

    def _explicit_times(self) -> dict[str, Any]:
        """Return dateutil's options for the times of the day; hours and minutes are the same ones every day."""
        rule, start = self._rule, self.start
        hours: Iterable[int] = rule.numbers.get("BYHOUR", (start.hour,))
        minutes: Iterable[int] = rule.numbers.get("BYMINUTE", (start.minute,))
        if rule.frequency == "HOURLY":
            hours = _every(rule.interval, start.hour, among=rule.numbers.get("BYHOUR", range(24)))
        elif rule.frequency == "MINUTELY":
            hours = rule.numbers.get("BYHOUR", range(24))
            minutes = _every(rule.interval, start.minute, among=rule.numbers.get("BYMINUTE", range(60)))
        return {"byhour": tuple(hours), "byminute": tuple(minutes), "bysecond": (start.second,)}

    def starts(self, since: datetime) -> Iterator[datetime]:
        """Yield when it begins, from ``since`` on, in order."""
        since = max(since, self._first)
        if since.year > _CALENDAR_ENDS - 2 * _ERA_YEARS:
            return
        # A local time that is skipped or comes twice may be placed at or after `since` although it reads earlier.
        reads = min((since + by).astimezone(self.zone).replace(tzinfo=None) - by for by in (-_DAY, 0 * _DAY, _DAY))
        for start in self._placed(self.walls(reads)):
            if self._rule.until is not None and start > self._rule.until:
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
            yield from (other for other in moved if other < start)
            moved = [other for other in moved if other > start]
            yield start
        yield from moved

    def walls(self, since: datetime) -> Iterator[datetime]:
        """Yield the local times at which it begins, from ``since`` on, in order, as if all of them existed.

        It begins to look in the period (such as the week) of ``since``, however long ago the first start was.
        """
        if not (self._options["byhour"] and self._options["byminute"]):
            return  # dateutil would look for a time on every day to come
        since = max(since, self.start)
        period = self._period(self.start)
        period += (self._period(since) - period) // self._interval * self._interval
        first_day = self._first_day(period)
        eras = (_CALENDAR_ENDS - first_day.year) // _ERA_YEARS * _ERA
        rule = dateutil().rrule(
            getattr(dateutil(), self._frequency),
            dtstart=datetime.combine(first_day, time()) + eras,
            interval=self._interval,
            wkst=self._rule.week_start,
            **self._options,
        )
        for found in _until_the_calendar_ends(rule):
            wall = found - eras + timedelta(microseconds=self.start.microsecond)
            if self._last is not None and wall > self._last:
                return
            if wall >= since:
                yield wall

    def _period(self, moment: datetime) -> int:
        match self._frequency:
            case "YEARLY":
                return moment.year
            case "MONTHLY":
                return moment.year * 12 + moment.month - 1
            case "WEEKLY":
                return (moment.toordinal() - 1 - self._rule.week_start) // 7
            case _:
                return moment.toordinal()

    def _first_day(self, period: int) -> date:
        match self._frequency:
            case "YEARLY":
                return date(period, 1, 1)
            case "MONTHLY":
                return date(period // 12, period % 12 + 1, 1)
            case "WEEKLY":
                return date.fromordinal(period * 7 + 1 + self._rule.week_start)
            case _:
                return date.fromordinal(period)


def _until_the_calendar_ends(found: Iterable[datetime]) -> Iterator[datetime]:
    try:
        yield from found
    except ValueError:  # dateutil steps into the year 10000 when the last week of 9999 goes beyond it
        return


def _every(interval: int, first: int, *, among: Iterable[int]) -> tuple[int, ...]:
    return tuple(number for number in among if (number - first) % interval == 0)


class _Batch(NamedTuple):
    """Starts of a window: all that matter from ``known_from`` until just before ``known_until``."""

    known_from: datetime
    known_until: datetime
    starts: tuple[datetime, ...]


class _Line:
    """One window on the time line, with the starts worked out last at hand."""

    __slots__ = ("_batches", "_duration", "_recurrence", "_window")

    def __init__(self, window: Window) -> None:
        self._window = window
        self._duration = window.duration
        self._recurrence = None if window.rrule is None else _Recurrence(window)
        self._batches: tuple[_Batch, ...] = ()

    def at(self, moment: datetime) -> Segment:
        """Return what is so at a moment."""
        batch = self._batch(moment)
        index = bisect_right(batch.starts, moment)
        following = batch.starts[index] if index < len(batch.starts) else None
        if index == 0:
            return Segment(batch.known_from, following, None)
        # All last equally long, so the one that began last is the one that ends last.
        start = batch.starts[index - 1]
        end = start + self._duration
        if moment >= end:
            return Segment(end, following, None)
        until = end if following is None else min(end, following)
        return Segment(start, until, Occurrence(self._window, start, end))

    def after(self, moment: datetime) -> Iterator[Occurrence]:
        """Yield the occurrences that begin after a moment, in order."""
        for start in self._starts(moment):
            if start > moment:
                yield Occurrence(self._window, start, start + self._duration)

    def _batch(self, moment: datetime) -> _Batch:
        batches = self._batches  # read once: another thread may put others there
        for batch in batches:
            if batch.known_from <= moment < batch.known_until:
                return batch
        batch = self._worked_out(moment)
        self._batches = (batch, *batches[:1])  # two, for now and for a look ahead
        return batch

    def _worked_out(self, moment: datetime) -> _Batch:
        from_the_first = self._recurrence is None or moment < self._window.end
        starts, ahead = [], 0
        for start in self._starts(_ALWAYS if from_the_first else moment - self._duration):
            starts.append(start)
            ahead += start > moment
            if ahead == _AT_A_TIME:
                break
        known_until = starts[-1] if ahead == _AT_A_TIME else _NEVER
        return _Batch(_ALWAYS if from_the_first else moment, known_until, tuple(starts))

    def _starts(self, since: datetime) -> Iterator[datetime]:
        ended = self._window.ended
        if ended is not None:
            since = max(since, ended)
        once = iter((self._window.start,) if self._window.start >= since else ())
        starts = once if self._recurrence is None else self._recurrence.starts(since)
        return (start for start in starts if ended is None or start > ended)


_RANK = {"read_only": 1, "on": 2}


def _rank(occurrence: Occurrence | None) -> int:
    return 0 if occurrence is None else _RANK[occurrence.window.mode]


def _now_in_utc(now: datetime) -> datetime:
    check_aware(now, "now")
    return now.astimezone(UTC)  # elsewhere an hour earlier is an hour less on the clock, whatever clocks do


class Timetable:
    """Windows, made ready to be asked often: within a segment the answer costs two comparisons.

    It may be asked for any time in any order, from several threads. Keep one for as long as its windows are the
    same. The next segment costs about a microsecond per window, and for recurring ones a tenth of a millisecond
    when they are asked first, and then once in eight occurrences: ask a new timetable once before requests do.

    Raises:
        MissingExtra: A recurring window needs python-dateutil.
    """

    __slots__ = ("_lines", "_segment")

    def __init__(self, windows: Iterable[Window]) -> None:
        self._lines = tuple(_Line(window) for window in windows)
        self._segment = Segment(_ALWAYS, _ALWAYS, None)

    def at(self, now: datetime) -> Segment:
        """Return what counts at ``now``, and from when until when that is so."""
        segment = self._segment  # read once: another thread may put another one there
        if segment.since <= now and (segment.until is None or now < segment.until):
            return segment
        now = _now_in_utc(now)
        last, segment = segment, self._at(now)
        if segment.occurrence is not None:
            known = last.ends is not None and last.since <= now < last.ends
            goes_on = known and _rank(last.occurrence) == _rank(segment.occurrence)
            occurrence = segment.occurrence
            ends = last.ends if goes_on else self.closed_until(occurrence.end, occurrence.window.mode)
            segment = replace(segment, ends=ends)
        self._segment = segment
        return segment

    def next_change(self, now: datetime) -> datetime | None:
        """Return when the mode changes next.

        ``None``: never, or not with the next hundred starts and ends, as of windows that follow each other without
        a gap.
        """
        segment = self.at(now)
        rank, until = _rank(segment.occurrence), segment.until
        for _ in range(_LOOKAHEAD):
            if until is None:
                return None
            following = self._at(until)
            if _rank(following.occurrence) != rank:
                return until
            until = following.until
        return None

    def closed_until(self, now: datetime, mode: str) -> datetime | None:
        """Return when no window of at least ``mode`` goes on any more: ``now`` if none does then.

        ``None``: that is not in sight.
        """
        rank, end = _RANK[mode], _now_in_utc(now)
        for _ in range(_LOOKAHEAD):
            following = (line.at(end).occurrence for line in self._lines)
            later = max((other.end for other in following if other is not None and _rank(other) >= rank), default=end)
            if later == end:
                return end
            end = later
        return None

    def all_at(self, now: datetime) -> list[Occurrence]:
        """Return all occurrences that go on at ``now``."""
        now = _now_in_utc(now)
        return [going_on for line in self._lines if (going_on := line.at(now).occurrence) is not None]

    def upcoming(self, now: datetime, limit: int) -> list[Occurrence]:
        """Return the next occurrences, at most ``limit``, that have not begun at ``now``; the earliest first."""
        now = _now_in_utc(now)
        coming = merge(*(line.after(now) for line in self._lines), key=lambda occurrence: occurrence.start)
        return list(islice(coming, limit))

    def _at(self, moment: datetime) -> Segment:
        segments = [line.at(moment) for line in self._lines]
        return Segment(
            since=max((segment.since for segment in segments), default=_ALWAYS),
            until=min((segment.until for segment in segments if segment.until is not None), default=None),
            occurrence=max(
                (segment.occurrence for segment in segments if segment.occurrence is not None),
                key=lambda occurrence: (_rank(occurrence), occurrence.end),
                default=None,
            ),
        )


def current(windows: Iterable[Window], now: datetime) -> Occurrence | None:
    """Return the occurrence that counts at ``now``: ``on`` before ``read_only``, then the one that ends last."""
    return Timetable(windows).at(now).occurrence


def next_change(windows: Iterable[Window], now: datetime) -> datetime | None:
    """Return when the mode changes next, see ``Timetable.next_change``."""
    return Timetable(windows).next_change(now)


def upcoming(windows: Iterable[Window], now: datetime, limit: int) -> list[Occurrence]:
    """Return the next occurrences, see ``Timetable.upcoming``."""
    return Timetable(windows).upcoming(now, limit)


def ended_early(windows: Iterable[Window], now: datetime) -> tuple[Window, ...]:
    """Return the windows, with each occurrence ended that is going on at ``now``; later ones will occur.

    That is what an operator's "off" means during a window. What is marked is the occurrence's own start, so that a
    clock that is ahead ends nothing else.
    """
    return tuple(
        window if (now_on := current([window], now)) is None else window.model_copy(update={"ended": now_on.start})
        for window in windows
    )


def is_over(window: Window, now: datetime) -> bool:
    """Return whether a window neither goes on at ``now`` nor occurs again."""
    segment = Timetable([window]).at(now)
    return segment.occurrence is None and segment.until is None
