"""Read the middleware, guards and options of an app."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from starlette.applications import Starlette

from ..answers.answer import DEFAULT_ANSWER, Answer
from ..guard import MaintenanceGuard
from ..middleware import MaintenanceModeMiddleware
from ..switches.app_switch import AppSwitch
from .routes import Operation


def middleware_options(app: Starlette) -> dict[str, Any]:
    """Return the arguments and class of the app's ``MaintenanceModeMiddleware``, or an empty dict without one."""
    for middleware in app.user_middleware:
        kind: Any = middleware.cls
        if isinstance(kind, type) and issubclass(kind, MaintenanceModeMiddleware):
            return {"class": kind, **dict(zip(_POSITIONAL, middleware.args, strict=False)), **middleware.kwargs}
    return {}


_POSITIONAL = ("enable_maintenance", "backend", "exempt_handler", "response_handler")


def answer_of(options: Mapping[str, Any]) -> Answer:
    """Return the answer in a middleware's options, or the default answer."""
    answer = options.get("answer")
    return answer if isinstance(answer, Answer) else DEFAULT_ANSWER


def switch_of(options: Mapping[str, Any]) -> AppSwitch:
    """Return the default switch that a middleware's options configure."""
    return AppSwitch(options.get("backend"), options.get("enable_maintenance"))


def guards_of(operation: Operation) -> Iterator[MaintenanceGuard]:
    """Yield the guards among an operation's dependencies."""
    return (call for call in operation.dependencies if isinstance(call, MaintenanceGuard))
