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

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": description}
    for status, description in {
        HTTP_400_BAD_REQUEST: "The body can't be read",
        HTTP_403_FORBIDDEN: "The request comes from another site, or from a machine that may not connect",
        HTTP_404_NOT_FOUND: "No such switch, window or hold",
        HTTP_409_CONFLICT: "Code holds the switch, or its store can't store this change",
        HTTP_412_PRECONDITION_FAILED: "Somebody else has changed the switch",
        HTTP_415_UNSUPPORTED_MEDIA_TYPE: "The body is not JSON",
        HTTP_501_NOT_IMPLEMENTED: "An optional dependency is not installed",
        HTTP_503_SERVICE_UNAVAILABLE: "The store does not answer",
    }.items()
}


_STATUSES: tuple[tuple[type[MaintenanceError], int], ...] = (
    (VersionConflict, HTTP_412_PRECONDITION_FAILED),
    (SwitchIsHeld, HTTP_409_CONFLICT),
    (HoldLost, HTTP_404_NOT_FOUND),
    (UnknownWindow, HTTP_404_NOT_FOUND),
    (ReadOnlyBackend, HTTP_409_CONFLICT),
    (UnsupportedByBackend, HTTP_409_CONFLICT),
    (MissingExtra, HTTP_501_NOT_IMPLEMENTED),
    (MaintenanceError, HTTP_503_SERVICE_UNAVAILABLE),
)


@contextlib.contextmanager
def convert_errors() -> Iterator[None]:
    """Convert the package's errors into HTTP errors."""
    try:
        yield
    except InvalidConfiguration as error:
        problem = {"type": "value_error", "loc": ("body",), "msg": str(error), "input": None}
        raise RequestValidationError([problem]) from None
    except MaintenanceError as error:
        status = next(status for kind, status in _STATUSES if isinstance(error, kind))
        if isinstance(error, VersionConflict):
            raise refusal_of(
                status, "somebody else has changed the switch: review its state and decide again"
            ) from None
        raise refusal_of(status, str(error)) from None


def refusal_of(status: int, detail: str) -> HTTPException:
    """Return an uncacheable error: caches may otherwise store a 404 or a 501."""
    return HTTPException(status, detail, NO_STORE)


NO_STORE = {"Cache-Control": "no-store"}
