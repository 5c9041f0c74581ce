"""The registry: how a backend is named, made, and found."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fastapi_maintenance import (
    AmbiguousSwitch,
    InvalidConfiguration,
    InvalidSwitchName,
    MaintenanceMode,
    ReadOnlyBackend,
    UnknownBackend,
    UnsupportedByBackend,
    configure_backend,
    get_maintenance_mode,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import BaseStateBackend, EnvVarBackend, MemoryBackend
from fastapi_maintenance.registry import (
    AppSwitch,
    Registry,
    answering,
    checked_backend,
    checked_name,
    registry,
)

KNOWN = "known: env, memory, env://, memory://"


class Flag(BaseStateBackend):
    """What a user writes: two methods."""

    def __init__(self, value: bool = False) -> None:
        self.value = value

    async def get_value(self) -> bool:
        return self.value

    async def set_value(self, value: bool) -> None:
        self.value = value


class Shelf(Flag):
    """A user's backend with room for more switches."""

    def sibling(self, name: str) -> BaseStateBackend:
        return Shelf()


def variable_of(backend: BaseStateBackend) -> str:
    assert isinstance(backend, EnvVarBackend)
    return backend.var_name


# Names


@pytest.mark.parametrize("name", ["default", "billing", "eu-west_1", "0", "a" * 200])
def test_names_are_lower_case_words(name: str) -> None:
    """Letters, digits, dashes and underscores."""
    assert checked_name(name) == name


@pytest.mark.parametrize("name", ["", "Billing", "-a", "_a", "a b", "a/b", "a\n", "ä", "a.b", None, 3, b"a"])
def test_other_names_are_refused_everywhere(name: Any) -> None:
    """By whoever takes one, with the name in the message."""
    for refuse in (
        lambda: checked_name(name),
        lambda: configure_backend("memory", name=name),
        lambda: registry.meant(name=name),
        lambda: registry.meant(MemoryBackend(), name),
    ):
        with pytest.raises(InvalidSwitchName, match=re.escape(f"invalid switch name {name!r}: accepted are")) as error:
            refuse()
        assert error.value.name == name
        assert isinstance(error.value, ValueError)


# Making backends


def test_types_are_made_with_their_options() -> None:
    """``env`` and ``memory``, as the constructors take them."""
    assert variable_of(configure_backend("env")) == "FASTAPI_MAINTENANCE_MODE"
    assert variable_of(configure_backend("env", var_name="CLOSED")) == "CLOSED"
    memory = configure_backend("memory", initial=True)
    assert isinstance(memory, MemoryBackend)
    assert memory.peek().mode is MaintenanceMode.ON
    assert registry.meant() is memory


def test_urls_say_it_all() -> None:
    """``env://``, ``env://VAR`` and ``memory://``."""
    assert variable_of(configure_backend("env://")) == "FASTAPI_MAINTENANCE_MODE"
    assert variable_of(configure_backend("env://Closed_For_Now")) == "Closed_For_Now"
    assert isinstance(configure_backend("memory://"), MemoryBackend)


def test_a_backend_is_taken_as_it_is() -> None:
    """Its type does not matter."""
    backend = Flag()
    assert configure_backend(backend) is backend
    assert configure_backend(backend, name="billing") is backend
    assert registry.meant(name="billing") is backend


def test_a_named_switch_gets_a_place_of_its_own() -> None:
    """Unless a place was given, it stands beside the default switch's."""
    assert variable_of(configure_backend("env", name="eu-west_1")) == "FASTAPI_MAINTENANCE_MODE_EU_WEST_1"
    assert variable_of(configure_backend("env://", name="billing")) == "FASTAPI_MAINTENANCE_MODE_BILLING"
    assert variable_of(configure_backend("env://CLOSED", name="billing")) == "CLOSED"
    assert variable_of(configure_backend("env", name="billing", var_name="CLOSED")) == "CLOSED"
    assert configure_backend("memory", name="a") is not configure_backend("memory", name="b")
    initial_on = configure_backend("memory", name="c", initial="read_only")
    assert isinstance(initial_on, MemoryBackend)
    assert initial_on.peek().mode is MaintenanceMode.READ_ONLY


@pytest.mark.parametrize(
    ("backend", "kind"),
    [
        ("reddis", "reddis"),
        ("reddis://host/0", "reddis"),
        ("", ""),
        ("ENV", "ENV"),
        ("://x", "://x"),
        ("env:X", "env:X"),
    ],
)
def test_an_unknown_backend_names_the_known_ones(backend: str, kind: str) -> None:
    """It is a ``ValueError`` with what was asked for."""
    with pytest.raises(UnknownBackend, match=re.escape(f"no backend {kind!r}; {KNOWN}")) as error:
        configure_backend(backend)
    assert error.value.kind == kind
    assert isinstance(error.value, ValueError)


def test_the_password_of_an_unknown_url_is_not_told() -> None:
    """Messages end up in logs."""
    with pytest.raises(UnknownBackend) as error:
        configure_backend("reddis://user:secret@host/0")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ("env", {"variable": "X"}, "backend 'env' has no option variable; accepted: var_name"),
        ("memory", {"b": 1, "a": 2}, "backend 'memory' has no option a, b; accepted: initial"),
        ("memory", {"initial": "maybe"}, "maintenance mode 'maybe'"),
        ("env", {"var_name": ""}, "var_name=''"),
        ("env", {"var_name": "A=B"}, "var_name='A=B'"),
        ("env", {"var_name": 3}, "var_name=3"),
        ("env", {"var_name": None}, "var_name=None"),
        ("env://A=B", {}, "var_name='A=B'"),
        ("memory://x", {}, "backend URL 'memory://x': nothing can follow memory://"),
        ("memory://", {"initial": True}, "options ['initial'] go with a backend's type; a URL says it all"),
        (MemoryBackend, {}, "a type or URL (env, memory, env://, memory://) or a backend is needed"),
        (None, {}, "backend None: a type or URL"),
    ],
)
def test_options_that_can_not_work_are_refused(arguments: Any, options: dict[str, Any], message: str) -> None:
    """Where they are given, with the value and what is accepted; the switch stays as it was."""
    before = registry.meant()
    with pytest.raises(InvalidConfiguration, match=re.escape(message)):
        configure_backend(arguments, **options)
    assert registry.meant() is before


def test_options_do_not_go_with_a_backend() -> None:
    """It was made already."""
    with pytest.raises(InvalidConfiguration, match=re.escape("options ['initial'] go with a backend's type")):
        configure_backend(MemoryBackend(), initial=True)


@pytest.mark.parametrize("backend", ["memory", MemoryBackend, None, True])
def test_only_instances_of_backends_are_backends(backend: Any) -> None:
    """A class or a name is a likely mistake."""
    with pytest.raises(InvalidConfiguration, match=re.escape(f"backend={backend!r}: an instance of")):
        checked_backend(backend)


# Finding backends


def test_by_default_it_is_the_environment() -> None:
    """Always the same backend, and one variable for each name."""
    assert variable_of(registry.meant()) == "FASTAPI_MAINTENANCE_MODE"
    assert registry.meant() is registry.meant()
    assert variable_of(registry.meant(name="billing")) == "FASTAPI_MAINTENANCE_MODE_BILLING"
    assert registry.meant(name="billing") is registry.meant(name="billing")


def test_a_variable_can_name_the_default_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL in ``FASTAPI_MAINTENANCE_BACKEND`` stands below ``configure_backend``."""
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BACKEND", " env://CLOSED ")
    assert variable_of(registry.meant()) == "CLOSED"
    assert variable_of(registry.meant(name="billing")) == "CLOSED_BILLING"
    configured = configure_backend("memory")
    assert registry.meant() is configured


@pytest.mark.anyio
async def test_a_variable_that_names_no_backend_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Falling back to another store would be a switch that does nothing."""
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BACKEND", "reddis://host")
    with pytest.raises(UnknownBackend, match="reddis"):
        await get_maintenance_mode()


def test_a_variable_may_name_a_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that says "no backend 'env'; known: env" would help nobody."""
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BACKEND", "memory")
    try:
        assert isinstance(registry.meant(), MemoryBackend)
    except UnknownBackend as error:
        assert "memory" not in error.known  # noqa: PT017 - either answer would do


def test_named_switches_stand_in_the_store_of_the_default_one() -> None:
    """Each in a place of its own, always the same."""
    default = configure_backend("memory")
    billing = registry.meant(name="billing")
    assert isinstance(billing, MemoryBackend)
    assert billing is not default
    assert registry.meant(name="billing") is billing
    assert registry.meant(default, "billing") is billing


def test_a_configured_name_stands_above_the_store_of_the_default_one() -> None:
    """Inside of a request and outside."""
    configure_backend("memory")
    billing = configure_backend(Flag(), name="billing")
    assert registry.meant(name="billing") is billing
    assert registry.of_app(AppSwitch(MemoryBackend()), "billing") is billing


def test_a_users_backend_may_have_room_for_more_switches() -> None:
    """If it says so; else a named switch is the environment's, as by default."""
    shelf = configure_backend(Shelf())
    assert isinstance(registry.meant(name="billing"), Shelf)
    assert registry.meant(name="billing") is registry.meant(shelf, "billing")
    configure_backend(Flag())
    assert variable_of(registry.meant(name="billing")) == "FASTAPI_MAINTENANCE_MODE_BILLING"


def test_a_backend_without_room_can_not_be_asked_for_a_named_switch() -> None:
    """Another switch than the one that was asked for would be a lie."""
    with pytest.raises(UnsupportedByBackend, match="can't keep a second switch, 'billing'"):
        registry.meant(Flag(), "billing")


def test_the_only_app_with_a_backend_of_its_own_is_meant() -> None:
    """Whatever is configured, and however many other apps there are."""
    configure_backend("memory")
    own = MemoryBackend()
    apps = [AppSwitch(own), AppSwitch(None), AppSwitch(None, instead=True)]
    for app in apps:
        registry.add_app(app)
    assert registry.meant() is own
    assert registry.meant(name="billing") is registry.meant(own, "billing")


def test_apps_that_share_a_backend_are_not_ambiguous() -> None:
    """There is but one switch to mean."""
    own = MemoryBackend()
    apps = [AppSwitch(own), AppSwitch(own)]
    for app in apps:
        registry.add_app(app)
    assert registry.meant() is own


def test_several_apps_with_backends_of_their_own_are_ambiguous() -> None:
    """Unless the call, or the name's configuration, says which one."""
    apps = [AppSwitch(MemoryBackend()), AppSwitch(MemoryBackend())]
    for app in apps:
        registry.add_app(app)
    for name in ("default", "billing"):
        with pytest.raises(AmbiguousSwitch, match=r"2 apps in this process .* pass backend=") as error:
            registry.meant(name=name)
        assert error.value.count == 2
    billing = configure_backend("memory", name="billing")
    assert registry.meant(name="billing") is billing
    default = configure_backend("memory")
    assert registry.meant(default) is default


def test_an_app_that_is_gone_is_not_meant() -> None:
    """Even one that is only waiting to be collected, as apps keep themselves alive in cycles."""
    kept = AppSwitch(MemoryBackend())
    registry.add_app(kept)

    def make() -> None:
        class Holder: ...

        holder: Any = Holder()
        holder.itself = holder
        holder.app = AppSwitch(MemoryBackend())
        registry.add_app(holder.app)

    make()
    assert registry.meant() is kept.backend


def test_inside_a_request_the_answering_app_is_meant() -> None:
    """Not the other apps, and not what is configured."""
    apps = [AppSwitch(MemoryBackend()), AppSwitch(MemoryBackend()), AppSwitch(None)]
    configured = configure_backend("memory")
    for app in apps:
        registry.add_app(app)
    token = answering.set(apps[1])
    try:
        assert registry.meant() is apps[1].backend
        answering.set(apps[2])
        assert registry.meant() is configured
    finally:
        answering.reset(token)


def test_each_change_is_noticed_by_its_version() -> None:
    """What was looked up may be kept as long as the version stays."""
    table, backend = Registry(), MemoryBackend()
    versions = [table.version]
    table.configure("default", backend)
    versions.append(table.version)
    assert table.meant() is backend
    table.clear()
    versions.append(table.version)
    assert len(set(versions)) == 3
    assert table.meant() is not backend


@pytest.mark.anyio
async def test_a_switch_that_can_not_be_set_says_so() -> None:
    """The operator learns which variable it is and what to do."""
    with pytest.raises(ReadOnlyBackend, match="environment variable FASTAPI_MAINTENANCE_MODE_BILLING can't be set"):
        await set_maintenance_mode(True, name="billing")
