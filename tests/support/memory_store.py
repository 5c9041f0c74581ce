"""A store in this process's memory, with the faults that a test asks for."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from datetime import datetime

from fastapi_maintenance.stores import Conflict, DocumentStore, Reading


class MemoryStore(DocumentStore):
    """Documents in a dict. Everything that happens to them is up to the test."""

    def __init__(self) -> None:
        self.documents: dict[str, tuple[bytes, str]] = {}
        self.now: datetime | None = None
        self.reads = self.writes = self.watches = self.closings = 0
        self.quiet: list[bool] = []
        """For each write, whether it was quiet."""
        self.returns_conflicts = True
        self.before_read: Callable[[], object] = lambda: None
        """Called, and awaited if it returns something to await, before the store looks; may raise."""
        self.before_write: Callable[[], object] = lambda: None
        self.after_write: Callable[[], object] = lambda: None
        self.watchers: list[Callable[[], None]] = []
        self.pushes = True
        self._is_lost = asyncio.Event()
        self._revisions = itertools.count(1)

    def describe(self, key: str) -> str:
        return f"<store of {key}>"

    def put(self, key: str, content: bytes | None) -> None:
        """Have somebody else write a document, or remove it."""
        if content is None:
            self.documents.pop(key, None)
        else:
            self.documents[key] = content, f"r{next(self._revisions)}"

    def reading(self, key: str) -> Reading:
        content, revision = self.documents.get(key, (None, None))
        return Reading(content, revision, self.now)

    async def read(self, key: str) -> Reading:
        self.reads += 1
        await _called(self.before_read)
        return self.reading(key)

    async def replace(
        self, key: str, content: bytes, revision: str | None, *, seconds: float, quiet: bool = False
    ) -> Reading:
        self.writes += 1
        self.quiet.append(quiet)
        await _called(self.before_write)
        if self.reading(key).revision != revision:
            raise Conflict(self.reading(key) if self.returns_conflicts else None)
        self.put(key, content)
        written = self.reading(key)
        if not quiet:
            self.push()
        await _called(self.after_write)
        return written

    async def names(self) -> list[str]:
        return sorted(self.documents)

    async def watch(self, key: str, changed: Callable[[], None]) -> None:
        self.watches += 1
        if not self.pushes:
            return
        self.watchers.append(changed)
        self._is_lost = is_lost = asyncio.Event()
        try:
            changed()
            await is_lost.wait()
        finally:
            self.watchers.remove(changed)
        raise ConnectionError("the connection is lost")

    def push(self) -> None:
        for changed in self.watchers:
            changed()

    def lose_watchers(self) -> None:
        """Break the subscription that was made last."""
        self._is_lost.set()

    async def aclose(self) -> None:
        self.closings += 1


async def _called(function: Callable[[], object]) -> None:
    result = function()
    if asyncio.iscoroutine(result) or isinstance(result, asyncio.Future):
        await result
