"""What every backend promises, asked of each of them: the same tests against memory, files, Redis and databases.

What only one of them has, such as words in files, is tested beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import random
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest
import trio
from fastapi import FastAPI

from fastapi_maintenance import (
    BackendUnavailable,
    ChangeRejected,
    HoldLost,
    InvalidConfiguration,
    Knowledge,
    MaintenanceMode,
    MaintenanceModeMiddleware,
    MaintenanceState,
    ReadOnlyBackend,
    SwitchIsHeld,
    UnknownWindow,
    UnsupportedByBackend,
    VersionConflict,
    Window,
    cancel_maintenance,
    get_maintenance_mode,
    get_maintenance_state,
    get_maintenance_status,
    is_maintenance_on,
    maintenance_mode_on,
    schedule_maintenance,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import BaseStateBackend, MemoryBackend
from fastapi_maintenance.backends.base import StoreBackend
from fastapi_maintenance.model.change import Change
from fastapi_maintenance.model.limits import MAX_BYTES
from fastapi_maintenance.model.state import Hold
from fastapi_maintenance.switches.views.lookup import view_of
from tests.programs.store_scripts import threads
from tests.support.asgi import client, get, status
from tests.support.places import Place, file_place, postgres_place, python, redis_place, sql_place, sqlite_place
from tests.support.scripts import output_of
from tests.support.stores import done, free_port
from tests.support.traffic import wait_until

VARIABLE = "CLOSED_FOR_NOW"
MYSQL_URL = os.environ.get("TEST_MYSQL_URL")

DATABASES = ["sqlite", "postgresql", *(["mysql"] if MYSQL_URL else [])]
FOLLOWED = ["file", "redis", *DATABASES]
WHOLE = ["memory", *FOLLOWED]
"""Those that keep the whole state."""
WRITABLE = [*WHOLE, "two methods"]
ALL = [*WRITABLE, "environment"]
SHARED = [*FOLLOWED, "two methods"]
"""Those that other processes see."""
SECRET = ["redis", "postgresql", *(["mysql"] if MYSQL_URL else [])]
"""Those with credentials in their options."""

SOON = timedelta(hours=1)
PATIENCE: dict[str, Any] = {"timeout_seconds": 10, "init_timeout": 20}
"""The machine may be busy with other tests."""


def of(stores: list[str]) -> pytest.MarkDecorator:
    """Ask a promise of these stores."""
    return pytest.mark.parametrize("store", stores, indirect=True)


class Store:
    """A place of one switch, and the backends that were made for it, which are closed after the test."""

    def __init__(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place = place
        self._monkeypatch = monkeypatch
        self._made: list[Any] = []

    def backend(self, *, eager: bool = False, **more: Any) -> Any:
        """Return a new backend; an ``eager`` one polls as often as it can, if it polls at all."""
        if eager and "timeout_seconds" in self.place.options:
            more["poll_seconds"] = 0.001
        self._made.append(self.place.backend(**more))
        return self._made[-1]

    def seen_by_others(self, backend: Any) -> Any:
        """Return a backend that sees what is stored as another process would, as far as the store has others."""
        return backend if isinstance(backend, MemoryBackend) else self.backend()

    async def turn(self, backend: BaseStateBackend, value: bool) -> None:
        """Switch by the way that there is."""
        if self.place.kind == "EnvVarBackend":
            self._monkeypatch.setenv(VARIABLE, str(int(value)))
        else:
            await set_maintenance_mode(value, backend)

    def close(self) -> None:
        for backend in self._made:
            if isinstance(backend, StoreBackend):
                asyncio.run(backend.aclose())


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    def server(name: str) -> Any:
        return request.getfixturevalue(name)

    places: dict[str, Callable[[], Place]] = {
        "memory": lambda: Place("MemoryBackend"),
        "environment": lambda: Place("EnvVarBackend", {"var_name": VARIABLE}),
        "two methods": lambda: Place("TwoMethods", {"path": str(tmp_path / "closed")}),
        "file": lambda: file_place(tmp_path, **PATIENCE),
        "redis": lambda: redis_place(server("redis_server"), **PATIENCE),
        "sqlite": lambda: sqlite_place(tmp_path, **PATIENCE),
        "postgresql": lambda: postgres_place(server("postgres_server"), **PATIENCE),
        "mysql": lambda: sql_place(str(MYSQL_URL), **PATIENCE),
    }
    made = Store(places[request.param](), monkeypatch)
    yield made
    made.close()


def changed(backend: BaseStateBackend, change: Change) -> MaintenanceState:
    """Return the state after a change."""
    return asyncio.run(view_of(backend).apply(change))


def stored(backend: BaseStateBackend) -> MaintenanceState:
    """Return the state that the store has now, whatever this process has a copy of."""
    if isinstance(backend, StoreBackend):
        return done(backend.load()) or MaintenanceState()
    state = backend.peek()
    assert state is not None
    return state.without_expired_holds(datetime.now(UTC))


def set_to(mode: str, **fields: Any) -> Change:
    return Change(fields={"mode": MaintenanceMode(mode), "reason": None, "since": None, "until": None} | fields)


def hold(owner: str = "", *, kind: str = "on", expires_in: timedelta | None = SOON) -> Hold:
    now = datetime.now(UTC).replace(microsecond=123000)  # what is stored are milliseconds
    ends = None if expires_in is None else now + expires_in
    return Hold.model_validate({"kind": kind, "owner": owner, "expires_at": ends})


def put(id_: str, one: Hold, **more: Any) -> Change:
    return Change(put_holds={id_: one}, **more)


def drop(*ids: str) -> Change:
    return Change(drop_holds=frozenset(ids))


def guarded(backend: BaseStateBackend) -> FastAPI:
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=backend)

    @app.api_route("/", methods=["GET", "POST"])
    async def endpoint() -> None: ...

    return app


# On and off


@of(ALL)
def test_a_switch_that_nobody_touched_is_off(store: Store) -> None:
    backend = store.backend()
    assert asyncio.run(backend.get_value()) is False
    assert asyncio.run(get_maintenance_mode(backend)) is False
    assert asyncio.run(get_maintenance_state(backend)) == MaintenanceState()
    assert asyncio.run(status(guarded(backend))) == 200


@of(WRITABLE)
def test_a_value_that_was_set_is_got(store: Store) -> None:
    backend = store.backend()
    for value in (True, True, False, False, True):
        asyncio.run(backend.set_value(value))
        assert asyncio.run(store.seen_by_others(backend).get_value()) is value
        assert asyncio.run(backend.get_value()) is value


@of(ALL)
def test_a_mode_that_was_set_is_got(store: Store) -> None:
    """By whoever asks the switch, and by who asks the store."""
    backend = store.backend()
    for value in (True, False, True):
        asyncio.run(store.turn(backend, value))
        assert asyncio.run(get_maintenance_mode(backend)) is value
        assert asyncio.run(get_maintenance_state(backend)).mode == ("on" if value else "off")
        assert asyncio.run(store.seen_by_others(backend).get_value()) is value


@of(["environment"])
def test_what_can_only_be_read_says_so(store: Store) -> None:
    backend = store.backend()
    for refused in (backend.set_value(True), set_maintenance_mode(False, backend)):
        with pytest.raises(ReadOnlyBackend, match="nothing was changed"):
            asyncio.run(refused)
    assert asyncio.run(get_maintenance_mode(backend)) is False


@of(["two methods"])
def test_what_has_no_room_for_more_than_a_boolean_says_so(store: Store) -> None:
    """And keeps what it has."""
    backend, end = store.backend(), datetime.now(UTC) + SOON
    asyncio.run(set_maintenance_mode(True, backend))
    for refused in (
        set_maintenance_mode("read_only", backend),
        set_maintenance_mode(True, backend, reason="new disks"),
        set_maintenance_mode(True, backend, until=end),
    ):
        with pytest.raises(UnsupportedByBackend, match="nothing was changed"):
            asyncio.run(refused)
    assert asyncio.run(backend.get_value()) is True


# The whole state


REASONS = {
    "none": None,
    "empty": "",
    "words": "moving to new disks",
    "unicode": "Größe 😀 \u2028 \u200f\u05d0 \ufeff e\u0301",
    "quotes": """'; DROP TABLE x; -- "quoted" \\ \\" %s %(name)s :name {ms} ${x} ]]> \\u0041""",
    "white": "\t\r\n one\n two \x7f\x01 ",
    "null": "a\0b",
    "JSON": '{"mode":"on","version":9,"holds":{"a":[1,{}]}}',
    "long": "two thousand " * 150,
}


@of(WHOLE)
@pytest.mark.parametrize("reason", REASONS.values(), ids=REASONS)
@pytest.mark.parametrize("mode", ["on", "read_only"])
def test_a_state_comes_back_as_it_was_set(store: Store, mode: Any, reason: str | None) -> None:
    """To the character and the microsecond."""
    backend = store.backend()
    end = datetime.now(timezone(timedelta(hours=5, minutes=45))) + timedelta(days=1, microseconds=1)
    before = datetime.now(UTC)
    asyncio.run(set_maintenance_mode(mode, backend, reason=reason, until=end))
    for state in (
        stored(store.seen_by_others(backend)),
        asyncio.run(get_maintenance_state(backend)),
        asyncio.run(get_maintenance_state(store.seen_by_others(backend))),
    ):
        assert (state.mode, state.reason, state.until) == (mode, reason, end)
        assert state.since is not None
        assert before <= state.since <= datetime.now(UTC)
        assert state.updated_at is not None
        assert abs(state.updated_at - before) < timedelta(minutes=1)
    assert asyncio.run(get_maintenance_mode(backend)) is True


@of(WHOLE)
def test_reason_and_end_go_with_the_mode_that_they_were_set_with(store: Store) -> None:
    backend = store.backend()
    asyncio.run(set_maintenance_mode(True, backend, reason="disks", until=datetime.now(UTC) + SOON))
    asyncio.run(set_maintenance_mode(True, backend))
    state = stored(backend)
    assert (state.mode, state.reason, state.until) == ("on", None, None)
    asyncio.run(set_maintenance_mode(False, backend))
    assert (stored(backend).mode, stored(backend).since) == ("off", None)


@of(WHOLE)
def test_who_made_the_last_change_is_known(store: Store) -> None:
    backend = store.backend()
    state = changed(backend, Change(fields=set_to("on", reason="disks").fields, by="Ada <ada@example.org>"))
    assert state.updated_by == stored(store.seen_by_others(backend)).updated_by == "Ada <ada@example.org>"
    assert changed(backend, put("a", hold())).updated_by is None


@of(WHOLE)
def test_read_only_lets_reading_pass(store: Store) -> None:
    backend = store.backend()
    app = guarded(backend)
    asyncio.run(set_maintenance_mode("read_only", backend))
    assert asyncio.run(status(app)) == 200
    assert asyncio.run(status(app, method="POST")) == 503


@of(WHOLE)
def test_named_switches_do_not_touch_each_other(store: Store) -> None:
    """Each has a state of its own, beside that of the default one, at which other processes find it."""
    backend = store.backend()
    names = ["default", "billing", "billing-2", "b_i"]
    for name in names[1:]:
        asyncio.run(set_maintenance_mode(True, backend, name=name, reason=name))
    others = store.seen_by_others(backend)
    for name in names:
        state = asyncio.run(get_maintenance_state(others, name=name))
        assert (state.mode, state.reason) == (("off", None) if name == "default" else ("on", name))
    asyncio.run(set_maintenance_mode("read_only", backend))
    asyncio.run(set_maintenance_mode(False, backend, name="billing"))
    modes = [stored(backend), *(stored(backend.sibling(name)) for name in names[1:])]
    if not isinstance(backend, MemoryBackend):  # its siblings are no places, each is a new one
        assert [state.mode for state in modes] == ["read_only", "off", "on", "on"]
    assert asyncio.run(get_maintenance_mode(backend, name="billing")) is False
    assert asyncio.run(get_maintenance_mode(backend, name="billing-2")) is True


# Versions, and changes that are made once


@of(WHOLE)
def test_the_version_grows_with_each_change(store: Store) -> None:
    """Those that change nothing else included."""
    backend = store.backend()
    versions = [stored(backend).version]
    for change in (set_to("on"), set_to("on"), put("a", hold()), set_to("off"), drop("a"), drop("a"), set_to("off")):
        versions.append(changed(backend, change).version)
        assert stored(backend).version == versions[-1]
    assert versions == sorted(set(versions))


@of(WHOLE)
@pytest.mark.parametrize("reason", [None, "disks"])
def test_a_change_that_expects_another_version_is_refused(store: Store, reason: str | None) -> None:
    """And changes nothing; one that expects the right one is made, also the first of all."""
    backend = store.backend()
    first = changed(backend, replace(set_to("on", reason=reason), expected_version=0))
    for wrong in (0, first.version - 1, first.version + 1, 2**40):
        with pytest.raises(VersionConflict, match="nothing was changed") as error:
            changed(backend, replace(set_to("off"), expected_version=wrong))
        assert (error.value.expected, error.value.actual) == (wrong, first.version)
    assert stored(backend) == first
    second = changed(backend, replace(set_to("read_only"), expected_version=first.version))
    assert (stored(backend).mode, stored(backend).version) == ("read_only", second.version)


@of(FOLLOWED)
def test_a_change_is_made_once(store: Store) -> None:
    """Who did not hear what became of it tries again, also when there was another change in between."""
    backend = store.backend()
    change = Change(fields=set_to("read_only", reason="disks").fields, put_holds={"a": hold("me")})
    first = changed(backend, change)
    assert changed(backend, change) == first
    assert changed(store.seen_by_others(backend), change) == first
    second = changed(backend, replace(set_to("on", reason="more disks"), drop_holds=frozenset({"a"})))
    assert changed(backend, change) == second
    assert stored(backend) == second


@of(FOLLOWED)
def test_a_change_that_was_made_is_not_refused_when_it_is_tried_again(store: Store) -> None:
    """What it requires was so when it was made."""
    backend = store.backend()
    first = changed(backend, put("a", hold("me")))
    change = Change(
        fields=set_to("on", reason="disks").fields,
        drop_holds=frozenset({"a"}),
        required_holds=frozenset({"a"}),
        expected_version=first.version,
    )
    second = changed(backend, change)
    assert changed(backend, change) == second
    assert stored(backend) == second


@of(WHOLE)
def test_changes_at_the_same_time_are_all_made(store: Store) -> None:
    backend = store.backend()
    first = changed(backend, put("first", hold()))

    async def all_at_once() -> None:
        views = [view_of(backend), view_of(store.seen_by_others(backend))]
        await asyncio.gather(*(views[number % 2].apply(put(str(number), hold())) for number in range(20)))

    asyncio.run(all_at_once())
    state = stored(backend)
    assert state.version == first.version + 20
    assert set(state.holds) == {"first", *map(str, range(20))}


# Holds


@of(WHOLE)
def test_a_hold_closes_until_it_is_dropped(store: Store) -> None:
    """Whatever is stored, which counts again afterwards."""
    backend = store.backend()
    lives = {"a": hold("host:7 müller", expires_in=None), 'q"\\{': hold("b"), "off": hold("c", kind="off")}
    for id_, one in lives.items():
        state = changed(backend, put(id_, one.model_copy(update={"reason": f"reason of {id_}"})))
        assert state == stored(store.seen_by_others(backend))
        assert state.holds[id_].owner == one.owner
        assert state.holds[id_].reason == f"reason of {id_}"
    assert asyncio.run(get_maintenance_mode(backend)) is True
    assert asyncio.run(backend.get_value()) is True
    changed(backend, drop("a", 'q"\\{', "nobody's"))
    assert set(stored(backend).holds) == {"off"}
    changed(backend, set_to("on"))
    assert asyncio.run(backend.get_value()) is False
    changed(backend, drop("off"))
    assert stored(backend).holds == {}
    assert asyncio.run(backend.get_value()) is True


@of(WHOLE)
def test_an_off_hold_opens_what_it_masks(store: Store) -> None:
    backend = store.backend()
    changed(backend, put("outer", hold()))
    changed(backend, put("inner", hold(kind="off").model_copy(update={"masks": frozenset({"outer"})})))
    assert stored(store.seen_by_others(backend)).holds["inner"].masks == {"outer"}
    assert asyncio.run(backend.get_value()) is False
    changed(backend, put("another", hold()))
    assert asyncio.run(backend.get_value()) is True


@of(WHOLE)
def test_a_hold_that_is_renewed_lives_on(store: Store) -> None:
    """That is neither a new version nor anybody's change."""
    backend = store.backend()
    ends = datetime.now(UTC).replace(microsecond=123000) + SOON
    first = changed(backend, put("a", hold("me", expires_in=timedelta(minutes=1)), by="me"))
    renewed = hold("me").model_copy(update={"expires_at": ends})
    state = changed(backend, put("a", renewed, required_holds=frozenset({"a"}), is_renewal=True, by="heartbeat"))
    assert state == stored(backend)
    assert state.holds["a"].expires_at == ends
    for field in ("epoch", "version", "updated_at", "updated_by"):
        assert getattr(state, field) == getattr(first, field)


@of(FOLLOWED)
def test_a_hold_that_expired_does_not_apply(store: Store) -> None:
    """The document keeps it for an hour, so that its owner finds it expired."""
    backend = store.backend()
    changed(backend, put("gone", hold(expires_in=timedelta(seconds=-1))))
    assert stored(backend).holds == {}
    assert asyncio.run(backend.get_value()) is False
    with pytest.raises(HoldLost, match="it expired"):
        changed(backend, put("gone", hold(), required_holds=frozenset({"gone"}), is_renewal=True))
    assert set(changed(backend, put("alive", hold())).holds) == {"alive"}
    assert set(stored(backend).holds) == {"alive"}


@of(WHOLE)
@pytest.mark.parametrize("end", ["expired", "dropped", "broken", "never there"])
def test_who_lost_a_hold_is_told(store: Store, end: str) -> None:
    """When it is renewed, and when something depends on it; nothing is changed then.

    What depends on a hold that has expired is still made: its owner takes it again.
    """
    backend = store.backend()
    changed(backend, put("mine", hold(expires_in=timedelta(seconds=-1) if end == "expired" else SOON)))
    changed(backend, put("other", hold("other")))
    if end == "dropped":
        changed(backend, drop("mine"))
    if end == "broken":
        changed(backend, Change(break_holds=True))
    needed = "nobody's" if end == "never there" else "mine"
    before = stored(backend)
    for change in (
        put(needed, hold(), required_holds=frozenset({needed}), is_renewal=True),
        replace(set_to("on"), required_holds=frozenset({needed})),
    )[: 1 if end == "expired" else 2]:
        with pytest.raises(HoldLost, match="is gone") as error:
            changed(backend, change)
        assert error.value.ids == (needed,)
    assert stored(backend) == before


@of(WHOLE)
def test_a_switch_that_is_held_is_not_turned_off_by_mistake(store: Store) -> None:
    """Who holds it is named; off-holds and what has expired hold nobody up."""
    backend = store.backend()
    for number, one in enumerate(
        [hold("zoé:1"), hold('quo"te'), hold("open", kind="off"), hold("late", expires_in=timedelta(seconds=-1))]
    ):
        changed(backend, put(str(number), one))
    before = stored(backend)
    with pytest.raises(SwitchIsHeld, match="nothing was changed") as error:
        changed(backend, replace(set_to("on", reason="no"), break_holds=False))
    assert error.value.owners == ('quo"te', "zoé:1")
    assert stored(backend) == before
    state = changed(backend, replace(set_to("off"), break_holds=True))
    assert state.holds == stored(backend).holds == {}
    changed(backend, put("open", hold("open", kind="off")))
    assert changed(backend, replace(set_to("on", reason="yes"), break_holds=False)).reason == "yes"


@of(ALL)
def test_a_block_holds_the_switch(store: Store) -> None:
    """For as long as it lasts; others see it as well, if they share the store at all."""
    backend = store.backend()
    shared = store.place.kind not in ("MemoryBackend", "EnvVarBackend")

    async def scenario() -> None:
        for before in (False, True):
            await store.turn(backend, before)
            async with maintenance_mode_on(backend, reason="disks"):
                assert await get_maintenance_mode(backend) is True
                assert not shared or await store.backend().get_value() is True
            assert await get_maintenance_mode(backend) is before
            assert not shared or await store.backend().get_value() is before

    asyncio.run(scenario())


# Windows


def window(id_: str, starts_in: timedelta = -SOON, *, lasts: timedelta = 2 * SOON, **more: Any) -> Window:
    start = datetime.now(UTC) + starts_in
    return Window.model_validate({"id": id_, "start": start, "end": start + lasts, **more})


def planned(*windows: Window, **more: Any) -> Change:
    return Change(put_windows={one.id: one for one in windows}, **more)


@of(WHOLE)
def test_a_planned_maintenance_counts_while_it_goes_on(store: Store) -> None:
    """For whoever comes to the store, also the first time; until it is cancelled."""
    backend, now = store.backend(), datetime.now(UTC)
    reason = 'Größe "😀" \\ }'
    going_on = asyncio.run(schedule_maintenance(now - SOON, now + SOON, backend, reason=reason))
    weekly = asyncio.run(
        schedule_maintenance(
            now + SOON, now + 2 * SOON, backend, mode="read_only", rrule="FREQ=WEEKLY", zone="Asia/Kathmandu"
        )
    )
    others = store.seen_by_others(backend)
    for state in (
        stored(others),
        asyncio.run(get_maintenance_state(backend)),
        asyncio.run(get_maintenance_state(others)),
    ):
        assert state.windows == {going_on.id: going_on, weekly.id: weekly}
        assert list(state.windows) == [going_on.id, weekly.id]
        assert state.explanation_at(now)[:2] == (reason, now + SOON)
        assert state.next_change_at(now) == now + SOON
        assert state.mode_at(weekly.start + timedelta(weeks=3)) == "read_only"
    for one in (backend, others):
        assert asyncio.run(get_maintenance_mode(one)) is True
        assert asyncio.run(one.get_value()) is True
        answer = asyncio.run(get(guarded(one)))
        assert answer.status_code == 503
        assert 0 < int(answer.headers["retry-after"]) <= 3600
    asyncio.run(cancel_maintenance(going_on.id, backend))
    assert stored(others).windows == {weekly.id: weekly}
    assert asyncio.run(status(guarded(backend))) == 200


@of(WHOLE)
def test_a_corrected_maintenance_began_when_it_began(store: Store) -> None:
    """A new one begins when the switch was off in between, also because the last one's end had come."""
    backend = store.backend(eager=True)
    others = store.seen_by_others(backend)

    def since_after(mode: bool | str, **options: Any) -> datetime | None:
        asyncio.run(set_maintenance_mode(mode, backend, **options))  # type: ignore[arg-type]
        assert asyncio.run(get_maintenance_state(backend)).since == stored(others).since
        return stored(others).since

    began = since_after(True)
    assert began is not None
    assert abs(datetime.now(UTC) - began) < SOON
    assert since_after(True, until=SOON, reason="disks") == began
    assert since_after("read_only") == began
    assert since_after(True) == began
    assert since_after(True) == began
    assert since_after(False) is None
    again = since_after(True, reason="disks")
    assert again is not None
    assert again > began
    over = datetime.now(UTC) - timedelta(seconds=1)
    changed(backend, set_to("on", since=again, until=over))
    later = since_after("read_only")
    assert later is not None
    assert later > over
    assert since_after(False) is None
    now = datetime.now(UTC)
    asyncio.run(schedule_maintenance(now - SOON, now + SOON, backend))
    assert since_after(True) == now - SOON


@of(WHOLE)
@pytest.mark.parametrize("by", ["set_maintenance_mode", "set_value"])
def test_off_ends_what_goes_on_and_not_the_next_time(store: Store, by: str) -> None:
    backend, now = store.backend(eager=True), datetime.now(UTC)
    daily = asyncio.run(schedule_maintenance(now - SOON, now + SOON, backend, rrule="FREQ=DAILY", zone="UTC"))
    later = asyncio.run(schedule_maintenance(now + 3 * SOON, now + 4 * SOON, backend))
    asyncio.run(backend.set_value(False) if by == "set_value" else set_maintenance_mode(False, backend))
    wait_until(lambda: asyncio.run(status(guarded(backend))) == 200)
    for state in (stored(store.seen_by_others(backend)), asyncio.run(get_maintenance_state(backend))):
        assert state.windows == {daily.id: daily.model_copy(update={"ended": daily.start}), later.id: later}
        assert state.mode_at(now) == "off"
        assert state.next_change_at(now) == later.start
        assert state.mode_at(now + timedelta(days=1)) == "on"
    before = stored(backend)
    asyncio.run(set_maintenance_mode(True, backend))
    asyncio.run(set_maintenance_mode(False, backend))
    assert stored(backend).windows == before.windows


@of(WHOLE)
def test_windows_are_put_ended_and_dropped(store: Store) -> None:
    """Their order, what is stored beside them, and windows that others have dropped included."""
    backend = store.backend()
    ids = ["a", 'q"\\{', "ü"]
    windows = {id_: window(id_, zone="UTC", rrule="FREQ=DAILY") for id_ in ids}
    changed(backend, planned(*windows.values(), put_holds={"h": hold()}))
    start = windows["a"].start
    for day in range(2):
        ends_at = start + timedelta(days=day) + SOON
        state = changed(backend, Change(ends_windows_at=ends_at))
        assert state == stored(store.seen_by_others(backend))
        assert state.windows["a"].ended == start + timedelta(days=day)
    assert list(state.windows) == ids
    again = window("a", reason="again")
    state = changed(backend, planned(again, drop_windows=frozenset({"a", "ü", "unknown"})))
    assert list(state.windows) == ['q"\\{', "a"]
    assert state.windows["a"] == stored(backend).windows["a"] == again
    state = changed(backend, Change(drop_windows=frozenset(state.windows)))
    assert (state.windows, stored(backend).windows, list(state.holds)) == ({}, {}, ["h"])


@of(WHOLE)
def test_a_window_that_is_not_there_can_not_be_cancelled(store: Store) -> None:
    """Those that are there are named; nothing is changed."""
    backend = store.backend()
    with pytest.raises(UnknownWindow, match="there is none"):
        asyncio.run(cancel_maintenance("a", backend))
    changed(backend, planned(window("b"), window("ü")))
    before = stored(backend)
    with pytest.raises(UnknownWindow, match="nothing was changed") as error:
        changed(backend, set_to_off_if("a", "b", "c"))
    assert (error.value.ids, error.value.known) == (("a", "c"), ("b", "ü"))
    assert stored(backend) == before
    assert changed(backend, set_to_off_if("b")).version > before.version


@of(WHOLE)
def test_windows_that_are_over_are_not_named_to_choose_from(store: Store) -> None:
    """They are kept for a day, for hosts with other clocks."""
    backend = store.backend()
    over = window("over", -timedelta(hours=2), lasts=timedelta(hours=1))
    changed(backend, planned(over))
    with pytest.raises(UnknownWindow, match=r"no window 'a', nothing was changed; there is none$"):
        asyncio.run(cancel_maintenance("a", backend))
    changed(backend, planned(window("b")))
    with pytest.raises(UnknownWindow, match=r"; there is 'b'$") as error:
        asyncio.run(cancel_maintenance("a", backend))
    assert (error.value.ids, error.value.known) == (("a",), ("b",))
    assert sorted(stored(backend).windows) == ["b", "over"]


def set_to_off_if(*windows: str) -> Change:
    return replace(set_to("off"), required_windows=frozenset(windows))


@of(["environment", "two methods"])
def test_what_has_no_room_for_windows_says_so(store: Store) -> None:
    """Or that it can't be set at all."""
    backend, now = store.backend(), datetime.now(UTC)
    error = ReadOnlyBackend if store.place.kind == "EnvVarBackend" else UnsupportedByBackend
    for refused in (schedule_maintenance(now, now + SOON, backend), cancel_maintenance("a", backend)):
        with pytest.raises(error, match="nothing was changed"):
            asyncio.run(refused)
    assert asyncio.run(get_maintenance_mode(backend)) is False


_AFTER_A_RESTART = """
import asyncio, sys
from fastapi_maintenance import get_maintenance_mode, get_maintenance_state
from tests.support.places import Place

backend = Place.from_json(sys.argv[1]).backend()

async def main():
    print(await get_maintenance_mode(backend), list((await get_maintenance_state(backend)).windows))

asyncio.run(main())
"""


@of(["file", "redis"])
def test_windows_count_right_after_a_restart(store: Store) -> None:
    """Those that go on and no others, in a process that saw none of them begin."""
    backend, now = store.backend(), datetime.now(UTC)
    week = timedelta(weeks=1)
    changed(
        backend,
        planned(
            window("over", -2 * SOON, lasts=SOON),
            window("to come", SOON),
            window("not now", SOON - 9 * week, lasts=SOON, rrule="FREQ=WEEKLY", zone="Europe/Berlin"),
        ),
    )
    start = now - SOON - 9 * week
    for more, answer in (
        (None, "False"),
        (Window(id="x", start=start, end=start + 3 * SOON, rrule="FREQ=WEEKLY", zone="UTC"), "True"),
    ):
        if more is not None:
            changed(backend, planned(more))
        told = output_of(_AFTER_A_RESTART, store.place.to_json())
        assert told.startswith(answer)
        assert "'over', 'to come', 'not now'" in told


@of(FOLLOWED)
def test_a_stored_window_that_cannot_be_read_is_one_failure(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Logged once, shown in the status, kept by changes; the rest applies. In one line, whatever its id."""
    backend = store.backend()
    bad = window("bad\nERROR \u2066", lasts=SOON, rrule="FREQ=DAILY", zone="UTC")
    bad = bad.model_copy(update={"zone": "Mars/Base"})
    changed(backend, Change(fields=set_to("on").fields, put_windows={bad.id: bad}))
    follower = store.backend(eager=True)
    app = guarded(follower)
    wait_until(lambda: asyncio.run(status(app)) == 503)
    wait_until(lambda: get_maintenance_status(follower).last_error is not None)
    known = get_maintenance_status(follower)
    assert known.knowledge == Knowledge.READY
    assert "unknown time zone 'Mars/Base'" in (known.last_error or "")
    changed(backend, put("h", hold()))
    wait_until(lambda: "h" in view_of(follower).latest().holds)
    assert [
        record.getMessage().count("\n") for record in caplog.records if "can't be read" in record.getMessage()
    ] == [0]
    changed(backend, Change(drop_windows=frozenset({bad.id}), required_windows=frozenset({bad.id})))
    wait_until(lambda: get_maintenance_status(follower).last_error is None)


# What only newer versions know

NEWER: dict[str, Any] = {
    "schema": 1,
    "epoch": "e",
    "version": 7,
    "mode": "on",
    "closures": {
        "empty": [],
        "object": {},
        "big": 12345678901234567890,
        "text": '\\"ü{[',
        "more": [{"a": [1.5, None]}],
    },
    "holds": {"h": {"kind": "on", "owner": "me", "expires_at": 4_000_000_000_000, "step": [], "of": {}}},
    "windows": {
        "w": {
            "id": "w",
            "start": "2020-01-01T00:00:00Z",
            "end": "2090-01-01T00:00:00Z",
            "notice": 123456789012345678,
            "tags": [],
        }
    },
}


def put_document(backend: StoreBackend, document: dict[str, Any]) -> None:
    """Store a document as another version of this package would."""
    key = backend.switch.key
    raw = json.dumps(document, ensure_ascii=False).encode()
    done(backend.store.replace(key, raw, done(backend.store.read(key)).revision, seconds=10))


def document_of(backend: StoreBackend) -> dict[str, Any]:
    """Return the document as it is stored."""
    document: dict[str, Any] = json.loads(done(backend.store.read(backend.switch.key)).content or b"")
    return document


@of([name for name in FOLLOWED if name != "mysql"])
def test_members_that_only_newer_versions_know_are_kept(store: Store) -> None:
    """At every level, by every kind of change, also of the very hold or window that has them."""
    backend = store.backend()
    put_document(backend, NEWER)
    assert stored(backend).mode == MaintenanceMode.ON
    mine = Hold(kind="on", owner="other")
    for change in (
        set_to("off"),
        replace(set_to("off"), ends_windows_at=datetime.now(UTC)),
        put("h", mine, ttl=timedelta(days=20_000), is_renewal=True, required_holds=frozenset({"h"})),
        put("i", mine),
        drop("i"),
    ):
        changed(backend, change)
        document = document_of(backend)
        assert document["closures"] == NEWER["closures"]
        assert {"step": [], "of": {}}.items() <= document["holds"]["h"].items()
        assert {"notice": 123456789012345678, "tags": []}.items() <= document["windows"]["w"].items()
    assert document["holds"]["h"]["owner"] == "other"
    assert document["windows"]["w"]["ended"] == "2020-01-01T00:00:00Z"
    assert document["schema"] == 1


@of([name for name in FOLLOWED if name != "mysql"])
def test_a_change_after_the_highest_version_begins_a_new_life(store: Store) -> None:
    backend = store.backend()
    put_document(backend, {**NEWER, "version": 2**53 - 1})
    after = changed(backend, set_to("read_only"))
    assert (after.version, after.epoch == "e") == (1, False)
    assert stored(backend).version == 1


# Room


@of([name for name in WHOLE if name != "mysql"])
def test_a_mode_and_a_hold_always_fit(store: Store) -> None:
    """However many windows are planned, however long the reasons, and whatever characters they have."""
    backend, longest = store.backend(), "\x01" * 2000
    one = window("w", reason="😀" * 250)
    for index in range(28):
        changed(backend, Change(put_windows={f"w{index}": one.model_copy(update={"id": f"w{index}"})}))
    with pytest.raises(InvalidConfiguration, match="at most 32768 are stored, so that a mode and a hold always fit"):
        changed(backend, planned(window("more", reason="😀" * 2000)))
    assert len(stored(backend).windows) > 25
    changed(backend, set_to("on", reason=longest))
    long = Hold(kind="on", owner="\x01" * 300, reason=longest)
    changed(backend, put("a" * 32, long))
    changed(backend, set_to("read_only", reason=longest, until=datetime.now(UTC) + SOON))
    changed(backend, put("a" * 32, long, ttl=SOON, is_renewal=True, required_holds=frozenset({"a" * 32})))
    assert stored(backend).reason == longest
    with pytest.raises(InvalidConfiguration, match="at most 49152 are stored"):
        changed(backend, put("b" * 32, long))


@of([name for name in WHOLE if name != "mysql"])
def test_there_are_limits_for_windows_and_holds(store: Store) -> None:
    backend = store.backend()
    windows = [window(f"w{index}") for index in range(101)]
    changed(backend, planned(*windows[:100]))
    with pytest.raises(InvalidConfiguration, match="100 windows are planned already, nothing was changed"):
        changed(backend, planned(windows[100]))
    changed(backend, planned(windows[0]))
    changed(backend, Change(put_windows={"w100": windows[100]}, drop_windows=frozenset({"w0"})))
    changed(backend, Change(put_holds={f"h{index}": Hold(kind="on") for index in range(200)}))
    with pytest.raises(InvalidConfiguration, match="200 blocks hold the switch already"):
        changed(backend, put("more", hold()))
    changed(backend, put("h1", hold()))


# The size


@of(WHOLE)
@pytest.mark.parametrize("part", ["x", "😀", '"'], ids=["x", "four bytes", "escaped"])
def test_a_state_that_is_too_large_is_refused(store: Store, part: str) -> None:
    """With its size and the limit; what is stored stays."""
    backend, reason = store.backend(), part * (MAX_BYTES // len(json.dumps(part, ensure_ascii=False)[1:-1].encode()))
    for first in (None, set_to("on", reason="disks")):
        before = stored(backend) if first is None else changed(backend, first)
        with pytest.raises(InvalidConfiguration, match=rf"nothing was changed: at most {MAX_BYTES} are stored"):
            changed(backend, set_to("read_only", reason=reason))
        assert stored(backend) == before


@of(WHOLE)
def test_a_state_that_just_fits_is_kept(store: Store) -> None:
    backend = store.backend()
    reason = "x" * (MAX_BYTES - 1000)
    assert changed(backend, set_to("on", reason=reason)).reason == reason
    assert stored(store.seen_by_others(backend)).reason == reason


# All stores do the same


def _random_change(random: random.Random, state: MaintenanceState) -> dict[str, Any]:
    """Return a change's arguments, ``expected_version`` relative to the present one."""
    ids = ["a", "b", "c", 'q"', "ü"]

    def some() -> list[str]:
        return random.sample(ids, random.choice([0, 0, 1, 2]))

    more: dict[str, Any] = {}
    if random.random() < 0.6:
        mode = random.choice(["off", "on", "read_only"])
        more["fields"] = set_to(mode, reason=random.choice([None, "", "disks", '{"[ü'])).fields
    lives = [SOON, SOON, None, timedelta(seconds=-1)]
    more["put_holds"] = {
        id_: hold(random.choice(["", "me"]), kind=random.choice(["on", "off"]), expires_in=random.choice(lives))
        for id_ in some()
    }
    more["drop_holds"] = frozenset(some())
    if random.random() < 0.2:
        more["required_holds"] = frozenset(random.sample(ids, 1))
    names = ["v", "w", 'q"', "ü"]
    if random.random() < 0.4:
        recurs: list[dict[str, Any]] = [{}, {"rrule": "FREQ=DAILY", "zone": "UTC"}]
        lasting = [
            window(
                name,
                reason=random.choice([None, '{"[ü']),
                mode=random.choice(["on", "read_only"]),
                **random.choice(recurs),
            )
            for name in random.sample(names, 2)
        ]
        more["put_windows"] = {one.id: one for one in lasting}
    more["drop_windows"] = frozenset(random.sample(names, random.choice([0, 0, 1])))
    if random.random() < 0.3:
        more["ends_windows_at"] = datetime.now(UTC)
    if random.random() < 0.1:
        more["required_windows"] = frozenset(random.sample(names, 1))
    more["break_holds"] = random.choices([True, False, None], [1, 2, 7])[0]
    if random.random() < 0.2:
        more["expected_version"] = random.choice([0, 0, 1])
    if random.random() < 0.1:
        more = {"put_holds": more["put_holds"], "is_renewal": True}
    return more


@of([name for name in WHOLE if name != "memory"])
@pytest.mark.parametrize("seed", range(3))
def test_a_store_does_what_memory_does(store: Store, seed: int) -> None:
    """A long series of random changes leaves the same states, and meets the same refusals."""
    chance, backend, model = random.Random(seed), store.backend(), MemoryBackend()

    def outcome(one: BaseStateBackend, arguments: dict[str, Any], id_: str) -> object:
        if "expected_version" in arguments:  # in a file, versions are other numbers
            arguments = {**arguments, "expected_version": stored(one).version + arguments["expected_version"]}
        try:
            changed(one, Change(id=id_, **arguments))
        except VersionConflict:
            return VersionConflict
        except ChangeRejected as error:
            return str(error)
        return "made"

    refused = 0
    for number in range(60):
        arguments = _random_change(chance, model.peek())
        answers = [outcome(one, arguments, f"{seed}-{number}") for one in (model, backend)]
        assert answers[0] == answers[1], arguments
        refused += answers[0] != "made"
        ours, theirs = (
            (one.mode, one.reason, one.until, one.holds, list(one.holds), one.windows, list(one.windows))
            for one in (stored(model), stored(backend))
        )
        assert ours == theirs, arguments
    assert refused > 5


# Other processes


_OTHER_PROCESS = """
import asyncio, sys
from fastapi_maintenance import get_maintenance_mode, set_maintenance_mode
from tests.support.places import Place

backend = Place.from_json(sys.argv[1]).backend()

async def main():
    print(await get_maintenance_mode(backend), await backend.get_value(), flush=True)
    sys.stdin.readline()
    await set_maintenance_mode(False, backend)
    print("done", flush=True)

asyncio.run(main())
"""


@of(SHARED)
def test_another_process_sees_the_switch_and_turns_it(store: Store) -> None:
    """What it does is seen here within the poll interval, or at once."""
    backend = store.backend(eager=True)
    app = guarded(backend)
    asyncio.run(set_maintenance_mode(True, backend))
    with python("-c", _OTHER_PROCESS, store.place.to_json()) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "True True\n"
        assert asyncio.run(status(app)) == 503
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n", process.stderr and process.stderr.read()
        assert asyncio.run(backend.get_value()) is False
        wait_until(lambda: asyncio.run(status(app)) == 200)
        assert process.wait(20) == 0


# Requests, event loops and threads


@of(ALL)
def test_a_change_in_this_process_counts_from_the_next_request_on(store: Store) -> None:
    """However it meets with what is being read at the same time."""
    backend = store.backend(eager=True)
    app = guarded(backend)

    async def scenario() -> None:
        async with client(app) as http:
            for number in range(40):
                is_on = number % 2 == 0
                await store.turn(backend, is_on)
                for _ in range(3):
                    assert (await http.get("/")).status_code == (503 if is_on else 200)
                    await asyncio.sleep(0)

    asyncio.run(scenario())


async def _journey(store: Store, backend: BaseStateBackend) -> None:
    """Ask, change and hold a switch, on whatever event loop this is."""
    for value in (True, False):
        await store.turn(backend, value)
        assert await get_maintenance_mode(backend) is value
        assert (await get_maintenance_state(backend)).mode == ("on" if value else "off")
    async with maintenance_mode_on(backend):
        assert await get_maintenance_mode(backend) is True
        assert await status(guarded(backend)) == 503
    assert await get_maintenance_mode(backend) is False
    assert await status(guarded(backend)) == 200


@of(ALL)
def test_any_event_loop_will_do(store: Store) -> None:
    """asyncio's, trio's, and one after another."""
    backend = store.backend()
    asyncio.run(_journey(store, backend))
    asyncio.run(_journey(store, backend))
    trio.run(_journey, store, backend)
    asyncio.run(_journey(store, backend))
    trio.run(_journey, store, store.backend())


@of(ALL)
def test_event_loops_at_the_same_time_share_a_switch(store: Store) -> None:
    """A block on any of them closes for all, and the last one to leave opens."""
    backend = store.backend()
    asyncio.run(get_maintenance_mode(backend))
    failures: list[BaseException] = []

    async def scenario() -> None:
        for _ in range(10):
            async with maintenance_mode_on(backend):
                for _ in range(3):
                    assert await get_maintenance_mode(backend) is True

    def work(run: Callable[..., object]) -> None:
        try:
            run()
        except BaseException as error:
            failures.append(error)

    runs: list[Callable[[], object]] = [lambda: asyncio.run(scenario()), lambda: trio.run(scenario)] * 2
    workers = [threading.Thread(target=work, args=(run,)) for run in runs]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join(60)
    assert failures == []
    assert asyncio.run(get_maintenance_mode(backend)) is False
    assert asyncio.run(backend.get_value()) is False


@of(ALL)
def test_code_without_an_event_loop_can_ask(store: Store) -> None:
    """In any thread; the first to ask waits for the answer, however many there are."""
    backend = store.backend(eager=True)
    asyncio.run(store.turn(backend, True))
    asking = store.seen_by_others(backend)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda _: is_maintenance_on(asking), range(8))) == [True] * 8
    asyncio.run(store.turn(backend, False))
    assert is_maintenance_on(backend) is False


@of(SHARED)
def test_code_on_an_event_loop_is_told_to_ask_otherwise(store: Store) -> None:
    """While the answer would take input and output."""
    backend = store.backend()

    async def scenario() -> None:
        with pytest.raises(RuntimeError, match="await get_maintenance_mode"):
            is_maintenance_on(backend)

    asyncio.run(scenario())


@of(ALL)
def test_how_well_a_switch_is_known_is_told(store: Store) -> None:
    backend = store.backend()
    asyncio.run(store.turn(backend, True))
    asyncio.run(get_maintenance_mode(backend))
    known = get_maintenance_status(backend)
    assert (known.knowledge, known.last_error) == (Knowledge.READY, None)
    if isinstance(backend, (StoreBackend, MemoryBackend)):
        assert known.version == stored(backend).version
        assert known.age_seconds is not None
        assert known.age_seconds < 60


# Credentials


@of(SECRET)
@pytest.mark.parametrize("fault", ["no server", "wrong password"])
def test_nobody_is_told_the_credentials(store: Store, fault: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither by what a backend is shown as, nor by errors with their causes, nor in logs or the status."""
    caplog.set_level(logging.DEBUG)
    right = urlsplit(store.place.options["url"]).password or ""
    wrong = "wrong:horse/battery@staple"
    place = store.place.at(port=free_port()) if fault == "no server" else store.place.at(password=wrong)
    told = [repr(store.place.backend())]
    backend = place.backend(timeout_seconds=2, init_timeout=0.5)
    try:
        told += [repr(backend), str(backend), repr(backend.sibling("billing"))]
        for refused in (backend.set_value(True), backend.get_value(), set_maintenance_mode(True, backend)):
            with pytest.raises(BackendUnavailable) as error:
                asyncio.run(refused)
            told.append("".join(traceback.format_exception(error.value)))
        assert asyncio.run(get_maintenance_mode(backend)) is False
        wait_until(lambda: get_maintenance_status(backend).last_error)
        told.append(str(get_maintenance_status(backend)))
    finally:
        asyncio.run(backend.aclose())
    told += [record.getMessage() for record in caplog.records if record.name.startswith("fastapi_maintenance")]
    told += [record.exc_text or "" for record in caplog.records]
    assert "can't be read" in caplog.text
    for secret in (right, unquote(right), wrong, quote(wrong, safe="")):
        assert secret
        assert secret not in "\n".join(told)


# The end


def _open_files() -> list[str]:
    """Return what this process has open, by descriptor."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            found.append(f"{descriptor.name} {descriptor.readlink()}")
    return sorted(found)


async def _tasks() -> set[asyncio.Task[Any]]:
    """Return what goes on, apart from a timer that is left over when it has nothing to close any more."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    return {task for task in tasks if "_close_when_unused" not in repr(task)}


@of(FOLLOWED)
def test_a_backend_that_is_closed_leaves_nothing_open(store: Store) -> None:
    """No connection, file, thread or task; who asks later begins anew, and can close again."""
    done(_tasks())  # the thread is there and stays
    before = (_open_files(), len(threads()), done(_tasks()))
    backend = store.place.backend(poll_seconds=0.01)
    for value in (True, False):
        asyncio.run(set_maintenance_mode(value, backend))
        assert is_maintenance_on(backend) is value
        assert asyncio.run(status(guarded(backend))) == (503 if value else 200)
        asyncio.run(backend.get_value())
        asyncio.run(backend.aclose())
        wait_until(lambda: _open_files() == before[0] or gc.collect() < 0, 5)
        wait_until(lambda: len(threads()) <= before[1], 10)  # a driver's thread ends after its connection
        assert done(_tasks()) <= before[2]
    asyncio.run(backend.aclose())


@of(FOLLOWED)
def test_closing_a_backend_closes_what_was_derived_from_it(store: Store) -> None:
    """Nobody else has a handle to the backends of its named switches."""
    backend = store.backend()
    asyncio.run(get_maintenance_mode(backend))
    asyncio.run(get_maintenance_mode(backend, name="billing"))
    assert get_maintenance_status(backend, name="billing").knowledge is Knowledge.READY
    asyncio.run(backend.aclose())
    assert get_maintenance_status(backend, name="billing").knowledge is Knowledge.NOT_READY
