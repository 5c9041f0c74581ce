"""What clients notice of a store that fails: nothing. Against real stores, with requests coming in all the while."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import resource
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import pytest

from fastapi_maintenance import (
    Knowledge,
    MaintenanceError,
    MaintenanceMode,
    SwitchStatus,
    get_maintenance_status,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import LocalFileBackend, RedisBackend, SQLAlchemyBackend
from fastapi_maintenance.backends.base import StoreBackend
from fastapi_maintenance.concurrency import io_thread
from fastapi_maintenance.model.change import Change, set_mode
from tests.support.asgi import lifespan
from tests.support.proxies import BadNetwork
from tests.support.stores import PostgresServer, RedisServer
from tests.support.traffic import OFF, ON, READ_ONLY, Figures, Moment, Traffic, wait_until

T = TypeVar("T")

RECOVERY_SECONDS = 1.5
"""From the store's return, until it is followed again."""
MOST_TIMES_AS_SLOW = 2.0
"""Requests during a fault, compared with those before it."""
P99_FLOOR_SECONDS, MEDIAN_FLOOR_SECONDS = 0.02, 0.0005
"""Are no difference: other threads of this process have their turns, and on a busy machine lose the processor then.
Who waits for a store does for longer, and who asks one that refuses moves the median."""
MOST_CPU = 0.3
"""Beyond what requests need: nothing spins, whatever the fault."""
PASSWORD = PostgresServer.password


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return a coroutine's result on the background thread's loop, where all I/O of backends is done."""
    return io_thread.submit(coroutine).result(30)


def turned(mode: MaintenanceMode) -> Change:
    return set_mode(mode, now=datetime.now(UTC))


@dataclass
class Store:
    """A store that works, and can be made to fail."""

    backend: StoreBackend
    """By which the app follows it."""
    operator: StoreBackend
    """By which somebody else changes it."""
    fail: Callable[[], object]
    recover: Callable[[], object]
    seconds: float = 1.5
    """How long it fails, from when that is noticed."""

    def set(self, mode: MaintenanceMode) -> None:
        """Have somebody else set a mode."""
        run(self.operator.apply(turned(mode)))

    def status(self) -> SwitchStatus:
        return get_maintenance_status(self.backend)

    def is_ready(self) -> bool:
        return self.status().knowledge is Knowledge.READY

    def is_stale(self) -> bool:
        return self.status().knowledge is Knowledge.STALE


Scene = Callable[[Path], AbstractContextManager[Store]]
"""Sets up a store; gets a directory."""


@contextmanager
def disconnected(*backends: StoreBackend) -> Iterator[None]:
    """Close backends at the end."""
    try:
        yield
    finally:
        for backend in backends:
            asyncio.run(backend.aclose())


@contextmanager
def on_redis(
    server: RedisServer, port: int | None = None, **options: Any
) -> Iterator[tuple[RedisBackend, RedisBackend]]:
    """Give an app's backend, by way of a proxy's port if there is one, and an operator's."""

    def made(port: int, **options: Any) -> RedisBackend:
        return RedisBackend(f"redis://:{quote(PASSWORD)}@127.0.0.1:{port}/0", **options)

    backend, operator = made(port or server.port, **options), made(server.port, timeout_seconds=10)
    with disconnected(backend, operator):
        yield backend, operator


def redis_server(*, persistent: bool = False) -> RedisServer:
    return RedisServer("--requirepass", PASSWORD, password=PASSWORD, persistent=persistent)


@contextmanager
def killed_redis(_: Path) -> Iterator[Store]:
    with redis_server(persistent=True) as server, on_redis(server) as backends:
        yield Store(*backends, fail=server.kill, recover=server.start)


@contextmanager
def stopped_redis(_: Path) -> Iterator[Store]:
    with redis_server(persistent=True) as server, on_redis(server) as backends:
        yield Store(*backends, fail=server.stop, recover=server.start)


@contextmanager
def paused_redis(_: Path) -> Iterator[Store]:
    with redis_server() as server, on_redis(server) as backends:
        yield Store(*backends, fail=server.pause, recover=server.resume, seconds=5)


@contextmanager
def silent_redis(_: Path) -> Iterator[Store]:
    with redis_server() as server, BadNetwork(server.port) as proxy, on_redis(server, proxy.port) as backends:
        yield Store(*backends, fail=proxy.fall_silent, recover=proxy.speak, seconds=4)


@contextmanager
def postgres_store(server: PostgresServer, fail: str, recover: str) -> Iterator[Store]:
    run_id = f"t{time.monotonic_ns()}"
    backend, operator = (SQLAlchemyBackend(server.url(), table=run_id) for _ in range(2))
    with disconnected(backend, operator):
        yield Store(backend, operator, getattr(server, fail), getattr(server, recover))


@contextmanager
def failing_postgres(fail: str, recover: str, _: Path) -> Iterator[Store]:
    with PostgresServer() as server, postgres_store(server, fail, recover) as store:
        yield store


@contextmanager
def locked_sqlite(directory: Path) -> Iterator[Store]:
    url = f"sqlite+aiosqlite:///{directory / 'state.db'}"
    other = sqlite3.connect(directory / "state.db", isolation_level=None)
    backend, operator = (SQLAlchemyBackend(url) for _ in range(2))
    with contextlib.closing(other), disconnected(backend, operator):
        yield Store(
            backend,
            operator,
            fail=lambda: other.execute("BEGIN EXCLUSIVE"),
            recover=lambda: other.execute("ROLLBACK"),
        )


@contextmanager
def spoilt_file(spoil: Callable[[Path], object], directory: Path) -> Iterator[Store]:
    path, spoilt, kept = (directory / name for name in ("switch.json", "spoilt", "kept"))
    backend, operator = (LocalFileBackend(path) for _ in range(2))

    # At once: in between there would be no file, which means off.
    def fail() -> None:
        shutil.copy2(path, kept)
        spoil(spoilt)
        spoilt.replace(path)

    def recover() -> None:
        kept.replace(path)

    with disconnected(backend, operator):
        yield Store(backend, operator, fail, recover)


@contextmanager
def unreadable_file(directory: Path) -> Iterator[Store]:
    """For the time of the fault, root is somebody else: root may read everything."""
    path = directory / "switch.json"
    backend, operator = (LocalFileBackend(path) for _ in range(2))
    is_root = os.geteuid() == 0

    def fail() -> None:
        path.chmod(0)
        if is_root:
            os.seteuid(65534)

    def recover() -> None:
        if is_root:
            os.seteuid(0)
        path.chmod(0o644)

    with disconnected(backend, operator):
        try:
            yield Store(backend, operator, fail, recover)
        finally:
            recover()


FAULTS: dict[str, Scene] = {
    "redis-killed": killed_redis,
    "redis-stopped": stopped_redis,
    "redis-paused-for-5-s": paused_redis,
    "redis-silent": silent_redis,
    "postgres-stopped": partial(failing_postgres, "stop", "start"),
    "postgres-killed": partial(failing_postgres, "kill", "start"),
    "postgres-paused": partial(failing_postgres, "pause", "resume"),
    "sqlite-locked": locked_sqlite,
    "file-truncated": partial(spoilt_file, Path.touch),
    "file-cut": partial(spoilt_file, lambda path: path.write_text('{"schema": 1, "epo')),
    "file-garbage": partial(spoilt_file, lambda path: path.write_bytes(os.urandom(1000))),
    "file-a-directory": partial(spoilt_file, lambda path: path.symlink_to(path.parent)),
    "file-unreadable": unreadable_file,
}
"""Faults in which the store can neither be read nor changed."""


@pytest.mark.parametrize("scene", FAULTS.values(), ids=list(FAULTS))
def test_requests_do_not_notice_that_the_store_fails(
    scene: Scene, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The last known state stays, at the same speed; a change fails in time, and is not made later."""
    with scene(tmp_path) as store, Traffic(store.backend) as traffic:
        store.set(MaintenanceMode.READ_ONLY)
        traffic.wait_until_seen(READ_ONLY, 5)
        known_version = store.status().version
        healthy = traffic.watch(1)
        caplog.clear()

        failed = Moment.now()
        store.fail()
        gone = time.monotonic()  # stopping a server takes its time, in which it can still be read
        wait_until(store.is_stale, 4)
        noticed = time.monotonic() - failed.at
        told_no_in = refused_change(store.backend)
        time.sleep(max(store.seconds - told_no_in, 0.2))
        status = store.status()
        before_return = Moment.now()
        store.recover()
        returned = Moment.now()
        wait_until(store.is_ready, RECOVERY_SECONDS)
        recovered = time.monotonic() - returned.at
        time.sleep(1)  # time enough for a change that comes too late
        during = traffic.figures(failed, before_return)
        afterwards = traffic.figures(returned, Moment.now())
        records = list(caplog.records)

        assert traffic.answers(since=failed.at) == READ_ONLY
        assert_as_fast(during, healthy)
        assert_as_fast(afterwards, healthy)
        assert status.knowledge is Knowledge.STALE
        assert status.version == known_version
        assert status.last_error
        assert status.age_seconds is not None
        assert before_return.at - gone - 0.1 < status.age_seconds < before_return.at - failed.at + 1.5
        assert store.status().last_error is None
        assert store.status().version == known_version
        failure, end = told(records)
        assert failure.startswith("the maintenance state can't be read, the switch stays ")
        assert end == f"{store.backend!r} can be read again"
        assert_no_secrets(status, records)
        assert run(store.operator.load()) == run(store.backend.load())

        store.set(MaintenanceMode.ON)
        visible = traffic.wait_until_seen(ON, RECOVERY_SECONDS)
        report(healthy, during, afterwards, noticed=noticed, told_no_in=told_no_in, recovered=recovered, seen=visible)


def refused_change(backend: StoreBackend) -> float:
    """Set a mode, which has to fail; return for how many seconds the caller waited."""
    begin = time.monotonic()
    with pytest.raises(MaintenanceError) as failure:
        asyncio.run(set_maintenance_mode(True, backend))
    assert PASSWORD not in str(failure.value)
    seconds = time.monotonic() - begin
    assert seconds < backend.timeout_seconds + 0.5
    return seconds


def assert_as_fast(figures: Figures, healthy: Figures) -> None:
    compared = f"{figures} instead of {healthy}"
    assert figures.p99 <= MOST_TIMES_AS_SLOW * healthy.p99 + P99_FLOOR_SECONDS, compared
    assert figures.median <= MOST_TIMES_AS_SLOW * healthy.median + MEDIAN_FLOOR_SECONDS, compared
    assert figures.cpu <= MOST_TIMES_AS_SLOW * healthy.cpu + MOST_CPU, compared


def told(records: list[logging.LogRecord]) -> list[str]:
    """Return what operators were told: the package's warnings."""
    return [
        record.getMessage()
        for record in records
        if record.name == "fastapi_maintenance" and record.levelno >= logging.WARNING
    ]


def assert_no_secrets(status: SwitchStatus, records: list[logging.LogRecord]) -> None:
    for text in (str(status), *(record.getMessage() for record in records)):
        assert PASSWORD not in text
        assert quote(PASSWORD) not in text


def report(healthy: Figures, *others: Figures, **seconds: float) -> None:
    """Print what was measured, for ``pytest -rP``."""
    ratios = ", ".join(f"{one.p99 / healthy.p99:.2f}" for one in others)
    print(f"healthy: {healthy}")
    print(*(f"then: {one}" for one in others), sep="\n")
    print(f"p99 ratios: {ratios};", ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items()))


@contextmanager
def locked_row(directory: Path) -> Iterator[Store]:
    import asyncpg  # type: ignore[import-untyped]  # it has no types

    with PostgresServer() as server, postgres_store(server, "stop", "start") as store:
        store.set(MaintenanceMode.OFF)
        table = store.backend.table  # type: ignore[attr-defined]
        other = run(asyncpg.connect(server.url().replace("+asyncpg", "")))

        def lock() -> None:
            run(other.execute("BEGIN"))
            run(other.execute(f"SELECT * FROM {table} FOR UPDATE"))

        store.fail, store.recover = lock, lambda: run(other.execute("ROLLBACK"))
        try:
            yield store
        finally:
            run(other.close())


@contextmanager
def sqlite_in_change(directory: Path) -> Iterator[Store]:
    with (
        locked_sqlite(directory) as store,
        contextlib.closing(sqlite3.connect(directory / "state.db", isolation_level=None)) as other,
    ):
        store.fail = lambda: other.execute("BEGIN IMMEDIATE")
        store.recover = lambda: other.execute("ROLLBACK")
        yield store


@contextmanager
def file_store(path: Path) -> Iterator[Store]:
    backend, operator = (LocalFileBackend(path) for _ in range(2))
    with disconnected(backend, operator):
        yield Store(backend, operator, path.unlink, path.touch)


@contextmanager
def locked_file(directory: Path) -> Iterator[Store]:
    path = directory / "switch.json"
    with Path(f"{path}.lock").open("w") as lock, file_store(path) as store:
        store.fail = lambda: fcntl.flock(lock, fcntl.LOCK_EX)
        store.recover = lambda: fcntl.flock(lock, fcntl.LOCK_UN)
        yield store


@contextmanager
def full_disk(directory: Path) -> Iterator[Store]:
    """A small disk where one can be mounted, else a limit on the size of files."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", directory], check=False, capture_output=True
    )
    with ExitStack() as at_end:
        if mounted.returncode == 0:
            at_end.callback(lambda: subprocess.run(["umount", "--lazy", directory], check=True))
        store = at_end.enter_context(file_store(directory / "switch.json"))
        filler = directory / "filler"
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        at_end.callback(resource.setrlimit, resource.RLIMIT_FSIZE, limits)

        def fill() -> None:
            if mounted.returncode != 0:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1, limits[1]))
                return
            with filler.open("wb", buffering=0) as stream, pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                stream.writelines([b"x" * 4096] * 100)

        def make_room() -> None:
            filler.unlink(missing_ok=True)
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

        store.fail, store.recover = fill, make_room
        yield store


HINDRANCES: dict[str, Scene] = {
    "postgres-row-locked": locked_row,
    "sqlite-in-a-change": sqlite_in_change,
    "file-lock-held": locked_file,
    "disk-full": full_disk,
}
"""Faults in which the store can be read, but not changed."""


@pytest.mark.parametrize("scene", HINDRANCES.values(), ids=list(HINDRANCES))
def test_a_store_that_can_only_be_read_is_followed_all_the_same(
    scene: Scene, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Changes fail in time, and are not made later; requests go by what the store has."""
    with scene(tmp_path) as store, Traffic(store.backend) as traffic:
        store.set(MaintenanceMode.READ_ONLY)
        traffic.wait_until_seen(READ_ONLY, 5)
        known = run(store.operator.load())
        healthy = traffic.watch(1)
        caplog.clear()

        failed = Moment.now()
        store.fail()
        told_no_in = refused_change(store.backend)
        time.sleep(1.5)
        assert store.is_ready()
        store.recover()
        time.sleep(1)
        during = traffic.figures(failed, Moment.now())

        assert during.answers == READ_ONLY
        assert_as_fast(during, healthy)
        assert told(caplog.records) == []
        assert run(store.operator.load()) == known
        asyncio.run(set_maintenance_mode(True, store.backend))
        visible = traffic.wait_until_seen(ON, RECOVERY_SECONDS)
        report(healthy, during, told_no_in=told_no_in, seen=visible)


@pytest.mark.parametrize(
    ("fault", "initial"),
    [
        ("redis-killed", MaintenanceMode.OFF),
        ("redis-paused-for-5-s", MaintenanceMode.ON),
        ("postgres-stopped", MaintenanceMode.ON),
        ("sqlite-locked", MaintenanceMode.OFF),
        ("file-garbage", MaintenanceMode.ON),
    ],
)
def test_a_store_that_is_down_at_the_start_is_read_once_it_is_there(
    fault: str, initial: MaintenanceMode, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The app starts; its first requests wait up to ``init_timeout``, and then ``initial`` counts."""
    with FAULTS[fault](tmp_path) as store:
        store.backend.initial, store.backend.init_timeout = initial, 0.7
        counts = OFF if initial is MaintenanceMode.OFF else ON
        store.set(MaintenanceMode.READ_ONLY)
        store.fail()
        traffic = Traffic(store.backend)
        assert store.status() == SwitchStatus(Knowledge.NOT_READY)
        begin = Moment.now()
        assert asyncio.run(lifespan(traffic.app)) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        started_in = Moment.now().at - begin.at
        assert started_in < store.backend.init_timeout
        with traffic:
            traffic.wait_until_seen(counts, 3)
            wait_until(lambda: store.status().last_error, 4)
            status = store.status()
            later = traffic.watch(1)
            waiting = traffic.figures(begin, Moment(begin.at + 0.7, begin.cpu))
            assert traffic.answers() == counts
            store.recover()
            returned = time.monotonic()
            traffic.wait_until_seen(READ_ONLY, RECOVERY_SECONDS)
            recovered = time.monotonic() - returned
            assert traffic.answers() == counts | READ_ONLY
            assert store.is_ready()
            assert max(waiting.seconds) < 0.7 + 0.5  # what a busy machine adds: 0.28 was seen
            assert later.p99 < 0.05
            assert status.knowledge is Knowledge.ERROR
            assert (status.version, status.age_seconds) == (None, None)
            until = "until it can be, the switch is"
            assert told(caplog.records) == [
                f"the maintenance state can't be read, {until} {initial}: {status.last_error}",
                f"{store.backend!r} can be read again",
            ]
            assert_no_secrets(status, caplog.records)
            print(f"started in {started_in:.2f} s, recovered in {recovered:.2f} s; {later}")


def restart(server: RedisServer) -> None:
    server.restart()


def flush(server: RedisServer) -> None:
    server.run("FLUSHALL")


@pytest.mark.parametrize("empty", [restart, flush])
def test_an_emptied_redis_gets_the_last_known_state_back(
    empty: Callable[[RedisServer], None], caplog: pytest.LogCaptureFixture
) -> None:
    """It is data loss and not an "off"; whoever sets the mode then makes the next version."""
    with redis_server() as server, on_redis(server) as (backend, operator), Traffic(backend) as traffic:
        store = Store(backend, operator, server.kill, server.start)
        for mode in (MaintenanceMode.OFF, MaintenanceMode.ON, MaintenanceMode.READ_ONLY):
            store.set(mode)
        traffic.wait_until_seen(READ_ONLY, 5)
        healthy = traffic.watch(1)
        caplog.clear()

        failed = Moment.now()
        empty(server)
        wait_until(lambda: server.run("EXISTS", backend.key), 3)
        restored = time.monotonic() - failed.at
        during = traffic.watch(2)
        assert store.is_ready()
        assert store.status().version == 3
        assert traffic.answers(since=failed.at) == READ_ONLY
        assert_as_fast(during, healthy)

        store.set(MaintenanceMode.ON)
        visible = traffic.wait_until_seen(ON, RECOVERY_SECONDS)
        assert store.status().version == 4
        assert f"{backend!r} had lost its document: version 3 was put back" in told(caplog.records)
        report(healthy, during, restored=restored, seen=visible)


def test_a_killed_subscription_is_made_again(caplog: pytest.LogCaptureFixture) -> None:
    """What was changed meanwhile is read then; without any polling."""
    with (
        redis_server() as server,
        on_redis(server, poll_seconds=60) as (backend, operator),
        Traffic(backend) as traffic,
    ):
        store = Store(backend, operator, server.kill, server.start)
        store.set(MaintenanceMode.READ_ONLY)
        traffic.wait_until_seen(READ_ONLY, 5)
        healthy = traffic.watch(1)
        caplog.clear()
        begin = Moment.now()
        seconds = []
        for _ in range(3):
            assert server.run("CLIENT", "KILL", "TYPE", "pubsub") == 1
            store.set(MaintenanceMode.ON)
            seconds.append(traffic.wait_until_seen(ON, RECOVERY_SECONDS))
            time.sleep(0.5)  # it is subscribed again
            store.set(MaintenanceMode.READ_ONLY)
            seconds.append(traffic.wait_until_seen(READ_ONLY, 0.5))
        during = traffic.figures(begin, Moment.now())
        assert during.answers == ON | READ_ONLY
        assert_as_fast(during, healthy)
        assert store.is_ready()
        assert told(caplog.records) == []
        report(healthy, during, slowest_seen=max(seconds))


@pytest.mark.parametrize("poll_seconds", [1.0, 60.0])
def test_connections_that_are_lost_without_a_word_are_replaced(
    poll_seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    """As by a firewall that forgets them: polling notices, or else the subscription's own silence."""
    with (
        redis_server() as server,
        BadNetwork(server.port) as network,
        on_redis(server, network.port, poll_seconds=poll_seconds) as (backend, operator),
        Traffic(backend) as traffic,
    ):
        store = Store(backend, operator, server.kill, server.start)
        store.set(MaintenanceMode.READ_ONLY)
        traffic.wait_until_seen(READ_ONLY, 5)
        healthy = traffic.watch(1)
        caplog.clear()
        lost = Moment.now()
        network.lose_connections()
        store.set(MaintenanceMode.ON)
        # Three rounds of silence, a reading on a connection that is lost as well, and one on a new one.
        visible = traffic.wait_until_seen(ON, 3 if poll_seconds < 2 else 6)
        wait_until(store.is_ready, 1)
        time.sleep(max(lost.at + 5 - time.monotonic(), 0.5))  # the subscription is made again
        store.set(MaintenanceMode.READ_ONLY)
        pushed = traffic.wait_until_seen(READ_ONLY, 0.5)
        during = traffic.figures(lost, Moment.now())
        assert during.answers == ON | READ_ONLY
        assert_as_fast(during, healthy)
        assert len(told(caplog.records)) in (0, 2)  # whether a reading was what met the lost connection
        report(healthy, during, seen=visible, pushed_again=pushed)


@pytest.mark.parametrize(("policy", "counts"), [("open", OFF), ("closed", ON)])
def test_a_state_that_is_too_old_gives_way_to_what_was_chosen(
    policy: Any, counts: set[tuple[str, int]], caplog: pytest.LogCaptureFixture
) -> None:
    """Each time, and only as long as the store fails."""
    options = {"poll_seconds": 0.2, "timeout_seconds": 0.3, "on_backend_error": policy, "max_stale": 1.0}
    with (
        redis_server() as server,
        on_redis(server, **options) as (backend, operator),
        Traffic(backend) as traffic,
    ):
        store = Store(backend, operator, server.kill, server.start)
        store.set(MaintenanceMode.READ_ONLY)
        traffic.wait_until_seen(READ_ONLY, 5)
        healthy = traffic.watch(1)
        caplog.clear()
        for outage in (1, 2):
            failed = Moment.now()
            server.pause()
            time.sleep(0.7)
            assert traffic.answers(since=failed.at) == READ_ONLY
            traffic.wait_until_seen(counts, 4)
            flipped = time.monotonic() - failed.at
            time.sleep(1)
            during = traffic.figures(failed, Moment.now())
            assert store.is_stale()
            server.resume()
            recovered = traffic.wait_until_seen(READ_ONLY, RECOVERY_SECONDS)
            assert traffic.answers(since=failed.at) == counts | READ_ONLY
            assert_as_fast(during, healthy)
            lines = told(caplog.records)
            assert len(lines) == 3 * outage
            assert lines[-2:] == [
                f"{backend!r} has failed for 1 s: the switch is treated as {policy}",
                f"{backend!r} can be read again",
            ]
            # It is noticed when an attempt fails: after the longest pause between two, and a time-out.
            assert flipped < 1.0 + 1.0 + 0.3 + 0.5
            report(healthy, during, flipped=flipped, recovered=recovered)


def test_a_removed_file_means_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also after it was seen: removing it is how an operator switches off."""
    path = tmp_path / "switch.json"
    with file_store(path) as store, Traffic(store.backend) as traffic:
        store.set(MaintenanceMode.READ_ONLY)
        traffic.wait_until_seen(READ_ONLY, 5)
        healthy = traffic.watch(1)
        begin = Moment.now()
        path.unlink()
        seconds = [traffic.wait_until_seen(OFF, 1)]
        path.write_text("1\n")
        seconds.append(traffic.wait_until_seen(ON, 1))
        path.unlink()
        seconds.append(traffic.wait_until_seen(OFF, 1))
        shutil.rmtree(tmp_path)
        time.sleep(0.5)
        during = traffic.figures(begin, Moment.now())
        assert during.answers == READ_ONLY | OFF | ON
        assert_as_fast(during, healthy)
        assert store.is_ready()
        assert told(caplog.records) == []
        report(healthy, during, slowest_seen=max(seconds))
