"""Helpers for your tests: set a switch of an app without a store, assert which requests pass, check your own store.

``pytest_plugins = ["fastapi_maintenance.pytest_plugin"]`` in a ``conftest.py`` adds the fixture ``maintenance``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from .backends.memory import MemoryBackend
from .exceptions import InvalidConfiguration
from .gate.gate import Gate
from .guard import unguarded_app
from .inspection.apps import find_guards, find_middleware
from .model.decision import Decision, Rule
from .model.modes import MaintenanceMode, ModeName, as_mode
from .model.state import MaintenanceState
from .routing.walk import Target, resolve
from .stores.check import BrokenPromise, check_document_store
from .switches.app_switch import DEFAULT
from .switches.backend_urls import check_name
from .switches.control import check_reason
from .switches.registry import registry

__all__ = ["BrokenPromise", "assert_blocked", "assert_open", "check_document_store", "maintenance"]

T = TypeVar("T")

Mode = bool | MaintenanceMode | ModeName
Asked = str | tuple[str, str]
"""A path, requested with GET, or a method and a path."""


@contextlib.contextmanager
def maintenance(
    app: Starlette,
    mode: Mode = True,
    *,
    name: str = DEFAULT,
    reason: str | None = None,
    until: datetime | None = None,
) -> Iterator[MemoryBackend]:
    """Set a switch for one app within a block, without touching its store; yield the backend that replaces the store.

    Requests to the app, and ``get_maintenance_mode()`` within them, see this mode and ignore the store,
    ``enable_maintenance`` and other code. Other apps and the store are not affected. Blocks nest.

    Args:
        app: The app with the middleware, or with guards only. Its middleware is built, as by a first request.
        mode: A bool or a mode.
        name: The switch.
        reason: The reason for clients.
        until: The end, an aware datetime.

    Raises:
        InvalidConfiguration: ``app`` is no app, or an option is invalid.
        InvalidSwitchName: The name is invalid.
    """
    check_name(name)
    check_reason(reason)
    now = datetime.now(UTC)
    state = MaintenanceState(mode=as_mode(mode), reason=reason, since=now, until=until, version=1, updated_at=now)
    backend = MemoryBackend(state)
    gate = _gate_of(app)
    undo = registry.replace(unguarded_app(app) if gate is None else gate.app, name, backend)
    try:
        yield backend
    finally:
        undo()


def assert_open(app: Starlette, *asked: Asked, name: str = DEFAULT) -> None:
    """Raise unless these requests would pass while a switch is on; no endpoint and no dependency runs.

    The middleware and the guards on the way, and their ``exempt_handler``, decide about a request without headers or
    body. Dependencies that refuse for other reasons are ignored.

    Args:
        app: The app.
        asked: Paths, or pairs of a method (or ``"WEBSOCKET"``) and a path: ``"/health", ("POST", "/login")``.
        name: The switch that is on.

    Raises:
        AssertionError: A request would be blocked, with the rule; or it has no route, so it proves nothing.
    """
    _assert_all(app, asked, name, open_=True)


def assert_blocked(app: Starlette, *asked: Asked, name: str = DEFAULT) -> None:
    """Raise unless these requests would be refused while a switch is on; arguments as for ``assert_open``.

    Raises:
        AssertionError: A request would pass, with the rule; or it has no route, so it proves nothing.
    """
    _assert_all(app, asked, name, open_=False)


def _assert_all(app: Starlette, asked: Iterable[Asked], name: str, *, open_: bool) -> None:
    """Raise ``AssertionError`` unless all requests are open, or all are blocked."""
    with maintenance(app, name=name):
        problems = [_problem_of(app, method, path, name, open_=open_) for method, path in _pairs_of(asked)]
    if any(problems):
        raise AssertionError("; ".join(filter(None, problems)))


def _pairs_of(asked: Iterable[Asked]) -> list[tuple[str, str]]:
    pairs = [("GET", one) if isinstance(one, str) else one for one in asked]
    if not pairs:
        raise InvalidConfiguration("requests must be paths, or pairs of a method and a path, got none")
    for _, path in pairs:
        if not path.startswith("/"):
            raise InvalidConfiguration(f"path must begin with a slash, got {path!r}")
    return [(method.upper(), path) for method, path in pairs]


def _problem_of(app: Starlette, method: str, path: str, name: str, *, open_: bool) -> str | None:
    """Return why one request fails its assertion, or ``None``."""
    target, decision = _run_in_thread(_decide(app, method, path))
    if not target.runs:
        return f"{method} {path} runs nothing: {_advice_for(app, path)}"
    if decision.blocked is not open_:
        return None
    switches = sorted({guard.name for guard in find_guards(target.dependencies)} - {DEFAULT})
    if name not in (DEFAULT, *switches) and not open_ and decision.rule is Rule.MODE:
        others = f"guards of {', '.join(map(repr, switches))} do" if switches else "no guard of a named switch does"
        return f"{method} {path} is open: no guard of switch {name!r} guards it; {others}"
    rule = f"by {decision.rule}" + (f" ({decision.exemption})" if decision.exemption else "")
    return f"{method} {path} is {'blocked' if open_ else 'open'} {rule}, switch {decision.switch!r}"


def _advice_for(app: Starlette, path: str) -> str:
    """Return how to request a path that runs nothing."""
    others = [method for method in _METHODS if resolve(app.router, _build_scope(app, method, path)).runs]
    if others:
        return f"the route has {', '.join(others)}, so pass ({others[0]!r}, {path!r})"
    query = "; a path has no query, leave '?...' out" if "?" in path else ""
    return f"there is no such route{query}"


_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WEBSOCKET")


async def _decide(app: Starlette, method: str, path: str) -> tuple[Target, Decision]:
    """Return what a request would run, and the decision of middleware and guards about it."""
    scope = _build_scope(app, method, path)
    gate, passage = _gate_of(app), None
    decision: Decision | None = None
    if gate is not None:
        passage = gate.arrive(scope)
        cached, _ = await gate.judge(passage, app.router, None, scope, _receive_of(scope))
        decision = cached.decision
    target = resolve(app.router, scope, with_dependencies=True)
    scope["endpoint"] = target.endpoint
    for guard in find_guards(target.dependencies):
        if decision is None or not decision.blocked:
            decision = await guard.decision(_connection_of(scope), passage, datetime.now(UTC))
    if decision is None:
        raise InvalidConfiguration(
            f"{method} {path}: neither MaintenanceModeMiddleware nor a MaintenanceGuard guards it"
        )
    return target, decision


def _build_scope(app: Starlette, method: str, path: str) -> Scope:
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


def _connection_of(scope: Scope) -> HTTPConnection:
    if scope["type"] == "http":
        return Request(scope, _receive_of(scope))
    return WebSocket(scope, _receive_of(scope), cast("Send", None))  # never used


def _receive_of(scope: Scope) -> Receive:
    """Return the ``receive`` of a client that sends no body."""
    empty: Message = {"type": "http.request", "body": b"", "more_body": False}

    async def receive() -> Message:
        return empty if scope["type"] == "http" else {"type": "websocket.connect"}

    return receive


def _gate_of(app: Starlette) -> Gate | None:
    """Return the gate of an app's middleware, which is built if necessary, or ``None``."""
    if not isinstance(app, Starlette):
        raise InvalidConfiguration(f"app must be a FastAPI or Starlette app, got {app!r}")
    if app.middleware_stack is None:
        app.middleware_stack = app.build_middleware_stack()
    middleware = find_middleware(app)
    return None if middleware is None else middleware.gate


def _run_in_thread(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return a coroutine's result from a new thread's event loop, as a loop may already run in this thread."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(asyncio.run, coroutine).result()
