"""The admin as a router: ``app.include_router(maintenance_admin(dependencies=[...]))``."""

# No `from __future__ import annotations`: FastAPI reads the annotations of functions that are made in a function.

import logging
from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, Depends
from fastapi.params import Depends as Dependency

from ..exceptions import InvalidConfiguration
from ..gate.exemptions import items_of
from ..switches.backend_urls import check_name
from .access import Desk, User
from .api import add_api
from .page import add_page
from .requests import forbid_caching, require_own_machine, require_same_site

logger = logging.getLogger("fastapi_maintenance")


def maintenance_admin(
    *,
    dependencies: Iterable[Any] = (),
    names: Iterable[str] | None = None,
    user: User | None = None,
    insecure: bool = False,
) -> APIRouter:
    """Return a router with the operator's page at its root and a JSON API below ``/api``.

    It stays open during maintenance, and GET changes nothing. Requires the extra ``admin``.

    Args:
        dependencies: Dependencies that admit only operators: ``[Depends(only_operators)]``.
        names: The switches to show; by default those of this process and of the app's guards.
        user: A sync or async function that takes the request and returns who makes a change. If it fails, the error
            is logged and the change is stored without a name.
        insecure: Whether to allow no ``dependencies``, on a developer's own machine. Only clients with a loopback
            address that request ``localhost`` or such an address are accepted, and Starlette's ``TestClient``.
            Requests through a proxy or a unix socket are refused, since anybody may have sent them.

    Raises:
        InvalidConfiguration: The admin would be open to everybody, or an option is invalid.
        MissingExtra: Jinja2 or python-multipart isn't installed.
    """
    protection = _check_dependencies(dependencies)
    if not protection and not insecure:
        raise InvalidConfiguration(
            "maintenance_admin() without dependencies would let everybody switch the service off: pass "
            "dependencies=[Depends(...)] that admit only operators, or insecure=True on your own machine"
        )
    if user is not None and not callable(user):
        raise InvalidConfiguration(
            "user must be a function of the request that returns who makes a change, "
            f"such as lambda request: request.user.display_name, got {user!r}"
        )
    if not protection:
        logger.warning("maintenance_admin(insecure=True): everybody on this machine can switch the service off")
        protection = [Depends(require_own_machine)]
    desk = Desk(
        names=None if names is None else [check_name(name) for name in items_of("names", names)],
        user=user if user is not None else lambda _: "admin",
    )
    router = APIRouter(
        dependencies=[*protection, Depends(require_same_site), Depends(forbid_caching)], tags=["maintenance"]
    )
    add_api(router, desk)
    add_page(router, desk)
    return router


def _check_dependencies(value: object) -> list[Any]:
    """Return the dependencies as a list.

    Raises:
        InvalidConfiguration: The value is not an iterable of ``Depends``.
    """
    dependencies = list(value) if isinstance(value, Iterable) else [value] if value is not None else []
    if isinstance(value, Dependency) or not all(isinstance(one, Dependency) for one in dependencies):
        raise InvalidConfiguration(
            f"dependencies must be a list of Depends that admit only operators, got {value!r}; "
            "write dependencies=[Depends(...)]"
        )
    return dependencies
