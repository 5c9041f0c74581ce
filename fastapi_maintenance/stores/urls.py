"""Stores of your own, by the scheme of their URLs."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from ..exceptions import InvalidConfiguration
from .contract import DocumentStore

ENTRY_POINTS = "fastapi_maintenance.stores"
"""The entry point group: the name is the scheme, the object is the factory."""

BUILT_IN = ("env", "memory", "file", "redis", "rediss", "unix")

StoreFactory = Callable[[str], DocumentStore]

_SCHEME = re.compile(r"[a-z][a-z0-9.-]*")
_factories: dict[str, StoreFactory] = {}


def register_store(scheme: str, factory: StoreFactory) -> None:
    """Have URLs of a scheme mean a store of your own, wherever a backend URL is accepted, the command line included.

    For the command line, declare it in your ``pyproject.toml`` as well, since that does not import your app::

        [project.entry-points."fastapi_maintenance.stores"]
        nats = "my_package.store:NatsStore"

    Args:
        scheme: Such as ``"nats"``. Registering it again replaces the former factory.
        factory: Called with the whole URL; returns the store. It must not connect yet.

    Raises:
        InvalidConfiguration: The scheme is one of this package's own, or can't be one; or the factory isn't callable.
    """
    if not _SCHEME.fullmatch(scheme):
        raise InvalidConfiguration(
            f"scheme={scheme!r} must be lower-case letters, digits, '.' and '-', with a letter first"
        )
    if scheme in BUILT_IN:
        raise InvalidConfiguration(f"scheme={scheme!r} is one of this package's own; give your store another one")
    if not callable(factory):
        raise InvalidConfiguration(f"factory={factory!r} must be a function that takes a URL and returns a store")
    _factories[scheme] = factory


def registered_store(url: str) -> DocumentStore | None:
    """Return the store of a URL, or ``None`` if nobody has registered its scheme.

    Raises:
        InvalidConfiguration: What the factory returns is no store.
    """
    scheme = url.partition(":")[0]
    factory: Any = _factories.get(scheme)
    if factory is None:
        for entry_point in entry_points(group=ENTRY_POINTS, name=scheme):
            factory = entry_point.load()
    if factory is None:
        return None
    store = factory(url)
    if not isinstance(store, DocumentStore):
        raise InvalidConfiguration(
            f"the factory of {scheme}:// returned {type(store).__name__}; it must return a DocumentStore"
        )
    return store
