"""The package against the router itself: thousands of random requests to random applications.

The oracle is the same application without maintenance. Whatever it runs must run with maintenance as well, and give
the same answer, if and only if the rules say that it may; otherwise the answer is a 503 and nothing runs.

``pytest tests/routing/test_differential.py --requests 50000`` runs longer; ``--seed`` begins elsewhere, or
again where a failure was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from fastapi_maintenance.routing import marks
from tests.differential.ask import answer_to
from tests.differential.build import Builder
from tests.differential.generate import REQUESTS_PER_SCENARIO, scenario
from tests.differential.judge import Disagreement, Report, judge, mark
from tests.differential.mutants import MUTANTS
from tests.differential.plan import FRONTENDS, LAZY_INCLUDES, Ask, Mark, Scenario
from tests.differential.shrink import shrunk

SCENARIOS_PER_TEST = 10
MUTANTS_ARE_CAUGHT_WITHIN = 6_000
"""Requests; each is sent in three states."""
CAUGHT_BY = {
    "head_does_not_fall_back_to_get": 104, "a_preflight_is_exempt_where_an_override_has_it": 61,
    "an_endpoint_class_only_dispatches": 53, "includes_have_no_prefix": 31, "an_app_calls_its_routes_alone": 26,
    "the_index_asks_no_convertor": 21, "a_preflight_is_exempt_nowhere": 15,
    "a_preflight_is_exempt_up_to_the_first_router": 15, "the_cors_of_a_route_or_mount_is_not_seen": 15,
    "whatever_is_called_app_is_called": 12, "a_mark_inside_applies_to_an_override": 11,
    "an_included_router_matches_like_any_other": 11, "the_outermost_mark_wins": 10, "marks_of_methods_are_ignored": 10,
}  # fmt: skip
"""The seeds that caught a mutant late, to begin with; another FastAPI may need another one."""

EXERCISED = {
    # How a request gets to an endpoint.
    "included": 150, "nested include": 30, "parameter in a prefix": 25,
    "in mounted fastapi": 90, "in mounted starlette": 40, "in mounted router": 40, "in mounted api_router": 25,
    "in mounted routes": 10, "in mounted opaque": 10, "in mounted function": 40,
    "below a mount with middleware": 50, "wrapped: class": 12, "wrapped: facade": 20, "wrapped: closure": 15,
    "wrapped: hidden": 30, "wrapped: bound": 5,
    "override: __call__": 40, "override: app": 8, "override: router.__call__": 40, "override: router.app": 40,
    "below a host": 100, "custom default": 120, "same path, another method": 200,
    "/users/me first": 60, "/users/{id} first": 80, "no slash redirects": 200, "odd path": 200,
    "root_path of the server": 90, "root_path of the app": 60, "root_path of a mounted app": 2,
    "added late": 90, "placement added": 400, "placement constructor": 300, "placement around": 250,
    "innocent middleware": 40, "CORS outside": 10, "CORS inside": 15, "an app for each state": 300,
    # What is there.
    "route: api": 300, "route: plain": 100, "route: socket": 50, "route: plain_socket": 60, "route: custom": 20,
    "endpoint: async": 100, "endpoint: sync": 50, "endpoint: typed": 35, "endpoint: partial": 90,
    "endpoint: instance": 30, "endpoint: bound": 100, "endpoint: class": 30, "endpoint: dispatch": 15,
    "endpoint: await": 15, "endpoint: asgi": 25, "endpoint: anonymous": 7, "class: header": 10,
    "class: fallback": 8, "class: handle": 30, "matching": 7, "docs": 15, "status 500": 25, "status 418": 12,
    "status 422": 5, "stopped by a dependency": 15, "method HEAD": 10, "method OPTIONS": 50, "method PURGE": 5,
    "method QUERY": 5, "method get": 5, "a new scope": 200,
    "CORS on the mount": 2, "CORS on the route": 8, "wrapped: cors": 20,
    "websocket, can be denied": 120, "websocket, can only be closed": 120,
    # What is said about it.
    "marked above": 50, "marked below": 80, "marked inside": 15, "method mark": 6, "inner mark against outer mark": 15,
    "mark from further out": 50, "marked after the first request": 25,
}  # fmt: skip
"""How often each of these must be both blocked and let through in 5,000 requests × 3 states, on any FastAPI."""

EXERCISED_LAZILY = {
    "added late to an included router": 3, "gated router": 10, "included mount": 50, "included host": 15,
}  # fmt: skip
"""The same, on a FastAPI that keeps included routers."""

EXERCISED_WITH_FRONTENDS = {"frontend": 30, "included frontend": 10}

BLOCKED = {
    "closed by rewriting the path": 15, "closed by rewriting the method": 4, "closed by rewriting the root_path": 3,
    "closed by rewriting the host": 2, "not opened by rewriting": 30, "not opened by an answer from further out": 5,
    "rewritten in a mounted app only": 1, "marked on": 400,
    "preflight that reaches code": 40, "preflight with another method": 5,
}  # fmt: skip
PASSED = {"preflight that CORS answers": 10, "marked off": 300, "status 307": 2, "status 404": 800, "status 405": 400}

pytestmark = [
    # Old Starlettes forget to close the streams of BaseHTTPMiddleware.
    pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning"),
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <function MemoryObject:pytest.PytestUnraisableExceptionWarning"
    ),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Cut the requests into tests that can run beside each other."""
    if "first_seed" in metafunc.fixturenames:
        first = metafunc.config.getoption("--seed")
        wanted = metafunc.config.getoption("--requests")
        number = -(-wanted // (SCENARIOS_PER_TEST * REQUESTS_PER_SCENARIO))
        metafunc.parametrize("first_seed", range(first, first + number * SCENARIOS_PER_TEST, SCENARIOS_PER_TEST))


def test_code_runs_if_and_only_if_the_decision_says_so(first_seed: int) -> None:
    """The middleware blocks what must be blocked, and is not to be noticed otherwise."""
    report = run(scenario(seed) for seed in range(first_seed, first_seed + SCENARIOS_PER_TEST))
    if report.disagreements:
        pytest.fail(explained(report), pytrace=False)
    assert report.requests == SCENARIOS_PER_TEST * REQUESTS_PER_SCENARIO
    assert report.seen["batch: block"] > 0
    assert report.seen["batch: pass"] > 0


@pytest.mark.usefixtures("nothing_marked")
def test_nothing_is_to_be_noticed_while_nothing_is_forced_on(first_seed: int) -> None:
    """A process in which nothing was ever forced on may take a short cut, to the same answers."""
    seeds = range(first_seed, first_seed + SCENARIOS_PER_TEST // 5)
    report = run(scenario(seed, marks=(Mark.OFF,)) for seed in seeds)
    if report.disagreements:
        pytest.fail(explained(report), pytrace=False)
    assert not marks.forced_on_anywhere()


@pytest.mark.parametrize("where", ["app", "routes"])
def test_the_guard_makes_the_same_decisions(first_seed: int, where: str) -> None:
    """A guard on the app, or on each route, agrees with the rules: alone, and together with the middleware."""
    report = run(scenario(seed, guard=where) for seed in range(first_seed, first_seed + SCENARIOS_PER_TEST // 5))
    if report.disagreements:
        pytest.fail(explained(report), pytrace=False)
    assert report.seen["endpoint: block"] > 0
    assert report.seen["endpoint: pass"] > 0


def test_everything_is_exercised() -> None:
    """What the generator can do, it does: none of it has silently gone."""
    seen = run((scenario(seed) for seed in range(5_000 // REQUESTS_PER_SCENARIO)), oracle_only=True).seen
    both = EXERCISED | (EXERCISED_LAZILY if LAZY_INCLUDES else {}) | (EXERCISED_WITH_FRONTENDS if FRONTENDS else {})
    wanted = {f"{name}: {verdict}": least for name, least in both.items() for verdict in ("block", "pass")}
    wanted |= {f"{name}: block": least for name, least in BLOCKED.items()}
    wanted |= {f"{name}: pass": least for name, least in PASSED.items()}
    assert {name: seen[name] for name, least in wanted.items() if seen[name] < least} == {}


@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is wrong in one way does not get far."""
    guard = MUTANTS[name](monkeypatch) or ""
    seeds = [CAUGHT_BY.get(name, 0), *range(MUTANTS_ARE_CAUGHT_WITHIN // REQUESTS_PER_SCENARIO)]
    caught = any(run([scenario(seed, guard=guard)], until_first=True).disagreements for seed in seeds)
    assert caught, f"{name} was not noticed in {MUTANTS_ARE_CAUGHT_WITHIN} requests"


def test_there_are_mutants() -> None:
    """At least ten ways to be wrong are tried."""
    assert len(MUTANTS) >= 10


@pytest.mark.parametrize("seed", range(3))
def test_a_seed_is_a_scenario(seed: int) -> None:
    """The same seed gives the same application, the same requests and the same answers."""
    assert scenario(seed) == scenario(seed)

    async def outside(story: Scenario) -> list[tuple[object, ...]]:
        app = Builder(marker=mark).root(story)
        return [(await answer_to(app, step)).outside() for step in story.steps if isinstance(step, Ask)]

    assert asyncio.run(outside(scenario(seed))) == asyncio.run(outside(scenario(seed)))


def run(stories: Iterable[Scenario], *, until_first: bool = False, oracle_only: bool = False) -> Report:
    """Judge some scenarios."""

    async def judge_all() -> Report:
        report = Report()
        for story in stories:
            report.add(await judge(story, until_first=until_first, oracle_only=oracle_only))
        return report

    return asyncio.run(judge_all())


def explained(report: Report) -> str:
    """Return the first disagreement as it was found, and as small as it gets."""
    first = report.disagreements[0]

    async def disagrees(story: Scenario) -> bool:
        return any(found.problem == first.problem for found in (await judge(story)).disagreements)

    async def smallest() -> Disagreement:
        story = await shrunk(first.story, disagrees)
        return next(found for found in (await judge(story)).disagreements if found.problem == first.problem)

    return (
        f"{len(report.disagreements)} disagreements, the first one:\n{first}\n\nas small as it gets:\n"
        f"{asyncio.run(smallest())}\n\n"
        f"again: pytest tests/routing/test_differential.py --seed {first.story.seed} --requests 1"
    )
