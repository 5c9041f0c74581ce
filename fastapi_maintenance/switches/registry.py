"""The registry that maps switch names to backends, shared by middleware, guards and blocks."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

from ..backends.base import BaseStateBackend, get_siblings
from ..backends.env import EnvVarBackend
from ..concurrency import io_thread
from ..exceptions import AmbiguousSwitch, InvalidConfiguration, UnsupportedByBackend
from ..stores.contract import is_switch_name
from ..stores.redaction import redact_repr
from .app_switch import DEFAULT, AppSwitch
from .backend_urls import (
    BACKEND_VARIABLE,
    backend_from_url,
    check_name,
    make_backend,
    sibling_of,
)
from .passage import answering_app
from .reachability import find_reachable


class Registry:
    """Maps each switch to its backend."""

    def __init__(self) -> None:
        self._configured: dict[str, BaseStateBackend] = {}
        self._apps: weakref.WeakSet[AppSwitch] = weakref.WeakSet()
        self.had_app = False
        """Whether an app with the middleware was ever created in this process."""
        self._guarded: dict[str, None] = {}
        """The switches of guards, in order of creation."""
        self._lock = threading.RLock()
        self.version = 0
        """Grows with each change, so that lookups can be cached until then."""

    def reset_after_fork(self) -> None:
        """Replace the lock in a forked child: its owner may be a thread of the parent."""
        self._lock = threading.RLock()

    def configure(self, name: str, backend: BaseStateBackend) -> None:
        """Use ``backend`` for switch ``name``."""
        with self._lock:
            self._configured[name] = backend
            self.version += 1

    def add_app(self, app: AppSwitch) -> None:
        """Register an app; calls without a backend may use the app's own."""
        with self._lock:
            self._apps.add(app)
            self.had_app = True

    def add_guarded(self, name: str) -> None:
        """Register the switch of a guard, to be followed from an app's start."""
        self._guarded[name] = None

    def guarded(self) -> tuple[str, ...]:
        """Return the names of the switches of this process's guards."""
        return tuple(self._guarded)

    def in_use(self) -> list[tuple[str, BaseStateBackend]]:
        """Return this process's switches with their backends; each backend once."""
        with self._lock:
            found = [(DEFAULT, app.backend) for app in self._apps if app.backend is not None]
            found += self._configured.items()
            for _, backend in tuple(found):
                found += get_siblings(backend).items()
            found += get_siblings(_ENVIRONMENT).items()
        return list({id(backend): (name, backend) for name, backend in reversed(found)}.values())[::-1]

    def replace(self, app: AppSwitch, name: str, backend: BaseStateBackend) -> Callable[[], None]:
        """Use ``backend`` for an app's switch until the returned function is called; calls may come in any order."""
        replacement = (name, backend)
        with self._lock:
            app.replace_backends(replacement, *app.replacements)
            self.version += 1

        def undo() -> None:
            with self._lock:
                app.replace_backends(*(other for other in app.replacements if other is not replacement))
                self.version += 1

        return undo

    def of_app(self, app: AppSwitch, name: str = DEFAULT) -> BaseStateBackend:
        """Return the backend that an app uses for a switch."""
        for replaced, backend in app.replacements:
            if replaced == name:
                return backend
        return self._find(name, app.backend)

    def resolve(self, backend: BaseStateBackend | None = None, name: str = DEFAULT) -> BaseStateBackend:
        """Return the backend for a call.

        This is the given backend, if any. Otherwise, inside a request, it is the backend of the answering app; outside
        a request, the own backend of the only app that has one, or the configured backend.

        Raises:
            AmbiguousSwitch: Several apps have their own backend.
            InvalidSwitchName: The name can't be a switch's.
        """
        check_name(name)
        if backend is not None:
            return check_backend(backend) if name == DEFAULT else sibling_of(check_backend(backend), name)
        app = answering_app()
        if app is not None:
            return self.of_app(app, name)
        is_configured = name != DEFAULT and name in self._configured
        return self._find(name, None if is_configured else self._own_backend())

    def _find(self, name: str, own: BaseStateBackend | None) -> BaseStateBackend:
        """Return the backend of a switch, where ``own`` is that of the default switch unless it is ``None``."""
        with self._lock:
            if name != DEFAULT and name in self._configured:
                return self._configured[name]
            default = self._default() if own is None else own
            try:
                return default if name == DEFAULT else sibling_of(default, name)
            except UnsupportedByBackend:
                # A two-method backend can hold only one switch, so the environment holds the others, as by default.
                return sibling_of(_ENVIRONMENT, name)

    def _default(self) -> BaseStateBackend:
        if DEFAULT not in self._configured:
            url = os.environ.get(BACKEND_VARIABLE, "").strip()
            self._configured[DEFAULT] = backend_from_url(url) if url else EnvVarBackend()
        return self._configured[DEFAULT]

    def _own_backend(self) -> BaseStateBackend | None:
        """Return the own backend of reachable apps, if there is one.

        Raises:
            AmbiguousSwitch: There are several.
        """
        with self._lock:  # weak references only: a local variable would make an app reachable
            apps = [(app.owner, app.backend, app.is_served()) for app in self._apps if app.backend is not None]
        own = {id(backend): backend for _, backend, is_served in apps if is_served}
        unsure = [(owner, backend) for owner, backend, _ in apps if id(backend) not in own]
        for (_, backend), is_alive in zip(unsure, find_reachable([owner for owner, _ in unsure]), strict=True):
            if is_alive:
                own[id(backend)] = backend
        if len(own) > 1:
            raise AmbiguousSwitch(len(own))
        return next(iter(own.values()), None)


_ENVIRONMENT = EnvVarBackend()

registry = Registry()
io_thread.call_after_fork(registry.reset_after_fork)


def configure_backend(backend: str | BaseStateBackend, *, name: str = DEFAULT, **options: Any) -> BaseStateBackend:
    """Set the backend of a switch for the whole process, and return it.

    Args:
        backend: ``"env"``, ``"file"``, ``"memory"``, ``"redis"``, ``"sqlalchemy"``; a URL (``env://[VAR]``,
            ``file:///absolute``, ``file:relative``, ``memory://``, ``redis://``, ``rediss://``, ``unix://``, or any
            async SQLAlchemy URL); or a backend.
        name: The switch. A switch that is never configured is stored beside the default switch: in a sibling variable,
            file, key or row.
        options: Options of the backend's type, such as ``file_path`` for ``"file"``.

    Raises:
        UnknownBackend: No backend has this type or scheme (also a ``ValueError``).
        InvalidConfiguration: An option is unknown or its value is invalid (also a ``ValueError``).
        InvalidSwitchName: The name can't be a switch's (also a ``ValueError``).
    """
    check_name(name)
    if isinstance(backend, BaseStateBackend):
        if options:
            raise InvalidConfiguration(
                f"options {sorted(options)} must come with a backend's type, not with a backend, got {backend!r}"
            )
        made = backend
    else:
        made = make_backend(name, backend, options)
    registry.configure(name, made)
    return made


def check_backend(backend: object, *, beside_name: bool = True) -> BaseStateBackend:
    """Return a backend, or raise ``InvalidConfiguration``.

    Args:
        backend: The value to check.
        beside_name: Whether the caller also has a ``name=``, which the error can suggest.
    """
    if not isinstance(backend, BaseStateBackend):
        problem = f"backend must be an instance of a BaseStateBackend subclass, got {redact_repr(backend)}"
        if beside_name and is_switch_name(backend):
            problem += f"; to select a switch, write name={backend!r}"
        raise InvalidConfiguration(problem)
    return backend
