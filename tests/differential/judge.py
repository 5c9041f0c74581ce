"""What must happen to a request, and whether it did.

The oracle is the same application without maintenance: what runs there is what would run. The marks of what ran are
known from the plan, and the rules are the design's; nothing here asks the package.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.middleware import Middleware as StarletteMiddleware
from starlette.types import ASGIApp

from fastapi_maintenance import (
    Exemptions,
    MaintenanceMode,
    MaintenanceModeMiddleware,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import MemoryBackend

from .ask import Answer, answer_to
from .build import Builder
from .generate import scenario
from .journal import Ran
from .plan import Ask, Extend, Mark, Remark, Scenario, Step, Survey, describe, survey

STATES = ("off", "on", "read_only")
SAFE = ("GET", "HEAD", "OPTIONS", "TRACE")
DENIAL = "websocket.http.response"
DEFAULT_BODY = {"detail": "Service temporarily unavailable due to maintenance"}
DEFAULT_HEADERS = (("retry-after", "3600"), ("cache-control", "no-store"))


def expected(looks: Sequence[Sequence[Ran]], state: str, known: Survey, story: Scenario) -> str:
    """Return ``block`` or ``pass``.

    A request is looked at as it arrives, and again at the entrance of a router that it reaches as something else.
    ``looks`` has what would run at each of these moments; the last one is what really runs. One block is enough.
    """
    return "block" if any(_blocks(ran, state, known, story) for ran in looks) else "pass"


def _blocks(ran: Sequence[Ran], state: str, known: Survey, story: Scenario) -> bool:
    """Apply the rules, in their order, to what would run."""
    if not ran:
        return False  # 404, 405, a redirect: nothing of the application would run
    # Dependencies run first, but the mark is that of the endpoint that they run for.
    about = next((each for each in ran if each.what != "dependency"), ran[0])
    mark = known.mark_of(about.subject)
    if mark is not None:
        return mark is Mark.ON
    if story.preflight_exempt and about.preflight:
        return False
    if story.docs_exempt and about.what == "docs":
        return False
    return state == "on" or (state == "read_only" and about.method not in SAFE)


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
        before = "\n".join(f"    {step}" for step in self.story.steps[: self.step] if not isinstance(step, Ask))
        return (
            f"{self.problem}\n"
            f"  expected: {self.verdict}, state {self.state}, step {self.step} of seed {self.story.seed}\n"
            f"  request: {self.ask}\n  without maintenance: {self.oracle}\n  with maintenance: {self.answer}\n"
            f"{tree}\n  changes before:\n{before}\n"
            f"  again: pytest tests/test_differential.py --seed {self.story.seed} --requests 1"
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


class Subject:
    """The application under test, one for all states or one for each."""

    def __init__(self, story: Scenario, states: Sequence[str]) -> None:
        self.backend = MemoryBackend()
        self.states = states
        options = {
            "backend": self.backend,
            "exemptions": Exemptions(docs=story.docs_exempt, preflight=story.preflight_exempt),
        }
        self.builder = Builder(marker=mark)
        middleware = StarletteMiddleware(MaintenanceModeMiddleware, **options)
        self.app = self.builder.root(story, middleware)

    async def answer(self, ask: Ask, state: str) -> Answer:
        """Answer a request while the switch is in a state."""
        await set_maintenance_mode(MaintenanceMode(state), self.backend)
        return await answer_to(self.app, ask)


class Guarded(Subject):
    """The application under test with a guard, and with or without the middleware."""


def mark(thing: Any, how: Mark) -> Any:
    """Apply the decorator."""
    return (force_maintenance_mode_on if how is Mark.ON else force_maintenance_mode_off)(thing)


async def judge(story: Scenario) -> Report:
    """Let a scenario happen to the application with and without maintenance, and compare."""
    report = Report()
    known = survey(story.app)
    # What would run where: without any middleware on the way, without those further in, and in earnest.
    plain = [Builder(marker=mark, level=level) for level in sorted(known.levels)] + [Builder(marker=mark)]
    looks = [(builder, builder.root(story)) for builder in plain]
    subjects = [Subject(story, (state,)) for state in STATES] if story.app_per_state else [Subject(story, STATES)]
    builders = [*plain, *(subject.builder for subject in subjects)]
    for number, step in enumerate(story.steps):
        if isinstance(step, Extend):
            for builder in builders:
                builder.extend(known.routers[step.router], step.how)
        elif isinstance(step, Remark):
            known.marks[step.target] = step.mark
            known.remarked.add(step.target)
            for builder in builders:
                builder.remark(step.target, step.mark)
        else:
            report.requests += 1
            answers = [await answer_to(app, step) for _, app in looks]
            oracle = answers[-1]
            ran = [answer.ran for answer in answers]
            for subject in subjects:
                for state in rotated(subject.states, number):
                    verdict = expected(ran, state, known, story)
                    report.seen.update(f"{tag}, {verdict}" for tag in features(ran, state, step, oracle, known, story))
                    answer = await subject.answer(step, state)
                    problem = difference(verdict, step, answer, oracle)
                    if problem:
                        report.disagreements.append(
                            Disagreement(story, number, state, verdict, problem, step, answer, oracle)
                        )
    return report


def rotated(states: Sequence[str], number: int) -> Sequence[str]:
    """Return the states, beginning with another one each time."""
    begin = number % len(states)
    return (*states[begin:], *states[:begin])


def difference(verdict: str, ask: Ask, answer: Answer, oracle: Answer) -> str:
    """Return how an answer differs from what it must be, or nothing."""
    if verdict == "pass":
        if answer.code() != oracle.code():
            return "passed, but other code ran"
        return "" if answer.outside() == oracle.outside() else "passed, but the answer is another"
    if answer.code():
        return "blocked, but code of the application ran"
    if answer.error:
        return "blocked, but an exception came out"
    if ask.method == "WEBSOCKET" and not ask.denial:
        closed = len(answer.events) == 1 and answer.events[0].startswith("websocket.close 1013")
        return "" if closed and answer.status is None else "the handshake is not closed with 1013"
    if ask.method == "WEBSOCKET" and any(not event.startswith(DENIAL) for event in answer.events):
        return "blocked, but the websocket did something"
    if answer.status != 503:
        return "blocked, but the status is not 503"
    if missing := set(DEFAULT_HEADERS) - set(answer.headers):
        return f"blocked, but without {missing}"
    return "" if json.loads(answer.body) == DEFAULT_BODY else "blocked, but the body is another"


def features(
    ran: Sequence[Sequence[Ran]], state: str, ask: Ask, oracle: Answer, known: Survey, story: Scenario
) -> set[str]:
    """Return what is special about a request, to count what was exercised."""
    seen = {f"state {state}", f"placement {story.placement}", f"status {oracle.status}"}
    final = ran[-1]
    about = next((each for each in final if each.what != "dependency"), None)
    if about is not None:
        seen |= {about.what, *known.tags_of(about.subject)}
        if about.subject is not None and known.mark_of(about.subject) is not None:
            seen |= {"mark decides"}
    return seen
