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
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from heapq import merge
from itertools import islice
from typing import Annotated, Literal, NamedTuple, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from .exceptions import InvalidConfiguration
from .recurrence import MAX_RULE_LENGTH, SIGHT_YEARS, Recurrence, Rule

MAX_WINDOWS = 100
"""How many windows a switch may have."""

_FIRST_YEAR, _LAST_YEAR = 1900, 2999
"""The years in which a recurring window may begin for the first time."""

_LAST_YEAR_PLACED = 8998
"""Until then recurrences are looked for, whose own end is later."""

_LONGEST = timedelta(days=366)
"""The longest recurring window."""

_AT_A_TIME = 4
"""How many starts to come a window works out at once."""

_LOOKAHEAD = 100
"""How many occurrences are looked at, beside one of each window, to find out when something ends."""

_DAY = timedelta(days=1)
_ALWAYS = datetime.min.replace(tzinfo=UTC)
_NEVER = datetime.max.replace(tzinfo=UTC)

_SIGHT = timedelta(days=365 * (SIGHT_YEARS - 1))
"""For how long it is known at least that a rule occurs no more, or that it does."""


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


class Window(BaseModel):
    """A planned period of maintenance: ``start`` belongs to it, ``end`` does not."""

    # Members that only newer versions know are kept.
    model_config = ConfigDict(frozen=True, extra="allow")

    id: str = Field(min_length=1, max_length=64)
    start: Moment
    """When it begins, or begins for the first time."""
    end: Moment
    """When it ends, or ends for the first time."""
    mode: Literal["on", "read_only"] = "on"
    reason: str | None = None
    rrule: str | None = Field(default=None, max_length=MAX_RULE_LENGTH)
    """By which rule it recurs (RFC 5545, without ``RRULE:``)."""
    zone: str | None = None
    """The IANA zone in whose local time a recurring window recurs."""
    ended: Moment | None = None
    """Occurrences that began up to then are over, since an operator ended them early."""

    @field_validator("rrule")
    @classmethod
    def _one_spelling(cls, rrule: str | None) -> str | None:
        return None if rrule is None else rrule.strip().upper().removeprefix("RRULE:")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.end <= self.start:
            raise ValueError(f"the end {self.end} is not after the start {self.start}")
        if (self.rrule is None) is not (self.zone is None):
            raise ValueError(
                "a recurring window needs both: a rule (rrule) and an IANA zone such as 'Europe/Berlin' (zone), "
                "in whose local time it recurs"
            )
        if self.rrule is not None and self.zone is not None:
            zone_named(self.zone)
            if self.duration > _LONGEST:
                raise ValueError(f"a recurring window lasts {_LONGEST.days} days at most, not {self.duration}")
            if not _FIRST_YEAR <= self.start.year <= _LAST_YEAR:
                raise ValueError(f"a recurring window begins in the years {_FIRST_YEAR} to {_LAST_YEAR}: {self.start}")
            _recurrence_of(self)  # the zone before: what is wrong is cached, and zones may be installed
        return self

    @property
    def duration(self) -> timedelta:
        """How long each occurrence lasts."""
        return self.end - self.start


class Occurrence(NamedTuple):
    """One time that a window occurs."""

    window: Window
    start: datetime
    end: datetime


class Segment(NamedTuple):
    """A time from ``since`` until just before ``until`` in which the answer is the same."""

    since: datetime
    until: datetime | None
    """``None``: for ever."""
    occurrence: Occurrence | None
    """The occurrence that counts: ``on`` before ``read_only``, among equals the one that ends last."""

    @property
    def rank(self) -> int:
        """The rank of its mode, as a step has it."""
        return _rank(self.occurrence)


class Step(NamedTuple):
    """A time from which on windows make another mode than before."""

    since: datetime
    rank: int
    """Of the mode: 0 is "off", and what blocks more has a higher one."""


class Outlook(NamedTuple):
    """Which modes windows make from a time on."""

    steps: list[Step]
    """In order; the first is the mode at the time that was asked for."""
    horizon: datetime | None
    """What comes then and later is out of sight; ``None``: nothing is."""


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
            zone = _zone_of(start)
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
            _check_existence(start)
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


def _zone_of(start: datetime) -> str:
    if start.tzinfo is UTC:
        return "UTC"
    key = getattr(start.tzinfo, "key", None)
    if not isinstance(key, str):
        raise ValueError(  # noqa: TRY004 - the type is right, what it has to say is too little
            f"start {start} has an offset but no IANA zone, which says what becomes of it when clocks change: "
            "give it as tzinfo=ZoneInfo('Europe/Berlin'), or pass zone='Europe/Berlin'"
        )
    return key


def _check_existence(start: datetime) -> None:
    """Raise ``ValueError`` if clocks skip a time."""
    if start.replace(tzinfo=None) != start.astimezone(UTC).astimezone(start.tzinfo).replace(tzinfo=None):
        raise ValueError(f"start {start} does not exist in {start.tzinfo}, clocks skip it: begin on another day")


class _Starts:
    """When a recurring window begins: its rule's local times, placed in its zone."""

    def __init__(self, rrule: str, zone: str, first: datetime) -> None:
        self.zone = zone_named(zone)
        self._first = first
        self.recurrence = Recurrence(Rule.parse(rrule), first.astimezone(self.zone).replace(tzinfo=None))

    def since(self, moment: datetime) -> Iterator[datetime]:
        """Yield when it begins, from a moment on, in order."""
        since = max(moment, self._first)
        if since.year > _LAST_YEAR_PLACED:
            return
        # A local time that is skipped or comes twice may be placed at or after `since` although it reads earlier.
        reads = min((since + by).astimezone(self.zone).replace(tzinfo=None) - by for by in (-_DAY, 0 * _DAY, _DAY))
        until = self.recurrence.until
        for start in self._placed(self.recurrence.occurs_from(reads)):
            if until is not None and start > until:
                return
            if start >= since:
                yield start

    def _placed(self, walls: Iterable[datetime]) -> Iterator[datetime]:
        """Yield the moments of local times: the first if there are two, and later by the gap if there is none."""
        moved: list[datetime] = []
        for wall in walls:
            start = wall.replace(tzinfo=self.zone).astimezone(UTC)
            if start.astimezone(self.zone).replace(tzinfo=None) != wall:
                moved.append(start)  # past local times that are still to come
                continue
            if moved:
                yield from (other for other in moved if other < start)
                moved = [other for other in moved if other > start]
            yield start
        yield from moved


def _recurrence_of(window: Window) -> _Starts:
    """Return when a recurring window begins.

    Raises:
        ValueError: It can't be what was meant, and why.
    """
    recurrence = _checked_recurrence(window.rrule or "", window.zone or "", window.start, window.duration)
    if isinstance(recurrence, str):
        raise ValueError(recurrence)  # noqa: TRY004 - what is wrong with the window
    return recurrence


@lru_cache(maxsize=4 * MAX_WINDOWS)  # a document is read every second, and its windows are the same for weeks
def _checked_recurrence(rrule: str, zone: str, start: datetime, duration: timedelta) -> _Starts | str:
    """Return when a window begins, or what is wrong with it."""
    try:
        starts = _Starts(rrule, zone, start)
    except ValueError as error:
        return str(error)
    begins = start.astimezone(starts.zone)
    if begins.fold:
        return f"start {begins} is the second of that name, and a window recurs at the first: begin with that"
    first = next(starts.since(start), None)
    if first is None:
        return f"a window by the rule {rrule!r} never occurs"
    if first != start:
        return (
            f"start {begins} is no occurrence of the rule {rrule!r}: "
            f"begin with the first one that is, {first.astimezone(starts.zone)}"
        )
    gap = starts.recurrence.shorter_gap(duration)
    if gap is not None:
        return (
            f"a window of {duration} by the rule {rrule!r} overlaps itself, it recurs after {gap}: "
            "let it be shorter, or recur less often"
        )
    return starts


class _Batch(NamedTuple):
    """Starts of a window: all that matter from ``known_from`` until just before ``known_until``."""

    known_from: datetime
    known_until: datetime
    starts: tuple[datetime, ...]
    has_more: bool
    """Whether later ones may be in sight."""


class _Line:
    """One window on the time line, with the starts worked out last at hand."""

    __slots__ = ("_batches", "_duration", "_recurrence", "_window", "id")

    def __init__(self, window: Window) -> None:
        self.id = window.id
        self._window = window
        self._duration = window.duration
        self._recurrence = None if window.rrule is None else _recurrence_of(window)
        self._batches: tuple[_Batch, ...] = ()

    def at(self, moment: datetime) -> Segment:
        """Return what is so at a moment."""
        batch = self._batch(moment)
        index = bisect_right(batch.starts, moment)
        following = batch.starts[index] if index < len(batch.starts) else None
        if index == 0:
            return Segment(batch.known_from, following, None)
        # All last equally long, so the one that began last is the one that ends last.
        start = batch.starts[index - 1]
        end = start + self._duration
        if moment >= end:
            return Segment(end, following, None)
        until = end if following is None else min(end, following)
        return Segment(start, until, Occurrence(self._window, start, end))

    def not_over(self, moment: datetime) -> Iterator[Occurrence]:
        """Yield the occurrence that is active at a moment, if one is, and those that begin after it, in order."""
        active = self.at(moment).occurrence
        if active is not None:
            yield active
        batch = self._batch(moment)
        for start in batch.starts[bisect_right(batch.starts, moment) :]:
            yield Occurrence(self._window, start, start + self._duration)
        if batch.has_more:
            for start in self._starts(batch.known_until):
                if start > batch.known_until:
                    yield Occurrence(self._window, start, start + self._duration)

    def is_over(self, moment: datetime) -> bool:
        """Return whether it is neither active at a moment nor occurs again."""
        segment = self.at(moment)
        return segment.occurrence is None and segment.until is None

    def _batch(self, moment: datetime) -> _Batch:
        batches = self._batches  # read once: another thread may put others there
        for batch in batches:
            if batch.known_from <= moment < batch.known_until:
                return batch
        batch = self._worked_out(moment)
        self._batches = (batch, *batches[:1])  # two, for now and for the end of a stored mode
        return batch

    def _worked_out(self, moment: datetime) -> _Batch:
        from_the_first = self._recurrence is None or moment < self._window.end
        starts, ahead = [], 0
        for start in self._starts(_ALWAYS if from_the_first else moment - self._duration):
            starts.append(start)
            ahead += start > moment
            if ahead == _AT_A_TIME:
                break
        has_more = ahead == _AT_A_TIME
        if has_more:
            known_until = starts[-1]
        elif self._recurrence is None:
            known_until = _NEVER
        else:  # they are all that are in sight, and more will be later on
            known_until = min(max(moment, self._window.start), _NEVER - _SIGHT) + _SIGHT
        return _Batch(_ALWAYS if from_the_first else moment, known_until, tuple(starts), has_more)

    def _starts(self, since: datetime) -> Iterator[datetime]:
        ended = self._window.ended
        if ended is not None:
            since = max(since, ended)
        once = iter((self._window.start,) if self._window.start >= since else ())
        starts = once if self._recurrence is None else self._recurrence.since(since)
        return (start for start in starts if ended is None or start > ended)


_RANK = {"read_only": 1, "on": 2}


def _rank(occurrence: Occurrence | None) -> int:
    return 0 if occurrence is None else _RANK[occurrence.window.mode]


def _now_in_utc(now: datetime) -> datetime:
    check_aware(now, "now")
    return now.astimezone(UTC)  # elsewhere an hour earlier is an hour less on the clock, whatever clocks do


class Timetable:
    """Windows, made ready to be asked often: within a segment the answer costs two comparisons.

    It may be asked for any time in any order, from several threads. Keep one for as long as its windows are the
    same. The next segment costs about a microsecond per window, and some tens of them per recurring window once in
    four occurrences. To look ahead takes about a millisecond, once in a segment and if anybody asks.
    """

    __slots__ = ("_lines", "_outlooks", "_segment")

    def __init__(self, windows: Iterable[Window]) -> None:
        self._lines = tuple(_Line(window) for window in windows)
        self._segment = Segment(_ALWAYS, _ALWAYS, None)
        self._outlooks: tuple[tuple[Segment, Outlook], ...] = ()

    def at(self, now: datetime) -> Segment:
        """Return what counts at ``now``, and from when until when that is so."""
        segment = self._segment  # read once: another thread may put another one there
        if segment.since <= now and (segment.until is None or now < segment.until):
            return segment
        segment = self._segment = self._at(_now_in_utc(now))
        return segment

    def outlook(self, now: datetime) -> Outlook:
        """Return which modes windows make from ``now`` on, as far as that is in sight."""
        now = _now_in_utc(now)
        known = self._outlooks  # read once, as above
        for segment, outlook in known:
            if segment.since <= now and (segment.until is None or now < segment.until):
                return outlook
        segment, outlook = self._at(now), self._look_ahead(now)
        self._outlooks = ((segment, outlook), *known[:1])  # two, for now and for the end of a stored mode
        return outlook

    def _look_ahead(self, now: datetime) -> Outlook:
        """Go through the next occurrences once, in the order in which they begin."""
        coming = self._not_over(now)
        occurrences = deque(islice(coming, _LOOKAHEAD + len(self._lines)))
        beyond = next(coming, None)
        ends, moment = [_ALWAYS] * (1 + len(_RANK)), now  # of each rank
        steps: list[Step] = []
        while True:
            while occurrences and occurrences[0].start <= moment:
                begun = occurrences.popleft()
                ends[_rank(begun)] = max(ends[_rank(begun)], begun.end)
            rank = max((rank for rank, end in enumerate(ends) if end > moment), default=0)
            if not steps or rank != steps[-1].rank:
                steps.append(Step(moment, rank))
            changes = [*(end for end in ends if end > moment), *(one.start for one in islice(occurrences, 1))]
            moment = min(changes, default=_NEVER)
            if not changes or (beyond is not None and moment >= beyond.start):
                return Outlook(steps, None if beyond is None else beyond.start)

    def next_change(self, now: datetime) -> datetime | None:
        """Return when the mode changes next; ``None``: never, or that is not in sight."""
        return next((step.since for step in self.outlook(now).steps[1:]), None)

    def closed_until(self, now: datetime, mode: str) -> datetime | None:
        """Return when no window of at least ``mode`` is active any more: ``now`` if none is then.

        ``None``: that is not in sight.
        """
        first, *others = self.outlook(now).steps
        if first.rank < _RANK[mode]:
            return _now_in_utc(now)
        return next((step.since for step in others if step.rank < _RANK[mode]), None)

    def all_at(self, now: datetime) -> list[Occurrence]:
        """Return all occurrences that are active at ``now``."""
        now = _now_in_utc(now)
        return [active for line in self._lines if (active := line.at(now).occurrence) is not None]

    def upcoming(self, now: datetime, limit: int) -> list[Occurrence]:
        """Return the next occurrences, at most ``limit``, that have not begun at ``now``; the earliest first."""
        now = _now_in_utc(now)
        return list(islice((one for one in self._not_over(now) if one.start > now), limit))

    def over(self, now: datetime) -> frozenset[str]:
        """Return the ids of the windows that are neither active at ``now`` nor occur again."""
        now = _now_in_utc(now)
        return frozenset(line.id for line in self._lines if line.is_over(now))

    def _not_over(self, now: datetime) -> Iterator[Occurrence]:
        return merge(*(line.not_over(now) for line in self._lines), key=lambda occurrence: occurrence.start)

    def _at(self, moment: datetime) -> Segment:
        segments = [line.at(moment) for line in self._lines]
        return Segment(
            since=max((segment.since for segment in segments), default=_ALWAYS),
            until=min((segment.until for segment in segments if segment.until is not None), default=None),
            occurrence=max(
                (segment.occurrence for segment in segments if segment.occurrence is not None),
                key=lambda occurrence: (_rank(occurrence), occurrence.end),
                default=None,
            ),
        )


def current(windows: Iterable[Window], now: datetime) -> Occurrence | None:
    """Return the occurrence that counts at ``now``: ``on`` before ``read_only``, then the one that ends last."""
    return Timetable(windows).at(now).occurrence


def next_change(windows: Iterable[Window], now: datetime) -> datetime | None:
    """Return when the mode changes next, see ``Timetable.next_change``."""
    return Timetable(windows).next_change(now)


def upcoming(windows: Iterable[Window], now: datetime, limit: int) -> list[Occurrence]:
    """Return the next occurrences, see ``Timetable.upcoming``."""
    return Timetable(windows).upcoming(now, limit)
