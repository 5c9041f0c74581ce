"""Windows for tests: shorthands, a hundred of them, and any that recur, with what brute force says of those."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from fastapi_maintenance.model.windows.window import Window

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 21, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)
FOREVER = datetime.max.replace(tzinfo=UTC)


def berlin(*parts: int, fold: int = 0) -> datetime:
    return datetime(*parts, tzinfo=BERLIN, fold=fold)  # type: ignore[arg-type,misc]


def window(start: datetime, end: datetime, name: str = "w", **rest: object) -> Window:
    return Window.model_validate({"id": name, "start": start, "end": end, **rest})


def recurring(start: datetime, duration: timedelta, rrule: str, name: str = "w", **rest: object) -> Window:
    """A window of a duration in elapsed time, in the zone of its start."""
    end = start.astimezone(UTC) + duration
    return window(start, end, name, rrule=rrule, zone=str(start.tzinfo), **rest)


ZONES = (
    "UTC",
    "Africa/Casablanca",  # steps out of its summer time during Ramadan
    "America/New_York",
    "America/Sao_Paulo",  # changed at midnight, and no more since 2019
    "America/St_Johns",
    "Asia/Kathmandu",
    "Asia/Tehran",
    "Australia/Lord_Howe",  # changes by half an hour
    "Europe/Berlin",
    "Europe/Dublin",  # its winter time is the exception
    "Europe/Istanbul",
    "Pacific/Apia",  # had no 30 December 2011
)

SIMPLE_RULES = (
    "DAILY",
    "WEEKDAYS",
    "FORTNIGHTLY",
    "MONTHDAY",
    "LAST_DAY",
    "NTH_WEEKDAY",
    "YEARLY",
    "6-HOURLY",
    "MINUTES",
)


def spelled_out(kind: str, start: datetime, interval: int) -> tuple[str, Callable[[datetime], bool]]:
    """Return a rule, and whether a local time fits it, said without any library."""
    name = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")[start.weekday()]

    def same_time(wall: datetime) -> bool:
        return wall.time() == start.time()

    def weeks(wall: datetime) -> int:
        monday = start.date() - timedelta(days=start.weekday())
        return (wall.date() - monday).days // 7

    def months(wall: datetime) -> int:
        return (wall.year - start.year) * 12 + wall.month - start.month

    match kind:
        case "DAILY":
            return (
                f"FREQ=DAILY;INTERVAL={interval}",
                lambda wall: same_time(wall) and (wall.date() - start.date()).days % interval == 0,
            )
        case "WEEKDAYS":
            return (
                f"FREQ=WEEKLY;BYDAY={name},WE",
                lambda wall: same_time(wall) and wall.weekday() in {start.weekday(), 2},
            )
        case "FORTNIGHTLY":
            return (
                f"FREQ=WEEKLY;INTERVAL={interval}",
                lambda wall: same_time(wall) and wall.weekday() == start.weekday() and weeks(wall) % interval == 0,
            )
        case "MONTHDAY":
            return (
                f"FREQ=MONTHLY;INTERVAL={interval}",
                lambda wall: same_time(wall) and wall.day == start.day and months(wall) % interval == 0,
            )
        case "LAST_DAY":
            return (
                f"FREQ=MONTHLY;BYMONTHDAY={start.day},-1",
                lambda wall: same_time(wall) and (wall.day == start.day or (wall + DAY).day == 1),
            )
        case "NTH_WEEKDAY":
            nth = (start.day - 1) // 7 + 1
            return (
                f"FREQ=MONTHLY;BYDAY={nth}{name}",
                lambda wall: same_time(wall) and wall.weekday() == start.weekday() and (wall.day - 1) // 7 + 1 == nth,
            )
        case "YEARLY":
            return "FREQ=YEARLY", lambda wall: same_time(wall) and (wall.month, wall.day) == (start.month, start.day)
        case "6-HOURLY":
            return (
                "FREQ=HOURLY;INTERVAL=6",
                lambda wall: wall.minute == start.minute and (wall.hour - start.hour) % 6 == 0,
            )
        case _:
            return "FREQ=MINUTELY;INTERVAL=20;BYHOUR=1,2,3," + str(
                start.hour
            ), lambda wall: (wall.minute - start.minute) % 20 == 0 and wall.hour in {1, 2, 3, start.hour}


def begins_by_brute_force(
    zone: ZoneInfo, fits: Callable[[datetime], bool], since: datetime, minutes: int
) -> set[datetime]:
    """Walk through the minutes and look at the clock on the wall."""
    begins: set[datetime] = set()
    seen: set[datetime] = set()
    before = (since - MINUTE).astimezone(zone).replace(tzinfo=None)
    for minute in range(minutes):
        now = since + minute * MINUTE
        wall = now.astimezone(zone).replace(tzinfo=None)
        skipped = before + MINUTE
        while skipped < wall:  # as late as if clocks had not gone forward
            if fits(skipped):
                begins.add(now + (skipped - before - MINUTE))
            skipped += MINUTE
        if wall not in seen and fits(wall):
            begins.add(now)
        seen.add(wall)
        before = wall
    return begins


def change_near(zone: ZoneInfo, day: datetime) -> datetime:
    """Return a day, if there is one within a year the next on which clocks change."""
    offset = day.astimezone(zone).utcoffset()
    for _ in range(366):
        later = day + DAY
        if later.astimezone(zone).utcoffset() != offset:
            return day
        day = later
    return day


@st.composite
def views(draw: st.DrawFn) -> tuple[Window, Callable[[datetime], bool], datetime, int]:
    """Return a recurring window, what fits its rule, and the beginning and length of days to look at."""
    zone = ZoneInfo(draw(st.sampled_from(ZONES)))
    days = draw(st.integers(0, 60 * 365))
    since = datetime(1975, 1, 1, tzinfo=UTC) + days * DAY
    if draw(st.booleans()):
        since = change_near(zone, since) - draw(st.integers(0, 2)) * DAY
    hour = draw(st.sampled_from([0, 1, 2, 3, 23]) | st.integers(0, 23))
    minute = draw(st.sampled_from([0, 1, 15, 30, 45, 59]))
    kind = draw(st.sampled_from(SIMPLE_RULES))
    interval = draw(st.integers(1, 4))
    local = since.astimezone(zone)
    day = local.replace(hour=hour, minute=minute, fold=0)
    match draw(st.sampled_from(["new", "periods", "old", "leap"])):
        case "new":
            start = day + draw(st.integers(0, 2)) * DAY
        case "periods":
            start = day - draw(st.integers(0, 300)) * interval * (7 if kind == "FORTNIGHTLY" else 1) * DAY
        case "old":
            start = day.replace(year=draw(st.integers(1971, local.year)), day=min(day.day, 28))
        case _:
            start = day.replace(year=1972 + draw(st.integers(0, 3)) * 4, month=2, day=29)
    start = start.astimezone(UTC).astimezone(zone)  # one that exists
    if start.fold:
        start += DAY
    rrule, fits = spelled_out(kind, start.replace(tzinfo=None), interval)
    longest = 20 if kind == "MINUTES" else 300 if kind == "6-HOURLY" else 24 * 60
    duration = draw(st.integers(1, longest)) * MINUTE
    return recurring(start, duration, rrule), fits, since, 3 * 24 * 60


EXAMPLES = 50  # thousands were tried when this was written; the two tests that use it take 0.05 s for each
unhurried = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def hundred_windows() -> list[Window]:
    """Half of them recur, half of them don't; half of them are on, half of them read-only."""
    modes = ("on", "read_only")
    return [
        recurring(berlin(2020, 1, 1, 2, index), HOUR, "FREQ=DAILY", f"r{index}", mode=modes[index % 2])
        for index in range(50)
    ] + [
        window(NOW + index * DAY, NOW + index * DAY + HOUR, f"o{index}", mode=modes[index % 2]) for index in range(50)
    ]
