"""The store that keeps each document in a database row, replaced by one conditional statement.

The first write creates the table; reading creates nothing. For migrations, ``SQLAlchemyBackend.ddl("postgresql")``
returns its definition::

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

from ...concurrency.per_loop import PerLoop
from ...exceptions import BackendUnavailable, InvalidConfiguration, MaintenanceError, OutcomeUnknown
from ...model.limits import MAX_BYTES
from ...model.moments import UNIX_EPOCH
from ..contract import Conflict, DocumentStore, Reading
from ..redaction import redact_text
from .databases import DEFAULT_TABLE, FAMILIES, HOST_CLOCK, check_table, ddl, quote_table
from .urls import check_url

if TYPE_CHECKING:
    from sqlalchemy import URL, CursorResult
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


T = TypeVar("T")
DEFAULT_KEY = "default"
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}")
_SECRET = re.compile(r"pass|pwd|secret|token|key", re.IGNORECASE)

_SHARE_OF_THE_DATABASE = 0.8
"""The part of a write's time for which the database may wait for locks; the rest is reserved for its answer."""
_SECONDS_TO_CLOSE = 0.5
_SECONDS_TO_END = 0.2
"""How long a statement may still run after its caller was cancelled."""
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
    """Keeps documents in a table of a PostgreSQL, MySQL, MariaDB or SQLite database, through SQLAlchemy 2.

    Args:
        url: See ``SQLAlchemyBackend``.
        table: The table, optionally with its schema.
        key: The row of the default switch. The row of another switch has the switch's name, with the prefix ``<key>:``
            unless the key is ``default``.
        seconds: How long one statement may take, connecting included.

    Raises:
        MissingExtra: SQLAlchemy is not installed.
        InvalidConfiguration: The URL or an option is invalid, or the driver is not installed.
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
        self.table = check_table(table)
        self.url = check_url(url)
        self.kind = self.url.get_backend_name()
        self._seconds = seconds
        self._family = FAMILIES[self.kind]
        self._quoted_table = quote_table(self.table, self._family)
        self._table_seen = self._family.exists is None
        self._engines = PerLoop(self._new_engine, _dispose)
        self._clock: tuple[datetime, float] | None = None
        """The database's time, and this process's monotonic time when it arrived."""
        options = (str(value) for name, value in self.url.query.items() if _SECRET.search(name))
        self._secrets = [self.url.password, *options]

    def row_of(self, switch: str) -> str:
        """Return the name of a switch's row."""
        if switch == "default":
            return self.key
        return switch if self.key == DEFAULT_KEY else f"{self.key}:{switch}"

    def describe(self, key: str) -> str:
        """Return the database and the row, without credentials."""
        return f"SQLAlchemyBackend({self._redact_url()!r}, key={self.row_of(key)!r})"

    def address(self, key: str) -> str:
        """Return the database's URL and the row, without credentials."""
        return f"{self._redact_url()}, row {self.row_of(key)}"

    def _redact_url(self) -> str:
        """Return the URL without credentials and with an absolute path."""
        url = self.url.set(query={})
        if self.kind == "sqlite" and not str(url.database).startswith("file:"):
            url = url.set(database=str(Path(str(url.database)).absolute()))
        return url.render_as_string(hide_password=True)

    async def read(self, key: str) -> Reading:
        """Return the document in the row of a switch, or no document if there is no table."""
        with self._translate_errors(key):
            return await self._run_to_end(self._read(key))

    async def replace(
        self, key: str, content: bytes, revision: str | None, *, seconds: float, quiet: bool = False
    ) -> Reading:
        """Write the row if it still has this revision; create the table first if it is missing."""
        return await self._run_to_end(self._replace(key, content, revision, seconds))

    async def names(self) -> list[str]:
        """Return the switches that have a row."""
        if self._is_file_missing():
            return []
        with self._translate_errors("default"):
            rows = await self._run_to_end(self._names())
        prefix = self.row_of("")
        named = {name.removeprefix(prefix) for name in rows if name.startswith(prefix) and name != prefix}
        return sorted(named | ({"default"} if self.key in rows else set()))

    async def try_writing(self, key: str) -> str | None:
        """Check write access by replacing a revision that no row has, unless the table may be missing."""
        if (await self.read(key)).content is None and not (self._table_seen and self._family.exists):
            return "nothing is stored yet; the first change creates the table if it is missing"
        return await super().try_writing(key)

    async def aclose(self) -> None:
        """Close the connections; the next call opens them again."""
        await self._engines.aclose()

    async def _read(self, key: str) -> Reading:
        if self._is_file_missing():
            return Reading(None, None)
        async with self._connect() as connection:
            if not self._table_seen and not await _first_value(connection, self._sql(self._family.exists or "")):
                return await self._read_missing(connection)
            try:
                select = self._sql(_SELECT)
                row = (await _execute(connection, select, name=self.row_of(key))).first()
            except Exception as error:
                if not _is_missing_table(error):
                    raise
                self._table_seen = self._family.exists is None
                return await self._read_missing(connection)
            self._table_seen = True
            if row is None:
                return await self._read_missing(connection)
        self._take_time(row.clock)
        return Reading(row.content.encode(), row.revision, self._now())

    async def _names(self) -> list[str]:
        try:
            async with self._connect() as connection:
                return list((await _execute(connection, self._sql("SELECT name FROM {table}"))).scalars())
        except Exception as error:
            if _is_missing_table(error):
                return []
            raise

    async def _read_missing(self, connection: AsyncConnection) -> Reading:
        """Return a reading without a document but with the database's time, by which the first hold will expire."""
        if self._clock is None and self._family.clock != HOST_CLOCK:
            self._take_time(await _first_value(connection, self._sql("SELECT {clock}")))
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
        with self._translate_errors(key):
            try:
                rows = await self._write_and_create_table(
                    key, statement, values, seconds, creates_table=revision is None
                )
            except Exception as error:
                if _is_conflict(error) or (_is_locked(error) and time.monotonic() < early):
                    raise Conflict from None
                raise
        if rows != 1:
            raise Conflict
        return Reading(content, values["new"], self._now())

    async def _write_and_create_table(
        self, key: str, statement: str, values: dict[str, str], seconds: float, *, creates_table: bool
    ) -> int:
        """Write a row and return how many rows were written; create the table first if it is missing."""
        try:
            return await self._write(key, statement, values, seconds)
        except Exception as error:
            if not creates_table or not _is_missing_table(error):
                raise
        refusal: Exception | None = None
        try:
            async with self._connect() as connection:
                await connection.exec_driver_sql(ddl(self.kind, self.table))
        except Exception as error:
            if not _is_refusal(error):
                raise
            refusal = error  # another process may be creating the table
        try:
            return await self._write(key, statement, values, seconds)
        except Exception as error:
            if refusal is None or not _is_missing_table(error):
                raise
        way_out = f"a migration can create the table, see SQLAlchemyBackend.ddl({self.kind!r})"
        raise BackendUnavailable(self.describe(key), f"{self._redact(refusal)}; {way_out}")

    async def _write(self, key: str, statement: str, values: dict[str, str], seconds: float) -> int:
        """Write a row and return how many rows were written: 0 or 1."""
        limits = self._family.limits
        if limits is None:
            async with self._connect() as connection:
                with self._unknown_if_lost(key):
                    return (await _execute(connection, statement, **values)).rowcount
        async with self._connect(in_transaction=True) as connection:
            milliseconds = max(int(seconds * _SHARE_OF_THE_DATABASE * 1000), 1)
            await connection.exec_driver_sql(limits.format(ms=milliseconds))
            rows = (await _execute(connection, statement, **values)).rowcount
            with self._unknown_if_lost(key):
                await connection.commit()
            return rows

    @contextlib.contextmanager
    def _translate_errors(self, key: str) -> Iterator[None]:
        """Translate a driver's errors to this package's errors."""
        try:
            yield
        except (MaintenanceError, Conflict):
            raise
        except Exception as error:  # noqa: BLE001 - drivers raise any exception
            raise BackendUnavailable(self.describe(key), self._redact(error)) from None

    @contextlib.contextmanager
    def _unknown_if_lost(self, key: str) -> Iterator[None]:
        """Raise ``OutcomeUnknown`` if the connection breaks before the database has answered."""
        try:
            yield
        except Exception as error:
            if _is_refusal(error):
                raise
            raise OutcomeUnknown(self.describe(key), self._redact(error)) from None

    @contextlib.asynccontextmanager
    async def _connect(self, *, in_transaction: bool = False) -> AsyncIterator[AsyncConnection]:
        async with self._engines.get().connect() as connection:
            yield connection if in_transaction else await connection.execution_options(isolation_level="AUTOCOMMIT")

    def _new_engine(self) -> AsyncEngine:
        from sqlalchemy import NullPool  # noqa: PLC0415 - see check_url
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

    def _is_file_missing(self) -> bool:
        """Return whether the SQLite file is missing and connecting would create it."""
        path = Path(self.url.database or "")
        if self.kind != "sqlite" or str(path).startswith("file:"):
            return False
        # Without the directory, connecting fails with the right error.
        return not path.exists() and path.parent.is_dir()

    async def _run_to_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of some work. If the caller is cancelled, wait a while until the work has ended.

        asyncpg leaves its connection open if connecting is cancelled. SQLite runs in a thread: a cancelled statement
        still runs there, and locks the file until Python collects its cursor. It takes no longer than it may wait for
        locks, so only a disk that does not answer exceeds the wait.
        """
        task = asyncio.create_task(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await _wait_or_cancel(task, self._seconds if self.kind == "sqlite" else _SECONDS_TO_END)
            if not task.cancelled():
                task.exception()  # retrieved, or asyncio would log it
            raise

    def _now(self) -> datetime | None:
        """Return the database's time, or ``None`` if the database uses this host's clock."""
        if self._clock is None:
            return None
        return self._clock[0] + timedelta(seconds=time.monotonic() - self._clock[1])

    def _sql(self, statement: str) -> str:
        """Return a statement with the table's name, which the constructor has checked, and the database's clock."""
        return statement.format(table=self._quoted_table, clock=self._family.clock, most=MAX_BYTES + 1)

    def _redact(self, error: Exception) -> str:
        """Return an error's type and first line, without credentials."""
        cause: BaseException = getattr(error, "orig", None) or error
        cause = cause.__cause__ or cause  # the driver's own error, without SQLAlchemy's wrapper
        line = (str(cause).strip().splitlines() or [""])[0]
        return f"{type(cause).__name__}: {redact_text(line, self._secrets)}"


async def _dispose(engine: AsyncEngine) -> None:
    """Close the connections, or abandon a connection whose server does not answer.

    Cancellations are ignored, since a half-closed engine would leak connections. Connections in use are waited for,
    since a disposed engine forgets them.
    """
    until = time.monotonic() + 2 * _SECONDS_TO_END
    while _is_in_use(engine) and time.monotonic() < until:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(_SECONDS_TO_END / 20)
    for _ in range(_CONNECTIONS_KEPT):
        closing = asyncio.create_task(engine.dispose())
        await _wait_or_cancel(closing, _SECONDS_TO_CLOSE)
        if not closing.cancelled():
            return


async def _wait_or_cancel(task: asyncio.Task[Any], seconds: float) -> None:
    """Wait until a task has ended; after some seconds, cancel it. Cancellations of the caller are ignored."""
    until = time.monotonic() + seconds
    while not task.done():
        if time.monotonic() >= until:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task}, timeout=seconds / 10)


def _is_in_use(engine: AsyncEngine) -> bool:
    """Return whether a connection is in use or being opened."""
    from sqlalchemy.pool import QueuePool  # noqa: PLC0415 - see check_url

    return isinstance(engine.pool, QueuePool) and engine.pool.checkedout() > 0


async def _execute(connection: AsyncConnection, statement: str, **values: Any) -> CursorResult[Any]:
    from sqlalchemy import text  # noqa: PLC0415 - see check_url

    return await connection.execute(text(statement), values)


async def _first_value(connection: AsyncConnection, statement: str) -> Any:
    """Return the first value of the first row, or ``None`` if there is no row."""
    row = (await _execute(connection, statement)).first()
    return None if row is None else row[0]


def _is_refusal(error: Exception) -> bool:
    """Return whether the database refused the statement, on a connection that is still open."""
    return not getattr(error, "connection_invalidated", True)


def _is_kind(
    error: Exception, *, sqlstates: tuple[str, ...] = (), numbers: tuple[int, ...] = (), words: str | None = None
) -> bool:
    """Return whether an error is of one kind: PostgreSQL reports it by state, MySQL by number, SQLite by words."""
    cause = getattr(error, "orig", None)
    args = getattr(cause, "args", ())
    return (
        getattr(cause, "sqlstate", None) in sqlstates
        or (args and args[0]) in numbers
        or (words is not None and words in str(cause))
    )


def _is_missing_table(error: Exception) -> bool:
    return _is_kind(error, sqlstates=("42P01",), numbers=(1146,), words="no such table")


def _is_conflict(error: Exception) -> bool:
    """Return whether another process wrote first: a duplicate row, a deadlock."""
    from sqlalchemy.exc import IntegrityError  # noqa: PLC0415 - see check_url

    return isinstance(error, IntegrityError) or _is_kind(error, sqlstates=("40001", "40P01"), numbers=(1213,))


def _is_locked(error: Exception) -> bool:
    """Return whether a SQLite file is locked, reported at once to avoid a deadlock or else after a long wait."""
    return _is_kind(error, words="database is locked")
