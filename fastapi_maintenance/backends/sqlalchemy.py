"""A row of a database as a switch: for services that have a database and nothing else to share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from ..stores.sql.databases import DEFAULT_TABLE, ddl
from ..stores.sql.store import DEFAULT_KEY, SQLAlchemyStore
from .base import FollowOptions, StoreBackend

if TYPE_CHECKING:
    from sqlalchemy import URL


class SQLAlchemyBackend(StoreBackend):
    """Maintenance by a row of a PostgreSQL, MySQL, MariaDB or SQLite database, by way of SQLAlchemy 2.

    Other processes see a change when they read the row next, after ``poll_seconds`` at the latest. A change is one
    conditional statement, on connections of its own (at most four to a process). The database's clock decides which
    holds have expired.

    The driver is yours to install: asyncpg or psycopg, aiomysql or asyncmy, aiosqlite.

    Args:
        url: An async URL, such as ``postgresql+asyncpg://user:password@host/database``, or SQLAlchemy's ``URL``. Not
            an engine, whose connections belong to your event loop: give ``engine.url``.
        table: Its name, with its schema if need be: ``ops.maintenance``. The first change makes it, unless a
            migration did.
        key: The name of the row.
        options: See ``FollowOptions``.

    Raises:
        MissingExtra: SQLAlchemy is not installed.
        InvalidConfiguration: The URL or an option can't work, or its driver is not installed.
    """

    ddl = staticmethod(ddl)

    def __init__(
        self, url: str | URL, *, table: str = DEFAULT_TABLE, key: str = DEFAULT_KEY, **options: Unpack[FollowOptions]
    ) -> None:
        store = SQLAlchemyStore(url, table, key, seconds=options.get("timeout_seconds", 1.0))
        super().__init__(store, **options)
        self.key = key
        self.table = table
