"""Stores of one's own: registered by a scheme, and checked for what every store promises."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from fastapi_maintenance import InvalidConfiguration, UnknownBackend, configure_backend, set_maintenance_mode
from fastapi_maintenance.backends import StoreBackend
from fastapi_maintenance.stores import Conflict, DocumentStore, Reading, check, register_store, urls
from fastapi_maintenance.stores.files.store import FileStore
from fastapi_maintenance.stores.redis import RedisStore
from fastapi_maintenance.stores.sql.store import SQLAlchemyStore
from fastapi_maintenance.switches.registry import registry
from fastapi_maintenance.testing import BrokenPromise, check_document_store
from tests.support.commands import run
from tests.support.memory_store import MemoryStore
from tests.support.places import postgres_place, redis_place
from tests.support.scripts import ROOT


@pytest.fixture(autouse=True)
def _registered_for_one_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "_factories", {})


class OneMemory(MemoryStore):
    """A process with a memory store that others share."""

    def __init__(self, documents: dict[str, tuple[bytes, str]], watchers: list[Callable[[], None]]) -> None:
        super().__init__()
        self.documents, self.watchers = documents, watchers
        self._revisions = _REVISIONS


_REVISIONS = itertools.count(1)


def processes_of(kind: type[OneMemory]) -> Callable[[], DocumentStore]:
    """Return what makes stores with the same documents."""
    documents: dict[str, tuple[bytes, str]] = {}
    watchers: list[Callable[[], None]] = []
    return lambda: kind(documents, watchers)


# The checks


@pytest.mark.parametrize("name", ["memory", "file", "redis", "sqlite", "postgresql"])
def test_every_store_keeps_the_promises(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    makers: dict[str, Callable[[], Callable[[], DocumentStore]]] = {
        "memory": lambda: processes_of(OneMemory),
        "file": lambda: lambda: FileStore(tmp_path / "switch"),
        "redis": lambda: _redis(redis_place(request.getfixturevalue("redis_server")).options["url"]),
        "sqlite": lambda: _sql(f"sqlite+aiosqlite:///{tmp_path}/state.db"),
        "postgresql": lambda: _sql(postgres_place(request.getfixturevalue("postgres_server")).options["url"]),
    }
    check_document_store(makers[name]())


def _redis(url: str) -> Callable[[], DocumentStore]:
    return lambda: RedisStore(url, seconds=5)


def _sql(url: str) -> Callable[[], DocumentStore]:
    return lambda: SQLAlchemyStore(url, seconds=5)


class IgnoresRevisions(OneMemory):
    """It overwrites whatever is there."""

    async def replace(self, key: str, content: bytes, revision: str | None, **more: Any) -> Reading:
        return await super().replace(key, content, self.reading(key).revision, **more)


class ReusesRevisions(OneMemory):
    """Whatever is written, it has one revision."""

    def reading(self, key: str) -> Reading:
        content, revision = self.documents.get(key, (None, None))
        return Reading(content, revision and "r", self.now)


class LosesWrites(OneMemory):
    """It says that it has written, and has not."""

    async def replace(self, key: str, content: bytes, revision: str | None, **more: Any) -> Reading:
        return Reading(content, "r1")


class LosesLaterWrites(OneMemory):
    """It keeps the first document, and says that it has written the second."""

    async def replace(self, key: str, content: bytes, revision: str | None, **more: Any) -> Reading:
        if revision is None:
            return await super().replace(key, content, revision, **more)
        if self.reading(key).revision != revision:
            raise Conflict
        return Reading(content, f"r{next(self._revisions)}")


class NaiveTime(OneMemory):
    """Its times have no zone."""

    def reading(self, key: str) -> Reading:
        return super().reading(key)._replace(now=datetime(2026, 1, 1))  # noqa: DTZ001 - the fault


class Truncates(OneMemory):
    """It keeps 60 KB."""

    def put(self, key: str, content: bytes | None) -> None:
        super().put(key, content and content[:60_000])


class NeverWakes(OneMemory):
    """It confirms subscriptions, and then says nothing."""

    def push(self) -> None:
        pass


class NeverConfirms(OneMemory):
    """It takes subscriptions, and then says nothing."""

    async def watch(self, key: str, changed: Callable[[], None]) -> None:
        await asyncio.sleep(60)


class ListsNothing(OneMemory):
    """It lists no names, and does not say that it can't."""

    async def names(self) -> list[str]:
        return []


class MixesSwitches(OneMemory):
    """It has one document for all switches."""

    def reading(self, key: str) -> Reading:
        return super().reading("one")

    def put(self, key: str, content: bytes | None) -> None:
        super().put("one", content)


class LosesItAll(OneMemory):
    """Closing it removes the documents."""

    async def aclose(self) -> None:
        self.documents.clear()


@pytest.mark.parametrize(
    ("kind", "promise"),
    [
        (IgnoresRevisions, "refuse to create a document that exists"),
        (ReusesRevisions, "give each write a new revision"),
        (LosesWrites, "read what was written"),
        (LosesLaterWrites, "refuse to replace an old revision"),
        (NaiveTime, "return its time with a time zone, or None"),
        (Truncates, "keep 65536 bytes"),
        (NeverWakes, r"call changed\(\) after each write"),
        (NeverConfirms, r"call changed\(\) once the subscription is confirmed"),
        (ListsNothing, "list the switches that have a document, or return None"),
        (MixesSwitches, "keep the documents of two switches apart"),
        (LosesItAll, r"open its connections again after aclose\(\)"),
    ],
)
def test_a_fault_is_found(kind: type[OneMemory], promise: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "_SECONDS", 0.2)
    with pytest.raises(BrokenPromise, match=promise):
        check_document_store(processes_of(kind))


def test_a_store_that_pushes_nothing_is_one() -> None:
    class PushesNothing(OneMemory):
        def __init__(self, *shared: Any) -> None:
            super().__init__(*shared)
            self.pushes = False

    class OwnConflicts(PushesNothing):
        def __init__(self, *shared: Any) -> None:
            super().__init__(*shared)
            self.returns_conflicts = False

    for kind in (PushesNothing, OwnConflicts):
        check_document_store(processes_of(kind))


def test_an_error_of_the_store_itself_comes_through() -> None:
    store = MemoryStore()

    def fail() -> None:
        raise ZeroDivisionError

    store.before_read = fail
    with pytest.raises(ZeroDivisionError):
        check_document_store(lambda: store)


# Schemes


def test_a_registered_scheme_means_the_store() -> None:
    """Everything that a backend keeps is kept; other switches are beside the default one."""
    store, asked = MemoryStore(), []

    def make(url: str) -> DocumentStore:
        asked.append(url)
        return store

    register_store("dict", make)
    backend = configure_backend("dict://place?x=1", name="stock")
    assert isinstance(backend, StoreBackend)
    assert (asked, backend.switch.key) == (["dict://place?x=1"], "stock")
    asyncio.run(set_maintenance_mode("read_only", backend, reason="new disks"))
    assert b'"reason":"new disks"' in store.documents["stock"][0]
    asyncio.run(backend.aclose())
    register_store("dict", lambda url: MemoryStore())
    assert configure_backend("dict://place").store is not store  # type: ignore[attr-defined]


def test_the_variable_takes_a_registered_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    register_store("dict", lambda url: store)
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BACKEND", "dict://place")
    backend = registry.resolve()
    assert isinstance(backend, StoreBackend)
    assert backend.store is store


@pytest.mark.parametrize("scheme", ["", "Dict", "1st", "a b", "a:b", "a_b", "a+b", "ä"])
def test_what_can_not_be_a_scheme_is_refused(scheme: str) -> None:
    """A plus is the sign of SQLAlchemy's URLs."""
    with pytest.raises(InvalidConfiguration, match="must be lower-case letters"):
        register_store(scheme, lambda url: MemoryStore())


@pytest.mark.parametrize("scheme", urls.BUILT_IN)
def test_the_schemes_of_this_package_stay_its_own(scheme: str) -> None:
    with pytest.raises(InvalidConfiguration, match="is built in"):
        register_store(scheme, lambda url: MemoryStore())


def test_a_factory_must_be_one() -> None:
    not_callable: Any = MemoryStore()
    with pytest.raises(InvalidConfiguration, match="must be a function that takes a URL and returns a store"):
        register_store("dict", not_callable)
    returns_no_store: Any = dict
    register_store("dict", lambda url: returns_no_store())
    with pytest.raises(InvalidConfiguration, match="the factory of dict:// returned dict; it must return a Document"):
        configure_backend("dict://place")
    with pytest.raises(UnknownBackend):
        configure_backend("other://place")


STORE = """
from pathlib import Path
from fastapi_maintenance.stores.files.store import FileStore
from tests.support.scripts import ROOT, ROOT

class Renamed(FileStore):
    def __init__(self, url):
        super().__init__(url.removeprefix("renamed://"))
"""


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Path]:
    """Return a directory with a package that declares a store, as pip would leave it."""
    site = tmp_path / "site"
    info = site / "renamed_store-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: renamed-store\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fastapi_maintenance.stores]\nrenamed = renamed_store:Renamed\n")
    (site / "renamed_store.py").write_text(STORE)
    yield site
    sys.modules.pop("renamed_store", None)


def test_an_installed_package_declares_a_scheme(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What code registers takes precedence."""
    monkeypatch.syspath_prepend(str(installed))
    backend = configure_backend(f"renamed://{tmp_path}/switch")
    assert isinstance(backend, StoreBackend)
    assert type(backend.store).__name__ == "Renamed"
    register_store("renamed", lambda url: MemoryStore())
    other = configure_backend("renamed://place")
    assert isinstance(other, StoreBackend)
    assert isinstance(other.store, MemoryStore)


def test_the_command_line_takes_a_declared_scheme(installed: Path, tmp_path: Path) -> None:
    """By its option and by the variable."""
    url = f"renamed://{tmp_path}/switch"
    path = {"PYTHONPATH": str(installed)}
    on = run("on", "--backend", url, "--reason", "new disks", env=_with_root(path))
    assert (on.status, on.error) == (0, "")
    status = run("status", "--json", env=_with_root(path | {"FASTAPI_MAINTENANCE_BACKEND": url}))
    assert "new disks" in status.out
    unknown = run("status", "--backend", "elsewhere://x", env=_with_root(path))
    assert unknown.status == 2
    assert "elsewhere" in unknown.error


def _with_root(env: dict[str, str]) -> dict[str, str]:
    root = str(ROOT)
    return env | {"PYTHONPATH": f"{root}:{env['PYTHONPATH']}"}
