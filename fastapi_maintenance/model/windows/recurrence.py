"""Recurrence rules (RFC 5545, section 3.3.10): what is accepted, and at which local times a rule occurs.

The days of a year on which a rule occurs are the bits of one number, which a few operations make. So whatever is
asked of a rule takes microseconds, and some hundred of them where the answer is years ahead, or never comes.

How we read the RFC:

- The calendar year has the days of its first and last week that lie in it: ``BYWEEKNO=1`` may be 31 December.
- Days that a month or a year lacks are left out: a window of 29 February recurs in leap years.
- ``HOURLY`` and ``MINUTELY`` mean hours and minutes of the local day, the same ones every day.
"""

from __future__ import annotations

from calendar import isleap
from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from itertools import islice, pairwise

from .calendar_bits import (
    BITS_OF_DATES,
    EVERY_WEEK,
    WEEK,
    YEAR_BITS,
    bits_of_nth_week,
    bits_of_weeks,
    combine_bits,
    every,
    indices,
    month_bits,
    nearest,
    steps,
)
from .rule import WEEKDAYS, Rule

SIGHT_YEARS = 41
"""In how many years to look for the next occurrence: 29 February falls on a Sunday every 40 years at least.

With ``FREQ=YEARLY``, years that ``INTERVAL`` leaves out do not come into it.
"""

_LAST_YEAR = 9000
"""No rule occurs later. So nobody meets the end of the calendar."""

_CHECKED_IN_SIGHT = 100
"""How many occurrences of a rule with ``BYSETPOS`` are looked at to find its shortest gap."""

_DAY, _MINUTE = timedelta(days=1), timedelta(minutes=1)


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
            minutes = list(indices(self._minutes))
            self._minutes = sum(1 << minutes[index] for index in self._chosen(len(minutes)))
            self._positions = ()
        self._times = self._minutes.bit_count()
        self._minutes_in_order = [*indices(self._minutes)] if self._positions else []
        self._weekdays = frozenset(day for nth, day in rule.days if not nth)
        self._numbered = [(nth, day) for nth, day in rule.days if nth]
        self._dates = self._explicit_dates()
        self._bits_by_year: dict[int, int] = {}
        self._bits_by_leap: dict[bool, int] = {}
        self._bits_by_kind: dict[tuple[bool, int, bool], int] = {}
        span = {"DAILY": 1, "WEEKLY": 7}.get(self._frequency)
        self._span = 0 if span is None else span * self._interval
        if span is not None:
            self._pattern = ((1 << span) - 1) * every(self._span, YEAR_BITS + 2 * self._span)
            weekday = (start.weekday() - rule.week_start) % 7 if span == len(WEEKDAYS) else 0
            self._origin = start.toordinal() - weekday
        self._last: datetime | None = None
        if rule.count is not None:
            self._last = self._nth(rule.count)

    def _minutes_of_day(self) -> int:
        rule, start = self._rule, self.start
        hours: Iterable[int] = rule.numbers.get("BYHOUR", (start.hour,))
        minutes: Iterable[int] = rule.numbers.get("BYMINUTE", (start.minute,))
        if rule.frequency == "HOURLY":
            hours = steps(rule.interval, start.hour, among=rule.numbers.get("BYHOUR", range(24)))
        elif rule.frequency == "MINUTELY":
            hours = rule.numbers.get("BYHOUR", range(24))
            minutes = steps(rule.interval, start.minute, among=rule.numbers.get("BYMINUTE", range(60)))
        of_hour = sum(1 << minute for minute in minutes)
        return sum(of_hour << 60 * hour for hour in hours)

    def _explicit_dates(self) -> dict[str, tuple[int, ...]]:
        """Return the numbers that days must have, with those that a rule leaves to its start."""
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
        minutes = nearest(self._minutes, -(-duration // _MINUTE))
        if minutes is not None:
            return minutes * _MINUTE
        first, last = (self._minutes & -self._minutes).bit_length(), self._minutes.bit_length()
        spread = (last - first) * _MINUTE
        too_near = -(-(duration + spread) // _DAY)
        days = nearest(self._bits_in_sight(), too_near) if too_near > 1 else None
        return None if days is None else days * _DAY - spread

    def _years(self, since: datetime) -> range:
        """Return the years in which to look for occurrences from ``since`` on."""
        if self._frequency == "YEARLY":
            periods = -(-(since.year - self.start.year) // self._interval)
            years = range(self.start.year + periods * self._interval, _LAST_YEAR, self._interval)
        else:  # with positions, a week belongs to the year in which it begins, and may reach into the next
            years = range(since.year - bool(self._positions and since.month == 1), _LAST_YEAR)
        return years[:SIGHT_YEARS] if self._times else years[:0]

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
        for index in indices(bits >> skipped << skipped):
            midnight = datetime.fromordinal(first + index) + self._seconds
            early = -(-(since - midnight) // _MINUTE) if midnight < since else 0
            for minute in indices(self._minutes >> early << early):
                yield midnight + minute * _MINUTE

    def _at_positions(self, year: int, bits: int, skipped: int) -> Iterator[datetime]:
        """Yield the local times that ``BYSETPOS`` names in the periods of a year; not those that end too early."""
        new_year = datetime(year, 1, 1) + self._seconds  # noqa: DTZ001 - a local time
        for period in self._periods(year, bits):
            chosen = self._chosen(period.bit_count() * self._times) if period >> skipped else []
            days = list(indices(period)) if chosen else []
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
            return (bits & month_bits(month, leap=isleap(year)) for month in range(1, 13 if bits else 1))
        first, length = date(year, 1, 1).toordinal(), 365 + isleap(year)
        bits |= self._days(year + 1) << length
        weeks = range((self._origin - first) % self._span, length, self._span)
        return (bits & WEEK << index for index in weeks)

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
            bits &= combine_bits(month_bits(month, leap=leap) for month in range(first_month, 13, self._interval))
        return bits

    def _bits_of(self, leap: bool, weekday: int, after_leap: bool) -> int:
        """Return the days that fit the rule, but for its interval, in the years that begin on a weekday."""
        bits = self._bits_by_leap.get(leap)
        if bits is None:
            bits = self._bits_by_leap[leap] = self._bits_of_dates(leap=leap)
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

    def _bits_of_dates(self, *, leap: bool) -> int:
        bits = (1 << 365 + leap) - 1
        for name, of_number in BITS_OF_DATES.items():
            if name in self._dates:
                bits &= combine_bits(of_number(number, leap=leap) for number in self._dates[name])
        return bits

    def _bits_in_sight(self) -> int:
        """Return the days on which it occurs, from that of the start on, as the bits of one number."""
        bits, begin = 0, self.start.toordinal()
        for year in self._years(self.start):
            offset = date(year, 1, 1).toordinal() - begin
            if offset > SIGHT_YEARS * YEAR_BITS:
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
                return new_year + [*indices(bits)][day] * _DAY + [*indices(self._minutes)][minute] * _MINUTE
            missing -= found
        if missing == count:
            return self.start  # it never occurs, which is another matter
        raise ValueError(f"COUNT={count} reaches beyond the {SIGHT_YEARS} years in sight: give UNTIL instead")
