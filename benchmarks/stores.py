"""Where contenders keep their modes: files in a folder, and a Redis with a database for each."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from benchmarks.cases import Backend, Contender
from tests.support.stores import RedisServer


class Stores:
    """Stores that are there for the duration of a block."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._redis: RedisServer | None = None
        self._files = 0

    def __enter__(self) -> Self:
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def place(self, backend: Backend, contender: Contender) -> str:
        """Return the path or the URL of an empty store, for backends that need one."""
        match backend:
            case Backend.FILE:
                self._files += 1
                return str(self._folder / f"{self._files}.json")
            case Backend.REDIS:
                if self._redis is None:
                    self._redis = self._stack.enter_context(RedisServer())
                database = list(Contender).index(contender)
                self._redis.run("FLUSHDB", db=database)
                return f"redis://127.0.0.1:{self._redis.port}/{database}"
            case _:
                return ""
