"""A row of a database as a switch: for services that have a database and nothing else to share.

The table is made by the first write; reading makes nothing. Who makes tables by migrations finds its definition in
``SQLAlchemyBackend.ddl("postgresql")`` and the like::

    CREATE TABLE IF NOT EXISTS "fastapi_maintenance" (
        name VARCHAR(100) NOT NULL PRIMARY KEY,
        version BIGINT NOT NULL,
        document TEXT NOT NULL,
        updated_at TIMESTAMP WITH TIME ZONE NOT NULL
    )

Each switch has a row of its own, named like the switch.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
import weakref
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import quote, quote_plus

from .. import background
from ..exceptions import (
    BackendUnavailable,
    DeadlinePassed,
    InvalidConfiguration,
    MaintenanceError,
    MissingExtra,
    OutcomeUnknown,
)
from ..state import UNIX_EPOCH, Change, MaintenanceMode, MaintenanceState
from .base import FollowedBackend, OnBackendError, clock_difference

T = TypeVar("T")

if TYPE_CHECKING:
    from sqlalchemy import URL, CursorResult, Row
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

DEFAULT_TABLE = "fastapi_maintenance"
DEFAULT_KEY = "default"

_TABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]{0,62}\.)?[A-Za-z_][A-Za-z0-9_]{0,62}")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}")
_SECRET = re.compile(r"pass|pwd|secret|token|key", re.IGNORECASE)

_SHARE_OF_THE_STORE = 0.8
"""The part of ``timeout_seconds`` within which the database must have made a change; the rest is for its answer."""

_SECONDS_BETWEEN_TRIES = 0.02
_SECONDS_TO_CLOSE = 0.5
_CONNECTIONS_KEPT = 2


@dataclass(frozen=True, kw_only=True)
class _Family:
    """What a family of databases says in its own way.

    In the statements, ``{table}`` is the quoted table, ``{ms}`` and ``{s}`` are the time that is left.
    """

    async_form: str
    quote: str = '"'
    text_type: str = "TEXT"
    time_type: str = "TIMESTAMP"
    table_options: str = ""
    exists: str | None = None
    """Asked before the table was seen, where the database would log a question for a row as an error."""
    begin: tuple[str, ...] = ()
    """Begins a write whose statements give up by themselves."""
    clock: str
    """The milliseconds since 1970, when the expression is evaluated."""
    more_limits: str = ""
    """Further columns to select with the clock when a write begins."""
    before_commit: str | None = None
    insert: str
    """Does nothing where the row exists."""
    for_update: str = " FOR UPDATE"


_INSERT = "INSERT INTO {table} (name, version, document, updated_at) VALUES (:name, 0, :document, CURRENT_TIMESTAMP)"

_FAMILIES = {
    "postgresql": _Family(
        async_form="postgresql+asyncpg",
        time_type="TIMESTAMP WITH TIME ZONE",
        exists="SELECT to_regclass('{table}') IS NOT NULL",
        clock="CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
        # The second ends a transaction whose COMMIT did not come in time, so that it can't come later.
        more_limits=", set_config('lock_timeout', '{ms}', true)"
        ", set_config('idle_in_transaction_session_timeout', '{ms}', true)",
        insert=f"{_INSERT} ON CONFLICT DO NOTHING",
    ),
    "mysql": _Family(
        async_form="mysql+aiomysql",
        quote="`",
        text_type="LONGTEXT",
        table_options=" ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
        # It knows whole seconds only. What waits for longer than its client did is rolled back with the connection.
        begin=("SET SESSION innodb_lock_wait_timeout = {s}, SESSION lock_wait_timeout = {s}",),
        clock="TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000",
        # INSERT IGNORE would warn, and take a lock that two can share and neither can upgrade.
        insert=f"{_INSERT} ON DUPLICATE KEY UPDATE name = name",
    ),
    "sqlite": _Family(
        async_form="sqlite+aiosqlite",
        begin=("PRAGMA busy_timeout = {ms}", "BEGIN IMMEDIATE"),
        before_commit="PRAGMA busy_timeout = {ms}",  # it waits for readers, with less time than at the beginning
        clock="CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
        insert=f"{_INSERT} ON CONFLICT DO NOTHING",
        for_update="",
    ),
}
_FAMILIES["mariadb"] = _FAMILIES["mysql"]


class _Limit:
    """Until when a change may be made at the database, and whether it may have been made."""

    def __init__(self, seconds: float) -> None:
        self.until = time.monotonic() + seconds * _SHARE_OF_THE_STORE
        self.is_committing = False
        """Whether the database was told to keep the change, and did not answer."""

    def left(self) -> float:
        """Return how many seconds are left.

        Raises:
            DeadlinePassed: None are.
        """
        seconds = self.until - time.monotonic()
        if seconds <= 0:
            raise DeadlinePassed
        return seconds


@dataclass(frozen=True)
class _Clock:
    """The database's clock, read once."""

    milliseconds: int
    read_at: float

    def at(self, moment: float) -> int:
        """Return its milliseconds since 1970 at a moment of this process's monotonic clock."""
        return self.milliseconds + int((moment - self.read_at) * 1000)

    def now(self) -> datetime:
        return UNIX_EPOCH + timedelta(milliseconds=self.at(time.monotonic()))


class SQLAlchemyBackend(FollowedBackend):
    """Maintenance by a row of a PostgreSQL, MySQL, MariaDB or SQLite database, by way of SQLAlchemy 2.

    Other processes see a change when they read the row next, after ``poll_seconds`` at the latest.

    A change is one transaction that locks the row, on connections of its own (at most four to a process). The
    database's clock decides which holds have expired, and refuses a change whose caller no longer waits; in MySQL one
    that is being committed in that moment may still count, and its caller was told ``OutcomeUnknown``.

    The driver is yours to install: asyncpg or psycopg, aiomysql or asyncmy, aiosqlite.

    Args:
        url: An async URL, such as ``postgresql+asyncpg://user:password@host/database``, or SQLAlchemy's ``URL``. Not
            an engine, whose connections belong to your event loop: give ``engine.url``.
        table: Its name, with its schema if need be: ``ops.maintenance``.
        key: The name of the row.
        poll_seconds: How often the row is read.
        timeout_seconds: How long one reading or changing may take, connecting included.
        on_backend_error: As for every followed backend, and so are the others.
        max_stale: Seconds.
        initial: What counts while the database never answered.
        init_timeout: Seconds.

    Raises:
        MissingExtra: SQLAlchemy is not installed.
        InvalidConfiguration: The URL or an option can't work, or its driver is not installed.
    """

    def __init__(
        self,
        url: str | URL,
        *,
        table: str = DEFAULT_TABLE,
        key: str = DEFAULT_KEY,
        poll_seconds: float = 1.0,
        timeout_seconds: float = 1.0,
        on_backend_error: OnBackendError = "keep",
        max_stale: float | None = None,
        initial: bool | MaintenanceMode = False,
        init_timeout: float = 2.0,
    ) -> None:
        super().__init__(
            poll_seconds=poll_seconds,
            timeout_seconds=timeout_seconds,
            on_backend_error=on_backend_error,
            max_stale=max_stale,
            initial=initial,
            init_timeout=init_timeout,
        )
        if not _KEY.fullmatch(key):
            raise InvalidConfiguration(
                f"key={key!r}: the name of a row has up to 100 letters, digits, '_', '-', '.' and ':', "
                "and begins with a letter or digit"
            )
        self.key = key
        self.table = _checked_table(table)
        self._database = _Database(_checked_url(url), timeout_seconds)
        self._family = self._database.family
        self._table_seen = self._family.exists is None

    def __repr__(self) -> str:
        return f"SQLAlchemyBackend({self._database!r}, key={self.key!r})"

    def __str__(self) -> str:
        return f"{self._database.shown()}, row {self.key}"

    @staticmethod
    def ddl(dialect: str, table: str = DEFAULT_TABLE) -> str:
        """Return the statement that makes the table: for ``postgresql``, ``mysql``, ``mariadb`` or ``sqlite``.

        Raises:
            InvalidConfiguration: No such dialect is supported, or the table's name can't be one.
        """
        if dialect not in _FAMILIES:
            raise InvalidConfiguration(f"dialect {dialect!r}: supported are {', '.join(_FAMILIES)}")
        family = _FAMILIES[dialect]
        return (
            f"CREATE TABLE IF NOT EXISTS {_quoted(_checked_table(table), family)} (\n"
            "    name VARCHAR(100) NOT NULL PRIMARY KEY,\n"
            "    version BIGINT NOT NULL,\n"
            f"    document {family.text_type} NOT NULL,\n"
            f"    updated_at {family.time_type} NOT NULL\n"
            f"){family.table_options}"
        )

    def sibling(self, name: str) -> SQLAlchemyBackend:
        """Return the backend of a named switch: the row of that name, by the same connections."""
        made = SQLAlchemyBackend(
            self._database.url,
            table=self.table,
            key=name if self.key == DEFAULT_KEY else f"{self.key}:{name}",
            **self._options(),
        )
        made._database = self._database
        return made

    async def load(self) -> MaintenanceState | None:
        """Return the state that the row has now, or ``None`` if there is no row or no table.

        Raises:
            BackendUnavailable: The database did not answer within ``timeout_seconds``, or answered with an error.
            CorruptState: The row has something else.
        """
        try:
            row = await background.bounded(self._database.unbroken(self._row()), self.timeout_seconds)
        except Exception as error:  # noqa: BLE001 - drivers raise what they like
            raise BackendUnavailable(repr(self), self._database.told(error)) from None
        return None if row is None else self._by_our_clock(self._state(row.document), row.clock)

    async def apply(self, change: Change) -> MaintenanceState:
        """Carry out one change in one transaction and return the state after it.

        Raises:
            ChangeRejected: The change does not fit what the row has now, or came too late.
            BackendUnavailable: The database did not answer, or others held the row; nothing was changed.
            OutcomeUnknown: The connection was lost while the change was being committed.
            CorruptState: The row has something else, which is left as it is.
        """
        limit = _Limit(self.timeout_seconds)
        try:
            return await background.bounded(self._database.unbroken(self._apply(change, limit)), self.timeout_seconds)
        except MaintenanceError:
            raise
        except Exception as error:  # noqa: BLE001 - drivers raise what they like
            kind = OutcomeUnknown if limit.is_committing else BackendUnavailable
            raise kind(repr(self), self._database.told(error)) from None

    async def store_time(self) -> datetime | None:
        """Return what time it is by the database's clock; SQLite's is that of this host.

        Raises:
            BackendUnavailable: The database did not answer within ``timeout_seconds``, or answered with an error.
        """
        if self._database.kind == "sqlite":
            return None
        try:
            milliseconds = await background.bounded(self._clock(), self.timeout_seconds)
        except Exception as error:  # noqa: BLE001 - drivers raise what they like
            raise BackendUnavailable(repr(self), self._database.told(error)) from None
        return UNIX_EPOCH + timedelta(milliseconds=int(milliseconds))

    async def try_writing(self) -> str | None:
        """Write the row as it is and roll that back; where a table or a database would be made, nothing is tried.

        Raises:
            BackendUnavailable: The database did not answer, or does not let this user write.
            CorruptState: The row has something else.
        """
        await self.load()
        try:
            if self._table_seen and not self._database.is_nowhere():
                trying = self._database.unbroken(self._write_in_vain())
                await background.bounded(trying, self.timeout_seconds)
                return None
        except Exception as error:  # noqa: BLE001 - drivers raise what they like
            if not _is_missing_table(error):
                raise BackendUnavailable(repr(self), self._database.told(error)) from None
        return "there is no table yet; the first change makes it"

    async def names_beside(self) -> list[str]:
        """Return the names of the other rows, as siblings have them.

        Raises:
            BackendUnavailable: The database did not answer within ``timeout_seconds``, or answered with an error.
        """
        begin = "" if self.key == DEFAULT_KEY else f"{self.key}:"
        try:
            keys = await background.bounded(self._database.unbroken(self._keys()), self.timeout_seconds)
        except Exception as error:  # noqa: BLE001 - drivers raise what they like
            raise BackendUnavailable(repr(self), self._database.told(error)) from None
        return [key.removeprefix(begin) for key in keys if key.startswith(begin) and key != self.key]

    async def disconnect(self) -> None:
        """Close the connections, unless the backend of another switch in the same database uses them."""
        await self._database.disconnect(self)

    async def _clock(self) -> Any:
        async with self._database.connected(self) as connection:
            return await _value(connection, f"SELECT {self._family.clock}")

    async def _keys(self) -> list[str]:
        async with self._database.connected(self) as connection:
            return [row.name for row in await _execute(connection, self._sql("SELECT name FROM {table}"))]

    async def _write_in_vain(self) -> None:
        """Do what a change does to the row, and end the transaction without it."""
        async with self._database.connected(self) as connection:
            await self._begin(connection, _Limit(self.timeout_seconds))
            await self._locked(connection)
            update = "UPDATE {table} SET version = version, document = document, updated_at = updated_at"
            await _execute(connection, self._sql(f"{update} WHERE name = :name"), name=self.key)
            await connection.rollback()

    async def _row(self) -> Row[Any] | None:
        """Return the document and the database's time, or ``None`` if there is no row or no table."""
        if self._database.is_nowhere():
            return None
        async with self._database.connected(self) as connection:
            # No transaction to begin and end around a single statement.
            reading = await connection.execution_options(isolation_level="AUTOCOMMIT")
            if not self._table_seen and not await _value(reading, self._sql(self._family.exists or "")):
                return None
            try:
                select = self._select(f"document, {self._family.clock} AS clock")
                row = (await _execute(reading, select, name=self.key)).first()
            except Exception as error:
                if not _is_missing_table(error):
                    raise
                self._table_seen = self._family.exists is None
                return None
            self._table_seen = True
            return row

    async def _apply(self, change: Change, limit: _Limit) -> MaintenanceState:
        """Make a change, and the table before it if there is none."""
        try:
            return await self._apply_to_table(change, limit)
        except Exception as error:
            if not _is_missing_table(error):
                raise
        refusal = await self._make_table(limit)
        try:
            return await self._apply_to_table(change, limit)
        except Exception as error:
            if refusal is None or not _is_missing_table(error):
                raise
        way_out = f"a migration can make the table, see SQLAlchemyBackend.ddl({self._database.kind!r})"
        raise BackendUnavailable(repr(self), f"{self._database.told(refusal)}; {way_out}")

    async def _make_table(self, limit: _Limit) -> Exception | None:
        """Make the table; return what the database has against it: others may just be making it."""
        try:
            async with self._database.connected(self) as connection:
                await self._begin(connection, limit)
                await connection.exec_driver_sql(self.ddl(self._database.kind, self.table))
                await connection.commit()
        except Exception as error:
            if not _is_refusal(error):
                raise
            return error
        return None

    async def _apply_to_table(self, change: Change, limit: _Limit) -> MaintenanceState:
        """Try to make a change until it is made, or there is no time left for what others do."""
        while True:
            try:
                return await self._apply_once(change, limit)
            except Exception as error:
                if limit.is_committing or not _is_conflict(error) or time.monotonic() >= limit.until:
                    raise
            await asyncio.sleep(background.jittered(_SECONDS_BETWEEN_TRIES))

    async def _apply_once(self, change: Change, limit: _Limit) -> MaintenanceState:
        """Make a change in one transaction."""
        async with self._database.connected(self) as connection:
            clock = await self._begin(connection, limit)
            version, before = await self._locked(connection)
            after = change.applied_once_to(before, clock.now())
            if after is before:
                return self._by_our_clock(before, clock.milliseconds)
            await self._update(connection, version, after, clock.at(limit.until))
            await self._commit(connection, limit)
            return self._by_our_clock(after, clock.at(time.monotonic()))

    async def _begin(self, connection: AsyncConnection, limit: _Limit) -> _Clock:
        """Begin a transaction that ends by itself when there is no time left; return the database's clock."""
        for statement in self._family.begin:
            await connection.exec_driver_sql(self._sql(statement, limit))
        milliseconds = await _value(
            connection, self._sql(f"SELECT {self._family.clock}{self._family.more_limits}", limit)
        )
        # Read no later than now: what is computed from it for the limit is too early rather than too late.
        return _Clock(int(milliseconds), time.monotonic())

    async def _locked(self, connection: AsyncConnection) -> tuple[int, MaintenanceState]:
        """Return the row's version and state, locked against other writers; insert it if there is none."""
        select = self._select("version, document") + self._family.for_update
        row = (await _execute(connection, select, name=self.key)).one_or_none()
        if row is None:
            document = MaintenanceState().to_json().decode()
            await _execute(connection, self._sql(self._family.insert), name=self.key, document=document)
            row = (await _execute(connection, select, name=self.key)).one()
        return row.version, self._state(row.document)

    async def _update(self, connection: AsyncConnection, version: int, state: MaintenanceState, deadline: int) -> None:
        """Store a state, unless it is too late by the database's clock."""
        update = self._sql(
            "UPDATE {table} SET version = :version, document = :document, updated_at = CURRENT_TIMESTAMP "
            "WHERE name = :name AND version = :former AND "
        )
        updated = await _execute(
            connection,
            f"{update}{self._family.clock} < :deadline",
            version=state.version,
            document=state.to_json().decode(),
            name=self.key,
            former=version,
            deadline=deadline,
        )
        if updated.rowcount != 1:
            raise DeadlinePassed

    async def _commit(self, connection: AsyncConnection, limit: _Limit) -> None:
        if self._family.before_commit is not None:
            await connection.exec_driver_sql(self._sql(self._family.before_commit, limit))
        limit.left()
        limit.is_committing = True
        try:
            await connection.commit()
        except Exception as error:
            limit.is_committing = not _is_refusal(error)
            raise
        limit.is_committing = False

    def _select(self, columns: str) -> str:
        return self._sql(f"SELECT {columns} FROM {{table}} WHERE name = :name")  # noqa: S608 - literal columns

    def _sql(self, statement: str, limit: _Limit | None = None) -> str:
        """Return a statement with what it leaves open; the table's name was checked when it was given."""
        seconds = 0 if limit is None else limit.left()
        return statement.format(
            table=_quoted(self.table, self._family), ms=max(int(seconds * 1000), 1), s=max(int(seconds), 1)
        )

    def _state(self, document: str) -> MaintenanceState:
        return MaintenanceState.from_json(document, where=repr(self))

    @staticmethod
    def _by_our_clock(state: MaintenanceState, milliseconds: int) -> MaintenanceState:
        """Return a stored state as it is by this host's clock, while the database's says so many milliseconds."""
        return state.by_another_clock(clock_difference(UNIX_EPOCH + timedelta(milliseconds=int(milliseconds))))


@dataclass(eq=False)
class _Pool:
    """An engine, whose connections live on one event loop."""

    engine: AsyncEngine
    loop: asyncio.AbstractEventLoop
    keeper: asyncio.Task[None]
    """Closes the idle connections when it is cancelled: by us, or when the loop ends."""
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    """Those that have a connection."""


class _Database:
    """A database, and the connections that all its switches share: made when they are needed first."""

    def __init__(self, url: URL, timeout_seconds: float) -> None:
        self.url = url
        self.kind = url.get_backend_name()
        self.family = _FAMILIES[self.kind]
        self._timeout_seconds = timeout_seconds
        self._pool: _Pool | None = None
        self._users: set[SQLAlchemyBackend] = set()
        secrets = [url.password, *(str(url.query[name]) for name in url.query if _SECRET.search(name))]
        self._secrets = {
            form for secret in secrets if secret for form in (secret, quote(secret, ""), quote_plus(secret))
        }

    def __repr__(self) -> str:
        return repr(self.shown())

    def shown(self) -> str:
        """Return the URL without credentials; a relative path is the one from here."""
        url = self.url.set(query={})
        if self.kind == "sqlite" and not str(url.database).startswith("file:"):
            url = url.set(database=str(Path(str(url.database)).absolute()))
        return url.render_as_string(hide_password=True)

    def told(self, error: Exception) -> str:
        """Return what an error says, in one line and without credentials."""
        told: BaseException = getattr(error, "orig", None) or error
        told = told.__cause__ or told  # the driver's own, without SQLAlchemy's wrapping
        lines = str(told).strip().splitlines() or [""]
        for secret in self._secrets:
            lines[0] = lines[0].replace(secret, "***")
        return f"{type(told).__name__}: {lines[0]}"

    def is_nowhere(self) -> bool:
        """Return whether there is no database to read, and connecting would create one."""
        path = Path(self.url.database or "")
        if self.kind != "sqlite" or str(path).startswith("file:"):
            return False
        # Without its directory it can't be made either: connecting says so.
        return not path.exists() and path.parent.is_dir()

    @contextlib.asynccontextmanager
    async def connected(self, user: SQLAlchemyBackend) -> AsyncIterator[AsyncConnection]:
        """Give a connection; what was not committed in the block is rolled back."""
        pool = self._pool_here()
        self._users.add(user)
        pool.tasks.add(task := cast(asyncio.Task[Any], asyncio.current_task()))
        try:
            async with pool.engine.connect() as connection:
                yield connection
        finally:
            pool.tasks.discard(task)

    async def unbroken(self, work: Coroutine[Any, Any, T]) -> T:
        """Do some work; where it would leave a lock behind, a cancellation waits for the statement to end.

        SQLite runs in a thread. A statement whose caller has gone away ends there all the same, and keeps the file
        locked until Python happens to collect its cursor. Statements take no longer than they may wait for locks, so
        only a disk that does not answer is given up on.
        """
        if self.kind != "sqlite":
            return await work
        task = asyncio.create_task(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            until = time.monotonic() + self._timeout_seconds
            while not task.done():
                if time.monotonic() >= until:
                    task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait({task}, timeout=self._timeout_seconds / 10)
            if not task.cancelled():
                task.exception()  # or asyncio would complain that nobody asked
            raise

    async def disconnect(self, user: SQLAlchemyBackend) -> None:
        """Close the connections once nobody uses them."""
        self._users.discard(user)
        pool = self._pool
        if self._users or pool is None:
            return
        self._pool = None
        if pool.tasks:
            await asyncio.wait(pool.tasks)
        await background.cancelled([pool.keeper])

    def _pool_here(self) -> _Pool:
        """Return the engine of this event loop."""
        loop = asyncio.get_running_loop()
        if self._pool is None or self._pool.loop is not loop:
            if self._pool is not None:
                _forgotten.append(self._pool)
            engine = self._new_engine()
            keeper = loop.create_task(_kept(engine))
            self._pool = _Pool(engine, loop, keeper)
            # Holds the task as well, of which the loop has a weak reference only.
            weakref.finalize(self, _let_go, loop, keeper).atexit = False
            self._users.clear()
        return self._pool

    def _new_engine(self) -> AsyncEngine:
        from sqlalchemy import NullPool  # noqa: PLC0415 - see _checked_url
        from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415

        if self.kind == "sqlite":
            # Transactions are begun by hand: Python's sqlite3 begins them too late, with the first write.
            options = {"isolation_level": None, "timeout": self._timeout_seconds * _SHARE_OF_THE_STORE}
            return create_async_engine(self.url, poolclass=NullPool, connect_args=options)
        return create_async_engine(
            self.url,
            pool_size=_CONNECTIONS_KEPT,
            max_overflow=2,
            pool_timeout=self._timeout_seconds,
            pool_pre_ping=True,
            pool_use_lifo=True,
            isolation_level="READ COMMITTED",
        )


_forgotten: list[object] = []
"""A parent's connections in a forked child: kept, because closing them would close what the parent uses."""


def _let_go(loop: asyncio.AbstractEventLoop, keeper: asyncio.Task[None]) -> None:
    """Have the connections closed of a database that nobody has any more."""
    with contextlib.suppress(RuntimeError):  # its loop has ended, and they were closed then
        loop.call_soon_threadsafe(keeper.cancel)


async def _kept(engine: AsyncEngine) -> None:
    """Keep an engine until this task is cancelled, then close its idle connections."""
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        for _ in range(_CONNECTIONS_KEPT):
            if await _closed(engine):
                break


async def _closed(engine: AsyncEngine) -> bool:
    """Close the idle connections and return ``True``, or give up on one that does not answer its farewell.

    Goes on when it is cancelled, again and again as tasks are here: half closed would be a leak.
    """
    closing = asyncio.create_task(engine.dispose())
    until = time.monotonic() + _SECONDS_TO_CLOSE
    while not closing.done():
        if time.monotonic() >= until:
            closing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({closing}, timeout=_SECONDS_TO_CLOSE / 10)
    return not closing.cancelled()


async def _execute(connection: AsyncConnection, statement: str, **values: Any) -> CursorResult[Any]:
    from sqlalchemy import text  # noqa: PLC0415 - see _checked_url

    return await connection.execute(text(statement), values)


async def _value(connection: AsyncConnection, statement: str) -> Any:
    """Return the first value of the first row, or ``None`` if there is no row."""
    row = (await _execute(connection, statement)).first()
    return None if row is None else row[0]


def _is_refusal(error: Exception) -> bool:
    """Return whether the database itself said no, on a connection that still stands."""
    return not getattr(error, "connection_invalidated", True)


def _says(error: Exception, *, sqlstates: tuple[str, ...], numbers: tuple[int, ...], words: str) -> bool:
    """Return whether a database says one thing: PostgreSQL by state, MySQL by number, SQLite by words."""
    told = getattr(error, "orig", None)
    args = getattr(told, "args", ())
    return getattr(told, "sqlstate", None) in sqlstates or (args and args[0]) in numbers or words in str(told)


def _is_missing_table(error: Exception) -> bool:
    return _says(error, sqlstates=("42P01",), numbers=(1146,), words="no such table")


def _is_conflict(error: Exception) -> bool:
    """Return whether others were in the way: a deadlock, a transaction to be tried again, a locked SQLite file."""
    return _says(error, sqlstates=("40001", "40P01"), numbers=(1213,), words="database is locked")


def _quoted(table: str, family: _Family) -> str:
    return ".".join(f"{family.quote}{part}{family.quote}" for part in table.split("."))


def _checked_table(table: str) -> str:
    if not _TABLE.fullmatch(table):
        raise InvalidConfiguration(
            f"table={table!r}: up to 63 letters, digits and '_' are accepted, not beginning with a digit, "
            "and a schema before it, such as 'ops.maintenance'"
        )
    return table


def _checked_url(url: str | URL) -> URL:
    """Return a URL that can work. SQLAlchemy is imported here and later, so that others need not have it.

    No message has more of the URL than its scheme: a password may stand where it does not belong.
    """
    try:
        import sqlalchemy.ext.asyncio  # noqa: PLC0415
        from sqlalchemy.exc import ArgumentError  # noqa: PLC0415
    except ImportError:
        raise MissingExtra("SQLAlchemyBackend", "sqlalchemy") from None
    if find_spec("greenlet") is None:  # SQLAlchemy would miss it when it connects
        raise MissingExtra("SQLAlchemyBackend", "sqlalchemy")
    if not isinstance(url, str | sqlalchemy.URL):
        raise InvalidConfiguration(
            f"url: a URL is needed, not {type(url).__name__}; an engine's connections belong to its own event loop, "
            "so give engine.url"
        )
    try:
        url = sqlalchemy.make_url(url)
    except (ArgumentError, ValueError):
        raise InvalidConfiguration(
            "url: it can't be read as dialect+driver://user:password@host:port/database; "
            "'@', ':' and '/' in a password are written %40, %3A and %2F"
        ) from None
    if url.password == "***":  # noqa: S105 - what SQLAlchemy writes instead of one
        raise InvalidConfiguration("url: its password is '***', which str(engine.url) gives; give engine.url itself")
    _check_driver(url)
    if url.get_backend_name() == "sqlite" and (url.host or url.username or url.password or url.port):
        raise InvalidConfiguration(
            f"url: {url.drivername}://... with two slashes names a host, and SQLite has none; accepted are "
            f"{url.drivername}:///relative.db with three slashes and {url.drivername}:////absolute/path.db with four"
        )
    if url.get_backend_name() == "sqlite" and _is_in_memory(url):
        raise InvalidConfiguration("url: an in-memory database is gone with its connection; use a file, or 'memory'")
    return url


def _check_driver(url: URL) -> None:
    """Make sure that a URL means a supported database, and an async driver that is installed."""
    from sqlalchemy.exc import NoSuchModuleError  # noqa: PLC0415 - see _checked_url

    kind = url.get_backend_name()
    if kind not in _FAMILIES:
        raise InvalidConfiguration(f"url: {kind} is not supported; supported are {', '.join(_FAMILIES)}")
    try:
        dialect = url.get_dialect().get_async_dialect_cls(url)
    except (NoSuchModuleError, ImportError):
        dialect = None
    # Without a driver the choice is SQLAlchemy's, and differs by its version.
    if dialect is None or not dialect.is_async or "+" not in url.drivername:
        raise InvalidConfiguration(
            f"url: {url.drivername} names no async driver; accepted are such as {_FAMILIES[kind].async_form}://..."
        )
    try:
        dialect.import_dbapi()
    except ImportError as error:
        raise InvalidConfiguration(f"url: {url.drivername} needs a driver: pip install {error.name}") from None


def _is_in_memory(url: URL) -> bool:
    path = url.database or ":memory:"
    return ":memory:" in path or "mode=memory" in path or url.query.get("mode") == "memory"
