"""Windows in a switch's state: what counts while they go on, what is told of them, and what ends them."""

from __future__ import annotations

import ast
import asyncio
import copy
import json
import pickle
import random
import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from inspect import isawaitable
from types import FunctionType
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from fastapi_maintenance import (
    CorruptState,
    InvalidConfiguration,
    MaintenanceMode,
    MaintenanceModeMiddleware,
    MaintenanceState,
    UnknownWindow,
    Window,
    cancel_maintenance,
    get_maintenance_mode,
    get_maintenance_state,
    schedule_maintenance,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import MemoryBackend
from fastapi_maintenance.model.change import Change, set_mode
from fastapi_maintenance.model.state import Explanation, Hold
from fastapi_maintenance.model.windows.timetable import Outlook, Step, Timetable
from fastapi_maintenance.stores.files.content import is_plain
from fastapi_maintenance.switches.views.lookup import view_of
from tests.support.asgi import get, request
from tests.support.costs import times_as_long
from tests.support.scripts import ROOT
from tests.support.windows import (
    DAY,
    HOUR,
    MINUTE,
    NOW,
    begins_by_brute_force,
    hundred_windows,
    recurring,
    unhurried,
    views,
)
from tests.support.windows import window as planned

pytestmark = pytest.mark.anyio

ON, OFF, READ_ONLY = MaintenanceMode.ON, MaintenanceMode.OFF, MaintenanceMode.READ_ONLY
STRENGTH = {OFF: 0, READ_ONLY: 1, ON: 2}


def state_with(*windows: Window, **more: Any) -> MaintenanceState:
    return MaintenanceState(epoch="e", version=1, windows={window.id: window for window in windows}, **more)


# What counts


@pytest.mark.parametrize("mode", MaintenanceMode)
@pytest.mark.parametrize("window_mode", ["on", "read_only"])
def test_whichever_blocks_more_counts(mode: MaintenanceMode, window_mode: str) -> None:
    """The stored mode or the window, and the stored mode again afterwards."""
    state = state_with(planned(NOW + HOUR, NOW + 2 * HOUR, mode=window_mode), mode=mode)
    stronger = max(mode, MaintenanceMode(window_mode), key=STRENGTH.__getitem__)
    assert [state.mode_at(NOW + hours * HOUR) for hours in (0, 1, 1.9, 2)] == [mode, stronger, stronger, mode]


def test_what_stands_above_the_stored_mode_stands_above_windows() -> None:
    """The app's option, blocks that open, and blocks that close."""
    state = state_with(planned(NOW, NOW + HOUR, reason="disks"))
    assert state.mode_at(NOW, override=False) is OFF
    assert state.mode_at(NOW, override=True) is ON
    assert state.explanation_at(NOW, override=True) == Explanation()
    opened = state.model_copy(update={"holds": {"h": Hold(kind="off")}})
    assert opened.mode_at(NOW) is OFF
    closed = state_with(planned(NOW, NOW + HOUR, mode="read_only"), holds={"h": Hold(kind="on", reason="migrating")})
    assert closed.mode_at(NOW) is ON
    assert closed.explanation_at(NOW) == Explanation("migrating")


@unhurried
@given(data=st.data(), view=views(), shuffle=st.randoms(use_true_random=False))
def test_what_counts_is_what_brute_force_finds(
    data: st.DataObject, view: tuple[Window, Callable[[datetime], bool], datetime, int], shuffle: random.Random
) -> None:
    """Of a document with all that can close, over zones, gaps, overlaps and leap days, for clocks that jump."""
    window, fits, since, minutes = view
    window = window.model_copy(update={"mode": data.draw(st.sampled_from(["on", "read_only"]))})
    assert window.zone is not None
    begins = begins_by_brute_force(ZoneInfo(window.zone), fits, since - 25 * HOUR, 25 * 60 + minutes)
    blocked = {
        begin + minute * MINUTE
        for begin in begins
        if begin >= window.start
        for minute in range(window.duration // MINUTE)
    }
    later = st.integers(0, minutes - 1).map(lambda minute: since + minute * MINUTE)
    start = data.draw(later)
    once = planned(
        start,
        start + data.draw(st.integers(1, 2000)) * MINUTE,
        "once",
        mode=data.draw(st.sampled_from(["on", "read_only"])),
    )
    until = data.draw(st.none() | later)
    opens_until = data.draw(st.none() | later)
    holds = {} if opens_until is None else {"h": Hold(kind="off", expires_at=opens_until)}
    mode = data.draw(st.sampled_from(MaintenanceMode))
    state = MaintenanceState.from_json(
        state_with(window, once, mode=mode, until=until, holds=holds).to_json(), where="here"
    )

    def closing(moment: datetime) -> int:
        """Return the strength of what closes by the clock."""
        by_mode = STRENGTH[mode] if until is None or moment < until else 0
        by_window = STRENGTH[MaintenanceMode(window.mode)] if moment in blocked else 0
        by_once = STRENGTH[MaintenanceMode(once.mode)] if once.start <= moment < once.end else 0
        return max(by_mode, by_window, by_once)

    moments = [since + minute * MINUTE for minute in range(minutes)]
    closings = [closing(moment) for moment in moments]
    strengths = [
        0 if opens_until is not None and moment < opens_until else closings[index]
        for index, moment in enumerate(moments)
    ]
    for index in shuffle.sample(range(minutes), 40):
        moment = moments[index]
        read = state.without_expired_holds(moment)  # as a reading at that moment says
        assert STRENGTH[read.mode_at(moment)] == strengths[index], moment
        following = next((at for at in range(index, minutes) if strengths[at] != strengths[index]), None)
        if opens_until is not None and moment < opens_until:
            assert read.next_change_at(moment) is None, "code holds it open, nobody knows for how long"
        elif following is not None:
            assert read.next_change_at(moment) == moments[following], moment
        end = next((at for at in range(index, minutes) if closings[at] < closings[index]), None)
        if strengths[index] and end is not None:
            assert read.explanation_at(moment).until == moments[end], moment
        if strengths[index] and until is None and STRENGTH[mode] == closings[index]:
            assert read.explanation_at(moment).until is None


# What is told


def test_what_closes_explains_itself() -> None:
    """A stronger window has its own reason and end, a weaker one none; among equals the operator's reason is told."""
    long_reading = planned(NOW, NOW + 3 * HOUR, "r", mode="read_only", reason="index")
    closing = planned(NOW + HOUR, NOW + 2 * HOUR, "c", reason="disks")
    stored = {"mode": READ_ONLY, "reason": "audit", "retry_after": 77}
    both = state_with(long_reading, closing, **stored)
    assert both.explanation_at(NOW) == Explanation("audit", None, 77)
    assert both.explanation_at(NOW + HOUR) == Explanation("disks", NOW + 2 * HOUR)
    assert both.explanation_at(NOW + 3 * HOUR) == Explanation("audit", None, 77)
    without_reason = state_with(long_reading, mode=READ_ONLY)
    assert without_reason.explanation_at(NOW) == Explanation("index")
    assert state_with(long_reading, mode=ON).explanation_at(NOW) == Explanation()


def test_an_end_is_that_of_all_that_follow_without_a_gap() -> None:
    """A stored mode whose end is known, and windows."""
    first = planned(NOW + HOUR, NOW + 2 * HOUR, "a")
    second = planned(NOW + 2 * HOUR, NOW + 3 * HOUR, "b")
    weaker = planned(NOW + 3 * HOUR, NOW + 9 * HOUR, "c", mode="read_only")
    for until, end in ((0.5, 0.5), (1, 3), (1.5, 3), (2, 3), (3, 3), (4, 4)):
        state = state_with(first, second, weaker, mode=ON, until=NOW + until * HOUR)
        assert state.explanation_at(NOW).until == NOW + end * HOUR
        assert state.explanation_at(NOW + until * HOUR / 2).until == NOW + end * HOUR
    over = state_with(first, mode=ON, reason="x", until=NOW)
    assert over.explanation_at(NOW) == Explanation()
    assert over.explanation_at(NOW + HOUR) == Explanation(None, NOW + 2 * HOUR)
    changed = over.model_copy(update={"until": NOW + HOUR})
    assert changed.explanation_at(NOW).until == NOW + 2 * HOUR
    assert changed.model_copy(update={"mode": READ_ONLY}).explanation_at(NOW).until == NOW + 2 * HOUR
    assert changed.model_copy(update={"windows": {}}).explanation_at(NOW).until == NOW + HOUR


def test_the_next_change_is_known() -> None:
    """Of what is stored and planned; what changes nothing is none, and nobody knows when a hold is given back."""
    window = planned(NOW + 2 * HOUR, NOW + 4 * HOUR)
    assert MaintenanceState(mode=ON).next_change_at(NOW) is None
    assert MaintenanceState(mode=ON, until=NOW + HOUR).next_change_at(NOW) == NOW + HOUR
    assert state_with(window).next_change_at(NOW) == NOW + 2 * HOUR
    assert state_with(window).next_change_at(NOW + 3 * HOUR) == NOW + 4 * HOUR
    assert state_with(window, mode=ON, until=NOW + 3 * HOUR).next_change_at(NOW) == NOW + 4 * HOUR
    held = {"a": Hold(kind="on", expires_at=NOW + HOUR), "b": Hold(kind="on", expires_at=NOW + 3 * HOUR)}
    assert state_with(window, holds=held).next_change_at(NOW) is None, "holds are renewed until they are given back"
    later = NOW + 3 * HOUR
    assert state_with(window, holds=held).without_expired_holds(later).next_change_at(later) == NOW + 4 * HOUR
    assert state_with(window, holds={"a": Hold(kind="off")}).next_change_at(NOW) is None
    assert state_with(recurring(NOW, DAY, "FREQ=DAILY")).next_change_at(NOW) is None, "it never ends"


def test_the_next_times_are_known() -> None:
    """In order, whatever window they are of."""
    daily, once = recurring(NOW, HOUR, "FREQ=DAILY", "d"), planned(NOW + 30 * HOUR, NOW + 31 * HOUR, "o")
    coming = state_with(daily, once).upcoming(NOW, 3)
    assert [(one.window.id, one.start - NOW) for one in coming] == [("d", DAY), ("o", 30 * HOUR), ("d", 2 * DAY)]
    assert MaintenanceState().upcoming(NOW, 3) == []


# The document


def test_what_is_worked_out_is_no_part_of_a_state() -> None:
    """Neither compared nor stored nor shown, nor taken for that of other windows; copies do without."""
    state = state_with(*hundred_windows(), mode=ON, until=NOW + HOUR)
    raw, shown = state.to_json(), repr(state)
    state.prepare(NOW)
    assert state.explanation_at(NOW).until is not None
    assert (state.to_json(), repr(state)) == (raw, shown)
    assert state == MaintenanceState.from_json(raw, where="here")
    for other in (copy.deepcopy(state), pickle.loads(pickle.dumps(state)), state.model_copy(deep=True)):
        assert other == state
        assert other.explanation_at(NOW) == state.explanation_at(NOW)
    later = state.model_copy(update={"windows": {"w": planned(NOW, NOW + 2 * HOUR)}})
    assert later.explanation_at(NOW).until == NOW + 2 * HOUR
    assert state.explanation_at(NOW).until != NOW + 2 * HOUR


def test_what_was_worked_out_is_taken_over_from_a_state_with_the_same_windows() -> None:
    """So that each renewal of a hold, or each poll, does not begin anew."""
    former = state_with(*hundred_windows())
    same = MaintenanceState.from_json(former.to_json(), where="here")
    former.prepare(NOW)
    same.prepare(NOW, former)
    assert same.timetable is former.timetable
    other = state_with(planned(NOW, NOW + HOUR))
    other.prepare(NOW, former)
    assert other.timetable is not former.timetable
    assert other.mode_at(NOW) is ON


def test_a_state_without_windows_works_out_nothing() -> None:
    state = MaintenanceState(mode=ON, until=NOW + HOUR)
    state.prepare(NOW)
    assert (state.mode_at(NOW), state.explanation_at(NOW).until) == (ON, NOW + HOUR)
    assert set(vars(state)) == set(MaintenanceState.model_fields)


def test_windows_are_stored_by_their_ids() -> None:
    """Without what is usual."""
    state = state_with(planned(NOW, NOW + HOUR))
    assert b'"windows":{"w":{"id":"w","start":"2026-11-21T00:00:00Z","end":"2026-11-21T01:00:00Z"}}' in state.to_json()
    assert b"windows" not in MaintenanceState().to_json()
    assert not is_plain(state)


UNREADABLE = {
    "a zone that this host lacks": ({"rrule": "FREQ=DAILY", "zone": "Mars/Base"}, "unknown time zone 'Mars/Base'"),
    "a rule of dateutil's IndexError": ({"rrule": "FREQ=MONTHLY;BYDAY=53TH", "zone": "UTC"}, "at most 5 times"),
    "one that overlaps itself": ({"rrule": "FREQ=MINUTELY", "zone": "UTC"}, "overlaps itself"),
    "another id": ({"id": "other"}, "window 'other' is stored as 'bad'"),
    "another mode": ({"mode": "no_uploads"}, "mode: Input should be 'read_only' or 'on'"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_window_that_cannot_be_read_is_kept_and_the_rest_applies(kind: str) -> None:
    """Also when others change the document, until somebody cancels it."""
    more, problem = UNREADABLE[kind]
    good, bad = planned(NOW, NOW + HOUR, "good"), {"id": "bad", "start": NOW.isoformat(), "unknown": [1e300, {}, []]}
    bad |= {"end": (NOW + HOUR).isoformat(), **more}
    document = json.loads(state_with(good, mode=READ_ONLY).to_json())
    document["windows"]["bad"] = bad
    state = MaintenanceState.from_json(json.dumps(document), where="here")
    assert (state.mode, list(state.windows), list(state.unreadable_windows)) == (READ_ONLY, ["good"], ["bad"])
    assert problem in state.unreadable_windows["bad"].problem
    assert state.mode_at(NOW) is ON
    assert not is_plain(state)
    assert json.loads(state.to_json()) == document
    off = set_mode(OFF, now=NOW).applied_to(state, NOW)
    assert json.loads(off.to_json())["windows"]["bad"] == bad
    assert state == MaintenanceState.from_json(state.to_json(), where="here") != state_with(good, mode=READ_ONLY)
    with pytest.raises(UnknownWindow, match="there is 'bad', 'good'"):
        Change(drop_windows=frozenset({"x"}), required_windows=frozenset({"x"})).applied_to(state, NOW)
    cancelled = Change(drop_windows=frozenset({"bad"}), required_windows=frozenset({"bad"})).applied_to(state, NOW)
    assert (cancelled.unreadable_windows, list(cancelled.windows)) == ({}, ["good"])


def test_more_windows_than_may_be_planned_are_kept_and_do_not_apply() -> None:
    document = json.loads(state_with(*(planned(NOW, NOW + HOUR, f"w{index}") for index in range(100))).to_json())
    document["windows"]["more"] = {**document["windows"]["w0"], "id": "more"}
    state = MaintenanceState.from_json(json.dumps(document), where="here")
    assert len(state.windows) == 100
    assert state.unreadable_windows["more"].problem == "there are more than 100 windows"
    assert json.loads(state.to_json()) == document


def test_what_else_is_wrong_with_a_document_is_an_error_of_it() -> None:
    bad = {"id": "bad"}
    documents: list[object] = [{"schema": 1, "windows": {"bad": bad}, "mode": 5}, {"schema": 1, "windows": 5}, []]
    for document in documents:
        with pytest.raises(CorruptState, match="here has no readable"):
            MaintenanceState.from_json(json.dumps(document), where="here")


# Ending early


def test_off_ends_what_goes_on_and_nothing_else() -> None:
    """A recurring window comes again, one that is to come is left alone."""
    daily, once = recurring(NOW, HOUR, "FREQ=DAILY", "d"), planned(NOW - HOUR, NOW + HOUR, "o")
    later = planned(NOW + HOUR / 2, NOW + HOUR, "l")
    state = state_with(daily, once, later, mode=ON)
    now = NOW + MINUTE
    after = set_mode(OFF, now=now).applied_to(state, NOW + 20 * DAY)  # a store's clock has no say in this
    assert [after.mode_at(one) for one in (now, NOW + HOUR / 2, NOW + HOUR, NOW + DAY)] == [OFF, ON, OFF, ON]
    assert (after.windows["d"].ended, after.windows["o"].ended) == (NOW, NOW - HOUR)
    assert after.windows["l"] is later
    again = set_mode(OFF, now=now).applied_to(after, now)
    assert again.windows == after.windows
    for mode in (ON, READ_ONLY):
        assert set_mode(mode, now=now).applied_to(state, now).windows is state.windows


def test_an_end_never_moves_back() -> None:
    """Whoever comes with an earlier one was late."""
    state = state_with(recurring(NOW, HOUR, "FREQ=DAILY"))
    for now, expected in ((NOW + DAY, NOW + DAY), (NOW, NOW + DAY), (NOW + 2 * DAY, NOW + 2 * DAY)):
        state = set_mode(OFF, now=now).applied_to(state, NOW)
        assert state.windows["w"].ended == expected


# Planning and cancelling


async def test_a_maintenance_is_planned_and_cancelled() -> None:
    """The window that comes back is the one that is stored, and its id cancels it."""
    backend, now = MemoryBackend(), datetime.now(UTC)
    window = await schedule_maintenance(now - HOUR, now + HOUR, backend, mode="read_only", reason="disks", by="Ada")
    other = await schedule_maintenance(now + HOUR, now + 2 * HOUR, backend)
    state = await get_maintenance_state(backend)
    assert state.windows == {window.id: window, other.id: other}
    assert (window.mode, window.reason, other.mode, state.updated_by) == ("read_only", "disks", "on", None)
    assert await get_maintenance_mode(backend) is True
    assert await backend.get_value() is True
    with pytest.raises(UnknownWindow, match="no window 'x', nothing was changed; there is") as error:
        await cancel_maintenance("x", backend)
    assert error.value.known == tuple(sorted([window.id, other.id]))
    await cancel_maintenance(window.id, backend, by="Ada")
    assert await get_maintenance_mode(backend) is False
    assert (await get_maintenance_state(backend)).updated_by == "Ada"
    await cancel_maintenance(other.id, backend)
    with pytest.raises(UnknownWindow, match="there is none"):
        await cancel_maintenance(other.id, backend)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": datetime(2100, 1, 1)}, "start 2100-01-01 00:00:00 has no time zone"),  # noqa: DTZ001 - naive on purpose
        ({"end": "tomorrow"}, "end must be an aware datetime, got 'tomorrow'"),
        ({"end": NOW}, "is not after the start"),
        ({"mode": "off"}, "mode 'off'"),
        ({"mode": "maybe"}, "maintenance mode must be .*, got 'maybe'"),
        ({"reason": "\ud800"}, "reason must be a string that UTF-8"),
        ({"rrule": "FREQ=SOMETIMES"}, "FREQ"),
        ({"rrule": 7}, "rrule 7"),
        ({"rrule": "FREQ=DAILY", "zone": "Mars/Base"}, "unknown time zone 'Mars/Base'"),
        ({"reason": "x" * 2001}, "has 2001 characters, it must have at most 2000"),
    ],
)
async def test_what_can_not_be_planned_is_refused(options: dict[str, Any], message: str) -> None:
    """With the way out; nothing is changed."""
    backend, start = MemoryBackend(), datetime(2100, 1, 1, tzinfo=UTC)
    with pytest.raises(InvalidConfiguration, match=message):
        await schedule_maintenance(**{"start": start, "end": start + HOUR, "backend": backend, **options})
    assert backend.peek() == MaintenanceState()


async def test_windows_that_are_long_over_are_forgotten_by_the_next_plan() -> None:
    """After a day, so that none is forgotten while it goes on by another host's clock."""
    backend, now = MemoryBackend(), datetime.now(UTC)
    windows = [
        planned(now - 3 * DAY, now - 2 * DAY, "long over"),
        planned(now - 3 * DAY, now - HOUR, "just over"),
        recurring((now - 9 * DAY).replace(microsecond=0), HOUR, "FREQ=DAILY;COUNT=2", "last one was long ago"),
        recurring((now - 9 * DAY).replace(microsecond=0), HOUR, "FREQ=DAILY", "goes on"),
    ]

    async def put() -> None:
        await view_of(backend).apply(Change(put_windows={window.id: window for window in windows}))

    await put()
    new = await schedule_maintenance(now + HOUR, now + 2 * HOUR, backend)
    assert set(backend.peek().windows) == {"just over", "goes on", new.id}
    await put()
    await cancel_maintenance(new.id, backend)
    assert set(backend.peek().windows) == {"just over", "goes on"}


async def test_a_plan_starts_no_timer() -> None:
    """Neither task nor thread nor callback waits for a start or an end: the clock is asked when a request comes."""
    backend, now = MemoryBackend(), datetime.now(UTC)
    await schedule_maintenance(now + DAY, now + DAY + HOUR, backend)  # has a thread made, which stays
    loop: Any = asyncio.get_running_loop()
    before = (asyncio.all_tasks(), threading.enumerate(), len(loop._scheduled))
    start = datetime.now(UTC) + timedelta(seconds=1)
    await schedule_maintenance(start, start + HOUR, backend)
    assert (asyncio.all_tasks(), threading.enumerate(), len(loop._scheduled)) == before
    assert await get_maintenance_mode(backend) is (datetime.now(UTC) >= start)
    time.sleep(1)  # noqa: ASYNC251 - nothing can run meanwhile
    assert await get_maintenance_mode(backend) is True


# What clients see


def guarded(backend: MemoryBackend) -> FastAPI:
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=backend)

    @app.api_route("/", methods=["GET", "POST"])
    async def endpoint() -> None: ...

    return app


async def test_clients_are_told_the_end_of_a_window() -> None:
    """As the end of any maintenance; one that only reads passes a read-only window."""
    backend, now = MemoryBackend(), datetime.now(UTC)
    app = guarded(backend)
    assert (await get(app)).status_code == 200
    window = await schedule_maintenance(now - HOUR, now + HOUR, backend, reason="disks")
    answer = await get(app)
    assert answer.status_code == 503
    assert 3500 < int(answer.headers["retry-after"]) <= 3600
    assert answer.json()["reason"] == "disks"
    assert datetime.fromisoformat(answer.json()["until"]) - window.end < timedelta(seconds=1)
    await cancel_maintenance(window.id, backend)
    await schedule_maintenance(now - HOUR, now + HOUR, backend, mode="read_only")
    assert (await get(app)).status_code == 200
    assert (await request(app, "POST", "/")).status_code == 503
    await set_maintenance_mode(False, backend)
    assert (await request(app, "POST", "/")).status_code == 200


# What it costs


def _often(ask: Callable[[datetime], object]) -> Callable[[], None]:
    def ask_often() -> None:
        for number in range(200):
            ask(NOW + timedelta(milliseconds=number))

    return ask_often


@pytest.mark.parametrize("stored", [{}, {"mode": READ_ONLY, "until": NOW + 90 * DAY}], ids=["off", "read_only"])
def test_a_hundred_windows_take_as_long_as_one(stored: dict[str, Any]) -> None:
    """Less than a microsecond; if each were asked, they would take a hundred times as long."""
    windows = hundred_windows()
    state, with_one = state_with(*windows, **stored), state_with(windows[0], **stored)
    for each in state, with_one:
        each.prepare(NOW)
    assert times_as_long(_often(state.mode_at), _often(with_one.mode_at), rounds=40) < 5
    assert times_as_long(_often(state.explanation_at), _often(with_one.explanation_at), rounds=40) < 10


# The docs


async def test_code_in_the_docs_runs() -> None:
    """Every Python block of the page, one after the other."""
    page = (ROOT / "docs" / "windows.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert blocks
    names: dict[str, Any] = {}
    for block in blocks:
        code = compile(block, "docs/windows.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        running = FunctionType(code, names)()
        if isawaitable(running):  # only where the block itself awaits
            await running
    state: MaintenanceState = names["state"]
    assert [window.rrule for window in state.windows.values()] == ["FREQ=WEEKLY;BYDAY=SU"]
    assert len(state.upcoming(names["now"], 5)) == 5


def test_an_end_beyond_sight_is_no_next_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window that is not in sight may begin before."""
    outlook = Outlook([Step(NOW - DAY, OFF)], NOW + HOUR)
    monkeypatch.setattr(Timetable, "outlook", lambda self, now: outlook)
    state = state_with(planned(NOW + 8 * HOUR, NOW + 9 * HOUR), mode=ON, until=NOW + 2 * HOUR)
    assert state.next_change_at(NOW) is None


def test_a_rule_that_occurs_once_has_no_gap() -> None:
    """So its window may be as long as it likes."""
    assert state_with(recurring(NOW, 3 * DAY, "FREQ=DAILY;COUNT=1")).mode_at(NOW + 2 * DAY) is ON
