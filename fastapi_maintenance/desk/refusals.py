"""The errors of the API."""

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

# The API

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": description}
    for status, description in {
        HTTP_400_BAD_REQUEST: "The body can't be read",
        HTTP_403_FORBIDDEN: "A request from another site, or from another machine where that may not ask",
        HTTP_404_NOT_FOUND: "No such switch, window or hold",
        HTTP_409_CONFLICT: "Code holds the switch, or its store can't keep that",
        HTTP_412_PRECONDITION_FAILED: "Somebody else changed it meanwhile",
        HTTP_415_UNSUPPORTED_MEDIA_TYPE: "The body is no JSON",
        HTTP_501_NOT_IMPLEMENTED: "An optional dependency is missing here",
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
def refusals() -> Iterator[None]:
    """Turn our errors into answers."""
    try:
        yield
    except InvalidConfiguration as error:
        problem = {"type": "value_error", "loc": ("body",), "msg": str(error), "input": None}
        raise RequestValidationError([problem]) from None
    except MaintenanceError as error:
        status = next(status for kind, status in _STATUSES if isinstance(error, kind))
        if isinstance(error, VersionConflict):
            raise refusal(status, "somebody else changed the switch meanwhile; look again and decide") from None
        raise refusal(status, str(error)) from None


def refusal(status: int, detail: str) -> HTTPException:
    """Return an answer that no cache keeps: some would keep a 404 or a 501."""
    return HTTPException(status, detail, NOT_KEPT)


NOT_KEPT = {"Cache-Control": "no-store"}
