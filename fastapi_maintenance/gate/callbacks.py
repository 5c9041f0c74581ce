"""The functions that an app hands over: how they are called, and with what."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool

if sys.version_info >= (3, 14):  # pragma: no cover - not on each Python
    import annotationlib


async def call(handler: Callable[..., Any], *arguments: object) -> Any:
    """Return what a handler returns: a sync one is called in a thread, off the event loop."""
    function = handler
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        return await handler(*arguments)
    # In a tuple, as trio takes no awaitable out of a thread.
    (result,) = await run_in_threadpool(lambda: (handler(*arguments),))
    return await result if inspect.isawaitable(result) else result


def takes_decision(handler: Callable[..., Any]) -> bool:
    """Return whether a ``response_handler`` gets the decision behind the request.

    It does if its second positional parameter must be filled or is called ``decision``. All others stay as they are:
    parameters with a default, ``*args`` and keyword-only ones are the handler's own.
    """
    try:
        parameters = list(_signature(handler).parameters.values())
    except (TypeError, ValueError):  # a callable from C that doesn't tell
        return False
    second = parameters[1:2]
    return any(
        parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and (parameter.default is parameter.empty or parameter.name == "decision")
        for parameter in second
    )


if sys.version_info >= (3, 14):  # pragma: no cover - the same
    # Annotations may name what exists for type checkers only.
    _signature = functools.partial(inspect.signature, annotation_format=annotationlib.Format.FORWARDREF)
else:  # pragma: no cover - the other one
    _signature = inspect.signature
