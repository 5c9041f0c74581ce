"""Where a test keeps a switch, in a form that another process can be told."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit

from fastapi_maintenance import backends
from fastapi_maintenance.backends import BaseStateBackend
from tests.support.scripts import ROOT
from tests.support.stores import PostgresServer, RedisServer


@dataclass(frozen=True)
class Place:
    """A place of one switch in a store; each ``backend()`` is a new one, as another process would make it."""

    kind: str
    """The class of the backend."""
    options: Mapping[str, Any] = field(default_factory=dict)

    def backend(self, **more: Any) -> Any:
        """Return a new backend; ``more`` goes before the place's own options."""
        kind = _TESTS_OWN.get(self.kind) or getattr(backends, self.kind)
        return kind(**{**self.options, **more})

    def at(self, *, port: int | None = None, password: str | None = None) -> Place:
        """Return the same in another server, or with another password."""
        url = urlsplit(self.options["url"])
        netloc = f"{url.username or ''}:{quote(password or unquote(url.password or ''), safe='')}"
        netloc += f"@127.0.0.1:{port or url.port}"
        return replace(self, options={**self.options, "url": url._replace(netloc=netloc).geturl()})

    def to_json(self) -> str:
        """Return what a process is told."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the place that a process was told."""
        return cls(**json.loads(text))


class TwoMethods(BaseStateBackend):
    """What a user writes who has a store of the user's own: here the existence of a file."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    async def get_value(self) -> bool:
        return self._path.exists()

    async def set_value(self, value: bool) -> None:
        if value:
            self._path.touch()
        else:
            self._path.unlink(missing_ok=True)


class PollingRedis(backends.RedisBackend):
    """Redis as if it pushed nothing: what is left where pushes don't get through."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        vars(self.store)["watch"] = self._push_nothing

    async def _push_nothing(self, *_: object) -> None:
        """Return at once, as a store does that pushes nothing."""


_TESTS_OWN: Mapping[str, type[BaseStateBackend]] = {"TwoMethods": TwoMethods, "PollingRedis": PollingRedis}


def file_place(directory: Path, **options: Any) -> Place:
    """Return a file of its own."""
    return Place("LocalFileBackend", {"file_path": str(directory / f"{uuid.uuid4().hex}.json"), **options})


def redis_place(server: RedisServer, *, kind: str = "RedisBackend", **options: Any) -> Place:
    """Return a key of its own."""
    user = f":{quote(server.password, safe='')}@" if server.password else ""
    url = f"redis://{user}127.0.0.1:{server.port}/0"
    return Place(kind, {"url": url, "key": f"place:{uuid.uuid4().hex}:{{default}}", **options})


def sqlite_place(directory: Path, **options: Any) -> Place:
    """Return a database file of its own."""
    url = f"sqlite+aiosqlite:///{directory / f'{uuid.uuid4().hex}.db'}"
    return Place("SQLAlchemyBackend", {"url": url, **options})


def sql_place(url: str, **options: Any) -> Place:
    """Return a table of its own in a database that has others as well."""
    return Place("SQLAlchemyBackend", {"url": url, "table": f"place_{uuid.uuid4().hex}", **options})


def postgres_place(server: PostgresServer, **options: Any) -> Place:
    """Return a table of its own."""
    return sql_place(server.url(), **options)


def python(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start a Python process that finds the tests and the package, with pipes to talk to it."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.Popen([sys.executable, *arguments], text=True, env=environment, **{**pipes, **options})
