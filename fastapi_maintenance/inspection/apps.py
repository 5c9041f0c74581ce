"""Find the maintenance middleware and the guards of an app."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.types import ASGIApp

from ..gate.gate import Gate
from ..gate.options import Options
from ..guard import MaintenanceGuard
from ..middleware import MaintenanceModeMiddleware
from ..routing.apps import steps_of
from ..switches.app_switch import AppSwitch
from .routes import Operation


class MiddlewareInfo(NamedTuple):
    """A ``MaintenanceModeMiddleware`` that was built, or only added to an app."""

    switch: AppSwitch
    """The default switch that it configures."""
    options: Options
    gate: Gate | None = None
    """Its gate, if it was built."""


def find_middleware(app: Starlette) -> MiddlewareInfo | None:
    """Return an app's own middleware, or ``None``: as it was built, or else as it was added."""
    built = steps_of(app.middleware_stack, lambda step: getattr(step, "app", None))
    return next(_describe_built(built), None) or next(_describe_added(app), None)


def find_middleware_around(app: ASGIApp) -> list[MiddlewareInfo]:
    """Return the middleware around an app, outermost first, without the app's own."""
    return list(_describe_built(steps_of(app)))


def _describe_built(steps: Iterable[Any]) -> Iterator[MiddlewareInfo]:
    for step in steps:
        if isinstance(step, MaintenanceModeMiddleware):
            yield MiddlewareInfo(step.gate.app, step.gate.options, step.gate)


def _describe_added(app: Starlette) -> Iterator[MiddlewareInfo]:
    for added in app.user_middleware:
        kind: Any = added.cls
        if isinstance(kind, type) and issubclass(kind, MaintenanceModeMiddleware):
            given: dict[str, Any] = {**dict(zip(_POSITIONAL, added.args, strict=False)), **added.kwargs}
            switch = AppSwitch(given.get("backend"), given.get("enable_maintenance"))
            yield MiddlewareInfo(switch, Options(*map(given.get, _OPTIONS)))


_POSITIONAL = ("enable_maintenance", "backend", "exempt_handler", "response_handler")
_OPTIONS = ("exemptions", "exempt_handler", "response_handler", "answer")
"""The arguments of ``Options``."""


def find_guards(dependencies: Iterable[Any]) -> list[MaintenanceGuard]:
    """Return the guards among the dependencies of an operation or of a request's target."""
    return [call for call in dependencies if isinstance(call, MaintenanceGuard)]


def find_guarded_switches(operations: Iterable[Operation]) -> list[str]:
    """Return the names of the switches of the operations' guards, each once."""
    guards = (guard for operation in operations for guard in find_guards(operation.dependencies))
    return list(dict.fromkeys(guard.name for guard in guards))
