"""What a request pays for a switch in a store: it reads this process's copy, and neither asks nor waits."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, cast

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_maintenance import (
    Knowledge,
    MaintenanceModeMiddleware,
    get_maintenance_mode,
    get_maintenance_status,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import BaseStateBackend, MemoryBackend
from fastapi_maintenance.model.change import Change
from tests.support.asgi import scope_of
from tests.support.costs import times_as_long
from tests.support.places import Place, file_place, postgres_place, redis_place, sqlite_place
from tests.support.traffic import wait_until
from tests.support.windows import hundred_windows

WAITING = {
    *("_asyncio", "_io", "_queue", "_socket", "_sqlite3", "_ssl", "_thread"),
    *("io", "nt", "posix", "select", "socket", "sqlite3", "ssl", "threading", "time"),
}
"""The modules whose functions in C read, write or wait."""
HARMLESS = {"fspath", "get_ident", "monotonic", "perf_counter", "time"}
"""Those that do not."""

AT_MOST = 2.0
"""Times what a request takes without; measured: 1.0 to 1.3. If each of a hundred windows were asked: ten."""


@pytest.fixture(params=["file", "redis", "sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A backend that polls and is pushed while requests are made."""
    options: dict[str, Any] = {"timeout_seconds": 10, "init_timeout": 20}
    places: dict[str, Callable[[], Place]] = {
        "file": lambda: file_place(tmp_path, **options),
        "redis": lambda: redis_place(request.getfixturevalue("redis_server"), **options),
        "sqlite": lambda: sqlite_place(tmp_path, **options),
        "postgresql": lambda: postgres_place(request.getfixturevalue("postgres_server"), **options),
    }
    made = places[request.param]().backend()
    yield made
    asyncio.run(made.aclose())


async def _stub(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def guarded(backend: BaseStateBackend | None = None) -> ASGIApp:
    """Return the middleware over next to nothing."""
    return MaintenanceModeMiddleware(_stub, backend=backend)


async def _receive() -> Message:
    raise AssertionError("nobody needs the body")


def status_of(app: ASGIApp, scope: Scope) -> int:
    """Return the status of an answer that the app gives at once: there is no event loop, so it can't wait."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    call = cast("Coroutine[Any, Any, None]", app(scope, _receive, send))
    try:
        call.send(None)
    except StopIteration:
        status: int = sent[0]["status"]
        return status
    call.close()
    raise AssertionError("the request waited for something")


@contextmanager
def calls_in_c() -> Iterator[list[str]]:
    """Note which functions in C this thread calls, as ``module.name``; not those of what is thrown away meanwhile."""
    called: list[str] = []

    def note(frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call":
            owner = getattr(function, "__self__", None)
            module = getattr(function, "__module__", None) or type(owner).__module__
            called.append(f"{module}.{function.__name__}")

    gc.disable()
    sys.setprofile(note)
    try:
        yield called
    finally:
        sys.setprofile(None)
        gc.enable()


def waiting_among(called: list[str]) -> set[str]:
    """Return those that read, write or wait."""
    parts = {name: name.rpartition(".") for name in called}
    return {name for name, (module, _, function) in parts.items() if module in WAITING and function not in HARMLESS}


@pytest.mark.parametrize(("mode", "status"), [("off", 200), ("on", 503), ("read_only", 503)])
def test_a_request_reads_the_state_without_any_input_or_output(backend: Any, mode: Any, status: int) -> None:
    """It is answered at once, passed or refused, while the other thread follows the store."""
    app = guarded(backend)
    asyncio.run(set_maintenance_mode(mode, backend, reason=None if mode == "off" else "disks"))
    asyncio.run(get_maintenance_mode(backend))
    assert status_of(app, scope_of(method="POST")) == status  # what is set up once is
    for _ in range(100):
        with calls_in_c() as called:
            assert status_of(app, scope_of(method="POST")) == status
        assert called
        assert waiting_among(called) == set()


def test_a_request_asks_no_store_that_fails(tmp_path: Path) -> None:
    """While the last known state stays."""
    place = file_place(tmp_path, timeout_seconds=10, init_timeout=20)
    backend: Any = place.backend()
    app = guarded(backend)
    asyncio.run(set_maintenance_mode(True, backend))
    asyncio.run(get_maintenance_mode(backend))
    assert status_of(app, scope_of()) == 503
    Path(place.options["file_path"]).write_text("garbage")
    wait_until(lambda: get_maintenance_status(backend).knowledge is Knowledge.STALE)
    for _ in range(100):
        with calls_in_c() as called:
            assert status_of(app, scope_of()) == 503
        assert waiting_among(called) == set()
    asyncio.run(backend.aclose())


def _ask_a_socket(_: Path) -> None:
    with socket.socket() as one:
        one.getsockname()


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("posix.stat", lambda file: file.exists()),
        ("io.open", lambda file: file.write_text("x")),
        ("_thread.acquire", lambda _: threading.Lock().acquire(blocking=False)),
        ("_thread.__enter__", lambda _: threading.Lock().__enter__()),
        ("socket.getsockname", _ask_a_socket),
        ("time.sleep", lambda _: time.sleep(0)),
    ],
)
def test_what_reads_or_waits_would_be_noticed(name: str, call: Callable[[Path], object], tmp_path: Path) -> None:
    """The probe knows files, sockets, locks and pauses."""
    with calls_in_c() as called:
        call(tmp_path / "file")
    # Python 3.14 calls the module of `open` by its real name.
    assert {name, f"_{name}"} & waiting_among(called), called


def test_a_request_that_waits_would_be_noticed(tmp_path: Path) -> None:
    """As it does before the first answer of the store."""
    backend = file_place(tmp_path).backend()
    try:
        with pytest.raises((AssertionError, RuntimeError), match=r"waited|event loop|async context"):
            status_of(guarded(backend), scope_of())
    finally:
        asyncio.run(backend.aclose())


def test_a_followed_switch_adds_next_to_nothing(backend: Any) -> None:
    """To a request at a switch that is a variable of the environment, and not set."""
    asyncio.run(get_maintenance_mode(backend))
    assert times_as_long(_requests(guarded(backend)), _requests(guarded()), rounds=42) <= AT_MOST


def test_a_hundred_windows_add_next_to_nothing() -> None:
    """To a request while none of them is active."""
    planned = MemoryBackend()
    windows = {window.id: window for window in hundred_windows()}
    asyncio.run(planned.apply(Change(put_windows=windows)))
    asyncio.run(planned.set_value(False))
    assert planned.peek().mode_at(datetime.now(UTC)) == "off"
    with_windows, without = _requests(guarded(planned)), _requests(guarded(MemoryBackend()))
    assert times_as_long(with_windows, without, rounds=42) <= AT_MOST


def _requests(app: ASGIApp) -> Callable[[], None]:
    def ask() -> None:
        scope = scope_of()
        for _ in range(200):
            status_of(app, dict(scope))

    return ask
