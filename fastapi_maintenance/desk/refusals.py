"""The error responses of the desk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from fastapi import HTTPException
from fastapi.exceptions import RequestValidationError
from starlette.status import (
    HTTP_400_BAD_REQUEST,
    HTTP_403_FORBIDDEN,
    HTTP_404_NOT_FOUND,
    HTTP_409_CONFLICT,
    HTTP_412_PRECONDITION_FAILED,
    HTTP_415_UNSUPPORTED_MEDIA_TYPE,
    HTTP_501_NOT_IMPLEMENTED,
    HTTP_503_SERVICE_UNAVAILABLE,
)

from ..exceptions import (
    HoldLost,
    InvalidConfiguration,
    MaintenanceError,
    MissingExtra,
    ReadOnlyBackend,
    SwitchIsHeld,
    UnknownWindow,
    UnsupportedByBackend,
    VersionConflict,
)
from .models import Problem

_TABLE: dict[int, tuple[str, tuple[type[MaintenanceError], ...]]] = {
    HTTP_400_BAD_REQUEST: ("The body can't be read", ()),
    HTTP_403_FORBIDDEN: ("The request comes from another site, or from a machine that may not connect", ()),
    HTTP_404_NOT_FOUND: ("No such switch, window or hold", (HoldLost, UnknownWindow)),
    HTTP_409_CONFLICT: (
        "Code holds the switch, or its store can't store this change",
        (SwitchIsHeld, ReadOnlyBackend, UnsupportedByBackend),
    ),
    HTTP_412_PRECONDITION_FAILED: ("Somebody else has changed the switch", (VersionConflict,)),
    HTTP_415_UNSUPPORTED_MEDIA_TYPE: ("The body is not JSON", ()),
    HTTP_501_NOT_IMPLEMENTED: ("An optional dependency is not installed", (MissingExtra,)),
    HTTP_503_SERVICE_UNAVAILABLE: ("The store does not answer", (MaintenanceError,)),
}
"""The statuses, their descriptions and the errors that get them; the first that fits."""

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": description} for status, (description, _) in _TABLE.items()
}


@contextlib.contextmanager
def convert_errors() -> Iterator[None]:
    """Convert the package's errors into HTTP errors."""
    try:
        yield
    except InvalidConfiguration as error:
        problem = {"type": "value_error", "loc": ("body",), "msg": str(error), "input": None}
        raise RequestValidationError([problem]) from None
    except MaintenanceError as error:
        status = next(status for status, (_, kinds) in _TABLE.items() if isinstance(error, kinds))
        is_conflict = isinstance(error, VersionConflict)
        detail = "somebody else has changed the switch: review its state and decide again" if is_conflict else error
        raise refusal_of(status, str(detail)) from None


def refusal_of(status: int, detail: str) -> HTTPException:
    """Return an uncacheable error: caches may otherwise store a 404 or a 501."""
    return HTTPException(status, detail, NO_STORE)


NO_STORE = {"Cache-Control": "no-store"}
