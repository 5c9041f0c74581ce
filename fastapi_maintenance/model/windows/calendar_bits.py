"""Sets of days of a year as bits of an integer: bit 0 is 1 January."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache

YEAR_BITS = 366
WEEK = 0b1111111
_MONTH_LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@cache
def _month(month: int, *, leap: bool) -> tuple[int, int]:
    """Return the index in its year of a month's first day, and the month's length."""
    lengths = [length + (leap and index == 1) for index, length in enumerate(_MONTH_LENGTHS)]
    return sum(lengths[: month - 1]), lengths[month - 1]


@cache
def month_bits(month: int, *, leap: bool) -> int:
    """Return the days of a month."""
    first, length = _month(month, leap=leap)
    return (1 << length) - 1 << first


@cache
def _bits_of_month_day(day: int, *, leap: bool) -> int:
    """Return the days with a number in their month, counted from its end if negative."""
    months = [_month(month, leap=leap) for month in range(1, 13)]
    return sum(1 << first + (day - 1 if day > 0 else length + day) for first, length in months if abs(day) <= length)


def _bits_of_year_day(day: int, *, leap: bool) -> int:
    length = 365 + leap
    return 1 << (day - 1 if day > 0 else length + day) if abs(day) <= length else 0


@cache
def bits_of_nth_week(nth: int, *, leap: bool, in_months: bool) -> int:
    """Return the days that can be the nth Monday, Tuesday etc. of their month, or of the year."""
    days = range(7 * nth - 6, 7 * nth + 1) if nth > 0 else range(7 * nth, 7 * nth + 7)
    of_day = _bits_of_month_day if in_months else _bits_of_year_day
    return combine_bits(of_day(day, leap=leap) for day in days)


def every_nth_bit(step: int, length: int = YEAR_BITS + 7) -> int:
    """Return an integer of at least ``length`` bits with every ``step``-th bit set, from bit 0."""
    return ((1 << step * (length // step + 1)) - 1) // ((1 << step) - 1)


EVERY_WEEK = every_nth_bit(7)


def combine_bits(numbers: Iterable[int]) -> int:
    """Return the union of sets of bits."""
    union = 0
    for number in numbers:
        union |= number
    return union


def indices_of(bits: int) -> Iterator[int]:
    """Yield the indices of the set bits, in order."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


def select_steps(interval: int, first: int, *, among: Iterable[int]) -> Iterator[int]:
    """Return the numbers whose distance to ``first`` is a multiple of ``interval``."""
    return (number for number in among if (number - first) % interval == 0)


def shortest_distance(bits: int, limit: int) -> int | None:
    """Return the shortest distance between two set bits, if it is shorter than ``limit``."""
    near, reach = bits >> 1, 1  # the bits at a distance of 1 to `reach` below a set bit
    while reach < limit - 1 and reach < bits.bit_length():
        step = min(reach, limit - 1 - reach)
        near |= near >> step
        reach += step
    if limit <= 1 or not bits & near:
        return None
    return next(distance for distance in range(1, limit) if bits & bits >> distance)


def _first_week(weekday: int, week_start: int) -> int:
    """Return the index of the first day of week 1 in a year that begins on ``weekday`` (ISO 8601)."""
    index = (week_start - weekday) % 7
    return index - 7 if index >= 4 else index  # noqa: PLR2004 - the majority of a week


def bits_of_weeks(numbers: Iterable[int], leap: bool, weekday: int, after_leap: bool, week_start: int) -> int:
    """Return the days of a year in these weeks, including weeks that belong to the year before or after."""
    length, before = 365 + leap, 365 + after_leap
    first = _first_week(weekday, week_start)
    following = length + _first_week((weekday + length) % 7, week_start)
    last_of_former = (first + before - _first_week((weekday - before) % 7, week_start)) // 7
    count, bits = (following - first) // 7, 0
    for number in numbers:
        at = first + 7 * (number - 1 if number > 0 else count + number)
        if first <= at < following:
            bits |= WEEK << at if at >= 0 else WEEK >> -at
        if number == 1:
            bits |= WEEK << following
        if number in {-1, last_of_former}:
            bits |= (1 << max(first, 0)) - 1
    return bits & (1 << length) - 1


BITS_OF_DATES: dict[str, Callable[..., int]] = {
    "BYMONTH": month_bits,
    "BYMONTHDAY": _bits_of_month_day,
    "BYYEARDAY": _bits_of_year_day,
}
