"""What people write on a command line: durations, moments; and who they are."""

from __future__ import annotations

import getpass
import re
import socket
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from ..exceptions import InvalidConfiguration
from ..model.moments import zone_named
from ..model.text import in_one_line

SUNDAY = (datetime.now(UTC) + timedelta(days=13 - datetime.now(UTC).weekday())).date()
"""A Sunday to come, for examples."""

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", re.ASCII)


def duration(text: str, option: str) -> timedelta:
    """Return a duration such as ``90s``, ``15m``, ``2h``, ``1d`` or ``1h30m``.

    Raises:
        InvalidConfiguration: It is none, or nothing at all, or out of range.
    """
    whole = _read(text)
    if not whole:
        raise InvalidConfiguration(
            f"{option} {text!r}: a duration is needed, such as 90s, 15m, 2h, 1d or 1h30m; nothing was changed"
        )
    return whole


def seconds(text: str, option: str, *, least: int = 0) -> int:
    """Return whole seconds, which may be written as a duration.

    Raises:
        InvalidConfiguration: It is neither, or less than ``least``.
    """
    is_number = re.fullmatch(r"\d{1,9}", text.strip(), re.ASCII)
    whole = timedelta(seconds=int(text)) if is_number else _read(text)
    if whole is None or whole < timedelta(seconds=least):
        raise InvalidConfiguration(
            f"{option} {text!r}: must be seconds or a duration, at least {least}, such as 30, 90s, 15m or 1h30m; "
            "nothing was changed"
        )
    return int(whole.total_seconds())


def _read(text: str) -> timedelta | None:
    """Return a duration, or ``None`` if it is none, or out of range."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or not match[0]:
        return None
    try:
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    except (OverflowError, ValueError):  # int() reads no more than 4300 digits
        return None


def moment_of(text: str, option: str) -> datetime:
    """Return an aware time, which was written by ISO 8601 (``2026-03-01T04:00+01:00``, ``2026-03-01T03:00Z``).

    Raises:
        InvalidConfiguration: It is none, or does not say its zone: the one here is seldom that of the server.
    """
    text = text.strip()
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        example = _example(datetime.now(UTC) + timedelta(hours=2))
        what = "a date is missing" if _is_time_of_day(text) else "it can't be read"
        raise InvalidConfiguration(
            f"{option} {text!r}: {what}; a time with its zone is needed, such as {example}; nothing was changed"
        ) from None
    if at.tzinfo is None:
        raise InvalidConfiguration(
            f"{option} {text!r}: in which time zone? write {_example(at)} for the one of this machine, "
            f"or {at.isoformat(timespec='minutes')}Z for UTC; nothing was changed"
        )
    return at


def start_of(text: str, option: str, zone: str | None) -> datetime:
    """Return an aware time; one without a zone is in ``zone``, if there is one.

    Raises:
        InvalidConfiguration: As for ``moment_of``; or there is no such zone.
    """
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        return moment_of(text, option)  # which says what is wrong
    if zone is None or at.tzinfo is not None:
        return moment_of(text, option)
    return at.replace(tzinfo=_zone(zone))


def end_of(text: str, option: str, zone: str | None, start: datetime) -> datetime:
    """Return an aware time, which may be written as the duration after ``start``.

    Raises:
        InvalidConfiguration: It is neither.
    """
    if _DURATION.fullmatch(text.strip()):
        # In elapsed time, which local times are not.
        return after(start.astimezone(UTC), duration(text, option), option)
    return start_of(text, option, zone)


def _zone(name: str) -> tzinfo:
    try:
        return zone_named(name)
    except ValueError as error:
        raise InvalidConfiguration(f"--zone {name!r}: {error}; nothing was changed") from None


def _example(at: datetime) -> str:
    """Return a time as it is written in the zone of this machine."""
    try:
        return at.astimezone().isoformat(timespec="minutes")
    except (OverflowError, ValueError):  # the first and the last day of the calendar
        return f"{at.replace(tzinfo=None).isoformat(timespec='minutes')}+00:00"


def _is_time_of_day(text: str) -> bool:
    try:
        time.fromisoformat(text)
    except ValueError:
        return False
    return True


def after(now: datetime, length: timedelta, option: str) -> datetime:
    """Return the moment after a duration.

    Raises:
        InvalidConfiguration: The calendar does not go so far.
    """
    try:
        return now + length
    except OverflowError:
        raise InvalidConfiguration(
            f"{option} {length}: that is after the year {date.max.year}; nothing was changed"
        ) from None


def operator() -> str:
    """Return who gives the commands, for people: user and host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user may have no name
        user = "somebody"
    return in_one_line(f"{user}@{socket.gethostname()}")
