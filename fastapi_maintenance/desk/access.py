"""Which switches the desk shows, and who uses it."""

from __future__ import annotations

import functools
import importlib.resources
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from starlette.status import HTTP_404_NOT_FOUND

from ..exceptions import MissingExtra
from ..gate.callbacks import call
from ..guard import MaintenanceGuard
from ..inspection.routes import operations_of
from ..switches.app_switch import DEFAULT
from ..switches.registry import registry
from .refusals import refusal

logger = logging.getLogger("fastapi_maintenance")

User = Callable[[Request], str | Awaitable[str]]


class Page:
    """What the routes of one admin share."""

    def __init__(self, *, known: list[str] | None, user: User) -> None:
        self._user = user
        self._known = known
        self.template = load_template()

    def names(self, request: Request) -> list[str]:
        """Return the switches, the default one first."""
        if self._known is not None:
            return self._known
        found = [DEFAULT, *(name for name, _ in registry.in_use())]
        if isinstance(request.app, FastAPI):
            calls = (call for operation in operations_of(request.app) for call in operation.dependencies)
            found += [call.name for call in calls if isinstance(call, MaintenanceGuard)]
        return [DEFAULT, *sorted(set(found) - {DEFAULT})]

    def checked(self, request: Request, name: str) -> str:
        """Return a switch's name, or raise 404."""
        if name not in self.names(request):
            raise refusal(HTTP_404_NOT_FOUND, f"there is no switch {name!r}")
        return name

    async def user(self, request: Request) -> str | None:
        """Return who makes a change, or ``None`` if the app's function fails to tell."""
        try:
            user = await call(self._user, request)
        except HTTPException:  # an answer of its own, as that of a dependency
            raise
        except Exception:
            logger.exception("user failed: it isn't known who makes this change")
            return None
        if not isinstance(user, str):
            logger.error("user returned %r, which is no string: it isn't known who makes this change", user)
            return None
        return user


@functools.cache
def file(name: str) -> str:
    return importlib.resources.files("fastapi_maintenance").joinpath("pages", name).read_text("utf-8")


def _import_form_parser() -> None:
    """Import what Starlette reads forms with, by its new name or by its old one."""
    try:
        importlib.import_module("python_multipart")
    except ImportError:
        importlib.import_module("multipart")


def load_template() -> Any:
    try:
        import jinja2  # noqa: PLC0415 - an extra

        _import_form_parser()
    except ImportError:
        raise MissingExtra("maintenance_admin", "admin") from None
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["moment"] = lambda moment: f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return environment.from_string(file("admin.html"))
