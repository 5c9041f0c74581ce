"""A row of a database as a switch, on SQLite and PostgreSQL; on MySQL where ``TEST_MYSQL_URL`` names one."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import os
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from fastapi_maintenance.backends.base import StoreBackend
from fastapi_maintenance.backends.sqlalchemy import SQLAlchemyBackend
from fastapi_maintenance.concurrency import io_thread
from fastapi_maintenance.exceptions import (
    BackendUnavailable,
    CorruptState,
    HoldLost,
    InvalidConfiguration,
    MissingExtra,
    OutcomeUnknown,
    VersionConflict,
)
from fastapi_maintenance.model.change import Change, set_mode
from fastapi_maintenance.model.modes import MaintenanceMode
from fastapi_maintenance.model.state import Hold, MaintenanceState
from fastapi_maintenance.stores import MAX_BYTES, Conflict
from fastapi_maintenance.stores.sql import store as module
from fastapi_maintenance.stores.sql import urls
from fastapi_maintenance.stores.sql.store import SQLAlchemyStore
from tests.support.scripts import output_of
from tests.support.stores import PostgresServer, SilentProxy, done
from tests.support.traffic import wait_until

OFF, ON, READ_ONLY = MaintenanceMode.OFF, MaintenanceMode.ON, MaintenanceMode.READ_ONLY
MYSQL_URL = os.environ.get("TEST_MYSQL_URL")


def setting(mode: MaintenanceMode, *, reason: str | None = None) -> Change:
    return set_mode(mode, now=datetime.now(UTC), reason=reason)


def holding(*ids: str) -> Change:
    return Change(put_holds={id_: Hold(kind="on", owner="test") for id_ in ids})


@pytest.fixture(scope="session")
def _mortal() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def mortal(_mortal: PostgresServer) -> Iterator[PostgresServer]:
    """A server that a test may stop or pause; one that fails in between leaves it as it was to the next."""
    yield _mortal
    if _mortal.runs:
        _mortal.resume()
    else:
        _mortal.start()


Make = Callable[..., SQLAlchemyBackend]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make backends on a table of the test's own, and disconnect them afterwards."""
    defaults: dict[str, Any] = {"table": f"t{uuid.uuid4().hex}", "timeout_seconds": 5}
    made: list[SQLAlchemyBackend] = []

    def make(url: Any, **options: Any) -> SQLAlchemyBackend:
        made.append(SQLAlchemyBackend(url, **defaults | options))
        return made[-1]

    yield make
    for backend in made:
        done(backend.disconnect())


@pytest.fixture(params=["sqlite", "postgresql", *(["mysql"] if MYSQL_URL else [])])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        return server.url()
    return sqlite_url(tmp_path) if request.param == "sqlite" else str(MYSQL_URL)


@pytest.fixture
def backend(url: str, make: Make) -> SQLAlchemyBackend:
    return make(url)


def sqlite_url(directory: Path) -> str:
    return f"sqlite+aiosqlite:///{directory / 'switches.db'}"


def load(backend: StoreBackend) -> MaintenanceState | None:
    return done(backend.load())


def store_of(backend: StoreBackend) -> SQLAlchemyStore:
    assert isinstance(backend.store, SQLAlchemyStore)
    return backend.store


async def _executed(url: str, *statements: str) -> list[Any]:
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            for statement in statements:
                result = await connection.execute(sqlalchemy.text(statement))
            return list(result.all()) if result.returns_rows else []
    finally:
        await engine.dispose()


def executed(url: str, *statements: str) -> list[Any]:
    """Return the rows of the last of some statements, on a connection of the test's own."""
    return asyncio.run(_executed(url, *statements))


# Reading and changing


def test_nothing_stored_is_nothing(backend: SQLAlchemyBackend) -> None:
    assert load(backend) is None
    assert asyncio.run(backend.get_value()) is False


def test_reading_creates_nothing(backend: SQLAlchemyBackend, url: str, tmp_path: Path) -> None:
    """Neither a table nor, with SQLite, a file."""
    for _ in range(2):
        load(backend)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(sqlalchemy.exc.DBAPIError):
        executed(url, f"SELECT * FROM {backend.table}")


def test_what_is_changed_can_be_read(backend: SQLAlchemyBackend, url: str, make: Make) -> None:
    state = done(backend.apply(setting(ON, reason="Überholung")))
    assert (state.mode, state.reason, state.version) == (ON, "Überholung", 1)
    assert load(backend) == load(make(url)) == state
    assert executed(url, f"SELECT name FROM {backend.table}") == [("default",)]


def test_get_and_set_value(backend: SQLAlchemyBackend) -> None:
    asyncio.run(backend.set_value(True))
    assert asyncio.run(backend.get_value()) is True
    asyncio.run(backend.set_value(False))
    assert asyncio.run(backend.get_value()) is False


def test_changes_build_on_each_other(backend: SQLAlchemyBackend) -> None:
    first = done(backend.apply(holding("a")))
    second = done(backend.apply(holding("b")))
    assert second.holds.keys() == {"a", "b"}
    assert (second.epoch, second.version) == (first.epoch, 2)


def test_a_change_is_made_once(backend: SQLAlchemyBackend) -> None:
    first = setting(ON)
    done(backend.apply(first))
    second = done(backend.apply(setting(OFF)))
    assert done(backend.apply(first)) == second == load(backend)


def test_a_refused_change_changes_nothing(backend: SQLAlchemyBackend) -> None:
    with pytest.raises(HoldLost):
        done(backend.apply(Change(required_holds=frozenset({"a"}))))
    assert load(backend) is None
    state = done(backend.apply(setting(ON)))
    with pytest.raises(VersionConflict):
        done(backend.apply(Change(fields=setting(OFF).fields, expected_version=7)))
    with pytest.raises(InvalidConfiguration, match="bytes"):
        done(backend.apply(setting(OFF, reason="x" * MAX_BYTES)))
    assert load(backend) == state


def test_a_renewal_keeps_the_version(backend: SQLAlchemyBackend) -> None:
    state = done(backend.apply(holding("a")))
    expires_at = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=1)
    renewal = Change(
        put_holds={"a": Hold(kind="on", expires_at=expires_at)}, required_holds=frozenset({"a"}), is_renewal=True
    )
    renewed = done(backend.apply(renewal))
    assert renewed.version == state.version
    assert load(backend) == renewed
    assert renewed.holds["a"].expires_at == expires_at


def test_holds_expire_by_the_clock_of_the_database(backend: SQLAlchemyBackend) -> None:
    gone = Hold(kind="on", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    live = Hold(kind="on", expires_at=datetime.now(UTC) + timedelta(seconds=60))
    done(backend.apply(Change(put_holds={"gone": gone, "live": live})))
    state = done(backend.apply(setting(ON)))
    assert state.holds.keys() == {"live"}
    assert state.updated_at is not None
    assert abs(state.updated_at - datetime.now(UTC)) < timedelta(seconds=5)


def test_the_largest_document_fits(backend: SQLAlchemyBackend) -> None:
    state = done(backend.apply(setting(ON, reason="ü" * (MAX_BYTES // 2 - 300))))
    assert load(backend) == state


@pytest.mark.parametrize("document", ["", "garbage", '{"schema":2}', '{"schema":1,"mode":"o'])
def test_a_row_that_is_no_state_is_a_failure(backend: SQLAlchemyBackend, url: str, document: str) -> None:
    done(backend.apply(setting(ON)))
    executed(url, f"UPDATE {backend.table} SET document = '{document.replace(':', chr(92) + ':')}'")
    with pytest.raises(CorruptState):
        load(backend)
    with pytest.raises(CorruptState):
        done(backend.apply(setting(OFF)))
    assert executed(url, f"SELECT document FROM {backend.table}") == [(document,)]


@pytest.mark.parametrize("emptied", ["DELETE FROM", "DROP TABLE"])
def test_an_emptied_table_gets_the_state_back(backend: SQLAlchemyBackend, url: str, make: Make, emptied: str) -> None:
    state = done(backend.apply(setting(ON)))
    executed(url, f"{emptied} {backend.table}")
    assert load(make(url)) is None
    put_back = load(backend)
    assert put_back == state.model_copy(update={"restored": True}) == load(make(url))


def test_a_document_that_is_too_long_is_read_to_the_limit(backend: SQLAlchemyBackend, url: str) -> None:
    done(backend.apply(setting(ON)))
    executed(url, f"UPDATE {backend.table} SET document = '{'x' * (MAX_BYTES * 3)}'")
    content = done(backend.store.read("default")).content
    assert content is not None
    assert len(content) == MAX_BYTES + 1
    with pytest.raises(CorruptState, match="more than 65536 bytes"):
        load(backend)


def test_a_duplicate_row_is_a_conflict(backend: SQLAlchemyBackend) -> None:
    done(backend.apply(setting(ON)))
    with pytest.raises(Conflict):
        done(backend.store.replace("default", b"{}", None, seconds=5))


def test_another_table_of_that_name_is_a_failure(backend: SQLAlchemyBackend, url: str) -> None:
    executed(url, f"CREATE TABLE {backend.table} (name VARCHAR(100))")
    with pytest.raises(BackendUnavailable, match="document"):
        load(backend)
    with pytest.raises(BackendUnavailable, match="document"):
        done(backend.apply(setting(ON)))
    executed(url, f"DROP TABLE {backend.table}", f"CREATE TABLE {backend.table} (document VARCHAR(100))")
    with pytest.raises(BackendUnavailable, match="name"):
        done(backend.switch_names())
    executed(url, f"DROP TABLE {backend.table}")


def test_a_table_can_be_made_by_a_migration(url: str, make: Make) -> None:
    backend = make(url)
    executed(url, SQLAlchemyBackend.ddl(url.split("+", 1)[0], backend.table))
    assert load(backend) is None
    assert done(backend.apply(setting(ON))).version == 1


def test_a_named_switch_has_its_own_row_and_the_same_connections(backend: SQLAlchemyBackend, url: str) -> None:
    billing = backend.sibling("billing")
    done(backend.apply(setting(ON)))
    assert load(billing) is None
    done(billing.apply(setting(READ_ONLY)))
    assert executed(url, f"SELECT name FROM {backend.table} ORDER BY name") == [("billing",), ("default",)]
    assert billing.store is backend.store
    done(backend.disconnect())
    state = load(billing)
    assert state is not None
    assert state.mode is READ_ONLY
    done(billing.disconnect())


def test_a_backend_works_again_after_it_was_disconnected(backend: SQLAlchemyBackend) -> None:
    done(backend.disconnect())
    state = done(backend.apply(setting(ON)))
    done(backend.disconnect())
    done(backend.disconnect())
    assert load(backend) == state


def test_a_disconnect_waits_for_what_is_under_way(backend: SQLAlchemyBackend) -> None:
    done(backend.apply(setting(ON)))

    async def scenario() -> None:
        changing = asyncio.create_task(backend.apply(setting(OFF)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await backend.disconnect()
        assert (await changing).mode is OFF

    done(scenario())


def test_it_works_on_another_event_loop(backend: SQLAlchemyBackend, caplog: pytest.LogCaptureFixture) -> None:
    """As after the background thread was stopped, or in a forked child: nothing of the former loop is touched."""
    state = done(backend.apply(setting(ON)))
    with caplog.at_level(logging.WARNING):
        io_thread.stop()
        assert load(backend) == state
    assert caplog.text == ""


def test_a_forked_child_uses_connections_of_its_own(backend: SQLAlchemyBackend) -> None:
    """And leaves its parent's alone."""
    state = done(backend.apply(setting(ON)))
    engines = store_of(backend)._engines
    here = engines._here
    assert here is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(io_thread, "_running", None)  # what a child finds
        assert load(backend) == state
        assert engines._here is not here
        done(backend.disconnect())
        io_thread.stop()
    assert not here[2].done()
    engines._here = here
    assert load(backend) == state


# Contention


def test_many_can_make_the_table_at_once(url: str, make: Make) -> None:
    """8 writers that find no table, each with an engine of its own."""
    backends = [make(url, timeout_seconds=25) for _ in range(8)]

    async def scenario() -> None:
        await asyncio.gather(*(backend.apply(holding(str(n))) for n, backend in enumerate(backends)))

    done(scenario())
    state = load(backends[0])
    assert state is not None
    assert state.version == 8
    assert len(state.holds) == 8


# What goes wrong: SQLite

IN_TIME = r"database is locked|no answer within"
"""SQLite gives up first, unless the machine is so slow that its answer takes the rest of the time."""


@pytest.fixture
def lite(tmp_path: Path, make: Make) -> SQLAlchemyBackend:
    done(make(sqlite_url(tmp_path)).apply(setting(ON)))
    return make(sqlite_url(tmp_path), timeout_seconds=2)


def test_a_locked_sqlite_file_can_be_read_and_not_changed(lite: SQLAlchemyBackend, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "switches.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BackendUnavailable, match=IN_TIME) as raised:
            done(lite.apply(setting(OFF)))
        assert not isinstance(raised.value, OutcomeUnknown)
        state = load(lite)
        other.execute("ROLLBACK")
    other.close()
    assert state is not None
    assert state.mode is ON
    assert load(lite) == state


def test_an_exclusively_locked_sqlite_file_is_a_failure(lite: SQLAlchemyBackend, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "switches.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(BackendUnavailable, match=IN_TIME):
        load(lite)
    other.close()
    assert load(lite) is not None


def test_a_commit_that_readers_keep_out_is_a_refusal(lite: SQLAlchemyBackend, tmp_path: Path) -> None:
    """It is not made later either, when the reader has gone."""
    other = sqlite3.connect(tmp_path / "switches.db", isolation_level=None)
    other.execute("BEGIN")
    reading = other.execute(f"SELECT name FROM {lite.table}")
    reading.fetchone()
    state = load(lite)
    with pytest.raises(BackendUnavailable, match=IN_TIME) as raised:
        done(lite.apply(setting(OFF)))
    assert not isinstance(raised.value, OutcomeUnknown)
    reading.close()
    other.close()
    time.sleep(0.2)
    assert load(lite) == state


def test_a_sqlite_file_that_is_none_is_a_failure(tmp_path: Path, make: Make) -> None:
    (tmp_path / "switches.db").write_text("garbage" * 200)
    backend = make(sqlite_url(tmp_path))
    with pytest.raises(BackendUnavailable, match="file is not a database"):
        load(backend)
    with pytest.raises(BackendUnavailable, match="file is not a database"):
        done(backend.apply(setting(ON)))


def test_a_missing_directory_is_a_failure(tmp_path: Path, make: Make) -> None:
    """Of reading too: an empty store would be off, and look as if all were well."""
    backend = make(sqlite_url(tmp_path / "missing"))
    for work in backend.load(), backend.try_writing(), backend.apply(setting(ON)):
        with pytest.raises(BackendUnavailable, match="unable to open database file"):
            done(work)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "missing").mkdir()
    assert load(backend) is None
    assert done(backend.apply(setting(ON))) == load(backend)


def test_a_sqlite_uri_says_itself_how_it_is_opened(tmp_path: Path, make: Make) -> None:
    backend = make(f"sqlite+aiosqlite:///file:{tmp_path}/switches.db?mode=rw&uri=true")
    with pytest.raises(BackendUnavailable, match="unable to open database file"):
        load(backend)
    sqlite3.connect(tmp_path / "switches.db").execute("VACUUM").connection.close()
    assert load(backend) is None
    assert done(backend.apply(setting(ON))) == load(backend)


# What goes wrong: PostgreSQL


@pytest.fixture
def proxied(postgres_server: PostgresServer, make: Make) -> Iterator[tuple[SQLAlchemyBackend, SilentProxy]]:
    """A backend behind a proxy, with a first state and an open connection."""
    with SilentProxy(postgres_server.port) as proxy:
        backend = make(postgres_server.url(port=proxy.port), timeout_seconds=2)
        patient = make(postgres_server.url(), table=backend.table)
        done(patient.apply(setting(ON)))
        done(backend.load())
        yield backend, proxy
        proxy.speak()
        done(backend.disconnect())


def test_a_server_that_is_not_there_is_a_failure(mortal: PostgresServer, make: Make) -> None:
    backend = make(mortal.url())
    mortal.kill()
    for coroutine in (backend.load(), backend.apply(setting(ON))):
        with pytest.raises(BackendUnavailable, match=r"refused|Connect call failed") as raised:
            done(coroutine)
        assert not isinstance(raised.value, OutcomeUnknown)
    mortal.start()
    assert load(backend) is None
    assert done(backend.apply(setting(ON))).mode is ON


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_a_restarted_server_is_found_again(mortal: PostgresServer, make: Make, how: str) -> None:
    """The connections of before are noticed to be dead, not used."""
    backend = make(mortal.url())
    state = done(backend.apply(setting(ON)))
    getattr(mortal, how)()
    with pytest.raises(BackendUnavailable):
        load(backend)
    mortal.start()
    assert load(backend) == state
    assert done(backend.apply(setting(OFF))).version == 2


def test_a_paused_server_is_a_failure_in_time_and_changes_nothing_later(mortal: PostgresServer, make: Make) -> None:
    backend = make(mortal.url(), timeout_seconds=0.5)
    state = done(backend.apply(setting(ON)))
    mortal.pause()
    for coroutine in (backend.load(), backend.apply(setting(OFF))):
        with pytest.raises(BackendUnavailable, match=r"no answer within 0.5 s") as raised:
            done(coroutine)
        assert not isinstance(raised.value, OutcomeUnknown)
    mortal.resume()
    time.sleep(0.5)
    assert load(backend) == state


def test_a_connection_that_falls_silent_is_left(proxied: tuple[SQLAlchemyBackend, SilentProxy]) -> None:
    backend, proxy = proxied
    state = load(backend)
    proxy.fall_silent()
    for coroutine in (backend.load(), backend.apply(setting(OFF))):
        with pytest.raises(BackendUnavailable, match="no answer within 2 s"):
            done(coroutine)
    proxy.speak()
    assert load(backend) == state


def test_a_connection_that_was_cut_is_made_again(proxied: tuple[SQLAlchemyBackend, SilentProxy]) -> None:
    backend, proxy = proxied
    state = load(backend)
    proxy.cut()
    assert load(backend) == state
    proxy.cut()
    assert done(backend.apply(setting(OFF))).version == 2


@pytest.mark.parametrize(
    ("statement", "outcome"),
    [(b"SELECT SUBSTR", BackendUnavailable), (b'UPDATE "', OutcomeUnknown), (b"COMMIT;", OutcomeUnknown)],
)
def test_a_change_that_came_to_the_server_too_late_is_not_made(
    proxied: tuple[SQLAlchemyBackend, SilentProxy],
    make: Make,
    postgres_server: PostgresServer,
    statement: bytes,
    outcome: type[Exception],
) -> None:
    """Held back by the network until its caller has gone, the ``COMMIT`` included."""
    backend, proxy = proxied
    state = load(backend)
    done(backend.disconnect())  # what a connection has prepared already is not sent again
    proxy.fall_silent(after=statement)
    with pytest.raises(outcome) as raised:
        done(backend.apply(setting(OFF)))
    assert type(raised.value) is outcome
    proxy.speak()
    time.sleep(0.3)
    assert load(make(postgres_server.url())) == state


def test_an_answer_that_was_lost_is_looked_for(
    proxied: tuple[SQLAlchemyBackend, SilentProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store does not know the outcome; the document does."""
    backend, proxy = proxied
    commit, unknown = AsyncConnection.commit, list[str]()

    async def commit_and_cut(self: AsyncConnection) -> None:
        await commit(self)
        proxy.cut()
        try:
            await self.exec_driver_sql("SELECT 1")
        except Exception:
            unknown.append("cut")
            raise

    change = holding("a")
    monkeypatch.setattr(AsyncConnection, "commit", commit_and_cut)
    state = done(backend.apply(change))
    assert unknown == ["cut"]
    assert (state.version, set(state.holds)) == (2, {"a"})
    revision = done(backend.store.read("default")).revision
    with pytest.raises(OutcomeUnknown, match="did not say whether the change was made"):
        done(backend.store.replace("default", state.to_json(), revision, seconds=5))


def test_a_connection_that_is_lost_before_the_commit_is_a_certain_failure(
    proxied: tuple[SQLAlchemyBackend, SilentProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, proxy = proxied
    state, begin = load(backend), AsyncConnection.exec_driver_sql

    async def begin_and_cut(self: AsyncConnection, *args: Any, **options: Any) -> Any:
        result = await begin(self, *args, **options)
        proxy.cut()
        return result

    monkeypatch.setattr(AsyncConnection, "exec_driver_sql", begin_and_cut)
    with pytest.raises(BackendUnavailable) as raised:
        done(backend.apply(setting(OFF)))
    assert not isinstance(raised.value, OutcomeUnknown)
    monkeypatch.undo()
    assert load(backend) == state


def test_the_limit_of_waiting_for_locks_ends_with_the_transaction(
    postgres_server: PostgresServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection goes back to the pool with the server's own limits."""
    backend = make(postgres_server.url())
    done(backend.apply(setting(ON)))
    begin, seen = AsyncConnection.exec_driver_sql, list[str]()

    async def shown(connection: AsyncConnection) -> str:
        return str((await connection.execute(sqlalchemy.text("SHOW lock_timeout"))).scalar_one())

    async def begin_and_look(self: AsyncConnection, *args: Any, **options: Any) -> Any:
        result = await begin(self, *args, **options)
        seen.append(await shown(self))
        return result

    monkeypatch.setattr(AsyncConnection, "exec_driver_sql", begin_and_look)
    done(backend.apply(setting(OFF)))

    async def look() -> str:
        async with store_of(backend)._connect() as connection:
            return await shown(connection)

    assert [text.endswith("ms") for text in seen] == [True]
    assert done(look()) == "0"


class Locked:
    """The row of a backend, locked by another connection of PostgreSQL."""

    def __init__(self, server: PostgresServer, backend: SQLAlchemyBackend) -> None:
        self._server = server
        sql = f"BEGIN; SELECT 1 FROM {backend.table} FOR UPDATE; SELECT pg_sleep(30)"
        self._thread = threading.Thread(target=self._hold, args=(sql,))

    def _hold(self, sql: str) -> None:
        with pytest.raises(subprocess.CalledProcessError):
            self._server.run(sql)

    def __enter__(self) -> None:
        self._thread.start()
        while not self._server.run("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"):
            time.sleep(0.01)

    def __exit__(self, *_: object) -> None:
        self._server.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        self._thread.join()


def test_a_row_that_others_hold_is_a_failure_in_time(postgres_server: PostgresServer, make: Make) -> None:
    backend = make(postgres_server.url(), timeout_seconds=2)
    state = done(backend.apply(setting(ON)))
    with Locked(postgres_server, backend):
        with pytest.raises(BackendUnavailable, match=r"lock timeout|no answer within") as raised:
            done(backend.apply(setting(OFF)))
        assert load(backend) == state
    assert not isinstance(raised.value, OutcomeUnknown)
    time.sleep(0.2)
    assert load(backend) == state


def test_a_change_can_be_cancelled(postgres_server: PostgresServer, make: Make) -> None:
    backend = make(postgres_server.url())
    state = done(backend.apply(setting(ON)))
    with Locked(postgres_server, backend):
        waiting = io_thread.submit(backend.apply(setting(OFF)))
        time.sleep(0.3)
        assert waiting.cancel()
        time.sleep(0.5)
    time.sleep(0.2)
    assert load(backend) == state


def test_cancelled_at_any_moment_a_change_is_made_or_not(url: str, make: Make) -> None:
    """As a whole, and the backend works on."""
    backend = make(url, timeout_seconds=20)
    done(backend.apply(setting(ON)))

    async def scenario() -> None:
        version = 1
        for milliseconds in range(0, 30, 2):
            task = asyncio.create_task(backend.apply(holding("a", "b")))
            await asyncio.sleep(milliseconds / 1000)
            task.cancel()
            await asyncio.wait([task])
            state = await backend.load()
            assert state is not None
            assert state.version in {version, version + 1}
            assert state.holds.keys() == (set() if state.version == 1 else {"a", "b"})
            version = state.version

    done(scenario())


@pytest.mark.parametrize("sqlstate", ["40001", "40P01"])
def test_a_deadlock_or_conflict_is_tried_again(
    postgres_server: PostgresServer, make: Make, monkeypatch: pytest.MonkeyPatch, sqlstate: str
) -> None:
    backend = make(postgres_server.url())
    write, tries = SQLAlchemyStore._write, itertools.count(1)

    async def conflict(self: SQLAlchemyStore, *args: Any) -> int:
        if next(tries) < 3:
            async with self._connect() as connection:
                await connection.exec_driver_sql(f"DO $$ BEGIN RAISE SQLSTATE '{sqlstate}'; END $$")
        return await write(self, *args)

    monkeypatch.setattr(SQLAlchemyStore, "_write", conflict)
    done(backend.apply(setting(ON)))
    assert next(tries) > 3


def test_who_may_not_make_the_table_is_told_how_to(postgres_server: PostgresServer, make: Make) -> None:
    user = f"u{uuid.uuid4().hex}"
    postgres_server.run(f"CREATE USER {user} PASSWORD 'x y'")
    backend = make(f"postgresql+asyncpg://{user}:x%20y@127.0.0.1:{postgres_server.port}/postgres")
    with pytest.raises(BackendUnavailable, match=r"permission denied for schema public.*ddl\('postgresql'\)"):
        done(backend.apply(setting(ON)))


def test_a_connection_that_is_lost_while_the_table_is_made_is_a_failure(
    postgres_server: PostgresServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make(postgres_server.url())
    monkeypatch.setattr(module, "ddl", lambda *_: "SELECT pg_terminate_backend(pg_backend_pid())")
    with pytest.raises(BackendUnavailable, match=r"terminating connection|connection is closed|connection was closed"):
        done(backend.apply(setting(ON)))
    monkeypatch.undo()
    assert done(backend.apply(setting(ON))).version == 1


def test_a_table_in_a_schema(postgres_server: PostgresServer, make: Make) -> None:
    schema = f"s{uuid.uuid4().hex}"
    backend = make(postgres_server.url(), table=f"{schema}.Switch")
    assert load(backend) is None
    with pytest.raises(BackendUnavailable, match=r"schema .* does not exist"):
        done(backend.apply(setting(ON)))
    postgres_server.run(f"CREATE SCHEMA {schema}")
    assert done(backend.apply(setting(ON))) == load(backend)
    assert postgres_server.run(f'SELECT name FROM {schema}."Switch"') == ["default"]


def test_waiting_for_a_table_logs_no_errors_at_the_server(postgres_server: PostgresServer, make: Make) -> None:
    """A server's log is read by people: a question each second for a missing table would fill it."""
    backend = make(postgres_server.url())
    logged = len(postgres_server.log)
    for _ in range(3):
        load(backend)
    assert "ERROR" not in postgres_server.log[logged:]


def test_few_connections_are_kept(postgres_server: PostgresServer, make: Make) -> None:
    backend = make(postgres_server.url())
    switches = [backend, *(backend.sibling(f"s{n}") for n in range(8))]

    async def scenario() -> None:
        for _ in range(3):
            await asyncio.gather(*(switch.load() for switch in switches))

    done(scenario())
    here = store_of(backend)._engines._here
    assert here is not None
    assert here[1].pool.checkedin() == 2  # type: ignore[attr-defined]


def test_connections_of_a_backend_that_was_dropped_are_closed(postgres_server: PostgresServer) -> None:
    """Nobody disconnected it."""
    backend = SQLAlchemyBackend(postgres_server.url(), table=f"t{uuid.uuid4().hex}", timeout_seconds=5)
    done(backend.apply(setting(ON)))
    load(backend)
    its = f"query LIKE '%{backend.table}%' AND pid <> pg_backend_pid()"
    query = f"SELECT count(*) FROM pg_stat_activity WHERE {its}"
    assert postgres_server.run(query) == ["1"]
    del backend
    gc.collect()
    wait_until(lambda: postgres_server.run(query) == ["0"])


def test_a_backend_can_be_dropped_after_its_loop_has_ended(tmp_path: Path) -> None:
    """What would still be open then warns when it is collected, and warnings fail a test."""
    backend = SQLAlchemyBackend(sqlite_url(tmp_path), timeout_seconds=5)
    done(backend.apply(setting(ON)))
    io_thread.stop()
    del backend
    gc.collect()


def test_connections_to_a_server_that_does_not_answer_are_closed(mortal: PostgresServer, make: Make) -> None:
    """All of them, and soon: the farewell of each is not waited for."""
    backend = make(mortal.url())

    async def scenario() -> None:
        await asyncio.gather(backend.load(), backend.load())

    done(scenario())
    mortal.pause()
    begun = time.monotonic()
    done(backend.disconnect())
    assert time.monotonic() - begun < 20
    mortal.resume()
    gc.collect()  # would warn of what is still open
    assert load(backend) is None


def test_a_driver_that_never_says_farewell_is_given_up_on() -> None:
    """Once for each connection that may be kept, though whoever waits cancels again and again."""
    begun: list[float] = []

    class Engine:
        pool = None

        async def dispose(self) -> None:
            begun.append(time.monotonic())
            await asyncio.sleep(600)

    async def close() -> None:
        task = asyncio.create_task(module._dispose(Engine()))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        await io_thread.cancel_tasks([task])

    done(close())
    assert len(begun) == 2
    assert time.monotonic() - begun[0] < 20


# Credentials


def test_a_wrong_password_is_a_failure_that_does_not_show_it(postgres_server: PostgresServer, make: Make) -> None:
    backend = make(postgres_server.url(password="hunter2 @:/"))
    for coroutine in (backend.load(), backend.apply(setting(ON))):
        with pytest.raises(BackendUnavailable, match="password authentication failed") as raised:
            done(coroutine)
        assert "hunter2" not in str(raised.value)
        assert raised.value.__suppress_context__


def test_a_representation_has_no_credentials() -> None:
    backend = SQLAlchemyBackend("postgresql+asyncpg://me:hunter2@host/db?ssl=require&sslpassword=hunter3")
    assert repr(backend) == "SQLAlchemyBackend('postgresql+asyncpg://me:***@host/db', key='default')"


def test_messages_of_drivers_are_cleaned() -> None:
    backend = SQLAlchemyBackend("postgresql+asyncpg://me:hun%20ter@host/db?sslpassword=hunter3&ssl=require")
    error = RuntimeError("dsn me:hun ter@host and hun%20ter and hun+ter and hunter3 with require\nmore")
    assert store_of(backend)._redact(error) == "RuntimeError: dsn me:***@host and *** and *** and *** with require"
    assert store_of(backend)._redact(RuntimeError()) == "RuntimeError: "


@pytest.mark.parametrize(
    "url",
    [
        "hunter2",
        "postgresql+asyncpg://me:hun@ter2:hunter2@host:po/db",
        "postgresql+asyncpg://me:hunter2@host:hunter2/db",
        "postgresql://me:hunter2@host/db",
        "redis://me:hunter2@host/db",
        "postgresql+hunter://me:hunter2@host/db",
        "sqlite+aiosqlite://me:hunter2@hunter2/hunter2.db",
    ],
)
def test_a_refused_url_is_not_shown(url: str) -> None:
    with pytest.raises(InvalidConfiguration) as raised:
        SQLAlchemyBackend(url)
    assert "hunter2" not in str(raised.value)
    assert raised.value.__cause__ is None


# Making one


def test_making_one_connects_to_nothing(tmp_path: Path) -> None:
    SQLAlchemyBackend(sqlite_url(tmp_path))
    SQLAlchemyBackend("postgresql+asyncpg://127.0.0.1:1/db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:///x.db", "names no async driver; use one such as sqlite\\+aiosqlite://"),
        ("postgresql://h/d", "names no async driver; use one such as postgresql\\+asyncpg://"),
        ("postgresql+psycopg2://h/d", "names no async driver"),
        ("mysql://h/d", "names no async driver; use one such as mysql\\+aiomysql://"),
        ("mariadb://h/d", "use one such as mysql\\+aiomysql://"),
        ("postgresql+nonsense://h/d", "names no async driver"),
        ("oracle+oracledb://h/d", "oracle is not supported; supported are postgresql, mysql, sqlite, mariadb"),
        ("x", "can't be read as dialect"),
        (
            "sqlite+aiosqlite://dir/x.db",
            "names a host.*:///relative.db with three slashes.*:////absolute/path.db with",
        ),
        ("sqlite+aiosqlite://x.db", "names a host"),
        ("sqlite+aiosqlite://", "in-memory"),
        ("sqlite+aiosqlite:///:memory:", "in-memory"),
        ("sqlite+aiosqlite:///file:x?mode=memory&uri=true", "in-memory"),
        ("postgresql+asyncpg://me:***@h/d", "give engine.url itself"),
    ],
)
def test_a_url_that_can_not_work_is_refused(url: str, message: str) -> None:
    with pytest.raises(InvalidConfiguration, match=message):
        SQLAlchemyBackend(url)


def test_an_engine_is_refused_and_its_url_taken(tmp_path: Path) -> None:
    engine = create_async_engine(sqlite_url(tmp_path))
    with pytest.raises(InvalidConfiguration, match=r"give engine.url"):
        SQLAlchemyBackend(engine)  # type: ignore[arg-type]
    assert "switches.db" in repr(SQLAlchemyBackend(engine.url))


@pytest.mark.parametrize("table", ["", "1a", 'a"b', "a b", "a.b.c", "x" * 64, "a;drop"])
def test_a_table_name_is_checked(table: str) -> None:
    with pytest.raises(InvalidConfiguration, match="table="):
        SQLAlchemyBackend("sqlite+aiosqlite:///x.db", table=table)
    with pytest.raises(InvalidConfiguration, match="table="):
        SQLAlchemyBackend.ddl("sqlite", table)


@pytest.mark.parametrize("key", ["", "a b", "-a", "x" * 101, "a'"])
def test_a_key_is_checked(key: str) -> None:
    with pytest.raises(InvalidConfiguration, match="key="):
        SQLAlchemyBackend("sqlite+aiosqlite:///x.db", key=key)


def test_a_definition_for_an_unknown_dialect_is_refused() -> None:
    with pytest.raises(InvalidConfiguration, match="must be one of postgresql, mysql, sqlite, mariadb"):
        SQLAlchemyBackend.ddl("oracle")


def test_the_documented_definition_is_the_one_that_is_used() -> None:
    assert module.__doc__ is not None
    documented = "\n".join(line.removeprefix("    ") for line in module.__doc__.splitlines())
    assert SQLAlchemyBackend.ddl("postgresql") in documented


def test_mysql_has_room_for_the_largest_document() -> None:
    """Its TEXT ends at 65,535 bytes, one less than a document may have."""
    assert "LONGTEXT" in SQLAlchemyBackend.ddl("mysql") == SQLAlchemyBackend.ddl("mariadb")
    assert "`ops`.`switch`" in SQLAlchemyBackend.ddl("mysql", "ops.switch")


def test_a_named_switch_has_the_same_options() -> None:
    options: dict[str, Any] = {
        "poll_seconds": 0.5,
        "timeout_seconds": 3,
        "on_backend_error": "closed",
        "max_stale": 30,
        "initial": MaintenanceMode.ON,
        "init_timeout": 4,
    }
    backend = SQLAlchemyBackend("sqlite+aiosqlite:///x.db", table="ops.switch", **options)
    sibling = backend.sibling("billing")
    assert {name: getattr(sibling, name) for name in options} == options
    assert sibling.store is backend.store
    assert store_of(sibling).row_of("billing") == "billing"
    assert repr(sibling).endswith("key='billing')")
    shop = SQLAlchemyBackend("sqlite+aiosqlite:///x.db", key="shop").sibling("billing")
    assert repr(shop).endswith("key='shop:billing')")


@pytest.mark.parametrize("missing", ["sqlalchemy", "sqlalchemy.ext.asyncio"])
def test_sqlalchemy_is_an_extra(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtra, match=r"fastapi-maintenance\[sqlalchemy\]"):
        SQLAlchemyBackend("sqlite+aiosqlite:///x.db")


def test_sqlalchemy_without_its_own_extra_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "find_spec", lambda name: None if name == "greenlet" else find_spec(name))
    with pytest.raises(MissingExtra, match=r"fastapi-maintenance\[sqlalchemy\]"):
        SQLAlchemyBackend("sqlite+aiosqlite:///x.db")


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiosqlite", None)
    with pytest.raises(InvalidConfiguration, match="pip install aiosqlite"):
        SQLAlchemyBackend("sqlite+aiosqlite:///x.db")


def test_importing_the_module_does_not_import_sqlalchemy() -> None:
    script = "import sys, fastapi_maintenance.backends.sqlalchemy; sys.exit('sqlalchemy' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


LEAVE_IT_TO_THE_END = """
import asyncio, sys
from fastapi_maintenance.backends.sqlalchemy import SQLAlchemyBackend

async def main():
    backend = SQLAlchemyBackend(sys.argv[1], table=sys.argv[2], timeout_seconds=20)
    await backend.set_value(True)
    print(await backend.get_value())

asyncio.run(main())
"""


def test_nothing_stays_open_at_the_end_of_a_process(url: str, make: Make, postgres_server: PostgresServer) -> None:
    logged = len(postgres_server.log)
    assert output_of(LEAVE_IT_TO_THE_END, url, make(url).table) == "True\n"
    assert "unexpected EOF on client connection" not in postgres_server.log[logged:]


MANY_BLOCKS = """
import asyncio, sys
from fastapi_maintenance import maintenance_mode_on
from fastapi_maintenance.backends.sqlalchemy import SQLAlchemyBackend

async def main():
    backend = SQLAlchemyBackend(sys.argv[1], table=sys.argv[2], timeout_seconds=20)
    for _ in range(60):
        async with maintenance_mode_on(backend):
            pass
    print(await backend.get_value())

asyncio.run(main())
"""


@pytest.mark.parametrize("driver", ["aiosqlite", "asyncpg", "psycopg"])
def test_many_blocks_leave_nothing_behind(
    postgres_server: PostgresServer, make: Make, tmp_path: Path, driver: str
) -> None:
    """Neither an exception that was never retrieved nor a traceback at the end of the process."""
    url = postgres_server.url().replace("asyncpg", driver)
    if driver == "aiosqlite":
        url = sqlite_url(tmp_path)
    assert output_of(MANY_BLOCKS, url, make(url).table) == "False\n"


@pytest.mark.parametrize("what", ["reading", "changing"])
def test_what_is_cancelled_leaves_no_lock_behind(tmp_path: Path, make: Make, what: str) -> None:
    """At any point of it, a heartbeat at the end of its block for example: the next change need not wait."""
    backend = make(sqlite_url(tmp_path), timeout_seconds=5)

    async def cancel_after(seconds: float) -> None:
        work: Coroutine[Any, Any, Any] = backend.load() if what == "reading" else backend.apply(holding("a"))
        task = asyncio.create_task(work)
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await backend.apply(holding("b"))  # or the file is locked

    async def cancel() -> None:
        await backend.apply(holding())
        for hundreds_of_microseconds in range(60):
            await cancel_after(hundreds_of_microseconds / 10_000)

    done(cancel())


def test_a_disk_that_does_not_answer_is_given_up_on(tmp_path: Path, make: Make) -> None:
    """Or a cancellation would wait for it for ever."""
    store = store_of(make(sqlite_url(tmp_path), timeout_seconds=0.2))
    was_cancelled = False

    async def never_ends() -> None:
        nonlocal was_cancelled
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            was_cancelled = True
            raise

    async def give_up() -> None:
        task = asyncio.create_task(store._run_to_end(never_ends()))
        await asyncio.sleep(0)
        await io_thread.cancel_tasks([task])

    done(give_up())
    assert was_cancelled


def test_what_fails_after_it_was_cancelled_is_no_surprise(
    tmp_path: Path, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is left to be told."""
    store = store_of(make(sqlite_url(tmp_path)))

    async def fails_later() -> None:
        await asyncio.sleep(0.05)
        raise ZeroDivisionError

    async def cancel() -> None:
        task = asyncio.create_task(store._run_to_end(fails_later()))
        await asyncio.sleep(0)
        await io_thread.cancel_tasks([task])

    done(cancel())
    gc.collect()
    assert caplog.records == []
