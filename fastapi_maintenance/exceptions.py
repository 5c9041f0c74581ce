"""The errors that this package raises.

::

    MaintenanceError
    ├── InvalidSwitchName        (also ValueError)  a name outside [a-z0-9][a-z0-9_-]*
    ├── UnknownBackend           (also ValueError)  a backend type or URL scheme that no backend has
    ├── InvalidConfiguration     (also ValueError)  an option with an invalid value
    ├── AmbiguousSwitch          several apps have a backend of their own: pass one
    ├── ReadOnlyBackend          the store can't be written from here
    ├── UnsupportedByBackend     the store can't store part of the change
    ├── ChangeRejected           the store refused a change, nothing was changed
    │   ├── VersionConflict      somebody else changed the state first
    │   ├── SwitchIsHeld         running code holds the switch on
    │   ├── HoldLost             the hold is gone: expired, or broken by an operator
    │   ├── UnknownWindow        there is no such window
    │   └── DeadlinePassed       the change reached the store too late
    ├── BackendUnavailable       the store did not answer, nothing was changed
    │   └── OutcomeUnknown       it did not answer a change, which it may have made
    ├── CorruptState             the stored document is no state
    ├── EmptiedStore             the store lost the state that it had
    ├── DrainTimeout             requests are still running; maintenance is on
    ├── NotUnderMaintenance      there is no maintenance to bind a token to
    ├── MissingExtra             (also ImportError)  an optional dependency isn't installed
    └── UnsupportedFastAPI       the routes of this FastAPI can't be read exactly
    MaintenanceActive            (an HTTPException) a guard refused the request
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fastapi import HTTPException, WebSocketException
from fastapi import __version__ as fastapi_version
from starlette.status import HTTP_503_SERVICE_UNAVAILABLE, WS_1013_TRY_AGAIN_LATER

if TYPE_CHECKING:
    from .model.decision import Decision


_MOST_NAMED = 10


class MaintenanceError(Exception):
    """The base class of this package's errors."""


class InvalidSwitchName(MaintenanceError, ValueError):
    """The switch name is no valid key, variable and file name."""

    def __init__(self, name: object) -> None:
        self.name = name
        super().__init__(
            f"invalid switch name {name!r}: it must be lower-case letters, digits, '_' and '-', "
            "beginning with a letter or digit, such as 'billing' or 'eu-west_1'"
        )


class InvalidConfiguration(MaintenanceError, ValueError):
    """An option has an invalid value."""


class UnknownBackend(MaintenanceError, ValueError):
    """No backend has this type or URL scheme."""

    def __init__(self, kind: str, known: Iterable[str]) -> None:
        self.kind = kind
        self.known = tuple(known)
        super().__init__(f"no backend {kind!r}; known: {', '.join(self.known)}")


class AmbiguousSwitch(MaintenanceError):
    """Several apps of this process have a backend of their own, so a switch must name its backend."""

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__(
            f"{count} apps in this process have a backend of their own: pass backend=..., "
            "or register a backend with configure_backend(..., name=...) and pass name=..."
        )


class ReadOnlyBackend(MaintenanceError):
    """The store is read-only from here, so nothing was changed."""

    def __init__(self, where: str, way_out: str) -> None:
        self.where = where
        super().__init__(f"{where} can't be set from here, nothing was changed: {way_out}")


class UnsupportedByBackend(MaintenanceError):
    """The store can't store part of the change, so nothing was changed."""

    def __init__(self, backend: str, what: str) -> None:
        self.backend = backend
        self.what = what
        super().__init__(
            f"{backend} stores a plain on/off and can't keep {what}, nothing was changed: "
            "leave it out, or use a backend that stores the whole state: in a file, Redis or an SQL database"
        )


class ChangeRejected(MaintenanceError):
    """The store refused a change, so nothing was changed."""


class VersionConflict(ChangeRejected):
    """Somebody else changed the state since it was read."""

    def __init__(self, expected: int, actual: int) -> None:
        self.expected = expected
        self.actual = actual
        super().__init__(
            f"the state is at version {actual}, not {expected}, nothing was changed: "
            "somebody else changed it meanwhile; read it again"
        )


class SwitchIsHeld(ChangeRejected):
    """Running code holds the switch on, so it can't be turned off without breaking the holds."""

    def __init__(self, owners: Iterable[str]) -> None:
        self.owners = tuple(owners)
        super().__init__(
            f"the switch is held on by {', '.join(self.owners)}, nothing was changed: "
            "wait for them, or break their holds"
        )


class HoldLost(ChangeRejected):
    """A hold is gone: it expired, or an operator broke it."""

    def __init__(self, ids: Iterable[str], *, expired: bool = False) -> None:
        self.ids = tuple(ids)
        self.expired = expired
        """Whether it certainly expired; otherwise it expired long ago, or an operator broke it."""
        why = "it expired" if expired else "it expired, or an operator broke it"
        super().__init__(f"hold {', '.join(self.ids)} is gone: {why}")


class UnknownWindow(ChangeRejected):
    """No window has that id: it was cancelled, or ended long ago."""

    def __init__(self, ids: Iterable[str], known: Iterable[str]) -> None:
        self.ids = tuple(ids)
        self.known = tuple(known)
        super().__init__(
            f"no window {', '.join(map(repr, self.ids))}, nothing was changed; "
            f"there is {', '.join(map(repr, self.known)) or 'none'}"
        )


class DeadlinePassed(ChangeRejected):
    """The change reached the store after its caller stopped waiting, so it was not made."""

    def __init__(self) -> None:
        super().__init__("the change reached the store too late, nothing was changed: try again")


class BackendUnavailable(MaintenanceError):
    """The store did not answer, and nothing was changed.

    ``on_backend_error`` decides whether that opens or closes the service.
    """

    def __init__(self, backend: str, problem: object) -> None:
        self.backend = backend
        self.problem = problem
        super().__init__(f"{backend} is not available: {problem}")


class OutcomeUnknown(BackendUnavailable):
    """The store did not answer a change, which it may have made."""

    def __init__(self, backend: str, problem: object) -> None:
        super().__init__(backend, problem)
        self.args = (f"{backend} did not say whether the change was made: {problem}; read the state to know",)


class CorruptState(MaintenanceError):
    """The stored document is no state, or too large.

    Args:
        where: The document's place.
        problem: The reason.
        revision: The document's revision, if known, by which ``forget`` can replace it.
    """

    def __init__(self, where: str, problem: str, *, revision: str | None = None) -> None:
        self.where = where
        self.problem = problem
        self.revision = revision
        super().__init__(f"{where} has no readable maintenance state: {problem}")


class EmptiedStore(MaintenanceError):
    """The store lost its state: data loss, which does not mean off."""

    def __init__(self, where: str) -> None:
        self.where = where
        super().__init__(f"{where} had a state and has none now: set the mode again, on or off")


class NotUnderMaintenance(MaintenanceError):
    """The switch is off, so there is no maintenance to bind a token to."""

    def __init__(self, switch: str) -> None:
        self.switch = switch
        super().__init__(
            f"switch {switch!r} is not under maintenance, no token was made: "
            "a token opens the current maintenance only; turn the switch on first"
        )


class DrainTimeout(MaintenanceError):
    """Requests that began before the maintenance are still running, and maintenance is on.

    Maintenance stays on for the ``ttl`` of the block, which was not entered; without a ``ttl``, until
    ``await error.release()``.
    """

    def __init__(self, seconds: float, requests: Iterable[tuple[str, str]]) -> None:
        self.requests = tuple(requests)
        """The method and route of each request."""
        self.count = len(self.requests)
        self.release: Callable[[], Awaitable[None]] | None = None
        """Ends the maintenance immediately."""
        counted = Counter(f"{method} {route}" for method, route in self.requests)
        named = ", ".join(f"{count} × {request}" for request, count in counted.most_common(_MOST_NAMED))
        more = len(counted) - _MOST_NAMED
        super().__init__(
            f"after {seconds:g} s {self.count} requests that began before are still running: {named}"
            f"{f' and of {more} more routes' if more > 0 else ''}; maintenance is still on"
        )


class MissingExtra(MaintenanceError, ImportError):
    """An optional dependency isn't installed."""

    def __init__(self, what: str, extra: str) -> None:
        self.extra = extra
        super().__init__(f"{what} needs an extra: pip install 'fastapi-maintenance[{extra}]'")


class UnsupportedFastAPI(MaintenanceError):
    """The routes of the installed FastAPI can't be read exactly, so no request can be judged."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(
            f"fastapi-maintenance can't read the routes of FastAPI {fastapi_version}: {problem}. "
            "It answers no request rather than judge it wrongly; upgrade fastapi-maintenance, "
            "or return to the FastAPI version that worked"
        )


class MaintenanceActive(HTTPException):
    """A guard refused the request: 503 with the default body and ``Retry-After``.

    Your own exception handler for it, for ``HTTPException`` or for the status answers. Otherwise, with the middleware
    or a registered ``maintenance_exception_handler``, the client gets the custom response or the media type that it
    prefers; else FastAPI's own handler answers, in JSON.
    """

    def __init__(
        self,
        decision: Decision,
        *,
        detail: str,
        headers: Mapping[str, str],
        terms: Any,
        status: int = HTTP_503_SERVICE_UNAVAILABLE,
    ) -> None:
        self.decision = decision
        """The reason of the refusal."""
        self.terms = terms
        """The guard's ``Options``, for ``maintenance_exception_handler``."""
        super().__init__(status, detail=detail, headers=dict(headers))


class WebSocketMaintenanceActive(WebSocketException, MaintenanceActive):
    """A guard refused a websocket whose server has no denial response: the handshake is closed with 1013.

    ``WebSocketException`` is the first base, so that Starlette picks the handler that closes.
    """

    def __init__(self, decision: Decision, **parts: Any) -> None:
        MaintenanceActive.__init__(self, decision, **parts)
        self.code = WS_1013_TRY_AGAIN_LATER
        self.reason = self.detail
