"""Checks of stores and apps: problems, and the routes that an app would block."""

from __future__ import annotations

import asyncio
import pkgutil
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from starlette.applications import Starlette
from starlette.status import HTTP_503_SERVICE_UNAVAILABLE
from starlette.types import ASGIApp, Scope

from ..backends.base import BaseStateBackend, StoreBackend
from ..exceptions import InvalidConfiguration, MaintenanceError
from ..gate.exemptions import Exemptions
from ..guard import has_stock_handler
from ..inspection.apps import MiddlewareInfo, find_guards, find_middleware, find_middleware_around
from ..inspection.routes import Declared, declared_in
from ..model.decision import Decision, Facts, Rule
from ..model.modes import MaintenanceMode
from ..model.policy import decide
from ..model.state import MaintenanceState
from ..model.text import in_one_line
from ..routing.apps import root_of
from ..routing.index import route_path
from ..routing.selfcheck import check_fastapi
from ..routing.walk import Target, resolve
from ..switches.app_switch import DEFAULT, AppSwitch
from ..switches.registry import configure_backend, registry
from .store import check_writable, describe_empty_store, is_file, load_state, message_of, place_of, store_of
from .terminal import document_hint, open_console, print_json, print_text, version_suffix

_CLOCK_TOLERANCE_SECONDS = 1.0
"""The largest difference between clocks that is not reported."""
_ANY = "POST"
"""The example method for a route that accepts every method."""

States = Mapping[int, MaintenanceState | None]
"""Stored states by the ``id`` of the backend; ``None`` if unreadable."""


class Check(NamedTuple):
    """The result of one check."""

    subject: str
    what: str
    result: str
    """``ok``, ``failed``, ``warn`` for a likely mistake, or ``note`` for information."""
    detail: str


class Row(NamedTuple):
    """The outcome of requests to one route."""

    method: str
    path: str
    mark: str
    switches: str
    now: str
    when_on: str


def examine(target: str | None, name: str, url: str | None, *, as_json: bool) -> bool:
    """Print the checks and the routes of an app, and return whether no check failed.

    Raises:
        InvalidConfiguration: There is no such app.
        UnsupportedFastAPI: Its routes can't be read.
    """
    if url is not None:
        configure_backend(store_of(url))  # first, so that an app's own backend overrides it
    routes = [] if target is None else _reports_of(_import_app(target))
    stores = {(name, store_of(None, name))} if target is None else set()
    stores |= {(blocker.switch, blocker.backend()) for route in routes for blocker in route.blockers}
    checks, states = asyncio.run(_check_stores(sorted(stores, key=repr)))
    checks += [*_unused_exemptions(routes), *_guards_answering_json(routes)]
    rows = [route.row(states) for route in routes]
    if as_json:
        print_json({"checks": [check._asdict() for check in checks], "routes": [row._asdict() for row in rows]})
    else:
        for check in checks:
            print_text(f"{check.result:6} " + in_one_line(f"{check.subject}: {check.what}: {check.detail}"))
        if target is not None:
            _print_table(rows)
    return all(check.result != "failed" for check in checks)


def _import_app(target: str) -> ASGIApp:
    """Return the app of ``module:attribute``."""
    module, _, attribute = target.partition(":")
    if not module or not attribute:
        raise InvalidConfiguration(f"the app must be MODULE:APP, such as shop.main:app, got {target!r}")
    sys.path.insert(0, str(Path.cwd()))  # as servers do
    try:
        app: ASGIApp = pkgutil.resolve_name(target)
    except (Exception, SystemExit) as error:
        raise InvalidConfiguration(f"{target!r} can't be imported: {_describe_error(error)}") from error
    if root_of(app) is None:
        raise InvalidConfiguration(f"{target!r} must be a FastAPI or Starlette app, or a middleware around one")
    return app


async def _check_stores(stores: Iterable[tuple[str, BaseStateBackend]]) -> tuple[list[Check], States]:
    checks: list[Check] = []
    states: dict[int, MaintenanceState | None] = {}
    for switch, store in stores:
        subject, begin = f"{switch}, {place_of(store)}", time.perf_counter()
        try:
            state = await load_state(store)
        except Exception as error:  # noqa: BLE001 - a custom backend may raise anything
            states[id(store)] = None
            checks.append(Check(subject, "readable", "failed", _describe_error(error, store)))
            continue
        states[id(store)] = state or MaintenanceState()
        took = f"{(time.perf_counter() - begin) * 1000:.0f} ms"
        result, found = "ok", f"{describe_empty_store(store)}, in {took}"
        if state is not None:
            found = f"{state.mode_at(datetime.now(UTC)).label}{version_suffix(state)}, in {took}"
        elif not is_file(store):
            result, found = "note", f"{describe_empty_store(store)}; {document_hint(switch)}; in {took}"
        checks.append(Check(subject, "readable", result, found))
        checks += [Check(subject, *result) async for result in _check_writing_and_clock(store)]
    return checks, states


async def _check_writing_and_clock(store: BaseStateBackend) -> AsyncIterator[tuple[str, str, str]]:
    if not isinstance(store, StoreBackend):
        try:
            check_writable(store)
        except MaintenanceError as error:
            yield "writable", "note", str(error)
        else:
            yield "writable", "note", "not tried: it is a custom backend"
        return
    try:
        why_not = await store.try_writing()
        asked = datetime.now(UTC)
        clock = await store.store_time()
        answered = datetime.now(UTC)
    except MaintenanceError as error:
        yield "writable", "failed", message_of(error, store)
        return
    yield "writable", "note" if why_not else "ok", f"not tried: {why_not}" if why_not else "yes"
    if clock is None:
        yield "clock", "ok", "this host's"
        return
    # The clock was read between the question and the answer.
    half = (answered - asked) / 2
    ahead = (clock - asked - half).total_seconds()
    offset = f"{abs(ahead):.3f} s {'ahead of' if ahead > 0 else 'behind'} this host's"
    result = "note" if abs(ahead) > _CLOCK_TOLERANCE_SECONDS else "ok"
    yield "clock", result, f"{offset}, give or take {half.total_seconds():.3f} s"


def _describe_error(error: BaseException, store: BaseStateBackend | None = None) -> str:
    if not isinstance(error, MaintenanceError):
        return f"{type(error).__name__}: {error}"
    return str(error) if store is None else message_of(error, store)


def _unused_exemptions(routes: list[_RouteReport]) -> Iterator[Check]:
    """Yield a warning for each exempt path that matches no route."""
    declared = [route.path for route in routes]
    uses: dict[int, list[tuple[_RouteReport, _Blocker]]] = {}
    for route in routes:
        for blocker in route.blockers:
            uses.setdefault(id(blocker.exemptions), []).append((route, blocker))
    for group in uses.values():
        paths = [*declared, *(blocker.path for _, blocker in group)]
        for pattern in group[0][1].exemptions.paths:
            if not _matches_any(pattern, paths) and not any(route.has_path(pattern, one) for route, one in group):
                detail = "no route, so it opens nothing: it must be spelled like the app's routes, without root_path"
                yield Check(f"exempt path {pattern}", "matches", "warn", detail)


def _matches_any(pattern: str, paths: Iterable[str]) -> bool:
    """Return whether an exempt path matches one of these paths."""
    exemptions = Exemptions((pattern,), docs=False, preflight=False)
    return any(exemptions.of_request({}, path, is_docs=False) for path in paths)


def _guards_answering_json(routes: Iterable[_RouteReport]) -> Iterator[Check]:
    """Yield a warning for each switch with a guard that always answers in JSON."""
    for switch in dict.fromkeys(blocker.switch for route in routes for blocker in route.blockers if blocker.is_plain):
        yield Check(
            f"guard of {switch}",
            "answers",
            "warn",
            "JSON to browsers as well: no middleware is around it; add one, or "
            "app.add_exception_handler(MaintenanceActive, maintenance_exception_handler)",
        )


def _has_refusal_handler(app: Starlette) -> bool:
    """Return whether an app handles a guard's refusal itself."""
    handlers = app.exception_handlers
    return HTTP_503_SERVICE_UNAVAILABLE in handlers or not has_stock_handler(handlers)


class _Blocker(NamedTuple):
    """A middleware or guard that blocks by one switch."""

    app: AppSwitch
    switch: str
    exemption: str | None
    exemptions: Exemptions
    """The blocker's own exemptions."""
    path: str
    """The request's path for the exemptions."""
    within: ASGIApp
    """The app whose routes can be exempt."""
    is_plain: bool = False
    """Whether it always answers in JSON."""

    def backend(self) -> BaseStateBackend:
        return registry.of_app(self.app, self.switch)

    def decision(self, target: Target, method: str | None, state: MaintenanceState) -> Decision:
        """Return the decision on a request under ``state``."""
        facts = Facts(target.runs, target.mark, method, self.exemption)
        override = self.app.override_of(self.switch)
        return decide(facts, state, datetime.now(UTC), switch=self.switch, override=override)


class _RouteReport:
    """A route with one of its methods, its endpoint and its blockers."""

    def __init__(self, route: Declared, method: str | None, start: ASGIApp, around: Iterable[MiddlewareInfo]) -> None:
        self._route = route
        self.path = route.path
        self._method = method
        self._asked_method = _ANY if method == "*" else method
        self._target: Target | None = None
        self._scope: Scope = {}
        self.blockers: list[_Blocker] = []
        if route.example is None:
            return
        scope: Scope = {**route.example, "type": "websocket"}
        if method is not None:
            scope.update(type="http", method=self._asked_method)
        self._scope = scope
        self._target = resolve(start, scope, with_dependencies=True)
        self.blockers = list(_blockers_of(route, scope, self._target, around, start))

    def has_path(self, pattern: str, blocker: _Blocker) -> bool:
        """Return whether an endpoint runs for a path that the exempt path matches.

        The example path of ``/pages/{name}`` differs from the exempt path ``/pages/welcome``.
        """
        matched = (pattern.replace("/**", "/1" * count).replace("*", "1") or "/" for count in range(3))
        return any(resolve(blocker.within, {**self._scope, "path": path}).runs for path in matched)

    def row(self, states: States) -> Row:
        """Return the outcome now, and while all switches are on."""
        mark = None if self._target is None else self._target.mark
        return Row(
            "WEBSOCKET" if self._method is None else self._method.replace("*", "ANY"),
            self.path,
            "" if mark is None else f"forced {mark}",
            ", ".join(dict.fromkeys(blocker.switch for blocker in self.blockers)),
            self._outcome([(blocker, states.get(id(blocker.backend()))) for blocker in self.blockers]),
            self._outcome([(blocker, _ON) for blocker in self.blockers]),
        )

    def _outcome(self, blockers: list[tuple[_Blocker, MaintenanceState | None]]) -> str:
        target = self._target
        if target is None:
            return "unknown: no example path"
        if target.failure is not None:
            return f"unknown: matching raises {_describe_error(target.failure)}"
        if not blockers:
            return "open: nothing guards it"
        by = "" if target.endpoint is self._route.endpoint or not target.runs else ", as another route before it"
        reasons: set[str] = set()
        for blocker, state in blockers:
            decision = blocker.decision(target, self._asked_method, state or _ON)
            if decision.blocked and state is None and decision.rule is Rule.MODE:
                return f"unknown: {blocker.switch} can't be read"
            if decision.blocked:
                return f"503: {'forced on' if decision.rule is Rule.FORCED_ON else blocker.switch}{by}"
            reasons.add(_WHY[decision.rule].format(decision.exemption))
        return f"open{reasons.pop() if len(reasons) == 1 else ''}{by}"


_ON = MaintenanceState(mode=MaintenanceMode.ON)
_WHY = {
    Rule.MODE: "",
    Rule.NOTHING_RUNS: ": nothing would run",
    Rule.FORCED_OFF: ": forced off",
    Rule.EXEMPT: ": exempt, {}",
}


def _reports_of(app: ASGIApp) -> list[_RouteReport]:
    check_fastapi()
    around = find_middleware_around(app)
    return [
        _RouteReport(route, method, app, around)
        for route in declared_in(app)
        for method in (route.methods if route.methods is not None else (None,))
    ]


def _blockers_of(
    route: Declared, scope: Scope, target: Target, around: Iterable[MiddlewareInfo], start: ASGIApp
) -> Iterator[_Blocker]:
    """Yield the blockers of a route, outermost first."""
    app, outer, within, path = AppSwitch(), Exemptions(), start, scope["path"]
    root_paths = {id(entry.router): entry.root_path for entry in target.entries}
    found = [(middleware, start, path) for middleware in around]
    for mounted in route.apps:
        own = find_middleware(mounted)
        if own is not None:
            found.append((own, mounted, route_path(path, root_paths.get(id(mounted.router), ""))))
    for middleware, within, path in found:
        app, outer = middleware.switch, middleware.options.exemptions
        yield _Blocker(app, DEFAULT, outer.of_request(scope, path, is_docs=target.docs), outer, path, within)
    is_plain = not found and scope["type"] == "http" and not any(map(_has_refusal_handler, route.apps[-1:]))
    for guard in find_guards(target.dependencies):
        own_exemptions = guard.options.exemptions
        exemption = own_exemptions.of_request(scope, path, is_docs=False)
        exemption = exemption or outer.of_request(scope, path, is_docs=False)
        for switch in dict.fromkeys((guard.name, DEFAULT)):
            yield _Blocker(app, switch, exemption, own_exemptions, path, within, is_plain and switch == guard.name)


def _print_table(rows: list[Row]) -> None:
    from rich.table import Table  # noqa: PLC0415 - an extra
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for column in ("METHOD", "PATH", "MARK", "SWITCHES", "NOW", "WHEN ON"):
        table.add_column(column, overflow="fold")
    for row in rows:
        styles = [""] * 4 + ["red" if cell.startswith("503") else "" for cell in row[4:]]
        cells = zip(row, styles, strict=True)
        table.add_row(*(Text(in_one_line(cell), style=style) for cell, style in cells))
    open_console().print(table)
    print_text("An exempt_handler, networks and bypass tokens may let single requests pass.")
