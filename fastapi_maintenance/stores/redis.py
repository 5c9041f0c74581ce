"""The store that keeps each document in a Redis key, replaces it by a script and pushes each change."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..concurrency import io_thread
from ..concurrency.per_loop import PerLoop
from ..exceptions import (
    BackendUnavailable,
    CorruptState,
    DeadlinePassed,
    InvalidConfiguration,
    MissingExtra,
    OutcomeUnknown,
)
from ..model.limits import MAX_BYTES
from .contract import Conflict, DocumentStore, Reading, is_switch_name
from .redaction import redact_text

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.client import PubSub


DEFAULT_KEY = "fastapi-maintenance:{default}"
"""The braces keep all keys of a switch on one node of a cluster."""

_NAME = "{default}"
_SECONDS_TO_CLOSE = 0.5
_SHARE_FOR_THE_ANSWER = 0.2
"""The part of a write's time that is reserved for the answer, after the deadline that the server checks."""
_SILENT_ROUNDS = 3
"""The client pings after one silent round, and the connection is lost after this many. Two would be too few: when a
stalled process resumes, one round ends before the answer that has already arrived is read."""

_READ = b"""\
return {redis.call('TIME'), redis.call('GETRANGE', KEYS[1], 0, ARGV[1])}
"""

_REPLACE = b"""\
-- ARGV: the revision to replace, the new document, the deadline in milliseconds since 1970, the last byte to read of
-- the former document, the channel to publish to ('' for none).
local time = redis.call('TIME')
local former = redis.call('GETRANGE', KEYS[1], 0, ARGV[4])
if (former == '' and '' or redis.sha1hex(former)) ~= ARGV[1] then
  return {'conflict', time, former}
end
if time[1] * 1000 + math.floor(time[2] / 1000) >= tonumber(ARGV[3]) then
  return {'late'}
end
if former ~= '' then
  redis.call('DEL', KEYS[1]) -- a server without free memory accepts a SET only after this
end
redis.call('SET', KEYS[1], ARGV[2])
if ARGV[5] ~= '' then
  redis.pcall('PUBLISH', ARGV[5], '')
end
return {'written', time}
"""


class RedisStore(DocumentStore):
    """Keeps documents in Redis (6.2 or newer, or a compatible server).

    Args:
        url: See ``RedisBackend``.
        key: The key of the default switch. For other switches, the switch's name replaces ``{default}`` in it; a key
            without ``{default}`` gets ``:{name}`` appended.
        seconds: How long connecting may take. A watching connection is closed after three times as long without data
            from the server.

    Raises:
        MissingExtra: redis-py isn't installed.
        InvalidConfiguration: The URL or key is invalid.
    """

    def __init__(self, url: str, key: str = DEFAULT_KEY, *, seconds: float = 1.0) -> None:
        if not key:
            raise InvalidConfiguration(f"key={key!r} must be the name of a key, such as {DEFAULT_KEY!r}")
        self.key = key
        self._seconds = seconds
        self._secrets: list[str | None] = []
        self._options, self.url = self._parse_url(url)
        self._db = int(self._options.get("db") or 0)
        self._clients = PerLoop(self._new_client, _close)
        self._clock: tuple[datetime, float] | None = None
        """The server's time, and the event loop's time when it arrived."""
        try:
            _ = self._new_client()
        except Exception as error:  # noqa: BLE001 - redis-py rejects options with many kinds of errors
            raise _bad_url(self._redact(error)) from None

    def key_of(self, switch: str) -> str:
        """Return the Redis key of a switch."""
        if switch == "default":
            return self.key
        return self.key.replace(_NAME, f"{{{switch}}}") if _NAME in self.key else f"{self.key}:{{{switch}}}"

    def describe(self, key: str) -> str:
        """Return the server and the key, without credentials."""
        return f"RedisBackend({self.url!r}, key={self.key_of(key)!r})"

    def address(self, key: str) -> str:
        """Return the server's URL and the key, without credentials."""
        return f"{self.url}, key {self.key_of(key)}"

    async def read(self, key: str) -> Reading:
        """Return the document of a switch, in one round trip."""
        with self._translate_errors(key):
            time, content = await self._run(_READ, key, MAX_BYTES)
        return _reading_of(content, self._now(time))

    async def replace(
        self, key: str, content: bytes, revision: str | None, *, seconds: float, quiet: bool = False
    ) -> Reading:
        """Replace the document if it still has this revision, before a deadline by the server's clock."""
        deadline = self._server_time() + timedelta(seconds=seconds * (1 - _SHARE_FOR_THE_ANSWER))
        milliseconds = int(deadline.timestamp() * 1000)
        channel = b"" if quiet else self._channel_of(key)
        with self._translate_errors(key, sent=True):
            answer, *details = await self._run(
                _REPLACE, key, revision or "", content, milliseconds, MAX_BYTES, channel
            )
        if answer == b"late":
            raise DeadlinePassed
        now = self._now(details[0])
        if answer == b"conflict":
            raise Conflict(_reading_of(details[1], now))
        return _reading_of(content, now)

    async def names(self) -> list[str]:
        """Return the switches that have a key, found by SCAN."""
        start, _, end = self.key.partition(_NAME)  # without {default}, the key is the prefix of all switches' keys
        before, _, after = self.key_of("\0").partition("\0")
        names = set()
        with self._translate_errors("default"):
            async for key in self._clients.get().scan_iter(match=f"{_escape(start)}*{_escape(end)}", count=1000):
                name = key.decode(errors="replace").removeprefix(before).removesuffix(after)
                if key == self.key.encode():
                    names.add("default")
                elif is_switch_name(name) and self.key_of(name).encode() == key:
                    names.add(name)
        return sorted(names)

    async def watch(self, key: str, changed: Callable[[], None]) -> None:
        """Call ``changed`` after each push, on a separate connection, until that connection is lost."""
        subscription = self._clients.get().pubsub()
        try:
            with self._translate_errors(key):
                await io_thread.run_within(subscription.subscribe(self._channel_of(key)), self._seconds)
                await self._forward_pushes(subscription, changed)
        finally:
            await _close_quietly(subscription.aclose())  # type: ignore[no-untyped-call]
        raise BackendUnavailable(self.describe(key), f"silent for {_SILENT_ROUNDS * self._seconds:g} s")

    async def _forward_pushes(self, subscription: PubSub, changed: Callable[[], None]) -> None:
        """Call ``changed`` after each push, until the server is silent."""
        silent_rounds = 0
        while silent_rounds < _SILENT_ROUNDS:
            try:
                async with asyncio.timeout(self._seconds):
                    if silent_rounds == 1:
                        await subscription.ping()
                    # No time-out here: with one, redis-py keeps mistaking the kernel's ETIMEDOUT for silence.
                    message = await subscription.get_message(timeout=None)
            except TimeoutError:
                silent_rounds += 1
                continue
            if message is None:  # redis-py 8 keeps returning None after the kernel has closed the connection
                raise ConnectionError("the connection is lost")
            silent_rounds = 0
            if message["type"] in ("subscribe", "message"):
                changed()

    async def try_writing(self, key: str) -> str | None:
        """Check write access with the key ``<key>:tried``, which expires after 1 ms."""
        with self._translate_errors(key):
            await self._clients.get().set(f"{self.key_of(key)}:tried", "", px=1)
        return None

    async def aclose(self) -> None:
        """Close the connections; the next call opens them again."""
        await self._clients.aclose()

    async def _run(self, script: bytes, key: str, *arguments: Any) -> Any:
        from redis.exceptions import NoScriptError  # noqa: PLC0415 - an extra

        client: Any = self._clients.get()
        redis_key = self.key_of(key)
        digest = hashlib.sha1(script, usedforsecurity=False).hexdigest()
        try:
            return await client.execute_command("EVALSHA", digest, 1, redis_key, *arguments)
        except NoScriptError:
            return await client.execute_command("EVAL", script, 1, redis_key, *arguments)

    def _channel_of(self, key: str) -> bytes:
        return f"{self.key_of(key)}@{self._db}".encode()  # a server's databases share its channels

    def _now(self, time: list[bytes]) -> datetime:
        now = datetime.fromtimestamp(int(time[0]), UTC) + timedelta(microseconds=int(time[1]))
        self._clock = now, asyncio.get_running_loop().time()
        return now

    def _server_time(self) -> datetime:
        if self._clock is None:
            return datetime.now(UTC)
        return self._clock[0] + timedelta(seconds=asyncio.get_running_loop().time() - self._clock[1])

    @contextlib.contextmanager
    def _translate_errors(self, key: str, *, sent: bool = False) -> Iterator[None]:
        """Translate redis-py's errors to this package's errors."""
        from redis.exceptions import AuthenticationError, BusyLoadingError, ResponseError  # noqa: PLC0415 - an extra

        try:
            yield
        except Exception as error:  # noqa: BLE001 - a server that is not Redis can cause any error
            if "WRONGTYPE" in str(error):
                problem = "the key has another type; delete it, or give another key"
                raise CorruptState(self.describe(key), problem) from None
            # The server reports errors before the script's first write.
            refused = isinstance(error, (ResponseError, AuthenticationError, BusyLoadingError))
            kind = OutcomeUnknown if sent and not refused else BackendUnavailable
            raise kind(self.describe(key), self._redact(error)) from None

    def _redact(self, error: Exception) -> str:
        """Return an error's text without credentials, since servers quote unknown commands."""
        return redact_text(str(error) or type(error).__name__, self._secrets)

    def _parse_url(self, url: str) -> tuple[dict[str, Any], str]:
        """Return the options for redis-py's connections, and the URL without credentials."""
        try:
            from redis.asyncio.connection import SSLConnection, parse_url  # noqa: PLC0415 - an extra
        except ImportError:
            raise MissingExtra("RedisBackend", "redis") from None
        _check_url(url)
        try:
            options: dict[str, Any] = {**parse_url(url)}
        except ValueError as error:
            # redis-py's own errors name an option; errors of the standard library quote parts of a password.
            named = str(error) if "connection URL" in str(error) else "it has no readable host and port"
            raise _bad_url(named) from None
        for option in ("max_connections", "timeout"):  # pool options
            options.pop(option, None)
        self._secrets = [options.get(name) for name in ("password", "username", "ssl_password")]
        db = options.get("db") or 0
        if "path" in options:
            return options, f"unix://{options['path']}" + (f"?db={db}" if db else "")
        host, port = options.get("host", "localhost"), options.get("port", 6379)
        scheme = "rediss" if issubclass(options.get("connection_class", object), SSLConnection) else "redis"
        return options, f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/{db}"

    def _new_client(self) -> Redis:
        from redis.asyncio import ConnectionPool, Redis  # noqa: PLC0415 - an extra
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415

        options = self._options | {
            "socket_connect_timeout": self._seconds,
            # With a time-out, redis-py uses asyncio.wait_for, which swallows cancellations on Python 3.11.
            "socket_timeout": None,
            "retry": Retry(NoBackoff(), 0),
            "retry_on_timeout": False,
            "health_check_interval": 0,
            "decode_responses": False,
            "protocol": 2,  # version 3 mixes pushes with answers
        }
        pool = ConnectionPool(**options)
        pool.make_connection()  # type: ignore[no-untyped-call]  # raises if an option is invalid
        return Redis(connection_pool=pool)


def _reading_of(content: bytes, now: datetime) -> Reading:
    if not content:
        return Reading(None, None, now)
    return Reading(content, hashlib.sha1(content, usedforsecurity=False).hexdigest(), now)


async def _close(client: Redis) -> None:
    await _close_quietly(client.connection_pool.disconnect())


async def _close_quietly(closing: Awaitable[object]) -> None:
    """Close a connection, or abandon it if the peer does not answer the TLS shutdown."""
    with contextlib.suppress(Exception):
        await asyncio.wait_for(closing, _SECONDS_TO_CLOSE)


def _escape(text: str) -> str:
    """Return a SCAN pattern that matches only this text."""
    return re.sub(r"([*?\[\]^\\-])", r"\\\1", text)


def _check_url(url: object) -> None:
    """Raise ``InvalidConfiguration`` for an invalid or ambiguous URL.

    Unescaped ``/``, ``?`` or ``#`` in credentials are ambiguous: a part would be parsed as the host or the database.
    """
    if not isinstance(url, str):
        # Only the type: the repr of a URL object, such as pydantic's, contains the password.
        raise InvalidConfiguration(f"url must be text such as 'redis://localhost:6379/0', got {type(url).__name__}")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _bad_url("it has no readable host and port") from None
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise _bad_url("it begins with another scheme")
    if "@" in parts.path + parts.query + parts.fragment or parts.fragment:
        raise _bad_url("it has an @ or # in the wrong place")
    database = parts.path.strip("/")
    if parts.scheme == "unix":
        if not database:
            raise _bad_url("it has no path")
    elif database and not database.isdecimal():
        raise _bad_url("its path is not a database number")


def _bad_url(problem: str) -> InvalidConfiguration:
    return InvalidConfiguration(
        f"a Redis URL can't be used: {problem}; accepted are redis://[user:password@]host[:port][/db], rediss://... "
        "and unix:///path[?db=0], with special characters in user and password as %40 for @, %2F for /, and so on"
    )
