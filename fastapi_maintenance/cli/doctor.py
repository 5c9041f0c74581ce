"""Whether a store works, and what an app would block."""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from fastapi.exception_handlers import http_exception_handler
from starlette.applications import Starlette
from starlette.status import HTTP_503_SERVICE_UNAVAILABLE
from starlette.types import ASGIApp, Scope

from ..backends.base import BaseStateBackend, StoreBackend
from ..concurrency import io_thread
from ..exceptions import InvalidConfiguration, MaintenanceActive, MaintenanceError
from ..gate.exemptions import Exemptions
from ..guard import MaintenanceGuard
from ..inspection.apps import middleware_options, switch_of
from ..inspection.routes import Declared, declared_in
from ..middleware import MaintenanceModeMiddleware
from ..model.decision import Decision, Facts, Rule
from ..model.modes import MaintenanceMode
from ..model.policy import decide
from ..model.state import MaintenanceState
from ..model.text import in_one_line
from ..routing.apps import root_of, steps_of
from ..routing.index import route_path
from ..routing.selfcheck import check_fastapi
from ..routing.walk import Target, resolve
from ..switches.app_switch import DEFAULT, AppSwitch
from ..switches.registry import configure_backend, registry
from .store import check_writable, explained, is_file, load, nothing_in, place_of, store_of
from .terminal import WORDS, at_version, console, hint_at_document, tell, tell_json

_FAR_SECONDS = 1.0
"""From where on a difference between clocks is worth a note."""
_ANY = "POST"
"""As what a request is judged where every method comes to a route."""

States = Mapping[int, MaintenanceState | None]
"""What stores have, by the ``id`` of the backend; ``None`` for one that can't be read."""


class Check(NamedTuple):
    """One thing that was looked at."""

    subject: str
    what: str
    result: str
    """``ok``, ``failed``, ``warn`` for a likely mistake, or ``note`` for what is as it is."""
    detail: str


class Row(NamedTuple):
    """What becomes of the requests to one route."""

    method: str
    path: str
    mark: str
    switches: str
    now: str
    when_on: str


def examine(target: str | None, name: str, url: str | None, *, as_json: bool) -> bool:
    """Tell how the stores are, and what an app would block; return whether nothing failed.

    Raises:
        InvalidConfiguration: There is no such app.
        UnsupportedFastAPI: Its routes can't be read.
    """
    if url is not None:
        configure_backend(store_of(url))  # first, as an app that brings its own is to have that
    routes = [] if target is None else _judged_routes(_imported(target))
    stores = {(name, store_of(None, name))} if target is None else set()
    stores |= {(face.switch, face.backend()) for route in routes for face in route.faces}
    checks, states = asyncio.run(_looked_after(sorted(stores, key=repr)))
    checks += [*_vain_exemptions(routes), *_plain_refusals(routes)]
    rows = [route.row(states) for route in routes]
    if as_json:
        tell_json({"checks": [check._asdict() for check in checks], "routes": [row._asdict() for row in rows]})
    else:
        for check in checks:
            tell(f"{check.result:6} " + in_one_line(f"{check.subject}: {check.what}: {check.detail}"))
        if target is not None:
            _tell_table(rows)
    return all(check.result != "failed" for check in checks)


def _imported(target: str) -> ASGIApp:
    """Return the app of ``module:attribute``."""
    module, _, attribute = target.partition(":")
    if not module or not attribute:
        raise InvalidConfiguration(f"{target!r}: the app is named as for a server, such as shop.main:app")
    sys.path.insert(0, str(Path.cwd()))  # as servers do
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:
        raise InvalidConfiguration(f"{target!r} can't be imported: {_told(error)}") from error
    if root_of(found) is None:
        raise InvalidConfiguration(f"{target!r} is no FastAPI or Starlette app, nor a middleware around one")
    app: ASGIApp = found
    return app


async def _looked_after(stores: Iterable[tuple[str, BaseStateBackend]]) -> tuple[list[Check], States]:
    checks: list[Check] = []
    states: dict[int, MaintenanceState | None] = {}
    for switch, store in stores:
        subject, begin = f"{switch}, {place_of(store)}", time.perf_counter()
        try:
            state = await load(store)
        except Exception as error:  # noqa: BLE001 - an app's own backend may raise anything
            states[id(store)] = None
            checks.append(Check(subject, "readable", "failed", _told(error, store)))
            continue
        states[id(store)] = state or MaintenanceState()
        took = f"{(time.perf_counter() - begin) * 1000:.0f} ms"
        if state is not None:
            mode = WORDS[state.mode_at(datetime.now(UTC))]
            checks.append(Check(subject, "readable", "ok", f"{mode}{at_version(state)}, in {took}"))
        elif is_file(store):
            checks.append(Check(subject, "readable", "ok", f"{nothing_in(store)}, in {took}"))
        else:
            hint = hint_at_document(switch)
            checks.append(Check(subject, "readable", "note", f"{nothing_in(store)}; {hint}; in {took}"))
        checks += [Check(subject, *result) async for result in _writing_and_clock(store)]
    return checks, states


async def _writing_and_clock(store: BaseStateBackend) -> AsyncIterator[tuple[str, str, str]]:
    if not isinstance(store, StoreBackend):
        try:
            check_writable(store)
        except MaintenanceError as error:
            yield "writable", "note", str(error)
        else:
            yield "writable", "note", "not tried: it is a store of the app's own"
        return
    try:
        why_not = await io_thread.run(store.try_writing())
        asked = datetime.now(UTC)
        clock = await io_thread.run(store.store_time())
        answered = datetime.now(UTC)
    except MaintenanceError as error:
        yield "writable", "failed", explained(error, store)
        return
    yield "writable", "note" if why_not else "ok", f"not tried: {why_not}" if why_not else "yes"
    if clock is None:
        yield "clock", "ok", "this host's"
        return
    # It was read at some time between the question and the answer.
    half = (answered - asked) / 2
    ahead = (clock - asked - half).total_seconds()
    told = f"{abs(ahead):.3f} s {'ahead of' if ahead > 0 else 'behind'} this host's"
    yield "clock", "note" if abs(ahead) > _FAR_SECONDS else "ok", f"{told}, give or take {half.total_seconds():.3f} s"


def _told(error: BaseException, store: BaseStateBackend | None = None) -> str:
    if not isinstance(error, MaintenanceError):
        return f"{type(error).__name__}: {error}"
    return str(error) if store is None else explained(error, store)


def _vain_exemptions(routes: list[_Judged]) -> Iterator[Check]:
    """Yield a warning for each exempt path that no route has."""
    declared = [route.path for route in routes]
    uses: dict[int, list[tuple[_Judged, _Face]]] = {}
    for route in routes:
        for face in route.faces:
            uses.setdefault(id(face.exemptions), []).append((route, face))
    for of_one in uses.values():
        for pattern in of_one[0][1].exemptions.paths:
            asked = [*declared, *(face.path for _, face in of_one)]
            if not _matches(pattern, asked) and not any(route.has_path(pattern, face) for route, face in of_one):
                detail = "no route, so it opens nothing: it must be spelled as the app's routes are, without root_path"
                yield Check(f"exempt path {pattern}", "matches", "warn", detail)


def _matches(pattern: str, paths: Iterable[str]) -> bool:
    """Return whether an exempt path is one of these paths, or stands for one."""
    one = Exemptions((pattern,), docs=False, preflight=False)
    return any(one.of_request({}, path, is_docs=False) for path in paths)


def _plain_refusals(routes: Iterable[_Judged]) -> Iterator[Check]:
    """Yield a warning for each switch that has a guard whose refusal is JSON whatever the client prefers."""
    for switch in dict.fromkeys(face.switch for route in routes for face in route.faces if face.is_plain):
        yield Check(
            f"guard of {switch}",
            "answers",
            "warn",
            "JSON to browsers as well: no middleware is around it; add one, or "
            "app.add_exception_handler(MaintenanceActive, maintenance_exception_handler)",
        )


def _is_answered(app: Starlette) -> bool:
    """Return whether an app has a handler of its own for a guard's refusal, found as Starlette finds it."""
    handlers = app.exception_handlers
    by_class = (handlers[cls] for cls in MaintenanceActive.__mro__ if cls in handlers)
    handler = handlers.get(HTTP_503_SERVICE_UNAVAILABLE) or next(by_class, http_exception_handler)
    return handler is not http_exception_handler


class _Face(NamedTuple):
    """Something that blocks by one switch: a middleware, or a guard."""

    app: AppSwitch
    switch: str
    exemption: str | None
    exemptions: Exemptions
    """Its own."""
    path: str
    """That of the request, as the exemptions see it."""
    within: ASGIApp
    """What leads to the routes whose paths can be exempt."""
    is_plain: bool = False
    """Whether its refusal is JSON whatever the client prefers."""

    def backend(self) -> BaseStateBackend:
        return registry.of_app(self.app, self.switch)

    def decision(self, target: Target, method: str | None, state: MaintenanceState) -> Decision:
        """Return what becomes of a request while the store has ``state``."""
        facts = Facts(target.runs, target.mark, method, self.exemption)
        instead = self.app.instead_of(self.switch)
        return decide(facts, state, datetime.now(UTC), switch=self.switch, instead=instead)


class _Judged:
    """A route with one of its methods, what would run for it, and what can block it."""

    def __init__(self, route: Declared, method: str | None, start: ASGIApp, around: Iterable[Any]) -> None:
        self._route = route
        self.path = route.path
        self._method = method
        self._asked_method = _ANY if method == "*" else method
        self._target: Target | None = None
        self._scope: Scope = {}
        self.faces: list[_Face] = []
        if route.example is None:
            return
        scope: Scope = {**route.example, "type": "websocket"}
        if method is not None:
            scope.update(type="http", method=self._asked_method)
        self._scope = scope
        self._target = resolve(start, scope, with_dependencies=True)
        self.faces = list(_faces(route, scope, self._target, around, start))

    def has_path(self, pattern: str, face: _Face) -> bool:
        """Return whether something runs for what an exempt path stands for, asked as this route is.

        The path that was made up for ``/pages/{name}`` is not that of the exempt path ``/pages/welcome``.
        """
        matched = (pattern.replace("/**", "/1" * count).replace("*", "1") or "/" for count in range(3))
        return any(resolve(face.within, {**self._scope, "path": path}).runs for path in matched)

    def row(self, states: States) -> Row:
        """Return what becomes of the requests, now and when all its switches are on."""
        mark = None if self._target is None else self._target.mark
        return Row(
            "WEBSOCKET" if self._method is None else self._method.replace("*", "ANY"),
            self.path,
            "" if mark is None else f"forced {mark}",
            ", ".join(dict.fromkeys(face.switch for face in self.faces)),
            self._told([(face, states.get(id(face.backend()))) for face in self.faces]),
            self._told([(face, _ON) for face in self.faces]),
        )

    def _told(self, faces: list[tuple[_Face, MaintenanceState | None]]) -> str:
        target = self._target
        if target is None:
            return "unknown: no path could be made up"
        if target.failure is not None:
            return f"unknown: matching raises {_told(target.failure)}"
        if not faces:
            return "open: nothing guards it"
        by = "" if target.endpoint is self._route.endpoint or not target.runs else ", as another route before it"
        why: set[str] = set()
        for face, state in faces:
            decision = face.decision(target, self._asked_method, state or _ON)
            if decision.blocked and state is None and decision.rule is Rule.MODE:
                return f"unknown: {face.switch} can't be read"
            if decision.blocked:
                return f"503: {'forced on' if decision.rule is Rule.FORCED_ON else face.switch}{by}"
            why.add(_WHY[decision.rule].format(decision.exemption))
        return f"open{why.pop() if len(why) == 1 else ''}{by}"


_ON = MaintenanceState(mode=MaintenanceMode.ON)
_WHY = {
    Rule.MODE: "",
    Rule.NOTHING_RUNS: ": nothing would run",
    Rule.FORCED_OFF: ": forced off",
    Rule.EXEMPT: ": exempt, {}",
}


def _judged_routes(app: ASGIApp) -> list[_Judged]:
    check_fastapi()
    around = [step for step in steps_of(app) if isinstance(step, MaintenanceModeMiddleware)]
    return [
        _Judged(route, method, app, around)
        for route in declared_in(app)
        for method in (route.methods if route.methods is not None else (None,))
    ]


def _faces(route: Declared, scope: Scope, target: Target, around: Iterable[Any], within: ASGIApp) -> Iterator[_Face]:
    """Yield what can block a route, outermost first."""
    app, outer = AppSwitch(), Exemptions()
    is_around = False
    for middleware in around:
        is_around = True
        app, outer = middleware.gate.app, middleware.gate.terms.exemptions
        exemption = outer.of_request(scope, scope["path"], is_docs=target.docs)
        yield _Face(app, DEFAULT, exemption, outer, scope["path"], within)
    root_paths = {id(entry.router): entry.root_path for entry in target.entries}
    path = scope["path"]
    for mounted in route.apps:
        options = middleware_options(mounted)
        if options:
            app, within, is_around = switch_of(options), mounted, True
            outer = options.get("exemptions") or Exemptions()
            path = route_path(scope["path"], root_paths.get(id(mounted.router), ""))
            yield _Face(app, DEFAULT, outer.of_request(scope, path, is_docs=target.docs), outer, path, within)
    is_plain = not is_around and scope["type"] == "http"
    for guard in target.dependencies:
        if isinstance(guard, MaintenanceGuard):
            exemption = guard.terms.exemptions.of_request(scope, path, is_docs=False)
            exemption = exemption or outer.of_request(scope, path, is_docs=False)
            for switch in dict.fromkeys((guard.name, DEFAULT)):
                plain = is_plain and switch == guard.name and not any(map(_is_answered, route.apps[-1:]))
                yield _Face(app, switch, exemption, guard.terms.exemptions, path, within, plain)


def _tell_table(rows: list[Row]) -> None:
    from rich.table import Table  # noqa: PLC0415 - an extra
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False)
    for column in ("METHOD", "PATH", "MARK", "SWITCHES", "NOW", "WHEN ON"):
        table.add_column(column, overflow="fold")
    for row in rows:
        styles = [""] * 4 + ["red" if cell.startswith("503") else "" for cell in row[4:]]
        cells = zip(row, styles, strict=True)
        table.add_row(*(Text(in_one_line(cell), style=style) for cell, style in cells))
    console().print(table)
    tell("An exempt_handler, networks and bypass tokens may let single requests pass.")
