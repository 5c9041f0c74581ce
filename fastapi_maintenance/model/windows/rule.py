"""Recurrence rules (RFC 5545, section 3.3.10), parsed and checked."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

MAX_RULE_LENGTH = 512
"""The longest recurrence rule that is accepted, in characters."""

_MOST_OCCURRENCES = 1000
"""The largest ``COUNT``."""

WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
_FREQUENCIES = ("YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY")
_PART = re.compile(r"([A-Z]+)=([A-Z0-9,+-]+)")
_NUMBER_LIST = re.compile(r"[+-]?[0-9]{1,4}(,[+-]?[0-9]{1,4})*")
_DAY_OF_WEEK = re.compile(rf"([+-]?[1-9][0-9]?)?({'|'.join(WEEKDAYS)})")
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
    days = {(int(match[1] or 0), WEEKDAYS.index(match[2])) for match in matches if match is not None}
    if None in matches or any(abs(nth) not in range(54) for nth, _ in days):
        raise ValueError(f"{value} are no days: accepted are {', '.join(WEEKDAYS)}, numbered up to 53: 1MO, -1FR")
    return tuple(sorted(days))


def _utc(value: str) -> datetime:
    if _UNTIL.fullmatch(value) is None:
        raise ValueError(f"UNTIL={value}: a time in UTC such as 20301231T235959Z is needed (RFC 5545, section 3.3.10)")
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except ValueError:
        raise ValueError(f"UNTIL={value} is no time") from None
