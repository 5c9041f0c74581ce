"""From a scenario that shows a disagreement to a small one that still does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from copy import deepcopy
from dataclasses import fields, is_dataclass
from typing import Any

from .plan import Dependency, Endpoint, Extend, Frontend, Leaf, Middleware, Remark, Scenario, survey

SIMPLE_VALUES: dict[str, tuple[Any, ...]] = {
    "mark": (None,),
    "wrapper": ("",),
    "wrapper_mark": (None,),
    "default": (None,),
    "root_path": ("",),
    "redirect_slashes": (True,),
    "placement": ("added",),
    "docs_exempt": (True,),
    "preflight_exempt": (True,),
    "app_per_state": (False,),
    "outcome": ("ok",),
    "route_class": ("stock",),
    "middleware": (False,),
    "gated": (False,),
    "style": ("asgi", "async"),
    "denies": (False,),
    "query": ("",),
    "prefix": ("",),
    "mark_place": ("below",),
}
"""What the fields of a plan are set to, where that keeps the disagreement."""


async def shrunk(story: Scenario, disagrees: Callable[[Scenario], Awaitable[bool]]) -> Scenario:
    """Return the smallest scenario found that still disagrees."""
    smaller = True
    while smaller:
        smaller = False
        for candidate in _candidates(story):
            try:
                still = await disagrees(candidate)
            except Exception:  # the candidate can't be built, or a step has lost its target
                still = False
            if still:
                story, smaller = candidate, True
                break
    return story


def _candidates(story: Scenario) -> Iterator[Scenario]:
    """Yield the scenario with one thing less, each time another."""
    # Halves first, as most requests have nothing to do with it.
    size = max(len(story.steps) // 2, 1)
    while True:
        for start in range(0, len(story.steps), size):
            candidate = deepcopy(story)
            del candidate.steps[start : start + size]
            if len(candidate.steps) < len(story.steps):
                yield _without_lost_steps(candidate)
        if size == 1:
            break
        size //= 2
    for path in _paths(story):
        owner, name = _reach(story, path[:-1]), path[-1]
        value = owner[name] if isinstance(owner, list) else getattr(owner, str(name))
        if isinstance(owner, list):
            candidate = deepcopy(story)
            del _reach(candidate, path[:-1])[name]
            yield _without_lost_steps(candidate)
        for simple in SIMPLE_VALUES.get(str(name), ()):
            if value != simple and not isinstance(owner, list) and simple not in _earlier(str(name), value):
                candidate = deepcopy(story)
                setattr(_reach(candidate, path[:-1]), str(name), simple)
                yield _without_lost_steps(candidate)
    for number, step in enumerate(story.steps):
        for index in range(len(getattr(step, "headers", ()))):
            candidate = deepcopy(story)
            ask: Any = candidate.steps[number]
            headers = (*ask.headers[:index], *ask.headers[index + 1 :])
            candidate.steps[number] = type(ask)(**{**vars(ask), "headers": headers})
            yield candidate


def _earlier(name: str, value: Any) -> tuple[Any, ...]:
    """Return the values that are no simpler than this one, so that shrinking comes to an end."""
    values = SIMPLE_VALUES[name]
    return values[values.index(value) :] if value in values else ()


def _without_lost_steps(story: Scenario) -> Scenario:
    """Return a scenario without changes of what is gone."""
    known = survey(story.app)
    story.steps = [
        step
        for step in story.steps
        if (not isinstance(step, Extend) or step.router in known.routers)
        and (not isinstance(step, Remark) or step.target in known.marks)
    ]
    return story


def _paths(node: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the way to everything within a plan, the large things first."""
    parts: list[tuple[str | int, Any]] = []
    if isinstance(node, list):
        parts = list(enumerate(node))
    elif is_dataclass(node):
        parts = [(spec.name, getattr(node, spec.name)) for spec in fields(node) if spec.name != "steps"]
    for name, _ in parts:
        yield (*path, name)
    for name, value in parts:
        if isinstance(value, list) or (is_dataclass(value) and not isinstance(value, (Frontend, Endpoint))):
            yield from _paths(value, (*path, name))
        elif isinstance(value, Endpoint):
            yield from _paths(value, (*path, name))


def _reach(node: Any, path: tuple[str | int, ...]) -> Any:
    for name in path:
        node = node[name] if isinstance(node, list) else getattr(node, str(name))
    return node
