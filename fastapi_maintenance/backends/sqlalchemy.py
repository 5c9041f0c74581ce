"""The backend for a database row: for services whose processes share only a database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from ..stores.sql.databases import DEFAULT_TABLE, ddl
from ..stores.sql.store import DEFAULT_KEY, SQLAlchemyStore
from .base import FollowOptions, StoreBackend, check_options

if TYPE_CHECKING:
    from sqlalchemy import URL


class SQLAlchemyBackend(StoreBackend):
    """Maintenance by a row of a PostgreSQL, MySQL, MariaDB or SQLite database, by way of SQLAlchemy 2.

    Other processes see a change after ``poll_seconds`` at the latest. A change is one conditional statement. The
    backend has its own connections, at most four per process. The database's clock decides which holds have expired.

    Install the driver yourself: asyncpg or psycopg, aiomysql or asyncmy, aiosqlite.

    Args:
        url: An async URL, such as ``postgresql+asyncpg://user:password@host/database``, or SQLAlchemy's ``URL``.
            For an engine pass ``engine.url``: the engine's own connections belong to your event loop.
        table: The table, optionally with its schema: ``ops.maintenance``. The first change creates it if it does not
            exist.
        key: The name of the row.
        options: See ``FollowOptions``.

    Raises:
        MissingExtra: SQLAlchemy is not installed.
        InvalidConfiguration: The URL or an option is invalid, or the driver is not installed.
    """

    ddl = staticmethod(ddl)

    def __init__(
        self, url: str | URL, *, table: str = DEFAULT_TABLE, key: str = DEFAULT_KEY, **options: Unpack[FollowOptions]
    ) -> None:
        store = SQLAlchemyStore(url, table, key, seconds=check_options(options)["timeout_seconds"])
        super().__init__(store, **options)
        self.key = key
        self.table = table
