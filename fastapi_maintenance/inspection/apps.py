"""Which middleware and guards an app has, and their options."""

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
    """Return what the app's ``MaintenanceModeMiddleware`` is given, and the middleware's class; empty without one."""
    for middleware in app.user_middleware:
        kind: Any = middleware.cls
        if isinstance(kind, type) and issubclass(kind, MaintenanceModeMiddleware):
            return {"class": kind, **dict(zip(_POSITIONAL, middleware.args, strict=False)), **middleware.kwargs}
    return {}


_POSITIONAL = ("enable_maintenance", "backend", "exempt_handler", "response_handler")


def answer_of(options: Mapping[str, Any]) -> Answer:
    answer = options.get("answer")
    return answer if isinstance(answer, Answer) else DEFAULT_ANSWER


def switch_of(options: Mapping[str, Any]) -> AppSwitch:
    """Return what an app's middleware is given for its default switch."""
    return AppSwitch(options.get("backend"), options.get("enable_maintenance"))


def guards_of(operation: Operation) -> Iterator[MaintenanceGuard]:
    return (call for call in operation.dependencies if isinstance(call, MaintenanceGuard))
