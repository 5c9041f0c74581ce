"""Helpers for your tests: set a switch of an app without any store, ask what stays open, check a store of your own.

``pytest_plugins = ["fastapi_maintenance.pytest_plugin"]`` in a ``conftest.py`` adds the fixture ``maintenance``.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar, cast

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from .backends.memory import MemoryBackend
from .exceptions import InvalidConfiguration
from .gate.gate import Gate
from .guard import MaintenanceGuard, unguarded_app
from .middleware import MaintenanceModeMiddleware
from .model.decision import Decision, Rule
from .model.modes import MaintenanceMode, as_mode
from .model.state import MaintenanceState
from .routing.walk import Target, resolve
from .stores.check import BrokenPromise, check_document_store
from .switches.app_switch import DEFAULT
from .switches.backend_urls import checked_name
from .switches.control import check_reason
from .switches.registry import registry

__all__ = ["BrokenPromise", "assert_blocked", "assert_open", "check_document_store", "maintenance"]

T = TypeVar("T")

Mode = bool | MaintenanceMode | Literal["off", "on", "read_only"]
Asked = str | tuple[str, str]
"""A path, asked for by GET, or a method and a path."""


@contextlib.contextmanager
def maintenance(
    app: Starlette,
    mode: Mode = True,
    *,
    name: str = DEFAULT,
    reason: str | None = None,
    until: datetime | None = None,
) -> Iterator[MemoryBackend]:
    """Set a switch for one app for the duration of a block, without touching its store; gives what stands in for it.

    Requests to the app, and what they ask by ``get_maintenance_mode()``, see this mode instead of what the store, an
    ``enable_maintenance`` or other code says. Other apps and the store see nothing of it. Blocks nest.

    Args:
        app: The app that has the middleware, or guards only. Its middleware is built, as by a first request.
        mode: A bool or a mode.
        name: The switch.
        reason: What clients are told.
        until: When it ends, an aware datetime.

    Raises:
        InvalidConfiguration: It is no app, or the mode can't be one.
        InvalidSwitchName: The name can't be a switch's.
    """
    checked_name(name)
    check_reason(reason)
    now = datetime.now(UTC)
    state = MaintenanceState(mode=as_mode(mode), reason=reason, since=now, until=until, version=1, updated_at=now)
    backend = MemoryBackend(state)
    gate = _gate_of(app)
    undo = registry.override(unguarded_app(app) if gate is None else gate.app, name, backend)
    try:
        yield backend
    finally:
        undo()


def assert_open(app: Starlette, *asked: Asked, name: str = DEFAULT) -> None:
    """Fail unless these requests would pass while a switch is on; no endpoint and no dependency runs.

    What is asked is what the middleware and the guards on the way would decide about a request without headers or
    body; an ``exempt_handler`` is asked as well. Dependencies that refuse for other reasons are not.

    Args:
        app: The app.
        asked: Paths, or pairs of a method (or ``"WEBSOCKET"``) and a path: ``"/health", ("POST", "/login")``.
        name: The switch that is on.

    Raises:
        AssertionError: One of them would be blocked, and why; or it has no route, so it says nothing.
    """
    with maintenance(app, name=name):
        wrong = [told for method, path in _pairs(asked) if (told := _complaint(app, method, path, name, open_=True))]
    if wrong:
        raise AssertionError("; ".join(wrong))


def assert_blocked(app: Starlette, *asked: Asked, name: str = DEFAULT) -> None:
    """Fail unless these requests would be refused while a switch is on; as ``assert_open``.

    Raises:
        AssertionError: One of them would pass, and why; or it has no route, so it says nothing.
    """
    with maintenance(app, name=name):
        wrong = [told for method, path in _pairs(asked) if (told := _complaint(app, method, path, name, open_=False))]
    if wrong:
        raise AssertionError("; ".join(wrong))


def _pairs(asked: Iterable[Asked]) -> list[tuple[str, str]]:
    pairs = [("GET", one) if isinstance(one, str) else one for one in asked]
    if not pairs:
        raise InvalidConfiguration("nothing was asked: give paths, or pairs of a method and a path")
    for _, path in pairs:
        if not path.startswith("/"):
            raise InvalidConfiguration(f"path {path!r}: it begins with a slash")
    return [(method.upper(), path) for method, path in pairs]


def _complaint(app: Starlette, method: str, path: str, name: str, *, open_: bool) -> str | None:
    """Return what is wrong with one request, if something is."""
    target, decision = _apart(_decided(app, method, path))
    if not target.runs:
        return f"{method} {path} runs nothing: {_way_out(app, path)}"
    if decision.blocked is not open_:
        return None
    switches = sorted({guard.name for guard in _guards(target)} - {DEFAULT})
    if name not in (DEFAULT, *switches) and not open_ and decision.rule is Rule.MODE:
        others = f"guards of {', '.join(map(repr, switches))} do" if switches else "no guard of a named switch does"
        return f"{method} {path} is open: no guard of switch {name!r} stands before it; {others}"
    said = f"by {decision.rule}" + (f" ({decision.exemption})" if decision.exemption else "")
    return f"{method} {path} is {'blocked' if open_ else 'open'} {said}, switch {decision.switch!r}"


def _way_out(app: Starlette, path: str) -> str:
    """Return how else a path can be asked for that runs nothing as it was."""
    others = [method for method in _METHODS if resolve(app.router, _scope(app, method, path)).runs]
    if others:
        return f"the route has {', '.join(others)}, so ask for ({others[0]!r}, {path!r})"
    query = "; a path is asked for without its query, leave '?...' out" if "?" in path else ""
    return f"there is no such route{query}"


_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WEBSOCKET")


async def _decided(app: Starlette, method: str, path: str) -> tuple[Target, Decision]:
    """Return what a request would run, and what middleware and guards would decide about it."""
    scope = _scope(app, method, path)
    gate, visit = _gate_of(app), None
    decision: Decision | None = None
    if gate is not None:
        visit = gate.arrive(scope)
        verdict, _ = await gate.judge(visit, app.router, None, scope, _receive_of(scope))
        decision = verdict.decision
    target = resolve(app.router, scope, with_dependencies=True)
    scope["endpoint"] = target.endpoint
    for guard in _guards(target):
        if decision is None or not decision.blocked:
            decision = await guard.decision(_connection(scope), visit)
    if decision is None:
        raise InvalidConfiguration(
            f"{method} {path}: neither MaintenanceModeMiddleware nor a MaintenanceGuard stands before it"
        )
    return target, decision


def _guards(target: Target) -> list[MaintenanceGuard]:
    return [one for one in target.dependencies if isinstance(one, MaintenanceGuard)]


def _scope(app: Starlette, method: str, path: str) -> Scope:
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": getattr(app, "root_path", ""),
        "headers": [(b"host", b"testserver")],
        "client": ("testclient", 50000),
        "server": ("testserver", 80),
        "extensions": {},
        "app": app,
    }
    if method == "WEBSOCKET":
        scope.update(type="websocket", scheme="ws", subprotocols=[])
        del scope["method"]
    return scope


def _connection(scope: Scope) -> HTTPConnection:
    if scope["type"] == "http":
        return Request(scope, _receive_of(scope))
    return WebSocket(scope, _receive_of(scope), cast("Send", None))  # nobody answers it


def _receive_of(scope: Scope) -> Receive:
    """Return what a client sends that sends nothing."""
    empty: Message = {"type": "http.request", "body": b"", "more_body": False}

    async def receive() -> Message:
        return empty if scope["type"] == "http" else {"type": "websocket.connect"}

    return receive


def _gate_of(app: Starlette) -> Gate | None:
    """Return the gate of an app's middleware, if it has one; the middleware is built for it."""
    if not isinstance(app, Starlette):
        raise InvalidConfiguration(f"app={app!r}: a FastAPI or Starlette app is needed")
    if app.middleware_stack is None:
        app.middleware_stack = app.build_middleware_stack()
    step: ASGIApp | None = app.middleware_stack
    while step is not None:
        if isinstance(step, MaintenanceModeMiddleware):
            return step.gate
        step = getattr(step, "app", None)
    return None


def _apart(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return a coroutine's result from an event loop of its own, whether one is running here or not."""
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(asyncio.run(coroutine))
        except BaseException as error:  # noqa: BLE001 - raised below
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]
