"""The backends that come with the package, and what a user's own one may be like."""

from __future__ import annotations

import logging
import os
import re
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import anyio
import pytest
from fastapi import FastAPI

from fastapi_maintenance import (
    InvalidConfiguration,
    MaintenanceMode,
    MaintenanceModeMiddleware,
    ReadOnlyBackend,
    get_maintenance_mode,
    get_maintenance_state,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import BaseStateBackend, EnvVarBackend, MemoryBackend, StoreBackend
from fastapi_maintenance.model.change import Change, set_mode
from fastapi_maintenance.model.state import Hold, MaintenanceState
from fastapi_maintenance.stores import DocumentStore, Reading
from fastapi_maintenance.switches.views import two_method
from tests.support.asgi import status
from tests.support.memory_store import MemoryStore

pytestmark = pytest.mark.anyio

VARIABLE = "CLOSED_FOR_NOW"


# The environment variable


@pytest.mark.parametrize(
    ("text", "mode"),
    [("1", "on"), ("true", "on"), ("ON", "on"), ("0", "off"), ("no", "off"), ("read_only", "read_only")],
)
async def test_a_variable_is_read_at_once(text: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of ``os.environ`` counts from then on."""
    backend = EnvVarBackend(VARIABLE)
    assert backend.peek().mode is MaintenanceMode.OFF
    monkeypatch.setenv(VARIABLE, text)
    assert backend.peek().mode == mode
    assert await backend.get_value() is (mode != "off")
    monkeypatch.delenv(VARIABLE)
    assert await backend.get_value() is False


@pytest.mark.parametrize("text", ["", "  "])
async def test_an_empty_variable_is_off(
    text: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As one that is not set, without a warning."""
    monkeypatch.setenv(VARIABLE, text)
    assert await EnvVarBackend(VARIABLE).get_value() is False
    assert not caplog.records


async def test_a_variable_that_can_not_be_read_is_off_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests come by the thousand, so it is told once for each such text."""
    backend = EnvVarBackend(VARIABLE)
    monkeypatch.setenv(VARIABLE, "maybe")
    assert [backend.peek().mode for _ in range(3)] == [MaintenanceMode.OFF] * 3
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"{VARIABLE} is read as off: maintenance mode must be 1/on/true/yes" in record.getMessage()
    monkeypatch.setenv(VARIABLE, "perhaps")
    backend.peek()
    assert len(caplog.records) == 2


async def test_an_environment_that_a_test_replaced_is_read_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """Users' tests put a plain dict in the place of ``os.environ``."""
    before = EnvVarBackend(VARIABLE)
    monkeypatch.setattr(os, "environ", {VARIABLE: "1"})
    assert await before.get_value() is True
    assert await EnvVarBackend(VARIABLE).get_value() is True


async def test_a_variable_can_not_be_set() -> None:
    """A process can't set the environment of the others, and says what to do instead."""
    backend = EnvVarBackend()
    assert backend.read_only
    for value in (True, False):
        with pytest.raises(ReadOnlyBackend, match="set the variable and restart, or use a backend") as error:
            await backend.set_value(value)
        assert error.value.where == "environment variable FASTAPI_MAINTENANCE_MODE"


@pytest.mark.parametrize("name", ["", "A=B", "A\0B", None, 3])
async def test_what_is_no_name_of_a_variable_is_refused(name: Any) -> None:
    """At once, with the value and an example."""
    with pytest.raises(InvalidConfiguration, match=r"var_name must be .* such as 'FASTAPI_MAINTENANCE_MODE', got"):
        EnvVarBackend(name)


async def test_a_variable_shows_its_name() -> None:
    """In logs and error messages."""
    assert repr(EnvVarBackend(VARIABLE)) == f"EnvVarBackend('{VARIABLE}')"


async def test_a_named_switch_has_a_variable_of_its_own() -> None:
    """The name is appended in upper case, dashes become underscores."""
    assert EnvVarBackend(VARIABLE).sibling("eu-west_1").var_name == f"{VARIABLE}_EU_WEST_1"


# Memory


@pytest.mark.parametrize(
    ("initial", "mode"), [(True, "on"), (False, "off"), (MaintenanceMode.READ_ONLY, "read_only"), ("on", "on")]
)
async def test_memory_begins_as_told(initial: Any, mode: str) -> None:
    """By a bool or a mode."""
    backend = MemoryBackend(initial)
    assert backend.peek() == MaintenanceState(mode=MaintenanceMode(mode))
    assert await backend.get_value() is (mode != "off")
    assert mode in repr(backend)


async def test_memory_refuses_what_is_no_mode() -> None:
    """Where it is made."""
    with pytest.raises(InvalidConfiguration, match="'maybe'"):
        MemoryBackend("maybe")  # type: ignore[arg-type]


async def test_memory_keeps_what_it_is_set_to() -> None:
    """And counts its versions."""
    backend = MemoryBackend()
    await backend.set_value(True)
    assert await backend.get_value() is True
    assert backend.peek().since is not None
    await backend.set_value(False)
    assert await backend.get_value() is False
    assert backend.peek().version == 2


async def test_memory_keeps_the_whole_state() -> None:
    """Reasons, ends and holds."""
    backend, now = MemoryBackend(), datetime.now(UTC)
    change = set_mode(MaintenanceMode.READ_ONLY, now=now, reason="new disks", until=now + timedelta(hours=1))
    state = await backend.apply(change)
    assert state is backend.peek()
    assert (state.mode, state.reason) == (MaintenanceMode.READ_ONLY, "new disks")
    await backend.apply(Change(put_holds={"a": Hold(kind="off")}))
    assert await backend.get_value() is False
    await backend.apply(Change(drop_holds=frozenset({"a"})))
    assert await backend.get_value() is True


async def test_the_memory_of_a_named_switch_is_its_own() -> None:
    """It begins off."""
    backend = MemoryBackend(True)
    sibling = backend.sibling("billing")
    assert await sibling.get_value() is False
    await backend.set_value(False)
    await sibling.set_value(True)
    assert await backend.get_value() is False


async def test_memories_do_not_share_anything() -> None:
    """Each is a switch of its own."""
    one, other = MemoryBackend(), MemoryBackend()
    await one.set_value(True)
    assert await other.get_value() is False


# A user's own


async def test_a_backend_needs_two_methods_only() -> None:
    """All else has a default: nothing is known without I/O, and there is room for one switch."""

    class Flag(BaseStateBackend):
        value = False

        async def get_value(self) -> bool:
            return self.value

        async def set_value(self, value: bool) -> None:
            self.value = value

    backend = Flag()
    assert not backend.read_only
    assert backend.peek() is None
    assert backend.sibling("billing") is None


@pytest.mark.parametrize("missing", ["get_value", "set_value"])
async def test_a_backend_without_one_of_them_can_not_be_made(missing: str) -> None:
    """The mistake shows where it is made."""

    async def method(self: object, value: bool = False) -> bool:
        return value

    methods = {name: method for name in ("get_value", "set_value") if name != missing}
    incomplete = type("Incomplete", (BaseStateBackend,), methods)
    with pytest.raises(TypeError, match=missing):
        incomplete()


async def test_a_read_only_backend_that_accepts_in_silence_is_told_on() -> None:
    """An operator who presses a switch in vain is told so."""

    class Mute(BaseStateBackend):
        read_only: ClassVar[bool] = True

        async def get_value(self) -> bool:
            return False

        async def set_value(self, value: bool) -> None: ...

    with pytest.raises(ReadOnlyBackend, match="nothing was changed"):
        await set_maintenance_mode(True, Mute())


# Asked less often


class Slow(BaseStateBackend):
    """A user's backend that takes its time, and may be asked less often than every request wants to know."""

    def __init__(self, value: bool = False, *, cache_seconds: float = 0) -> None:
        self.value = value
        self.cache_seconds = cache_seconds
        self.asked = 0
        self.fault: Exception | None = None
        self.may_answer = anyio.Event()
        self.may_answer.set()

    def __repr__(self) -> str:
        return "<Slow>"

    async def get_value(self) -> bool:
        self.asked += 1
        value, fault = self.value, self.fault  # as it is when the store is asked, however long the answer takes
        await self.may_answer.wait()
        if fault is not None:
            raise fault
        return value

    async def set_value(self, value: bool) -> None:
        self.value = value


class Clock:
    """The clock by which answers grow old."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clock of all views."""
    clock = Clock()
    monkeypatch.setattr(two_method, "time", clock)
    return clock


async def test_a_users_backend_is_asked_for_every_request_unless_it_says_otherwise() -> None:
    """``cache_seconds`` is 0: a change elsewhere counts at once."""
    backend = Slow()
    app = app_with(backend)
    for value, status_code in ((False, 200), (True, 503), (False, 200)):
        backend.value = value
        assert await status(app) == status_code
    assert backend.asked == 3


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_an_answer_counts_for_as_long_as_the_backend_says(clock: Clock) -> None:
    """Requests within that time do not wait for the store."""
    backend = Slow(cache_seconds=5)
    app = app_with(backend)
    assert [await status(app) for _ in range(3)] == [200] * 3
    backend.value = True
    clock.now += 4.9
    assert await status(app) == 200
    assert backend.asked == 1
    clock.now += 0.1
    assert [await status(app) for _ in range(3)] == [503] * 3
    assert backend.asked == 2


async def test_a_change_in_this_process_does_not_wait_for_an_answer_to_grow_old(clock: Clock) -> None:
    """Neither a mode nor a block."""
    backend = Slow(cache_seconds=3600)
    app = app_with(backend)
    assert await status(app) == 200
    await set_maintenance_mode(True, backend)
    assert await status(app) == 503
    await set_maintenance_mode(False, backend)
    assert await status(app) == 200
    async with maintenance_mode_on(backend):
        assert await status(app) == 503
    assert await status(app) == 200


async def test_nobody_gets_in_before_the_first_answer(clock: Clock) -> None:
    """What is not known yet is no old answer: all who come first wait."""
    backend = Slow(True, cache_seconds=3600)
    backend.may_answer = anyio.Event()
    app = app_with(backend)
    answers: list[int] = []

    async def ask() -> None:
        answers.append(await status(app))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        assert answers == []
        backend.may_answer.set()
    assert answers == [503] * 3
    assert await status(app) == 503
    assert backend.asked == 3


async def test_one_request_asks_again_while_the_others_go_by_the_last_answer(clock: Clock) -> None:
    """A slow store delays one request each time, not all of them."""
    backend = Slow(cache_seconds=5)
    app = app_with(backend)
    await status(app)
    clock.now += 5
    backend.value, backend.may_answer = True, anyio.Event()
    answers: list[int] = []

    async def ask() -> None:
        answers.append(await status(app))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        assert [await status(app) for _ in range(3)] == [200] * 3
        backend.may_answer.set()
    assert answers == [503]
    assert await status(app) == 503
    assert backend.asked == 2


async def test_who_asked_and_went_away_leaves_the_question_to_the_next_one(clock: Clock) -> None:
    """Nothing was read, so nothing is prolonged."""
    backend = Slow(cache_seconds=5)
    app = app_with(backend)
    await status(app)
    clock.now += 5
    backend.value, backend.may_answer = True, anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(status, app)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    backend.may_answer.set()
    assert await status(app) == 503


@pytest.mark.parametrize("cache_seconds", [0, 3600])
async def test_an_answer_that_was_overtaken_by_a_change_does_not_count(cache_seconds: float, clock: Clock) -> None:
    """It began before this process stored another mode."""
    backend = Slow(cache_seconds=cache_seconds)
    app = app_with(backend)
    backend.may_answer = slow = anyio.Event()
    answers: list[int] = []

    async def ask() -> None:
        answers.append(await status(app))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        backend.may_answer = anyio.Event()
        backend.may_answer.set()
        await set_maintenance_mode(True, backend)
        slow.set()
    assert answers == [503]
    backend.fault = ConnectionError("down")
    assert await status(app) == 503


async def test_a_failure_counts_as_long_as_an_answer_if_there_was_one(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that is down is not asked for every request; one that was never read is."""
    backend = Slow(True, cache_seconds=5)
    backend.fault = ConnectionError("down")
    app = app_with(backend)
    assert [await status(app) for _ in range(3)] == [200] * 3
    assert backend.asked == 3
    backend.fault = None
    assert await status(app) == 503
    backend.fault = ConnectionError("down")
    clock.now += 5
    assert [await status(app) for _ in range(3)] == [503] * 3
    assert backend.asked == 5
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING", "ERROR"]


def app_with(backend: BaseStateBackend) -> FastAPI:
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=backend)

    @app.get("/")
    async def index() -> str:
        return "open"

    return app


# In a store


class LeastStore(DocumentStore):
    """The least that a store needs."""

    def __init__(self) -> None:
        self._beside = MemoryStore()

    async def read(self, key: str) -> Reading:
        return await self._beside.read(key)

    async def replace(
        self, key: str, content: bytes, revision: str | None, *, seconds: float, quiet: bool = False
    ) -> Reading:
        return await self._beside.replace(key, content, revision, seconds=seconds, quiet=quiet)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_a_store_needs_two_methods_only() -> None:
    """It pushes nothing, has nothing to close, and can be asked and set by itself."""
    backend = StoreBackend(LeastStore())
    assert backend.peek() is None
    assert await backend.get_value() is False
    await backend.set_value(True)
    assert await backend.get_value() is True
    await backend.set_value(False)
    assert await backend.get_value() is False
    assert await get_maintenance_mode(backend) is False
    await set_maintenance_mode("read_only", backend, reason="new disks")
    assert (await get_maintenance_state(backend)).reason == "new disks"
    assert await backend.get_value() is True
    await backend.aclose()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({name: value}, f"{name}={value!r} must be a number of seconds above 0")
        for name in ("poll_seconds", "timeout_seconds", "init_timeout", "max_stale")
        for value in (0, -1, float("nan"))
    ]
    + [
        ({"on_backend_error": "off"}, "on_backend_error='off' must be 'keep', 'open' or 'closed'"),
        ({"on_backend_error": "open"}, "on_backend_error='open' with max_stale=None: 'open' and 'closed' apply once"),
        ({"max_stale": 60}, "on_backend_error='keep' with max_stale=60: "),
        ({"initial": "maybe"}, ", got 'maybe'"),
        ({"on_emptied": "heal"}, "on_emptied='heal' must be 'restore' or 'keep'"),
        ({"poll": 1, "b": 2}, "unknown option b, poll; accepted are poll_seconds, timeout_seconds, "),
    ],
)
async def test_how_a_store_can_not_be_followed(options: dict[str, Any], message: str) -> None:
    """It is refused where the backend is made, with what would do."""
    with pytest.raises(InvalidConfiguration, match=re.escape(message)):
        StoreBackend(MemoryStore(), **options)


async def test_how_a_store_is_followed_if_nothing_else_is_said() -> None:
    """The last known state stays, whatever happens, and a store that never had one is off."""
    backend = StoreBackend(MemoryStore())
    assert (backend.on_backend_error, backend.max_stale, backend.initial) == ("keep", None, MaintenanceMode.OFF)
    assert (backend.poll_seconds, backend.timeout_seconds, backend.init_timeout) == (1, 1, 2)
    assert StoreBackend(MemoryStore(), max_stale=None).max_stale is None  # as a setting that is read may say it
