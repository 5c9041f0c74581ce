"""Windows: periods of maintenance that are known beforehand, once or by a recurrence rule.

Everything here is a pure function of its arguments, ``now`` included: nothing runs at the start or the end of a
window. So a restart, a clock that jumps and a host that slept through the start change nothing: what counts is what
the clock says when a request comes. (A timetable remembers what it worked out last, which no caller can see.)

How windows recur (RFC 5545, sections 3.3.5 and 3.8.5.3; ``recurrence`` has the rules):

- A recurring window begins at the same local time in its zone. Where clocks went forward past that time, it begins
  as much later as they skipped (02:30 becomes 03:30); where the time comes twice, at the first.
- It always lasts as long as its first occurrence did, in elapsed time: start and end are ``DTSTART`` and ``DTEND``,
  which repeat the exact duration. One of 01:00 to 05:00 ends at 06:00 on the day on which clocks go forward in
  between, and at 04:00 on the day on which they go back.
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
    """Return a new window, after all the checks that spare an operator a surprise.

    Args:
        start: Aware. Of a recurring window it is an occurrence too, as RFC 5545 demands.
        end: Aware. It belongs to the window no more.
        now: A window that is over by then is a mistake.
        mode: ``"on"`` or ``"read_only"``.
        reason: What clients are told.
        rrule: The rule by which it recurs, such as ``"FREQ=WEEKLY;BYDAY=SU"``.
        zone: In which zone's local time it recurs; by default the ``ZoneInfo`` of ``start``.

    Raises:
        InvalidConfiguration: It can't be what was meant, and why.
    """
    try:
        check_aware(start, "start")
        check_aware(end, "end")
        check_aware(now, "now")
        if rrule is None and zone is not None:
            raise ValueError(  # noqa: TRY301 - told as the others are
                f"zone={zone!r} goes with rrule, to say where a recurring window recurs; "
                "the times of one that does not recur have their zones in themselves: leave it out"
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
