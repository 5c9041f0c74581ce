"""The registry of your own stores, by URL scheme."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from ..exceptions import InvalidConfiguration
from .contract import DocumentStore

ENTRY_POINTS = "fastapi_maintenance.stores"
"""The entry point group. Entry points have the scheme as name and the factory as object."""

BUILT_IN = ("env", "memory", "file", "redis", "rediss", "unix")

StoreFactory = Callable[[str], DocumentStore]

_SCHEME = re.compile(r"[a-z][a-z0-9.-]*")
_factories: dict[str, StoreFactory] = {}


def register_store(scheme: str, factory: StoreFactory) -> None:
    """Register a store of your own for a URL scheme. Its URLs work wherever a backend URL is accepted.

    The command line does not import your app, so declare the store in your ``pyproject.toml`` as well::

        [project.entry-points."fastapi_maintenance.stores"]
        nats = "my_package.store:NatsStore"

    Args:
        scheme: Such as ``"nats"``. Registering a scheme again replaces its factory.
        factory: Called with the whole URL; returns the store. It must not connect yet.

    Raises:
        InvalidConfiguration: The scheme is invalid or built in, or the factory isn't callable.
    """
    if not _SCHEME.fullmatch(scheme):
        raise InvalidConfiguration(
            f"scheme={scheme!r} must be lower-case letters, digits, '.' and '-', with a letter first"
        )
    if scheme in BUILT_IN:
        raise InvalidConfiguration(f"scheme={scheme!r} is built in; give your store another scheme")
    if not callable(factory):
        raise InvalidConfiguration(f"factory={factory!r} must be a function that takes a URL and returns a store")
    _factories[scheme] = factory


def make_registered_store(url: str) -> DocumentStore | None:
    """Return the store of a URL, or ``None`` if its scheme is not registered.

    Raises:
        InvalidConfiguration: The factory did not return a store.
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
