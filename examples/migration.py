"""Run a database migration under maintenance: the service opens again when the command ends, however it does.

    export FASTAPI_MAINTENANCE_BACKEND=file:/tmp/migration-example
    export SHOP_DATABASE=/tmp/migration-example.db
    uvicorn examples.migration:app
    fastapi-maintenance run --reason 'prices in cents' -- python -m examples.migration

As a script, this file is the migration. It begins when all workers have seen the switch; with ``--drain 30s``, when
requests that take that long are done as well.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from fastapi import FastAPI

from fastapi_maintenance import MaintenanceModeMiddleware


@contextmanager
def shop() -> Iterator[sqlite3.Connection]:
    """Open the database for one transaction."""
    with closing(sqlite3.connect(os.environ["SHOP_DATABASE"])) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS items AS SELECT 'anvil' AS name, 12.5 AS price")
        yield connection


app = FastAPI()
app.add_middleware(MaintenanceModeMiddleware)


@app.get("/items")
def list_items() -> list[dict[str, object]]:
    """Return what the database has: it must not be asked while the migration is half done."""
    with shop() as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM items")]


def migrate() -> None:
    """Store prices as whole cents."""
    with shop() as connection:
        connection.execute("ALTER TABLE items ADD COLUMN cents INTEGER")
        connection.execute("UPDATE items SET cents = round(price * 100)")
        connection.execute("ALTER TABLE items DROP COLUMN price")


if __name__ == "__main__":
    migrate()
