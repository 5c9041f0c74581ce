"""The switches that the desk shows, the current user, and the page's files."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from starlette.status import HTTP_404_NOT_FOUND

from ..answers.page import read_page_file
from ..exceptions import MissingExtra
from ..gate.callbacks import call
from ..inspection.apps import find_guarded_switches
from ..inspection.routes import operations_of
from ..switches.app_switch import DEFAULT
from ..switches.registry import registry
from .refusals import refusal_of

logger = logging.getLogger("fastapi_maintenance")

User = Callable[[Request], str | Awaitable[str]]


class Desk:
    """State that all routes of one admin share."""

    def __init__(self, *, names: list[str] | None, user: User) -> None:
        self._user = user
        self._names = names
        self.template = load_template()

    def names(self, request: Request) -> list[str]:
        """Return the names of all switches, the default one first."""
        if self._names is not None:
            return self._names
        found = [DEFAULT, *(name for name, _ in registry.in_use())]
        if isinstance(request.app, FastAPI):
            found += find_guarded_switches(operations_of(request.app))
        return [DEFAULT, *sorted(set(found) - {DEFAULT})]

    def check_name(self, request: Request, name: str) -> str:
        """Return the name if such a switch exists; otherwise raise 404."""
        if name not in self.names(request):
            raise refusal_of(HTTP_404_NOT_FOUND, f"there is no switch {name!r}")
        return name

    async def user(self, request: Request) -> str | None:
        """Return who makes a change, or ``None`` if the app's ``user`` function fails."""
        try:
            user = await call(self._user, request)
        except HTTPException:  # a response chosen by the app, as in a dependency
            raise
        except Exception:
            logger.exception("user failed, so this change is stored without a name")
            return None
        if not isinstance(user, str):
            logger.error("user must return a string, got %r: this change is stored without a name", user)
            return None
        return user


def load_template() -> Any:
    """Return the page's template.

    Raises:
        MissingExtra: Jinja2 or python-multipart isn't installed.
    """
    try:
        import jinja2  # noqa: PLC0415 - an extra
        import python_multipart  # noqa: F401, PLC0415 - parses the page's forms
    except ImportError:
        raise MissingExtra("maintenance_admin", "admin") from None
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["moment"] = lambda moment: f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return environment.from_string(read_page_file("admin.html"))
