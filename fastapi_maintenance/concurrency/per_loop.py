"""Something with connections that live on one event loop: a client, an engine."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from . import io_thread

T = TypeVar("T")


class PerLoop(Generic[T]):
    """Makes a thing for the running event loop when it is used first, and closes it when the loop ends.

    It is closed as well when nobody has this object any more. In a forked child, the parent's is kept untouched:
    closing it would close connections that the parent uses.

    Args:
        make: Makes it.
        close: Closes it; called once, and perhaps cancelled.
    """

    def __init__(self, make: Callable[[], T], close: Callable[[T], Awaitable[object]]) -> None:
        self._make = make
        self._close = close
        self._here: tuple[asyncio.AbstractEventLoop, T, asyncio.Task[None]] | None = None

    def get(self) -> T:
        """Return the thing of the running loop."""
        loop = asyncio.get_running_loop()
        if self._here is None or self._here[0] is not loop:
            if self._here is not None:
                _of_parents.append(self._here)
            thing = self._make()
            keeper = loop.create_task(_keep(thing, self._close))
            self._here = loop, thing, keeper
            weakref.finalize(self, _let_go, loop, keeper).atexit = False
        return self._here[1]

    async def aclose(self) -> None:
        """Close the thing; the next ``get`` makes another."""
        here, self._here = self._here, None
        if here is not None and here[0] is asyncio.get_running_loop():
            await io_thread.cancelled([here[2]])


_of_parents: list[object] = []
"""Things of a forked child's parent."""


async def _keep(thing: T, close: Callable[[T], Awaitable[object]]) -> None:
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        await close(thing)


def _let_go(loop: asyncio.AbstractEventLoop, keeper: asyncio.Task[None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended, and closed it then
        loop.call_soon_threadsafe(keeper.cancel)
