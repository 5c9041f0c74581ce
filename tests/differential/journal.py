"""What ran: every endpoint and dependency of a random app writes itself down here."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import Scope


@dataclass(frozen=True)
class Ran:
    """One piece of the application that ran, and the request as it saw it."""

    what: str
    """``endpoint``, ``dependency``, ``handle``, ``docs``, ``frontend``, ``default``, ``opaque``; ``override`` (how an
    app or router is called, before its routes); or what the router did when it raised: ``matching``, ``redirecting``
    (matching the path with or without its last slash)."""
    name: str
    subject: str | None
    """What was about to answer: the endpoint, also for its dependencies; ``None`` when nothing is known of it."""
    method: str
    preflight: bool


@dataclass
class Journal:
    """What ran for one request, and the request as the router sees it."""

    ran: list[Ran]
    method: str
    preflight: bool


_journal: ContextVar[Journal] = ContextVar("journal")


def write(what: str, name: str, subject: str | None, scope: Scope) -> None:
    """Write down that something runs."""
    _journal.get().ran.append(Ran(what, name, subject, *_as_judged(scope)))


def write_matching_error() -> None:
    """Write down that matching raised: which route it was for, nobody knows."""
    journal = _journal.get()
    what, frame = "matching", inspect.currentframe()
    while frame is not None:
        if "redirect_scope" in frame.f_locals:
            what = "redirecting"
        frame = frame.f_back
    journal.ran.append(Ran(what, "", None, journal.method, journal.preflight))


def write_rewritten(scope: Scope) -> None:
    """Write down that the request has become another one; a convertor that raises can't know."""
    journal = _journal.get()
    journal.method, journal.preflight = _as_judged(scope)


@contextmanager
def opened(scope: Scope) -> Iterator[list[Ran]]:
    """Collect what runs for a request within the block."""
    journal = Journal([], *_as_judged(scope))
    token = _journal.set(journal)
    try:
        yield journal.ran
    finally:
        _journal.reset(token)


def _as_judged(scope: Scope) -> tuple[str, bool]:
    headers = Headers(scope=scope)
    method = scope["method"] if scope["type"] == "http" else "WEBSOCKET"
    return method, method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers
