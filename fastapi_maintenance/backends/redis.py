"""The backend for Redis: one key per switch, with a push after each change."""

from __future__ import annotations

from typing import Unpack

from ..stores.redis import DEFAULT_KEY, RedisStore
from .base import FollowOptions, StoreBackend, check_options


class RedisBackend(StoreBackend):
    """Maintenance by a key in Redis (6.2 or newer, or a compatible server): all processes that use the key agree.

    A change replaces the document if nobody else has changed it, uses the server's clock, and notifies all processes.

    Args:
        url: ``redis://[user:password@]host[:port][/db]``, ``rediss://`` for TLS, ``unix:///path/to/socket[?db=0]``.
            Options of redis-py may follow, such as ``?ssl_ca_certs=...``; options for time-outs, retries, protocol and
            pools are ignored.
        key: The key of the document; ``None``: ``fastapi-maintenance:{default}``. The channel ``<key>@<db>`` is used
            as well.
        options: See ``FollowOptions``.

    Raises:
        MissingExtra: redis-py isn't installed.
        InvalidConfiguration: The URL or an option is invalid.
    """

    def __init__(
        self, url: str = "redis://localhost:6379/0", *, key: str | None = None, **options: Unpack[FollowOptions]
    ) -> None:
        store = RedisStore(url, DEFAULT_KEY if key is None else key, seconds=check_options(options)["timeout_seconds"])
        super().__init__(store, **options)
        self.key = store.key
