"""The one background thread: a private event loop for all I/O of the stores.

Stores are read and written on this loop only. So their connections work with any server, with several event loops,
and under trio; and heartbeats continue while the app's own code blocks.

Everything on it runs in an empty context: a copy of the caller's would keep a request's scope, with its headers,
alive as long as the task runs.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import contextvars
import inspect
import os
import random
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

import anyio

T = TypeVar("T")

_SECONDS_TO_STOP = 3.0
_SECONDS_BETWEEN_CANCELS = 1.0
"""Long enough for cancelled tasks to close connections: a second cancellation would interrupt that."""


class _IoThread:
    """A daemon thread that runs an event loop until it is stopped."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="fastapi-maintenance", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        _local.io_thread = self
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        return contextvars.Context().run(asyncio.run_coroutine_threadsafe, coroutine, self._loop)

    def call_soon(self, function: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(function, context=contextvars.Context())

    def stop(self) -> None:
        """Cancel the running tasks and end the thread."""
        with contextlib.suppress(concurrent.futures.TimeoutError):
            asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop).result(_SECONDS_TO_STOP)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_SECONDS_TO_STOP)
        if not self._thread.is_alive():
            self._loop.close()

    async def _cancel_all(self) -> None:
        me = asyncio.current_task()
        await cancel_tasks(asyncio.all_tasks() - {me})
        if closing := asyncio.all_tasks() - {me}:
            # Cancelled tasks started these, inside a driver: they end by themselves if they have time.
            await asyncio.wait(closing, timeout=_SECONDS_BETWEEN_CANCELS)
            await cancel_tasks(asyncio.all_tasks() - {me})


_running: _IoThread | None = None
_local = threading.local()
_lock = threading.Lock()
_inherited: list[object] = []
"""The parent's threads in a forked child: closing them would close connections that the parent uses."""
_after_fork: list[Callable[[], None]] = []
_methods_after_fork: weakref.WeakKeyDictionary[Any, Callable[[Any], None]] = weakref.WeakKeyDictionary()


def submit(coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
    """Run a coroutine on the private loop; the first call starts the thread."""
    with _lock:
        return _start_once().submit(coroutine)


def call_soon(function: Callable[[], None]) -> None:
    """Call a function on the private loop, in the order of calls; it must not block or raise."""
    own_thread = _own_thread()
    if own_thread is not None:  # it may be about to end: do not start another one
        own_thread.call_soon(function)
        return
    with _lock:
        _start_once().call_soon(function)


def _own_thread() -> _IoThread | None:
    """Return the ``_IoThread`` that runs in the current thread, if any."""
    own_thread: _IoThread | None = getattr(_local, "io_thread", None)
    return own_thread


def _start_once() -> _IoThread:
    """Return the running thread, which is started if necessary; the caller holds the lock."""
    global _running  # noqa: PLW0603 - there is one thread per process
    if _running is None:
        _running = _IoThread()
    return _running


def call_later(seconds: float, method: Callable[[], None]) -> asyncio.TimerHandle:
    """Call a method on the private loop after ``seconds``, unless its object was garbage-collected by then."""
    reference = weakref.WeakMethod(method)

    def call() -> None:
        found = reference()
        if found is not None:
            found()

    return asyncio.get_running_loop().call_later(seconds, call)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the running event loop of asyncio, or ``None`` if there is none, as under trio."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine on the private loop; the caller's loop is that loop, or asyncio's or trio's.

    If the caller is cancelled, so is the coroutine.
    """
    if _own_thread() is not None:
        return await coroutine
    future = submit(coroutine)
    try:
        await wait_for(future)
    finally:
        future.cancel()
    return future.result()


async def wait_for(future: concurrent.futures.Future[Any]) -> None:
    """Wait in the caller's loop, asyncio or trio, until a future is done; a cancelled caller does not cancel it."""
    done, call_there = anyio.Event(), caller_in_this_loop()
    future.add_done_callback(lambda _: call_there(done.set))
    await done.wait()


async def run_within(coroutine: Coroutine[Any, Any, T], seconds: float) -> T:
    """Return a coroutine's result on the private loop; after ``seconds``, cancel it and wait until it ends.

    Raises:
        TimeoutError: It took longer.
    """
    task = asyncio.create_task(coroutine)
    try:
        finished, _ = await asyncio.wait({task}, timeout=seconds)
        if not finished:
            msg = f"no answer within {seconds:g} s"
            raise TimeoutError(msg)
        return task.result()
    finally:
        await cancel_tasks([task])


async def cancel_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks of the private loop and wait until they have ended."""
    while pending := [task for task in tasks if not task.done()]:
        # Repeatedly: on Python 3.11 a cancellation can get lost inside redis-py.
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=_SECONDS_BETWEEN_CANCELS)


def starter_in_this_loop() -> Callable[[Callable[[], Coroutine[Any, Any, None]]], None]:
    """Return a function that starts an async function in the current loop, asyncio or trio, from any thread.

    The async function must not raise. Once the loop has ended, nothing is started.
    """
    call_there = caller_in_this_loop()
    start: Callable[[Callable[[], Coroutine[Any, Any, None]]], object] = _start_task
    if running_loop() is None:
        import trio  # noqa: PLC0415 - the caller runs under trio

        start = trio.lowlevel.spawn_system_task
    return lambda function: call_there(lambda: start(function))


def _start_task(function: Callable[[], Coroutine[Any, Any, None]]) -> None:
    task = asyncio.create_task(function())
    _started.add(task)
    task.add_done_callback(_started.discard)


_started: set[asyncio.Task[None]] = set()
"""Running tasks: their event loops keep only weak references to them."""


def caller_in_this_loop() -> Callable[[Callable[[], object]], None]:
    """Return a function that calls another in the current loop, asyncio or trio, from any thread.

    Once the loop has ended, it does nothing.
    """
    loop = running_loop()
    if loop is not None:
        call: Callable[..., object] = loop.call_soon_threadsafe
        ended: type[Exception] = RuntimeError
    else:
        import trio  # noqa: PLC0415 - the caller runs under trio

        call, ended = trio.lowlevel.current_trio_token().run_sync_soon, trio.RunFinishedError

    def call_there(function: Callable[[], object]) -> None:
        with contextlib.suppress(ended):
            # In an empty context: a task that waits for hours must not keep the caller's alive.
            contextvars.Context().run(call, function)

    return call_there


def add_jitter(seconds: float) -> float:
    """Return a random time between half of ``seconds`` and ``seconds``, so that workers do not act all at once."""
    return _random.uniform(seconds / 2, seconds)


_random = random.Random()  # noqa: S311 - no secret; a private generator, as the app may seed the global one


def call_after_fork(reset: Callable[[], None]) -> Callable[[], None]:
    """Register a function to be called in each forked child, to drop objects of the parent.

    A method is called as long as its object exists. Methods are called before functions.
    """
    if inspect.ismethod(reset):
        _methods_after_fork[reset.__self__] = reset.__func__
    else:
        _after_fork.append(reset)
    return reset


def stop() -> None:
    """End the thread and its tasks; the next ``submit`` starts another thread."""
    global _running
    with _lock:
        running, _running = _running, None
    if running is not None:
        running.stop()


def _reset_in_child() -> None:
    global _running, _lock
    _inherited.append(_running)
    _running, _lock = None, threading.Lock()
    for instance, method in list(_methods_after_fork.items()):
        method(instance)
    for reset in _after_fork:
        reset()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_reset_in_child)
atexit.register(stop)
