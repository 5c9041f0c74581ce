"""Times and time zones: checks and conversions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, ValidationInfo

UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""The origin of the stores' clocks; unrelated to a state's ``epoch``."""


def to_milliseconds(moment: datetime) -> int:
    """Return the whole milliseconds since 1970, the unit of the stores' clocks."""
    return (moment - UNIX_EPOCH) // timedelta(milliseconds=1)


def from_milliseconds(value: object) -> object:
    """Return the time for milliseconds since 1970; return any other value unchanged, for pydantic to check."""
    if type(value) is not int:  # excludes bool, a subclass of int
        return value
    try:
        return UNIX_EPOCH + timedelta(milliseconds=value)
    except OverflowError:
        msg = f"milliseconds since 1970 must be in the years 1 to 9999, got {value}"
        raise ValueError(msg) from None


def check_aware(moment: object, name: str) -> None:
    """Raise ``ValueError``, with a hint for the fix, unless ``moment`` is an aware datetime."""
    if not isinstance(moment, datetime):
        raise ValueError(f"{name} must be an aware datetime, got {moment!r}")  # noqa: TRY004 - one error type
    if moment.utcoffset() is None:
        example = f"datetime({moment.year}, {moment.month}, {moment.day}, {moment.hour}, {moment.minute}"
        raise ValueError(
            f"{name} {moment} has no time zone, so it would mean another moment on each host: "
            f"give {example}, tzinfo=ZoneInfo('Europe/Berlin')), or tzinfo=UTC"
        )


def to_utc(moment: datetime, name: str) -> datetime:
    """Return an aware time in UTC, since arithmetic in other zones ignores clock changes.

    Raises:
        ValueError: It has no time zone, or is outside of the years 1 to 9999 in UTC.
    """
    check_aware(moment, name)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{name} must be within the years 1 to 9999, got {moment}") from None


def _validate(moment: datetime, info: ValidationInfo) -> datetime:
    return to_utc(moment, info.field_name or "the time")


# A validator that runs before pydantic's would disable strict mode for JSON, where a time is a string.
Moment = Annotated[datetime, AfterValidator(_validate)]
"""An aware time, in Python's own UTC: pydantic's time zone can crash a process when it exits (pydantic-core 2.50)."""


class UnknownZone(ValueError):
    """This host does not have the time zone."""


def zone_named(name: str) -> ZoneInfo:
    """Return the IANA time zone with this name.

    Raises:
        UnknownZone: This host does not have it; the message has a hint.
    """
    try:
        return ZoneInfo(name)
    except (LookupError, OSError, ValueError):  # a path, a directory of zones, an unknown name
        raise UnknownZone(
            f"unknown time zone {name!r}: give an IANA name such as 'Europe/Berlin' or 'UTC' "
            "(where the host has no time zones: pip install tzdata)"
        ) from None
