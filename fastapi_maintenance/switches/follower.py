"""A view that follows a store in the background: what requests read, and what happens when the store fails."""

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

from ..backends.base import StoreBackend
from ..concurrency import io_thread
from ..exceptions import BackendUnavailable, MaintenanceError
from ..model.change import Change
from ..model.modes import MaintenanceMode
from ..model.state import MaintenanceState
from ..model.text import in_one_line
from .two_method import BooleanView, of_one_bit
from .view import Knowledge, SwitchStatus, View

logger = logging.getLogger("fastapi_maintenance")
_MOST_NAMED = 5


class StoreView(View):
    """The view of a backend whose store is followed by the background thread.

    Requests read ``_shown``, which is swapped as a whole. What the store has comes in on the background thread only,
    so its parts never run at the same time.

    The store is followed for as long as anything uses it: an app until its lifespan has ended, a hold, a subscription,
    a running request; or a call that was made while nothing else did, until ``aclose()``. What follows it has weak
    references only, so an app, a backend or a view that nobody has any more is collected.
    """

    has_leases = True

    def __init__(self, backend: StoreBackend) -> None:
        super().__init__(backend)
        self._backend = backend
        self._lock = threading.Lock()
        self._users: dict[int, weakref.ref[object]] = {}
        """Everything that the store is followed for, by its ``id``; calls and running requests apart."""
        self._begin_anew()
        backend.stop_following = self._stop
        backend.switch.heard = self._heard
        _followed.add(self)

    def _begin_anew(self) -> None:
        """Know nothing, follow nothing."""
        self._shown: MaintenanceState | None = None
        """What requests read: what the store has, or what counts instead."""
        self._stored: MaintenanceState | None = None
        """The state that the store last answered with; ``None`` without a document."""
        self._ready: concurrent.futures.Future[None] | None = None
        """Done once there is something to read; there as long as the store is followed."""
        self._is_called = False
        """Whether a call has asked while nothing used the store."""
        self._tasks: list[asyncio.Task[None]] = []
        self._giving_up: asyncio.TimerHandle | None = None
        self._wake = _Wake()
        self._failures = 0
        """How many attempts failed since the last that did not."""
        self._logged: set[type[Exception]] = set()
        """The kinds of failure that were logged since the last attempt that did not fail."""
        self._last_contact: float | None = None
        self._last_error: str | None = None
        self._unreadable: str | None = None
        """What is wrong with stored windows that don't apply."""

    def peek(self) -> MaintenanceState | None:
        """Return the last copy, or ``None`` before the first."""
        return self._shown

    async def read(self) -> MaintenanceState:
        """Return the last copy; the first one is waited for, up to ``init_timeout``."""
        while (state := self._shown) is None:  # again where it was stopped meanwhile
            await io_thread.done(self._follow_for_call())
        return state

    def read_blocking(self) -> MaintenanceState:
        """Return what ``read`` does, for code that is not on an event loop."""
        while (state := self._shown) is None:
            self._follow_for_call().result()
        return state

    def latest(self) -> MaintenanceState:
        """Return the last copy; before the first one, what counts without any."""
        return self._shown or self._initial()

    def _initial(self) -> MaintenanceState:
        return MaintenanceState(mode=self._backend.initial)

    async def apply(self, change: Change) -> MaintenanceState:
        """Carry out one change at the store; requests of this process are judged by it from the next one on."""
        return await io_thread.run(self._backend.apply(change))

    def status(self) -> SwitchStatus:
        """Return how well the switch is known."""
        stored, last_contact = self._stored, self._last_contact
        if last_contact is None:
            knowledge = Knowledge.NOT_READY if self._shown is None else Knowledge.ERROR
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
        """Follow the store from now on, until ``user`` leaves or is gone."""
        key = id(user)
        if key not in self._users:
            self._users[key] = weakref.ref(user, lambda _: self._forget_user(key))
        if self._ready is None:
            self._follow()

    def leave(self, user: object) -> None:
        """Follow the store no longer for ``user``; without any other user, not at all."""
        self._forget_user(id(user))

    def _forget_user(self, key: int) -> None:
        """Forget a user; the garbage collector may call this anywhere, so it must take no lock."""
        if self._users.pop(key, None) is not None and not self._users:
            self._wake.set_from_anywhere()

    def _follow_for_call(self) -> concurrent.futures.Future[None]:
        """Follow the store for a call: until ``aclose()``, unless something else uses it."""
        if not self._users:
            self._is_called = True
        return self._follow()

    def _follow(self) -> concurrent.futures.Future[None]:
        """Follow the store from now on; return a future that is done once there is something to read."""
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
        self._giving_up = io_thread.call_later(self._backend.init_timeout, self._give_up_waiting)
        poll = weakref.WeakMethod(self._poll, lambda _: wake.set_from_anywhere())
        watching = asyncio.create_task(_keep_watching(weakref.WeakMethod(self._watch), wake))
        self._tasks.append(asyncio.create_task(_keep_polling(poll, wake, watching)))

    async def _stop(self) -> None:
        """Follow the store no longer; whoever asks next begins anew."""
        with self._lock:
            tasks, ready = self._end()
        await io_thread.cancelled(tasks)
        self.transitions.forget()
        _let_go_on(ready)

    def _stop_unless_used(self) -> bool:
        """Follow the store no longer if nothing uses it, and return whether that is so."""
        with self._lock:
            if self._users or self._is_called or self.in_flight:
                return False
            _, ready = self._end()
        self.transitions.forget()
        _let_go_on(ready)
        return True

    def _end(self) -> tuple[list[asyncio.Task[None]], concurrent.futures.Future[None] | None]:
        """Know nothing, and return what follows the store, and what others wait for."""
        if self._giving_up is not None:
            self._giving_up.cancel()
        tasks, ready = self._tasks, self._ready
        self._begin_anew()
        self._backend.switch.forget()
        return tasks, ready

    def reset_after_fork(self) -> None:
        """Forget what the parent knew: its thread does not follow for the child."""
        _forgotten.append(self._tasks)
        self._wake.loop = None
        self._lock = threading.Lock()
        self._begin_anew()
        self.transitions.forget()

    async def _poll(self) -> float | None:
        """Read the store once; return after how many seconds to do so again, or ``None`` if nothing uses it."""
        if self._stop_unless_used():
            await self._disconnect()
            return None
        self._wake.clear()
        try:
            await self._backend.load()
        except Exception as error:  # noqa: BLE001 - contained: whatever a store raises, requests never see it
            self._failed(error)
        return self._pause()

    def _watch(self, changed: Callable[[], None]) -> Coroutine[Any, Any, None]:
        return self._backend.store.watch(self._backend.switch.key, changed)

    def _give_up_waiting(self) -> None:
        """Let the first requests go on without the store if it takes too long."""
        if self._shown is None:
            self._show(self._initial())

    def _pause(self) -> float:
        """Return how many seconds to wait before the store is read again."""
        if not (self._users or self._is_called):
            return min(self._backend.poll_seconds, _LONGEST_PAUSE)  # nothing wakes when the last request has ended
        if not self._failures:
            return min(self._backend.poll_seconds, self._seconds_until_a_hold_expires())
        pause = min(_pause_after(self._failures), self._backend.poll_seconds)
        max_stale = self._backend.max_stale
        if max_stale is None or self._last_contact is None:
            return pause
        too_old_in = self._last_contact + max_stale - time.monotonic()
        return min(pause, too_old_in) if too_old_in > 0 else pause

    def _seconds_until_a_hold_expires(self) -> float:
        """Return when to look whether a hold is gone: it applies until the store says that it is."""
        holds = self._stored.holds.values() if self._stored is not None else ()
        ends = [hold.expires_at for hold in holds if hold.expires_at is not None]
        if not ends:
            return math.inf
        now = datetime.now(UTC) - self._backend.switch.clock_ahead
        return max((min(ends) - now).total_seconds(), 0.0) + _SECONDS_BETWEEN_READINGS

    async def _disconnect(self) -> None:
        """Close the connections of a store that is followed no longer."""
        try:
            await self._backend.disconnect()
        except Exception:
            logger.exception("the connections of %r could not be closed", self._backend)

    def _heard(self, state: MaintenanceState | None) -> None:
        """Take what the store answered to a reading or a change, which is newer than all before it."""
        if self._ready is None:
            return  # not followed
        self._stored = state
        self._in_contact()
        if state is not None:
            self._note_unreadable(state)
            self._show(state)
        else:
            self._show(_OFF if self._backend.store.missing_is_off else self._initial())

    def _show(self, state: MaintenanceState) -> None:
        """Have requests read ``state`` from the next one on."""
        state.prepare(datetime.now(UTC), self._shown)
        self._shown = state
        _let_go_on(self._ready)
        self.transitions.heard(state)
        if self._watched:
            self._notice(state.holds)

    def _note_unreadable(self, state: MaintenanceState) -> None:
        """Log stored windows that can't be read, once."""
        problems = [f"window {id_!r}: {window.problem}" for id_, window in state.unreadable_windows.items()]
        unreadable = in_one_line("; ".join(problems[:_MOST_NAMED])) or None
        if unreadable is not None and unreadable != self._unreadable:
            logger.warning(
                "%r has %d windows that can't be read and don't apply, the rest does: %s",
                self._backend,
                len(problems),
                unreadable,
            )
        self._unreadable = unreadable

    def _in_contact(self) -> None:
        if self._failures:
            logger.warning("%r can be read again", self._backend)
        self._failures, self._last_error, self._last_contact = 0, None, time.monotonic()
        self._logged.clear()

    def _failed(self, error: Exception) -> None:
        """Take note of a failure: the last known state stays, unless it is too old by the backend's policy."""
        if not isinstance(error, MaintenanceError):  # those name the store
            error = BackendUnavailable(repr(self._backend), str(error) or repr(error))
        self._failures += 1
        self._last_error = in_one_line(str(error))
        if type(error) not in self._logged:  # after an outage, a store without its data is news
            self._logged.add(type(error))
            counts = f"the switch stays {self.latest().mode_at(datetime.now(UTC))}"
            if self._last_contact is None:
                counts = f"until it can be, the switch counts as {self._backend.initial}"
            logger.warning("the maintenance state can't be read, %s: %s", counts, self._last_error)
        policy, max_stale = self._backend.on_backend_error, self._backend.max_stale
        if max_stale is None or self._last_contact is None or time.monotonic() - self._last_contact < max_stale:
            return
        mode, shown = MaintenanceMode.OFF if policy == "open" else MaintenanceMode.ON, self._shown
        if shown is not None and (shown.mode, shown.holds, shown.windows, shown.until) != (mode, {}, {}, None):
            logger.warning("%r has failed for %g s: the switch counts as %s", self._backend, max_stale, policy)
            self._show(MaintenanceState(mode=mode))


def _let_go_on(ready: concurrent.futures.Future[None] | None) -> None:
    """Have those go on who wait for something to read."""
    if ready is not None and not ready.done():
        ready.set_result(None)


class _Wake(asyncio.Event):
    """Wakes what waits on the background thread."""

    loop: asyncio.AbstractEventLoop | None = None

    def set_from_anywhere(self) -> None:
        """Set it without taking a lock, as the garbage collector must."""
        if self.loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and all that waited there
                self.loop.call_soon_threadsafe(self.set, context=contextvars.Context())


# What follows a store has the view while it does something with it, and not while it waits.


async def _keep_polling(
    poll: weakref.WeakMethod[Callable[[], Coroutine[Any, Any, float | None]]],
    wake: _Wake,
    watching: asyncio.Task[None],
) -> None:
    """Read a store again and again, until nothing uses it or its view is gone."""
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
            await asyncio.sleep(max(0.0, not_before - loop.time()))  # however many pushes there are
    finally:
        await io_thread.cancelled([watching])


async def _keep_watching(
    watch: weakref.WeakMethod[Callable[[Callable[[], None]], Coroutine[Any, Any, None]]], wake: _Wake
) -> None:
    """Wake at what the store pushes, if it pushes anything; a lost subscription is made again."""
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
        except Exception as error:  # noqa: BLE001 - contained: polling goes on meanwhile
            logger.debug("a store pushes nothing at the moment: %s", error)
        else:
            return
        wake.set()  # pushes may have been missed
        attempts += 1
        await asyncio.sleep(_pause_after(attempts))


_SECONDS_BETWEEN_READINGS = 0.05
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
"""Seconds between attempts while a store fails; the longest bounds how late its return is noticed."""


def _pause_after(failures: int) -> float:
    """Return how many seconds to wait after so many failures: longer and longer, and not all workers at once."""
    return io_thread.jittered(min(_LONGEST_PAUSE, _SHORTEST_PAUSE * 2 ** min(failures, 8)))


_OFF = MaintenanceState()

_followed: weakref.WeakSet[StoreView] = weakref.WeakSet()
_forgotten: list[object] = []
"""A parent's tasks in a forked child: kept, because ending them would close connections that the parent uses."""


@io_thread.call_after_fork
def _reset_after_fork() -> None:
    views: list[StoreView | BooleanView] = [*_followed, *of_one_bit]
    for view in views:
        view.reset_after_fork()
