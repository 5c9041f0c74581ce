"""When windows are active, and when that changes."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from heapq import merge
from itertools import islice
from typing import NamedTuple

from ..moments import check_aware
from .recurrence import SIGHT_YEARS
from .window import Window, recurrence_of

_AT_A_TIME = 4
"""How many starts to come a window works out at once."""

_LOOKAHEAD = 100
"""How many occurrences are looked at, beside one of each window, to find out when something ends."""
_ALWAYS = datetime.min.replace(tzinfo=UTC)
_NEVER = datetime.max.replace(tzinfo=UTC)

_SIGHT = timedelta(days=365 * (SIGHT_YEARS - 1))
"""For how long it is known at least that a rule occurs no more, or that it does."""


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
        self._recurrence = None if window.rrule is None else recurrence_of(window)
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
