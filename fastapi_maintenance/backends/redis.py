"""The switch in Redis: one key, written by one script, pushed to everybody who listens."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.resources
import logging
import re
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from ..exceptions import (
    BackendUnavailable,
    CorruptState,
    DeadlinePassed,
    HoldLost,
    InvalidConfiguration,
    MissingExtra,
    OutcomeUnknown,
    SwitchIsHeld,
    UnknownWindow,
    VersionConflict,
)
from ..page import in_one_line
from ..state import MAX_BYTES, Change, MaintenanceMode, MaintenanceState, to_milliseconds, too_large
from .base import FollowedBackend, OnBackendError, clock_difference

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

logger = logging.getLogger("fastapi_maintenance")

DEFAULT_KEY = "fastapi-maintenance:{default}"
"""In braces, so that a cluster keeps the signs of changes where the document is."""

_SHARE_FOR_THE_ANSWER = 0.2
"""Of the time that a change has, what remains for the store's answer after the deadline that the store checks."""
_LEAST_MEMORY = timedelta(minutes=1)
"""For how long the store knows at least that a change was made."""
_SECONDS_BETWEEN_TRIES = 0.05
_SECONDS_IDLE = 10.0
"""After this time without any use, idle connections are closed."""
_MOST_IDLE = 4
_SILENT_ROUNDS = 3
"""After one round of silence the server is asked, after so many it is lost. Not after two: the round that ends when a
stalled process runs again ends before the answer that came meanwhile is read."""
_ANOTHER_TYPE = "another type"

_forgotten: list[object] = []
"""What a forked child has of its parent's connections: kept, because closing them would disturb the parent's loop."""


class RedisBackend(FollowedBackend):
    """Maintenance by a key in Redis (5 or newer, or what is compatible): all processes that use the key agree.

    A change is made by a script in the server, once, by the server's clock, and pushed to all who listen. A stored
    document that can't be read is left alone by all changes but one that sets the mode and requires nothing of what is
    stored; that replaces it, and the document that it replaces is kept as the key with ``:unreadable`` appended.

    Args:
        url: ``redis://[user:password@]host[:port][/db]``, ``rediss://`` for TLS, ``unix:///path/to/socket[?db=0]``.
            Options of redis-py may follow, such as ``?ssl_ca_certs=...``; what it says of time-outs, retries, protocol
            and pools is not used.
        key: The key of the document; ``None``: ``fastapi-maintenance:{default}``. Keys with something appended are
            used as well, and the channel ``<key>@<db>``.
        poll_seconds: How often the store is read, beside what it pushes.
        timeout_seconds: How long one reading or writing may take, connecting included. A connection for what is
            pushed that is silent for three times as long is given up.
        on_backend_error: What counts when the store fails: ``"keep"`` the last known state; ``"open"`` or
            ``"closed"`` once that is older than ``max_stale``.
        max_stale: Seconds; goes with ``"open"`` and ``"closed"``.
        initial: What counts when the store never answered since the start.
        init_timeout: Seconds that the first request waits for the first answer.

    Raises:
        MissingExtra: redis-py isn't installed.
        InvalidConfiguration: The URL or an option can't work.
    """

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        *,
        key: str | None = None,
        poll_seconds: float = 1.0,
        timeout_seconds: float = 1.0,
        on_backend_error: OnBackendError = "keep",
        max_stale: float | None = None,
        initial: bool | MaintenanceMode = False,
        init_timeout: float = 2.0,
    ) -> None:
        super().__init__(
            poll_seconds=poll_seconds,
            timeout_seconds=timeout_seconds,
            on_backend_error=on_backend_error,
            max_stale=max_stale,
            initial=initial,
            init_timeout=init_timeout,
        )
        if key == "":
            raise InvalidConfiguration(f"key={key!r}: the name of a key is needed, such as {DEFAULT_KEY!r}")
        self.key = DEFAULT_KEY if key is None else key
        self._url = url
        self._connections = _Connections(url, connect_seconds=timeout_seconds)
        self._clock_ahead = timedelta()
        """How much this host's clock is ahead of the server's."""
        self._channel = f"{self.key}@{self._connections.db}"  # channels are the same in all databases of a server
        self._script = importlib.resources.files(__package__).joinpath("redis_change.lua").read_bytes()
        self._script_sha = hashlib.sha1(self._script, usedforsecurity=False).hexdigest()

    def __repr__(self) -> str:
        return f"RedisBackend({self._connections.shown!r}, key={self.key!r})"

    def __str__(self) -> str:
        return f"{self._connections.shown}, key {self.key}"

    def sibling(self, name: str) -> RedisBackend:
        """Return the backend of a named switch: the same server and options, the key with this name in it.

        It takes the place of ``{default}``; a key without that has ``:{name}`` appended.
        """
        named = f"{{{name}}}"
        key = self.key.replace("{default}", named) if "{default}" in self.key else f"{self.key}:{named}"
        sibling = RedisBackend(
            self._url,
            key=key,
            **self._options(),
        )
        sibling._connections = self._connections
        return sibling

    async def load(self) -> MaintenanceState | None:
        """Return the stored state, or ``None`` if nothing is stored. One round trip.

        Raises:
            BackendUnavailable: The server did not answer within ``timeout_seconds``.
            CorruptState: The key has something else.
        """
        try:
            async with asyncio.timeout(self.timeout_seconds):
                time, reply = await self._connections.ask(("TIME",), ("GET", self.key))
                self._server_time(time)
        except TimeoutError:
            raise self._unavailable(self._no_answer) from None
        except _Lost as lost:
            raise self._unavailable(lost) from None
        stored = self._document(reply)
        return None if stored is None else self._parsed(stored)

    async def apply(self, change: Change) -> MaintenanceState:
        """Carry out one change in the server, once, and return the state after it.

        When the connection is lost meanwhile, the server is asked again until ``timeout_seconds`` have passed. After
        that the change isn't made any more, whenever the server comes to it.

        Raises:
            ChangeRejected: The server refused it.
            BackendUnavailable: The server could not be asked; nothing was changed.
            OutcomeUnknown: The server was asked and did not answer.
            CorruptState: The key has something else; nothing was changed.
            InvalidConfiguration: The document would become too large; nothing was changed.
        """
        attempt = _Attempt()
        give_up = asyncio.get_running_loop().time() + self.timeout_seconds
        try:
            async with asyncio.timeout_at(give_up):
                now, change, replaceable = await self._looked_at(change)
                left = timedelta(seconds=give_up - asyncio.get_running_loop().time())
                reply = await self._made(
                    attempt,
                    self._script_sha,
                    3,
                    self.key,
                    f"{self.key}:made:{change.id}",
                    f"{self.key}:unreadable",
                    change.to_json().encode(),
                    # By the server's clock, which may differ from the one here.
                    to_milliseconds(now + left * (1 - _SHARE_FOR_THE_ANSWER)),
                    # Of the server's clock a moment ago: scripts have no calendar.
                    f'"{now.isoformat(timespec="milliseconds").replace("+00:00", "Z")}"',
                    max(_LEAST_MEMORY, left * 2) // timedelta(milliseconds=1),
                    MAX_BYTES,
                    "" if replaceable is None else replaceable.id,
                    self._channel,
                )
        except TimeoutError:
            raise self._unavailable(self._no_answer, sent=attempt.sent) from None
        except _Lost as lost:
            raise self._unavailable(lost) from None  # before the change was sent
        if isinstance(reply, Exception):
            # What it refuses, it refuses before the first write. But what became of an earlier attempt is not known.
            raise self._unavailable(self._connections.told(reply), sent=attempt.lost)
        return self._state_after(change, reply, replaceable)

    def listen(self, heard: Callable[[MaintenanceState | None], None]) -> Coroutine[Any, Any, None]:
        """Call ``heard`` with each state that the server pushes, on a connection of its own, until that is lost.

        Raises:
            BackendUnavailable: The connection could not be made, or was lost, or is silent.
        """
        # Not a method that waits for hours: a backend that nobody has any more is collected meanwhile.
        parse = weakref.WeakMethod(self._heard)

        def heard_document(document: bytes) -> None:
            parsed = parse()
            if parsed is not None:  # pragma: no branch - collected in this moment
                heard(parsed(document))

        return _listen(
            self._connections, self._channel, self.timeout_seconds, repr(self), lambda: heard(None), heard_document
        )

    async def store_time(self) -> datetime:
        """Return what time it is by the server's clock. One round trip.

        Raises:
            BackendUnavailable: The server did not answer within ``timeout_seconds``.
        """
        return self._server_time(await self._asked("TIME"))

    async def try_writing(self) -> str | None:
        """Have the server refuse a change, and write a key that is gone at once: ``<key>:tried``.

        Raises:
            BackendUnavailable: The server did not answer, or takes no writes: as a replica, or for want of memory.
            CorruptState: The key has something else.
        """
        await super().try_writing()
        await self._asked("SET", f"{self.key}:tried", "", "PX", 1)
        return None

    async def names_beside(self) -> list[str]:
        """Return the names in the keys that siblings would have, within ``timeout_seconds``.

        Raises:
            BackendUnavailable: The server did not answer, does not let this user list keys, or has too many.
        """
        begin, _, end = self.sibling("\0").key.partition("\0")
        names: list[str] = []
        cursor: Any = 0
        try:
            async with asyncio.timeout(self.timeout_seconds):
                while cursor != b"0":
                    cursor, keys = await self._asked("SCAN", cursor, "MATCH", f"{_literally(begin)}*", "COUNT", 1000)
                    found = (key.decode(errors="replace") for key in keys)
                    names += [
                        key.removeprefix(begin).removesuffix(end)
                        for key in found
                        if key.endswith(end) and key != self.key
                    ]
        except TimeoutError:
            raise self._unavailable(self._no_answer) from None
        return names

    async def _asked(self, *command: Any) -> Any:
        """Return the answer to one command."""
        try:
            async with asyncio.timeout(self.timeout_seconds):
                [reply] = await self._connections.ask(command)
                self._connections.check(reply)
                return reply
        except TimeoutError:
            raise self._unavailable(self._no_answer) from None
        except _Lost as lost:
            raise self._unavailable(lost) from None

    async def disconnect(self) -> None:
        """Close the idle connections; siblings that use them as well get new ones."""
        await self._connections.close_idle()

    async def _looked_at(self, change: Change) -> tuple[datetime, Change, _Unreadable | None]:
        """Return the server's time, the change by what is stored, and the unreadable document that it may replace."""
        time, reply = await self._connections.ask(("TIME",), ("GET", self.key))
        now = self._server_time(time)
        id_, state = _ANOTHER_TYPE, MaintenanceState()
        try:
            stored = self._document(reply)
            if stored is not None:
                id_ = hashlib.sha1(stored, usedforsecurity=False).hexdigest()
                state = self._parsed(stored)
        except CorruptState as error:
            if not _can_replace(change):
                raise CorruptState(
                    error.where, f"{error.problem}; nothing was changed, set a mode to replace it"
                ) from None
            return now, change.resolved(state), _Unreadable(id_, error.problem)
        change.check_room(state, change.after(state, now))
        return now, change.resolved(state), None

    def _server_time(self, reply: Any) -> datetime:
        """Return the server's time from its answer to TIME, and take note of how much the clocks differ."""
        self._connections.check(reply)
        seconds, microseconds = reply
        now = datetime.fromtimestamp(int(seconds), UTC) + timedelta(microseconds=int(microseconds))
        self._clock_ahead = clock_difference(now)
        return now

    async def _made(self, attempt: _Attempt, *arguments: Any) -> Any:
        """Have the server run the script, again on a new connection if one is lost, and return its answer."""
        from redis.exceptions import NoScriptError  # noqa: PLC0415 - an extra

        while True:
            try:
                async with self._connections.lent() as connection:
                    attempt.sent = True
                    [reply] = await self._connections.answers(connection, ("EVALSHA", *arguments))
                    if isinstance(reply, NoScriptError):
                        whole = ("EVAL", self._script, *arguments[1:])
                        [reply] = await self._connections.answers(connection, whole)
                    return reply
            except _Lost:
                if not attempt.sent:
                    raise
                attempt.lost = True
            await asyncio.sleep(_SECONDS_BETWEEN_TRIES)

    def _state_after(self, change: Change, reply: list[bytes], replaced: _Unreadable | None) -> MaintenanceState:
        """Return the state that the script answered, or raise what it refused."""
        answer, *details = reply
        match answer:
            case b"late":
                raise DeadlinePassed
            case b"conflict":
                raise VersionConflict(change.expected_version or 0, int(details[0]))
            case b"lost":
                raise HoldLost([id_.decode() for id_ in details])
            case b"no window":
                known = {id_.decode() for id_ in details}
                raise UnknownWindow(sorted(change.required_windows - known), sorted(known))
            case b"held":
                raise SwitchIsHeld(sorted(in_one_line(owner.decode()) for owner in details))
            case b"large":
                raise too_large(int(details[0]))
            case b"unreadable":
                raise CorruptState(self._where, "something else was stored while the change was made")
            case b"replaced" if replaced is not None:
                logger.warning(
                    "%s had no readable maintenance state, which was replaced and is kept as %s:unreadable: %s",
                    self._where,
                    self.key,
                    replaced.problem,
                )
        # Empty: the change was made, and since then somebody has deleted the key.
        return self._parsed(details[0]) if details[0] else MaintenanceState()

    def _document(self, reply: Any) -> bytes | None:
        """Return what GET found."""
        if isinstance(reply, Exception):
            if str(reply).startswith("WRONGTYPE"):
                raise CorruptState(self._where, "the key has another type")
            raise self._unavailable(self._connections.told(reply))
        stored: bytes | None = reply
        return stored

    def _parsed(self, stored: bytes) -> MaintenanceState:
        return MaintenanceState.from_json(stored, where=self._where).by_another_clock(self._clock_ahead)

    def _heard(self, document: bytes) -> MaintenanceState | None:
        try:
            return self._parsed(document)
        except CorruptState:
            return None  # what the key has will be read, and complained about

    def _unavailable(self, problem: object, *, sent: bool = False) -> BackendUnavailable:
        return (OutcomeUnknown if sent else BackendUnavailable)(repr(self), problem)

    @property
    def _no_answer(self) -> str:
        return _no_answer(self.timeout_seconds)

    @property
    def _where(self) -> str:
        return f"key {self.key} at {self._connections.shown}"


async def _listen(  # noqa: PLR0917
    connections: _Connections,
    channel: str,
    timeout_seconds: float,
    where: str,
    confirmed: Callable[[], None],
    heard: Callable[[bytes], None],
) -> None:
    """Subscribe to a channel, and call ``heard`` with each document until the connection is lost."""
    try:
        async with asyncio.timeout(timeout_seconds) as until_confirmed, connections.lent(new=True) as connection:
            [reply] = await connections.answers(connection, ("SUBSCRIBE", channel))
            connections.check(reply)
            until_confirmed.reschedule(None)
            confirmed()
            while True:
                heard(await connections.pushed(connection, timeout_seconds))
    except TimeoutError:
        raise BackendUnavailable(where, _no_answer(timeout_seconds)) from None
    except _Lost as lost:
        raise BackendUnavailable(where, lost) from None


def _no_answer(seconds: float) -> str:
    return f"no answer within {seconds:g} s"


class _Attempt:
    """How far the server has been told of a change."""

    sent = False
    """The server may have begun to make it."""
    lost = False
    """It may have made it, and its answer will never come."""


class _Unreadable(NamedTuple):
    """A document that a change may replace."""

    id: str
    problem: str


class _Lost(Exception):
    """A connection could not be made, or broke."""


def _literally(text: str) -> str:
    """Return the pattern of Redis that matches a text only."""
    return re.sub(r"([\\\[\]*?])", r"\\\1", text)


def _can_replace(change: Change) -> bool:
    """Return whether a change makes sense whatever is stored: it sets the mode, and requires nothing."""
    return (
        "mode" in change.fields
        and change.expected_version is None
        and not change.required_holds
        and not change.required_windows
        and not change.refuse_while_held
    )


class _Connections:
    """The connections to one server, for one backend and its siblings, all in one event loop.

    redis-py's own pool and clients retry, keep what was cancelled half-way, and know no end of waiting.
    """

    def __init__(self, url: str, *, connect_seconds: float) -> None:
        try:
            from redis.asyncio.connection import Connection, SSLConnection, parse_url  # noqa: PLC0415 - an extra
            from redis.exceptions import ResponseError  # noqa: PLC0415
        except ImportError:
            raise MissingExtra("RedisBackend", "redis") from None
        _check_url(url)
        try:
            options: dict[str, Any] = {**parse_url(url)}
        except ValueError as error:
            # Its own errors name an option; those of the standard library quote what may be a part of a password.
            named = str(error) if "connection URL" in str(error) else "it has no readable host and port"
            raise _bad_url(named) from None
        self._class: type[AbstractConnection] = options.pop("connection_class", Connection)
        for option in ("max_connections", "timeout"):  # of pools
            options.pop(option, None)
        self._options = options | {
            "socket_connect_timeout": connect_seconds,
            # None: with a time-out redis-py uses asyncio.wait_for, which on Python 3.11 swallows cancellations.
            "socket_timeout": None,
            "retry": None,
            "retry_on_timeout": False,
            "health_check_interval": 0,
            "decode_responses": False,
            "protocol": 2,  # version 3 mixes what is pushed with answers
        }
        self._secrets = [options[name] for name in ("password", "username", "ssl_password") if options.get(name)]
        self._refusal = ResponseError
        self.db = int(options.get("db", 0))
        if "path" in options:
            self.shown = f"unix://{options['path']}" + (f"?db={self.db}" if self.db else "")
        else:
            host, port = options.get("host", "localhost"), options.get("port", 6379)
            scheme = "rediss" if issubclass(self._class, SSLConnection) else "redis"
            self.shown = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/{self.db}"
        try:
            self._new()
        except Exception as error:  # noqa: BLE001 - redis-py refuses options with errors of many kinds
            raise _bad_url(self.told(error)) from None
        self._idle: list[AbstractConnection] = []
        self._keeper: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._was_used = False

    async def ask(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Return the answers to commands in one round trip, errors among them; harmless if it is done twice.

        Raises:
            _Lost: There is no connection.
        """
        while True:
            is_new = not self._idle
            try:
                async with self.lent() as connection:
                    return await self.answers(connection, *commands)
            except _Lost:
                if is_new:
                    raise
                # The server may have closed it long ago.

    @contextlib.asynccontextmanager
    async def lent(self, *, new: bool = False) -> AsyncIterator[AbstractConnection]:
        """Lend a connection; after an error, or when cancelled, it is closed, as an answer may be under way.

        Raises:
            _Lost: It could not be made.
        """
        self._take_over(asyncio.get_running_loop())
        connection = self._idle.pop() if self._idle and not new else self._new()
        try:
            with self._losses():
                await connection.connect()  # type: ignore[no-untyped-call]
            yield connection
        except BaseException:
            # The idle ones are no better: closed by the server at the same time, or as silent as this one.
            await _close([connection, *self._idle])
            self._idle.clear()
            raise
        if len(self._idle) < _MOST_IDLE:
            self._idle.append(connection)
            self._was_used = True
            if self._keeper is None:
                self._keeper = asyncio.create_task(self._close_when_unused(self._idle))
        else:
            await _close([connection])

    async def answers(self, connection: AbstractConnection, *commands: tuple[Any, ...]) -> list[Any]:
        """Return a connection's answers to commands, errors among them.

        Raises:
            _Lost: It broke.
        """
        replies: list[Any] = []
        with self._losses():
            await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            for _ in commands:
                try:
                    replies.append(await connection.read_response())
                except self._refusal as error:
                    replies.append(error)
        return replies

    async def pushed(self, connection: AbstractConnection, round_seconds: float) -> bytes:
        """Return what is pushed next on a connection that has subscribed.

        Raises:
            _Lost: It broke, or nothing comes any more, not even an answer to PING.
        """
        silent_rounds = 0
        while silent_rounds < _SILENT_ROUNDS:
            try:
                async with asyncio.timeout(round_seconds):
                    with self._losses():
                        if silent_rounds == 1:
                            await connection.send_command("PING", check_health=False)
                        # Without its own time-out, with which redis-py takes the kernel's ETIMEDOUT for a quiet
                        # moment, again and again. What has come of a message when the round ends is kept.
                        reply = await connection.read_response(disconnect_on_error=False)
            except TimeoutError:
                silent_rounds += 1
                continue
            if reply[0] == b"message":
                document: bytes = reply[2]
                return document
            silent_rounds = 0
        raise _Lost(f"silent for {_SILENT_ROUNDS * round_seconds:g} s")

    async def close_idle(self) -> None:
        """Close the connections that nobody uses now."""
        self._take_over(asyncio.get_running_loop())
        await _close(self._idle)

    def check(self, reply: Any) -> None:
        """Raise ``_Lost`` if a reply is an error: this server is of no use."""
        if isinstance(reply, Exception):
            raise _Lost(self.told(reply))

    def told(self, error: BaseException) -> str:
        """Return what an error says, without the credentials: a server quotes commands that it does not know."""
        text = str(error) or type(error).__name__
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    @contextlib.contextmanager
    def _losses(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - up to a server that speaks something else
            raise _Lost(self.told(error)) from None

    def _new(self) -> AbstractConnection:
        return self._class(**self._options)

    def _take_over(self, loop: asyncio.AbstractEventLoop) -> None:
        """Forget the connections of another event loop: this is a forked child."""
        if self._loop is not loop:
            if self._idle:
                _forgotten.append((self._loop, self._keeper, self._idle))
            self._loop, self._keeper, self._idle = loop, None, []

    async def _close_when_unused(self, idle: list[AbstractConnection]) -> None:
        """Close idle connections after some time, or when the event loop ends."""
        try:
            while self._was_used:
                self._was_used = False
                await asyncio.sleep(_SECONDS_IDLE)
        finally:
            if idle is self._idle:
                self._keeper = None
            await _close(idle)


async def _close(connections: list[AbstractConnection]) -> None:
    """Close connections; this never waits, so nothing can interrupt it."""
    while connections:
        connection = connections.pop()
        writer = getattr(connection, "_writer", None)
        if writer is not None:
            writer.transport.abort()  # or TLS would say goodbye first, and wait for an answer
        await connection.disconnect(nowait=True)


def _check_url(url: object) -> None:
    """Refuse URLs that are read otherwise than they were meant.

    Credentials with a bare ``/``, ``?`` or ``#`` are such: a part of them would be taken for a host or a database.
    """
    if not isinstance(url, str):
        # Its type alone: the repr of a URL by pydantic or the like has the password in it.
        raise InvalidConfiguration(
            f"url: a Redis URL is needed, such as 'redis://localhost:6379/0', as text and not as {type(url).__name__}"
        )
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _bad_url("it has no readable host and port") from None
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise _bad_url("it begins with another scheme")
    if "@" in parts.path + parts.query + parts.fragment or parts.fragment:
        raise _bad_url("it has an @ or # where none can be")
    database = parts.path.strip("/")
    if parts.scheme == "unix":
        if not database:
            raise _bad_url("it has no path")
    elif database and not database.isdecimal():
        raise _bad_url("its path is no database number")


def _bad_url(problem: str) -> InvalidConfiguration:
    return InvalidConfiguration(
        f"a Redis URL can't be used: {problem}; accepted are redis://[user:password@]host[:port][/db], rediss://... "
        "and unix:///path[?db=0], with special characters in user and password as %40 for @, %2F for /, and so on"
    )
