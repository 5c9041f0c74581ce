"""Set and read marks on endpoints: ``@force_maintenance_mode_on`` and ``@force_maintenance_mode_off``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from typing import Any, TypeVar

from fastapi import APIRouter
from fastapi import __version__ as fastapi_version

from ..model.decision import Mark
from .compat import INCLUDED_ROUTERS_ARE_KEPT

T = TypeVar("T")

_MARK = "__fastapi_maintenance_mark__"
_METHOD_MARKS = "__fastapi_maintenance_method_marks__"
_MAX_WRAPPERS = 64
"""The maximum depth of wrappers to follow: an object that claims to wrap itself must not hang the request."""

_forced_on_anywhere = False
"""Whether any endpoint in this process was ever forced on: until then, "off" requires no routing.

It never becomes false again. A wrong ``True`` costs time but changes no answer.
"""

_marks_set = 0
"""The number of marks set, of either kind."""


def force_maintenance_mode_on(endpoint: T) -> T:
    """Return the endpoint, marked to answer 503 always: no switch state or exemption opens it.

    The endpoint is a function, a method, an ``HTTPEndpoint`` class or one of its methods, a ``functools.partial``,
    any callable object, a route, a router (FastAPI 0.137 or newer), or a mounted ASGI app. The decorator works above
    and below ``@app.get(...)``. The innermost mark takes precedence.

    Raises:
        TypeError: The object can't carry a mark.
    """
    _set_mark(endpoint, Mark.ON)
    return endpoint


def force_maintenance_mode_off(endpoint: T) -> T:
    """Return the endpoint, marked to stay open during maintenance.

    Accepts the same objects as ``force_maintenance_mode_on``.

    Raises:
        TypeError: The object can't carry a mark.
    """
    _set_mark(endpoint, Mark.OFF)
    return endpoint


def forced_on_anywhere() -> bool:
    """Return whether any endpoint in this process was ever forced on."""
    return _forced_on_anywhere


def marked_anywhere() -> bool:
    """Return whether any endpoint in this process was ever marked."""
    return _marks_set > 0


def count_marks() -> int:
    """Return the number of marks set in this process; cached marks are valid until it changes."""
    return _marks_set


def _set_mark(endpoint: Any, mark: Mark) -> None:
    global _forced_on_anywhere, _marks_set  # noqa: PLW0603 - they apply to the whole process
    if isinstance(endpoint, (staticmethod, classmethod)):
        endpoint = endpoint.__func__  # attribute access on the class returns this function
    if not callable(endpoint):
        msg = (
            "endpoint must be a function, a class, another callable or an ASGI app, "
            f"got {type(endpoint).__name__} {endpoint!r}"
        )
        raise TypeError(msg)
    carrier: Any = endpoint
    if isinstance(endpoint, APIRouter) and not INCLUDED_ROUTERS_ARE_KEPT:
        msg = (
            f"an APIRouter can't be marked with FastAPI {fastapi_version}, which copies its routes: "
            "mark the endpoints, or use FastAPI 0.137 or newer"
        )
        raise TypeError(msg)
    try:
        if inspect.ismethod(endpoint):
            # Each access creates a new bound method, so its object carries the mark.
            carrier = endpoint.__self__
            marks = {**getattr(carrier, _METHOD_MARKS, {}), endpoint.__func__: mark}
            setattr(carrier, _METHOD_MARKS, marks)
        else:
            setattr(endpoint, _MARK, mark)
    except (AttributeError, TypeError):
        msg = (
            f"{endpoint!r} can't carry a mark, because {type(carrier).__name__} objects take no attributes: "
            "mark a function or functools.partial around it instead"
        )
        raise TypeError(msg) from None
    _marks_set += 1
    if mark is Mark.ON:
        _forced_on_anywhere = True


def mark_of(endpoint: Any) -> Mark | None:
    """Return the effective mark of an endpoint or ASGI app, or ``None``.

    An unmarked partial inherits the mark of its function, a callable object that of its ``__call__``, and a wrapper
    made by ``functools.wraps`` that of the wrapped function.
    """
    for _ in range(_MAX_WRAPPERS):
        for carrier, name in _carriers_of(endpoint):
            mark = getattr(carrier, name, None)
            if isinstance(mark, dict):
                mark = mark.get(endpoint.__func__)
            if isinstance(mark, Mark):
                return mark
        is_partial = isinstance(endpoint, functools.partial)
        endpoint = endpoint.func if is_partial else getattr(endpoint, "__wrapped__", None)
        if endpoint is None:
            break
    return None


def _carriers_of(endpoint: Any) -> Iterator[tuple[Any, str]]:
    """Yield the objects and attributes that may hold the mark of an endpoint, innermost first."""
    if inspect.ismethod(endpoint):
        yield endpoint.__self__, _METHOD_MARKS
    elif not inspect.isroutine(endpoint) and not inspect.isclass(endpoint):
        yield getattr(type(endpoint), "__call__", None), _MARK  # noqa: B004
    yield endpoint, _MARK
