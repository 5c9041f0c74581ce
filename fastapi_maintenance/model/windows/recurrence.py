"""The local times at which a recurrence rule occurs (RFC 5545, section 3.3.10).

The days of a year on which a rule occurs are the bits of one integer. So a query takes microseconds, and some hundred
microseconds if the next occurrence is years ahead or does not exist.

Our interpretation of the RFC:

- A calendar year includes its days in weeks of neighbouring years: ``BYWEEKNO=1`` may be 31 December.
- Days that a month or a year lacks are skipped: a window on 29 February recurs in leap years.
- ``HOURLY`` and ``MINUTELY`` mean hours and minutes of the local day, the same every day.
"""

from __future__ import annotations

from calendar import isleap
from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from functools import cache
from itertools import islice, pairwise
from typing import Any

from .calendar_bits import (
    BITS_OF_DATES,
    EVERY_WEEK,
    WEEK,
    YEAR_BITS,
    bits_of_nth_week,
    bits_of_weeks,
    combine_bits,
    every_nth_bit,
    indices_of,
    month_bits,
    select_steps,
    shortest_distance,
)
from .rule import WEEKDAYS, Rule

SIGHT_YEARS = 41
"""How many years to search for the next occurrence: 29 February falls on a Sunday at least every 40 years.

With ``FREQ=YEARLY``, years that ``INTERVAL`` skips are not included.
"""

_LAST_YEAR = 9000
"""No rule occurs later, so that no calculation exceeds the range of ``datetime``."""

_CHECKED_IN_SIGHT = 100
"""How many occurrences of a rule with ``BYSETPOS`` are checked for its shortest gap."""

_DAY, _MINUTE = timedelta(days=1), timedelta(minutes=1)


class Recurrence:
    """The local times, without a zone, at which a rule occurs.

    Args:
        rule: The rule.
        start: When the rule begins. It defines all that the rule leaves open, such as the time of day.

    Raises:
        ValueError: ``COUNT`` reaches too far ahead.
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
        # Caches of this instance, also for several threads.
        self._days = cache(self._compute_days)
        self._bits_of_kind = cache(self._compute_bits)
        self._bits_of_dates = cache(self._compute_dates)
        self._select_positions = cache(self._compute_positions)
        self._minutes = self._minutes_of_day()
        """The minutes of the day at which the rule occurs, as bits; they are the same every day."""
        if by_day and self._positions:
            minutes = list(indices_of(self._minutes))
            self._minutes = sum(1 << minutes[index] for index in self._select_positions(len(minutes)))
            self._positions = ()
        self._times = self._minutes.bit_count()
        self._minutes_in_order = [*indices_of(self._minutes)] if self._positions else []
        self._weekdays = frozenset(day for nth, day in rule.days if not nth)
        self._numbered = [(nth, day) for nth, day in rule.days if nth]
        self._dates = self._explicit_dates()
        span = {"DAILY": 1, "WEEKLY": 7}.get(self._frequency)
        self._span = 0 if span is None else span * self._interval
        if span is not None:
            self._pattern = ((1 << span) - 1) * every_nth_bit(self._span, YEAR_BITS + 2 * self._span)
            weekday = (start.weekday() - rule.week_start) % 7 if span == len(WEEKDAYS) else 0
            self._origin = start.toordinal() - weekday
        self._last: datetime | None = None
        if rule.count is not None:
            self._last = self._find_last(rule.count)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle without the caches."""
        return type(self), (self._rule, self.start)

    def _minutes_of_day(self) -> int:
        rule, start = self._rule, self.start
        hours: Iterable[int] = rule.numbers.get("BYHOUR", (start.hour,))
        minutes: Iterable[int] = rule.numbers.get("BYMINUTE", (start.minute,))
        if rule.frequency == "HOURLY":
            hours = select_steps(rule.interval, start.hour, among=rule.numbers.get("BYHOUR", range(24)))
        elif rule.frequency == "MINUTELY":
            hours = rule.numbers.get("BYHOUR", range(24))
            minutes = select_steps(rule.interval, start.minute, among=rule.numbers.get("BYMINUTE", range(60)))
        of_hour = sum(1 << minute for minute in minutes)
        return sum(of_hour << 60 * hour for hour in hours)

    def _explicit_dates(self) -> dict[str, tuple[int, ...]]:
        """Return the numbers that restrict days, with defaults from the start."""
        rule = self._rule
        dates = {name: rule.numbers[name] for name in (*BITS_OF_DATES, "BYWEEKNO") if name in rule.numbers}
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
        """Yield the local times of occurrences from ``since`` on, in order, including times that clocks skip.

        Ends after the last occurrence, or after ``SIGHT_YEARS``.
        """
        since = max(since, self.start)
        for year in self._years(since):
            for wall in self._in_year(year, since):
                if self._last is not None and wall > self._last:
                    return
                yield wall

    def shorter_gap(self, duration: timedelta) -> timedelta | None:
        """Return the shortest gap between two occurrences if it is shorter than ``duration``; the rule must occur."""
        if self._rule.count == 1:
            return None
        if self._positions:
            walls = islice(self.occurs_from(self.start), _CHECKED_IN_SIGHT)
            gap = min((later - earlier for earlier, later in pairwise(walls)), default=duration)
            return gap if gap < duration else None
        minutes = shortest_distance(self._minutes, -(-duration // _MINUTE))
        if minutes is not None:
            return minutes * _MINUTE
        first, last = (self._minutes & -self._minutes).bit_length(), self._minutes.bit_length()
        spread = (last - first) * _MINUTE
        too_near = -(-(duration + spread) // _DAY)
        days = shortest_distance(self._bits_in_sight(), too_near) if too_near > 1 else None
        return None if days is None else days * _DAY - spread

    def _years(self, since: datetime) -> range:
        """Return the years to search for occurrences from ``since`` on."""
        if self._frequency == "YEARLY":
            periods = -(-(since.year - self.start.year) // self._interval)
            years = range(self.start.year + periods * self._interval, _LAST_YEAR, self._interval)[:SIGHT_YEARS]
        else:  # with positions, a week belongs to the year in which it begins, and may end in the next
            is_early = bool(self._positions and since.month == 1)
            years = range(since.year - is_early, min(since.year + SIGHT_YEARS, _LAST_YEAR))
        return years if self._times else years[:0]

    def _in_year(self, year: int, since: datetime) -> Iterator[datetime]:
        """Yield the local times of one year from ``since`` on, in order."""
        bits = self._days(year)
        if not bits and self._frequency != "WEEKLY":
            return  # a fast exit: some rules have no occurrence in most years
        first = date(year, 1, 1).toordinal()
        skipped = max(since.toordinal() - first, 0)
        if self._positions:
            for wall in self._at_positions(year, bits, skipped):
                if wall >= since:
                    yield wall
            return
        for index in indices_of(bits >> skipped << skipped):
            midnight = datetime.fromordinal(first + index) + self._seconds
            early = -(-(since - midnight) // _MINUTE) if midnight < since else 0
            for minute in indices_of(self._minutes >> early << early):
                yield midnight + minute * _MINUTE

    def _at_positions(self, year: int, bits: int, skipped: int) -> Iterator[datetime]:
        """Yield the local times that ``BYSETPOS`` selects in the periods of a year; skips those that end too early."""
        new_year = datetime(year, 1, 1) + self._seconds  # noqa: DTZ001 - a local time
        for period in self._periods(year, bits):
            chosen = self._select_positions(period.bit_count() * self._times) if period >> skipped else []
            days = list(indices_of(period)) if chosen else []
            for index in chosen:
                day, minute = divmod(index, self._times)
                yield new_year + days[day] * _DAY + self._minutes_in_order[minute] * _MINUTE

    def _compute_positions(self, length: int) -> list[int]:
        """Return the indices, of ``length`` occurrences in a period, that ``BYSETPOS`` selects."""
        return sorted({at - 1 if at > 0 else length + at for at in self._positions if abs(at) <= length})

    def _periods(self, year: int, bits: int) -> Iterable[int]:
        """Return the days of a year, period by period."""
        if self._frequency == "YEARLY":
            return (bits,)
        if self._frequency == "MONTHLY":
            return (bits & month_bits(month, leap=isleap(year)) for month in range(1, 13 if bits else 1))
        first, length = date(year, 1, 1).toordinal(), 365 + isleap(year)
        bits |= self._days(year + 1) << length
        weeks = range((self._origin - first) % self._span, length, self._span)
        return (bits & WEEK << index for index in weeks)

    def _compute_days(self, year: int) -> int:
        """Return the days of a year on which the rule occurs."""
        leap, first = isleap(year), date(year, 1, 1).toordinal()
        bits = self._bits_of_kind(leap, (first - 1) % 7, isleap(year - 1))
        if self._span and self._interval > 1:
            bits &= self._pattern << (self._origin - first) % self._span >> self._span
        elif self._frequency == "MONTHLY" and self._interval > 1:
            first_month = (self.start.month - 1 - (year - self.start.year) * 12) % self._interval + 1
            bits &= combine_bits(month_bits(month, leap=leap) for month in range(first_month, 13, self._interval))
        return bits

    def _compute_bits(self, leap: bool, weekday: int, after_leap: bool) -> int:
        """Return the days that match the rule, apart from its interval, in years that begin on ``weekday``."""
        bits = self._bits_of_dates(leap)
        if not bits:
            return 0
        same = [EVERY_WEEK << (day - weekday) % 7 for day in range(7)]
        if self._weekdays:
            bits &= combine_bits(same[day] for day in self._weekdays)
        if self._numbered:
            in_months = self._rule.numbers_in_months
            bits &= combine_bits(
                same[day] & bits_of_nth_week(nth, leap=leap, in_months=in_months) for nth, day in self._numbered
            )
        weeks = self._dates.get("BYWEEKNO")
        return bits & bits_of_weeks(weeks, leap, weekday, after_leap, self._rule.week_start) if weeks else bits

    def _compute_dates(self, leap: bool) -> int:
        bits = (1 << 365 + leap) - 1
        for name, of_number in BITS_OF_DATES.items():
            if name in self._dates:
                bits &= combine_bits(of_number(number, leap=leap) for number in self._dates[name])
        return bits

    def _bits_in_sight(self) -> int:
        """Return the days on which the rule occurs within ``SIGHT_YEARS``; bit 0 is the day of the start."""
        bits, begin = 0, self.start.toordinal()
        for year in self._years(self.start):
            offset = date(year, 1, 1).toordinal() - begin
            if offset > SIGHT_YEARS * YEAR_BITS:
                break
            days = self._days(year)
            bits |= days << offset if offset >= 0 else days >> -offset
        return bits if self._last is None else bits & (1 << self._last.toordinal() - begin + 1) - 1

    def _find_last(self, count: int) -> datetime:
        """Return the local time of the last occurrence, number ``count``.

        Raises:
            ValueError: It is more than ``SIGHT_YEARS`` ahead.
        """
        walls = list(islice(self.occurs_from(self.start), count))
        if 0 < len(walls) < count:
            raise ValueError(f"COUNT={count} reaches beyond the {SIGHT_YEARS} years in sight: give UNTIL instead")
        return walls[-1] if walls else self.start  # it never occurs; the caller checks that
