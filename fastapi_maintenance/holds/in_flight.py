"""Requests in flight in this process, and waiting until those that began before a change are done.

A request counts from before its switch is asked until its ASGI call ends: with the body that it streams and its
background tasks. So whoever changes a switch and then looks what is in flight misses nothing: a request that is not
there yet will see the change.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from datetime import timedelta
from typing import NamedTuple

import anyio
from starlette.types import Message, Scope, Send

from ..backends.base import BaseStateBackend
from ..concurrency import io_thread
from ..exceptions import DrainTimeout, InvalidConfiguration
from ..model.text import in_one_line
from ..routing.apps import declared_path
from ..switches.app_switch import DEFAULT, answering
from ..switches.registry import registry
from ..switches.view import View
from ..switches.views import view_of

logger = logging.getLogger("fastapi_maintenance")

_COUNTED = "fastapi_maintenance.counted"
"""Where the scope of a request keeps the switches for which a guard has counted it."""
_SOCKET = "fastapi_maintenance.websocket"
"""Where the scope of a websocket keeps what can close it."""

SERVICE_RESTART = 1012
"""The close code for clients that are to come back (registered with IANA for RFC 6455)."""


class InFlight(NamedTuple):
    """One request that is running in this process."""

    method: str
    """The HTTP method, or ``websocket``."""
    route: str
    """The route's path as it was declared, where the router has come to it; else the request's path, in one line."""


def in_flight(backend: BaseStateBackend | None = None, *, name: str = DEFAULT) -> list[InFlight]:
    """Return the requests in flight in this process that a switch governs, the one that asks included.

    Those of the default switch are all that came through ``MaintenanceModeMiddleware``; those of another one are
    those of them that came to its guard.

    Raises:
        AmbiguousSwitch: Outside a request, where several apps have a backend of their own.
        InvalidSwitchName: The name can't be a switch's.
    """
    return [_described(scope) for scope in dict(view_of(registry.meant(backend, name)).in_flight).values()]


def others_in_flight(*, name: str = DEFAULT) -> list[InFlight]:
    """Return what ``in_flight`` does, without the requests that the caller is part of."""
    return [_described(scope) for scope in _of_others([view_of(registry.meant(name=name))]).values()]


def _described(scope: Scope) -> InFlight:
    method = "websocket" if scope["type"] == "websocket" else scope["method"]
    return InFlight(method, declared_path(scope) or in_one_line(scope["path"]))


# Counting


def count_guarded(view: View) -> None:
    """Count the current request for the switch of a guard as well, before that is asked; ``leave`` takes it out again.

    Without the middleware nobody would take it out.
    """
    current = answering.get()
    if current is None:
        view.has_uncounted_requests = True
        return
    # The scope as the middleware knows it: others may have passed on a copy.
    _, scope, _ = current
    view.in_flight[id(scope)] = scope
    scope.setdefault(_COUNTED, []).append(view.in_flight)


def leave(counts: MutableMapping[int, Scope], scope: Scope) -> None:
    """Count a request no longer, and tell those who wait for it."""
    key = id(scope)
    del counts[key]
    for guarded in scope.pop(_COUNTED, ()):
        guarded.pop(key, None)
    if _waiting:
        for waiting in tuple(_waiting):
            waiting.left(key)


# Waiting


class _Waiting:
    """Somebody who waits until some requests are done."""

    def __init__(self) -> None:
        self.done: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._keys: set[int] | None = None
        self._lock = threading.Lock()

    def wait_for(self, requests: Callable[[], Mapping[int, Scope]]) -> Mapping[int, Scope]:
        """Wait for the requests that there are now; return them, which also keeps their keys theirs."""
        with self._lock:
            found = requests()
            self._keys = set(found)
            self._look()
        return found

    def left(self, key: int) -> None:
        """Take note of a request that is done."""
        with self._lock:
            if self._keys is not None:
                self._keys.discard(key)
                self._look()

    def still_there(self) -> set[int]:
        """Return the keys of those that are not done."""
        with self._lock:
            return set(self._keys or ())

    def _look(self) -> None:
        if not self._keys and not self.done.done():
            self.done.set_result(None)


_waiting: list[_Waiting] = []
"""Everybody who waits: almost always nobody."""


@contextlib.contextmanager
def _one_who_waits() -> Iterator[_Waiting]:
    waiting = _Waiting()
    _waiting.append(waiting)
    try:
        yield waiting
    finally:
        _waiting.remove(waiting)


async def drained(views: Iterable[View], seconds: float, *, close_websockets: bool) -> None:
    """Wait until the requests of this process that began before this call are done, the caller's own apart.

    Raises:
        DrainTimeout: Some are still running after so many seconds.
        InvalidConfiguration: There are requests that can't be counted.
    """
    views = list(views)
    if any(view.has_uncounted_requests for view in views):
        raise InvalidConfiguration(
            "drain=...: requests come to a MaintenanceGuard without MaintenanceModeMiddleware around it, and a guard "
            "does not see when a request ends; add the middleware to the app"
        )
    if not registry.had_app:
        logger.warning(
            "drain=...: no app with MaintenanceModeMiddleware runs in this process, so nothing is waited for; "
            "`fastapi-maintenance run --drain 30s` waits for the others"
        )
    with _one_who_waits() as waiting:
        # It is among those who are told before it looks: a request that ends now is not found, or tells it.
        found = waiting.wait_for(lambda: _of_others(views))
        if close_websockets:
            for scope in found.values():
                if _SOCKET in scope:
                    scope[_SOCKET].close_soon()
        with anyio.move_on_after(seconds) as limit:
            await io_thread.done(waiting.done)
        if limit.cancelled_caught and (left := waiting.still_there()):
            raise DrainTimeout(seconds, [_described(found[key]) for key in left])


def _of_others(views: Iterable[View]) -> dict[int, Scope]:
    """Return the requests in flight that the caller is not part of, by their keys."""
    own = _own_requests()
    found = {key: scope for view in views for key, scope in dict(view.in_flight).items()}
    return {key: scope for key, scope in found.items() if key not in own}


def _own_requests() -> set[int]:
    """Return the keys of the requests that the caller is part of: its own, at each gate that it came through."""
    keys = set()
    inside = answering.get()
    while inside is not None:
        _, scope, inside = inside
        keys.add(id(scope))
    return keys


def checked_seconds(drain: float | timedelta) -> float:
    """Return the seconds to wait at most, or raise ``InvalidConfiguration``."""
    try:
        seconds = drain.total_seconds() if isinstance(drain, timedelta) else drain
        if not isinstance(seconds, bool) and 0 < seconds < math.inf:
            return seconds
    except TypeError:
        pass
    raise InvalidConfiguration(f"drain={drain!r}: seconds or a timedelta above 0 are needed")


# Websockets


class Socket:
    """One websocket connection, between the app and the server, that can be closed from outside."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        self._start = io_thread.starter_in_this_loop()
        self._sending = 0
        """How many messages of the app are just being sent."""
        self._is_accepted = False
        self._is_to_close = False
        self._is_closed = False
        scope[_SOCKET] = self

    def __deepcopy__(self, memo: object) -> Socket:
        """Return the same: a copy of the scope is of the same connection."""
        return self

    async def send(self, message: Message) -> None:
        """Send for the app. What passes is sent as it comes: a server may mind even a moment in between.

        Raises:
            OSError: The connection was closed from outside (which ASGI has for a client that is gone).
        """
        kind = message["type"]
        if self._is_closed:
            if kind == "websocket.close":
                return
            msg = "the connection was closed for maintenance"
            raise OSError(msg)
        self._sending += 1
        try:
            await self._send(message)
        finally:
            self._sending -= 1
        if kind == "websocket.accept":
            self._is_accepted = True
        elif kind == "websocket.close":
            self._is_closed = True
        if self._is_to_close:
            await self._close()

    def close_soon(self) -> None:
        """Close the connection with 1012, from any thread: at once, or as soon as the app has accepted it."""
        self._is_to_close = True
        self._start(self._close)

    async def _close(self) -> None:
        if self._is_closed or self._sending or not self._is_accepted:
            return  # or the app's own send will do it
        self._is_closed = True
        with contextlib.suppress(Exception):  # the client may be gone
            await self._send({"type": "websocket.close", "code": SERVICE_RESTART, "reason": "maintenance"})
