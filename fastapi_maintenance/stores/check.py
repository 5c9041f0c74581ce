"""Checks for your own tests that a store keeps the promises of ``DocumentStore``."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, Coroutine

from ..concurrency import io_thread
from ..model.limits import MAX_BYTES
from .contract import Conflict, DocumentStore, Reading

_SECONDS = 5.0
_WRITERS = 5


class BrokenPromise(AssertionError):
    """A store breaks a promise of ``DocumentStore``."""


def check_document_store(make_store: Callable[[], DocumentStore]) -> None:
    """Check that a store keeps every promise of ``DocumentStore``. Use it in your own tests, with the real server.

    It leaves documents with random names that begin with ``check-``: use a store for tests.

    Args:
        make_store: Called several times. Each store represents a process; all must share the same documents.

    Raises:
        BrokenPromise: A promise is broken; the message names it. Exceptions of the store are raised unchanged.
    """
    io_thread.submit(_run_checks(make_store)).result()


async def _run_checks(make_store: Callable[[], DocumentStore]) -> None:
    stores = [make_store() for _ in range(_WRITERS)]
    try:
        for check in _CHECKS:
            key = f"check-{uuid.uuid4().hex[:12]}"
            await io_thread.run_within(check(stores[0], key), 10 * _SECONDS)
        await io_thread.run_within(_check_one_winner(stores, f"check-{uuid.uuid4().hex[:12]}"), 10 * _SECONDS)
    finally:
        for store in stores:
            await store.aclose()


def _require(promise: str, is_kept: bool) -> None:
    if not is_kept:
        raise BrokenPromise(f"the store must {promise}")


async def _write(store: DocumentStore, key: str, content: bytes, revision: str | None, **more: bool) -> Reading:
    return await store.replace(key, content, revision, seconds=_SECONDS, **more)


async def _has_conflict(writing: Awaitable[object]) -> bool:
    try:
        await writing
    except Conflict:
        return True
    return False


def _document(reason: str, *, size: int = 0) -> bytes:
    """Return a document like those of switches, with at least ``size`` bytes."""
    document = {"schema": 1, "epoch": "check", "version": 1, "mode": "on", "reason": reason, "filler": ""}
    filler = size - len(json.dumps(document))
    return json.dumps(document | {"filler": "x" * filler}).encode()


async def _check_reading(store: DocumentStore, key: str) -> None:
    missing = await store.read(key)
    _require("read a missing document as None, with the revision None", missing[:2] == (None, None))
    written = await _write(store, key, _document("\u00e4"), None)
    found = await store.read(key)
    _require("read what was written", found.content == _document("\u00e4"))
    _require("return what was written", written.content == found.content)
    _require("return the revision that the next read returns", written.revision == found.revision)
    for reading in (missing, written, found):
        _require("return its time with a time zone, or None", reading.now is None or reading.now.tzinfo is not None)
    _require("keep the documents of two switches apart", (await store.read(f"{key}-2")).content is None)


async def _check_replacing(store: DocumentStore, key: str) -> None:
    first = await _write(store, key, _document("1"), None)
    _require("refuse to create a document that exists", await _has_conflict(_write(store, key, _document("2"), None)))
    second = await _write(store, key, _document("2"), first.revision)
    _require("give each write a new revision", second.revision not in (None, first.revision))
    _require(
        "refuse to replace an old revision", await _has_conflict(_write(store, key, _document("3"), first.revision))
    )
    _require("leave the document unchanged if it refuses", (await store.read(key)).content == _document("2"))
    back = await _write(store, key, _document("1"), second.revision, quiet=True)
    _require("give each write a new revision, quiet or not", back.revision not in (None, second.revision))
    await store.try_writing(key)
    _require("change nothing in try_writing()", (await store.read(key))[:2] == back[:2])
    never = f"{key}-never"
    await store.try_writing(never)
    _require("create nothing in try_writing()", (await store.read(never)).content is None)
    _require(
        "refuse to replace a missing document",
        await _has_conflict(_write(store, never, _document("1"), first.revision)),
    )


async def _check_one_winner(stores: list[DocumentStore], key: str) -> None:
    revision: str | None = None
    for turn in range(3):
        results = await asyncio.gather(
            *(_write(store, key, _document(f"{turn}-{writer}"), revision) for writer, store in enumerate(stores)),
            return_exceptions=True,
        )
        winners = [result for result in results if isinstance(result, Reading)]
        losers = [result for result in results if isinstance(result, Conflict)]
        others = len(stores) - 1
        _require("let one of several writers win, and the others conflict", (len(winners), len(losers)) == (1, others))
        found = await stores[0].read(key)
        _require("keep the winner's document", found[:2] == winners[0][:2])
        for reading in (loser.reading for loser in losers if loser.reading is not None):
            _require("return the current document with a conflict", reading.revision is not None)
        revision = found.revision


async def _check_largest_document(store: DocumentStore, key: str) -> None:
    content = _document("large", size=MAX_BYTES)
    await _write(store, key, content, None)
    _require(f"keep {MAX_BYTES} bytes", (await store.read(key)).content == content)


async def _check_names_and_watching(store: DocumentStore, key: str) -> None:
    written = await _write(store, key, _document("1"), None)
    names = await store.names()
    _require("list the switches that have a document, or return None", names is None or key in names)
    woken = asyncio.Event()
    watching = asyncio.ensure_future(store.watch(key, woken.set))
    watching.add_done_callback(lambda _: woken.set())
    try:
        _require("call changed() once the subscription is confirmed", await _wait_for(woken))
        if watching.done():
            watching.result()
            return  # the store pushes nothing
        await _write(store, key, _document("2"), written.revision)
        _require("call changed() after each write", await _wait_for(woken))
    finally:
        await io_thread.cancel_tasks([watching])


async def _wait_for(event: asyncio.Event) -> bool:
    """Wait for an event, clear it, and return whether it was set in time."""
    try:
        async with asyncio.timeout(_SECONDS):
            await event.wait()
    except TimeoutError:
        return False
    event.clear()
    return True


async def _check_reopening(store: DocumentStore, key: str) -> None:
    await _write(store, key, _document("1"), None)
    await store.aclose()
    _require("open its connections again after aclose()", (await store.read(key)).content == _document("1"))


_CHECKS: tuple[Callable[[DocumentStore, str], Coroutine[None, None, None]], ...] = (
    _check_reading,
    _check_replacing,
    _check_largest_document,
    _check_names_and_watching,
    _check_reopening,
)
