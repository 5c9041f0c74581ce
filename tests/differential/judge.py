"""What must happen to a request, and whether it did.

The oracle is the same application without maintenance: what runs there is what would run. The marks of what ran are
known from the plan, and the rules are the design's; nothing here asks the package.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

from fastapi import Depends
from starlette.middleware import Middleware as StarletteMiddleware

from fastapi_maintenance import (
    Exemptions,
    MaintenanceGuard,
    MaintenanceMode,
    MaintenanceModeMiddleware,
    configure_backend,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    maintenance_guard,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import MemoryBackend

from .ask import Answer, answer_to
from .batch import Batch, answers_to
from .build import ANSWER, REWRITERS, Builder
from .journal import Ran
from .plan import Ask, Extend, Mark, Middleware, Override, Rearrange, Remark, Scenario, Survey, describe, survey

STATES = ("off", "on", "read_only")
SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")
DENIAL = "websocket.http.response"
DEFAULT_BODY = {"detail": "Service temporarily unavailable due to maintenance"}
READ_ONLY = {"detail": "Service temporarily read-only due to maintenance"}
READ_ONLY_BODIES = (READ_ONLY, {**READ_ONLY, "mode": "read_only"})
"""Of a guard without the middleware, FastAPI answers with the detail alone."""
DEFAULT_HEADERS = {("retry-after", "3600"), ("cache-control", "no-store")}
SWITCH = "differential"
"""The switch of guards that stand without the middleware."""

# The oracle.


def expected(looks: Sequence[Sequence[Ran]], state: str, known: Survey, story: Scenario) -> str:
    """Return ``block``, ``pass``, or ``either``.

    A request is looked at as it arrives, and again at the entrance of a router that it reaches as something else.
    ``looks`` has what would run at each of these moments; the last one is what really runs. One block is enough.
    """
    *before, last = looks
    if any(_blocks(ran, state, known, story) for ran in before) or _blocks(last, state, known, story, is_last=True):
        return "block"
    # No route matches, and looking for a slash redirect raises: nobody can tell what would run behind that, but the
    # request ends with the router's exception anyway. Both answers are right.
    return "either" if any(each.what == "redirecting" for ran in looks for each in ran) else "pass"


def _blocks(ran: Sequence[Ran], state: str, known: Survey, story: Scenario, *, is_last: bool = False) -> bool:
    """Apply the rules to each override on the way, and to the endpoint; ``is_last``: nothing answers before these."""
    overrides = list(takewhile(lambda each: each.what == "override", ran))
    rest = ran[len(overrides) :]
    # Dependencies run first, but the mark is that of the endpoint that they run for.
    about = next((each for each in rest if each.what not in ("dependency", "override")), rest[0] if rest else None)
    parts = (*overrides, *([about] if about else []))
    return any(_blocks_one(each, state, known, story, is_last=is_last) for each in parts)


def _blocks_one(about: Ran, state: str, known: Survey, story: Scenario, *, is_last: bool) -> bool:
    """Apply the rules, in their order, to one thing that would run."""
    if about.what == "redirecting":
        return False  # 404, 405, a redirect: nothing of the application would run
    mark = known.mark_of(about.subject)
    if mark is not None:
        return mark is Mark.ON
    if story.preflight_exempt and about.preflight and not is_last:
        return False
    if story.docs_exempt and about.what == "docs":
        return False
    return state == "on" or (state == "read_only" and about.method not in SAFE)


def difference(
    verdict: str, state: str, ask: Ask, answer: Answer, oracle: Answer, may_run: Sequence[Hashable] = ()
) -> str:
    """Return how an answer differs from what it must be, or nothing.

    ``may_run`` has what may have run before a block: a kind, or one of a kind with its name.
    """
    if verdict == "either":
        passed = difference("pass", state, ask, answer, oracle)
        return passed and difference("block", state, ask, answer, oracle, may_run)
    if verdict == "pass":
        if answer.code() != oracle.code():
            return "passed, but other code ran"
        return "" if answer.outside() == oracle.outside() else "passed, but the answer is another"
    if any(ran.what not in may_run and (ran.what, ran.name) not in may_run for ran in answer.code()):
        return "blocked, but code of the application ran"
    if answer.error:
        return "blocked, but an exception came out"
    if ask.method == "WEBSOCKET" and not ask.denial:
        closed = len(answer.events) == 1 and answer.events[0].startswith("websocket.close 1013")
        return "" if closed and answer.status is None else "blocked, but the handshake is not closed with 1013"
    if ask.method == "WEBSOCKET" and any(not event.startswith(DENIAL) for event in answer.events):
        return "blocked, but the websocket did something"
    if answer.status != 503:
        return "blocked, but the status is not 503"
    if missing := DEFAULT_HEADERS - set(answer.headers):
        return f"blocked, but without {missing}"
    return "" if _is_default_body(answer.body, state, ask) else "blocked, but the body is another"


def _is_default_body(body: bytes, state: str, ask: Ask) -> bool:
    """Return whether a body is that of the default answer: JSON, unless a page was asked for, and none for HEAD."""
    if not body:
        return "HEAD" in (ask.method, dict(ask.headers).get(REWRITERS["method"]))  # rewritten in front of the gate
    # What is forced on is unavailable while the switch is read-only, too.
    possible = [DEFAULT_BODY, *READ_ONLY_BODIES] if state == "read_only" else [DEFAULT_BODY]
    if ("accept", "text/html") in ask.headers and body.startswith(b"<!doctype html>"):
        return any(each["detail"].encode() in body for each in possible)
    return json.loads(body) in possible


@dataclass
class Disagreement:
    """A request that was answered otherwise than it must be."""

    story: Scenario
    step: int
    state: str
    verdict: str
    problem: str
    ask: Ask
    answer: Answer
    oracle: Answer

    def __str__(self) -> str:
        tree = "\n".join(describe(self.story, "  "))
        changes = "".join(f"\n    {step}" for step in self.story.steps[: self.step] if not isinstance(step, Ask))
        return (
            f"{self.problem} (seed {self.story.seed}, step {self.step})\n"
            f"  the switch is {self.state}, so this must be the verdict: {self.verdict}\n"
            f"  request: {self.ask}\n"
            f"  without maintenance: {self.oracle}\n"
            f"  with maintenance: {self.answer}\n"
            f"{tree}\n"
            f"  changed before the request:{changes or ' nothing'}"
        )


@dataclass
class Report:
    """What came of one or more scenarios."""

    requests: int = 0
    disagreements: list[Disagreement] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    """How often each special thing was exercised."""

    def add(self, other: Report) -> None:
        """Take over another report."""
        self.requests += other.requests
        self.disagreements += other.disagreements
        self.seen += other.seen


# The application under test.


class Subject:
    """One application under test, for some of the states."""

    def __init__(self, story: Scenario, states: Sequence[str], *, middleware: bool = True) -> None:
        self.states = states
        self.backend = MemoryBackend()
        exemptions = Exemptions(docs=story.docs_exempt, preflight=story.preflight_exempt, paths=[Batch.path])
        guards = []
        if story.guard:
            # Under the middleware the guard's switch is the app's own, else there is one for guards.
            guard = maintenance_guard if middleware else MaintenanceGuard(SWITCH, exemptions=exemptions)
            guards = [Depends(guard)]
        self.switch = "" if middleware else SWITCH
        self.batch = story.batch if middleware else ""
        self.builder = Builder(marker=mark, guard=story.guard, guards=guards)
        ours = StarletteMiddleware(MaintenanceModeMiddleware, backend=self.backend, exemptions=exemptions)
        batch = [StarletteMiddleware(Batch, way=self.batch)] if self.batch else []
        self.app = self.builder.root(story, *([ours, *batch] if middleware else []))
        self.of_routes = story.guard == "routes" and not middleware

    async def answer(self, ask: Ask, state: str) -> Answer:
        """Answer a request while the switch is in a state."""
        if self.switch:
            configure_backend(self.backend, name=self.switch)
        await set_maintenance_mode(MaintenanceMode(state), self.backend)
        return await answer_to(self.app, ask)

    async def answers(self, asks: Sequence[Ask], state: str) -> list[Answer]:
        """Answer some requests as the parts of one; none, if that one did not get there."""
        await set_maintenance_mode(MaintenanceMode(state), self.backend)
        return await answers_to(self.app, asks)


def subjects_of(story: Scenario) -> list[Subject]:
    """Return the applications that a scenario happens to, the oracle apart."""
    if story.guard:
        return [Subject(story, STATES, middleware=False), Subject(story, STATES)]
    if story.app_per_state:
        return [Subject(story, (state,)) for state in STATES]
    return [Subject(story, STATES)]


def mark(thing: Any, how: Mark) -> Any:
    """Apply the decorator."""
    return (force_maintenance_mode_on if how is Mark.ON else force_maintenance_mode_off)(thing)


async def judge(story: Scenario, *, until_first: bool = False, oracle_only: bool = False) -> Report:
    """Let a scenario happen to the application with and without maintenance, and compare.

    With ``oracle_only`` nothing is compared: the report says what would have been exercised.
    """
    report = Report()
    known = survey(story.app)
    # What would run where: without the middlewares on the way, without those further in, and in earnest.
    plain = [Builder(marker=mark, level=level) for level in sorted(known.levels)] + [Builder(marker=mark)]
    looking = [builder.root(story) for builder in plain]
    subjects = [] if oracle_only else subjects_of(story)
    builders = [*plain, *(subject.builder for subject in subjects)]
    parts: list[Asked] = []
    for number, step in enumerate(story.steps):
        if isinstance(step, Extend):
            for builder in builders:
                builder.extend(known.routers[step.router], step.how)
            continue
        if isinstance(step, Rearrange):
            for builder in builders:
                builder.rearrange(known.routers[step.router], step.how)
            continue
        if isinstance(step, Remark):
            known.remark(step.target, step.mark)
            for builder in builders:
                builder.remark(step.target, step.mark)
            continue
        report.requests += 1
        rearranged = any(isinstance(earlier, Rearrange) for earlier in story.steps[:number])
        answers = [await answer_to(app, step) for app in looking]
        looks, oracle = [answer.ran for answer in answers], answers[-1]
        for state in STATES:
            verdict = expected(looks, state, known, story)
            for tag in features(looks, state, step, oracle, known, story):
                report.seen[tag] += 1
                report.seen[f"{tag}: {verdict}"] += 1
            if rearranged:
                report.seen[f"after a list was changed by hand: {verdict}"] += 1
        if subjects and story.batch:
            parts.append(Asked(number, step, looks, oracle))
            following = story.steps[number + 1 : number + 2]
            if len(parts) == PARTS or not following or not isinstance(following[0], Ask):
                for subject in subjects:
                    await _judge_parts(report, story, subject, parts, known)
                parts = []
            if until_first and report.disagreements:
                return report
        for subject in subjects:
            for state in _rotated(subject.states, number):
                answer = await subject.answer(step, state)
                verdict = expected(looks, state, known, story)
                # A guard is the last dependency but those of its route. An override that has let the request in, as it
                # came, has run when another judgement, further in, blocks what it has become.
                may_run = ["dependency"] if subject.of_routes else []
                may_run += [] if _blocks(looks[0], state, known, story) else ["override"]
                problem = difference(verdict, state, step, answer, oracle, may_run)
                if problem:
                    found = Disagreement(story, number, state, verdict, problem, step, answer, oracle)
                    report.disagreements.append(found)
                    if until_first:
                        return report
    return report


@dataclass
class Asked:
    """One request of a scenario, and what comes of it without maintenance."""

    number: int
    ask: Ask
    looks: list[list[Ran]]
    oracle: Answer


PARTS = 5
"""How many requests a batch has at most."""


async def _judge_parts(
    report: Report, story: Scenario, subject: Subject, parts: Sequence[Asked], known: Survey
) -> None:
    """Ask for some requests as the parts of one, and compare each."""
    # They come into being inside of the middleware, so nobody looks at them as they arrive, but at the router: behind
    # the `__call__` of the app or its router, and in front of the router's `app`.
    override = story.app.override or Override("", Middleware("none", "asgi"))
    first = 0 if override.method == "router.app" and override.does.interferes else int(0 in known.levels)
    called = ("override", story.app.id)
    may_run = [called] if override.method.endswith("__call__") else []
    for state in subject.states if subject.batch else ():
        answers = await subject.answers([part.ask for part in parts], state)
        for part, answer in zip(parts, answers, strict=False):
            if answer.error == part.oracle.error != "":
                # The 500 is made further out than the parts are.
                answer = replace(part.oracle, ran=answer.ran)  # noqa: PLW2901
            looks = part.looks[first:]
            is_answered = override.does.effect == "answer" and ANSWER in dict(part.ask.headers)
            if override.method == "__call__" or (may_run and is_answered and part.ask.method != "WEBSOCKET"):
                # To no router belongs the `__call__` of the app, and what is answered by its own comes to none.
                looks = [[ran for ran in look if (ran.what, ran.name) != called] for look in looks]
            verdict = expected(looks, state, known, story)
            report.seen[f"batch: {verdict}"] += 1
            problem = difference(verdict, state, part.ask, answer, part.oracle, may_run)
            if problem:
                problem += ", as a part of a batch"
                found = Disagreement(story, part.number, state, verdict, problem, part.ask, answer, part.oracle)
                report.disagreements.append(found)


def _rotated(states: Sequence[str], number: int) -> Sequence[str]:
    """Return the states, beginning with another one each time."""
    begin = number % len(states)
    return (*states[begin:], *states[:begin])


# What was exercised.


def features(
    looks: Sequence[Sequence[Ran]], state: str, ask: Ask, oracle: Answer, known: Survey, story: Scenario
) -> set[str]:
    """Return what is special about a request."""
    ran = looks[-1]
    about = next((each for each in ran if each.what not in ("dependency", "override")), None)
    about = about or next((each for each in ran if each.what == "override"), None)
    headers = {name for name, _ in ask.headers}
    seen = {f"state {state}", f"placement {story.placement}", f"status {oracle.status}"}
    if story.app_per_state:
        seen.add("an app for each state")
    if any(middleware.effect == "cors" for middleware in story.outer):
        seen.add("CORS outside")
    if "cors" in known.effects:
        seen.add("CORS inside")
        if not ran and any(each.preflight for look in looks[:-1] for each in look):
            seen.add("preflight that CORS answers")
    if "anew" in known.styles:
        seen.add("a new scope")
    if ask.root_path:
        seen.add("root_path of the server")
    if any(sign in ask.path for sign in ("//", "/.", "%", " ", "ü")):
        seen.add("odd path")
    if ask.method == "WEBSOCKET":
        seen.add("websocket, can be denied" if ask.denial else "websocket, can only be closed")
    if about is not None:
        seen |= {about.what, *known.tags_of(about.subject), f"method {about.method}"}
        seen |= _mark_features(about, known)
        if about.what == "docs":
            place = known.places[about.subject or ""]
            seen |= {"docs of a mounted app"} if place.depth else {"docs of the app"}
        if about.preflight:
            seen.add("preflight that reaches code")
            if REWRITERS["method"] in headers:
                seen.add("preflight with another method")
    elif ran:
        seen.add("stopped by a dependency")
    if len(looks) > 1:
        first = _blocks(looks[0], state, known, story)
        last = _blocks(looks[-1], state, known, story)
        if not first and any(_blocks(look, state, known, story) for look in looks[1:]):
            effects = {effect for effect in known.effects if REWRITERS.get(effect) in headers}
            seen |= {f"closed by rewriting the {effect}" for effect in effects}
        if first and not last:
            seen.add("not opened by an answer from further out" if ANSWER in headers else "not opened by rewriting")
        if 0 not in known.levels and first != last:
            seen.add("rewritten in a mounted app only")
    return seen


def _mark_features(about: Ran, known: Survey) -> set[str]:
    """Return what is special about the marks on the way to something."""
    if about.subject is None:
        return set()
    carriers = [name for name in known.places[about.subject].chain if known.marks[name] is not None]
    if not carriers:
        return {"unmarked"}
    seen = {"marked", f"marked {known.mark_of(about.subject)}"}
    if len({known.marks[name] for name in carriers}) > 1:
        seen.add("inner mark against outer mark")
    if carriers[-1] in known.remarked:
        seen.add("marked after the first request")
    seen.add("mark of the endpoint" if carriers[-1] == about.subject else "mark from further out")
    return seen
