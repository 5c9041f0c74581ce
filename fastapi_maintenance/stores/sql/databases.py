"""The differences between the supported databases."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...exceptions import InvalidConfiguration

DEFAULT_TABLE = "fastapi_maintenance"

_TABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]{0,62}\.)?[A-Za-z_][A-Za-z0-9_]{0,62}")


HOST_CLOCK = "NULL"
"""The clock expression of a database that uses this host's clock."""


@dataclass(frozen=True, kw_only=True)
class _Family:
    """The SQL of one kind of database."""

    async_form: str
    quote: str = '"'
    text_type: str = "TEXT"
    time_type: str = "TIMESTAMP"
    table_options: str = ""
    exists: str | None = None
    """Queried until the table was seen, if the database would log a query of a missing table as an error."""
    clock: str
    """The milliseconds since 1970 at evaluation, or ``HOST_CLOCK``."""
    limits: str | None = None
    """Begins each transaction; limits its waits for locks and for further statements to ``{ms}`` milliseconds."""


FAMILIES = {
    "postgresql": _Family(
        async_form="postgresql+asyncpg",
        time_type="TIMESTAMP WITH TIME ZONE",
        exists="SELECT to_regclass('{table}') IS NOT NULL",
        clock="CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
        # The second setting ends a transaction whose COMMIT is late, so that it can't commit later.
        limits="SELECT set_config('lock_timeout', '{ms}', true), "
        "set_config('idle_in_transaction_session_timeout', '{ms}', true)",
    ),
    "mysql": _Family(
        async_form="mysql+aiomysql",
        quote="`",
        text_type="LONGTEXT",
        table_options=" ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
        clock="TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000",
    ),
    "sqlite": _Family(async_form="sqlite+aiosqlite", clock=HOST_CLOCK),
}
FAMILIES["mariadb"] = FAMILIES["mysql"]


def ddl(dialect: str, table: str = DEFAULT_TABLE) -> str:
    """Return the statement that creates the table: for ``postgresql``, ``mysql``, ``mariadb`` or ``sqlite``.

    Raises:
        InvalidConfiguration: The dialect is not supported, or the table's name is invalid.
    """
    if dialect not in FAMILIES:
        raise InvalidConfiguration(f"dialect must be one of {', '.join(FAMILIES)}, got {dialect!r}")
    family = FAMILIES[dialect]
    return (
        f"CREATE TABLE IF NOT EXISTS {quote_table(check_table(table), family)} (\n"
        "    name VARCHAR(100) NOT NULL PRIMARY KEY,\n"
        "    revision VARCHAR(32) NOT NULL,\n"
        f"    document {family.text_type} NOT NULL,\n"
        f"    updated_at {family.time_type} NOT NULL\n"
        f"){family.table_options}"
    )


def quote_table(table: str, family: _Family) -> str:
    """Return the name of a table in the quotes of a database."""
    return ".".join(f"{family.quote}{part}{family.quote}" for part in table.split("."))


def check_table(table: str) -> str:
    """Return the name of a table, or raise ``InvalidConfiguration`` if it is invalid."""
    if not _TABLE.fullmatch(table):
        raise InvalidConfiguration(
            f"table={table!r} must be up to 63 letters, digits and '_', not beginning with a digit; "
            "a schema may precede it, such as 'ops.maintenance'"
        )
    return table
