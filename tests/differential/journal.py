"""What ran: every endpoint and dependency of a random app writes itself down here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import Scope

_journal: ContextVar[list[Ran]] = ContextVar("journal")


@dataclass(frozen=True)
class Ran:
    """One piece of the application that ran, and the request as it saw it."""

    what: str
    """``endpoint``, ``dependency``, ``handle``, ``docs``, ``frontend``, ``default``, ``opaque``, or ``matching``
    (which raised)."""
    name: str
    subject: str | None
    """What was about to answer: the endpoint, also for its dependencies; ``None`` when nothing is known of it."""
    method: str
    preflight: bool


def write(what: str, name: str, subject: str | None, scope: Scope) -> None:
    """Write down that something runs."""
    headers = Headers(scope=scope)
    method = scope["method"] if scope["type"] == "http" else "WEBSOCKET"
    preflight = method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers
    _journal.get().append(Ran(what, name, subject, method, preflight))


def write_matching_error() -> None:
    """Write down that matching raised: which route it was for, nobody knows."""
    _journal.get().append(Ran("matching", "", None, "", preflight=False))


@contextmanager
def opened() -> Iterator[list[Ran]]:
    """Collect what runs within the block."""
    ran: list[Ran] = []
    token = _journal.set(ran)
    try:
        yield ran
    finally:
        _journal.reset(token)
