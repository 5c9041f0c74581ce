"""The registry: how a backend is named, made, and found."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import RedisDsn
from sqlalchemy import make_url

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
from fastapi_maintenance.backends import (
    BaseStateBackend,
    EnvVarBackend,
    LocalFileBackend,
    MemoryBackend,
    RedisBackend,
    SQLAlchemyBackend,
)
from fastapi_maintenance.concurrency import io_thread
from fastapi_maintenance.switches.app_switch import AppSwitch
from fastapi_maintenance.switches.backend_urls import check_name
from fastapi_maintenance.switches.passage import Passage, current, override_of_meant
from fastapi_maintenance.switches.registry import Registry, check_backend, registry

KNOWN = (
    "known: env, file, memory, redis, sqlalchemy, env://[VAR], file:///absolute or file:relative, memory://, "
    "redis://, rediss://, unix://, an async SQLAlchemy URL such as postgresql+asyncpg://"
)
SECRET = "s3cr3t"
REDIS = "redis://localhost:6379/3"
SQL = "postgresql+asyncpg://localhost/db"


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


def path_of(backend: BaseStateBackend) -> str:
    assert isinstance(backend, LocalFileBackend)
    return backend.file_path


def key_of(backend: BaseStateBackend) -> str:
    found = re.search(r"key='([^']*)'", repr(backend))
    assert found is not None
    return found[1]


# Names


@pytest.mark.parametrize("name", ["default", "billing", "eu-west_1", "0", "a" * 200])
def test_names_are_lower_case_words(name: str) -> None:
    """Letters, digits, dashes and underscores."""
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "Billing", "-a", "_a", "a b", "a/b", "a\n", "ä", "a.b", None, 3, b"a"])
def test_other_names_are_refused_everywhere(name: Any) -> None:
    """By whoever takes one, with the name in the message."""
    for refuse in (
        lambda: check_name(name),
        lambda: configure_backend("memory", name=name),
        lambda: registry.resolve(name=name),
        lambda: registry.resolve(MemoryBackend(), name),
    ):
        with pytest.raises(InvalidSwitchName, match=re.escape(f"invalid switch name {name!r}: it must be")) as error:
            refuse()
        assert error.value.name == name
        assert isinstance(error.value, ValueError)


# Making backends


def test_types_are_made_with_their_options() -> None:
    """As the constructors take them."""
    assert variable_of(configure_backend("env")) == "FASTAPI_MAINTENANCE_MODE"
    assert variable_of(configure_backend("env", var_name="CLOSED")) == "CLOSED"
    memory = configure_backend("memory", initial=True)
    assert isinstance(memory, MemoryBackend)
    assert memory.peek().mode is MaintenanceMode.ON
    assert registry.resolve() is memory
    assert path_of(configure_backend("file", file_path="state.json")) == "state.json"
    assert key_of(configure_backend("redis")) == "fastapi-maintenance:{default}"
    assert key_of(configure_backend("redis", url=REDIS, key="closed")) == "closed"
    assert key_of(configure_backend("sqlalchemy", url=SQL)) == "default"
    assert key_of(configure_backend("sqlalchemy", url=SQL, key="closed", table="ops.switches")) == "closed"


@pytest.mark.parametrize(
    ("kind", "options"),
    [("file", {"file_path": "state"}), ("redis", {"url": REDIS}), ("sqlalchemy", {"url": SQL})],
)
def test_followed_types_take_how_they_are_followed(kind: str, options: dict[str, Any]) -> None:
    """The same options for each."""
    backend: Any = configure_backend(
        kind,
        **options,
        poll_seconds=3,
        timeout_seconds=2,
        on_backend_error="closed",
        max_stale=60,
        initial="read_only",
        init_timeout=5,
    )
    assert (backend.poll_seconds, backend.timeout_seconds, backend.init_timeout) == (3, 2, 5)
    assert (backend.on_backend_error, backend.max_stale, backend.initial) == ("closed", 60, "read_only")


def test_nothing_is_read_or_made_while_a_backend_is_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a file nor a connection, and the background thread has nothing to do."""
    monkeypatch.delattr(io_thread, "submit")
    configure_backend("file", file_path=tmp_path / "state")
    configure_backend(f"sqlite+aiosqlite:///{tmp_path}/state.db", name="billing")
    configure_backend("redis://192.0.2.1/0", name="shop")
    registry.resolve(name="other")
    assert not list(tmp_path.iterdir())


def test_urls_say_it_all() -> None:
    """One for each backend."""
    assert variable_of(configure_backend("env://")) == "FASTAPI_MAINTENANCE_MODE"
    assert variable_of(configure_backend("env://Closed_For_Now")) == "Closed_For_Now"
    assert isinstance(configure_backend("memory://"), MemoryBackend)
    for url in ("redis://host:6379/3", "rediss://host/3", "unix:///run/redis?db=3"):
        redis = configure_backend(url)
        assert isinstance(redis, RedisBackend)
        assert url.partition("?")[0].partition("host")[0] in repr(redis)
    for url in ("postgresql+asyncpg://host/db", "sqlite+aiosqlite:///state.db"):
        assert isinstance(configure_backend(url), SQLAlchemyBackend)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:state", "state"),
        ("file:run/state.json", "run/state.json"),
        ("file:./state", "./state"),
        ("file:../state", "../state"),
        ("file:///run/state", "/run/state"),
        ("file:/run/state", "/run/state"),
        ("file:with%20blank", "with blank"),
        ("file:///run/100%25%3F%23", "/run/100%?#"),
        ("file:///caf%C3%A9", "/café"),
        ("file:state?x#y", "state?x#y"),
        ("file:a:b@c", "a:b@c"),
    ],
)
def test_a_file_url_is_absolute_or_relative(url: str, path: str) -> None:
    """Relative to the working directory; what a URL has no room for is written in percent."""
    assert path_of(configure_backend(url)) == path


def test_a_named_switch_of_a_file_url_has_that_file() -> None:
    """A place was given."""
    assert path_of(configure_backend("file:billing.json", name="billing")) == "billing.json"


def test_a_backend_is_taken_as_it_is() -> None:
    """Its type does not matter."""
    backend = Flag()
    assert configure_backend(backend) is backend
    assert configure_backend(backend, name="billing") is backend
    assert registry.resolve(name="billing") is backend


def test_a_named_switch_gets_a_place_of_its_own() -> None:
    """Unless a place was given, it stands beside the default switch's."""
    assert variable_of(configure_backend("env", name="eu-west_1")) == "FASTAPI_MAINTENANCE_MODE_EU_WEST_1"
    assert variable_of(configure_backend("env://", name="billing")) == "FASTAPI_MAINTENANCE_MODE_BILLING"
    assert variable_of(configure_backend("env://CLOSED", name="billing")) == "CLOSED"
    assert variable_of(configure_backend("env", name="billing", var_name="CLOSED")) == "CLOSED"
    assert key_of(configure_backend("redis", name="billing")) == "fastapi-maintenance:{billing}"
    assert key_of(configure_backend(REDIS, name="billing")) == "fastapi-maintenance:{billing}"
    assert key_of(configure_backend("redis", name="billing", key="closed")) == "closed"
    assert key_of(configure_backend("sqlalchemy", name="billing", url=SQL)) == "billing"
    assert key_of(configure_backend(SQL, name="billing")) == "billing"
    assert key_of(configure_backend("sqlalchemy", name="billing", url=SQL, key="closed")) == "closed"
    assert path_of(configure_backend("file", name="billing", file_path="state.json")) == "state.json"
    assert configure_backend("memory", name="a") is not configure_backend("memory", name="b")


def test_a_named_switch_has_the_options_that_it_was_given() -> None:
    """Also where it gets a place of its own."""
    memory = configure_backend("memory", name="billing", initial="read_only")
    assert isinstance(memory, MemoryBackend)
    assert memory.peek().mode is MaintenanceMode.READ_ONLY
    redis: Any = configure_backend("redis", name="billing", url=REDIS, poll_seconds=7, initial=True)
    assert (redis.poll_seconds, redis.initial) == (7, "on")
    assert "localhost:6379/3" in repr(redis)


@pytest.mark.parametrize(
    ("backend", "kind"),
    [
        ("reddis", "reddis"),
        ("reddis://host/0", "reddis"),
        ("", ""),
        ("ENV", "ENV"),
        ("://x", ""),
        ("postgresql", "postgresql"),
        ("oracle://localhost/db", "oracle"),
        ("https://host", "https"),
    ],
)
def test_an_unknown_backend_names_the_known_ones(backend: str, kind: str) -> None:
    """It is a ``ValueError`` with what was asked for."""
    with pytest.raises(UnknownBackend, match=re.escape(f"no backend {kind!r}; {KNOWN}")) as error:
        configure_backend(backend)
    assert error.value.kind == kind
    assert isinstance(error.value, ValueError)


@pytest.mark.parametrize(
    "url",
    [
        f"reddis://user:{SECRET}@host/0",
        f"postgresql://user:{SECRET}@host/db",
        f"nonsense+driver://user:{SECRET}@host/db",
        f"postgresql+asyncpg://user:{SECRET}@host:port/db",
        f"postgresql+psycopg2://user:{SECRET}@host/db",
        f"redis://user:{SECRET}@host:port/0",
        f"redis://user:{SECRET}@host/db",
        f"redis://user:{SECRET}/@host/0",
        f"rediss://:{SECRET}#@host",
        f"redis://host?password={SECRET}&socket_timeout=maybe",
        f"memory://user:{SECRET}@host",
        f"file://user:{SECRET}@host/state",
        f"user:{SECRET}@host",
    ],
)
def test_the_password_of_a_url_that_can_not_work_is_not_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages end up in logs, with the errors that they come from; so do those of the variable."""
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BACKEND", url)
    uses: list[Callable[[], object]] = [
        lambda: configure_backend(url),
        lambda: configure_backend(url, name="billing"),
        registry.resolve,
    ]
    for use in uses:
        with pytest.raises((UnknownBackend, InvalidConfiguration)) as error:
            use()
        assert SECRET not in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{SECRET}@host:6379/0",
        f"rediss://:{SECRET}@host",
        f"redis://host?password={SECRET}",
        f"unix:///run/redis?password={SECRET}",
        f"postgresql+asyncpg://user:{SECRET}@host/db",
        f"sqlite+aiosqlite:///state.db?password={SECRET}",
    ],
)
def test_a_password_is_not_shown(url: str) -> None:
    """Nor is that of a sibling."""
    for backend in (configure_backend(url), configure_backend(url, name="billing")):
        assert SECRET not in repr(backend)
        assert SECRET not in str(backend)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ("env", {"variable": "X"}, "backend 'env' has no option variable; accepted: var_name"),
        ("memory", {"b": 1, "a": 2}, "backend 'memory' has no option a, b; accepted: initial"),
        ("memory", {"initial": "maybe"}, ", got 'maybe'"),
        ("env", {"var_name": ""}, "an environment variable such as 'FASTAPI_MAINTENANCE_MODE', got ''"),
        ("env", {"var_name": "A=B"}, "an environment variable such as 'FASTAPI_MAINTENANCE_MODE', got 'A=B'"),
        ("env", {"var_name": 3}, "an environment variable such as 'FASTAPI_MAINTENANCE_MODE', got 3"),
        ("env", {"var_name": None}, "an environment variable such as 'FASTAPI_MAINTENANCE_MODE', got None"),
        ("env://A=B", {}, "an environment variable such as 'FASTAPI_MAINTENANCE_MODE', got 'A=B'"),
        ("memory://x", {}, "backend URL must be memory:// without a path, got 'memory://x'"),
        ("file", {}, "backend 'file' needs file_path"),
        ("file", {"poll_seconds": 1}, "backend 'file' needs file_path"),
        ("file", {"file_path": "x", "path": "y"}, "backend 'file' has no option path; accepted: file_path, poll_"),
        ("file", {"path": "y"}, "backend 'file' needs file_path and has no option path; accepted: file_path, poll_"),
        ("sqlalchemy", {"uri": SQL}, "backend 'sqlalchemy' needs url and has no option uri; accepted: url, table"),
        ("file", {"file_path": ""}, "file_path='' must be the name of a file"),
        ("file:", {}, "file_path='' must be the name of a file"),
        ("file:///", {}, "file_path='/' must be the name of a file"),
        ("file:a%00b", {}, "file_path='a\\x00b' must be the name of a file"),
        ("file://host/x", {}, "backend URL must be file:///absolute/path or file:relative/path, got 'file://host/x'"),
        ("redis", {"db": 1}, "backend 'redis' has no option db; accepted: url, key, poll_seconds"),
        ("redis", {"key": ""}, "key='' must be the name of a key"),
        ("redis", {"url": SQL}, "a Redis URL can't be used: it begins with another scheme"),
        ("redis", {"poll_seconds": 0}, "poll_seconds=0 must be a number of seconds above 0"),
        ("redis", {"max_stale": 9}, "on_backend_error='keep' with max_stale=9: 'open' and 'closed' apply once"),
        ("redis", {"on_backend_error": "closed"}, "on_backend_error='closed' with max_stale=None"),
        ("redis", {"on_backend_error": "off"}, "on_backend_error='off' must be 'keep', 'open' or 'closed'"),
        ("redis", {"initial": "maybe"}, ", got 'maybe'"),
        (REDIS, {"key": "x"}, "options ['key'] must come with a backend's type, not with a URL"),
        ("sqlalchemy", {}, "backend 'sqlalchemy' needs url"),
        ("sqlalchemy", {"url": "postgresql://localhost/db"}, "use one such as postgresql+asyncpg://..."),
        ("sqlite+aiosqlite://", {}, "url: an in-memory database is gone with its connection"),
        ("memory://", {"initial": True}, "options ['initial'] must come with a backend's type, not with a URL"),
        (MemoryBackend, {}, "backend must be a type or URL (env, file, memory, redis, sqlalchemy, env://[VAR], file:"),
        (None, {}, " or a backend, got None"),
    ],
)
def test_options_that_can_not_work_are_refused(arguments: Any, options: dict[str, Any], message: str) -> None:
    """Where they are given, with the value and what is accepted; the switch stays as it was."""
    before = registry.resolve()
    with pytest.raises(InvalidConfiguration, match=re.escape(message)):
        configure_backend(arguments, **options)
    assert registry.resolve() is before


@pytest.mark.parametrize(
    ("url", "spelling"),
    [
        ("sqlite:///state.db", "sqlite+aiosqlite://"),
        ("sqlite://", "sqlite+aiosqlite://"),
        (f"postgresql://user:{SECRET}@host/db", "postgresql+asyncpg:// or postgresql+psycopg://"),
        (f"postgres://user:{SECRET}@host/db", "postgresql+asyncpg:// or postgresql+psycopg://"),
        (f"mysql://user:{SECRET}@host/db", "mysql+aiomysql:// or mysql+asyncmy://"),
        (f"mariadb://user:{SECRET}@host/db", "mysql+aiomysql:// or mysql+asyncmy://"),
    ],
)
def test_a_database_without_an_async_driver_is_told_how_to_name_one(
    url: str, spelling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As deployments have such URLs for others; by the variable as well."""
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BACKEND", url)
    scheme = url.partition(":")[0]
    message = f"backend URL must name an async driver, got {scheme}://...; write {spelling}"
    uses: list[Callable[[], object]] = [
        lambda: configure_backend(url),
        lambda: configure_backend(url, name="billing"),
        registry.resolve,
    ]
    for use in uses:
        with pytest.raises(InvalidConfiguration, match=f"^{re.escape(message)}$"):
            use()
    for form in spelling.split(" or "):
        better: Any = make_url(f"{form}/db")
        assert better.get_dialect().get_async_dialect_cls(better).is_async


def test_options_do_not_go_with_a_backend() -> None:
    """It was made already."""
    with pytest.raises(InvalidConfiguration, match=re.escape("options ['initial'] must come with a backend's type")):
        configure_backend(MemoryBackend(), initial=True)


@pytest.mark.parametrize("name", ["default", "billing"])
@pytest.mark.parametrize("kind", ["file", "sqlalchemy"])
def test_an_option_that_has_no_default_is_needed_by_named_switches_as_well(kind: str, name: str) -> None:
    """A place of its own is beside something."""
    with pytest.raises(InvalidConfiguration, match=f"backend '{kind}' needs "):
        configure_backend(kind, name=name)


@pytest.mark.parametrize("backend", ["memory", MemoryBackend, None, True])
def test_only_instances_of_backends_are_backends(backend: Any) -> None:
    """A class or a name is a likely mistake."""
    with pytest.raises(InvalidConfiguration, match=re.escape(f"a BaseStateBackend subclass, got {backend!r}")):
        check_backend(backend)


# Finding backends


def test_by_default_it_is_the_environment() -> None:
    """Always the same backend, and one variable for each name."""
    assert variable_of(registry.resolve()) == "FASTAPI_MAINTENANCE_MODE"
    assert registry.resolve() is registry.resolve()
    assert variable_of(registry.resolve(name="billing")) == "FASTAPI_MAINTENANCE_MODE_BILLING"
    assert registry.resolve(name="billing") is registry.resolve(name="billing")


def test_a_variable_can_name_the_default_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL in ``FASTAPI_MAINTENANCE_BACKEND`` stands below ``configure_backend``."""
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BACKEND", " env://CLOSED ")
    assert variable_of(registry.resolve()) == "CLOSED"
    assert variable_of(registry.resolve(name="billing")) == "CLOSED_BILLING"
    configured = configure_backend("memory")
    assert registry.resolve() is configured


@pytest.mark.parametrize(
    ("url", "default", "billing"),
    [
        ("memory://", "<MemoryBackend off at ", "<MemoryBackend off at "),
        (
            "file:///run/state.json",
            "LocalFileBackend('/run/state.json')",
            "LocalFileBackend('/run/state.billing.json')",
        ),
        ("file:state", "LocalFileBackend('state')", "LocalFileBackend('state.billing')"),
        (REDIS, f"RedisBackend('{REDIS}', key='fastapi-maintenance:{{default}}')", "maintenance:{billing}')"),
        (SQL, "SQLAlchemyBackend(", ", key='billing')"),
    ],
)
def test_the_variable_takes_the_url_of_any_backend(
    url: str, default: str, billing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named switches stand beside it."""
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BACKEND", url)
    assert default in repr(registry.resolve())
    assert billing in repr(registry.resolve(name="billing"))
    assert registry.resolve(name="billing") is registry.resolve(name="billing")


@pytest.mark.anyio
async def test_a_variable_that_names_no_backend_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Falling back to another store would be a switch that does nothing."""
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BACKEND", "reddis://host")
    with pytest.raises(UnknownBackend, match="reddis"):
        await get_maintenance_mode()


def test_a_variable_may_name_a_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """If that needs no options."""
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BACKEND", "file")
    with pytest.raises(InvalidConfiguration, match="backend 'file' needs file_path"):
        registry.resolve()
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BACKEND", "memory")
    assert isinstance(registry.resolve(), MemoryBackend)


def test_named_switches_stand_in_the_store_of_the_default_one() -> None:
    """Each in a place of its own, always the same."""
    default = configure_backend("memory")
    billing = registry.resolve(name="billing")
    assert isinstance(billing, MemoryBackend)
    assert billing is not default
    assert registry.resolve(name="billing") is billing
    assert registry.resolve(default, "billing") is billing


@pytest.mark.parametrize(
    ("default", "billing"),
    [
        (lambda: configure_backend("file", file_path="state.json"), "LocalFileBackend('state.billing.json')"),
        (lambda: configure_backend("redis", key="closed"), "key='closed:{billing}')"),
        (lambda: configure_backend("sqlalchemy", url=SQL, key="closed"), "key='closed:billing')"),
    ],
)
def test_siblings_are_followed_as_the_default_one_is(default: Any, billing: str) -> None:
    """A file, a key or a row beside the one that was given, by the same options."""
    sibling = registry.resolve(default(), "billing")
    assert billing in repr(sibling)
    assert registry.resolve(name="billing") is sibling


def test_a_configured_name_stands_above_the_store_of_the_default_one() -> None:
    """Inside of a request and outside."""
    configure_backend("memory")
    billing = configure_backend(Flag(), name="billing")
    assert registry.resolve(name="billing") is billing
    assert registry.of_app(AppSwitch(MemoryBackend()), "billing") is billing


def test_a_users_backend_may_have_room_for_more_switches() -> None:
    """If it says so; else a named switch is the environment's, as by default."""
    shelf = configure_backend(Shelf())
    assert isinstance(registry.resolve(name="billing"), Shelf)
    assert registry.resolve(name="billing") is registry.resolve(shelf, "billing")
    configure_backend(Flag())
    assert variable_of(registry.resolve(name="billing")) == "FASTAPI_MAINTENANCE_MODE_BILLING"


def test_a_backend_without_room_can_not_be_asked_for_a_named_switch() -> None:
    """Another switch than the one that was asked for would be a lie."""
    with pytest.raises(UnsupportedByBackend, match="can't keep a second switch, 'billing'"):
        registry.resolve(Flag(), "billing")


def test_the_only_app_with_a_backend_of_its_own_is_meant() -> None:
    """Whatever is configured, and however many other apps there are."""
    configure_backend("memory")
    own = MemoryBackend()
    apps = [AppSwitch(own), AppSwitch(None), AppSwitch(None, enable_maintenance=True)]
    for app in apps:
        registry.add_app(app)
    assert registry.resolve() is own
    assert registry.resolve(name="billing") is registry.resolve(own, "billing")


def test_apps_that_share_a_backend_are_not_ambiguous() -> None:
    """There is but one switch to mean."""
    own = MemoryBackend()
    apps = [AppSwitch(own), AppSwitch(own)]
    for app in apps:
        registry.add_app(app)
    assert registry.resolve() is own


def test_several_apps_with_backends_of_their_own_are_ambiguous() -> None:
    """Unless the call, or the name's configuration, says which one."""
    apps = [AppSwitch(MemoryBackend()), AppSwitch(MemoryBackend())]
    for app in apps:
        registry.add_app(app)
    for name in ("default", "billing"):
        with pytest.raises(AmbiguousSwitch, match=r"2 apps in this process .* pass backend=") as error:
            registry.resolve(name=name)
        assert error.value.count == 2
    billing = configure_backend("memory", name="billing")
    assert registry.resolve(name="billing") is billing
    default = configure_backend("memory")
    assert registry.resolve(default) is default


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
    assert registry.resolve() is kept.backend


def test_inside_a_request_the_answering_app_is_meant() -> None:
    """Not the other apps, and not what is configured."""
    apps = [AppSwitch(MemoryBackend()), AppSwitch(MemoryBackend()), AppSwitch(None)]
    configured = configure_backend("memory")
    for app in apps:
        registry.add_app(app)
    token = current.set(Passage(apps[1], {}, None))
    try:
        assert registry.resolve() is apps[1].backend
        current.set(Passage(apps[2], {}, None))
        assert registry.resolve() is configured
    finally:
        current.reset(token)


def test_each_change_is_noticed_by_its_version() -> None:
    """What was looked up may be kept as long as the version stays."""
    table, backend = Registry(), MemoryBackend()
    versions = [table.version]
    table.configure("default", backend)
    versions.append(table.version)
    assert table.resolve() is backend
    assert len(set(versions)) == 2


@pytest.mark.anyio
async def test_a_switch_that_can_not_be_set_says_so() -> None:
    """The operator learns which variable it is and what to do."""
    with pytest.raises(ReadOnlyBackend, match="environment variable FASTAPI_MAINTENANCE_MODE_BILLING can't be set"):
        await set_maintenance_mode(True, name="billing")


@pytest.mark.parametrize(
    ("backend", "shown"),
    [
        (f"redis://user:{SECRET}@host/0", "'redis://***@host/0'"),
        (f"redis://:{SECRET}/@{SECRET}@host", "'redis://***@host'"),
        (f"redis://host?password={SECRET}", "'redis://host?***'"),
        (f"redis:/{SECRET}\n@host", "'redis:/***@host'"),
        (f"user:{SECRET}@host", "'user:***@host'"),
        (RedisDsn(f"redis://:{SECRET}@host"), "<RedisDsn>"),
        (make_url(f"postgresql+asyncpg://user:{SECRET}@host/db"), "<URL>"),
        ([f"redis://:{SECRET}@host"], "<list>"),
        (b"redis", "<bytes>"),
    ],
)
def test_what_is_no_backend_is_named_without_its_password(backend: Any, shown: str) -> None:
    """Of an object only the type: nobody knows what its repr tells."""
    makes: list[Callable[[], object]] = [lambda: check_backend(backend)]
    if not isinstance(backend, str):
        makes.append(lambda: configure_backend(backend))
    for make in makes:
        with pytest.raises(InvalidConfiguration, match=f", got {re.escape(shown)}(;|$)") as error:
            make()
        assert SECRET not in "".join(traceback.format_exception(error.value))


def test_what_stands_in_for_the_mode_is_the_default_switchs() -> None:
    """And of a call, that of the app that is answering, unless the call names a backend."""
    app, backend = AppSwitch(MemoryBackend(), enable_maintenance=True), MemoryBackend()
    assert (app.override_of("default"), app.override_of("billing")) == (True, None)
    assert override_of_meant(None, "default") is None
    token = current.set(Passage(app, {}, None))
    try:
        assert override_of_meant(None, "default") is True
        assert override_of_meant(None, "billing") is None
        assert override_of_meant(backend, "default") is None
    finally:
        current.reset(token)
