"""The operator's page and its JSON API, as a router: ``app.include_router(maintenance_admin(dependencies=[...]))``."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, Depends
from fastapi.params import Depends as Dependency

from ..exceptions import InvalidConfiguration
from ..gate.exemptions import items_of
from ..switches.backend_urls import checked_name
from .access import Page, User
from .api import add_api
from .page import add_page
from .requests import keep_out_of_caches, own_machine, same_site

logger = logging.getLogger("fastapi_maintenance")


def maintenance_admin(
    *,
    dependencies: Iterable[Any] = (),
    names: Iterable[str] | None = None,
    user: User | None = None,
    insecure: bool = False,
) -> APIRouter:
    """Return a router with the operator's page at its root and a JSON API below ``/api``.

    It stays open whatever the switches say, and changes nothing by GET. Needs the extra ``admin``.

    Args:
        dependencies: What lets operators in, and nobody else: ``[Depends(only_operators)]``.
        names: The switches to show; by default all that this process knows, and those of the app's guards.
        user: Takes the request and returns who makes a change, for colleagues; sync or async. If it fails, that is
            logged, and nobody is named.
        insecure: Whether to do without ``dependencies``, on a developer's own machine: only clients with a loopback
            address that ask for ``localhost`` or such an address are answered, and Starlette's ``TestClient``. What
            comes through a proxy or a unix socket is refused, since anybody may have sent it.

    Raises:
        InvalidConfiguration: Nothing would keep strangers out, or an option has a value that can't work.
        MissingExtra: Jinja2 or python-multipart isn't installed.
    """
    keeping_out = _dependencies(dependencies)
    if not keeping_out and not insecure:
        raise InvalidConfiguration(
            "maintenance_admin() without dependencies would let everybody switch the service off: pass "
            "dependencies=[Depends(...)] with what lets operators in, or insecure=True on your own machine"
        )
    if user is not None and not callable(user):
        raise InvalidConfiguration(
            f"user={user!r}: a function is needed that takes the request and returns who makes a change, "
            "such as lambda request: request.user.display_name"
        )
    if not keeping_out:
        logger.warning("maintenance_admin(insecure=True): everybody on this machine can switch the service off")
        keeping_out = [Depends(own_machine)]
    page = Page(
        known=None if names is None else [checked_name(name) for name in items_of("names", names)],
        user=user if user is not None else lambda _: "admin",
    )
    router = APIRouter(
        dependencies=[*keeping_out, Depends(same_site), Depends(keep_out_of_caches)], tags=["maintenance"]
    )
    add_api(router, page)
    add_page(router, page)
    return router


def _dependencies(value: object) -> list[Any]:
    """Return what keeps strangers out, as FastAPI takes it."""
    dependencies = list(value) if isinstance(value, Iterable) else [value] if value is not None else []
    if isinstance(value, Dependency) or not all(isinstance(one, Dependency) for one in dependencies):
        raise InvalidConfiguration(
            f"dependencies={value!r}: a list is needed, with each in Depends; write dependencies=[Depends(...)] "
            "with what lets operators in"
        )
    return dependencies
