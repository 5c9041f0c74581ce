"""A store of your own: switches in a NATS JetStream key-value bucket, ``nats://host:4222/bucket``.

Everything works with it: reasons, ends, windows, holds and the command line. Give it a scheme in your app::

    register_store("nats", NatsStore)
    app.add_middleware(MaintenanceModeMiddleware, backend=configure_backend("nats://localhost:4222/switches"))

and in your package's ``pyproject.toml``, for the command line::

    [project.entry-points."fastapi_maintenance.stores"]
    nats = "my_package.nats_store:NatsStore"
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

import nats
from nats.js.errors import BucketNotFoundError, KeyNotFoundError, KeyWrongLastSequenceError, NoKeysError
from nats.js.kv import KeyValue

from fastapi_maintenance.exceptions import OutcomeUnknown
from fastapi_maintenance.stores import Conflict, DocumentStore, Reading


class NatsStore(DocumentStore):
    """Documents in a bucket. NATS has no clock to ask, so holds go by the clocks of the hosts."""

    def __init__(self, url: str) -> None:
        self.address = f"nats://{urlsplit(url).netloc}"
        self.bucket = urlsplit(url).path.strip("/") or "fastapi-maintenance"
        self._client: nats.NATS | None = None
        self._kv: KeyValue | None = None

    def describe(self, key: str) -> str:
        return f"<{self.bucket}/{key} at {urlsplit(self.address).hostname}>"

    async def read(self, key: str) -> Reading:
        try:
            entry = await (await self._bucket()).get(key)
        except KeyNotFoundError:
            return Reading(None, None)
        return Reading(entry.value, str(entry.revision))

    async def replace(
        self, key: str, content: bytes, revision: str | None, *, seconds: float, quiet: bool = False
    ) -> Reading:
        bucket = await self._bucket()
        try:
            if revision is None:
                written = await bucket.create(key, content)
            else:
                written = await bucket.update(key, content, last=int(revision))
        except KeyWrongLastSequenceError:
            raise Conflict from None
        except Exception as error:
            raise OutcomeUnknown(self.describe(key), error) from error
        return Reading(content, str(written))

    async def names(self) -> list[str]:
        try:
            return await (await self._bucket()).keys()
        except NoKeysError:
            return []

    async def watch(self, key: str, changed: Callable[[], None]) -> None:
        async for _ in await (await self._bucket()).watch(key, meta_only=True):
            changed()

    async def aclose(self) -> None:
        client, self._client, self._kv = self._client, None, None
        if client is not None:
            await client.close()

    async def _bucket(self) -> KeyValue:
        if self._kv is None:
            self._client = await nats.connect(self.address, connect_timeout=1, max_reconnect_attempts=-1)
            context = self._client.jetstream(timeout=1)
            try:
                self._kv = await context.key_value(self.bucket)
            except BucketNotFoundError:
                self._kv = await context.create_key_value(bucket=self.bucket)
        return self._kv
