"""Checks database URLs before anything connects."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from ...exceptions import InvalidConfiguration, MissingExtra
from .databases import FAMILIES

if TYPE_CHECKING:
    from sqlalchemy import URL


def check_url(url: str | URL) -> URL:
    """Return the parsed URL, or raise ``MissingExtra`` or ``InvalidConfiguration``.

    SQLAlchemy is optional, so functions import it. Messages contain only the URL's scheme, never a misplaced password.
    """
    try:
        import sqlalchemy.ext.asyncio  # noqa: PLC0415
        from sqlalchemy.exc import ArgumentError  # noqa: PLC0415
    except ImportError:
        raise MissingExtra("SQLAlchemyBackend", "sqlalchemy") from None
    if find_spec("greenlet") is None:  # SQLAlchemy would fail when it connects
        raise MissingExtra("SQLAlchemyBackend", "sqlalchemy")
    if not isinstance(url, str | sqlalchemy.URL):
        raise InvalidConfiguration(
            f"url must be text or an SQLAlchemy URL, got {type(url).__name__}; "
            "an engine's connections belong to its own event loop, so give engine.url"
        )
    try:
        url = sqlalchemy.make_url(url)
    except (ArgumentError, ValueError):
        raise InvalidConfiguration(
            "url: it can't be read as dialect+driver://user:password@host:port/database; "
            "'@', ':' and '/' in a password are written %40, %3A and %2F"
        ) from None
    if url.password == "***":  # noqa: S105 - SQLAlchemy's mask
        raise InvalidConfiguration(
            "url: its password is '***', which str(engine.url) contains; give engine.url itself"
        )
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
    """Raise ``InvalidConfiguration`` if the database is not supported or has no installed async driver."""
    from sqlalchemy.exc import NoSuchModuleError  # noqa: PLC0415 - see check_url

    kind = url.get_backend_name()
    if kind not in FAMILIES:
        raise InvalidConfiguration(f"url: {kind} is not supported; supported are {', '.join(FAMILIES)}")
    try:
        dialect = url.get_dialect().get_async_dialect_cls(url)
    except (NoSuchModuleError, ImportError):
        dialect = None
    # A driver must be named: SQLAlchemy's default depends on its version.
    if dialect is None or not dialect.is_async or "+" not in url.drivername:
        raise InvalidConfiguration(
            f"url: {url.drivername} names no async driver; use one such as {FAMILIES[kind].async_form}://..."
        )
    try:
        dialect.import_dbapi()
    except ImportError as error:
        raise InvalidConfiguration(f"url: {url.drivername} needs a driver: pip install {error.name}") from None


def _is_in_memory(url: URL) -> bool:
    path = url.database or ":memory:"
    return ":memory:" in path or "mode=memory" in path or url.query.get("mode") == "memory"
