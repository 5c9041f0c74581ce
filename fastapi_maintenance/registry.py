"""The one table from switch name to backend, shared by middleware, guard and context managers."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import threading
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from starlette.types import Scope

from . import background
from .backends.base import BaseStateBackend, FollowOptions, StoreBackend
from .backends.env import EnvVarBackend
from .backends.file import LocalFileBackend
from .backends.memory import MemoryBackend
from .backends.redis import RedisBackend
from .backends.sqlalchemy import SQLAlchemyBackend
from .exceptions import (
    AmbiguousSwitch,
    InvalidConfiguration,
    InvalidSwitchName,
    UnknownBackend,
    UnsupportedByBackend,
)
from .reachability import reachable
from .stores.contract import is_switch_name
from .stores.urls import registered_store

DEFAULT = "default"
"""The switch of the whole app."""

BACKEND_VARIABLE = "FASTAPI_MAINTENANCE_BACKEND"
"""The environment variable with the URL of the default backend."""


@dataclass(eq=False)
class AppSwitch:
    """What an app was given for its default switch."""

    backend: BaseStateBackend | None = None
    """Its own backend; ``None`` for the configured one."""
    enable_maintenance: bool | None = None
    overrides: tuple[tuple[str, BaseStateBackend], ...] = ()
    """What stands in for the backends of switches, the last one first: for tests of the app."""
    gate: Any = None
    """The gate that judges the app's requests; ``None`` for an app without the middleware."""

    def __post_init__(self) -> None:
        self.owner: weakref.ref[object] = weakref.ref(self)
        """What the app has and can be reached with it: its middleware."""
        self.views: weakref.WeakSet[Any] = weakref.WeakSet()
        """The views that the app uses, whose stores are followed for it."""
        self.lifespans: list[asyncio.AbstractEventLoop | None] = []
        """The event loops in which the app's lifespan is running; ``None`` for one that is not asyncio's."""
        self.override()

    def override(self, *overrides: tuple[str, BaseStateBackend]) -> None:
        """Use these backends for their switches, and for the default one no ``enable_maintenance`` either."""
        self.overrides = overrides
        self.instead = None if DEFAULT in dict(overrides) else self.enable_maintenance
        """What stands in for the stored mode."""

    def is_served(self) -> bool:
        """Return whether a server is running the app's lifespan, so that the app can be reached."""
        return any(loop is not None and loop.is_running() for loop in self.lifespans)

    def instead_of(self, switch: str) -> bool | None:
        """Return what stands in for the stored mode of a switch, which only the default one's has."""
        return self.instead if switch == DEFAULT else None


answering: ContextVar[tuple[AppSwitch, Scope, Any] | None] = ContextVar("fastapi_maintenance_answering", default=None)
"""The app that is answering the current request, the request's scope, and the same of the app around it."""


def answering_app() -> AppSwitch | None:
    """Return the app that is answering the current request, if there is one."""
    current = answering.get()
    return None if current is None else current[0]


def instead_of_meant(backend: BaseStateBackend | None, switch: str) -> bool | None:
    """Return what stands in for the stored mode of the switch that a call means, as ``Registry.meant`` finds it."""
    app = answering_app()
    return None if app is None or backend is not None else app.instead_of(switch)


class Registry:
    """Which backend a switch has."""

    def __init__(self) -> None:
        self._configured: dict[str, BaseStateBackend] = {}
        self._apps: weakref.WeakSet[AppSwitch] = weakref.WeakSet()
        self.had_app = False
        """Whether an app with the middleware was ever made in this process."""
        self._guarded: dict[str, None] = {}
        """The switches that guards have, in the order in which they were made."""
        self._lock = threading.RLock()
        self.version = 0
        """Grows with each change, so that what was looked up can be kept until then."""

    def reset_after_fork(self) -> None:
        """Let a forked child ask: whoever was just asking may be another thread, which is in the parent only."""
        self._lock = threading.RLock()

    def configure(self, name: str, backend: BaseStateBackend) -> None:
        """Make ``backend`` the one of switch ``name``."""
        with self._lock:
            self._configured[name] = backend
            self.version += 1

    def add_app(self, app: AppSwitch) -> None:
        """Take note of an app; one with a backend of its own can be meant by calls that name none."""
        with self._lock:
            self._apps.add(app)
            self.had_app = True

    def add_guarded(self, name: str) -> None:
        """Take note of the switch of a guard, which is to be followed from an app's start on."""
        self._guarded[name] = None

    def guarded(self) -> tuple[str, ...]:
        """Return the names of the switches that guards of this process have."""
        return tuple(self._guarded)

    def in_use(self) -> list[tuple[str, BaseStateBackend]]:
        """Return the switches that this process knows, with their backends; each backend once."""
        with self._lock:
            found = [(DEFAULT, backend) for backend in self._distinct_own_backends()]
            found += self._configured.items()
            for _, backend in tuple(found):
                found += backend.siblings_made().items()
            found += _ENVIRONMENT.siblings_made().items()
        return list({id(backend): (name, backend) for name, backend in reversed(found)}.values())[::-1]

    def override(self, app: AppSwitch, name: str, backend: BaseStateBackend) -> Callable[[], None]:
        """Have an app use ``backend`` for a switch, until what is returned is called; in any order."""
        override = (name, backend)
        with self._lock:
            app.override(override, *app.overrides)
            self.version += 1

        def undo() -> None:
            with self._lock:
                app.override(*(other for other in app.overrides if other is not override))
                self.version += 1

        return undo

    def clear(self) -> None:
        """Forget every configured backend."""
        with self._lock:
            self._configured.clear()
            self.version += 1

    def of_app(self, app: AppSwitch, name: str = DEFAULT) -> BaseStateBackend:
        """Return the backend of a switch as seen from an app."""
        for overridden, backend in app.overrides:
            if overridden == name:
                return backend
        with self._lock:
            default = app.backend if app.backend is not None else self._default()
            return default if name == DEFAULT else self._named(name, default)

    def meant(self, backend: BaseStateBackend | None = None, name: str = DEFAULT) -> BaseStateBackend:
        """Return the backend that a call means.

        With a backend, that one. Else, inside a request, the switch of the app that is answering; outside, the
        configured one, unless exactly one app brought its own backend, which is then meant.

        Raises:
            AmbiguousSwitch: Several apps brought their own.
            InvalidSwitchName: The name can't be a switch's.
        """
        checked_name(name)
        if backend is not None:
            return checked_backend(backend) if name == DEFAULT else _sibling(checked_backend(backend), name)
        app = answering_app()
        if app is not None:
            return self.of_app(app, name)
        own = () if name != DEFAULT and name in self._configured else self._own_backends()
        with self._lock:
            if name != DEFAULT and name in self._configured:
                return self._configured[name]
            default = own[0] if own else self._default()
            return default if name == DEFAULT else self._named(name, default)

    def _named(self, name: str, default: BaseStateBackend) -> BaseStateBackend:
        if name in self._configured:
            return self._configured[name]
        try:
            return _sibling(default, name)
        except UnsupportedByBackend:
            # A user's own backend has no place for a second switch: that is the environment's, as by default.
            return _sibling(_ENVIRONMENT, name)

    def _default(self) -> BaseStateBackend:
        if DEFAULT not in self._configured:
            url = os.environ.get(BACKEND_VARIABLE, "").strip()
            self._configured[DEFAULT] = backend_from_url(url) if url else EnvVarBackend()
        return self._configured[DEFAULT]

    def _own_backends(self) -> list[BaseStateBackend]:
        """Return the backend that apps brought; of apps that can still be reached, collected or not.

        Raises:
            AmbiguousSwitch: There are several.
        """
        with self._lock:  # weak references only: a local variable would be another way to reach them
            apps = [(app.owner, app.backend, app.is_served()) for app in self._apps if app.backend is not None]
        own = {id(backend): backend for _, backend, is_served in apps if is_served}
        unsure = [(owner, backend) for owner, backend, _ in apps if id(backend) not in own]
        for (_, backend), is_alive in zip(unsure, reachable([owner for owner, _ in unsure]), strict=True):
            if is_alive:
                own[id(backend)] = backend
        if len(own) > 1:
            raise AmbiguousSwitch(len(own))
        return list(own.values())

    def _distinct_own_backends(self) -> list[BaseStateBackend]:
        return list({id(app.backend): app.backend for app in self._apps if app.backend is not None}.values())


def _sibling(backend: BaseStateBackend, name: str) -> BaseStateBackend:
    """Return the backend of a named switch in the same store, always the same one."""
    siblings = backend.siblings_made()
    if name not in siblings:
        sibling = backend.sibling(name)
        if sibling is None:
            raise UnsupportedByBackend(repr(backend), f"a second switch, {name!r}")
        siblings.setdefault(name, sibling)
    return siblings[name]


_ENVIRONMENT = EnvVarBackend()

registry = Registry()
background.call_after_fork(registry.reset_after_fork)


def configure_backend(backend: str | BaseStateBackend, *, name: str = DEFAULT, **options: Any) -> BaseStateBackend:
    """Set where the state of a switch is kept, for the whole process, and return that backend.

    Args:
        backend: ``"env"``, ``"file"``, ``"memory"``, ``"redis"``, ``"sqlalchemy"``; a URL (``env://[VAR]``,
            ``file:///absolute``, ``file:relative``, ``memory://``, ``redis://``, ``rediss://``, ``unix://``, or any
            async SQLAlchemy URL); or a backend.
        name: The switch. One that is never configured takes a place beside the default one's: a sibling variable,
            file, key or row.
        options: The backend's own, such as ``file_path`` for ``"file"``.

    Raises:
        UnknownBackend: No backend has this type or scheme (also a ``ValueError``).
        InvalidConfiguration: The backend has no such option, or not with this value (also a ``ValueError``).
        InvalidSwitchName: The name can't be a switch's (also a ``ValueError``).
    """
    checked_name(name)
    if isinstance(backend, BaseStateBackend):
        if options:
            raise InvalidConfiguration(
                f"options {sorted(options)} go with a backend's type; {backend!r} is made already"
            )
        made = backend
    else:
        made = made_backend(name, backend, options)
    registry.configure(name, made)
    return made


_TYPES: dict[str, Callable[..., BaseStateBackend]] = {
    "env": EnvVarBackend,
    "file": LocalFileBackend,
    "memory": MemoryBackend,
    "redis": RedisBackend,
    "sqlalchemy": SQLAlchemyBackend,
}
_PLACES = {"env": "var_name", "file": "file_path", "redis": "key", "sqlalchemy": "key"}
"""The option that says where in the store a switch is; a named switch without it is beside the default one.

What is not here is a place of its own each time that it is made.
"""
_ASYNC_FORMS = {
    "sqlite": ("sqlite+aiosqlite://",),
    "postgresql": ("postgresql+asyncpg://", "postgresql+psycopg://"),
    "mysql": ("mysql+aiomysql://", "mysql+asyncmy://"),
}
_ASYNC_FORMS |= {"postgres": _ASYNC_FORMS["postgresql"], "mariadb": _ASYNC_FORMS["mysql"]}
"""How the URL of a database begins that was given without a driver."""
_KNOWN = (
    *_TYPES,
    "env://[VAR]",
    "file:///absolute or file:relative",
    "memory://",
    "redis://",
    "rediss://",
    "unix://",
    "an async SQLAlchemy URL such as postgresql+asyncpg://",
)


def backend_from_url(url: str) -> BaseStateBackend:
    """Return the backend of a URL, or of a type that needs no options.

    Raises:
        UnknownBackend: No backend has this scheme.
        InvalidConfiguration: The URL can't work.
    """
    if url in _TYPES:
        return _with_options(url, {})
    scheme, colon, rest = url.partition(":")
    if colon and scheme in _SCHEMES:
        return _SCHEMES[scheme](url)
    if "+" in scheme:
        return SQLAlchemyBackend(url)
    if rest and scheme in _ASYNC_FORMS:
        raise InvalidConfiguration(
            f"backend URL {scheme}://...: an async driver is needed, write {' or '.join(_ASYNC_FORMS[scheme])}"
        )
    store = registered_store(url) if colon else None
    if store is None:
        raise UnknownBackend(scheme if colon else url, _KNOWN)
    return StoreBackend(store)


def _env_of(url: str) -> EnvVarBackend:
    variable = url.removeprefix("env:").removeprefix("//")
    return EnvVarBackend(variable) if variable else EnvVarBackend()


def _memory_of(url: str) -> MemoryBackend:
    if url.removeprefix("memory:").removeprefix("//"):
        raise InvalidConfiguration(f"backend URL {_shown(url)!r}: nothing can follow memory://")
    return MemoryBackend()


def _file_of(url: str) -> LocalFileBackend:
    path = url.removeprefix("file:")
    if path.startswith("//") and not path.startswith("///"):
        raise InvalidConfiguration(
            f"backend URL {_shown(url)!r}: file:///absolute/path or file:relative/path is needed"
        )
    return LocalFileBackend(unquote(path.removeprefix("//")))


_SCHEMES: dict[str, Callable[[str], BaseStateBackend]] = {
    "env": _env_of,
    "memory": _memory_of,
    "file": _file_of,
    "redis": RedisBackend,
    "rediss": RedisBackend,
    "unix": RedisBackend,
}


def _shown(url: str) -> str:
    """Return a URL without what could be credentials."""
    shown = re.sub(r"(:/*).*@", r"\1***@", url, flags=re.DOTALL)
    return re.sub(r"\?.*", "?***", shown, flags=re.DOTALL)


def _told(value: object) -> str:
    """Return what an error can say of a value that is no backend: objects for URLs show their passwords."""
    if isinstance(value, str):
        return repr(_shown(value))
    return repr(value) if value is None or isinstance(value, (bool, type)) else f"<{type(value).__name__}>"


def made_backend(name: str, backend: object, options: dict[str, Any]) -> BaseStateBackend:
    """Return a new backend of a type or URL for switch ``name``, beside the default one if no place is given.

    Raises:
        UnknownBackend, InvalidConfiguration: As ``configure_backend``.
    """
    if not isinstance(backend, str):
        raise InvalidConfiguration(
            f"backend {_told(backend)}: a type or URL ({', '.join(_KNOWN)}) or a backend is needed"
        )
    if backend in _TYPES:
        made = _with_options(backend, options)
        has_place = backend not in _PLACES or _PLACES[backend] in options
    elif ":" in backend:
        if options:
            raise InvalidConfiguration(f"options {sorted(options)} go with a backend's type; a URL says it all")
        made = backend_from_url(backend)
        has_place = isinstance(made, LocalFileBackend) or (backend.startswith("env://") and backend != "env://")
    else:
        raise UnknownBackend(backend, _KNOWN)
    return made if name == DEFAULT or has_place else _sibling(made, name)


def _with_options(kind: str, options: dict[str, Any]) -> BaseStateBackend:
    make = _TYPES[kind]
    parameters = inspect.signature(make).parameters
    accepted = [name for name, one in parameters.items() if one.kind is not one.VAR_KEYWORD]
    missing = [
        name for name in accepted if parameters[name].default is inspect.Parameter.empty and name not in options
    ]
    if len(accepted) < len(parameters):
        accepted += FollowOptions.__annotations__
    unknown = sorted(set(options) - set(accepted))
    problems = [f"needs {', '.join(missing)}"] if missing else []
    problems += [f"has no option {', '.join(unknown)}"] if unknown else []
    if problems:
        raise InvalidConfiguration(f"backend {kind!r} {' and '.join(problems)}; accepted: {', '.join(accepted)}")
    return make(**options)


def checked_name(name: object) -> str:
    """Return a switch's name, or raise ``InvalidSwitchName``."""
    if not isinstance(name, str) or not is_switch_name(name):
        raise InvalidSwitchName(name)
    return name


def checked_backend(backend: object, *, beside_name: bool = True) -> BaseStateBackend:
    """Return a backend, or raise ``InvalidConfiguration``; ``beside_name``: whether the caller has a ``name=`` too."""
    if not isinstance(backend, BaseStateBackend):
        problem = f"backend={_told(backend)}: an instance of a BaseStateBackend subclass is needed"
        if beside_name and is_switch_name(backend):
            problem += f"; to say which switch is meant, write name={backend!r}"
        raise InvalidConfiguration(problem)
    return backend
