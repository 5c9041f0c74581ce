"""Calls the functions that an app passes in, sync or async."""

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
    """Return the result of a handler; a sync handler runs in a thread, off the event loop."""
    function = handler
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
        return await handler(*arguments)
    # In a tuple, because trio returns no awaitable from a thread.
    (result,) = await run_in_threadpool(lambda: (handler(*arguments),))
    return await result if inspect.isawaitable(result) else result


def takes_decision(handler: Callable[..., Any]) -> bool:
    """Return whether a ``response_handler`` gets the decision behind the request.

    It does if its second positional parameter has no default or is called ``decision``. Any other parameter belongs
    to the handler: one with a default, ``*args``, or keyword-only.
    """
    try:
        parameters = list(_signature(handler).parameters.values())
    except (TypeError, ValueError):  # a callable from C without a signature
        return False
    second = parameters[1:2]
    return any(
        parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and (parameter.default is parameter.empty or parameter.name == "decision")
        for parameter in second
    )


if sys.version_info >= (3, 14):  # pragma: no cover - not on each Python
    # Annotations may use names that only exist for type checkers.
    _signature = functools.partial(inspect.signature, annotation_format=annotationlib.Format.FORWARDREF)
else:  # pragma: no cover - not on each Python
    _signature = inspect.signature
