"""The Redis store against a real server, its faults included."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import json
import logging
import re
import ssl
import sys
import time
import tracemalloc
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Self

import pytest
from pydantic import RedisDsn
from redis.asyncio.client import PubSub

from fastapi_maintenance import get_maintenance_mode, get_maintenance_status, is_maintenance_on, set_maintenance_mode
from fastapi_maintenance.backends.redis import RedisBackend
from fastapi_maintenance.concurrency import io_thread
from fastapi_maintenance.exceptions import (
    BackendUnavailable,
    CorruptState,
    DeadlinePassed,
    InvalidConfiguration,
    MissingExtra,
    OutcomeUnknown,
)
from fastapi_maintenance.model.change import Change, set_mode
from fastapi_maintenance.model.limits import MAX_BYTES
from fastapi_maintenance.model.modes import MaintenanceMode
from fastapi_maintenance.model.state import Hold, MaintenanceState
from fastapi_maintenance.stores import redis as module
from tests.support.scripts import ROOT, output_of
from tests.support.stores import RedisServer, SilentProxy, done, free_port
from tests.support.traffic import wait_until


def turned(mode: str | MaintenanceMode = "on", **more: Any) -> Change:
    return set_mode(MaintenanceMode(mode), now=datetime.now(UTC), **more)


SOON = timedelta(hours=1)


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


def watch(backend: RedisBackend, changed: Callable[[], None]) -> Coroutine[Any, Any, None]:
    return backend.store.watch("default", changed)


def key_of(backend: RedisBackend, switch: str) -> str:
    assert isinstance(backend.store, module.RedisStore)
    return backend.store.key_of(switch)


class Watching:
    """A store's ``watch`` in a task, how often it woke, and how it ended."""

    def __init__(self, backend: RedisBackend) -> None:
        self.calls = 0
        self._future = io_thread.submit(watch(backend, self._changed))

    def _changed(self) -> None:
        self.calls += 1

    def __enter__(self) -> Self:
        wait_until(lambda: self.calls or self._future.done())
        return self

    def __exit__(self, *_: object) -> None:
        self._future.cancel()
        with contextlib.suppress(BaseException):
            self._future.result(20)

    @property
    def is_active(self) -> bool:
        return not self._future.done()

    def error(self, seconds: float = 10) -> BaseException | None:
        """Wait for the end and return its error."""
        return self._future.exception(seconds)


def calls_of(server: RedisServer, command: str) -> int:
    """Return how often the server has executed a command."""
    calls: int = server.run("INFO", "commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"]
    return calls


# Documents


def test_a_missing_document_is_none_and_not_off(backend: RedisBackend) -> None:
    assert done(backend.load()) is None


def test_a_stored_state_is_read_again(backend: RedisBackend, server: RedisServer, make: Make) -> None:
    change = turned("read_only", reason='Größe "x" \\ {[,:', until=datetime.now(UTC) + SOON, by="me")
    state = done(backend.apply(change))
    assert state == done(make(server.url).load())
    assert (state.epoch, state.version, state.mode, state.updated_by) == (change.id, 1, "read_only", "me")
    assert state.updated_at is not None
    assert abs(state.updated_at - datetime.now(UTC)) < timedelta(seconds=5)
    document = json.loads(server.run("GET", "fastapi-maintenance:{default}"))
    assert list(document)[:4] == ["schema", "epoch", "version", "mode"]
    assert document["updated_at"].endswith("Z")


def test_a_reading_is_one_round_trip(backend: RedisBackend, server: RedisServer) -> None:
    done(backend.load())
    before = server.run("INFO", "commandstats")
    done(backend.load())
    after = server.run("INFO", "commandstats")
    grown = {name: after[name]["calls"] - before[name]["calls"] for name in before if after[name] != before[name]}
    ours = {"cmdstat_evalsha": 1, "cmdstat_getrange": 1, "cmdstat_time": 1}
    assert {name: grown.get(name) for name in ours} == ours
    assert grown.keys() - ours <= {"cmdstat_info", "cmdstat_client", "cmdstat_hello"}  # those are of run()


@pytest.mark.parametrize("persistent", [True, False])
def test_a_restart_keeps_what_the_server_keeps(make: Make, persistent: bool) -> None:
    """The scripts are sent again, since the server has forgotten them."""
    with RedisServer(persistent=persistent) as server:
        keeping, other = make(server.url, on_emptied="keep"), make(server.url)
        state = done(keeping.apply(turned()))
        server.restart()
        assert done(other.load()) == (state if persistent else None)
        assert done(other.apply(turned())).version == (2 if persistent else 1)


def test_a_script_that_the_server_forgot_is_sent_again(backend: RedisBackend, server: RedisServer) -> None:
    done(backend.apply(Change()))
    server.run("SCRIPT", "FLUSH")
    before = calls_of(server, "eval")
    assert done(backend.apply(Change())).version == 2
    assert done(backend.apply(Change())).version == 3
    assert calls_of(server, "eval") == before + 2  # one that reads, one that writes


def test_a_unix_socket_serves_as_well(make: Make, server: RedisServer) -> None:
    backend = make(f"{server.unix_url}?db=3")
    done(backend.apply(turned()))
    assert server.run("EXISTS", backend.key, db=3) == 1
    assert repr(backend) == f"RedisBackend('{server.unix_url}?db=3', key='fastapi-maintenance:{{default}}')"
    assert repr(make(server.unix_url)).startswith(f"RedisBackend('{server.unix_url}',")


def test_a_renewal_wakes_nobody(backend: RedisBackend) -> None:
    until = datetime.now(UTC).replace(microsecond=0) + SOON
    state = done(backend.apply(Change(put_holds={"h": Hold(kind="on", expires_at=until)})))
    with Watching(backend) as watching:
        longer = Hold(kind="on", expires_at=until + SOON)
        renewal = Change(put_holds={"h": longer}, required_holds=frozenset({"h"}), is_renewal=True)
        renewed = done(backend.apply(renewal))
        assert (renewed.version, renewed.holds["h"].expires_at) == (state.version, until + SOON)
        done(backend.apply(Change()))
        wait_until(lambda: watching.calls > 1)
        assert watching.calls == 2


@pytest.mark.parametrize(
    "document",
    [b"nonsense", b'{"schema":2,"mode":"on"}', b'{"schema":1,"reason":"' + b"x" * MAX_BYTES + b'"}'],
    ids=["nonsense", "another schema", "too large"],
)
def test_an_unreadable_document_is_left_alone(backend: RedisBackend, server: RedisServer, document: bytes) -> None:
    """It is a failure and not "off", until somebody forgets it."""
    server.run("SET", backend.key, document)
    for attempt in (backend.load(), backend.apply(turned("off"))):
        with pytest.raises(CorruptState, match=r"key='fastapi-maintenance:\{default\}'"):
            done(attempt)
    assert server.run("GET", backend.key) == document
    assert done(backend.apply(Change(forgets=True))).mode == "off"
    assert done(backend.load()) is not None


def test_a_key_of_another_type_is_left_alone(backend: RedisBackend, server: RedisServer) -> None:
    server.run("RPUSH", backend.key, "something", "else")
    for attempt in (backend.load(), backend.apply(turned()), backend.apply(Change(forgets=True))):
        with pytest.raises(CorruptState, match="another type"):
            done(attempt)
    assert server.run("LRANGE", backend.key, 0, -1) == [b"something", b"else"]


def test_a_huge_value_costs_next_to_nothing(server: RedisServer, make: Make) -> None:
    """It is a failure and not "off"; the worker reads the first 64 KiB of it."""
    backend = make(server.url, poll_seconds=0.05)
    asyncio.run(set_maintenance_mode(True, backend))
    assert is_maintenance_on(backend)
    server.run("SETRANGE", backend.key, 100_000_000, "x")
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        wait_until(lambda: "no readable maintenance state" in str(get_maintenance_status(backend).last_error))
        time.sleep(0.3)  # some more readings
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 2**20
    assert is_maintenance_on(backend)
    asyncio.run(backend.aclose())


def test_a_full_server_takes_changes_of_a_key_that_is_there(own_server: RedisServer, make: Make) -> None:
    """Off as well as on."""
    backend = make(own_server.url)
    done(backend.apply(turned("off")))
    own_server.run("CONFIG", "SET", "maxmemory-policy", "noeviction")
    own_server.run("CONFIG", "SET", "maxmemory", "1")
    for mode in ("on", "off", "read_only"):
        assert done(backend.apply(turned(mode, reason="disks"))).mode == mode
    with pytest.raises(BackendUnavailable, match=r"OOM|maxmemory") as error:
        done(make(own_server.url, key="another").apply(turned()))
    assert type(error.value) is BackendUnavailable


# Deadlines and outcomes


@pytest.mark.parametrize("wrong_by", [timedelta(), SOON, -SOON], ids=["right clock", "ahead", "behind"])
def test_a_change_that_timed_out_is_not_made_later(
    server: RedisServer, make: Make, wrong_by: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection holds it back, and delivers it after all. The server's clock is the one that applies."""

    class WrongClock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.now(tz) + wrong_by

    monkeypatch.setattr(module, "datetime", WrongClock)
    with SilentProxy(server.port) as proxy:
        backend = make(f"redis://127.0.0.1:{proxy.port}", timeout_seconds=2)
        done(backend.apply(turned("off")))
        proxy.fall_silent(after=b'"schema"')
        started = time.monotonic()
        with pytest.raises(OutcomeUnknown, match=r"did not say whether the change was made: no answer within 2 s"):
            done(backend.apply(turned("on")))
        assert time.monotonic() - started < 3.9  # its time is not given twice
        calls = calls_of(server, "evalsha")
        proxy.speak()
        wait_until(lambda: calls_of(server, "evalsha") > calls)
        state = done(backend.load())
    assert state is not None
    assert (state.version, state.mode) == (1, "off")


def before_each_write(
    backend: RedisBackend, monkeypatch: pytest.MonkeyPatch, happen: Callable[[], Coroutine[Any, Any, object]]
) -> None:
    """Have something happen after a change was applied and before it is sent."""
    replace = backend.store.replace

    async def late(*args: Any, **options: Any) -> Any:
        await happen()
        return await replace(*args, **options)

    monkeypatch.setattr(backend.store, "replace", late)


def after_the_first_write(
    backend: RedisBackend, monkeypatch: pytest.MonkeyPatch, happen: Callable[[], object]
) -> None:
    """Have the first answer to a change get lost on its way, and something happen then."""
    replace, lost = backend.store.replace, False

    async def lose_once(*args: Any, **options: Any) -> Any:
        nonlocal lost
        written = await replace(*args, **options)
        if lost:
            return written
        lost = True
        await asyncio.to_thread(happen)
        raise ConnectionError("the test lost it")

    monkeypatch.setattr(backend.store, "replace", lose_once)


def test_a_stopped_server_does_not_make_the_change_when_it_resumes(
    own_server: RedisServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make(own_server.url, timeout_seconds=0.3)
    done(backend.apply(turned("off")))
    before_each_write(backend, monkeypatch, lambda: asyncio.to_thread(own_server.pause))
    with pytest.raises(OutcomeUnknown):
        done(backend.apply(turned("on")))
    own_server.resume()
    time.sleep(0.1)
    state = done(backend.load())
    assert state is not None
    assert (state.version, state.mode) == (1, "off")


def test_a_server_that_is_stopped_before_is_not_available(own_server: RedisServer, make: Make) -> None:
    backend = make(own_server.url, timeout_seconds=1.5)
    done(backend.apply(turned("off")))
    own_server.pause()
    for ask in (lambda: backend.apply(turned("on")), backend.load):
        started = time.monotonic()
        with pytest.raises(BackendUnavailable, match=r"no answer within 1\.5 s") as error:
            done(ask())
        assert type(error.value) is BackendUnavailable
        assert time.monotonic() - started < 2.9  # its time is not given twice
    own_server.resume()
    state = done(backend.load())
    assert state is not None
    assert state.mode == "off"


def test_a_change_that_comes_too_late_is_refused(backend: RedisBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SHARE_FOR_THE_ANSWER", 1.5)  # the deadline is over when it is set
    with pytest.raises(DeadlinePassed):
        done(backend.apply(turned()))
    assert done(backend.load()) is None


def test_the_server_may_restart_during_a_change(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with RedisServer(persistent=True) as server:
        backend = make(server.url, timeout_seconds=5)
        done(backend.apply(Change()))
        after_the_first_write(backend, monkeypatch, server.restart)
        assert done(backend.apply(Change())).version == 2


def test_a_server_that_dies_during_a_change_leaves_it_unknown(
    own_server: RedisServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make(own_server.url, timeout_seconds=0.3)
    done(backend.apply(Change()))
    after_the_first_write(backend, monkeypatch, own_server.kill)
    with pytest.raises(OutcomeUnknown):
        done(backend.apply(Change()))


def test_a_server_that_dies_before_a_change_is_not_available(
    own_server: RedisServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it was read a moment ago, over a connection that is lost with it."""
    backend = make(own_server.url)

    async def die() -> None:
        await asyncio.to_thread(own_server.kill)
        await asyncio.sleep(0.1)  # the loop hears of it

    before_each_write(backend, monkeypatch, die)
    with pytest.raises(BackendUnavailable, match="Error 111 connecting"):
        done(backend.apply(turned()))


REFUSING = {
    "replica": (["REPLICAOF", "127.0.0.1", "1"], "read only replica"),
    "no scripts": (["ACL", "SETUSER", "default", "-evalsha"], "no permissions"),
    "no time": (["ACL", "SETUSER", "default", "-time"], "no permissions|can't run this command"),
    "no reading": (["ACL", "SETUSER", "default", "-getrange"], "no permissions|can't run this command"),
    "no writing": (["ACL", "SETUSER", "default", "-set", "-del"], "no permissions|can't run this command"),
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


def documented_commands() -> list[str]:
    """Return the permissions that the docs list for everybody."""
    page = (ROOT / "docs" / "backends.md").read_text()
    permissions = re.search(r"`(\+get[^`]*)`", page)
    assert permissions is not None
    return [*permissions[1].split(), "+select"]  # for another database than 0


def test_a_user_with_the_documented_permissions_can_do_everything(own_server: RedisServer, make: Make) -> None:
    """With each of them taken away, something fails; ``+scan`` is for listing alone."""
    permissions = documented_commands()
    rules = ("on", "nopass", "~fastapi-maintenance:*", "resetchannels", "&fastapi-maintenance:*")

    def fails(*commands: str) -> bool:
        own_server.run("ACL", "SETUSER", "shop", "reset", *rules, *commands)
        own_server.run("SCRIPT", "FLUSH")
        user = make(f"redis://shop:any@127.0.0.1:{own_server.port}/1")
        try:
            with Watching(user) as watching:
                for _ in range(2):  # one that sends the scripts, one that has them
                    done(user.apply(turned()))
                done(user.try_writing())
                wait_until(lambda: watching.calls > 2, 2)
        except (BackendUnavailable, AssertionError):
            return True
        return False

    assert not fails(*permissions)
    assert [one for one in permissions if not fails(*(other for other in permissions if other != one))] == [
        "+ping"  # it fails after a silent second
    ]
    user = make(f"redis://shop:any@127.0.0.1:{own_server.port}/1")
    fails(*permissions)
    with pytest.raises(BackendUnavailable, match="scan"):
        done(user.store.names())
    fails(*permissions, "+scan")
    assert done(user.store.names()) == ["default"]


@pytest.mark.parametrize("key", [None, "shop", "a*[b]:{default}:c"])
def test_the_names_of_all_switches_are_listed(server: RedisServer, make: Make, key: str | None) -> None:
    """Keys beside them are nobody's."""
    backend = make(server.url, key=key)
    assert done(backend.store.names()) == []
    for switch in (backend, backend.sibling("billing"), backend.sibling("a-b_1")):
        done(switch.apply(turned()))
    names = ["a-b_1", "billing", "default"]
    for other in (f"{backend.key}:tried", "shops", "shop:billing", "ab:{x}:c", key_of(backend, "No Name")):
        server.run("SET", other, "1")
    assert done(backend.store.names()) == names
    assert done(backend.switch_names()) == ["default", *names[:2]]
    server.run("DEL", backend.key)
    assert done(backend.store.names()) == names[:2]


def test_who_may_not_publish_makes_changes_all_the_same(own_server: RedisServer, make: Make) -> None:
    own_server.run("ACL", "SETUSER", "quiet", "on", "nopass", "~*", "+@all", "resetchannels")
    backend = make(f"redis://quiet:any@127.0.0.1:{own_server.port}")
    with Watching(make(own_server.url)) as watching:
        assert done(backend.apply(turned())).version == 1
        assert watching.calls == 1
    with pytest.raises(BackendUnavailable, match="channel"):
        done(watch(backend, lambda: None))


def test_dead_idle_connections_cost_no_failure(own_server: RedisServer, make: Make) -> None:
    backend = make(own_server.url)

    async def load_often() -> None:
        await asyncio.gather(*(backend.store.read("default") for _ in range(6)))

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
            for attempt in (backend.load(), backend.apply(turned()), watch(backend, lambda: None)):
                with pytest.raises(BackendUnavailable):
                    await attempt

    done(main())


# Pushes


def test_each_change_is_pushed_at_once(backend: RedisBackend, server: RedisServer, make: Make) -> None:
    with Watching(backend) as watching:
        assert watching.calls == 1  # the subscription is confirmed
        for number, mode in enumerate(("on", "read_only", "off"), start=2):
            done(make(server.url).apply(turned(mode)))
            wait_until(lambda: watching.calls == number, 20)  # noqa: B023 - called at once


@pytest.mark.parametrize(
    "content", ["", "nonsense", MaintenanceState(epoch="e", version=2**40, mode=MaintenanceMode.ON).to_json()]
)
def test_a_forged_push_changes_nothing(server: RedisServer, make: Make, content: str | bytes) -> None:
    """A flood of them costs 20 readings a second."""
    backend = make(server.url, poll_seconds=60)
    asyncio.run(set_maintenance_mode(False, backend))
    assert asyncio.run(get_maintenance_mode(backend)) is False
    wait_until(lambda: server.run("PUBSUB", "NUMSUB", f"{backend.key}@0")[1] == 1)
    time.sleep(0.2)  # the reading after the subscription
    readings, begin = calls_of(server, "getrange"), time.monotonic()
    while time.monotonic() - begin < 0.5:
        assert server.run("PUBLISH", f"{backend.key}@0", content) == 1
    seconds = time.monotonic() - begin
    assert 2 <= calls_of(server, "getrange") - readings <= 20 * seconds + 3
    assert asyncio.run(get_maintenance_mode(backend)) is False
    assert get_maintenance_status(backend).version == 1
    asyncio.run(backend.aclose())


def test_another_database_of_the_server_is_another_world(server: RedisServer, make: Make) -> None:
    """Channels are the same in all databases."""
    here, there = make(server.url), make(server.url.replace("/0", "/1"))
    with Watching(here) as watching:
        done(there.apply(turned()))
        done(here.apply(turned("read_only")))
        wait_until(lambda: watching.calls > 1)
        assert watching.calls == 2


def test_a_quiet_connection_stays(server: RedisServer, make: Make) -> None:
    backend = make(server.url, timeout_seconds=0.3)
    with Watching(backend) as watching:
        before, begin = calls_of(server, "ping"), time.monotonic()
        time.sleep(1.5)
        assert watching.is_active
        pings, seconds = calls_of(server, "ping") - before, time.monotonic() - begin
        assert 2 <= pings <= 4 * seconds, pings


def test_a_killed_subscriber_notices(backend: RedisBackend, server: RedisServer) -> None:
    with Watching(backend) as watching:
        server.run("CLIENT", "KILL", "TYPE", "pubsub")
        error = watching.error()
        assert isinstance(error, BackendUnavailable)
        assert "silent" not in str(error)  # which it would notice as well, and later


def test_a_connection_that_falls_silent_is_given_up(server: RedisServer, make: Make) -> None:
    with SilentProxy(server.port) as proxy:
        backend = make(f"redis://127.0.0.1:{proxy.port}", timeout_seconds=0.2)
        with Watching(backend) as watching:
            proxy.fall_silent()
            started = time.monotonic()
            error = watching.error()
            assert time.monotonic() - started > 0.3
        assert isinstance(error, BackendUnavailable)
        assert str(error).endswith("silent for 0.6 s")


def test_a_silent_server_does_not_confirm(own_server: RedisServer, make: Make) -> None:
    backend = make(own_server.url, timeout_seconds=0.2)
    own_server.pause()
    with Watching(backend) as watching:
        assert isinstance(watching.error(), BackendUnavailable)
        assert watching.calls == 0
    own_server.resume()


def test_a_connection_that_the_kernel_declares_dead_is_lost(
    backend: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ETIMEDOUT is a TimeoutError: with a time-out of its own, redis-py's reader takes it for a quiet moment."""
    readers: list[asyncio.StreamReader] = []
    connect = asyncio.open_connection

    async def noted(*args: Any, **options: Any) -> Any:
        streams = await connect(*args, **options)
        readers.append(streams[0])
        return streams

    monkeypatch.setattr(asyncio, "open_connection", noted)

    async def die() -> None:
        readers[0].set_exception(TimeoutError(errno.ETIMEDOUT, "Connection timed out"))

    with Watching(backend) as watching:
        done(die())
        error = watching.error()
        assert isinstance(error, BackendUnavailable)
        assert "silent" not in str(error)


def test_a_connection_that_gives_no_message_is_lost(backend: RedisBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """redis-py 8 returns none at once, again and again, once the kernel has given the connection up."""
    read = PubSub.get_message
    has_read: list[bool] = []

    async def read_once(subscription: PubSub, **options: Any) -> Any:
        if has_read:
            return None
        has_read.append(True)
        return await read(subscription, **options)

    monkeypatch.setattr(PubSub, "get_message", read_once)
    with Watching(backend) as watching:
        error = watching.error()
    assert isinstance(error, BackendUnavailable)
    assert (watching.calls, error.problem) == (1, "the connection is lost")


def test_a_message_may_come_in_pieces(make: Make) -> None:
    """With a silence in the middle of it that is longer than a round."""
    message = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1000\r\n" + b"x" * 1000 + b"\r\n"

    async def main() -> None:
        woken: list[float] = []

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
                await watch(backend, lambda: woken.append(time.monotonic()))
        assert len(woken) == 2

    done(main())


# Cancellation, connections, event loops


def connections(server: RedisServer) -> int:
    """How many connections the server has beside the one that asks."""
    return len(server.run("CLIENT LIST")) - 1


@pytest.mark.parametrize("is_connected", [False, True])
@pytest.mark.parametrize("call", ["load", "apply", "watch"])
def test_a_cancellation_is_never_lost(own_server: RedisServer, make: Make, call: str, is_connected: bool) -> None:
    """Cancelled at each of its steps, once, it ends; and it leaves no connection behind."""
    backend = make(own_server.url)
    done(backend.apply(Change()))

    async def ended_before(steps: int) -> bool:
        if is_connected:
            await backend.load()
        do: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
            "load": backend.load,
            "apply": lambda: backend.apply(Change()),
            "watch": lambda: watch(backend, lambda: None),
        }
        task = asyncio.create_task(do[call]())
        for _ in range(steps):
            await asyncio.sleep(0)
        has_ended = task.done()
        task.cancel()
        await asyncio.wait({task}, timeout=20)
        assert task.cancelled() or has_ended, f"after {steps} steps the cancellation was lost"
        await backend.disconnect()
        return has_ended

    for steps in range(200):  # more than it takes; watching never ends by itself
        if done(ended_before(steps)):
            break
    wait_until(lambda: not connections(own_server))


def test_siblings_share_connections_and_not_keys(server: RedisServer, make: Make) -> None:
    options: dict[str, Any] = {
        "poll_seconds": 2,
        "timeout_seconds": 3,
        "on_backend_error": "closed",
        "max_stale": 4.0,
        "initial": MaintenanceMode.ON,
        "init_timeout": 5,
    }
    default = make(server.url, **options)
    billing = default.sibling("billing")
    assert billing.store.address("billing").endswith("key fastapi-maintenance:{billing}")
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
    assert key_of(make("redis://localhost", key=key), "billing") == siblings


def test_nothing_leaks_when_nobody_closes_anything(server: RedisServer) -> None:
    code = """
import asyncio, sys
from fastapi_maintenance.concurrency import io_thread
from fastapi_maintenance.backends.redis import RedisBackend

backend = RedisBackend(sys.argv[1])
for _ in range(2):
    asyncio.run(backend.set_value(True))
woken = []
io_thread.submit(backend.store.watch("default", lambda: woken.append(1)))
asyncio.run(backend.get_value())
io_thread.stop()
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
    """As in a forked child, where they are the parent's; they are closed when that loop ends."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(backend.store.read("default"))
    done(backend.store.read("default"))
    assert connections(server) == 2
    keepers = asyncio.all_tasks(loop)
    for keeper in keepers:
        keeper.cancel()
    loop.run_until_complete(asyncio.wait(keepers))
    loop.close()
    wait_until(lambda: connections(server) == 1)
    done(backend.store.read("default"))
    assert connections(server) == 1


def test_a_backend_that_is_gone_leaves_no_connection(server: RedisServer) -> None:
    backend = RedisBackend(server.url)
    done(backend.load())
    assert connections(server) == 1
    del backend
    wait_until(lambda: not connections(server) or gc.collect() < 0, 5)


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
    with pytest.raises(InvalidConfiguration, match="url must be text"):
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
            made = (backend.load, lambda b=backend: b.apply(turned()), lambda b=backend: watch(b, lambda: None))
            for attempt in made:
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
            woken: asyncio.Queue[None] = asyncio.Queue()
            watching = asyncio.create_task(watch(trusting, lambda: woken.put_nowait(None)))
            await woken.get()
            await trusting.apply(turned())
            await woken.get()
            watching.cancel()
            await asyncio.wait({watching})
            await trusting.disconnect()
            with pytest.raises(BackendUnavailable, match="connecting to localhost"):
                await make(url).load()

    done(main())
    with pytest.raises(BackendUnavailable):
        done(make(f"rediss://127.0.0.1:{server.port}", timeout_seconds=0.5).load())


def test_nobody_there_is_said_at_once(make: Make) -> None:
    backend = make(f"redis://127.0.0.1:{free_port()}", timeout_seconds=60)
    started = time.monotonic()
    for attempt in (backend.load, lambda: backend.apply(turned()), lambda: watch(backend, lambda: None)):
        with pytest.raises(BackendUnavailable, match="Error 111 connecting") as error:
            done(attempt())
        assert type(error.value) is BackendUnavailable
    assert time.monotonic() - started < 20


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
    with pytest.raises(InvalidConfiguration, match=r"must be text such as .*, got RedisDsn") as error:
        RedisBackend(RedisDsn("redis://us3r:s3cret@host"))  # type: ignore[arg-type]
    assert "s3cret" not in str(error.value)
    assert error.value.__context__ is None


@pytest.mark.parametrize("seconds", ["0.1", None, 0, -1, float("nan"), timedelta(seconds=1)])
@pytest.mark.parametrize("option", ["poll_seconds", "timeout_seconds", "init_timeout"])
def test_what_is_no_number_of_seconds_is_refused(option: str, seconds: Any) -> None:
    """A text, as it comes out of a variable, as well: with the option's name, and not as a TypeError."""
    message = re.escape(f"{option}={seconds!r} must be a number of seconds above 0")
    with pytest.raises(InvalidConfiguration, match=message):
        RedisBackend(**{option: seconds})
