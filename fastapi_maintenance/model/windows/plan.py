"""Plans windows, with checks of an operator's input.

All functions are pure, ``now`` included: nothing runs at the start or the end of a window. So a restart, a clock that
jumps and a host that was suspended at the start have no effect: only the time of a request matters. (A timetable has a
cache, which is invisible to callers.)

How windows recur (RFC 5545, sections 3.3.5 and 3.8.5.3; rules are in ``recurrence``):

- A recurring window begins at the same local time in its zone. If clocks skip that time, it begins later by the
  skipped amount (02:30 becomes 03:30); if the time occurs twice, the window begins at the first.
- Each occurrence lasts as long as the first, in elapsed time: start and end are ``DTSTART`` and ``DTEND``, which
  repeat the exact duration. A window from 01:00 to 05:00 ends at 06:00 if clocks move forward in between, and at
  04:00 if they move back.
- The start belongs to the window and the end does not.
"""

from __future__ import annotations

import uuid
from datetime import datetime

from pydantic import ValidationError

from ...exceptions import InvalidConfiguration
from ..moments import check_aware
from .timetable import Timetable
from .window import Window, check_existence, zone_of


def plan(
    start: datetime,
    end: datetime,
    *,
    now: datetime,
    mode: str = "on",
    reason: str | None = None,
    rrule: str | None = None,
    zone: str | None = None,
) -> Window:
    """Return a new window, after checks for mistakes of the operator.

    Args:
        start: Aware. It must be an occurrence of the rule (RFC 5545).
        end: Aware. It does not belong to the window.
        now: Aware. The window must not be over by then.
        mode: ``"on"`` or ``"read_only"``.
        reason: The reason for clients.
        rrule: The recurrence rule, such as ``"FREQ=WEEKLY;BYDAY=SU"``.
        zone: The IANA zone of the recurrence; by default the ``ZoneInfo`` of ``start``.

    Raises:
        InvalidConfiguration: The window is a mistake; the message explains why.
    """
    try:
        check_aware(start, "start")
        check_aware(end, "end")
        check_aware(now, "now")
        if rrule is None and zone is not None:
            raise ValueError(  # noqa: TRY301 - reported like the other errors
                f"zone must only be given with rrule, got {zone!r}: "
                "without rrule, start and end define their zones; leave it out"
            )
        if rrule is not None and zone is None:
            zone = zone_of(start)
        window = Window.model_validate(
            {
                "id": uuid.uuid4().hex[:12],
                "start": start,
                "end": end,
                "mode": mode,
                "reason": reason,
                "rrule": rrule,
                "zone": zone,
            }
        )
        if window.rrule is not None:
            check_existence(start)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        cause = first.get("ctx", {}).get("error")
        problem = cause or f"{'.'.join(str(part) for part in first['loc'])} {first['input']!r}: {first['msg']}"
        raise InvalidConfiguration(f"{problem}; nothing was scheduled") from None
    except ValueError as error:
        raise InvalidConfiguration(f"{error}; nothing was scheduled") from None
    if Timetable([window]).over(now):
        raise InvalidConfiguration(
            f"the window from {start} to {end} has no occurrence after now, which is {now}; nothing was scheduled"
        )
    return window
