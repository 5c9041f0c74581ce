"""The promises of a store, as checks that a test of your own can run."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, Coroutine

from ..concurrency import io_thread
from .contract import MAX_BYTES, Conflict, DocumentStore, Reading

_SECONDS = 5.0
_WRITERS = 5


class BrokenPromise(AssertionError):
    """A store does not do what every store must."""


def check_document_store(make_store: Callable[[], DocumentStore]) -> None:
    """Check that a store keeps every promise of ``DocumentStore``; for your own tests, with the real server.

    It writes documents of random names that begin with ``check-``, and leaves them behind: use a store for tests.

    Args:
        make_store: Called several times; each store stands for a process, and all have the same documents.

    Raises:
        BrokenPromise: One is not kept, and which. An exception of the store's own comes through as it is.
    """
    io_thread.submit(_check(make_store)).result()


async def _check(make_store: Callable[[], DocumentStore]) -> None:
    stores = [make_store() for _ in range(_WRITERS)]
    try:
        for check in _CHECKS:
            key = f"check-{uuid.uuid4().hex[:12]}"
            await io_thread.bounded(check(stores[0], key), 10 * _SECONDS)
        await io_thread.bounded(_has_one_winner(stores, f"check-{uuid.uuid4().hex[:12]}"), 10 * _SECONDS)
    finally:
        for store in stores:
            await store.aclose()


def _must(promise: str, kept: bool) -> None:
    if not kept:
        raise BrokenPromise(f"the store must {promise}")


async def _write(store: DocumentStore, key: str, content: bytes, revision: str | None, **more: bool) -> Reading:
    return await store.replace(key, content, revision, seconds=_SECONDS, **more)


async def _conflicts(writing: Awaitable[object]) -> bool:
    try:
        await writing
    except Conflict:
        return True
    return False


def _document(reason: str, *, size: int = 0) -> bytes:
    """Return a document such as switches have, of at least so many bytes."""
    document = {"schema": 1, "epoch": "check", "version": 1, "mode": "on", "reason": reason, "filler": ""}
    filler = size - len(json.dumps(document))
    return json.dumps(document | {"filler": "x" * filler}).encode()


async def _is_read_as_written(store: DocumentStore, key: str) -> None:
    missing = await store.read(key)
    _must("read a missing document as None, with the revision None", missing[:2] == (None, None))
    written = await _write(store, key, _document("\u00e4"), None)
    found = await store.read(key)
    _must("read what was written", found.content == _document("\u00e4"))
    _must("return what was written", written.content == found.content)
    _must("return the revision by which the document is read then", written.revision == found.revision)
    for reading in (missing, written, found):
        _must("give its time with a zone, or None", reading.now is None or reading.now.tzinfo is not None)
    _must("keep the documents of two switches apart", (await store.read(f"{key}-2")).content is None)


async def _is_replaced_by_revision(store: DocumentStore, key: str) -> None:
    first = await _write(store, key, _document("1"), None)
    _must("refuse to create a document that is there", await _conflicts(_write(store, key, _document("2"), None)))
    second = await _write(store, key, _document("2"), first.revision)
    _must("give each write another revision", second.revision not in (None, first.revision))
    _must("refuse to replace a former revision", await _conflicts(_write(store, key, _document("3"), first.revision)))
    _must("leave the document alone where it refuses", (await store.read(key)).content == _document("2"))
    back = await _write(store, key, _document("1"), second.revision, quiet=True)
    _must("give each write another revision, quiet or not", back.revision not in (None, second.revision))
    await store.try_writing(key)
    _must("change nothing where it is tried", (await store.read(key))[:2] == back[:2])
    never = f"{key}-never"
    await store.try_writing(never)
    _must("create nothing where it is tried", (await store.read(never)).content is None)
    _must(
        "refuse to replace a missing document", await _conflicts(_write(store, never, _document("1"), first.revision))
    )


async def _has_one_winner(stores: list[DocumentStore], key: str) -> None:
    revision: str | None = None
    for turn in range(3):
        results = await asyncio.gather(
            *(_write(store, key, _document(f"{turn}-{writer}"), revision) for writer, store in enumerate(stores)),
            return_exceptions=True,
        )
        winners = [result for result in results if isinstance(result, Reading)]
        losers = [result for result in results if isinstance(result, Conflict)]
        others = len(stores) - 1
        _must("let one of several writers win, and the others conflict", (len(winners), len(losers)) == (1, others))
        found = await stores[0].read(key)
        _must("have the winner's document", found[:2] == winners[0][:2])
        for reading in (loser.reading for loser in losers if loser.reading is not None):
            _must("return with a conflict the document that is there", reading.revision is not None)
        revision = found.revision


async def _takes_the_largest(store: DocumentStore, key: str) -> None:
    content = _document("large", size=MAX_BYTES)
    await _write(store, key, content, None)
    _must(f"keep {MAX_BYTES} bytes", (await store.read(key)).content == content)


async def _lists_and_wakes(store: DocumentStore, key: str) -> None:
    written = await _write(store, key, _document("1"), None)
    names = await store.names()
    _must("list the switches that have a document, or return None", names is None or key in names)
    woken = asyncio.Event()
    watching = asyncio.ensure_future(store.watch(key, woken.set))
    watching.add_done_callback(lambda _: woken.set())
    try:
        _must("wake once the subscription is confirmed", await _is_set(woken))
        if watching.done():
            watching.result()
            return  # it pushes nothing
        await _write(store, key, _document("2"), written.revision)
        _must("wake those who watch after each write", await _is_set(woken))
    finally:
        await io_thread.cancelled([watching])


async def _is_set(event: asyncio.Event) -> bool:
    """Wait for an event, clear it, and return whether it came in time."""
    try:
        async with asyncio.timeout(_SECONDS):
            await event.wait()
    except TimeoutError:
        return False
    event.clear()
    return True


async def _opens_again(store: DocumentStore, key: str) -> None:
    await _write(store, key, _document("1"), None)
    await store.aclose()
    _must("open its connections again after aclose()", (await store.read(key)).content == _document("1"))


_CHECKS: tuple[Callable[[DocumentStore, str], Coroutine[None, None, None]], ...] = (
    _is_read_as_written,
    _is_replaced_by_revision,
    _takes_the_largest,
    _lists_and_wakes,
    _opens_again,
)
