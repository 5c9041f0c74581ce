"""Marks on endpoints: ``@force_maintenance_mode_on``, ``@force_maintenance_mode_off``, and how they are read."""

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
_MOST_WRAPPERS = 64
"""How deep wrappers are followed: an object that claims to wrap itself must not hang the request."""

_forced_on_anywhere = False
"""Whether anything in this process was ever forced on: while nothing was, an "off" needs no look at the routes.

It only ever turns true, and a wrong "true" costs time, never an answer.
"""

_marks_set = 0
"""How many marks were set, of either kind."""


def force_maintenance_mode_on(endpoint: T) -> T:
    """Mark an endpoint so that it always answers 503, whatever the switch says; nothing opens it.

    Takes a function, a method, an ``HTTPEndpoint`` class or one of its methods, a ``functools.partial``, any
    callable object, a route, a router (FastAPI 0.137 or newer), or a mounted ASGI app, and returns the very same
    object. Works above and below ``@app.get(...)``. On the way to what runs, the innermost mark counts.

    Raises:
        TypeError: The object can't carry a mark.
    """
    _set_mark(endpoint, Mark.ON)
    return endpoint


def force_maintenance_mode_off(endpoint: T) -> T:
    """Mark an endpoint so that it stays open during maintenance.

    Takes and returns the same as ``force_maintenance_mode_on``.

    Raises:
        TypeError: The object can't carry a mark.
    """
    _set_mark(endpoint, Mark.OFF)
    return endpoint


def forced_on_anywhere() -> bool:
    """Return whether anything in this process was ever forced on."""
    return _forced_on_anywhere


def marked_anywhere() -> bool:
    """Return whether anything in this process was ever marked."""
    return _marks_set > 0


def marks_set() -> int:
    """Return how many marks were set in this process: what was read of them counts until there are more."""
    return _marks_set


def _set_mark(endpoint: Any, mark: Mark) -> None:
    global _forced_on_anywhere, _marks_set  # noqa: PLW0603 - the two facts that live as long as the process
    if isinstance(endpoint, (staticmethod, classmethod)):
        endpoint = endpoint.__func__  # the class gives out the function alone
    if not callable(endpoint):
        msg = (
            f"{type(endpoint).__name__} {endpoint!r} can't be marked: "
            "an endpoint (function, class, callable) or an ASGI app is needed"
        )
        raise TypeError(msg)
    carrier: Any = endpoint
    if isinstance(endpoint, APIRouter) and not INCLUDED_ROUTERS_ARE_KEPT:
        msg = (
            f"an APIRouter can't be marked with FastAPI {fastapi_version}, which forgets it when it is included: "
            "mark the endpoints, or use FastAPI 0.137 or newer"
        )
        raise TypeError(msg)
    try:
        if inspect.ismethod(endpoint):
            # A bound method is made anew at each access, so the mark is kept where the method is bound to.
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
    """Return the mark that counts for an endpoint or ASGI app, or ``None``.

    A partial without a mark has that of what it calls, a callable object that of its ``__call__``, a wrapper made
    by ``functools.wraps`` that of what it wraps.
    """
    for _ in range(_MOST_WRAPPERS):
        for carrier, name in _carriers(endpoint):
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


def _carriers(endpoint: Any) -> Iterator[tuple[Any, str]]:
    """Yield where a mark of one object can be kept, the innermost first."""
    if inspect.ismethod(endpoint):
        yield endpoint.__self__, _METHOD_MARKS
    elif not inspect.isroutine(endpoint) and not inspect.isclass(endpoint):
        yield getattr(type(endpoint), "__call__", None), _MARK  # noqa: B004
    yield endpoint, _MARK
