"""The differences between the databases that are supported."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...exceptions import InvalidConfiguration

DEFAULT_TABLE = "fastapi_maintenance"

_TABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]{0,62}\.)?[A-Za-z_][A-Za-z0-9_]{0,62}")


@dataclass(frozen=True, kw_only=True)
class _Family:
    """The peculiarities of a family of databases."""

    async_form: str
    quote: str = '"'
    text_type: str = "TEXT"
    time_type: str = "TIMESTAMP"
    table_options: str = ""
    exists: str | None = None
    """Asked before the table was seen, where the database would log a question for a row as an error."""
    clock: str
    """The milliseconds since 1970, when the expression is evaluated; NULL where the clock is the one of this host."""
    limits: str | None = None
    """Begins a transaction that gives up by itself; ``{ms}`` is the time that is left."""


FAMILIES = {
    "postgresql": _Family(
        async_form="postgresql+asyncpg",
        time_type="TIMESTAMP WITH TIME ZONE",
        exists="SELECT to_regclass('{table}') IS NOT NULL",
        clock="CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
        # The second ends a transaction whose COMMIT did not come in time, so that it can't come later.
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
    "sqlite": _Family(async_form="sqlite+aiosqlite", clock="NULL"),
}
FAMILIES["mariadb"] = FAMILIES["mysql"]


def ddl(dialect: str, table: str = DEFAULT_TABLE) -> str:
    """Return the statement that makes the table: for ``postgresql``, ``mysql``, ``mariadb`` or ``sqlite``.

    Raises:
        InvalidConfiguration: No such dialect is supported, or the table's name can't be one.
    """
    if dialect not in FAMILIES:
        raise InvalidConfiguration(f"dialect {dialect!r} must be one of {', '.join(FAMILIES)}")
    family = FAMILIES[dialect]
    return (
        f"CREATE TABLE IF NOT EXISTS {quoted(checked_table(table), family)} (\n"
        "    name VARCHAR(100) NOT NULL PRIMARY KEY,\n"
        "    revision VARCHAR(32) NOT NULL,\n"
        f"    document {family.text_type} NOT NULL,\n"
        f"    updated_at {family.time_type} NOT NULL\n"
        f"){family.table_options}"
    )


def quoted(table: str, family: _Family) -> str:
    return ".".join(f"{family.quote}{part}{family.quote}" for part in table.split("."))


def checked_table(table: str) -> str:
    if not _TABLE.fullmatch(table):
        raise InvalidConfiguration(
            f"table={table!r}: up to 63 letters, digits and '_' are accepted, not beginning with a digit, "
            "and a schema before it, such as 'ops.maintenance'"
        )
    return table
