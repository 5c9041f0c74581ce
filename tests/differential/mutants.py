"""Deliberately broken versions of the package, each wrong in one way: the differential test must see every one."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import APIRouter
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router
from starlette.types import Scope

from fastapi_maintenance import guard
from fastapi_maintenance.answers import answer, refusal
from fastapi_maintenance.gate import entrances, exemptions, gate, judgement
from fastapi_maintenance.gate.decision_cache import PASSED_AT_ONCE
from fastapi_maintenance.model import modes
from fastapi_maintenance.model.decision import Mark
from fastapi_maintenance.routing import apps, compat, index, marks, patterns, target_cache, walk

from .plan import FRONTENDS, LAZY_INCLUDES

Mutant = Callable[[pytest.MonkeyPatch], str | None]
"""Breaks the package; returns where a guard must stand to see it, if it takes one."""
MUTANTS: dict[str, Mutant] = {}
Walk: Any = walk._Walk
Index: Any = index.RouteIndex


class BrokenMutant(BaseException):
    """A mutant no longer fits the package: it fails, instead of being wrong, and would be caught for that."""


def mutant(function: Mutant) -> Mutant:
    """Take a mutant into the list."""
    MUTANTS[function.__name__] = function
    return function


def _replace(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Replace a function by ``around``, which gets the original as its first argument."""
    original = getattr(owner, name)

    def replacement(*args: Any, **kwargs: Any) -> Any:
        try:
            return around(original, *args, **kwargs)
        except (AttributeError, NameError, TypeError) as error:
            raise BrokenMutant(f"{around.__qualname__}: {error}") from error

    monkeypatch.setattr(owner, name, replacement)


def _replace_resolve(monkeypatch: pytest.MonkeyPatch, around: Callable[..., Any]) -> None:
    """Replace what tells which endpoint would run."""
    _replace(monkeypatch, gate, "resolve", around)


def _ask_each_route(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the index, which would ask none of those that a mutant is about."""
    monkeypatch.setattr(Index, "find", lambda *args, **options: index.UNSURE)


# What would run.


@mutant
def ignores_the_method(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(original: Any, app: Any, scope: Scope, **options: Any) -> Any:
        return original(app, {**scope, "method": "GET"} if "method" in scope else scope, **options)

    _replace_resolve(monkeypatch, resolve)


@mutant
def the_first_partial_match_wins_over_a_full_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def match(original: Any, walk: Any, *args: Any) -> Any:
        matched = original(walk, *args)
        return matched._replace(match=Match.FULL) if matched.match is Match.PARTIAL else matched

    _ask_each_route(monkeypatch)
    _replace(monkeypatch, Walk, "match", match)


@mutant
def the_last_match_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    def router(original: Any, walk: Any, router: Router) -> Any:
        with _routes(router, router.routes[::-1]):
            return original(walk, router)

    _replace(monkeypatch, Walk, "enter_router", router)


@mutant
def routes_added_later_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[int, tuple[Router, list[BaseRoute]]] = {}

    def router(original: Any, walk: Any, router: Router) -> Any:
        # The router is kept as well, so that no other gets its id.
        _, first_routes = known.setdefault(id(router), (router, list(router.routes)))
        with _routes(router, first_routes):
            return original(walk, router)

    _replace(monkeypatch, Walk, "enter_router", router)


@contextlib.contextmanager
def _routes(router: Router, instead: list[BaseRoute]) -> Iterator[None]:
    """Give a router other routes for a moment."""
    own = list(router.routes)
    router.routes[:] = instead
    try:
        yield
    finally:
        router.routes[:] = own


@mutant
def mounted_apps_are_opaque(monkeypatch: pytest.MonkeyPatch) -> None:
    def route(original: Any, walk: Any, matched: Any) -> Any:
        if isinstance(matched.route, Mount):
            walk.note_mark(matched.route.app)
            return walk.reach(matched.route.app)
        return original(walk, matched)

    _replace(monkeypatch, Walk, "enter_route", route)


@mutant
def hosts_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    def match(original: Any, walk: Any, route: BaseRoute, *args: Any) -> Any:
        matched = original(walk, route, *args)
        return matched._replace(match=Match.NONE) if isinstance(matched.route, Host) else matched

    _ask_each_route(monkeypatch)
    _replace(monkeypatch, Walk, "match", match)


@mutant
def the_root_path_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(original: Any, app: Any, scope: Scope, **options: Any) -> Any:
        return original(app, {**scope, "root_path": ""}, **options)

    _replace_resolve(monkeypatch, resolve)


@mutant
def the_path_is_taken_raw(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(original: Any, app: Any, scope: Scope, **options: Any) -> Any:
        return original(app, {**scope, "path": scope["raw_path"].decode()}, **options)

    _replace_resolve(monkeypatch, resolve)


@mutant
def a_redirect_is_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    def behind(original: Any, walk: Any, router: Router) -> Any:
        return walk.reach(router) if walk.redirects(router) else original(walk, router)

    _replace(monkeypatch, Walk, "enter_fallback", behind)


@mutant
def what_does_not_exist_is_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    def default(original: Any, walk: Any, router: Router) -> Any:
        return walk.reach(router.default)

    _replace(monkeypatch, Walk, "enter_default", default)
    # Without frontends, and with the stock default, nobody asks what is behind.
    monkeypatch.setattr(Walk, "reach_nothing", lambda walk: walk.reach(None))


@mutant
def a_custom_default_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    _replace(monkeypatch, Walk, "enter_default", lambda original, walk, router: walk.reach_nothing())


@mutant
def head_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def target(original: Any, walk: Any, *args: Any, **kwargs: Any) -> Any:
        return walk.reach_nothing() if walk.scope.get("method") == "HEAD" else original(walk, *args, **kwargs)

    _replace(monkeypatch, Walk, "reach", target)


@mutant
def head_does_not_fall_back_to_get(monkeypatch: pytest.MonkeyPatch) -> None:
    def http_endpoint(
        original: Any, walk: Any, endpoint: type[HTTPEndpoint], method: str, route: Any, **options: Any
    ) -> Any:
        if method == "HEAD" and not hasattr(endpoint, "head"):
            return walk.reach_nothing()
        return original(walk, endpoint, method, route, **options)

    _replace(monkeypatch, Walk, "enter_http_endpoint", http_endpoint)


@mutant
def websockets_pass_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(original: Any, app: Any, scope: Scope, **options: Any) -> Any:
        return walk.Target(runs=False) if scope["type"] == "websocket" else original(app, scope, **options)

    _replace_resolve(monkeypatch, resolve)


@mutant
def a_convertor_that_raises_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(original: Any, app: Any, scope: Scope, **options: Any) -> Any:
        target = original(app, scope, **options)
        return target if target.failure is None else dataclasses.replace(target, runs=False)

    _replace_resolve(monkeypatch, resolve)


@mutant
def the_stock_handle_is_assumed(monkeypatch: pytest.MonkeyPatch) -> None:
    def http_route(original: Any, walk: Any, route: Route, context: Any, *args: Any) -> Any:
        described = route if context is None or context.methods == set() else context
        if described.methods and walk.scope["method"] not in described.methods:
            return walk.reach_nothing()
        return original(walk, route, context, *args)

    _replace(monkeypatch, Walk, "enter_http_route", http_route)


@mutant
def an_app_calls_its_routes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def has_stock_call(original: Any, app: Any) -> bool:
        return isinstance(app, Starlette) or bool(original(app))

    _replace(monkeypatch, walk, "has_stock_call", has_stock_call)


@mutant
def a_router_is_called_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def has_stock_call(original: Any, app: Any) -> bool:
        return isinstance(app, Router) or bool(original(app))

    _replace(monkeypatch, walk, "has_stock_call", has_stock_call)


@mutant
def a_router_looks_into_its_routes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "has_stock_app", lambda router: True)


@mutant
def an_endpoint_class_only_dispatches(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [name for name in compat._DISPATCH_ATTRIBUTES if name != "__await__"]
    monkeypatch.setattr(compat, "_DISPATCH_ATTRIBUTES", names)


@mutant
def whatever_is_called_app_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apps, "_reads_app", lambda kind: True)


@mutant
def no_middleware_calls_its_app(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apps, "_reads_app", lambda kind: False)


# What is said about it.


@mutant
def a_mark_inside_applies_to_an_override(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_overriding(original: Any, walk: Any, target: Any) -> Any:
        overriding = original(walk, target)
        return dataclasses.replace(overriding, mark=target.mark) if target.runs else overriding

    _replace(monkeypatch, Walk, "apply_overriding", with_overriding)


@mutant
def nothing_is_forced_on_behind_an_override(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_overriding(original: Any, walk: Any, target: Any) -> Any:
        return original(walk, target if not walk.overriding else dataclasses.replace(target, runs=False))

    _replace(monkeypatch, Walk, "apply_overriding", with_overriding)


@mutant
def marks_of_mounted_apps_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    def note_mark(original: Any, walk: Any, carrier: Any) -> None:
        if not isinstance(carrier, (Starlette, Router)):
            original(walk, carrier)

    _replace(monkeypatch, Walk, "note_mark", note_mark)


@mutant
def the_outermost_mark_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    def note_mark(original: Any, walk: Any, carrier: Any) -> None:
        if walk.mark is None:
            original(walk, carrier)

    _replace(monkeypatch, Walk, "note_mark", note_mark)


@mutant
def marks_belong_to_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    marks: dict[str, Mark] = {}

    def resolve(original: Any, app: Any, scope: Scope, **options: Any) -> Any:
        target = original(app, scope, **options)
        if target.mark is not None:
            marks[scope["path"]] = target.mark
        return walk.Target(target.runs, target.endpoint, marks.get(scope["path"]), target.docs, target.entries)

    _replace_resolve(monkeypatch, resolve)


@mutant
def marks_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: dict[int, tuple[Any, Mark | None]] = {}

    def mark_of(original: Any, carrier: Any) -> Mark | None:
        return read.setdefault(id(carrier), (carrier, original(carrier)))[1]

    _replace(monkeypatch, walk, "mark_of", mark_of)


@mutant
def only_the_object_itself_carries_a_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    def mark_of(original: Any, carrier: Any) -> Any:
        return original(carrier) if marks._MARK in getattr(carrier, "__dict__", {}) else None

    _replace(monkeypatch, walk, "mark_of", mark_of)


@mutant
def marks_of_methods_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    def http_endpoint(original: Any, walk: Any, endpoint: type[HTTPEndpoint], *args: Any, **options: Any) -> Any:
        walk.note_mark(endpoint)
        mark = walk.mark
        target = original(walk, endpoint, *args, **options)
        return type(target)(target.runs, target.endpoint, mark, target.docs, target.entries)

    _replace(monkeypatch, Walk, "enter_http_endpoint", http_endpoint)


@mutant
def docs_are_any_route_with_such_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = ("/docs", "/redoc", "/openapi.json", "/help")
    _replace(monkeypatch, Walk, "is_docs", lambda original, walk, route, router: route.path in pages)


# The index, and what is known by it.


@mutant
def the_index_forgets_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaf_numbers_of(original: Any, index: Any, path: str) -> Any:
        numbers = original(index, path)
        return numbers and numbers[::-1]

    _replace(monkeypatch, Index, "_leaf_numbers_of", leaf_numbers_of)


@mutant
def the_index_notices_no_changed_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Index, "is_current", lambda index: True)


@mutant
def the_index_leaves_out_what_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    def place(original: Any, index: Any, leaf: Any) -> None:
        original(index, leaf)
        index._everywhere.clear()

    _replace(monkeypatch, Index, "_place", place)


@mutant
def the_index_asks_no_convertor(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(original: Any, described: Any) -> Any:
        pattern = original(described)
        return pattern and pattern._replace(is_certain=True)

    _replace(monkeypatch, patterns, "_read", read)


@mutant
def the_index_takes_no_path_for_a_parameter_and_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """`/users/me` leads to `/users/me` alone, not to `/users/{id}` too, which may be declared before it."""

    def leaf_numbers_of(original: Any, index: Any, path: str) -> Any:
        numbers = original(index, path)
        literal = [number for number in numbers or () if path in index._literal and index._leaves[number].is_certain]
        return literal[-1:] or numbers

    _replace(monkeypatch, Index, "_leaf_numbers_of", leaf_numbers_of)


@mutant
def what_is_known_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_cache._Chain, "is_valid_for", lambda chain, scope: True)


@mutant
def the_entrance_trusts_what_is_known_by_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def covers(original: Any, visit: Any, *args: Any) -> Any:
        return visit._facts is None or original(visit, *args)

    _replace(monkeypatch, judgement.Judgement, "covers", covers)


# When it is asked.


@mutant
def nobody_guards_the_entrance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entrances.GuardedEntrance, "__call__", lambda self, *connection: self.app(*connection))


@mutant
def the_entrance_looks_at_the_path_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judgement, "_routing_facts", lambda scope: (scope["path"],))
    _ask_each_route(monkeypatch)


@mutant
def only_the_entrance_is_guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that arrives is let in, and judged once it has been rewritten."""
    judge = gate.Gate.judge

    async def late(self: Any, visit: Any, *args: Any) -> Any:
        cached, receive = await judge(self, visit, *args)
        if cached.blocked:
            visit.judgement.target = walk.Target(runs=False)
            cached = PASSED_AT_ONCE
        return cached, receive

    monkeypatch.setattr(gate.Gate, "judge_at_once", lambda *args: None)
    monkeypatch.setattr(gate.Gate, "judge", late)


# New scopes and batches.


@mutant
def a_new_scope_passes_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (gate, entrances):
        monkeypatch.setattr(module, "outer_passages", lambda *args, **options: None)


@mutant
def a_new_scope_is_taken_for_the_request_that_it_was_made_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judgement.Judgement, "invalidate", lambda visit, target: setattr(visit, "target", target))


@mutant
def the_parts_of_a_batch_share_one_judgement(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is that of the first part, for all that come by the same path."""
    shared: dict[Any, Any] = {}

    async def judge_again(original: Any, self: Any, visit: Any, entrance: Any, scope: Scope, receive: Any) -> Any:
        key = self, entrance, visit.judgement.state, scope["path"]
        cached, receive = await original(self, visit, entrance, scope, receive)
        return shared.setdefault(key, cached), receive

    _replace(monkeypatch, gate.Gate, "judge_again", judge_again)


# Preflights.


@mutant
def a_preflight_is_exempt_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entrances.GuardedEntrance, "may_meet_cors", lambda entrance, target: True)


@mutant
def a_preflight_is_exempt_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "may_meet_cors", lambda target: False)


@mutant
def a_preflight_is_exempt_up_to_the_first_router(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entrances.GuardedEntrance, "may_meet_cors", lambda entrance, target: False)
    monkeypatch.setattr(judgement.Judgement, "covers", lambda visit, entrance, scope: visit.target is None)


@mutant
def a_preflight_is_exempt_up_to_a_router_behind_an_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Walk, "begin_code", lambda walk: None)


@mutant
def a_preflight_is_exempt_where_an_override_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def may_meet_cors(original: Any, entrance: Any, target: walk.Target) -> bool:
        return bool(original(entrance, target)) or entrance.router not in target.routers_before_code

    _replace(monkeypatch, entrances.GuardedEntrance, "may_meet_cors", may_meet_cors)


@mutant
def the_cors_of_a_route_or_mount_is_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entrances, "cors_of", lambda app: None)


@mutant
def whatever_a_route_calls_is_taken_for_cors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entrances, "_watch_cors", lambda app: app is not None)


# The guard.


@mutant
def the_guard_exempts_preflights(monkeypatch: pytest.MonkeyPatch) -> str:
    def of_request(original: Any, self: Any, scope: Scope, path: str, *, is_docs: bool, preflight: bool = True) -> Any:
        return original(self, scope, path, is_docs=is_docs)

    _replace(monkeypatch, exemptions.Exemptions, "of_request", of_request)
    return "routes"


@mutant
def the_guard_knows_no_mounts(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(guard, "_mark_of", lambda scope, visit: marks.mark_of(scope.get("endpoint")))
    return "app"


@mutant
def the_guard_lets_handshakes_through(monkeypatch: pytest.MonkeyPatch) -> str:
    refuse = guard.MaintenanceGuard._refuse

    async def refuse_requests(self: Any, connection: HTTPConnection, *args: Any) -> None:
        if connection.scope["type"] == "http":
            await refuse(self, connection, *args)

    monkeypatch.setattr(guard.MaintenanceGuard, "_refuse", refuse_requests)
    return "routes"


# What follows from it.


@mutant
def exemptions_open_what_is_forced_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def exempt_first(original: Any, self: Any, state: Any, target: Any, scope: Scope, *args: Any) -> Any:
        cached = original(self, state, target, scope, *args)
        if cached and cached.blocked and self.options.exemptions.of_request(scope, scope["path"], is_docs=target.docs):
            return PASSED_AT_ONCE
        return cached

    _replace(monkeypatch, gate.Gate, "_decide", exempt_first)


@mutant
def delete_is_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modes, "SAFE_METHODS", modes.SAFE_METHODS | {"DELETE"})


@mutant
def handshakes_are_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modes, "SAFE_METHODS", modes.SAFE_METHODS | {None})


@mutant
def read_only_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modes, "SAFE_METHODS", frozenset())


@mutant
def handshakes_are_denied_where_they_can_only_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal, "can_deny", lambda scope: True)


@mutant
def the_answer_has_no_retry_after(monkeypatch: pytest.MonkeyPatch) -> None:
    def response(original: Any, *args: Any) -> Response:
        response: Response = original(*args)
        del response.headers["retry-after"]
        return response

    _replace(monkeypatch, answer.Answer, "response", response)


if FRONTENDS:

    @mutant
    def frontends_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
        def behind(original: Any, walk: Any, router: Router) -> Any:
            return walk.reach_nothing() if walk.redirects(router) else walk.enter_default(router)

        _replace(monkeypatch, Walk, "enter_fallback", behind)


if LAZY_INCLUDES:

    @mutant
    def an_included_router_matches_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(walk, "is_like_stock", lambda included: isinstance(included.original_router, APIRouter))

    @mutant
    def includes_have_no_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
        """Included routes are known by the path that they were written with."""

        def match(original: Any, walk: Any, route: BaseRoute, router: Router) -> Any:
            matched = original(walk, route, router)
            if not isinstance(route, (Mount, Host)) and matched.match is Match.NONE:
                for within in getattr(getattr(route, "original_router", None), "routes", ()):
                    unprefixed = original(walk, within, router)
                    if unprefixed.match is not Match.NONE:
                        return unprefixed
            return matched

        _ask_each_route(monkeypatch)
        _replace(monkeypatch, Walk, "match", match)
