"""The one table from switch name to backend, shared by middleware, guard and context managers."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

from ..backends.base import BaseStateBackend
from ..backends.env import EnvVarBackend
from ..concurrency import io_thread
from ..exceptions import AmbiguousSwitch, InvalidConfiguration, UnsupportedByBackend
from ..stores.contract import is_switch_name
from .app_switch import DEFAULT, AppSwitch, answering_app
from .backend_urls import ASYNC_FORMS, BACKEND_VARIABLE, backend_from_url, checked_name, made_backend, sibling_of, told
from .reachability import reachable


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
            return checked_backend(backend) if name == DEFAULT else sibling_of(checked_backend(backend), name)
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
            return sibling_of(default, name)
        except UnsupportedByBackend:
            # A user's own backend has no place for a second switch: that is the environment's, as by default.
            return sibling_of(_ENVIRONMENT, name)

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


_ENVIRONMENT = EnvVarBackend()

registry = Registry()
io_thread.call_after_fork(registry.reset_after_fork)


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


ASYNC_FORMS |= {"postgres": ASYNC_FORMS["postgresql"], "mariadb": ASYNC_FORMS["mysql"]}
"""How the URL of a database begins that was given without a driver."""


def checked_backend(backend: object, *, beside_name: bool = True) -> BaseStateBackend:
    """Return a backend, or raise ``InvalidConfiguration``; ``beside_name``: whether the caller has a ``name=`` too."""
    if not isinstance(backend, BaseStateBackend):
        problem = f"backend={told(backend)}: an instance of a BaseStateBackend subclass is needed"
        if beside_name and is_switch_name(backend):
            problem += f"; to say which switch is meant, write name={backend!r}"
        raise InvalidConfiguration(problem)
    return backend
