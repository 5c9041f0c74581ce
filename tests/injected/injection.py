"""A pytest plugin that puts our middleware around every app of somebody else's test suite, and watches what runs.

It is loaded by its own name (``-p injection``), because those suites are packages called ``tests`` as well. The ways:

=========  ==========================================================================================================
bare       nothing is injected
off        the middleware is the outermost one of every app, and its switch is off
forced     the same, with an unrelated endpoint forced on, so that each request is matched exactly
on         the switch is on, an ``exempt_handler`` notes what would be blocked and lets it pass
new-scope  the same, but each HTTP request comes to the middleware with a path that no route has, and a middleware
           inside of it continues with the real path in a new scope, as one that handles batches does
=========  ==========================================================================================================

What would be blocked is compared with what ran. Nothing is asked of the package for that: a request that comes to an
app's router runs something, unless Starlette's or FastAPI's own routing functions make the answer: the 404, the 405
and the slash redirect. So code that runs in a way that nobody thought of here is never taken for nothing.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, cast

import pytest

WAYS = ("bare", "off", "forced", "on", "new-scope")

RAN = "blocked, and it runs"
NOTHING = "passes, and nothing runs"
STOPPED = "answered by a middleware inside"
HOLE = "passes, and it runs"
NEEDLESS = "blocked, and nothing runs"
FINDINGS = (RAN, NOTHING, STOPPED, HOLE, NEEDLESS)
AGREEMENTS = (RAN, NOTHING, STOPPED)
"""The middleware can't foresee that another one inside answers by itself, so nothing is compared then."""

_RECORD = "injected.record"
"""Where the scope of a request keeps the record of the innermost app: it is that of what is mounted there, too."""


class Record:
    """One connection at one app."""

    def __init__(self, middleware: object, outer: Record | None, scope: dict[str, Any]) -> None:
        self.middleware = middleware
        self.outer = outer
        self.what = f"{scope.get('method', 'WEBSOCKET')} {scope['path']}"
        self.as_it_came = scope
        self.is_blocked = False
        self.is_at_router = False
        self.endpoint_ran = False
        self.answered_by_routing = False

    def outwards(self) -> Iterator[Record]:
        """Yield this record, and those of the same connection at the apps around."""
        record: Record | None = self
        while record is not None:
            yield record
            record = record.outer

    def finding(self) -> str:
        """Return how the decision compares with what ran."""
        runs = self.endpoint_ran or (self.is_at_router and not self.answered_by_routing)
        if not runs and not self.is_at_router:
            return STOPPED
        if runs:
            return RAN if self.is_blocked else HOLE
        return NEEDLESS if self.is_blocked else NOTHING


_current: ContextVar[Record | None] = ContextVar("record", default=None)

counts: Counter[str] = Counter()
"""How many apps got the middleware, and how many connections came to which finding."""
disagreements: list[dict[str, str]] = []


def records() -> Iterator[Record]:
    """Yield the records of the connection that is being answered, innermost first."""
    record = _current.get()
    return iter(()) if record is None else record.outwards()


def close_record(record: Record) -> None:
    """Count the finding of a connection that has ended."""
    finding = record.finding()
    counts["connections"] += 1
    counts[finding] += 1
    if finding not in AGREEMENTS:
        test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
        disagreements.append({"test": test, "what": record.what, "finding": finding})


# What runs.


def watch_routing() -> None:
    """Note when a routing function of the frameworks makes an answer itself, and when an endpoint is called."""
    import fastapi.routing
    import starlette.exceptions
    import starlette.responses
    import starlette.routing
    import starlette.websockets
    from starlette.endpoints import HTTPEndpoint

    owners = (
        (starlette.routing.Router, ("app", "not_found")),
        (fastapi.routing.APIRouter, ("app", "not_found")),
        (starlette.routing.Route, ("handle",)),
        (fastapi.routing.APIRoute, ("handle",)),
        (HTTPEndpoint, ("method_not_allowed",)),
        (getattr(fastapi.routing, "_FrontendStaticFiles", object), ("get_response",)),
    )
    routing = {vars(owner)[name].__code__ for owner, names in owners for name in names if name in vars(owner)}
    for answer in (
        starlette.exceptions.HTTPException,
        starlette.responses.PlainTextResponse,
        starlette.responses.RedirectResponse,
        starlette.websockets.WebSocketClose,
    ):
        _watch_answer(answer, routing)
    for module in (starlette.routing, fastapi.routing):
        for name in ("request_response", "websocket_session"):
            if hasattr(module, name):
                setattr(module, name, _watched(getattr(module, name)))


def _watch_answer(answer: Any, routing: set[CodeType]) -> None:
    """Note when an answer is made by one of the routing functions."""
    make = answer.__init__

    @functools.wraps(make)
    def make_and_note(self: Any, *args: Any, **keywords: Any) -> None:
        maker: FrameType | None = sys._getframe(1)
        while maker is not None and maker.f_code.co_name == "__init__":
            maker = maker.f_back
        if maker is not None and maker.f_code in routing and _is_of_routing(maker):
            for record in records():
                record.answered_by_routing = True
        make(self, *args, **keywords)

    answer.__init__ = make_and_note


def _is_of_routing(maker: FrameType) -> bool:
    """Return whether an answer is made because nothing runs; a frontend that has no such file has looked for it."""
    return maker.f_code.co_name != "get_response" or maker.f_locals["scope"]["method"] not in ("GET", "HEAD")


def _watched(make: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that makes ASGI apps of endpoints, which note that they are called."""

    @functools.wraps(make)
    def watched(function: Any, *args: Any, **keywords: Any) -> Any:
        inner = make(function, *args, **keywords)

        async def endpoint(scope: Any, receive: Any, send: Any) -> None:
            for record in records():
                record.endpoint_ran = True
            await inner(scope, receive, send)

        return endpoint

    return watched


class AtRouter:
    """The innermost middleware: notes that a request gets as far as the router."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        for record in records():
            record.is_at_router = True
        return cast("Awaitable[None]", self.app(scope, receive, send))


class NewScope:
    """The middleware inside of ours that continues with the request as it came, in a scope of its own."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            record = next(records())
            record.is_blocked = False  # it isn't about the path that no route has
            scope = record.as_it_came
        await self.app(scope, receive, send)


# The middleware.


def injected(way: str) -> tuple[Callable[[Any], Any], ...]:
    """Return our middleware and what belongs to it: classes to be the outermost ones, and the innermost one."""
    from fastapi_maintenance import Exemptions, MaintenanceModeMiddleware, force_maintenance_mode_on

    class Watched(MaintenanceModeMiddleware):
        """Is on, and lets pass what it would block; no preflight or docs page passes for another reason."""

        def __init__(self, app: Any) -> None:
            super().__init__(
                app,
                enable_maintenance=True,
                exempt_handler=self.note,
                exemptions=Exemptions(docs=False, preflight=False),
            )

        async def note(self, request: Any) -> bool:
            for record in records():
                if record.middleware is self:
                    record.is_blocked = True
            return True

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] not in ("http", "websocket"):
                await super().__call__(scope, receive, send)
                return
            record = Record(self, scope.get(_RECORD), dict(scope))
            scope[_RECORD] = record.as_it_came[_RECORD] = record
            if way == "new-scope" and scope["type"] == "http":
                scope = {**scope, "path": scope.get("root_path", "") + "/injected/nowhere"}
            before = _current.get()
            _current.set(record)
            try:
                await super().__call__(scope, receive, send)
            finally:
                _current.set(before)  # not by a token: a connection may be closed in another context
                close_record(record)

    if way in ("off", "forced"):
        if way == "forced":
            force_maintenance_mode_on(lambda: None)
        return (MaintenanceModeMiddleware,)
    return (Watched, AtRouter) if way == "on" else (Watched, NewScope, AtRouter)


def inject(way: str) -> None:
    """Have every Starlette and FastAPI app built with the middleware as its outermost one."""
    from fastapi import FastAPI
    from starlette.applications import Starlette
    from starlette.middleware import Middleware

    ours: list[Any] = [Middleware(each) for each in injected(way)]
    outer, inner = (ours[:-1], ours[-1:]) if len(ours) > 1 else (ours, [])
    owners: tuple[Any, ...] = (Starlette, FastAPI)
    for owner in owners:
        if "build_middleware_stack" in vars(owner):
            owner.build_middleware_stack = _injecting(owner.build_middleware_stack, outer, inner)


def _injecting(build: Callable[[Any], Any], outer: list[Any], inner: list[Any]) -> Callable[[Any], Any]:
    @functools.wraps(build)
    def build_injected(app: Any) -> Any:
        own = app.user_middleware
        if own[: len(outer)] == outer:  # a method that calls that of the base class
            return build(app)
        counts["apps"] += 1
        app.user_middleware = [*outer, *own, *inner]
        try:
            return build(app)
        finally:
            app.user_middleware = own  # tests look at it

    return build_injected


# The plugin.

_outcomes: dict[str, str] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options by which the runner says how to inject, and where to report."""
    parser.addoption("--way", choices=WAYS, default="bare")
    parser.addoption("--reports", type=Path, default=None)


def pytest_configure(config: pytest.Config) -> None:
    """Inject, before the first test module is imported."""
    way = config.getoption("way")
    if way in ("on", "new-scope"):
        watch_routing()
    if way != "bare":
        inject(way)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Take what can't be collected for a test that fails."""
    if report.failed:
        _outcomes[report.nodeid] = "failed"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note how a test ended; what happens after it may still make it fail."""
    if report.failed:
        _outcomes[report.nodeid] = "failed"
    elif report.when == "call" or report.skipped:
        _outcomes.setdefault(report.nodeid, "xfailed" if hasattr(report, "wasxfail") else report.outcome)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the reports: one of the outcomes, and one of the connections by each process that runs tests."""
    folder = session.config.getoption("reports")
    if folder is None:
        return
    worker = getattr(session.config, "workerinput", None)
    if worker is None:
        (folder / "outcomes.json").write_text(json.dumps(_outcomes), "utf-8")
    name = "main" if worker is None else worker["workerid"]
    found = {"counts": counts, "disagreements": disagreements}
    (folder / f"connections-{name}.json").write_text(json.dumps(found), "utf-8")
