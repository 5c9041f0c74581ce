"""Windows: when they count, how they recur, and what is refused."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from itertools import count, islice
from math import inf
from zoneinfo import ZoneInfo

import pytest
from dateutil.rrule import rrulestr
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from fastapi_maintenance.exceptions import InvalidConfiguration
from fastapi_maintenance.model.change import set_mode
from fastapi_maintenance.model.modes import MaintenanceMode
from fastapi_maintenance.model.moments import check_aware
from fastapi_maintenance.model.state import MaintenanceState
from fastapi_maintenance.model.windows.plan import plan
from fastapi_maintenance.model.windows.recurrence import Recurrence
from fastapi_maintenance.model.windows.rule import MAX_RULE_LENGTH, Rule
from fastapi_maintenance.model.windows.timetable import Occurrence, Timetable
from fastapi_maintenance.model.windows.window import Window
from tests.support.costs import cost_of, cost_of_seconds, times_as_long
from tests.support.windows import (
    BERLIN,
    DAY,
    FOREVER,
    HOUR,
    MINUTE,
    NOW,
    TICK,
    begins_by_brute_force,
    berlin,
    hundred_windows,
    recurring,
    unhurried,
    views,
    window,
)


def current(windows: list[Window], now: datetime) -> Occurrence | None:
    return Timetable(windows).at(now).occurrence


def next_change(table: Timetable, now: datetime) -> datetime | None:
    """Return when the mode changes next, as far as that is in sight."""
    return next((step.since for step in table.outlook(now).steps[1:]), None)


def upcoming(windows: list[Window], now: datetime, limit: int) -> list[Occurrence]:
    return Timetable(windows).upcoming(now, limit)


def starts(planned: Window, limit: int, since: datetime | None = None) -> list[str]:
    """The local times at which a recurring window begins."""
    assert planned.zone is not None
    since = since or planned.start - TICK
    found = upcoming([planned], since, limit)
    return [occurrence.start.astimezone(ZoneInfo(planned.zone)).isoformat(" ", "minutes") for occurrence in found]


def ended_early(windows: list[Window], now: datetime) -> tuple[Window, ...]:
    """The windows after an operator's "off"."""
    state = MaintenanceState(windows={one.id: one for one in windows})
    return tuple(set_mode(MaintenanceMode.OFF, now=now).applied_to(state, now).windows.values())


def ends_of(table: Timetable, moment: datetime) -> datetime | None:
    """Return until when at least the mode of a moment counts."""
    occurrence = table.at(moment).occurrence
    return None if occurrence is None else table.closed_until(moment, occurrence.window.mode)


def is_over(planned: Window, now: datetime) -> bool:
    return bool(Timetable([planned]).over(now))


# One-off windows


def test_the_start_belongs_to_a_window_and_the_end_does_not() -> None:
    start, end = NOW + HOUR, NOW + 2 * HOUR
    once = window(start, end, mode="read_only", reason="upgrade")
    table = Timetable([once])
    for moment, blocked in [(start - TICK, False), (start, True), (end - TICK, True), (end, False), (FOREVER, False)]:
        for answer in (table.at(moment).occurrence, current([once], moment)):
            assert (answer is not None) is blocked
            if answer is not None:
                assert (answer.window, answer.start, answer.end) == (once, start, end)


def test_a_window_scheduled_for_later_does_not_count_yet_and_a_past_one_no_more() -> None:
    """The two mistakes that others make: blocking at once, and blocking for ever after a restart."""
    once = window(NOW + HOUR, NOW + 2 * HOUR)
    assert current([once], NOW) is None
    assert current([once], NOW + 3 * HOUR) is None
    assert next_change(Timetable([once]), NOW) == once.start
    assert next_change(Timetable([once]), NOW + HOUR) == once.end
    assert next_change(Timetable([once]), NOW + 2 * HOUR) is None


def test_a_clock_may_jump_to_and_fro() -> None:
    once = window(NOW + HOUR, NOW + 2 * HOUR)
    table = Timetable([once])
    hours = [0.0, 1.5, 0.5, 3, 1.2, -9000, 1, 2, 0.99]
    answers = [table.at(NOW + hour * HOUR).occurrence is not None for hour in hours]
    assert answers == [1 <= hour < 2 for hour in hours]


def test_no_windows_never_count() -> None:
    segment = Timetable([]).at(NOW)
    assert (segment.occurrence, segment.until) == (None, None)
    assert next_change(Timetable([]), NOW) is None
    assert upcoming([], NOW, 5) == []


def test_on_counts_before_read_only_and_then_the_one_that_ends_last() -> None:
    reading = window(NOW, NOW + 9 * HOUR, "reading", mode="read_only")
    short = window(NOW + HOUR, NOW + 2 * HOUR, "short")
    long = window(NOW + HOUR, NOW + 3 * HOUR, "long")
    table = Timetable([short, reading, long])
    names = [
        (at := table.at(NOW + hour * HOUR)).occurrence and (at.occurrence.window.id, ends_of(table, NOW + hour * HOUR))
        for hour in range(10)
    ]
    assert names == [
        ("reading", NOW + 9 * HOUR),
        ("long", NOW + 3 * HOUR),
        ("long", NOW + 3 * HOUR),
        *[("reading", NOW + 9 * HOUR)] * 6,
        None,
    ]
    assert next_change(table, NOW) == NOW + HOUR
    assert next_change(table, NOW + HOUR) == NOW + 3 * HOUR


def test_the_end_that_clients_hear_is_that_of_all_windows_that_follow_without_a_gap() -> None:
    first = window(NOW, NOW + HOUR)
    adjacent = window(NOW + HOUR, NOW + 2 * HOUR)
    overlapping = window(NOW + 1.5 * HOUR, NOW + 3 * HOUR)
    weaker = window(NOW + 3 * HOUR, NOW + 4 * HOUR, mode="read_only")
    table = Timetable([overlapping, weaker, first, adjacent])
    for hour in (0, 1, 1.6, 2, 2.9, 0.5):
        assert ends_of(table, NOW + hour * HOUR) == NOW + 3 * HOUR
        assert next_change(table, NOW + hour * HOUR) == NOW + 3 * HOUR
    assert ends_of(table, NOW + 3 * HOUR) == NOW + 4 * HOUR


def test_read_only_that_turns_into_on_has_not_ended() -> None:
    """Whoever is blocked by the one is blocked by the other."""
    table = Timetable([window(NOW, NOW + HOUR, mode="read_only"), window(NOW + HOUR, NOW + 2 * HOUR)])
    assert ends_of(table, NOW) == NOW + 2 * HOUR
    assert next_change(table, NOW) == NOW + HOUR


def test_an_end_that_is_not_in_sight_is_not_told() -> None:
    nonstop = recurring(berlin(2026, 1, 1), HOUR, "FREQ=HOURLY")
    table = Timetable([nonstop])
    assert table.at(NOW).occurrence is not None
    assert ends_of(table, NOW) is None
    assert next_change(table, NOW) is None


def test_an_endless_window_is_possible() -> None:
    table = Timetable([window(NOW, FOREVER)])
    assert ends_of(table, NOW + 9000 * DAY) == FOREVER


def test_upcoming_is_in_order_and_limited() -> None:
    daily = recurring(berlin(2026, 1, 1, 3), HOUR, "FREQ=DAILY", "daily")
    once = window(NOW + 4 * HOUR, NOW + 5 * HOUR, "once")
    past = window(NOW - 4 * HOUR, NOW, "past")
    found = upcoming([once, past, daily], NOW, 3)
    assert [occurrence.window.id for occurrence in found] == ["daily", "once", "daily"]
    assert found[0].start == berlin(2026, 11, 21, 3)
    assert found[0].end == berlin(2026, 11, 21, 4)
    assert upcoming([once], once.start, 3) == []


# Ending early, and being over


def test_an_occurrence_that_was_ended_is_over_and_the_next_one_comes() -> None:
    daily = recurring(berlin(2026, 1, 1, 3), HOUR, "FREQ=DAILY", "daily")
    later = window(NOW + DAY, NOW + 2 * DAY, "later")
    now = berlin(2026, 11, 21, 3, 20)
    (ended, untouched) = ended_early([daily, later], now)
    assert untouched is later
    assert ended.ended == berlin(2026, 11, 21, 3)
    assert current([ended], now) is None
    assert next_change(Timetable([ended]), now) == berlin(2026, 11, 22, 3)
    assert current([ended], berlin(2026, 11, 22, 3)) is not None
    assert current([ended], berlin(2026, 11, 20, 3)) is None, "a clock that goes back revives nothing"
    assert ended_early([ended], now) == (ended,)


def test_a_single_window_that_was_ended_is_over() -> None:
    once = window(NOW, NOW + HOUR)
    (ended,) = ended_early([once], NOW + MINUTE)
    assert current([ended], NOW + MINUTE) is None
    assert is_over(ended, NOW + MINUTE)
    assert not is_over(once, NOW + MINUTE)


@pytest.mark.parametrize("rest", ["COUNT=3", "UNTIL=20260103T020000Z"])
def test_a_recurring_window_is_over_after_its_last_occurrence(rest: str) -> None:
    """UNTIL is inclusive: the last one begins at that very moment."""
    daily = recurring(berlin(2026, 1, 1, 3), HOUR, f"FREQ=DAILY;{rest}")
    assert starts(daily, 9) == ["2026-01-01 03:00+01:00", "2026-01-02 03:00+01:00", "2026-01-03 03:00+01:00"]
    assert not is_over(daily, berlin(2025, 1, 1))
    assert not is_over(daily, berlin(2026, 1, 4) - 20 * HOUR - TICK)
    assert is_over(daily, berlin(2026, 1, 4) - 20 * HOUR)
    assert is_over(daily, FOREVER)


# The document


def test_a_window_survives_strict_json() -> None:
    daily = recurring(berlin(2026, 1, 1, 3), HOUR, "FREQ=DAILY", reason="é", ended=NOW, mode=MaintenanceMode.READ_ONLY)
    for original in (daily, window(NOW, NOW + HOUR + TICK)):
        for json in (original.model_dump_json(), original.model_dump_json(exclude_defaults=True)):
            assert Window.model_validate_json(json, strict=True) == original
    assert type(daily.mode) is str


def test_times_are_kept_in_utc() -> None:
    once = window(berlin(2026, 3, 29, 1), berlin(2026, 3, 29, 5))
    assert once.start.tzinfo is UTC
    assert once.model_dump(mode="json")["start"] == "2026-03-29T00:00:00Z"
    assert once.duration == 3 * HOUR


@pytest.mark.parametrize(
    ("json", "problem"),
    [
        ('{"id":"","start":"2026-01-01T00:00:00Z","end":"2026-01-02T00:00:00Z"}', "at least 1 character"),
        ('{"id":"a","start":"2026-01-01T00:00:00","end":"2026-01-02T00:00:00Z"}', "has no time zone"),
        ('{"id":"a","start":"2026-01-01T00:00:00Z","end":"2026-01-01T00:00:00Z"}', "is not after"),
        ('{"id":"a","start":"0001-01-01T00:00:00+05:00","end":"2026-01-01T00:00:00Z"}', "within the years"),
        ('{"id":"a","start":"2026-01-01T00:00:00Z","end":"2026-01-02T00:00:00Z","mode":"off"}', "'read_only' or 'on'"),
        ('{"id":"a","start":"2026-01-01T00:00:00Z","end":"2026-01-02T00:00:00Z","zone":"UTC"}', "needs both"),
        (
            '{"id":"a","start":"2026-01-01T00:00:00Z","end":"2026-01-02T00:00:00Z","rrule":"FREQ=DAILY"}',
            "needs both",
        ),
    ],
)
def test_a_document_with_an_impossible_window_is_refused(json: str, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Window.model_validate_json(json, strict=True)


# What an operator may ask for


def ask(start: datetime, end: datetime | None = None, **rest: object) -> Window:
    """Plan a window of one hour."""
    return plan(start, end or start.astimezone(UTC) + HOUR, now=NOW, **rest)  # type: ignore[arg-type]


def test_a_plan_is_a_window_with_an_id() -> None:
    one, other = (ask(NOW + HOUR, mode="read_only", reason="upgrade") for _ in range(2))
    assert one.id != other.id
    assert (one.start, one.end, one.mode, one.reason) == (NOW + HOUR, NOW + 2 * HOUR, "read_only", "upgrade")
    assert (one.rrule, one.zone) == (None, None)


def test_a_recurring_plan_takes_its_zone_from_its_start() -> None:
    planned = ask(berlin(2026, 11, 22, 2), rrule="rrule:freq=weekly;byday=su ")
    assert (planned.rrule, planned.zone) == ("FREQ=WEEKLY;BYDAY=SU", "Europe/Berlin")
    assert ask(NOW, rrule="FREQ=DAILY").zone == "UTC"
    other = ask(datetime(2026, 11, 22, 1, tzinfo=UTC), rrule="FREQ=DAILY", zone="Europe/Berlin")
    assert starts(other, 1, berlin(2027, 7, 1)) == ["2027-07-01 02:00+02:00"]


def test_a_recurring_window_that_began_long_ago_may_be_planned() -> None:
    assert ask(berlin(1970, 1, 1, 4), rrule="FREQ=DAILY").start.year == 1970


def test_a_recurring_window_may_last_until_it_recurs_and_for_a_year() -> None:
    assert ask(NOW, NOW + DAY, rrule="FREQ=DAILY").duration == DAY
    assert ask(NOW, NOW + 366 * DAY, rrule="FREQ=YEARLY;INTERVAL=9").duration == 366 * DAY


@pytest.mark.parametrize(
    ("start", "end", "rest", "problem"),
    [
        (
            datetime(2026, 11, 22, 2),  # noqa: DTZ001 - naive on purpose
            NOW,
            {},
            r"start 2026-11-22 02:00:00 has no time zone.*datetime\(2026, 11, 22, 2, 0, tzinfo=ZoneInfo",
        ),
        (NOW, datetime(2026, 11, 22, 2), {}, "end 2026-11-22 02:00:00 has no time zone"),  # noqa: DTZ001
        (NOW, NOW, {}, "is not after the start"),
        (NOW - 2 * HOUR, NOW - HOUR, {}, "no occurrence after now, which is 2026-11-21"),
        (NOW, None, {"mode": "off"}, "mode 'off': Input should be 'read_only' or 'on'"),
        (NOW, None, {"zone": "Mars"}, "zone must only be given with rrule, got 'Mars'.*leave it out"),
        (NOW, None, {"zone": 5}, "zone must only be given with rrule, got 5"),
        (NOW, None, {"rrule": "FREQ=DAILY", "zone": 5}, "zone 5: Input should be a valid string"),
        (NOW, None, {"rrule": "FREQ=DAILY", "zone": "Europe/Berlim"}, "unknown time zone 'Europe/Berlim'.*tzdata"),
        (NOW, None, {"rrule": "FREQ=DAILY", "zone": "../../etc/passwd"}, "unknown time zone"),
        (NOW, None, {"rrule": "FREQ=DAILY", "zone": "Europe"}, "unknown time zone"),
        (NOW, None, {"rrule": "FREQ=DAILY", "zone": ""}, "unknown time zone"),
        (
            datetime(2026, 11, 22, 2, tzinfo=timezone(HOUR)),
            None,
            {"rrule": "FREQ=DAILY"},
            r"start 2026-11-22 02:00:00\+01:00 has an offset but no IANA zone.*zone='Europe/Berlin'",
        ),
        (berlin(2027, 3, 28, 2, 30), None, {"rrule": "FREQ=DAILY"}, "does not exist in Europe/Berlin"),
        (berlin(2027, 10, 31, 2, 30, fold=1), None, {"rrule": "FREQ=DAILY"}, "the second time with this name"),
        (berlin(1899, 1, 1), None, {"rrule": "FREQ=DAILY"}, "the years 1900 to 2999"),
        (NOW, NOW + 367 * DAY, {"rrule": "FREQ=YEARLY;INTERVAL=9"}, "366 days at most"),
        (
            berlin(2026, 11, 22, 2),
            None,
            {"rrule": "FREQ=WEEKLY;BYDAY=MO"},
            r"is not an occurrence of the rule 'FREQ=WEEKLY;BYDAY=MO'.*first occurrence, 2026-11-23 02:00:00\+01:00",
        ),
        (NOW, NOW + 25 * HOUR, {"rrule": "FREQ=DAILY"}, "overlaps itself, it recurs after 1 day"),
        (NOW, NOW + 3 * HOUR, {"rrule": "FREQ=DAILY;BYHOUR=0,22"}, "overlaps itself, it recurs after 2:00:00"),
        (NOW, None, {"rrule": "FREQ=DAILY;UNTIL=20261120T000000Z"}, "never occurs"),
        (NOW, None, {"rrule": "FREQ=MONTHLY;BYMONTH=2;BYMONTHDAY=31"}, "never occurs"),
        (NOW, None, {"rrule": "FREQ=MONTHLY;BYMONTH=2;BYMONTHDAY=31;COUNT=2"}, "never occurs"),
        (NOW, None, {"rrule": "FREQ=HOURLY;INTERVAL=6;BYHOUR=5"}, "never occurs"),
    ],
)
def test_a_plan_that_cannot_be_meant_is_refused(
    start: datetime, end: datetime | None, rest: dict[str, object], problem: str
) -> None:
    with pytest.raises(InvalidConfiguration, match=f"(?s){problem}.*; nothing was scheduled"):
        ask(start, end, **rest)


@pytest.mark.parametrize(
    ("rrule", "problem"),
    [
        ("", "is not a part of a rule"),
        ("DAILY", "is not a part of a rule"),
        ("FREQ=DAILY;", "is not a part of a rule"),
        ("FREQ=DAILY;BYMONTHDAY=", "is not a part of a rule"),
        ("INTERVAL=2", "FREQ must be one of YEARLY, MONTHLY, WEEKLY, DAILY, HOURLY, MINUTELY"),
        ("FREQ=SECONDLY", "FREQ must be one of"),
        ("FREQ=DAILY;FREQ=DAILY", "FREQ must be given once only"),
        ("FREQ=DAILY;COUNT=3;UNTIL=20301231T000000Z", "COUNT and UNTIL exclude each other"),
        ("FREQ=DAILY;UNTIL=20301231", "UTC such as 20301231T235959Z"),
        ("FREQ=DAILY;UNTIL=20301231T000000", "UTC such as 20301231T235959Z"),
        ("FREQ=DAILY;UNTIL=20301331T000000Z", "20301331T000000Z"),
        ("DTSTART:20200101T000000\nRRULE:FREQ=DAILY", "DTSTART must not be part of a rule: the window has"),
        ("DTSTART=20200101T000000;FREQ=DAILY", "DTSTART must not be part of a rule"),
        ("FREQ=DAILY;BYSECOND=1,31", "BYSECOND must not be part of a rule"),
        ("FREQ=DAILY\nEXDATE:20200101T000000Z", "is not a part of a rule"),
        ("FREQ=DAILY;BYEASTER=1", "a part must be one of FREQ, UNTIL, .*, got BYEASTER"),
        ("FREQ=DAILY;INTERVAL=0", "INTERVAL must be 1 to 366, got 0"),
        ("FREQ=DAILY;INTERVAL=99999999999", "INTERVAL=99999999999 is not a number"),
        ("FREQ=DAILY;INTERVAL=1,2", "INTERVAL=1,2 is not a number"),
        ("FREQ=DAILY;COUNT=1001", "COUNT must be 1 to 1000, got 1001"),
        ("FREQ=DAILY;BYHOUR=24", "BYHOUR must be 0 to 23, got 24"),
        ("FREQ=DAILY;BYMONTHDAY=-32", "BYMONTHDAY must be 1 to 31 or -1 to -31, got -32"),
        ("FREQ=WEEKLY;BYMONTHDAY=1", "BYMONTHDAY has no meaning with FREQ=WEEKLY"),
        ("FREQ=DAILY;BYYEARDAY=1", "BYYEARDAY has no meaning with FREQ=DAILY"),
        ("FREQ=MONTHLY;BYWEEKNO=1", "BYWEEKNO has no meaning with FREQ=MONTHLY"),
        ("FREQ=DAILY;BYDAY=XX", "days must be MO, .*, got XX"),
        ("FREQ=MONTHLY;BYDAY=0MO", "days must be MO, .*, got 0MO"),
        ("FREQ=MONTHLY;BYDAY=54MO", "days must be MO, .*, got 54MO"),
        ("FREQ=MONTHLY;BYDAY=53TH", "BYDAY: a month has each day of the week at most 5 times"),
        ("FREQ=MONTHLY;BYDAY=-6MO", "BYDAY: a month has each day of the week at most 5 times"),
        ("FREQ=YEARLY;BYMONTH=12;BYDAY=20SA", "BYDAY: a month has each day of the week at most 5 times"),
        ("FREQ=DAILY;UNTIL=20261332T000000Z", "UNTIL=20261332T000000Z is not a valid time"),
        ("FREQ=WEEKLY;WKST=1", "days must be MO, .*, got 1"),
        ("FREQ=DAILY;BYDAY=1MO", "numbered days such as 1MO need FREQ=MONTHLY"),
        ("FREQ=YEARLY;BYWEEKNO=1;BYDAY=1MO", "numbered days such as 1MO need FREQ=MONTHLY"),
        ("FREQ=MONTHLY;BYDAY=1MO,TU", "make two windows of it"),
        ("FREQ=MONTHLY;BYSETPOS=1", "there is none"),
        ("FREQ=HOURLY;BYMINUTE=1,2;BYSETPOS=1", "BYSETPOS has no meaning with FREQ=HOURLY"),
        ("FREQ=HOURLY;INTERVAL=7", "the INTERVAL of hours must divide 24"),
        ("FREQ=MINUTELY;INTERVAL=7", "the INTERVAL of minutes must divide 60"),
        ("FREQ=DAILY;BYHOUR=" + ",".join(["1"] * MAX_RULE_LENGTH), "at most 512 characters"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(rrule: str, problem: str) -> None:
    with pytest.raises(InvalidConfiguration, match=problem):
        ask(berlin(2026, 12, 1), rrule=rrule)


def test_numbered_days_may_be_those_of_a_year() -> None:
    assert ask(berlin(2027, 5, 15), rrule="FREQ=YEARLY;BYDAY=20SA").rrule is not None
    assert starts(ask(berlin(2026, 12, 31), rrule="FREQ=YEARLY;BYDAY=53TH"), 2)[1][:10] == "2032-12-30"


@pytest.mark.parametrize(
    ("rrule", "lasts", "problem"),
    [
        ("FREQ=MINUTELY", 2 * MINUTE, "overlaps itself, it recurs after 0:01:00"),
        ("FREQ=DAILY", 2 * DAY, "overlaps itself"),
        ("FREQ=WEEKLY;BYDAY=SA,SU;BYSETPOS=1,2", 2 * DAY, "overlaps itself, it recurs after 1 day"),
        ("FREQ=DAILY;BYHOUR=0,5,7;BYSETPOS=1,-1", 8 * HOUR, "overlaps itself, it recurs after 7:00:00"),
        ("FREQ=MONTHLY;BYDAY=53TH", HOUR, "a month has each day of the week at most 5 times"),
        ("FREQ=DAILY;BYMONTH=2;BYMONTHDAY=31", HOUR, "never occurs"),
        ("FREQ=DAILY;BYHOUR=5", HOUR, "begin with the first occurrence"),
    ],
)
def test_a_document_has_no_window_that_may_not_be_planned(rrule: str, lasts: timedelta, problem: str) -> None:
    document = {"id": "w", "start": NOW, "end": NOW + lasts, "rrule": rrule, "zone": "UTC"}
    for _ in range(2):  # the second time from what is cached
        with pytest.raises(ValidationError, match=problem):
            Window.model_validate(document)


@pytest.mark.parametrize("frequency", ["YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY"])
def test_a_rule_that_never_occurs_is_refused_before_long(frequency: str) -> None:
    """It takes less than a millisecond."""
    days = "BYDAY=MO;BYMONTH=2;BYSETPOS=300" if frequency == "WEEKLY" else "BYMONTHDAY=30,31;BYMONTH=2"
    began = time.thread_time()
    with pytest.raises(InvalidConfiguration, match="never occurs"):
        ask(berlin(2026, 12, 1), rrule=f"FREQ={frequency};{days}")
    assert cost_of_seconds(time.thread_time() - began) < 1_000


def test_a_naive_time_is_refused_by_name() -> None:
    check_aware(NOW, "until")
    with pytest.raises(ValueError, match="until 2026-11-21 00:00:00 has no time zone"):
        check_aware(NOW.replace(tzinfo=None), "until")
    once = [window(NOW, NOW + HOUR)]
    with pytest.raises(TypeError):  # by the comparison that every request pays for
        current(once, NOW.replace(tzinfo=None))
    with pytest.raises(ValueError, match="now 2026-11-21 00:00:00 has no time zone"):
        upcoming(once, NOW.replace(tzinfo=None), 1)


# How windows recur, by example


def test_the_local_time_stays_when_clocks_change() -> None:
    daily = recurring(berlin(2026, 3, 28, 2), HOUR, "FREQ=DAILY")
    assert starts(daily, 3) == ["2026-03-28 02:00+01:00", "2026-03-29 03:00+02:00", "2026-03-30 02:00+02:00"]
    assert starts(daily, 2, berlin(2026, 10, 25)) == ["2026-10-25 02:00+02:00", "2026-10-26 02:00+01:00"]


def test_a_start_that_clocks_skip_is_later_by_the_gap() -> None:
    daily = recurring(berlin(2026, 3, 28, 2, 30), HOUR, "FREQ=DAILY")
    assert starts(daily, 3)[1] == "2026-03-29 03:30+02:00"


def test_a_start_that_was_moved_is_found_by_whoever_asks_later() -> None:
    """At 03:45 it has begun 15 minutes ago, although it reads 02:30."""
    daily = recurring(berlin(2026, 1, 1, 2, 30), HOUR / 2, "FREQ=DAILY")
    assert current([daily], berlin(2026, 3, 29, 3, 29)) is None
    assert current([daily], berlin(2026, 3, 29, 3, 45)) is not None
    hourly = recurring(berlin(2026, 1, 1), HOUR / 2, "FREQ=HOURLY")
    assert current([hourly], berlin(2026, 3, 29, 11, 29)) is not None
    assert current([hourly], berlin(2026, 3, 29, 11, 45)) is None


def test_a_start_that_comes_twice_is_the_first() -> None:
    daily = recurring(berlin(2026, 10, 24, 2, 30), HOUR, "FREQ=DAILY")
    assert starts(daily, 2)[1] == "2026-10-25 02:30+02:00"
    assert current([daily], berlin(2026, 10, 25, 2, 30, fold=1)) is None


def test_each_occurrence_lasts_equally_long_in_elapsed_time() -> None:
    """RFC 5545, section 3.8.5.3: with DTEND the exact duration recurs, not the nominal one."""
    daily = recurring(berlin(2026, 3, 27, 1), 4 * HOUR, "FREQ=DAILY")
    ends = [occurrence.end.astimezone(BERLIN).hour for occurrence in upcoming([daily], daily.start, 2)]
    assert ends == [5, 6]


def test_skipped_hours_are_not_counted_twice_and_order_is_kept() -> None:
    hourly = recurring(berlin(2026, 3, 29), timedelta(minutes=10), "FREQ=HOURLY;BYMINUTE=0,30")
    assert [text[11:] for text in starts(hourly, 6)] == [
        "00:00+01:00",
        "00:30+01:00",
        "01:00+01:00",
        "01:30+01:00",
        "03:00+02:00",
        "03:30+02:00",
    ]


def test_a_skipped_start_may_come_after_later_ones() -> None:
    """02:45 is moved to 03:45, behind 03:15."""
    uneven = recurring(
        berlin(2026, 3, 28, 2, 45), timedelta(minutes=10), "FREQ=DAILY;BYHOUR=2,3;BYMINUTE=15,45;COUNT=6"
    )
    assert starts(uneven, 9) == [
        "2026-03-28 02:45+01:00",
        "2026-03-28 03:15+01:00",
        "2026-03-28 03:45+01:00",
        "2026-03-29 03:15+02:00",
        "2026-03-29 03:45+02:00",
    ]


def test_a_skipped_day_is_the_next_one() -> None:
    """Samoa had no 30 December 2011: its windows fall on those of the 31st."""
    daily = recurring(datetime(2011, 12, 29, 10, tzinfo=ZoneInfo("Pacific/Apia")), HOUR, "FREQ=DAILY")
    assert starts(daily, 3) == ["2011-12-29 10:00-10:00", "2011-12-31 10:00+14:00", "2012-01-01 10:00+14:00"]


def test_a_zone_that_gave_up_daylight_saving_time() -> None:
    yearly = recurring(datetime(2015, 7, 1, 9, tzinfo=ZoneInfo("Europe/Istanbul")), HOUR, "FREQ=MONTHLY;BYMONTH=1,7")
    assert [text[-6:] for text in starts(yearly, 5)] == ["+03:00", "+02:00", "+03:00", "+03:00", "+03:00"]


def test_the_29th_of_february_recurs_in_leap_years() -> None:
    yearly = recurring(berlin(2024, 2, 29, 23), 2 * HOUR, "FREQ=YEARLY")
    assert [text[:10] for text in starts(yearly, 2)] == ["2024-02-29", "2028-02-29"]
    assert [text[:10] for text in starts(yearly, 2, berlin(2096, 1, 1))] == ["2096-02-29", "2104-02-29"]


def test_a_window_goes_on_across_new_year() -> None:
    yearly = recurring(berlin(2020, 12, 31, 22), 4 * HOUR, "FREQ=YEARLY")
    for moment, blocked in [
        (berlin(2026, 12, 31, 21, 59), False),
        (berlin(2026, 12, 31, 22), True),
        (berlin(2027, 1, 1, 1, 59), True),
        (berlin(2027, 1, 1, 2), False),
    ]:
        assert (current([yearly], moment) is not None) is blocked


@pytest.mark.parametrize(
    ("start", "rrule", "days"),
    [
        (berlin(2026, 1, 31), "FREQ=MONTHLY", ["2026-01-31", "2026-03-31", "2026-05-31"]),
        (berlin(2026, 1, 31), "FREQ=MONTHLY;BYMONTHDAY=-1", ["2026-01-31", "2026-02-28", "2026-03-31"]),
        (berlin(2026, 1, 13), "FREQ=MONTHLY;BYDAY=2TU", ["2026-01-13", "2026-02-10", "2026-03-10"]),
        (
            berlin(2026, 1, 30),
            "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1",
            ["2026-01-30", "2026-02-27", "2026-03-31"],
        ),
        (berlin(2026, 1, 4), "FREQ=WEEKLY;INTERVAL=2;WKST=SU", ["2026-01-04", "2026-01-18", "2026-02-01"]),
        (berlin(2026, 1, 4), "FREQ=WEEKLY;INTERVAL=2;BYDAY=SU,MO", ["2026-01-04", "2026-01-12", "2026-01-18"]),
        (berlin(2026, 1, 4), "FREQ=WEEKLY;INTERVAL=2;BYDAY=SU,MO;WKST=SU", ["2026-01-04", "2026-01-05", "2026-01-18"]),
        (berlin(2026, 1, 1), "FREQ=YEARLY;BYWEEKNO=1", ["2026-01-01", "2027-01-07", "2028-01-06"]),
        (berlin(2026, 1, 1), "FREQ=YEARLY;BYYEARDAY=1,-1", ["2026-01-01", "2026-12-31", "2027-01-01"]),
        (berlin(2026, 4, 10), "FREQ=YEARLY;BYMONTH=4,5", ["2026-04-10", "2026-05-10", "2027-04-10"]),
        (berlin(2026, 3, 13), "FREQ=DAILY;BYDAY=FR;BYMONTHDAY=13", ["2026-03-13", "2026-11-13", "2027-08-13"]),
    ],
)
def test_a_rule_names_these_days(start: datetime, rrule: str, days: list[str]) -> None:
    assert [text[:10] for text in starts(ask(start, rrule=rrule), 3)] == days


def test_minutes_recur_every_hour() -> None:
    quarter = recurring(berlin(2026, 1, 1, 0, 7), MINUTE, "FREQ=MINUTELY;INTERVAL=30;BYHOUR=0,5")
    assert [text[11:16] for text in starts(quarter, 4)] == ["00:07", "00:37", "05:07", "05:37"]


def test_seconds_and_fractions_of_a_start_recur() -> None:
    start = berlin(2026, 1, 1, 3, 4, 5, 678)
    daily = recurring(start, HOUR, "FREQ=DAILY")
    assert upcoming([daily], NOW, 1)[0].start == berlin(2026, 11, 21, 3, 4, 5, 678)
    assert current([daily], start) is not None


def test_a_rule_is_not_followed_for_ever() -> None:
    """In the year 9100 nothing recurs any more, and nothing fails."""
    daily = recurring(berlin(2026, 1, 1), HOUR, "FREQ=DAILY")
    table = Timetable([daily])
    for year in (9098, 9099, 9100, 9999):
        table.at(datetime(year, 12, 30, tzinfo=UTC))
    assert current([daily], FOREVER) is None
    assert current([daily], datetime.min.replace(tzinfo=UTC)) is None
    assert next_change(Timetable([daily]), datetime.min.replace(tzinfo=UTC)) == daily.start


def test_a_count_is_refused_whose_last_occurrence_is_out_of_sight() -> None:
    """Or each worker would have to go through centuries, to know when a window has ended."""
    last = berlin(2027, 1, 4) + 999 * 7 * DAY
    planned = ask(berlin(2027, 1, 4), rrule="FREQ=WEEKLY;COUNT=1000")
    assert [is_over(planned, last + since) for since in (0 * HOUR, HOUR)] == [False, True]
    for rest in ("WEEKLY;INTERVAL=50", "WEEKLY;BYMONTH=1", "MONTHLY;BYMONTHDAY=4,5;BYSETPOS=1;INTERVAL=3"):
        with pytest.raises(InvalidConfiguration, match="COUNT=1000 reaches beyond the 41 years in sight: give UNTIL"):
            ask(berlin(2027, 1, 4), rrule=f"FREQ={rest};COUNT=1000")


# How windows recur, by brute force


@unhurried
@given(view=views(), shuffle=st.randoms(use_true_random=False))
def test_what_counts_is_what_brute_force_finds(
    view: tuple[Window, Callable[[datetime], bool], datetime, int], shuffle: random.Random
) -> None:
    """Over zones, gaps, overlaps and leap days, for clocks that run and for clocks that jump."""
    planned, fits, since, minutes = view
    assert planned.zone is not None
    early = 25 * 60
    begins = begins_by_brute_force(ZoneInfo(planned.zone), fits, since - early * MINUTE, early + minutes)
    begins = {begin for begin in begins if begin >= planned.start}
    blocked = {begin + minute * MINUTE for begin in begins for minute in range(planned.duration // MINUTE)}
    table = Timetable([planned])
    moments = [since + minute * MINUTE for minute in range(minutes)]
    for moment in moments:
        assert (table.at(moment).occurrence is not None) is (moment in blocked), moment
    for moment in shuffle.sample(moments, 60):
        for tick in (-TICK, TICK):
            expected = moment in blocked if tick > 0 * TICK else moment - MINUTE in blocked
            if moment > since:
                local = (moment + tick).astimezone(ZoneInfo(planned.zone))
                assert (table.at(local).occurrence is not None) is expected, local
                assert (current([planned], local) is not None) is expected, local
    found = [occurrence.start for occurrence in upcoming([planned], since, 500)]
    end = since + minutes * MINUTE
    assert [begin for begin in found if begin < end] == sorted(begin for begin in begins if since < begin < end)[:500]


# How windows recur, by dateutil from the very first occurrence on


@st.composite
def rules(draw: st.DrawFn) -> str:
    """Return a rule that dateutil reads as RFC 5545 does."""
    frequency = draw(st.sampled_from(["YEARLY", "MONTHLY", "WEEKLY", "DAILY"]))
    parts = [f"FREQ={frequency}", f"INTERVAL={draw(st.integers(1, 13))}"]
    days = st.sampled_from(["MO", "TU", "WE", "TH", "FR", "SA", "SU"])
    numbered = frequency in {"YEARLY", "MONTHLY"} and draw(st.booleans())
    if draw(st.booleans()):
        chosen = draw(st.lists(days, min_size=1, max_size=3, unique=True))
        parts.append(
            "BYDAY="
            + ",".join((draw(st.sampled_from(["1", "-1", "2", "5", "-5"])) if numbered else "") + d for d in chosen)
        )
    if draw(st.booleans()):
        parts.append(f"WKST={draw(days)}")
    options = {"BYMONTH": (1, 12), "BYHOUR": (0, 23), "BYMINUTE": (0, 59)}
    if frequency != "WEEKLY":
        options["BYMONTHDAY"] = (-31, 31)
    if frequency == "YEARLY":
        options["BYYEARDAY"] = (-366, 366)
        if not numbered and any(part.startswith("BYDAY") for part in parts):  # else we take the weekday of the start
            options["BYWEEKNO"] = (-51, 53)  # for dateutil, the first week is never the 53rd from the end
    for name, (low, high) in options.items():
        if draw(st.integers(0, 3)) == 0:
            numbers = draw(
                st.lists(
                    (st.integers(low, high) if low >= 0 else st.integers(low, -1) | st.integers(1, high)),
                    min_size=1,
                    max_size=4,
                )
            )
            parts.append(f"{name}=" + ",".join(map(str, numbers)))
    days_chosen = any(part.startswith("BYDAY") for part in parts)
    if days_chosen and frequency != "WEEKLY" and draw(st.booleans()):  # it cuts the week in which a rule begins
        parts.append(f"BYSETPOS={draw(st.sampled_from(['1', '-1', '2', '1,3,-2']))}")
    return ";".join(parts)


@unhurried
@given(
    rule=rules(),
    minutes=st.integers(0, 60 * 366 * 24 * 60),
    later=st.integers(0, 10 * 366 * 24 * 60),
    count=st.none() | st.integers(1, 50),
)
@example("FREQ=YEARLY;BYWEEKNO=1,53,-1;BYDAY=MO,TH,SU", 0, 12 * 366 * 24 * 60, None)
@example("FREQ=YEARLY;BYWEEKNO=1,52,53;BYDAY=MO,TH,SU;WKST=SU", 0, 5 * 366 * 24 * 60, None)
@example("FREQ=MONTHLY;BYDAY=MO,FR;BYSETPOS=1,-1", 20 * 24 * 60, 75 * 24 * 60, None)
@example("FREQ=YEARLY", 2 * 365 * 24 * 60 + 59 * 24 * 60, 130 * 366 * 24 * 60, None)
@example("FREQ=WEEKLY;INTERVAL=13;BYMONTH=1;BYHOUR=0", 60, 4_733_220, 1)
@example("FREQ=YEARLY;BYDAY=MO,TH;BYSETPOS=2,-1", 0, 366 * 24 * 60, 9)
def test_a_rule_followed_from_the_middle_gives_what_it_gives_from_the_start(
    rule: str, minutes: int, later: int, count: int | None
) -> None:
    """The calendar repeats after 400 years, so dateutil too is asked near its end, where it gives up sooner."""
    start = datetime(1970, 1, 1) + minutes * MINUTE  # noqa: DTZ001 - local times
    if count is not None:
        rule += f";COUNT={count}"
    try:
        recurrence = Recurrence(Rule.parse(rule), start)
    except ValueError as error:
        assert "reaches beyond the 41 years in sight" in str(error)  # noqa: PT017 - which is refused
        return
    era = 19 * 146_097 * DAY
    since = start + later * MINUTE
    expected: list[datetime] = []
    try:
        expected.extend(wall - era for wall in islice(rrulestr(rule, dtstart=start + era), 10_000))
    except ValueError as error:
        assert "year 10000 is out of range" in str(error)  # noqa: PT017 - dateutil, in the last week of 9999
    expected_later = [wall for wall in expected if wall >= since]
    found = list(islice(recurrence.occurs_from(since), 20))
    in_sight = [wall for wall in expected_later if wall.year < since.year + 41]
    if count is not None and expected and expected[0].year >= start.year + 41:
        in_sight = []  # a window that begins so late is refused
    assert found[: len(expected_later)] == expected_later[: len(found)]
    assert len(found) >= len(in_sight[:20])


# What it costs

HEAVY = {
    "back to back": ("FREQ=MINUTELY", MINUTE),
    "every minute, each other day": ("FREQ=MINUTELY;BYYEARDAY=" + ",".join(map(str, range(1, 100, 2))), MINUTE / 2),
    "rare": ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;BYDAY=SU", 366 * DAY),
    "far": ("FREQ=MONTHLY;INTERVAL=366;BYDAY=MO;BYSETPOS=-1", 366 * DAY),
    "counted": ("FREQ=WEEKLY;COUNT=1000", HOUR),
}


@pytest.mark.parametrize("kind", HEAVY)
def test_a_document_of_a_hundred_heavy_windows_is_looked_at_in_no_time(kind: str) -> None:
    """All that the admin, the follower and a blocked request ask: 1 to 4 times what the yardstick takes."""
    rrule, lasts = HEAVY[kind]
    first = next(Recurrence(Rule.parse(rrule), datetime(2020, 2, 29)).occurs_from(datetime(2020, 1, 1)))  # noqa: DTZ001
    windows = [
        recurring((first + index * timedelta(seconds=0.5)).replace(tzinfo=BERLIN), lasts, rrule, f"w{index}")
        for index in range(100)
    ]
    asked: list[Callable[[MaintenanceState], object]] = [
        lambda state: state.prepare(NOW),
        lambda state: (state.mode_at(NOW), state.explanation_at(NOW)),
        lambda state: (state.next_change_at(NOW), state.upcoming(NOW, 20), state.windows_left(NOW)),
    ]
    costs = [inf] * len(asked)
    for _ in range(5):
        state = MaintenanceState(windows={one.id: one for one in windows}, mode=MaintenanceMode.ON, until=NOW + DAY)
        for index, ask_for in enumerate(asked):
            costs[index] = min(costs[index], cost_of(partial(ask_for, state), rounds=1))
    assert max(costs) < 10


@pytest.mark.parametrize("step", [timedelta(milliseconds=1), timedelta(seconds=10)])
def test_a_hundred_windows_take_as_long_as_one(step: timedelta) -> None:
    """A fraction of a microsecond: where one begins or ends is looked for only there."""
    windows = hundred_windows()

    def ask_often(table: Timetable, moments: Iterator[datetime]) -> None:
        for moment in islice(moments, 100):
            table.at(moment)

    many, one = (
        partial(ask_often, Timetable(asked), (NOW + number * step for number in count()))
        for asked in (windows, windows[:1])
    )
    assert times_as_long(many, one, rounds=100) < 5


def test_a_rule_that_began_long_ago_is_not_followed_from_there() -> None:
    """The minutes of 900 years would take a quarter of an hour; it takes some milliseconds."""
    often = recurring(berlin(1970, 1, 1), MINUTE, "FREQ=MINUTELY;INTERVAL=2")
    began = time.thread_time()
    assert current([often], datetime(2870, 1, 1, 0, 30, tzinfo=BERLIN)) is not None
    assert cost_of_seconds(time.thread_time() - began) < 1_000


def test_a_timetable_that_was_asked_for_anything_answers_as_a_new_one() -> None:
    """What is kept from earlier questions never shows, not even between threads."""
    windows = [*hundred_windows()[::9], recurring(berlin(2026, 11, 1, 3), HOUR, "FREQ=HOURLY;BYHOUR=3,4,5;COUNT=90")]
    table = Timetable(windows)
    dice = random.Random(4)
    moments = [NOW + dice.uniform(-40, 80) * DAY for _ in range(300)]
    moments += [moment + minute * MINUTE for moment in moments[:60] for minute in range(0, 300, 7)]

    def answer(asked: Timetable, moment: datetime) -> tuple[object, ...]:
        segment = asked.at(moment)
        assert segment.since <= moment
        return segment.occurrence, segment.until, ends_of(asked, moment), next_change(asked, moment)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda moment: answer(table, moment), moments))
    for moment, found in zip(moments[:300], answers, strict=False):
        assert found == answer(Timetable(windows), moment)
    for moment, found in zip(moments[300::20], answers[300::20], strict=True):
        assert found == answer(Timetable(windows), moment)
