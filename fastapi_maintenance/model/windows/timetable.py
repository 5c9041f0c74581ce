"""Timetables: when windows are active, and when that changes."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from heapq import merge
from itertools import islice
from typing import NamedTuple

from ..modes import MaintenanceMode, strongest
from ..moments import to_utc
from .recurrence import SIGHT_YEARS
from .window import Window, recurrence_of

_BATCH_SIZE = 4
"""How many future starts of a window are computed at once."""

_LOOKAHEAD = 100
"""How many occurrences an outlook includes, in addition to one per window."""
_ALWAYS = datetime.min.replace(tzinfo=UTC)
_NEVER = datetime.max.replace(tzinfo=UTC)

_SIGHT = timedelta(days=365 * (SIGHT_YEARS - 1))
"""How far ahead it is at least known whether a rule occurs again."""


class Occurrence(NamedTuple):
    """One occurrence of a window."""

    window: Window
    start: datetime
    end: datetime


class Segment(NamedTuple):
    """A period from ``since`` until just before ``until`` in which the effective occurrence is the same."""

    since: datetime
    until: datetime | None
    """``None``: for ever."""
    occurrence: Occurrence | None
    """The effective occurrence: ``on`` takes precedence over ``read_only``, then the latest end."""
    mode: MaintenanceMode = MaintenanceMode.OFF
    """The mode of that occurrence."""


class Step(NamedTuple):
    """A time at which the mode of the windows changes."""

    since: datetime
    mode: MaintenanceMode


class Outlook(NamedTuple):
    """The modes of the windows from a time on."""

    steps: list[Step]
    """In order; the first has the mode at the requested time."""
    horizon: datetime | None
    """Modes from then on are unknown; ``None``: all are known."""


class _Batch(NamedTuple):
    """The starts of a window that are relevant from ``valid_from`` until just before ``valid_until``."""

    valid_from: datetime
    valid_until: datetime
    starts: tuple[datetime, ...]
    has_more: bool
    """Whether there may be later starts in sight."""


class _Line:
    """One window on the time line, with a cache of its starts."""

    __slots__ = ("_batches", "_duration", "_mode", "_recurrence", "_window", "id")

    def __init__(self, window: Window) -> None:
        self.id = window.id
        self._window = window
        self._mode = MaintenanceMode(window.mode)
        self._duration = window.duration
        self._recurrence = None if window.rrule is None else recurrence_of(window)
        self._batches: tuple[_Batch, ...] = ()

    def at(self, moment: datetime) -> Segment:
        """Return the segment of this window at a moment."""
        batch = self._batch_at(moment)
        index = bisect_right(batch.starts, moment)
        following = batch.starts[index] if index < len(batch.starts) else None
        if index == 0:
            return Segment(batch.valid_from, following, None)
        # All have the same duration, so the latest start has the latest end.
        start = batch.starts[index - 1]
        end = start + self._duration
        if moment >= end:
            return Segment(end, following, None)
        until = end if following is None else min(end, following)
        return Segment(start, until, Occurrence(self._window, start, end), self._mode)

    def occurrences_from(self, moment: datetime) -> Iterator[Occurrence]:
        """Yield the occurrence that is active at a moment, if any, and all that begin later, in order."""
        active = self.at(moment).occurrence
        if active is not None:
            yield active
        batch = self._batch_at(moment)
        for start in batch.starts[bisect_right(batch.starts, moment) :]:
            yield Occurrence(self._window, start, start + self._duration)
        if batch.has_more:
            for start in self._starts(batch.valid_until):
                if start > batch.valid_until:
                    yield Occurrence(self._window, start, start + self._duration)

    def is_over(self, moment: datetime) -> bool:
        """Return whether the window is neither active at a moment nor occurs again."""
        segment = self.at(moment)
        return segment.occurrence is None and segment.until is None

    def _batch_at(self, moment: datetime) -> _Batch:
        batches = self._batches  # read once: another thread may replace them
        for batch in batches:
            if batch.valid_from <= moment < batch.valid_until:
                return batch
        batch = self._compute_batch(moment)
        self._batches = (batch, *batches[:1])  # two, for now and for the end of a stored mode
        return batch

    def _compute_batch(self, moment: datetime) -> _Batch:
        from_the_first = self._recurrence is None or moment < self._window.end
        starts, ahead = [], 0
        for start in self._starts(_ALWAYS if from_the_first else moment - self._duration):
            starts.append(start)
            ahead += start > moment
            if ahead == _BATCH_SIZE:
                break
        has_more = ahead == _BATCH_SIZE
        if has_more:
            valid_until = starts[-1]
        elif self._recurrence is None:
            valid_until = _NEVER
        else:  # these are all starts in sight now; later, more will be
            valid_until = min(max(moment, self._window.start), _NEVER - _SIGHT) + _SIGHT
        return _Batch(_ALWAYS if from_the_first else moment, valid_until, tuple(starts), has_more)

    def _starts(self, since: datetime) -> Iterator[datetime]:
        ended = self._window.ended
        if ended is not None:
            since = max(since, ended)
        once = iter((self._window.start,) if self._window.start >= since else ())
        starts = once if self._recurrence is None else self._recurrence.since(since)
        return (start for start in starts if ended is None or start > ended)


class Timetable:
    """Answers frequent queries about windows: within a segment an answer costs two comparisons.

    Accepts any times in any order, from several threads. Keep it as long as its windows are the same. A new segment
    costs about a microsecond per window, and some tens of them per recurring window at every fourth occurrence. An
    outlook costs about a millisecond, at most once per segment.
    """

    __slots__ = ("_lines", "_outlooks", "_segment")

    def __init__(self, windows: Iterable[Window]) -> None:
        self._lines = tuple(_Line(window) for window in windows)
        self._segment = Segment(_ALWAYS, _ALWAYS, None)
        self._outlooks: tuple[tuple[Segment, Outlook], ...] = ()

    def at(self, now: datetime) -> Segment:
        """Return the segment at ``now``."""
        segment = self._segment  # read once: another thread may replace it
        if segment.since <= now and (segment.until is None or now < segment.until):
            return segment
        segment = self._segment = self._at(to_utc(now, "now"))
        return segment

    def outlook(self, now: datetime) -> Outlook:
        """Return the modes of the windows from ``now`` on, as far as they are in sight."""
        now = to_utc(now, "now")
        cached = self._outlooks  # read once, as above
        for segment, outlook in cached:
            if segment.since <= now and (segment.until is None or now < segment.until):
                return outlook
        segment, outlook = self._at(now), self._look_ahead(now)
        self._outlooks = ((segment, outlook), *cached[:1])  # two, for now and for the end of a stored mode
        return outlook

    def _look_ahead(self, now: datetime) -> Outlook:
        """Return the outlook, from one pass over the next occurrences in order of their starts."""
        coming = self._occurrences_from(now)
        occurrences = deque(islice(coming, _LOOKAHEAD + len(self._lines)))
        beyond = next(coming, None)
        ends, moment = dict.fromkeys(MaintenanceMode, _ALWAYS), now
        steps: list[Step] = []
        while True:
            while occurrences and occurrences[0].start <= moment:
                begun = occurrences.popleft()
                begun_mode = MaintenanceMode(begun.window.mode)
                ends[begun_mode] = max(ends[begun_mode], begun.end)
            mode = strongest(mode for mode, end in ends.items() if end > moment)
            if not steps or mode is not steps[-1].mode:
                steps.append(Step(moment, mode))
            changes = [*(end for end in ends.values() if end > moment), *(one.start for one in islice(occurrences, 1))]
            moment = min(changes, default=_NEVER)
            if not changes or (beyond is not None and moment >= beyond.start):
                return Outlook(steps, None if beyond is None else beyond.start)

    def closed_until(self, now: datetime, mode: str) -> datetime | None:
        """Return when windows of at least ``mode`` have ended, ``now`` if none is active; ``None``: not in sight."""
        first, *others = self.outlook(now).steps
        least = MaintenanceMode(mode).strength
        if first.mode.strength < least:
            return to_utc(now, "now")
        return next((step.since for step in others if step.mode.strength < least), None)

    def all_at(self, now: datetime) -> list[Occurrence]:
        """Return all occurrences that are active at ``now``."""
        now = to_utc(now, "now")
        return [active for line in self._lines if (active := line.at(now).occurrence) is not None]

    def upcoming(self, now: datetime, limit: int) -> list[Occurrence]:
        """Return the next occurrences that begin after ``now``, at most ``limit``, in order."""
        now = to_utc(now, "now")
        return list(islice((one for one in self._occurrences_from(now) if one.start > now), limit))

    def over(self, now: datetime) -> frozenset[str]:
        """Return the ids of the windows that are neither active at ``now`` nor occur again."""
        now = to_utc(now, "now")
        return frozenset(line.id for line in self._lines if line.is_over(now))

    def _occurrences_from(self, now: datetime) -> Iterator[Occurrence]:
        return merge(*(line.occurrences_from(now) for line in self._lines), key=lambda occurrence: occurrence.start)

    def _at(self, moment: datetime) -> Segment:
        segments = [Segment(_ALWAYS, None, None), *(line.at(moment) for line in self._lines)]
        effective = max(segments, key=lambda one: (one.mode.strength, one.occurrence and one.occurrence.end))
        return effective._replace(
            since=max(segment.since for segment in segments),
            until=min((segment.until for segment in segments if segment.until is not None), default=None),
        )
