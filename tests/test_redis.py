"""The Redis backend against a real server, its faults included; its script does what ``Change.applied_to`` says."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import re
import ssl
import sys
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import RedisDsn

from fastapi_maintenance import background
from fastapi_maintenance.backends import redis as module
from fastapi_maintenance.backends.redis import RedisBackend
from fastapi_maintenance.exceptions import (
    BackendUnavailable,
    ChangeRejected,
    CorruptState,
    DeadlinePassed,
    HoldLost,
    InvalidConfiguration,
    MissingExtra,
    OutcomeUnknown,
    SwitchIsHeld,
    VersionConflict,
)
from fastapi_maintenance.state import MAX_BYTES, Change, Hold, MaintenanceMode, MaintenanceState, set_mode

from .scripts import output_of
from .stores import RedisServer, SilentProxy, done, free_port
from .traffic import wait_until

Heard = list[MaintenanceState | None]


def turned(mode: str | MaintenanceMode = "on", **more: Any) -> Change:
    return set_mode(MaintenanceMode(mode), now=datetime.now(UTC), **more)


SOON = timedelta(hours=1)


def on_hold(owner: str = "", *, expires_in: timedelta | None = SOON) -> Hold:
    return Hold(kind="on", owner=owner, expires_at=None if expires_in is None else datetime.now(UTC) + expires_in)


@pytest.fixture(scope="module")
def shared_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def server(shared_server: RedisServer) -> RedisServer:
    """A server without data; for tests that neither stop nor configure it."""
    shared_server.run("FLUSHALL")
    return shared_server


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A server without persistence, for tests that stop or configure it."""
    with RedisServer() as server:
        yield server


Make = Callable[..., RedisBackend]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make backends that are disconnected after the test."""
    made: list[RedisBackend] = []

    def make(url: str, **options: Any) -> RedisBackend:
        made.append(RedisBackend(url, **options))
        return made[-1]

    yield make
    for backend in made:
        done(backend.disconnect())


@pytest.fixture
def backend(server: RedisServer, make: Make) -> RedisBackend:
    return make(server.url)


class Listening:
    """A backend's ``listen`` in a task, what it heard, and how it ended."""

    def __init__(self, backend: RedisBackend) -> None:
        self.heard: Heard = []
        self._future = background.submit(backend.listen(self.heard.append))

    def __enter__(self) -> Self:
        wait_until(lambda: self.heard or self._future.done())
        return self

    def __exit__(self, *_: object) -> None:
        self._future.cancel()
        with contextlib.suppress(BaseException):
            self._future.result(5)

    @property
    def goes_on(self) -> bool:
        return not self._future.done()

    def error(self, seconds: float = 10) -> BaseException | None:
        """Wait for the end and return its error."""
        return self._future.exception(seconds)


# What it stores


def test_nothing_stored_is_none_and_not_off(backend: RedisBackend) -> None:
    assert done(backend.load()) is None


def test_what_is_stored_is_read_again(backend: RedisBackend, server: RedisServer) -> None:
    change = turned("read_only", reason='Größe "x" \\ {[,:', until=datetime.now(UTC) + SOON, by="me")
    state = done(backend.apply(change))
    assert state == done(backend.load())
    assert (state.epoch, state.version, state.mode, state.updated_by) == (change.id, 1, "read_only", "me")
    assert state.updated_at is not None
    assert abs(state.updated_at - datetime.now(UTC)) < timedelta(seconds=5)
    document = json.loads(server.run("GET", "fastapi-maintenance:{default}"))
    assert list(document)[:4] == ["schema", "epoch", "version", "mode"]
    assert document["updated_at"].endswith("Z")


def test_the_value_is_a_boolean_for_those_who_want_one(backend: RedisBackend) -> None:
    asyncio.run(backend.set_value(True))
    assert asyncio.run(backend.get_value())
    asyncio.run(backend.set_value(False))
    assert not asyncio.run(backend.get_value())


def test_reading_is_one_round_trip(backend: RedisBackend, server: RedisServer) -> None:
    done(backend.load())
    before = server.run("INFO", "commandstats")
    done(backend.load())
    after = server.run("INFO", "commandstats")
    grown = {name for name in after if after[name] != before.get(name)}
    assert grown - {"cmdstat_info", "cmdstat_hello", "cmdstat_client"} == {
        "cmdstat_get",
        "cmdstat_time",
    }  # those are of done()
    assert after["cmdstat_get"]["calls"] == before["cmdstat_get"]["calls"] + 1


@pytest.mark.parametrize("persistent", [True, False])
def test_a_restart_keeps_what_the_server_keeps(make: Make, persistent: bool) -> None:
    with RedisServer(persistent=persistent) as server:
        backend = make(server.url)
        state = done(backend.apply(turned()))
        server.restart()
        assert done(backend.load()) == (state if persistent else None)


def test_a_unix_socket_serves_as_well(make: Make, server: RedisServer) -> None:
    backend = make(f"{server.unix_url}?db=3")
    done(backend.apply(turned()))
    assert server.run("EXISTS", backend.key, db=3) == 1
    assert repr(backend) == f"RedisBackend('{server.unix_url}?db=3', key='fastapi-maintenance:{{default}}')"
    assert repr(make(server.unix_url)).startswith(f"RedisBackend('{server.unix_url}',")


# The script and Change.applied_to

IDS = ["a", "b", "c", 'quo"te', "back\\slash\\", "{[,:]}", "ü😀\u2028", "", "\0", "null", "/"]
TEXTS = st.one_of(st.sampled_from(IDS), st.text(max_size=20), st.just(" " * 500))
PRESENT = datetime.now(UTC).replace(microsecond=123000)
TIMES = st.sampled_from(
    [
        datetime(1960, 1, 1, tzinfo=UTC),
        PRESENT - SOON,
        PRESENT + SOON,
        PRESENT + timedelta(days=30000),
        datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC),  # 15 digits: more than cjson writes
    ]
)
HOLDS = st.builds(
    Hold,
    kind=st.sampled_from(["on", "off"]),
    owner=TEXTS,
    reason=st.none() | TEXTS,
    expires_at=st.none() | TIMES,
    masks=st.frozensets(st.sampled_from(IDS), max_size=3),
)
HOLDS_BY_ID = st.dictionaries(st.sampled_from(IDS), HOLDS, max_size=4)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from(MaintenanceMode),
        "reason": st.none() | TEXTS,
        "since": st.none() | TIMES,
        "until": st.none() | TIMES,
    },
)
SOME_IDS = st.frozensets(st.sampled_from(IDS), max_size=2)
CHANGES = st.builds(
    Change,
    fields=FIELDS,
    put_holds=HOLDS_BY_ID,
    drop_holds=SOME_IDS,
    break_holds=st.booleans(),
    expected_version=st.sampled_from([None, None, None, 0, 1, 2, 2**53 - 9]),
    required_holds=st.just(frozenset()) | SOME_IDS,
    refuse_while_held=st.booleans(),
    is_renewal=st.booleans(),
    by=st.none() | TEXTS,
    id=st.uuids().map(lambda id_: id_.hex),
)
STATES = st.builds(
    MaintenanceState,
    epoch=st.sampled_from(["", "e"]),
    version=st.sampled_from([0, 1, 2**53 - 9]),
    mode=st.sampled_from(MaintenanceMode),
    reason=st.none() | TEXTS,
    until=st.none() | TIMES,
    holds=HOLDS_BY_ID,
    updated_by=st.none() | TEXTS,
)
WRITERS: list[Callable[[MaintenanceState], str | bytes]] = [
    MaintenanceState.to_json,
    lambda state: json.dumps(json.loads(state.to_json()), indent=2),  # written by hand: spaces, escapes
    lambda state: f" {state.model_dump_json(by_alias=True)} ",  # everything, also null, {} and []
]


def outcome(apply: Callable[[], MaintenanceState]) -> object:
    """Return what came of a change, but when."""
    try:
        return seen_of(apply())
    except ChangeRejected as error:
        return type(error), vars(error)


def is_refusal(outcome: object) -> bool:
    return isinstance(outcome, tuple) and isinstance(outcome[0], type)


def seen_of(state: MaintenanceState) -> object:
    return state.model_dump(exclude={"updated_at"}), list(state.holds)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(stored=st.none() | STATES, write=st.sampled_from(WRITERS), changes=st.lists(CHANGES, min_size=1, max_size=5))
def test_the_script_does_what_applied_to_says(
    shared_server: RedisServer,
    stored: MaintenanceState | None,
    write: Callable[[MaintenanceState], str | bytes],
    changes: list[Change],
) -> None:
    backend = RedisBackend(shared_server.url, key=uuid.uuid4().hex, timeout_seconds=5)
    if stored is not None:
        shared_server.run("SET", backend.key, write(stored))
    for change in changes:
        before = done(backend.load()) or MaintenanceState()
        should_be = outcome(lambda: change.applied_to(before, datetime.now(UTC)))  # noqa: B023 - called at once
        assert outcome(lambda: done(backend.apply(change))) == should_be  # noqa: B023
        after = done(backend.load()) or MaintenanceState()
        assert after == before if is_refusal(should_be) else seen_of(after) == should_be
    done(backend.disconnect())


def test_members_that_the_script_does_not_know_stay(backend: RedisBackend, server: RedisServer) -> None:
    """Text by text: a newer version of this package may have put them there."""
    more = '"plans":[{"a":[]},{"b":{}},1.50,12345678901234567890,"}]"]'
    server.run("SET", backend.key, '{"schema":1,"mode":"on",' + more + "}")
    keys = (backend.key, "sign", "aside")
    deadline = 10**13
    arguments = (Change(put_holds={"h": on_hold()}).to_json(), deadline, '"x"', 1000, MAX_BYTES, "", "channel")
    server.run("EVAL", backend._script, 3, *keys, *arguments)
    assert more.encode() in server.run("GET", backend.key)


# Changes that are refused, or come twice


def test_a_change_is_made_once(backend: RedisBackend, server: RedisServer) -> None:
    """A repeated one is answered with what is stored now, whatever it requires."""
    first = Change(fields={"reason": "first"}, expected_version=0)
    done(backend.apply(first))
    latest = done(backend.apply(Change(fields={"reason": "second"})))
    assert done(backend.apply(first)) == latest
    assert server.run("PTTL", f"{backend.key}:made:{first.id}") > 50_000


def test_a_change_that_was_made_stays_made_when_the_key_was_deleted(
    backend: RedisBackend, server: RedisServer
) -> None:
    change = turned()
    done(backend.apply(change))
    server.run("DEL", backend.key)
    assert done(backend.apply(change)) == MaintenanceState()
    assert done(backend.load()) is None


def test_a_repeated_change_is_answered_whatever_is_stored_now(backend: RedisBackend, server: RedisServer) -> None:
    change = turned()
    done(backend.apply(change))
    server.run("SET", backend.key, b"\xff")
    with pytest.raises(CorruptState):
        done(backend.apply(change))
    assert server.run("GET", backend.key) == b"\xff"


def test_refusals_say_why_and_change_nothing(backend: RedisBackend, server: RedisServer) -> None:
    done(backend.apply(Change(put_holds={"1": on_hold("zoe"), "2": on_hold("adam"), "3": on_hold("x")})))
    done(backend.apply(Change(drop_holds=frozenset({"3"}))))
    with Listening(backend) as listening:
        before = server.run("GET", backend.key)
        with pytest.raises(VersionConflict) as conflict:
            done(backend.apply(Change(expected_version=7)))
        assert (conflict.value.expected, conflict.value.actual) == (7, 2)
        with pytest.raises(HoldLost) as lost:
            done(backend.apply(Change(required_holds=frozenset({"3", "1", "0"}))))
        assert lost.value.ids == ("0", "3")
        with pytest.raises(SwitchIsHeld) as held:
            done(backend.apply(Change(refuse_while_held=True)))
        assert held.value.owners == ("adam", "zoe")
        assert server.run("GET", backend.key) == before
        time.sleep(0.05)
        assert listening.heard == [None]


def test_a_document_that_would_be_too_large_is_refused(backend: RedisBackend, server: RedisServer) -> None:
    done(backend.apply(turned(reason="x" * (MAX_BYTES - 500))))
    before = server.run("GET", backend.key)
    with pytest.raises(InvalidConfiguration, match=r"at most 65536 are stored"):
        done(backend.apply(Change(put_holds={"h": on_hold("y" * 500)})))
    assert server.run("GET", backend.key) == before


def test_a_long_reason_does_not_hold_the_server_up(backend: RedisBackend, server: RedisServer) -> None:
    done(backend.apply(turned(reason=' "' * 15_000)))
    before = server.run("INFO", "commandstats")["cmdstat_evalsha"]
    done(backend.apply(Change(put_holds={"h": on_hold()})))
    after = server.run("INFO", "commandstats")["cmdstat_evalsha"]
    assert after["calls"] == before["calls"] + 1
    assert after["usec"] - before["usec"] < 500_000


def test_expired_holds_go_with_the_next_change(backend: RedisBackend) -> None:
    holds = {"old": on_hold(expires_in=-SOON), "young": on_hold(), "endless": on_hold(expires_in=None)}
    done(backend.apply(Change(put_holds=holds)))
    assert set(done(backend.apply(Change())).holds) == {"young", "endless"}


def test_renewals_are_no_news(backend: RedisBackend) -> None:
    state = done(backend.apply(Change(put_holds={"h": on_hold()})))
    longer = on_hold(expires_in=2 * SOON)
    with Listening(backend) as listening:
        renewal = Change(put_holds={"h": longer}, required_holds=frozenset({"h"}), is_renewal=True)
        renewed = done(backend.apply(renewal))
        assert renewed.version == state.version
        assert renewed.holds["h"].expires_at > state.holds["h"].expires_at  # type: ignore[operator]
        news = done(backend.apply(Change()))
        wait_until(lambda: len(listening.heard) > 1)
        assert listening.heard == [None, news]


def test_a_script_that_the_server_forgot_is_sent_again(backend: RedisBackend, server: RedisServer) -> None:
    done(backend.apply(Change()))
    server.run("SCRIPT", "FLUSH")
    assert done(backend.apply(Change())).version == 2


# Documents that can't be read

UNREADABLE = {
    "empty": b"",
    "nonsense": b"nonsense",
    "a list": b"[]",
    "null": b"null",
    "half of one": b'{"schema":1,"mode":"on","rea',
    "an unknown mode": b'{"schema":1,"mode":"onn"}',
    "no date": b'{"schema":1,"mode":"on","until":"2026-13-45T00:00:00Z"}',
    "no version": b'{"schema":1,"version":"x"}',
    "nested deeply": b'{"schema":1,"holds":' + b"[" * 5000,
    "no schema": b'{"mode":"on"}',
    "another schema": b'{"schema":2,"mode":"on"}',
    "too large": b'{"schema":1,"reason":"' + b"x" * MAX_BYTES + b'"}',
    "no UTF-8": b'{"schema":1,"reason":"\xff"}',
}
CAUTIOUS = {
    "hold": Change(put_holds={"h": Hold(kind="on")}),
    "expected version": Change(fields={"mode": MaintenanceMode.OFF}, expected_version=0),
    "required hold": Change(fields={"mode": MaintenanceMode.OFF}, required_holds=frozenset({"h"})),
    "refuse while held": Change(fields={"mode": MaintenanceMode.OFF}, refuse_while_held=True),
}


@pytest.mark.parametrize("document", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_an_unreadable_document_is_a_failure_until_a_mode_is_set(
    backend: RedisBackend, server: RedisServer, document: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    server.run("SET", backend.key, document)
    with pytest.raises(CorruptState, match=r"key fastapi-maintenance:\{default\} at redis://127\.0\.0\.1"):
        done(backend.load())
    for change in CAUTIOUS.values():
        with pytest.raises(CorruptState, match="nothing was changed, set a mode to replace it"):
            done(backend.apply(change))
    assert server.run("GET", backend.key) == document

    change = turned(by="operator")
    state = done(backend.apply(change))
    assert (state.epoch, state.version, state.mode) == (change.id, 1, "on")
    assert done(backend.load()) == state
    assert server.run("GET", f"{backend.key}:unreadable") == document
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "kept as fastapi-maintenance:{default}:unreadable" in caplog.text


def test_a_key_of_another_type_is_unreadable(backend: RedisBackend, server: RedisServer) -> None:
    server.run("RPUSH", backend.key, "something", "else")
    with pytest.raises(CorruptState, match="another type"):
        done(backend.load())
    with pytest.raises(CorruptState, match="another type"):
        done(backend.apply(Change(put_holds={"h": on_hold()})))
    assert done(backend.apply(turned())).version == 1
    assert server.run("LRANGE", f"{backend.key}:unreadable", 0, -1) == [b"something", b"else"]


@pytest.mark.parametrize("document", [b"nonsense", b"[1]", b"1", b'{"version":"x"}', b'{"holds":1}', None])
def test_an_unreadable_document_that_comes_in_between_is_left_alone(
    backend: RedisBackend, server: RedisServer, document: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the document and the script, somebody stores something else."""
    look = backend._looked_at

    async def late_look(change: Change) -> Any:
        seen = await look(change)
        await asyncio.to_thread(server.run, *stored)
        return seen

    stored = ("RPUSH", backend.key, "x") if document is None else ("SET", backend.key, document)
    monkeypatch.setattr(backend, "_looked_at", late_look)
    with pytest.raises(CorruptState, match="while the change was made"):
        done(backend.apply(turned()))
    assert server.run("TYPE", backend.key) == (b"list" if document is None else b"string")


def test_a_document_that_somebody_else_repaired_is_not_replaced(
    backend: RedisBackend, server: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    look = backend._looked_at
    server.run("SET", backend.key, "nonsense")

    async def late_look(change: Change) -> Any:
        seen = await look(change)
        repaired = MaintenanceState(epoch="e", version=5, holds={"h": on_hold()})
        await asyncio.to_thread(server.run, "SET", backend.key, repaired.to_json())
        return seen

    monkeypatch.setattr(backend, "_looked_at", late_look)
    state = done(backend.apply(turned()))
    assert (state.epoch, state.version, set(state.holds)) == ("e", 6, {"h"})
    assert not caplog.records


# Deadlines and outcomes


def test_a_change_that_timed_out_is_not_made_later(server: RedisServer, make: Make) -> None:
    """The connection holds it back, and delivers it after all."""
    with SilentProxy(server.port) as proxy:
        backend = make(f"redis://127.0.0.1:{proxy.port}", timeout_seconds=1)
        done(backend.apply(turned("off")))
        proxy.fall_silent(after=b"EVALSHA")
        started = time.monotonic()
        with pytest.raises(OutcomeUnknown, match=r"did not say whether the change was made: no answer within 1 s"):
            done(backend.apply(turned("on")))
        assert time.monotonic() - started < 1.9  # its time is not given twice
        calls = server.run("INFO", "commandstats")["cmdstat_evalsha"]["calls"]
        proxy.speak()
        wait_until(lambda: server.run("INFO", "commandstats")["cmdstat_evalsha"]["calls"] > calls)
        state = done(backend.load())
    assert state is not None
    assert (state.version, state.mode) == (1, "off")


def test_a_stopped_server_does_not_make_the_change_when_it_goes_on(
    own_server: RedisServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make(own_server.url, timeout_seconds=0.3)
    done(backend.apply(turned("off")))
    look = backend._looked_at

    async def look_and_stop(change: Change) -> Any:
        seen = await look(change)
        own_server.pause()
        return seen

    monkeypatch.setattr(backend, "_looked_at", look_and_stop)
    with pytest.raises(OutcomeUnknown):
        done(backend.apply(turned("on")))
    own_server.resume()
    time.sleep(0.1)
    state = done(backend.load())
    assert state is not None
    assert (state.version, state.mode) == (1, "off")


def test_a_server_that_is_stopped_before_is_not_available(own_server: RedisServer, make: Make) -> None:
    backend = make(own_server.url, timeout_seconds=0.8)
    done(backend.apply(turned("off")))
    own_server.pause()
    for ask in (lambda: backend.apply(turned("on")), backend.load):
        started = time.monotonic()
        with pytest.raises(BackendUnavailable, match=r"no answer within 0\.8 s") as error:
            done(ask())
        assert type(error.value) is BackendUnavailable
        assert time.monotonic() - started < 1.5  # its time is not given twice
    own_server.resume()
    state = done(backend.load())
    assert state is not None
    assert state.mode == "off"


def test_a_change_that_comes_too_late_is_refused(backend: RedisBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SHARE_FOR_THE_ANSWER", 1.5)  # the deadline is over when it is set
    with pytest.raises(DeadlinePassed):
        done(backend.apply(turned()))
    assert done(backend.load()) is None


def lose_answers(backend: RedisBackend, monkeypatch: pytest.MonkeyPatch, *, first: Callable[[], object]) -> None:
    """Have the first answer to the script get lost on its way, and something happen then."""
    answers = backend._connections.answers
    lost = False

    async def answers_to(connection: Any, *commands: tuple[Any, ...]) -> list[Any]:
        nonlocal lost
        replies = await answers(connection, *commands)
        if commands[0][0] == "EVALSHA" and not lost:
            lost = True
            await asyncio.to_thread(first)
            raise module._Lost("the test lost it")
        return replies

    monkeypatch.setattr(backend._connections, "answers", answers_to)


def test_a_lost_answer_is_asked_for_again(backend: RedisBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    done(backend.apply(Change(fields={"reason": "first"})))
    lose_answers(backend, monkeypatch, first=lambda: None)
    state = done(backend.apply(Change(fields={"reason": "second"}, expected_version=1)))
    assert (state.version, state.reason) == (2, "second")


def test_the_server_may_restart_during_a_change(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with RedisServer(persistent=True) as server:
        backend = make(server.url, timeout_seconds=5)
        done(backend.apply(Change()))
        lose_answers(backend, monkeypatch, first=server.restart)
        assert done(backend.apply(Change())).version == 2


def test_a_server_that_dies_during_a_change_leaves_it_unknown(
    own_server: RedisServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make(own_server.url, timeout_seconds=0.3)
    done(backend.apply(Change()))
    lose_answers(backend, monkeypatch, first=own_server.kill)
    with pytest.raises(OutcomeUnknown):
        done(backend.apply(Change()))


def test_a_refusal_after_a_lost_answer_leaves_it_unknown(
    own_server: RedisServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make(own_server.url)

    def reconfigure() -> None:
        own_server.run("FLUSHALL")
        own_server.run("REPLICAOF", "127.0.0.1", "1")

    done(backend.apply(Change()))
    lose_answers(backend, monkeypatch, first=reconfigure)
    with pytest.raises(OutcomeUnknown, match="read only replica"):
        done(backend.apply(Change()))


def test_a_server_that_dies_before_a_change_is_not_available(
    own_server: RedisServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it had been asked for its time."""
    backend = make(own_server.url)
    look = backend._looked_at

    async def look_and_kill(change: Change) -> Any:
        seen = await look(change)
        await backend.disconnect()
        await asyncio.to_thread(own_server.kill)
        return seen

    monkeypatch.setattr(backend, "_looked_at", look_and_kill)
    with pytest.raises(BackendUnavailable, match="Error 111 connecting") as error:
        done(backend.apply(turned()))
    assert type(error.value) is BackendUnavailable


REFUSING = {
    "replica": (["REPLICAOF", "127.0.0.1", "1"], "read only replica"),
    "out of memory": (["CONFIG", "SET", "maxmemory", "1"], "OOM|maxmemory"),
    "no scripts": (["ACL", "SETUSER", "default", "-evalsha"], "no permissions"),
    "no time": (["ACL", "SETUSER", "default", "-time"], "no permissions"),
    "no reading": (["ACL", "SETUSER", "default", "-get"], "no permissions"),
}


@pytest.mark.parametrize(("command", "problem"), REFUSING.values(), ids=REFUSING.keys())
def test_a_server_that_refuses_is_not_available_and_changes_nothing(
    own_server: RedisServer, make: Make, command: list[str], problem: str
) -> None:
    backend = make(own_server.url)
    done(backend.apply(Change()))
    before = own_server.run("GET", backend.key)
    own_server.run(*command)
    with pytest.raises(BackendUnavailable, match=problem) as error:
        done(backend.apply(turned()))
    assert type(error.value) is BackendUnavailable
    own_server.run("ACL", "SETUSER", "default", "+@all")
    assert own_server.run("GET", backend.key) == before


def test_who_may_write_but_not_publish_makes_changes_all_the_same(own_server: RedisServer, make: Make) -> None:
    own_server.run("ACL", "SETUSER", "quiet", "on", "nopass", "~*", "+@all", "resetchannels")
    backend = make(f"redis://quiet:any@127.0.0.1:{own_server.port}")
    with Listening(make(own_server.url)) as listening:
        assert done(backend.apply(turned())).version == 1
        assert listening.heard == [None]
    with pytest.raises(BackendUnavailable, match="channel"):
        done(backend.listen(lambda _: None))


def test_dead_idle_connections_cost_no_failure(own_server: RedisServer, make: Make) -> None:
    backend = make(own_server.url)

    async def load_often() -> None:
        await asyncio.gather(*(backend.load() for _ in range(6)))

    done(load_often())
    own_server.run("CLIENT", "KILL", "TYPE", "normal")
    assert done(backend.load()) is None
    done(load_often())
    own_server.restart()
    assert done(backend.apply(turned())).version == 1
    own_server.kill()
    with pytest.raises(BackendUnavailable, match="Error 111 connecting"):
        done(backend.load())


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b":x\r\n:x\r\n", b"x" * 100_000, b""])
def test_a_server_that_is_no_redis_is_not_available(make: Make, answer: bytes) -> None:
    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(answer)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as speaking_otherwise:
            backend = make(f"redis://127.0.0.1:{speaking_otherwise.sockets[0].getsockname()[1]}")
            for attempt in (backend.load(), backend.apply(turned()), backend.listen(lambda _: None)):
                with pytest.raises(BackendUnavailable):
                    await attempt

    done(main())


# Listening


def test_changes_are_heard_at_once(backend: RedisBackend, server: RedisServer, make: Make) -> None:
    with Listening(backend) as listening:
        assert listening.heard == [None]
        states = [done(make(server.url).apply(turned(mode))) for mode in ("on", "read_only", "off")]
        wait_until(lambda: len(listening.heard) == 4)
        assert listening.heard[1:] == states


def test_what_is_pushed_and_unreadable_has_to_be_read(backend: RedisBackend, server: RedisServer) -> None:
    with Listening(backend) as listening:
        assert server.run("PUBLISH", f"{backend.key}@0", "nonsense") == 1
        wait_until(lambda: len(listening.heard) == 2)
        assert listening.heard == [None, None]


def test_another_database_of_the_server_is_another_world(server: RedisServer, make: Make) -> None:
    """Channels are the same in all databases."""
    here, there = make(server.url), make(server.url.replace("/0", "/1"))
    with Listening(here) as listening:
        done(there.apply(turned()))
        state = done(here.apply(turned("read_only")))
        wait_until(lambda: len(listening.heard) == 2)
        assert listening.heard == [None, state]


def test_a_quiet_connection_stays(server: RedisServer, make: Make) -> None:
    backend = make(server.url, timeout_seconds=0.3)
    with Listening(backend) as listening:
        before = server.run("INFO", "commandstats")["cmdstat_ping"]["calls"]
        time.sleep(2.4)
        assert listening.goes_on
        pings = server.run("INFO", "commandstats")["cmdstat_ping"]["calls"] - before
        assert 2 <= pings <= 8, pings


def test_a_killed_subscriber_notices(backend: RedisBackend, server: RedisServer) -> None:
    with Listening(backend) as listening:
        server.run("CLIENT", "KILL", "TYPE", "pubsub")
        error = listening.error()
        assert isinstance(error, BackendUnavailable)
        assert "silent" not in str(error)  # which it would notice as well, and later


def test_a_connection_that_falls_silent_is_given_up(server: RedisServer, make: Make) -> None:
    with SilentProxy(server.port) as proxy:
        backend = make(f"redis://127.0.0.1:{proxy.port}", timeout_seconds=0.2)
        with Listening(backend) as listening:
            proxy.fall_silent()
            started = time.monotonic()
            error = listening.error()
            assert 0.3 < time.monotonic() - started < 1.5
        assert isinstance(error, BackendUnavailable)
        assert str(error).endswith("silent for 0.6 s")


def test_a_silent_server_does_not_confirm(own_server: RedisServer, make: Make) -> None:
    backend = make(own_server.url, timeout_seconds=0.2)
    own_server.pause()
    with Listening(backend) as listening:
        assert str(listening.error()).endswith("no answer within 0.2 s")
        assert listening.heard == []
    own_server.resume()


def test_a_connection_that_the_kernel_declares_dead_is_lost(
    backend: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ETIMEDOUT is a TimeoutError: with a time-out of its own, redis-py's reader takes it for a quiet moment."""
    made: list[Any] = []
    new = backend._connections._new

    def kept() -> Any:
        made.append(new())
        return made[-1]

    monkeypatch.setattr(backend._connections, "_new", kept)
    with Listening(backend) as listening:
        dead = TimeoutError(errno.ETIMEDOUT, "Connection timed out")
        done(_call(lambda: made[0]._reader.set_exception(dead)))
        error = listening.error()
        assert isinstance(error, BackendUnavailable)
        assert "silent" not in str(error)


async def _call(function: Callable[[], object]) -> None:
    function()


def test_a_message_may_come_in_pieces(make: Make) -> None:
    """With a silence in the middle of it that is longer than a round."""
    state = MaintenanceState(mode=MaintenanceMode.ON, reason="x" * 1000)
    message = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$%d\r\n%s\r\n" % (len(state.to_json()), state.to_json())

    async def main() -> None:
        heard: Heard = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while b"SUBSCRIBE" not in (asked := await reader.read(1000)):
                writer.write(b"+OK\r\n" * asked.count(b"*"))
            writer.write(b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n")
            writer.write(message[:100])
            await asyncio.sleep(0.35)
            writer.write(message[100:])
            with contextlib.suppress(OSError):
                await reader.read()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            backend = make(f"redis://127.0.0.1:{port}", timeout_seconds=0.3)
            with pytest.raises(BackendUnavailable, match="silent"):
                await backend.listen(heard.append)
        assert heard == [None, state]

    done(main())


def test_an_error_of_the_listener_comes_out(backend: RedisBackend, server: RedisServer) -> None:
    def heard(_: object) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        done(backend.listen(heard))
    assert not subscribers(server)


# Cancellation, connections, event loops


def subscribers(server: RedisServer) -> list[Any]:
    found: list[Any] = server.run("CLIENT LIST", "TYPE", "pubsub")
    return found


def connections(server: RedisServer) -> int:
    """How many connections the server has beside the one that asks."""
    return len(server.run("CLIENT LIST")) - 1


@pytest.mark.parametrize("is_connected", [False, True])
@pytest.mark.parametrize("what", ["load", "apply", "listen"])
def test_a_cancellation_is_never_lost(own_server: RedisServer, make: Make, what: str, is_connected: bool) -> None:
    """Cancelled at each of its steps, once, it ends; and it leaves no connection behind."""
    backend = make(own_server.url)
    own_server.run("SCRIPT", "LOAD", backend._script)

    async def ended_before(steps: int) -> bool:
        if is_connected:
            await backend.load()
        do: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
            "load": backend.load,
            "apply": lambda: backend.apply(Change()),
            "listen": lambda: backend.listen(lambda _: None),
        }
        task = asyncio.create_task(do[what]())
        for _ in range(steps):
            await asyncio.sleep(0)
        has_ended = task.done()
        task.cancel()
        await asyncio.wait({task}, timeout=20)
        assert task.cancelled() or has_ended, f"after {steps} steps the cancellation was lost"
        await backend.disconnect()
        return has_ended

    for steps in range(300):  # more than it takes; listening never ends by itself
        if done(ended_before(steps)):
            break
    wait_until(lambda: not connections(own_server))


def test_siblings_share_connections_and_not_keys(backend: RedisBackend, server: RedisServer) -> None:
    options: dict[str, Any] = {
        "poll_seconds": 2,
        "timeout_seconds": 3,
        "on_backend_error": "closed",
        "max_stale": 4.0,
        "initial": MaintenanceMode.ON,
        "init_timeout": 5,
    }
    default = RedisBackend(server.url, **options)
    billing = default.sibling("billing")
    assert billing.key == "fastapi-maintenance:{billing}"
    assert {name: getattr(billing, name) for name in options} == options
    wait_until(lambda: not connections(server))
    done(default.apply(turned("on")))
    done(billing.apply(turned("read_only")))
    for each, mode in ((default, "on"), (billing, "read_only")):
        state = done(each.load())
        assert state is not None
        assert state.mode == mode
    assert connections(server) == 1
    done(billing.disconnect())
    wait_until(lambda: not connections(server))


@pytest.mark.parametrize(
    ("key", "siblings"),
    [("shop:{default}:x", "shop:{billing}:x"), ("shop", "shop:{billing}")],
)
def test_a_sibling_has_its_name_in_the_key(make: Make, key: str, siblings: str) -> None:
    assert make("redis://localhost", key=key).sibling("billing").key == siblings


def test_few_connections_stay_idle_and_not_for_long(
    own_server: RedisServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SECONDS_IDLE", 0.1)
    backend = make(own_server.url)

    async def load_often() -> None:
        await asyncio.gather(*(backend.load() for _ in range(20)))

    done(load_often())
    wait_until(lambda: connections(own_server) == 4)
    wait_until(lambda: not connections(own_server))
    done(load_often())
    wait_until(lambda: not connections(own_server))


def test_nothing_leaks_when_nobody_closes_anything(server: RedisServer) -> None:
    code = """
import asyncio, sys
from fastapi_maintenance import background
from fastapi_maintenance.backends.redis import RedisBackend

backend = RedisBackend(sys.argv[1])
for _ in range(2):
    asyncio.run(backend.set_value(True))
heard = []
background.submit(backend.listen(heard.append))
asyncio.run(backend.get_value())
background.stop()
print(asyncio.run(backend.get_value()))
"""
    assert output_of(code, server.url) == "True\n"


def test_a_forked_child_has_connections_of_its_own(server: RedisServer) -> None:
    code = """
import asyncio, os, sys
from fastapi_maintenance.backends.redis import RedisBackend

backend = RedisBackend(sys.argv[1])
asyncio.run(backend.set_value(True))
if child := os.fork():
    assert os.waitpid(child, 0)[1] == 0
    for _ in range(20):
        assert not asyncio.run(backend.get_value())
else:
    asyncio.run(backend.set_value(False))
    os._exit(0)
"""
    output_of(code, server.url)


def test_connections_of_another_event_loop_are_left_alone(server: RedisServer, backend: RedisBackend) -> None:
    """As in a forked child, where they are the parent's."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(backend.load())
    done(backend.load())
    last: Any = module._forgotten.pop()
    whose, keeper, forgotten = last
    assert whose is loop
    assert [connection.is_connected for connection in forgotten] == [True]
    assert connections(server) == 2
    keeper.cancel()
    loop.run_until_complete(asyncio.wait({keeper}))
    loop.close()
    wait_until(lambda: connections(server) == 1)
    assert [connection.is_connected for connection in backend._connections._idle] == [True]


def test_ten_processes_lose_nothing(server: RedisServer, backend: RedisBackend) -> None:
    code = """
import os, sys
from fastapi_maintenance import background
from fastapi_maintenance.backends.redis import RedisBackend
from fastapi_maintenance.state import Change, Hold

backend = RedisBackend(sys.argv[1], timeout_seconds=10)
children = []
while len(children) < 10:
    child = os.fork()
    if child:
        children.append(child)
        continue
    for number in range(20):
        change = Change(put_holds={f"{len(children)}-{number}": Hold(kind="on")})
        background.submit(backend.apply(change)).result(60)
    os._exit(0)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
"""
    output_of(code, server.url)
    state = done(backend.load())
    assert state is not None
    assert (state.version, len(state.holds)) == (200, 200)


# URLs and credentials


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://", "redis://localhost:6379/0"),
        ("redis://host:1/2", "redis://host:1/2"),
        ("redis://[::1]:7/", "redis://[::1]:7/0"),
        ("redis://user:s3cret@host", "redis://host:6379/0"),
        ("redis://:s3cret@host?db=4", "redis://host:6379/4"),
        ("redis://host/1?password=s3cret&username=user", "redis://host:6379/1"),
        ("rediss://user:s3cret@host:6380/0?ssl_cert_reqs=none&password=s3cret", "rediss://host:6380/0"),
        ("unix://user:s3cret@/run/redis.sock?db=1&password=s3cret", "unix:///run/redis.sock?db=1"),
        (
            "redis://host?max_connections=3&timeout=2&socket_timeout=9&retry_on_timeout=1&protocol=3",
            "redis://host:6379/0",
        ),
    ],
)
def test_a_url_is_shown_without_credentials(url: str, shown: str) -> None:
    backend = RedisBackend(url)
    assert repr(backend) == f"RedisBackend('{shown}', key='fastapi-maintenance:{{default}}')"


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:s3cret/x@host/0",
        "redis://user:s3cret#x@host",
        "redis://user:s3cret?x@host",
        "redis://s3cret/x@host",
        "redis://[s3cret",
        "redis://host:s3cret",
        "redis://host/s3cret",
        "redis://host/0#s3cret",
        "unix://s3cret",
        "http://s3cret@host",
        "redis:/s3cret@host",
        "s3cret",
        "redis://user:s3cret@host?db=many",
        "redis://user:s3cret@host?unknown_option=1",
    ],
)
def test_a_url_that_cannot_work_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(InvalidConfiguration, match="a Redis URL can't be used") as error:
        RedisBackend(url)
    assert "s3cret" not in str(error.value)
    assert error.value.__suppress_context__ or error.value.__context__ is None


def test_other_options_that_cannot_work_are_refused() -> None:
    with pytest.raises(InvalidConfiguration, match="a Redis URL is needed"):
        RedisBackend(None)  # type: ignore[arg-type]
    with pytest.raises(InvalidConfiguration, match="key=''"):
        RedisBackend(key="")
    with pytest.raises(InvalidConfiguration, match="timeout_seconds"):
        RedisBackend(timeout_seconds=0)


def test_no_error_tells_the_credentials(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    renamed = ("--rename-command", "AUTH", "LOGIN")  # so that the server quotes what it does not know
    for options in (("--requirepass", "another"), renamed):
        with RedisServer(*options, password="another" if "another" in options else None) as server:
            backend = make(f"redis://us3r:s3cret@127.0.0.1:{server.port}/0")
            for attempt in (backend.load, lambda b=backend: b.apply(turned()), lambda b=backend: b.listen(print)):
                with pytest.raises(BackendUnavailable) as error:
                    done(attempt())
                assert "s3cret" not in f"{error.value} {error.value!r} {error.value.problem} {caplog.text}"
                assert "us3r" not in str(error.value)
    assert "***" in str(error.value)


def test_credentials_are_used(make: Make) -> None:
    with RedisServer("--requirepass", "s/cr@t", password="s/cr@t") as server:
        backend = make(f"redis://:s%2Fcr%40t@127.0.0.1:{server.port}")
        assert done(backend.apply(turned())).version == 1


# Nobody's secret: made for this test with openssl.
LOCALHOST = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgj55TRGOnPDYaaOvB
KnUIKoKJO8hNe7bQhNyqIGXMbJ+hRANCAARSZmPnuPfJXZTC9z0KCvCjFg5fCd6/
mrpiwwXWM+Ln7k/rXQr6iwZk+x2cooAYNbCqZn50apzpR5+o6sPLooHk
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBmzCCAUGgAwIBAgIUZhkd3fftNNjFCwQbyFo0O89qk9gwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTAwMjgxMVoYDzIxMjYxMDI4
MDAyODExWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAARSZmPnuPfJXZTC9z0KCvCjFg5fCd6/mrpiwwXWM+Ln7k/rXQr6iwZk
+x2cooAYNbCqZn50apzpR5+o6sPLooHko28wbTAdBgNVHQ4EFgQUZY5ON4GmjT9m
dQhuIc3ji4QvC6cwHwYDVR0jBBgwFoAUZY5ON4GmjT9mdQhuIc3ji4QvC6cwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSAAwRQIhAN4ImQjwpAL0xrhLZxozfWqK7NjPin88VPWVGGU9xZ5vAiBS
uZLItii6Ez0QI0mOb9/UOAHnVoiqBTQDI5DyCQJx4A==
-----END CERTIFICATE-----
"""


def test_tls_is_spoken_where_it_is_asked_for(server: RedisServer, make: Make, tmp_path: Path) -> None:
    certificate = tmp_path / "localhost.pem"
    certificate.write_text(LOCALHOST)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_server = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(forward(reader, to_server[1]), forward(to_server[0], writer))

    async def main() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as tls:
            url = f"rediss://localhost:{tls.sockets[0].getsockname()[1]}/0"
            trusting = make(f"{url}?ssl_ca_certs={certificate}")
            heard: asyncio.Queue[MaintenanceState | None] = asyncio.Queue()
            listening = asyncio.create_task(trusting.listen(heard.put_nowait))
            assert await heard.get() is None
            assert await trusting.apply(turned()) == await heard.get()
            listening.cancel()
            await asyncio.wait({listening})
            await trusting.disconnect()
            with pytest.raises(BackendUnavailable, match="connecting to localhost"):
                await make(url).load()

    done(main())
    with pytest.raises(BackendUnavailable):
        done(make(f"rediss://127.0.0.1:{server.port}", timeout_seconds=0.5).load())


def test_nobody_there_is_said_at_once(make: Make) -> None:
    backend = make(f"redis://127.0.0.1:{free_port()}", timeout_seconds=5)
    started = time.monotonic()
    for attempt in (backend.load, lambda: backend.apply(turned()), lambda: backend.listen(lambda _: None)):
        with pytest.raises(BackendUnavailable, match="Error 111 connecting") as error:
            done(attempt())
        assert type(error.value) is BackendUnavailable
    assert time.monotonic() - started < 2


def test_without_redis_py_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis.asyncio.connection", None)
    with pytest.raises(MissingExtra, match=r"pip install 'fastapi-maintenance\[redis\]'"):
        RedisBackend()


def test_no_io_before_it_is_asked_for() -> None:
    """Building it neither connects nor starts the thread."""
    code = """
import threading
from fastapi_maintenance.backends.redis import RedisBackend

RedisBackend("redis://127.0.0.1:1").sibling("billing")
print(threading.active_count())
"""
    assert output_of(code) == "1\n"


def test_a_url_that_is_an_object_is_refused_by_its_type() -> None:
    """Its repr has the password in it."""
    with pytest.raises(InvalidConfiguration, match="as text and not as RedisDsn") as error:
        RedisBackend(RedisDsn("redis://us3r:s3cret@host"))  # type: ignore[arg-type]
    assert "s3cret" not in str(error.value)
    assert error.value.__context__ is None


@pytest.mark.parametrize("seconds", ["0.1", None, 0, -1, float("nan"), timedelta(seconds=1)])
@pytest.mark.parametrize("option", ["poll_seconds", "timeout_seconds", "init_timeout"])
def test_what_is_no_number_of_seconds_is_refused(option: str, seconds: Any) -> None:
    """A text, as it comes out of a variable, as well: with the option's name, and not as a TypeError."""
    message = re.escape(f"{option}={seconds!r}: a number of seconds above 0 is needed")
    with pytest.raises(InvalidConfiguration, match=message):
        RedisBackend(**{option: seconds})
