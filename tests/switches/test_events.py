"""Hooks that are told when another mode counts than before."""

from __future__ import annotations

import asyncio
import json
import logging
import queue
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from fastapi_maintenance import (
    InvalidConfiguration,
    MaintenanceMode,
    MaintenanceModeMiddleware,
    Subscription,
    Transition,
    configure_backend,
    get_maintenance_mode,
    maintenance_mode_on,
    on_change,
    schedule_maintenance,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import EnvVarBackend, LocalFileBackend, MemoryBackend
from fastapi_maintenance.model.state import MaintenanceState
from fastapi_maintenance.switches import events
from fastapi_maintenance.switches.control import change_mode
from fastapi_maintenance.switches.transitions import Transitions
from tests.support.asgi import status
from tests.support.places import TwoMethods, redis_place
from tests.support.scripts import output_of
from tests.support.stores import RedisServer
from tests.support.traffic import until

pytestmark = pytest.mark.anyio

OFF, ON, READ_ONLY = MaintenanceMode.OFF, MaintenanceMode.ON, MaintenanceMode.READ_ONLY
SECONDS = 20
"""How long a test waits for what has to come; the machine may be busy."""


class Told:
    """What a hook was told, in order."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Transition] = queue.Queue()

    def __call__(self, transition: Transition) -> None:
        self._queue.put(transition)

    async def next(self) -> Transition:
        return await asyncio.to_thread(self._queue.get, timeout=SECONDS)

    async def modes(self, count: int) -> list[tuple[MaintenanceMode, MaintenanceMode]]:
        return [((one := await self.next()).before, one.after) for _ in range(count)]

    def is_empty(self) -> bool:
        return self._queue.empty()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def subscribe() -> Iterator[Any]:
    """Return ``on_change``, whose subscriptions end with the test."""
    made: list[Subscription] = []

    def subscribe(*arguments: Any, **options: Any) -> Subscription:
        made.append(on_change(*arguments, **options))
        return made[-1]

    yield subscribe
    for subscription in made:
        subscription.cancel()


async def test_a_hook_is_told_once_per_transition(told: Told, subscribe: Any) -> None:
    """However quickly they follow each other; setting the same again is none."""
    backend = MemoryBackend()
    subscribe(told, backend)
    for value in True, True, False, "read_only", True, False:
        await set_maintenance_mode(value, backend)
    assert await told.modes(5) == [(OFF, ON), (ON, OFF), (OFF, READ_ONLY), (READ_ONLY, ON), (ON, OFF)]
    assert told.is_empty()


async def test_it_says_what_began(told: Told, subscribe: Any) -> None:
    """And who said so, of which switch."""
    configure_backend("memory", name="billing")
    subscribe(told, name="billing")
    end = datetime.now(UTC) + timedelta(hours=1)
    await change_mode(True, name="billing", reason="new disks", until=end, by="ops@desk")
    event = await told.next()
    assert (event.switch, event.reason, event.until, event.by) == ("billing", "new disks", end, "ops@desk")
    assert event.state.version == 1
    assert abs(event.at - datetime.now(UTC)) < timedelta(seconds=SECONDS)
    await set_maintenance_mode(False, name="billing")
    event = await told.next()
    assert (event.after, event.reason, event.until) == (OFF, None, None)


async def test_blocks_ends_and_windows_are_transitions(told: Told, subscribe: Any) -> None:
    """When their time has come, without any request."""
    backend = MemoryBackend()
    subscribe(told, backend)
    async with maintenance_mode_on(backend):
        pass
    assert await told.modes(2) == [(OFF, ON), (ON, OFF)]
    await change_mode(True, backend, until=datetime.now(UTC) + timedelta(seconds=1), by="ops@desk")
    began, ended = await told.next(), await told.next()
    assert [(one.before, one.after, one.by) for one in (began, ended)] == [(OFF, ON, "ops@desk"), (ON, OFF, None)]
    start = datetime.now(UTC) + timedelta(seconds=0.5)
    await schedule_maintenance(start, start + timedelta(seconds=1), backend, mode="read_only", reason="disks")
    began = await told.next()
    assert (began.after, began.reason, began.by) == (READ_ONLY, "disks", None)
    assert began.at >= start
    assert await told.modes(1) == [(READ_ONLY, OFF)]


@pytest.mark.parametrize("kind", ["file", "redis"])
async def test_what_others_change_in_a_store_is_told(kind: str, told: Told, subscribe: Any, tmp_path: Path) -> None:
    """Whether there are requests or not."""
    with RedisServer() as server:
        place = redis_place(server) if kind == "redis" else None
        backend, other = (place.backend() if place else LocalFileBackend(tmp_path / "switch") for _ in range(2))
        subscribe(told, backend)
        assert await get_maintenance_mode(backend) is False
        await set_maintenance_mode(True, other)
        assert await told.modes(1) == [(OFF, ON)]
        await set_maintenance_mode(False, other)
        assert await told.modes(1) == [(ON, OFF)]
        for one in backend, other:
            await one.aclose()


async def test_the_environment_is_looked_at_every_second(
    told: Told, subscribe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscribe(told, EnvVarBackend("CLOSED"))
    await asyncio.sleep(0.1)
    monkeypatch.setenv("CLOSED", "read_only")
    assert await told.modes(1) == [(OFF, READ_ONLY)]
    monkeypatch.delenv("CLOSED")
    assert await told.modes(1) == [(READ_ONLY, OFF)]


@pytest.mark.parametrize(
    ("version", "ends_in", "within"),
    [(0, None, 1.0), (0, 3600.0, 1.0), (0, 0.5, 0.5), (1, None, None), (1, 20.0, 20.0), (1, 3600.0, 30.0)],
)
async def test_a_switch_is_looked_at_again_when_it_may_have_changed(
    version: int, ends_in: float | None, within: float | None
) -> None:
    """Each second if nobody tells of changes, as of an environment; at its end; a clock may be set meanwhile."""
    until = None if ends_in is None else datetime.now(UTC) + timedelta(seconds=ends_in)
    state = MaintenanceState(version=version, mode=ON, until=until)
    transitions = Transitions("the switch")
    transitions._subscribers, transitions._peek = [lambda _: None], lambda: state
    begin = asyncio.get_running_loop().time()
    transitions._evaluate(state)
    timer, end = transitions._timer, asyncio.get_running_loop().time()
    assert (timer is None) is (within is None)
    if timer is not None and within is not None:
        assert begin + within / 2 < timer.when() <= end + within
        timer.cancel()


async def test_a_backend_of_ones_own_is_asked_by_requests_only(told: Told, subscribe: Any, tmp_path: Path) -> None:
    """It belongs to their event loop."""
    backend = TwoMethods(str(tmp_path / "switch"))
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=backend)
    app.get("/")(lambda: None)
    subscribe(told, backend)
    assert await status(app, "/") == 200
    (tmp_path / "switch").touch()
    assert await status(app, "/") == 503
    assert await told.modes(1) == [(OFF, ON)]


async def test_hooks_may_be_async_and_fail(told: Told, subscribe: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A failure is logged, and neither the next call nor other hooks mind."""
    backend = MemoryBackend()

    async def later(transition: Transition) -> None:
        await asyncio.sleep(0)
        told(transition)

    def fails(transition: Transition) -> None:
        raise ZeroDivisionError

    subscribe(fails, backend)
    subscribe(later, backend)
    for value in True, False:
        await set_maintenance_mode(value, backend)
    assert await told.modes(2) == [(OFF, ON), (ON, OFF)]
    await until(lambda: caplog.text.count("an on_change hook failed") == 2)
    assert "ZeroDivisionError" in caplog.text


async def test_a_hook_that_blocks_holds_up_nothing(told: Told, subscribe: Any) -> None:
    """No other hook, no change, no request."""
    backend, release = MemoryBackend(), threading.Event()
    subscribe(lambda _: release.wait(SECONDS), backend)
    subscribe(told, backend)
    for value in True, False:
        await set_maintenance_mode(value, backend)
    assert await told.modes(2) == [(OFF, ON), (ON, OFF)]
    release.set()


async def test_a_cancelled_subscription_is_told_nothing_more(told: Told) -> None:
    backend = MemoryBackend()
    subscription = on_change(told, backend)
    await set_maintenance_mode(True, backend)
    assert await told.modes(1) == [(OFF, ON)]
    subscription.cancel()
    subscription.cancel()
    await set_maintenance_mode(False, backend)
    await asyncio.sleep(0.1)
    assert told.is_empty()


def test_a_hook_has_to_be_callable() -> None:
    with pytest.raises(InvalidConfiguration, match="hook must be a function that takes a Transition, got 'webhook'"):
        on_change("webhook")  # type: ignore[arg-type]


async def test_transitions_of_followed_switches_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once each, in one line, with fields for programs; also without any hook."""
    caplog.set_level(logging.INFO, "fastapi_maintenance")
    backend = LocalFileBackend(tmp_path / "switch")
    assert await get_maintenance_mode(backend) is False
    await change_mode("read_only", backend, reason="disks\nERROR forged", by="me")
    await set_maintenance_mode(False, backend)

    def records() -> list[logging.LogRecord]:
        return [one for one in caplog.records if hasattr(one, "maintenance_after")]

    await until(lambda: len(records()) == 2)
    await backend.aclose()
    first, second = records()
    assert first.getMessage().endswith("maintenance went from off to read_only: disks ERROR forged")
    assert second.getMessage().endswith("maintenance went from read_only to off")
    fields = {name: value for name, value in vars(first).items() if name.startswith("maintenance_")}
    assert fields == {
        "maintenance_before": "off",
        "maintenance_after": "read_only",
        "maintenance_reason": "disks\nERROR forged",
        "maintenance_until": None,
        "maintenance_by": "me",
        "maintenance_version": 1,
    }
    json.dumps(fields)


async def test_a_subscription_can_begin_anew(told: Told, subscribe: Any) -> None:
    """As it does in a forked child; it is told once of each."""
    backend = MemoryBackend()
    subscribe(told, backend)
    events._restart_after_fork()
    await set_maintenance_mode(True, backend)
    assert await told.modes(1) == [(OFF, ON)]
    await asyncio.sleep(0.1)
    assert told.is_empty()


FORKS = """
import asyncio, os, sys, time
from fastapi_maintenance import on_change, set_maintenance_mode, get_maintenance_mode
from fastapi_maintenance.backends import LocalFileBackend

backend = LocalFileBackend(sys.argv[1])
reader, writer = os.pipe()
on_change(lambda event: os.write(writer, f"{os.getpid()} {event.after}\\n".encode()), backend)
asyncio.run(get_maintenance_mode(backend))
child = os.fork()
if not child:
    asyncio.run(get_maintenance_mode(backend))
    os.write(writer, b"ready\\n")
    time.sleep(20)
    os._exit(1)
assert os.read(reader, 6) == b"ready\\n"
asyncio.run(set_maintenance_mode(True, backend))
told = b""
while told.count(b"\\n") < 2:
    told += os.read(reader, 100)
os.kill(child, 9)
os.waitpid(child, 0)
assert sorted(told.decode().split()) == sorted([str(os.getpid()), "on", str(child), "on"]), told
print("both")
"""


def test_a_forked_worker_is_told_as_well(tmp_path: Path) -> None:
    """A hook that was given before the workers were forked is called in each."""
    assert output_of(FORKS, tmp_path / "switch") == "both\n"
