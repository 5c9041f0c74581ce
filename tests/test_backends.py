"""The backends that come with the package, and what a user's own one may be like."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest

from fastapi_maintenance import InvalidConfiguration, MaintenanceMode, ReadOnlyBackend, set_maintenance_mode
from fastapi_maintenance.backends import BaseStateBackend, EnvVarBackend, MemoryBackend
from fastapi_maintenance.state import Change, Hold, MaintenanceState, set_mode

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
    assert f"{VARIABLE} is read as off: 'maybe' is no maintenance mode" in record.getMessage()
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
    with pytest.raises(InvalidConfiguration, match=r"var_name=.*such as 'FASTAPI_MAINTENANCE_MODE'"):
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
