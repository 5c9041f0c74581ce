"""From a scenario that shows a disagreement to a small one that still does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from copy import deepcopy
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any

from .plan import Ask, Extend, Rearrange, Remark, Scenario, survey

SIMPLE: dict[str, Any] = {
    "batch": "",
    "default": None,
    "denies": False,
    "docs_exempt": True,
    "gated": False,
    "mark": None,
    "mark_place": "below",
    "middleware": "",
    "outcome": "ok",
    "override": None,
    "placement": "added",
    "preflight_exempt": True,
    "prefix": "",
    "redirect_slashes": True,
    "root_path": "",
    "route_class": "stock",
    "wrapper": "",
    "wrapper_mark": None,
}
"""What the fields of a plan are set to, where that keeps the disagreement."""

Edit = Callable[[], None]


async def shrunk(story: Scenario, disagrees: Callable[[Scenario], Awaitable[bool]]) -> Scenario:
    """Return a scenario that still disagrees, and does not with any one thing less."""
    number = failures = 0
    while failures < len(list(_edits(story))):
        candidate = deepcopy(story)
        edits = list(_edits(candidate))
        edits[number % len(edits)]()
        _drop_lost_steps(candidate)
        try:
            smaller = await disagrees(candidate)
        except Exception:  # without that one thing the application can't be built
            smaller = False
        if smaller:
            story, failures = candidate, 0
        else:
            number, failures = number + 1, failures + 1
    return story


def _edits(story: Scenario) -> Iterator[Edit]:
    """Yield all ways to make a scenario smaller by one thing, the big things first."""
    half = len(story.steps) // 2
    if half:
        yield partial(story.steps.__delitem__, slice(half))
        yield partial(story.steps.__delitem__, slice(half, None))
    for index in range(len(story.steps)):
        yield partial(story.steps.__delitem__, index)
    yield from _edits_within(story)
    for index, step in enumerate(story.steps):
        if isinstance(step, Ask):
            for header in step.headers:
                less = tuple(other for other in step.headers if other is not header)
                yield partial(story.steps.__setitem__, index, replace(step, headers=less))


def _edits_within(node: Any) -> Iterator[Edit]:
    """Yield the edits of one node of a plan and of all below it."""
    if isinstance(node, list):
        for index in range(len(node)):
            yield partial(node.__delitem__, index)
        for each in node:
            yield from _edits_within(each)
    elif is_dataclass(node):
        for spec in fields(node):
            if spec.name in SIMPLE and getattr(node, spec.name) != SIMPLE[spec.name]:
                yield partial(setattr, node, spec.name, SIMPLE[spec.name])
        for spec in fields(node):
            if spec.name != "steps":
                yield from _edits_within(getattr(node, spec.name))


def _drop_lost_steps(story: Scenario) -> None:
    """Leave out the changes of what is gone."""
    known = survey(story.app)
    story.steps = [
        step
        for step in story.steps
        if not (isinstance(step, (Extend, Rearrange)) and step.router not in known.routers)
        and not (isinstance(step, Remark) and step.target not in known.marks)
    ]
