"""Moments and zones, checked and written the same way everywhere."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, ValidationInfo

UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""When the clocks of stores begin; a state's ``epoch`` is something else."""


def to_milliseconds(moment: datetime) -> int:
    """Return the whole milliseconds since 1970, as stores tell times."""
    return (moment - UNIX_EPOCH) // timedelta(milliseconds=1)


def from_milliseconds(value: object) -> object:
    if type(value) is not int:  # bool is an int, and no time
        return value
    try:
        return UNIX_EPOCH + timedelta(milliseconds=value)
    except OverflowError:
        msg = f"{value} ms since 1970 is no time"
        raise ValueError(msg) from None


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
