"""Creates backends from types, URLs and options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from ..backends.base import DEFAULTS, BaseStateBackend, StoreBackend, get_siblings
from ..backends.env import EnvVarBackend
from ..backends.file import LocalFileBackend
from ..backends.memory import MemoryBackend
from ..backends.redis import RedisBackend
from ..backends.sqlalchemy import SQLAlchemyBackend
from ..exceptions import InvalidConfiguration, InvalidSwitchName, UnknownBackend, UnsupportedByBackend
from ..stores.contract import is_switch_name
from ..stores.redaction import redact_repr, redact_url
from ..stores.urls import make_registered_store
from .app_switch import DEFAULT

BACKEND_VARIABLE = "FASTAPI_MAINTENANCE_BACKEND"
"""The environment variable with the URL of the default backend."""


def sibling_of(backend: BaseStateBackend, name: str) -> BaseStateBackend:
    """Return the backend of a named switch in the same store; each call returns the same object.

    Raises:
        UnsupportedByBackend: The store can hold only one switch.
    """
    siblings = get_siblings(backend)
    if name not in siblings:
        sibling = backend.sibling(name)
        if sibling is None:
            raise UnsupportedByBackend(repr(backend), f"a second switch, {name!r}")
        siblings.setdefault(name, sibling)
    return siblings[name]


_TYPES: dict[str, Callable[..., BaseStateBackend]] = {
    "env": EnvVarBackend,
    "file": LocalFileBackend,
    "memory": MemoryBackend,
    "redis": RedisBackend,
    "sqlalchemy": SQLAlchemyBackend,
}
_PLACES = {"env": "var_name", "file": "file_path", "redis": "key", "sqlalchemy": "key"}
"""The option with a switch's place in the store; without it, a named switch is stored beside the default switch.

Each backend of any other type is a place of its own.
"""
_ASYNC_FORMS = {
    "sqlite": ("sqlite+aiosqlite://",),
    "postgresql": ("postgresql+asyncpg://", "postgresql+psycopg://"),
    "mysql": ("mysql+aiomysql://", "mysql+asyncmy://"),
}
_ASYNC_FORMS |= {"postgres": _ASYNC_FORMS["postgresql"], "mariadb": _ASYNC_FORMS["mysql"]}
"""The prefixes of async URLs, by the scheme of a database URL without a driver."""
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
    """Return a new backend for a URL, or for a type that needs no options.

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
            f"backend URL must name an async driver, got {scheme}://...; write {' or '.join(_ASYNC_FORMS[scheme])}"
        )
    store = make_registered_store(url) if colon else None
    if store is None:
        raise UnknownBackend(scheme if colon else url, _KNOWN)
    return StoreBackend(store)


def _env_of(url: str) -> EnvVarBackend:
    variable = url.removeprefix("env:").removeprefix("//")
    return EnvVarBackend(variable) if variable else EnvVarBackend()


def _memory_of(url: str) -> MemoryBackend:
    if url.removeprefix("memory:").removeprefix("//"):
        raise InvalidConfiguration(f"backend URL must be memory:// without a path, got {redact_url(url)!r}")
    return MemoryBackend()


def _file_of(url: str) -> LocalFileBackend:
    path = url.removeprefix("file:")
    if path.startswith("//") and not path.startswith("///"):
        raise InvalidConfiguration(
            f"backend URL must be file:///absolute/path or file:relative/path, got {redact_url(url)!r}"
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


def make_backend(name: str, backend: object, options: dict[str, Any]) -> BaseStateBackend:
    """Return a new backend of a type or URL for switch ``name``, beside the default switch if no place is given.

    Raises:
        UnknownBackend, InvalidConfiguration: See ``configure_backend``.
    """
    if not isinstance(backend, str):
        raise InvalidConfiguration(
            f"backend must be a type or URL ({', '.join(_KNOWN)}) or a backend, got {redact_repr(backend)}"
        )
    if backend in _TYPES:
        made = _with_options(backend, options)
        has_place = backend not in _PLACES or _PLACES[backend] in options
    elif ":" in backend:
        if options:
            raise InvalidConfiguration(f"options {sorted(options)} must come with a backend's type, not with a URL")
        made = backend_from_url(backend)
        has_place = isinstance(made, LocalFileBackend) or (backend.startswith("env://") and backend != "env://")
    else:
        raise UnknownBackend(backend, _KNOWN)
    return made if name == DEFAULT or has_place else sibling_of(made, name)


def _with_options(kind: str, options: dict[str, Any]) -> BaseStateBackend:
    make = _TYPES[kind]
    parameters = inspect.signature(make).parameters
    accepted = [name for name, one in parameters.items() if one.kind is not one.VAR_KEYWORD]
    missing = [
        name for name in accepted if parameters[name].default is inspect.Parameter.empty and name not in options
    ]
    if len(accepted) < len(parameters):
        accepted += DEFAULTS
    unknown = sorted(set(options) - set(accepted))
    problems = [f"needs {', '.join(missing)}"] if missing else []
    problems += [f"has no option {', '.join(unknown)}"] if unknown else []
    if problems:
        raise InvalidConfiguration(f"backend {kind!r} {' and '.join(problems)}; accepted: {', '.join(accepted)}")
    return make(**options)


def check_name(name: object) -> str:
    """Return a switch's name.

    Raises:
        InvalidSwitchName: It is not a valid name.
    """
    if not isinstance(name, str) or not is_switch_name(name):
        raise InvalidSwitchName(name)
    return name
