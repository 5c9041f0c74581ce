"""Which switch an app means, and the app that is answering."""

from __future__ import annotations

import asyncio
import weakref
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from starlette.types import Scope

from ..backends.base import BaseStateBackend

DEFAULT = "default"
"""The switch of the whole app."""


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
