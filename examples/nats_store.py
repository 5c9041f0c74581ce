"""A store of your own: switches in a NATS JetStream key-value bucket, ``nats://host:4222/bucket``.

An app registers it with ``register_store("nats", NatsStore)``; for the command line, your ``pyproject.toml`` declares
it: ``[project.entry-points."fastapi_maintenance.stores"]`` with ``nats = "my_package.nats_store:NatsStore"``.
"""

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

import nats.aio.client
from nats.js.errors import BucketNotFoundError, KeyNotFoundError, KeyWrongLastSequenceError, NoKeysError
from nats.js.kv import KeyValue

from fastapi_maintenance.stores import Conflict, DocumentStore, Reading


class NatsStore(DocumentStore):
    """Documents in a bucket. NATS has no clock to ask, so holds expire by the clocks of the hosts."""

    def __init__(self, url: str) -> None:
        self._server = f"nats://{urlsplit(url).netloc}"
        self._bucket = urlsplit(url).path.strip("/") or "fastapi-maintenance"
        self._client: nats.aio.client.Client | None = None
        self._opening = asyncio.Lock()

    def describe(self, key: str) -> str:
        """Return the place of a document, without credentials."""
        return f"nats://{urlsplit(self._server).hostname}/{self._bucket}, key {key}"

    async def read(self, key: str) -> Reading:
        """Return the document and the sequence number of its message."""
        try:
            entry = await (await self._open()).get(key)
        except (BucketNotFoundError, KeyNotFoundError):
            return Reading(None, None)
        return Reading(entry.value, str(entry.revision))

    async def replace(
        self, key: str, content: bytes, revision: str | None, *, seconds: float, quiet: bool = False
    ) -> Reading:
        """Write if the last message of the key still has this number."""
        bucket = await self._open(creates=True)
        try:
            if revision is None:
                return Reading(content, str(await bucket.create(key, content)))
            return Reading(content, str(await bucket.update(key, content, last=int(revision))))
        except KeyWrongLastSequenceError:
            raise Conflict from None

    async def names(self) -> list[str]:
        """Return the keys."""
        try:
            return await (await self._open()).keys()
        except (BucketNotFoundError, NoKeysError):
            return []

    async def watch(self, key: str, changed: Callable[[], None]) -> None:
        """Wake at each message; the first one, without content, confirms the subscription."""
        async for _ in await (await self._open()).watch(key, meta_only=True):
            changed()

    async def aclose(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _open(self, *, creates: bool = False) -> KeyValue:
        """Return the bucket; only a change creates it."""
        async with self._opening:  # `watch` may be under way beside another call
            self._client = self._client or await nats.connect(self._server, max_reconnect_attempts=-1)
        context = self._client.jetstream(timeout=1)
        try:
            return await context.key_value(self._bucket)
        except BucketNotFoundError:
            if not creates:
                raise
            return await context.create_key_value(bucket=self._bucket)
