"""The requests in flight in this process, and draining: waiting until requests from before a change have ended.

A request is in flight from before its switch is read until its ASGI call ends, including its streamed body and
background tasks. So code that changes a switch and then lists the requests in flight misses none: any later request
sees the change.
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
from ..switches.app_switch import DEFAULT
from ..switches.passage import Passage, current, passage_of
from ..switches.registry import registry
from ..switches.views.lookup import view_of
from ..switches.views.view import View

logger = logging.getLogger("fastapi_maintenance")

SERVICE_RESTART = 1012
"""The close code that invites clients to reconnect (registered with IANA for RFC 6455)."""


class InFlight(NamedTuple):
    """A request that is running in this process."""

    method: str
    """The HTTP method, or ``websocket``."""
    route: str
    """The route's declared path, if it was routed already; otherwise the request's path, in one line."""


def in_flight(backend: BaseStateBackend | None = None, *, name: str = DEFAULT) -> list[InFlight]:
    """Return the requests in flight in this process that a switch applies to, including the caller's own.

    The default switch applies to all requests that pass ``MaintenanceModeMiddleware``; another switch applies to those
    that also reach its guard.

    Raises:
        AmbiguousSwitch: Outside a request, where several apps have a backend of their own.
        InvalidSwitchName: The name can't be a switch's.
    """
    return [_describe(scope) for scope in dict(view_of(registry.resolve(backend, name)).in_flight).values()]


def others_in_flight(*, name: str = DEFAULT) -> list[InFlight]:
    """Return the requests in flight like ``in_flight``, without the caller's own."""
    return [_describe(scope) for scope in _requests_of_others([view_of(registry.resolve(name=name))]).values()]


def _describe(scope: Scope) -> InFlight:
    method = "websocket" if scope["type"] == "websocket" else scope["method"]
    return InFlight(method, declared_path(scope) or in_one_line(scope["path"]))


def count_guarded(view: View, scope: Scope) -> None:
    """Count the current request for a guard's switch, before the switch is read; ``leave`` removes it.

    A request without the middleware can't be counted, since its end is not observed.
    """
    passage = current.get()
    if passage is None:
        view.has_uncounted_requests = True
        return
    if passage.guarded is None:
        passage.guarded = []
    # By the middleware's scope: the guard may have received a copy.
    view.in_flight.setdefault(passage.key, scope)
    passage.guarded.append(view.in_flight)


def leave(passage: Passage, counts: MutableMapping[int, Scope] | None) -> None:
    """End a passage: remove the request from its guards' counts and from ``counts``, and notify its waiters.

    Without ``counts``, an app around this one goes on counting the request.
    """
    passage.is_over, passage.socket = True, None
    if counts is not None:
        del counts[passage.key]
    for guarded in passage.guarded or ():
        guarded.pop(passage.key, None)
    if _waiters and counts is not None:
        for waiter in tuple(_waiters):
            waiter.remove(passage.key)


class _Waiter:
    """Waits until a set of requests has ended."""

    def __init__(self) -> None:
        self.done: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._keys: set[int] | None = None
        self._lock = threading.Lock()

    def wait_for(self, requests: Callable[[], Mapping[int, Scope]]) -> Mapping[int, Scope]:
        """Wait for the current requests; return them, which also keeps their keys unique."""
        with self._lock:
            found = requests()
            self._keys = set(found)
            self._finish_if_empty()
        return found

    def remove(self, key: int) -> None:
        """Record the end of a request."""
        with self._lock:
            if self._keys is not None:
                self._keys.discard(key)
                self._finish_if_empty()

    def remaining(self) -> set[int]:
        """Return the keys of the requests that have not ended."""
        with self._lock:
            return set(self._keys or ())

    def _finish_if_empty(self) -> None:
        if not self._keys and not self.done.done():
            self.done.set_result(None)


_waiters: list[_Waiter] = []
"""The current waiters; almost always empty."""


@contextlib.contextmanager
def _registered_waiter() -> Iterator[_Waiter]:
    waiter = _Waiter()
    _waiters.append(waiter)
    try:
        yield waiter
    finally:
        _waiters.remove(waiter)


async def wait_until_drained(views: Iterable[View], seconds: float, *, close_websockets: bool) -> None:
    """Wait until all earlier requests of this process have ended, except the caller's own.

    Raises:
        DrainTimeout: Some are still running after ``seconds``.
        InvalidConfiguration: There are requests that can't be counted.
    """
    views = list(views)
    if any(view.has_uncounted_requests for view in views):
        raise InvalidConfiguration(
            "drain=...: requests reach a MaintenanceGuard without MaintenanceModeMiddleware around it, and a guard "
            "does not see when a request ends; add the middleware to the app"
        )
    if not registry.had_app:
        logger.warning(
            "drain=...: no app with MaintenanceModeMiddleware runs in this process, so the drain does not wait; "
            "`fastapi-maintenance run --drain 30s` waits for other processes"
        )
    with _registered_waiter() as waiter:
        # Registered before it lists the requests, so that it misses no request that ends meanwhile.
        found = waiter.wait_for(lambda: _requests_of_others(views))
        if close_websockets:
            for scope in found.values():
                socket = _socket_of(scope)
                if socket is not None:
                    socket.close_soon()
        with anyio.move_on_after(seconds) as limit:
            await io_thread.wait_for(waiter.done)
        if limit.cancelled_caught and (left := waiter.remaining()):
            raise DrainTimeout(seconds, [_describe(found[key]) for key in left])


def _requests_of_others(views: Iterable[View]) -> dict[int, Scope]:
    """Return the requests in flight by key, without the caller's own."""
    own = _own_requests()
    found = {key: scope for view in views for key, scope in dict(view.in_flight).items()}
    return {key: scope for key, scope in found.items() if key not in own}


def _own_requests() -> set[int]:
    """Return the keys of the caller's own request, one for each gate that it passed."""
    keys, passage = set(), current.get()
    while passage is not None:
        keys.add(passage.key)
        passage = passage.around
    return keys


def _socket_of(scope: Scope) -> Socket | None:
    """Return the innermost socket of a websocket's scope, or ``None``."""
    passage = passage_of(scope)
    while passage is not None and passage.socket is None:
        passage = passage.outer
    return None if passage is None else passage.socket


def checked_seconds(drain: float | timedelta) -> float:
    """Return the maximum seconds to wait, or raise ``InvalidConfiguration``."""
    try:
        seconds = drain.total_seconds() if isinstance(drain, timedelta) else drain
        if not isinstance(seconds, bool) and 0 < seconds < math.inf:
            return seconds
    except TypeError:
        pass
    raise InvalidConfiguration(f"drain must be seconds or a timedelta above 0, got {drain!r}")


class Socket:
    """A websocket connection that can be closed from outside the app."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start = io_thread.starter_in_this_loop()
        self._sending = 0
        """The number of messages that the app is sending now."""
        self._is_accepted = False
        self._is_to_close = False
        self._is_closed = False

    async def send(self, message: Message) -> None:
        """Send a message of the app at once: some servers are sensitive to any delay.

        Raises:
            OSError: The connection was closed from outside (ASGI's error for a disconnected client).
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
        """Close the connection with 1012, at once or as soon as the app has accepted it; callable from any thread."""
        self._is_to_close = True
        self._start(self._close)

    async def _close(self) -> None:
        if self._is_closed or self._sending or not self._is_accepted:
            return  # or ``send`` closes it
        self._is_closed = True
        with contextlib.suppress(Exception):  # the client may have disconnected
            await self._send({"type": "websocket.close", "code": SERVICE_RESTART, "reason": "maintenance"})
