"""Daemon threads for calls that the operating system may never answer, such as ``open`` on a hung network share."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

from . import io_thread

T = TypeVar("T")

_SECONDS_IDLE = 10.0


class _Threads:
    """Runs each job on an idle thread or on a new one. The process does not wait for them when it ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle = 0

    def submit(self, job: Callable[[], None]) -> None:
        """Run a job, which must not raise."""
        with self._lock:
            if self._idle:
                self._idle -= 1
                self._jobs.put(job)
                return
        threading.Thread(target=self._work, args=(job,), name="fastapi-maintenance-io", daemon=True).start()

    def _work(self, job: Callable[[], None] | None) -> None:
        while job is not None:
            job()
            with self._lock:
                self._idle += 1
            job = self._next_job()

    def _next_job(self) -> Callable[[], None] | None:
        with contextlib.suppress(queue.Empty):
            return self._jobs.get(timeout=_SECONDS_IDLE)
        with self._lock:
            if self._idle:
                self._idle -= 1
                return None
        return self._jobs.get()  # `submit` has just queued a job for this thread


_threads = _Threads()


@io_thread.call_after_fork
def _forget_threads() -> None:
    global _threads  # noqa: PLW0603 - a forked child has none of its parent's threads
    _threads = _Threads()


async def run_in_thread(function: Callable[[], T]) -> T:
    """Return the result of a function on a daemon thread; if the caller is cancelled, the function runs on."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def finish(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]
        else:
            future.set_exception(error)

    def job() -> None:
        result, failure = None, None
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - raised in the caller
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(finish, result, failure)

    _threads.submit(job)
    return await future
