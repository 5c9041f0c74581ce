"""Documents in a database: a row each, replaced by one conditional statement.

The table is made by the first write; reading makes nothing. Migrations find its definition in
``SQLAlchemyBackend.ddl("postgresql")`` and the like::

    CREATE TABLE IF NOT EXISTS "fastapi_maintenance" (
        name VARCHAR(100) NOT NULL PRIMARY KEY,
        revision VARCHAR(32) NOT NULL,
        document TEXT NOT NULL,
        updated_at TIMESTAMP WITH TIME ZONE NOT NULL
    )
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, quote_plus

from ...concurrency.per_loop import PerLoop
from ...exceptions import BackendUnavailable, InvalidConfiguration, MaintenanceError, OutcomeUnknown
from ...model.moments import UNIX_EPOCH
from ..contract import MAX_BYTES, Conflict, DocumentStore, Reading
from .databases import DEFAULT_TABLE, FAMILIES, checked_table, ddl, quoted
from .urls import checked_url

if TYPE_CHECKING:
    from sqlalchemy import URL, CursorResult
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


T = TypeVar("T")
DEFAULT_KEY = "default"
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}")
_SECRET = re.compile(r"pass|pwd|secret|token|key", re.IGNORECASE)

_SHARE_OF_THE_DATABASE = 0.8
"""The part of a write's time for which the database may wait for locks; the rest is for its answer."""
_SECONDS_TO_CLOSE = 0.5
_SECONDS_TO_END = 0.2
"""How long a message that nobody waits for any more may take until it is cancelled."""
_CONNECTIONS_KEPT = 2

_INSERT = (
    "INSERT INTO {table} (name, revision, document, updated_at) VALUES (:name, :new, :content, CURRENT_TIMESTAMP)"
)
_UPDATE = (
    "UPDATE {table} SET revision = :new, document = :content, updated_at = CURRENT_TIMESTAMP "
    "WHERE name = :name AND revision = :revision"
)
_SELECT = "SELECT SUBSTR(document, 1, {most}) AS content, revision, {clock} AS clock FROM {table} WHERE name = :name"


class SQLAlchemyStore(DocumentStore):
    """Documents in a table of a PostgreSQL, MySQL, MariaDB or SQLite database, by way of SQLAlchemy 2.

    Args:
        url: An async URL, such as ``postgresql+asyncpg://user:password@host/database``, or SQLAlchemy's ``URL``. Not
            an engine, whose connections belong to your event loop: give ``engine.url``.
        table: Its name, with its schema if need be: ``ops.maintenance``.
        key: The row of the default switch. Other switches have rows of their own names, behind ``<key>:`` unless the
            key is ``default``.
        seconds: How long one statement may take, connecting included.

    Raises:
        MissingExtra: SQLAlchemy is not installed.
        InvalidConfiguration: The URL or an option can't work, or its driver is not installed.
    """

    def __init__(
        self, url: str | URL, table: str = DEFAULT_TABLE, key: str = DEFAULT_KEY, *, seconds: float = 1.0
    ) -> None:
        if not _KEY.fullmatch(key):
            raise InvalidConfiguration(
                f"key={key!r} must be the name of a row: up to 100 letters, digits, '_', '-', '.' and ':', "
                "beginning with a letter or digit"
            )
        self.key = key
        self.table = checked_table(table)
        self.url = checked_url(url)
        self.kind = self.url.get_backend_name()
        self._seconds = seconds
        self._family = FAMILIES[self.kind]
        self._quoted_table = quoted(self.table, self._family)
        self._table_seen = self._family.exists is None
        self._engines = PerLoop(self._new_engine, _dispose)
        self._clock: tuple[datetime, float] | None = None
        """The database's time, and this process's monotonic time when it came."""
        secrets = [self.url.password, *(str(self.url.query[name]) for name in self.url.query if _SECRET.search(name))]
        self._secrets = {
            form for secret in secrets if secret for form in (secret, quote(secret, ""), quote_plus(secret))
        }

    def row_of(self, switch: str) -> str:
        """Return the name of a switch's row."""
        if switch == "default":
            return self.key
        return switch if self.key == DEFAULT_KEY else f"{self.key}:{switch}"

    def describe(self, key: str) -> str:
        """Return the database and the row, without credentials."""
        return f"SQLAlchemyBackend({self._shown()!r}, key={self.row_of(key)!r})"

    def address(self, key: str) -> str:
        """Return the database's URL and the row, without credentials."""
        return f"{self._shown()}, row {self.row_of(key)}"

    def _shown(self) -> str:
        """Return the URL without credentials; a relative path is made absolute."""
        url = self.url.set(query={})
        if self.kind == "sqlite" and not str(url.database).startswith("file:"):
            url = url.set(database=str(Path(str(url.database)).absolute()))
        return url.render_as_string(hide_password=True)

    async def read(self, key: str) -> Reading:
        """Return the row of a switch, or none where there is no table."""
        with self._errors(key):
            return await self._unbroken(self._read(key))

    async def replace(
        self, key: str, content: bytes, revision: str | None, *, seconds: float, quiet: bool = False
    ) -> Reading:
        """Write the row if it still has this revision, and make the table before it if there is none."""
        return await self._unbroken(self._replace(key, content, revision, seconds))

    async def names(self) -> list[str]:
        """Return the switches that have a row."""
        if self._is_nowhere():
            return []
        with self._errors("default"):
            rows = await self._unbroken(self._names())
        prefix = self.row_of("")
        named = {name.removeprefix(prefix) for name in rows if name.startswith(prefix) and name != prefix}
        return sorted(named | ({"default"} if self.key in rows else set()))

    async def try_writing(self, key: str) -> str | None:
        """Try to replace a revision that no row has; where that would make a table, nothing is tried."""
        if (await self.read(key)).content is None and not (self._table_seen and self._family.exists):
            return "nothing is stored yet; the first change makes the table, if there is none"
        return await super().try_writing(key)

    async def aclose(self) -> None:
        """Close the connections; the next call opens them again."""
        await self._engines.aclose()

    async def _read(self, key: str) -> Reading:
        if self._is_nowhere():
            return Reading(None, None)
        async with self._connected() as connection:
            if not self._table_seen and not await _value(connection, self._sql(self._family.exists or "")):
                return await self._nothing(connection)
            try:
                select = self._sql(_SELECT)
                row = (await _execute(connection, select, name=self.row_of(key))).first()
            except Exception as error:
                if not _is_missing_table(error):
                    raise
                self._table_seen = self._family.exists is None
                return await self._nothing(connection)
            self._table_seen = True
            if row is None:
                return await self._nothing(connection)
        self._take_time(row.clock)
        return Reading(row.content.encode(), row.revision, self._now())

    async def _names(self) -> list[str]:
        try:
            async with self._connected() as connection:
                return list((await _execute(connection, self._sql("SELECT name FROM {table}"))).scalars())
        except Exception as error:
            if _is_missing_table(error):
                return []
            raise

    async def _nothing(self, connection: AsyncConnection) -> Reading:
        """Return that there is no document, at the database's time: a hold that is stored first expires by it."""
        if self._clock is None:
            self._take_time(await _value(connection, self._sql("SELECT {clock}")))
        return Reading(None, None, self._now())

    def _take_time(self, milliseconds: int | None) -> None:
        if milliseconds is not None:
            self._clock = UNIX_EPOCH + timedelta(milliseconds=int(milliseconds)), time.monotonic()

    async def _replace(self, key: str, content: bytes, revision: str | None, seconds: float) -> Reading:
        values = {"name": self.row_of(key), "content": content.decode(), "new": uuid.uuid4().hex}
        statement = self._sql(_INSERT if revision is None else _UPDATE)
        if revision is not None:
            values["revision"] = revision
        early = time.monotonic() + seconds / 2
        with self._errors(key):
            try:
                rows = await self._write_and_make_table(key, statement, values, seconds, makes_table=revision is None)
            except Exception as error:
                if _is_conflict(error) or (_is_locked(error) and time.monotonic() < early):
                    raise Conflict from None
                raise
        if rows != 1:
            raise Conflict
        return Reading(content, values["new"], self._now())

    async def _write_and_make_table(
        self, key: str, statement: str, values: dict[str, str], seconds: float, *, makes_table: bool
    ) -> int:
        """Write a row, and make the table before it if there is none."""
        try:
            return await self._write(key, statement, values, seconds)
        except Exception as error:
            if not makes_table or not _is_missing_table(error):
                raise
        refusal: Exception | None = None
        try:
            async with self._connected() as connection:
                await connection.exec_driver_sql(ddl(self.kind, self.table))
        except Exception as error:
            if not _is_refusal(error):
                raise
            refusal = error  # others may just be making it
        try:
            return await self._write(key, statement, values, seconds)
        except Exception as error:
            if refusal is None or not _is_missing_table(error):
                raise
        way_out = f"a migration can make the table, see SQLAlchemyBackend.ddl({self.kind!r})"
        raise BackendUnavailable(self.describe(key), f"{self._redacted(refusal)}; {way_out}")

    async def _write(self, key: str, statement: str, values: dict[str, str], seconds: float) -> int:
        """Write a row, and return how many rows that were."""
        limits = self._family.limits
        if limits is None:
            async with self._connected() as connection:
                with self._unknown_if_lost(key):
                    return (await _execute(connection, statement, **values)).rowcount
        async with self._connected(in_transaction=True) as connection:
            milliseconds = max(int(seconds * _SHARE_OF_THE_DATABASE * 1000), 1)
            await connection.exec_driver_sql(limits.format(ms=milliseconds))
            rows = (await _execute(connection, statement, **values)).rowcount
            with self._unknown_if_lost(key):
                await connection.commit()
            return rows

    @contextlib.contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """Raise this package's errors in place of a driver's."""
        try:
            yield
        except (MaintenanceError, Conflict):
            raise
        except Exception as error:  # noqa: BLE001 - drivers raise what they like
            raise BackendUnavailable(self.describe(key), self._redacted(error)) from None

    @contextlib.contextmanager
    def _unknown_if_lost(self, key: str) -> Iterator[None]:
        """Raise ``OutcomeUnknown`` where the connection breaks before the database has answered."""
        try:
            yield
        except Exception as error:
            if _is_refusal(error):
                raise
            raise OutcomeUnknown(self.describe(key), self._redacted(error)) from None

    @contextlib.asynccontextmanager
    async def _connected(self, *, in_transaction: bool = False) -> AsyncIterator[AsyncConnection]:
        async with self._engines.get().connect() as connection:
            yield connection if in_transaction else await connection.execution_options(isolation_level="AUTOCOMMIT")

    def _new_engine(self) -> AsyncEngine:
        from sqlalchemy import NullPool  # noqa: PLC0415 - see _checked_url
        from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415

        if self.kind == "sqlite":
            options = {"timeout": self._seconds * _SHARE_OF_THE_DATABASE}
            return create_async_engine(self.url, poolclass=NullPool, connect_args=options)
        return create_async_engine(
            self.url,
            pool_size=_CONNECTIONS_KEPT,
            max_overflow=2,
            pool_timeout=self._seconds,
            pool_pre_ping=True,
            pool_use_lifo=True,
            isolation_level="READ COMMITTED",
        )

    def _is_nowhere(self) -> bool:
        """Return whether there is no database to read, and connecting would create one."""
        path = Path(self.url.database or "")
        if self.kind != "sqlite" or str(path).startswith("file:"):
            return False
        # Without its directory it can't be made either: connecting says so.
        return not path.exists() and path.parent.is_dir()

    async def _unbroken(self, work: Coroutine[Any, Any, T]) -> T:
        """Do some work; a cancellation waits for it to end, for a while.

        asyncpg leaves its connection open when connecting is cancelled. SQLite runs in a thread: a statement whose
        caller has gone away ends there all the same, and keeps the file locked until Python happens to collect its
        cursor. It takes no longer than it may wait for locks, so only a disk that does not answer is given up on.
        """
        task = asyncio.create_task(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            until = time.monotonic() + (self._seconds if self.kind == "sqlite" else _SECONDS_TO_END)
            while not task.done():
                if time.monotonic() >= until:
                    task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait({task}, timeout=self._seconds / 10)
            if not task.cancelled():
                task.exception()  # or asyncio would complain that nobody asked
            raise

    def _now(self) -> datetime | None:
        """Return the database's time, ``None`` where that is the time of this host."""
        if self._clock is None:
            return None
        return self._clock[0] + timedelta(seconds=time.monotonic() - self._clock[1])

    def _sql(self, statement: str) -> str:
        """Return a statement for this table, whose name was checked when it was given."""
        return statement.format(table=self._quoted_table, clock=self._family.clock, most=MAX_BYTES + 1)

    def _redacted(self, error: Exception) -> str:
        """Return an error's first line without the credentials."""
        cause: BaseException = getattr(error, "orig", None) or error
        cause = cause.__cause__ or cause  # the driver's own, without SQLAlchemy's wrapping
        line = (str(cause).strip().splitlines() or [""])[0]
        for secret in self._secrets:
            line = line.replace(secret, "***")
        return f"{type(cause).__name__}: {line}"


async def _dispose(engine: AsyncEngine) -> None:
    """Close the connections, or give up on one that does not answer its farewell.

    Goes on when it is cancelled, again and again as tasks are here: half closed would be a leak. Those in use are
    waited for, since an engine that is disposed of forgets them.
    """
    until = time.monotonic() + 2 * _SECONDS_TO_END
    while _is_in_use(engine) and time.monotonic() < until:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(_SECONDS_TO_END / 20)
    for _ in range(_CONNECTIONS_KEPT):
        closing = asyncio.create_task(engine.dispose())
        until = time.monotonic() + _SECONDS_TO_CLOSE
        while not closing.done():
            if time.monotonic() >= until:
                closing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({closing}, timeout=_SECONDS_TO_CLOSE / 10)
        if not closing.cancelled():
            return


def _is_in_use(engine: AsyncEngine) -> bool:
    """Return whether a connection is being used, or made."""
    from sqlalchemy.pool import QueuePool  # noqa: PLC0415 - see _checked_url

    return isinstance(engine.pool, QueuePool) and engine.pool.checkedout() > 0


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


def _says(
    error: Exception, *, sqlstates: tuple[str, ...] = (), numbers: tuple[int, ...] = (), words: str | None = None
) -> bool:
    """Return whether a database says one thing: PostgreSQL by state, MySQL by number, SQLite by words."""
    told = getattr(error, "orig", None)
    args = getattr(told, "args", ())
    return (
        getattr(told, "sqlstate", None) in sqlstates
        or (args and args[0]) in numbers
        or (words is not None and words in str(told))
    )


def _is_missing_table(error: Exception) -> bool:
    return _says(error, sqlstates=("42P01",), numbers=(1146,), words="no such table")


def _is_conflict(error: Exception) -> bool:
    """Return whether others were first: a duplicate row, a deadlock."""
    from sqlalchemy.exc import IntegrityError  # noqa: PLC0415 - see _checked_url

    return isinstance(error, IntegrityError) or _says(error, sqlstates=("40001", "40P01"), numbers=(1213,))


def _is_locked(error: Exception) -> bool:
    """Return whether a SQLite file is locked: said at once to avoid a deadlock, or else after a long wait."""
    return _says(error, words="database is locked")
