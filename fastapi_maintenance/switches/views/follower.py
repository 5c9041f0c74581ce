"""The view of a store that is followed in the background, and its behaviour when the store fails."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import logging
import math
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from ...backends.base import StoreBackend
from ...concurrency import io_thread
from ...exceptions import BackendUnavailable, MaintenanceError
from ...model.change import Change
from ...model.modes import MaintenanceMode
from ...model.state import MaintenanceState
from ...model.text import in_one_line
from .view import Knowledge, SwitchStatus, View

logger = logging.getLogger("fastapi_maintenance")
_MOST_NAMED = 5


class StoreView(View):
    """The view of a backend whose store is followed by the I/O thread.

    Requests read ``_current``, which is replaced as a whole. Answers of the store are handled on the I/O thread only,
    so their handlers never run at the same time.

    The store is followed as long as anything uses it: an app until its lifespan has ended, a hold, a subscription or a
    running request; or, after a call without any other user, until ``aclose()``. The following tasks hold only weak
    references, so unused apps, backends and views are garbage-collected.
    """

    has_leases = True

    def __init__(self, backend: StoreBackend) -> None:
        super().__init__(backend)
        self._backend = backend
        self._lock = threading.Lock()
        self._users: dict[int, weakref.ref[object]] = {}
        """The users for which the store is followed, by ``id``; without calls and running requests."""
        self._reset()
        backend.stop_following = self._stop
        backend.switch.on_reading = self._receive
        io_thread.call_after_fork(self.reset_after_fork)

    def _reset(self) -> None:
        """Return to the initial state: no copy, no tasks."""
        self._current: MaintenanceState | None = None
        """The state that requests read: the store's, or its substitute while the store fails."""
        self._stored: MaintenanceState | None = None
        """The store's last state; ``None`` if it has no document."""
        self._ready: concurrent.futures.Future[None] | None = None
        """Done once there is a state to read; ``None`` while the store is not followed."""
        self._is_called = False
        """Whether a call has read the state while nothing else used the store."""
        self._tasks: list[asyncio.Task[None]] = []
        self._init_timer: asyncio.TimerHandle | None = None
        self._wake = _Wake()
        self._failures = 0
        """The number of failures since the last success."""
        self._logged: set[type[Exception]] = set()
        """The types of failure that were logged since the last success."""
        self._last_contact: float | None = None
        self._last_error: str | None = None
        self._unreadable: str | None = None
        """The problems of stored windows that can't be read."""

    def peek(self) -> MaintenanceState | None:
        """Return the current copy, or ``None`` before the first."""
        return self._current

    async def read(self) -> MaintenanceState:
        """Return the current copy; wait for the first copy, up to ``init_timeout`` seconds."""
        while (state := self._current) is None:  # again if following was stopped meanwhile
            await io_thread.wait_for(self._follow_for_call())
        return state

    def read_blocking(self) -> MaintenanceState:
        """Return the current copy like ``read``, for code outside an event loop."""
        while (state := self._current) is None:
            self._follow_for_call().result()
        return state

    def latest(self) -> MaintenanceState:
        """Return the current copy; before the first, the ``initial`` state."""
        return self._current or self._initial()

    def _initial(self) -> MaintenanceState:
        return MaintenanceState(mode=self._backend.initial)

    async def apply(self, change: Change) -> MaintenanceState:
        """Apply one change to the store; it takes effect here from the next request on."""
        return await self._backend.apply(change)

    def status(self) -> SwitchStatus:
        """Return how current this copy is."""
        stored, last_contact = self._stored, self._last_contact
        if last_contact is None:
            knowledge = Knowledge.NOT_READY if self._current is None else Knowledge.ERROR
            return SwitchStatus(knowledge, last_error=self._last_error)
        return SwitchStatus(
            Knowledge.STALE if self._failures else Knowledge.READY,
            None if stored is None else stored.version,
            time.monotonic() - last_contact,
            self._last_error or self._unreadable,
        )

    @property
    def is_following(self) -> bool:
        """Whether the store is followed now."""
        return self._ready is not None

    def start(self, user: object) -> None:
        """Follow the store until ``user`` leaves or is garbage-collected."""
        key = id(user)
        if key not in self._users:
            self._users[key] = weakref.ref(user, lambda _: self._forget_user(key))
        if self._ready is None:
            self._follow()

    def leave(self, user: object) -> None:
        """Stop following the store for ``user``; without other users, stop altogether."""
        self._forget_user(id(user))

    def _forget_user(self, key: int) -> None:
        """Remove a user; must not take a lock, since the garbage collector may call it anywhere."""
        if self._users.pop(key, None) is not None and not self._users:
            self._wake.set_from_anywhere()

    def _follow_for_call(self) -> concurrent.futures.Future[None]:
        """Follow the store for a call: until ``aclose()``, unless something else uses it."""
        if not self._users:
            self._is_called = True
        return self._follow()

    def _follow(self) -> concurrent.futures.Future[None]:
        """Follow the store; return a future that is done once there is a state to read."""
        with self._lock:
            if self._ready is None:
                self._ready = concurrent.futures.Future()
                io_thread.submit(self._begin(self._ready))
            return self._ready

    async def _begin(self, ready: concurrent.futures.Future[None]) -> None:
        if ready is not self._ready:  # it was stopped before it began
            return
        wake = self._wake
        wake.loop = asyncio.get_running_loop()
        self._init_timer = io_thread.call_later(self._backend.init_timeout, self._give_up_waiting)
        poll = weakref.WeakMethod(self._poll, lambda _: wake.set_from_anywhere())
        watching = asyncio.create_task(_keep_watching(weakref.WeakMethod(self._watch), wake))
        self._tasks.append(asyncio.create_task(_keep_polling(poll, wake, watching)))

    async def _stop(self) -> None:
        """Stop following the store; the next read starts again."""
        with self._lock:
            tasks, ready = self._end()
        await io_thread.cancel_tasks(tasks)
        self.transitions.forget()
        _set_ready(ready)

    def _stop_unless_used(self) -> bool:
        """Stop following the store if nothing uses it; return whether it was stopped."""
        with self._lock:
            if self._users or self._is_called or self.in_flight:
                return False
            _, ready = self._end()
        self.transitions.forget()
        _set_ready(ready)
        return True

    def _end(self) -> tuple[list[asyncio.Task[None]], concurrent.futures.Future[None] | None]:
        """Forget the copy; return the following tasks, and the future that callers wait for."""
        if self._init_timer is not None:
            self._init_timer.cancel()
        tasks, ready = self._tasks, self._ready
        self._reset()
        self._backend.switch.forget()
        return tasks, ready

    def reset_after_fork(self) -> None:
        """Forget the parent's copy in a forked child, which has no I/O thread."""
        _abandoned_tasks.append(self._tasks)
        self._wake.loop = None
        self._lock = threading.Lock()
        self._reset()
        self.transitions.forget()

    async def _poll(self) -> float | None:
        """Read the store once; return the seconds until the next read, or ``None`` if nothing uses the store."""
        if self._stop_unless_used():
            try:
                await self._backend.disconnect()
            except Exception:
                logger.exception("the connections of %r could not be closed", self._backend)
            return None
        self._wake.clear()
        try:
            await self._backend.load()
        except Exception as error:  # noqa: BLE001 - requests never see an error of the store
            self._record_failure(error)
        return self._seconds_until_next_read()

    def _watch(self, changed: Callable[[], None]) -> Coroutine[Any, Any, None]:
        return self._backend.store.watch(self._backend.switch.key, changed)

    def _give_up_waiting(self) -> None:
        """Let the first requests continue with ``initial`` if the store does not answer in time."""
        if self._current is None:
            self._publish(self._initial())

    def _seconds_until_next_read(self) -> float:
        """Return the seconds until the store is read again."""
        if not (self._users or self._is_called):
            return min(self._backend.poll_seconds, _LONGEST_PAUSE)  # the end of the last request does not wake it
        if not self._failures:
            return min(self._backend.poll_seconds, self._seconds_until_a_hold_expires())
        pause = min(_pause_after(self._failures), self._backend.poll_seconds)
        max_stale = self._backend.max_stale
        if max_stale is None or self._last_contact is None:
            return pause
        too_old_in = self._last_contact + max_stale - time.monotonic()
        return min(pause, too_old_in) if too_old_in > 0 else pause

    def _seconds_until_a_hold_expires(self) -> float:
        """Return the seconds until the next hold expires; the hold applies until the store has dropped it."""
        holds = self._stored.holds.values() if self._stored is not None else ()
        ends = [hold.expires_at for hold in holds if hold.expires_at is not None]
        if not ends:
            return math.inf
        now = datetime.now(UTC) - self._backend.switch.clock_ahead
        return max((min(ends) - now).total_seconds(), 0.0) + _SECONDS_BETWEEN_READINGS

    def _receive(self, state: MaintenanceState | None) -> None:
        """Take over the store's newest state, after a read or a change."""
        if self._ready is None:
            return  # not followed
        self._stored = state
        if self._failures:
            logger.warning("%r can be read again", self._backend)
        self._failures, self._last_error, self._last_contact = 0, None, time.monotonic()
        self._logged.clear()
        if state is not None:
            self._note_unreadable(state)
            self._publish(state)
        else:
            self._publish(_OFF if self._backend.store.missing_is_off else self._initial())

    def _publish(self, state: MaintenanceState) -> None:
        """Publish ``state`` to the requests from now on."""
        state.prepare(datetime.now(UTC), self._current)
        self._current = state
        _set_ready(self._ready)
        self.transitions.observe(state)
        if self._watched:
            self._notify_missing(state.holds)

    def _note_unreadable(self, state: MaintenanceState) -> None:
        """Log unreadable stored windows once."""
        problems = [f"window {id_!r}: {window.problem}" for id_, window in state.unreadable_windows.items()]
        unreadable = in_one_line("; ".join(problems[:_MOST_NAMED])) or None
        if unreadable is not None and unreadable != self._unreadable:
            logger.warning(
                "%r has %d windows that can't be read and don't apply; the others do: %s",
                self._backend,
                len(problems),
                unreadable,
            )
        self._unreadable = unreadable

    def _record_failure(self, error: Exception) -> None:
        """Record a failure: the last state stays, unless it is older than ``max_stale``."""
        if not isinstance(error, MaintenanceError):  # these errors name the store
            error = BackendUnavailable(repr(self._backend), str(error) or repr(error))
        self._failures += 1
        self._last_error = in_one_line(str(error))
        if type(error) not in self._logged:  # an outage and lost data are each logged once
            self._logged.add(type(error))
            effect = f"the switch stays {self.latest().mode_at(datetime.now(UTC))}"
            if self._last_contact is None:
                effect = f"until it can be, the switch is {self._backend.initial}"
            logger.warning("the maintenance state can't be read, %s: %s", effect, self._last_error)
        policy, max_stale = self._backend.on_backend_error, self._backend.max_stale
        if max_stale is None or self._last_contact is None or time.monotonic() - self._last_contact < max_stale:
            return
        mode, state = MaintenanceMode.OFF if policy == "open" else MaintenanceMode.ON, self._current
        if state is not None and (state.mode, state.holds, state.windows, state.until) != (mode, {}, {}, None):
            logger.warning("%r has failed for %g s: the switch is treated as %s", self._backend, max_stale, policy)
            self._publish(MaintenanceState(mode=mode))


def _set_ready(ready: concurrent.futures.Future[None] | None) -> None:
    """Release the callers that wait for the first state."""
    if ready is not None and not ready.done():
        ready.set_result(None)


class _Wake(asyncio.Event):
    """Wakes a task on the I/O thread."""

    loop: asyncio.AbstractEventLoop | None = None

    def set_from_anywhere(self) -> None:
        """Set the event from any thread without a lock, so that the garbage collector may call it."""
        if self.loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, so no task waits
                self.loop.call_soon_threadsafe(self.set, context=contextvars.Context())


# The following tasks hold a strong reference to the view only while they use it, not while they wait.


async def _keep_polling(
    poll: weakref.WeakMethod[Callable[[], Coroutine[Any, Any, float | None]]],
    wake: _Wake,
    watching: asyncio.Task[None],
) -> None:
    """Read a store repeatedly, until nothing uses it or its view was garbage-collected."""
    loop = asyncio.get_running_loop()
    try:
        while (method := poll()) is not None:
            not_before = loop.time() + _SECONDS_BETWEEN_READINGS
            pause = await method()
            if pause is None:
                return
            del method
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await wake.wait()
            await asyncio.sleep(max(0.0, not_before - loop.time()))  # limits the rate however many pushes arrive
    finally:
        await io_thread.cancel_tasks([watching])


async def _keep_watching(
    watch: weakref.WeakMethod[Callable[[Callable[[], None]], Coroutine[Any, Any, None]]], wake: _Wake
) -> None:
    """Wake for each push of the store, if it pushes; renew a lost subscription."""
    attempts = 0

    def changed() -> None:
        nonlocal attempts
        attempts = 0
        wake.set()

    while (method := watch()) is not None:
        watching = method(changed)
        del method
        try:
            await watching
        except Exception as error:  # noqa: BLE001 - polling continues meanwhile
            logger.debug("the subscription to a store failed: %s", error)
        else:
            return
        wake.set()  # pushes may have been missed
        attempts += 1
        await asyncio.sleep(_pause_after(attempts))


_SECONDS_BETWEEN_READINGS = 0.05
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
"""Seconds between attempts while a store fails; the longest limits how late its recovery is noticed."""


def _pause_after(failures: int) -> float:
    """Return the seconds to wait after so many failures: exponential backoff with jitter."""
    return io_thread.add_jitter(min(_LONGEST_PAUSE, _SHORTEST_PAUSE * 2 ** min(failures, 8)))


_OFF = MaintenanceState()

_abandoned_tasks: list[object] = []
"""A parent's tasks in a forked child; destroying them would close connections that the parent uses."""
