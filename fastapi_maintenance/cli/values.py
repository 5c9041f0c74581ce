"""Parsers of durations and times on the command line, and the operator's name."""

from __future__ import annotations

import getpass
import re
import socket
from datetime import UTC, date, datetime, timedelta

from ..exceptions import InvalidConfiguration
from ..model.moments import zone_named
from ..model.text import in_one_line

SUNDAY = (datetime.now(UTC) + timedelta(days=13 - datetime.now(UTC).weekday())).date()
"""A future Sunday for examples."""

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", re.ASCII)


def parse_duration(text: str, option: str) -> timedelta:
    """Return a duration such as ``90s``, ``15m``, ``2h``, ``1d`` or ``1h30m``.

    Raises:
        InvalidConfiguration: It is invalid, zero or out of range.
    """
    whole = _parse(text)
    if not whole:
        raise InvalidConfiguration(
            f"{option} must be a duration such as 90s, 15m, 2h, 1d or 1h30m, got {text!r}; nothing was changed"
        )
    return whole


def parse_seconds(text: str, option: str, *, least: int = 0) -> int:
    """Return whole seconds from a number or a duration.

    Raises:
        InvalidConfiguration: It is neither, or less than ``least``.
    """
    is_number = re.fullmatch(r"\d{1,9}", text.strip(), re.ASCII)
    whole = timedelta(seconds=int(text)) if is_number else _parse(text)
    if whole is None or whole < timedelta(seconds=least):
        raise InvalidConfiguration(
            f"{option} must be seconds or a duration, at least {least}, such as 30, 90s, 15m or 1h30m, got {text!r}; "
            "nothing was changed"
        )
    return int(whole.total_seconds())


def _parse(text: str) -> timedelta | None:
    """Return a duration, or ``None`` if it is invalid or out of range."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or not match[0]:
        return None
    try:
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    except (OverflowError, ValueError):  # int() accepts at most 4300 digits
        return None


def parse_time(text: str, option: str, zone: str | None = None) -> datetime:
    """Return an aware time from ISO 8601 (``2026-03-01T04:00+01:00``, ``2026-03-01T03:00Z``).

    ``zone`` applies to a time without a zone.

    Raises:
        InvalidConfiguration: It is invalid or has no zone: this machine's zone may differ from the server's. Or there
            is no such ``zone``.
    """
    text = text.strip()
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        example = _example_of(datetime.now(UTC) + timedelta(hours=2))
        hint = " (the date is missing)" if re.match(r"T?\d\d:?\d\d(?!\d)", text) else ""
        raise InvalidConfiguration(
            f"{option} must be a time with a zone, such as {example}, got {text!r}{hint}; nothing was changed"
        ) from None
    if at.tzinfo is None and zone is not None:
        try:
            return at.replace(tzinfo=zone_named(zone))
        except ValueError as error:
            raise InvalidConfiguration(f"--zone {zone!r}: {error}; nothing was changed") from None
    if at.tzinfo is None:
        raise InvalidConfiguration(
            f"{option} must have a time zone, got {text!r}: write {_example_of(at)} for the zone of this machine, "
            f"or {at.isoformat(timespec='minutes')}Z for UTC; nothing was changed"
        )
    return at


def parse_end(text: str, option: str, zone: str | None, start: datetime) -> datetime:
    """Return an aware time from a time or a duration after ``start``.

    Raises:
        InvalidConfiguration: It is neither.
    """
    if _DURATION.fullmatch(text.strip()):
        # UTC, because local times may skip or repeat an hour.
        return add_duration(start.astimezone(UTC), parse_duration(text, option), option)
    return parse_time(text, option, zone)


def _example_of(at: datetime) -> str:
    """Return a time in the format and zone of this machine."""
    try:
        return at.astimezone().isoformat(timespec="minutes")
    except (OverflowError, ValueError):  # the first or last day of the calendar
        return f"{at.replace(tzinfo=None).isoformat(timespec='minutes')}+00:00"


def add_duration(now: datetime, length: timedelta, option: str) -> datetime:
    """Return the time after a duration.

    Raises:
        InvalidConfiguration: The calendar ends before that.
    """
    try:
        return now + length
    except OverflowError:
        raise InvalidConfiguration(
            f"{option} must end by the year {date.max.year}, got {length}; nothing was changed"
        ) from None


def operator_name() -> str:
    """Return the operator as ``user@host``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user may have no name
        user = "somebody"
    return in_one_line(f"{user}@{socket.gethostname()}")
