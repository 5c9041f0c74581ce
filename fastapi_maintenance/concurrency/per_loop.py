"""One object per event loop, such as a client or an engine with its connections."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from . import io_thread

T = TypeVar("T")


class PerLoop(Generic[T]):
    """Makes an object when an event loop first uses it, and closes it when the loop ends.

    It is also closed when this ``PerLoop`` is garbage-collected. A forked child leaves the parent's object open:
    closing it would close connections that the parent uses.

    Args:
        make: Makes the object.
        close: Closes it; called once, and may be cancelled.
    """

    def __init__(self, make: Callable[[], T], close: Callable[[T], Awaitable[object]]) -> None:
        self._make = make
        self._close = close
        self._here: tuple[asyncio.AbstractEventLoop, T, asyncio.Task[None]] | None = None

    def get(self) -> T:
        """Return the object of the running loop."""
        loop = asyncio.get_running_loop()
        if self._here is None or self._here[0] is not loop:
            if self._here is not None:
                _inherited.append(self._here)
            instance = self._make()
            keeper = loop.create_task(_keep_open(instance, self._close))
            self._here = loop, instance, keeper
            weakref.finalize(self, _cancel_keeper, loop, keeper).atexit = False
        return self._here[1]

    async def aclose(self) -> None:
        """Close the object; the next ``get`` makes another."""
        here, self._here = self._here, None
        if here is not None and here[0] is asyncio.get_running_loop():
            await io_thread.cancel_tasks([here[2]])


_inherited: list[object] = []
"""Objects that a forked child inherited from its parent."""


async def _keep_open(instance: T, close: Callable[[T], Awaitable[object]]) -> None:
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        await close(instance)


def _cancel_keeper(loop: asyncio.AbstractEventLoop, keeper: asyncio.Task[None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended and closed the object
        loop.call_soon_threadsafe(keeper.cancel)
