"""Recurrence rules (RFC 5545, section 3.3.10): what is accepted, and at which local times a rule occurs.

The days of a year on which a rule occurs are the bits of one number, which a few operations make. So whatever is
asked of a rule takes microseconds, and some hundred of them where the answer is years ahead, or never comes.

How we read the RFC:

- The calendar year has the days of its first and last week that lie in it: ``BYWEEKNO=1`` may be 31 December.
- Days that a month or a year lacks are left out: a window of 29 February recurs in leap years.
- ``HOURLY`` and ``MINUTELY`` mean hours and minutes of the local day, the same ones every day.
"""

from __future__ import annotations

import re
from calendar import isleap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import islice, pairwise
from typing import Any, Self

MAX_RULE_LENGTH = 512
"""The longest recurrence rule that is accepted, in characters."""

_MOST_OCCURRENCES = 1000
"""The largest ``COUNT``."""

SIGHT_YEARS = 41
"""In how many years to look for the next occurrence: 29 February falls on a Sunday every 40 years at least.

With ``FREQ=YEARLY``, years that ``INTERVAL`` leaves out do not come into it.
"""

_LAST_YEAR = 9000
"""No rule occurs later. So nobody meets the end of the calendar."""

_CHECKED_IN_SIGHT = 100
"""How many occurrences of a rule with ``BYSETPOS`` are looked at to find its shortest gap."""

_DAY, _MINUTE = timedelta(days=1), timedelta(minutes=1)

_WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
_FREQUENCIES = ("YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY")
_PART = re.compile(r"([A-Z]+)=([A-Z0-9,+-]+)")
_NUMBER_LIST = re.compile(r"[+-]?[0-9]{1,4}(,[+-]?[0-9]{1,4})*")
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
class Rule:
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
        """Every which period it occurs in."""
        return self.numbers.get("INTERVAL", (1,))[0]

    @property
    def count(self) -> int | None:
        """How often it occurs; ``None``: for ever, or until a time."""
        return self.numbers.get("COUNT", (None,))[0]

    @property
    def numbers_in_months(self) -> bool:
        """Whether numbered days such as 1MO are numbered in months, rather than in years."""
        return self.frequency == "MONTHLY" or "BYMONTH" in self.numbers

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
            self._check_numbered_days()
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

    def _check_numbered_days(self) -> None:
        if self.frequency not in {"YEARLY", "MONTHLY"} or "BYWEEKNO" in self.numbers:
            raise ValueError("numbered days such as 1MO need FREQ=MONTHLY, or FREQ=YEARLY without BYWEEKNO")
        most = 5 if self.numbers_in_months else 53
        if any(abs(nth) > most for nth, _ in self.days):
            period = "month" if self.numbers_in_months else "year"
            raise ValueError(f"BYDAY: a {period} has each day of the week at most {most} times")
        if not all(nth for nth, _ in self.days):
            raise ValueError("BYDAY has either numbered days such as 1MO or plain ones, make two windows of it")


def _numbers(name: str, value: str) -> tuple[int, ...]:
    accepted = _NUMBERS.get(name)
    if accepted is None:
        raise ValueError(
            f"{name} is no part of a rule that is known here: FREQ, UNTIL, BYDAY, WKST, {', '.join(_NUMBERS)}"
        )
    if _NUMBER_LIST.fullmatch(value) is None or (name in _SINGLE and "," in value):
        raise ValueError(f"{name}={value} is no number")
    numbers = set(map(int, value.split(",")))
    for number in numbers.difference(accepted):
        if not (name in _FROM_THE_END and -number in accepted):
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
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except ValueError:
        raise ValueError(f"UNTIL={value} is no time") from None


_YEAR_BITS = 366
_WEEK = 0b1111111
_MONTH_LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@cache
def _month(month: int, *, leap: bool) -> tuple[int, int]:
    """Return the index of a month's first day in its year, and its length."""
    lengths = [length + (leap and index == 1) for index, length in enumerate(_MONTH_LENGTHS)]
    return sum(lengths[: month - 1]), lengths[month - 1]


@cache
def _month_bits(month: int, *, leap: bool) -> int:
    first, length = _month(month, leap=leap)
    return (1 << length) - 1 << first


@cache
def _bits_of_month_day(day: int, *, leap: bool) -> int:
    """Return the days of a year that have a number in their month, from its end if that is negative."""
    months = [_month(month, leap=leap) for month in range(1, 13)]
    return sum(1 << first + (day - 1 if day > 0 else length + day) for first, length in months if abs(day) <= length)


def _bits_of_year_day(day: int, *, leap: bool) -> int:
    length = 365 + leap
    return 1 << (day - 1 if day > 0 else length + day) if abs(day) <= length else 0


@cache
def _bits_of_nth_week(nth: int, *, leap: bool, in_months: bool) -> int:
    """Return the days of a year that can be the nth Monday, Tuesday and so on of their month, or of the year."""
    days = range(7 * nth - 6, 7 * nth + 1) if nth > 0 else range(7 * nth, 7 * nth + 7)
    of_day = _bits_of_month_day if in_months else _bits_of_year_day
    return _union(of_day(day, leap=leap) for day in days)


def _every(step: int, length: int = _YEAR_BITS + 7) -> int:
    """Return a number in which every so many bits one is set, at least ``length`` bits long."""
    return ((1 << step * (length // step + 1)) - 1) // ((1 << step) - 1)


_EVERY_WEEK = _every(7)


def _union(numbers: Iterable[int]) -> int:
    union = 0
    for number in numbers:
        union |= number
    return union


def _indices(bits: int) -> Iterator[int]:
    """Yield the indices of the bits that are set, in order."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


class Recurrence:
    """At which local times, without a zone, a rule occurs.

    Args:
        rule: The rule.
        start: Where it begins. What the rule leaves open, such as the time of day, is that of the start.

    Raises:
        ValueError: ``COUNT`` reaches too far.
    """

    def __init__(self, rule: Rule, start: datetime) -> None:
        self.start = start
        self._seconds = timedelta(seconds=start.second, microseconds=start.microsecond)
        self.until = rule.until
        self._rule = rule
        by_day = rule.frequency in {"DAILY", "HOURLY", "MINUTELY"}
        self._frequency = "DAILY" if by_day else rule.frequency
        self._interval = 1 if by_day and rule.frequency != "DAILY" else rule.interval
        self._positions = rule.numbers.get("BYSETPOS", ())
        self._chosen_of: dict[int, list[int]] = {}
        self._minutes = self._minutes_of_day()
        """The minutes of the day at which it occurs, as the bits of one number; they are the same ones every day."""
        if by_day and self._positions:
            minutes = list(_indices(self._minutes))
            self._minutes = sum(1 << minutes[index] for index in self._chosen(len(minutes)))
            self._positions = ()
        self._times = self._minutes.bit_count()
        self._minutes_in_order = [*_indices(self._minutes)] if self._positions else []
        self._weekdays = frozenset(day for nth, day in rule.days if not nth)
        self._numbered = [(nth, day) for nth, day in rule.days if nth]
        self._dates = self._explicit_dates()
        self._bits_by_year: dict[int, int] = {}
        self._bits_by_leap: dict[bool, int] = {}
        self._bits_by_kind: dict[tuple[bool, int, bool], int] = {}
        span = {"DAILY": 1, "WEEKLY": 7}.get(self._frequency)
        self._span = 0 if span is None else span * self._interval
        if span is not None:
            self._pattern = ((1 << span) - 1) * _every(self._span, _YEAR_BITS + 2 * self._span)
            weekday = (start.weekday() - rule.week_start) % 7 if span == len(_WEEKDAYS) else 0
            self._origin = start.toordinal() - weekday
        self._last: datetime | None = None
        if rule.count is not None:
            self._last = self._nth(rule.count)

    def _minutes_of_day(self) -> int:
        rule, start = self._rule, self.start
        hours: Iterable[int] = rule.numbers.get("BYHOUR", (start.hour,))
        minutes: Iterable[int] = rule.numbers.get("BYMINUTE", (start.minute,))
        if rule.frequency == "HOURLY":
            hours = _steps(rule.interval, start.hour, among=rule.numbers.get("BYHOUR", range(24)))
        elif rule.frequency == "MINUTELY":
            hours = rule.numbers.get("BYHOUR", range(24))
            minutes = _steps(rule.interval, start.minute, among=rule.numbers.get("BYMINUTE", range(60)))
        of_hour = sum(1 << minute for minute in minutes)
        return sum(of_hour << 60 * hour for hour in hours)

    def _explicit_dates(self) -> dict[str, tuple[int, ...]]:
        """Return the numbers that days must have, with those that a rule leaves to its start."""
        rule = self._rule
        dates = {name: rule.numbers[name] for name in (*_BITS_OF_DATES, "BYWEEKNO") if name in rule.numbers}
        says = dates.keys() - {"BYMONTH"}
        if rule.days:
            return dates
        if rule.frequency == "WEEKLY" or says == {"BYWEEKNO"}:
            self._weekdays = frozenset({self.start.weekday()})
        elif rule.frequency in {"YEARLY", "MONTHLY"} and not says:
            dates["BYMONTHDAY"] = (self.start.day,)
            if rule.frequency == "YEARLY":
                dates.setdefault("BYMONTH", (self.start.month,))
        return dates

    def occurs_from(self, since: datetime) -> Iterator[datetime]:
        """Yield the local times at which it occurs, from ``since`` on, in order, as if all of them existed.

        It ends when it occurs no more, or after the years in sight.
        """
        since = max(since, self.start)
        for year in self._years(since):
            for wall in self._in_year(year, since):
                if self._last is not None and wall > self._last:
                    return
                yield wall

    def shorter_gap(self, duration: timedelta) -> timedelta | None:
        """Return the shortest gap between two occurrences if it is shorter than ``duration``; it must occur at all."""
        if self._rule.count == 1:
            return None
        if self._positions:
            walls = islice(self.occurs_from(self.start), _CHECKED_IN_SIGHT)
            gap = min((later - earlier for earlier, later in pairwise(walls)), default=duration)
            return gap if gap < duration else None
        minutes = _nearest(self._minutes, -(-duration // _MINUTE))
        if minutes is not None:
            return minutes * _MINUTE
        first, last = (self._minutes & -self._minutes).bit_length(), self._minutes.bit_length()
        spread = (last - first) * _MINUTE
        too_near = -(-(duration + spread) // _DAY)
        days = _nearest(self._bits_in_sight(), too_near) if too_near > 1 else None
        return None if days is None else days * _DAY - spread

    def _years(self, since: datetime) -> range:
        """Return the years in which to look for occurrences from ``since`` on."""
        if self._frequency == "YEARLY":
            periods = -(-(since.year - self.start.year) // self._interval)
            years = range(self.start.year + periods * self._interval, _LAST_YEAR, self._interval)[:SIGHT_YEARS]
        else:  # with positions, a week belongs to the year in which it begins, and may reach into the next
            is_early = bool(self._positions and since.month == 1)
            years = range(since.year - is_early, min(since.year + SIGHT_YEARS, _LAST_YEAR))
        return years if self._times else years[:0]

    def _in_year(self, year: int, since: datetime) -> Iterator[datetime]:
        """Yield the local times of one year from ``since`` on, in order."""
        bits = self._days(year)
        if not bits and self._frequency != "WEEKLY":
            return  # at once: most years of some rules are empty
        first = date(year, 1, 1).toordinal()
        skipped = max(since.toordinal() - first, 0)
        if self._positions:
            for wall in self._at_positions(year, bits, skipped):
                if wall >= since:
                    yield wall
            return
        for index in _indices(bits >> skipped << skipped):
            midnight = datetime.fromordinal(first + index) + self._seconds
            early = -(-(since - midnight) // _MINUTE) if midnight < since else 0
            for minute in _indices(self._minutes >> early << early):
                yield midnight + minute * _MINUTE

    def _at_positions(self, year: int, bits: int, skipped: int) -> Iterator[datetime]:
        """Yield the local times that ``BYSETPOS`` names in the periods of a year; not those that end too early."""
        new_year = datetime(year, 1, 1) + self._seconds  # noqa: DTZ001 - a local time
        for period in self._periods(year, bits):
            chosen = self._chosen(period.bit_count() * self._times) if period >> skipped else []
            days = list(_indices(period)) if chosen else []
            for index in chosen:
                day, minute = divmod(index, self._times)
                yield new_year + days[day] * _DAY + self._minutes_in_order[minute] * _MINUTE

    def _chosen(self, length: int) -> list[int]:
        """Return which ones of so many ``BYSETPOS`` names."""
        chosen = self._chosen_of.get(length)
        if chosen is None:
            places = {at - 1 if at > 0 else length + at for at in self._positions if abs(at) <= length}
            chosen = self._chosen_of[length] = sorted(places)
        return chosen

    def _periods(self, year: int, bits: int) -> Iterable[int]:
        """Return the days of a year, period by period."""
        if self._frequency == "YEARLY":
            return (bits,)
        if self._frequency == "MONTHLY":
            return (bits & _month_bits(month, leap=isleap(year)) for month in range(1, 13 if bits else 1))
        first, length = date(year, 1, 1).toordinal(), 365 + isleap(year)
        bits |= self._days(year + 1) << length
        weeks = range((self._origin - first) % self._span, length, self._span)
        return (bits & _WEEK << index for index in weeks)

    def _days(self, year: int) -> int:
        """Return the days of a year on which it occurs."""
        bits = self._bits_by_year.get(year)
        if bits is None:
            bits = self._bits_by_year[year] = self._worked_out(year)
        return bits

    def _worked_out(self, year: int) -> int:
        leap, first = isleap(year), date(year, 1, 1).toordinal()
        kind = leap, (first - 1) % 7, isleap(year - 1)
        bits = self._bits_by_kind.get(kind)
        if bits is None:
            bits = self._bits_by_kind[kind] = self._bits_of(*kind)
        if self._span and self._interval > 1:
            bits &= self._pattern << (self._origin - first) % self._span >> self._span
        elif self._frequency == "MONTHLY" and self._interval > 1:
            first_month = (self.start.month - 1 - (year - self.start.year) * 12) % self._interval + 1
            bits &= _union(_month_bits(month, leap=leap) for month in range(first_month, 13, self._interval))
        return bits

    def _bits_of(self, leap: bool, weekday: int, after_leap: bool) -> int:
        """Return the days that fit the rule, but for its interval, in the years that begin on a weekday."""
        bits = self._bits_by_leap.get(leap)
        if bits is None:
            bits = self._bits_by_leap[leap] = self._bits_of_dates(leap=leap)
        if not bits:
            return 0
        same = [_EVERY_WEEK << (day - weekday) % 7 for day in range(7)]
        if self._weekdays:
            bits &= _union(same[day] for day in self._weekdays)
        if self._numbered:
            in_months = self._rule.numbers_in_months
            bits &= _union(
                same[day] & _bits_of_nth_week(nth, leap=leap, in_months=in_months) for nth, day in self._numbered
            )
        weeks = self._dates.get("BYWEEKNO")
        return bits & _bits_of_weeks(weeks, leap, weekday, after_leap, self._rule.week_start) if weeks else bits

    def _bits_of_dates(self, *, leap: bool) -> int:
        bits = (1 << 365 + leap) - 1
        for name, of_number in _BITS_OF_DATES.items():
            if name in self._dates:
                bits &= _union(of_number(number, leap=leap) for number in self._dates[name])
        return bits

    def _bits_in_sight(self) -> int:
        """Return the days on which it occurs, from that of the start on, as the bits of one number."""
        bits, begin = 0, self.start.toordinal()
        for year in self._years(self.start):
            offset = date(year, 1, 1).toordinal() - begin
            if offset > SIGHT_YEARS * _YEAR_BITS:
                break
            days = self._days(year)
            bits |= days << offset if offset >= 0 else days >> -offset
        return bits if self._last is None else bits & (1 << self._last.toordinal() - begin + 1) - 1

    def _nth(self, count: int) -> datetime:
        """Return the local time of the occurrence that ``COUNT`` makes the last.

        Raises:
            ValueError: It is out of sight.
        """
        missing = count
        for year in self._years(self.start):
            if self._positions:
                walls = list(islice(self._in_year(year, self.start), missing))
                if len(walls) == missing:
                    return walls[-1]
                missing -= len(walls)
                continue
            bits, early = self._days(year), 0
            if year == self.start.year:
                day = self.start.timetuple().tm_yday - 1
                bits = bits >> day << day
                early = (self._minutes & (1 << self.start.hour * 60 + self.start.minute) - 1).bit_count()
                early *= bits >> day & 1
            found = bits.bit_count() * self._times - early
            if missing <= found:
                day, minute = divmod(missing + early - 1, self._times)
                new_year = datetime(year, 1, 1) + self._seconds  # noqa: DTZ001 - a local time
                return new_year + [*_indices(bits)][day] * _DAY + [*_indices(self._minutes)][minute] * _MINUTE
            missing -= found
        if missing == count:
            return self.start  # it never occurs, which is another matter
        raise ValueError(f"COUNT={count} reaches beyond the {SIGHT_YEARS} years in sight: give UNTIL instead")


def _steps(interval: int, first: int, *, among: Iterable[int]) -> Iterator[int]:
    return (number for number in among if (number - first) % interval == 0)


def _nearest(bits: int, limit: int) -> int | None:
    """Return the shortest distance between two bits that are set, if it is shorter than ``limit``."""
    near, reach = bits >> 1, 1  # all bits that are up to so many below another one
    while reach < limit - 1 and reach < bits.bit_length():
        step = min(reach, limit - 1 - reach)
        near |= near >> step
        reach += step
    if limit <= 1 or not bits & near:
        return None
    return next(distance for distance in range(1, limit) if bits & bits >> distance)


def _first_week(weekday: int, week_start: int) -> int:
    """Return the index of the day on which the first week begins, of a year that begins on a weekday (ISO 8601)."""
    index = (week_start - weekday) % 7
    return index - 7 if index >= 4 else index  # noqa: PLR2004 - most of the week


def _bits_of_weeks(numbers: Iterable[int], leap: bool, weekday: int, after_leap: bool, week_start: int) -> int:
    """Return the days of a year in the weeks of these numbers, those of its neighbours' weeks included."""
    length, before = 365 + leap, 365 + after_leap
    first = _first_week(weekday, week_start)
    following = length + _first_week((weekday + length) % 7, week_start)
    last_of_former = (first + before - _first_week((weekday - before) % 7, week_start)) // 7
    count, bits = (following - first) // 7, 0
    for number in numbers:
        at = first + 7 * (number - 1 if number > 0 else count + number)
        if first <= at < following:
            bits |= _WEEK << at if at >= 0 else _WEEK >> -at
        if number == 1:
            bits |= _WEEK << following
        if number in {-1, last_of_former}:
            bits |= (1 << max(first, 0)) - 1
    return bits & (1 << length) - 1


_BITS_OF_DATES: dict[str, Callable[..., int]] = {
    "BYMONTH": _month_bits,
    "BYMONTHDAY": _bits_of_month_day,
    "BYYEARDAY": _bits_of_year_day,
}
