"""The functions that an app hands over: how they are called, and with what."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any
from unittest.mock import Mock

import pytest
from starlette.requests import Request

from fastapi_maintenance import Decision
from fastapi_maintenance.gate.callbacks import call, takes_decision
from fastapi_maintenance.gate.decision_cache import PASSED_AT_ONCE

both_loops = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])

Ran = tuple[tuple[object, ...], int]
"""The arguments that a handler got, and the thread that it ran in."""


def sync(*arguments: object) -> Ran:
    return arguments, threading.get_ident()


async def on_the_loop(*arguments: object) -> Ran:
    return sync(*arguments)


class Sync:
    """An object that can be called."""

    def __call__(self, *arguments: object) -> Ran:
        return sync(*arguments)


class OnTheLoop:
    """An object that can be called and awaited."""

    async def __call__(self, *arguments: object) -> Ran:
        return sync(*arguments)

    async def method(self, *arguments: object) -> Ran:
        return sync(*arguments)


@pytest.mark.anyio
@both_loops
@pytest.mark.parametrize("handler", [sync, Sync(), Sync().__call__])
async def test_a_sync_handler_runs_off_the_loop(handler: Callable[..., object]) -> None:
    """It may block."""
    arguments, thread = await call(handler, "request", "decision")
    assert arguments == ("request", "decision")
    assert thread != threading.get_ident()


@pytest.mark.anyio
@both_loops
@pytest.mark.parametrize("handler", [on_the_loop, OnTheLoop(), OnTheLoop().method])
async def test_an_async_handler_runs_on_the_loop(handler: Callable[..., object]) -> None:
    """It may use what belongs to the loop, before its first await as well."""
    assert await call(handler, "request") == (("request",), threading.get_ident())


@pytest.mark.anyio
@both_loops
@pytest.mark.parametrize(
    ("function", "is_on_the_loop"), [(sync, False), (Sync(), False), (on_the_loop, True), (OnTheLoop(), True)]
)
async def test_a_partial_is_as_its_function(function: Callable[..., object], is_on_the_loop: bool) -> None:
    """However many of them there are around it."""
    for handler in (partial(function, "template"), partial(partial(function), "template")):
        arguments, thread = await call(handler, "request")
        assert arguments == ("template", "request")
        assert (thread == threading.get_ident()) is is_on_the_loop


@pytest.mark.anyio
@both_loops
async def test_what_a_sync_handler_returns_is_awaited_on_the_loop() -> None:
    """A lambda around an async function is sync, and its result is to be awaited."""
    made_in: list[int] = []

    def handler(request: object) -> Awaitable[Ran]:
        made_in.append(threading.get_ident())
        return on_the_loop(request)

    assert await call(handler, "request") == (("request",), threading.get_ident())
    assert len(made_in) == 1
    assert threading.get_ident() not in made_in


@pytest.mark.anyio
@both_loops
@pytest.mark.parametrize("is_async", [False, True])
async def test_what_a_handler_raises_is_raised(is_async: bool) -> None:
    """Whoever calls it knows what to do instead."""

    def fail(fault: Exception) -> None:
        raise fault

    async def fail_on_the_loop(fault: Exception) -> None:
        raise fault

    fault = LookupError("no such template")
    with pytest.raises(LookupError) as error:
        await call(fail_on_the_loop if is_async else fail, fault)
    assert error.value is fault


# Which of them take the decision


def one(request: Request) -> None: ...
def two(request: Request, decision: Decision) -> None: ...
def other_name(request: Request, why: Decision, /) -> None: ...
def named_with_default(request: Request, decision: Decision | None = None) -> None: ...
def with_default(request: Request, status: int = 503) -> None: ...
def any_number(*arguments: object) -> None: ...
def one_and_any_number(request: Request, *more: object) -> None: ...
def two_and_any_number(request: Request, decision: Decision, *more: object) -> None: ...
def keyword_only(request: Request, *, decision: Decision | None = None) -> None: ...
def keywords(request: Request, **decision: object) -> None: ...
def three(template: str, request: Request, decision: Decision) -> None: ...
def template_last(request: Request, template: str) -> None: ...


class Handlers:
    """Handlers that are methods and objects."""

    def one(self, request: Request) -> None: ...
    def two(self, request: Request, decision: Decision) -> None: ...
    @classmethod
    def of_class(cls, request: Request, decision: Decision) -> None: ...
    @staticmethod
    def static(request: Request, decision: Decision) -> None: ...
    def __call__(self, request: Request, decision: Decision) -> None: ...


@wraps(two)
def wrapped(*arguments: Any, **keywords: Any) -> None:
    return two(*arguments, **keywords)


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (one, False),
        (two, True),
        (other_name, True),
        (named_with_default, True),
        (with_default, False),
        (any_number, False),
        (one_and_any_number, False),
        (two_and_any_number, True),
        (keyword_only, False),
        (keywords, False),
        (partial(three, "page.html"), True),
        (partial(template_last, template="page.html"), False),
        (partial(two, decision=PASSED_AT_ONCE.decision), False),
        (lambda request, decision: None, True),
        (lambda request, template="x": None, False),
        (Handlers().one, False),
        (Handlers().two, True),
        (Handlers.of_class, True),
        (Handlers.static, True),
        (Handlers(), True),
        (wrapped, True),
        (Mock(), False),
        (max, False),
        (iter, False),
        (lambda: None, False),
    ],
)
def test_a_handler_takes_the_decision_if_its_second_parameter_asks_for_it(handler: Any, expected: bool) -> None:
    """One that must be filled, or is called ``decision``; whatever else it has is its own."""
    assert takes_decision(handler) is expected
