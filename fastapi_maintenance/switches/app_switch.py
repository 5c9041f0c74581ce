"""The default switch of an app, and the app that is answering the current request."""

from __future__ import annotations

import asyncio
import weakref
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from starlette.types import Scope

from ..backends.base import BaseStateBackend

DEFAULT = "default"
"""The name of the switch for the whole app."""


@dataclass(eq=False)
class AppSwitch:
    """The configuration of an app's default switch."""

    backend: BaseStateBackend | None = None
    """The app's own backend; ``None`` for the configured backend."""
    enable_maintenance: bool | None = None
    replacements: tuple[tuple[str, BaseStateBackend], ...] = ()
    """The switches whose backends are replaced in tests of the app; the latest is first."""
    gate: Any = None
    """The gate that judges the app's requests; ``None`` for an app without the middleware."""

    def __post_init__(self) -> None:
        self.owner: weakref.ref[object] = weakref.ref(self)
        """An object that is reachable as long as the app is: its middleware."""
        self.views: weakref.WeakSet[Any] = weakref.WeakSet()
        """The views that the app uses; their stores are followed for it."""
        self.lifespans: list[asyncio.AbstractEventLoop | None] = []
        """The event loops that run the app's lifespan; ``None`` for a loop that is not asyncio's."""
        self.replace_backends()

    def replace_backends(self, *replacements: tuple[str, BaseStateBackend]) -> None:
        """Use these backends for their switches; one for the default switch disables ``enable_maintenance``."""
        self.replacements = replacements
        self.override = None if DEFAULT in dict(replacements) else self.enable_maintenance
        """Overrides the stored mode of the default switch, unless ``None``."""

    def is_served(self) -> bool:
        """Return whether an event loop is running the app's lifespan, so that the app is reachable."""
        return any(loop is not None and loop.is_running() for loop in self.lifespans)

    def override_of(self, switch: str) -> bool | None:
        """Return the override of a switch's stored mode; only the default switch can have an override."""
        return self.override if switch == DEFAULT else None


answering: ContextVar[tuple[AppSwitch, Scope, Any] | None] = ContextVar("fastapi_maintenance_answering", default=None)
"""The app that is answering the current request, the request's scope, and the same tuple of the enclosing app."""


def answering_app() -> AppSwitch | None:
    """Return the app that is answering the current request, if there is one."""
    current = answering.get()
    return None if current is None else current[0]


def override_of_meant(backend: BaseStateBackend | None, switch: str) -> bool | None:
    """Return the override of the stored mode, for the switch that ``Registry.resolve`` selects."""
    app = answering_app()
    return None if app is None or backend is not None else app.override_of(switch)
