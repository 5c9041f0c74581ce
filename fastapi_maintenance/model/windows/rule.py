"""Recurrence rules (RFC 5545, section 3.3.10), parsed and checked."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

MAX_RULE_LENGTH = 512
"""The longest recurrence rule, in characters."""

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
"""The frequencies that do not allow a part (RFC 5545, section 3.3.10; for ``BYSETPOS`` our own limit)."""

_ELSEWHERE = {
    "DTSTART": "the window has its own start",
    "BYSECOND": "a window begins at the second of its start",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A parsed recurrence rule."""

    frequency: str
    numbers: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """The values of each numeric part, sorted."""
    days: tuple[tuple[int, int], ...] = ()
    """``BYDAY``: pairs of the number within the period (0: each) and the weekday (0: Monday)."""
    week_start: int = 0
    until: datetime | None = None

    @property
    def interval(self) -> int:
        """The rule applies to every ``interval``-th period."""
        return self.numbers.get("INTERVAL", (1,))[0]

    @property
    def count(self) -> int | None:
        """How often it occurs; ``None``: for ever, or until ``until``."""
        return self.numbers.get("COUNT", (None,))[0]

    @property
    def numbers_in_months(self) -> bool:
        """Whether numbered days such as 1MO are numbered within months, not years."""
        return self.frequency == "MONTHLY" or "BYMONTH" in self.numbers

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the rule for a text.

        Raises:
            ValueError: The text is not a rule, or windows do not support it.
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
                raise ValueError(f"{name} must not be part of a rule: {_ELSEWHERE[name]}")
            match = _PART.fullmatch(part)
            if match is None:
                raise ValueError(f"{part!r} is not a part of a rule: write a rule such as 'FREQ=WEEKLY;BYDAY=SU'")
            if name in parts:
                raise ValueError(f"{name} must be given once only")
            parts[name] = match[2]
        frequency = parts.pop("FREQ", None)
        if frequency not in _FREQUENCIES:
            raise ValueError(f"FREQ must be one of {', '.join(_FREQUENCIES)}, got {frequency}")
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
            raise ValueError("BYSETPOS must be combined with another BY... part, and there is none")
        if self.frequency == "HOURLY" and 24 % self.interval:
            raise ValueError(
                f"the INTERVAL of hours must divide 24, so that they are the same every day, got {self.interval}"
            )
        if self.frequency == "MINUTELY" and 60 % self.interval:
            raise ValueError(
                f"the INTERVAL of minutes must divide 60, so that they are the same every hour, got {self.interval}"
            )

    def _check_numbered_days(self) -> None:
        if self.frequency not in {"YEARLY", "MONTHLY"} or "BYWEEKNO" in self.numbers:
            raise ValueError("numbered days such as 1MO need FREQ=MONTHLY, or FREQ=YEARLY without BYWEEKNO")
        most = 5 if self.numbers_in_months else 53
        if any(abs(nth) > most for nth, _ in self.days):
            period = "month" if self.numbers_in_months else "year"
            raise ValueError(f"BYDAY: a {period} has each day of the week at most {most} times")
        if not all(nth for nth, _ in self.days):
            raise ValueError("BYDAY must not mix numbered days such as 1MO with plain days: make two windows of it")


def _numbers(name: str, value: str) -> tuple[int, ...]:
    accepted = _NUMBERS.get(name)
    if accepted is None:
        raise ValueError(f"a part must be one of FREQ, UNTIL, BYDAY, WKST, {', '.join(_NUMBERS)}, got {name}")
    if _NUMBER_LIST.fullmatch(value) is None or (name in _SINGLE and "," in value):
        raise ValueError(f"{name}={value} is not a number")
    numbers = set(map(int, value.split(",")))
    for number in numbers.difference(accepted):
        if not (name in _FROM_THE_END and -number in accepted):
            minus = "-" if name in _FROM_THE_END else ""
            also = f" or {minus}{accepted[0]} to {minus}{accepted[-1]}" if minus else ""
            raise ValueError(f"{name} must be {accepted[0]} to {accepted[-1]}{also}, got {number}")
    return tuple(sorted(numbers))


def _days_of_week(value: str) -> tuple[tuple[int, int], ...]:
    matches = [_DAY_OF_WEEK.fullmatch(word) for word in value.split(",")]
    days = {(int(match[1] or 0), WEEKDAYS.index(match[2])) for match in matches if match is not None}
    if None in matches or any(abs(nth) not in range(54) for nth, _ in days):
        raise ValueError(f"days must be {', '.join(WEEKDAYS)}, numbered up to 53 as in 1MO or -1FR, got {value}")
    return tuple(sorted(days))


def _utc(value: str) -> datetime:
    if _UNTIL.fullmatch(value) is None:
        raise ValueError(f"UNTIL must be in UTC such as 20301231T235959Z (RFC 5545, section 3.3.10), got {value}")
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except ValueError:
        raise ValueError(f"UNTIL={value} is not a valid time") from None
