"""Everything this package raises.

::

    MaintenanceError
    ├── InvalidSwitchName        (also ValueError)  a name outside [a-z0-9][a-z0-9_-]*
    ├── UnknownBackend           (also ValueError)  a backend type or URL scheme nobody knows
    ├── InvalidConfiguration     (also ValueError)  an option with a value that can't work
    ├── AmbiguousSwitch          several apps brought their own backend: say which is meant
    ├── ReadOnlyBackend          the store can't be written from here
    ├── UnsupportedByBackend     the store can't hold what was asked for
    ├── ChangeRejected           the store refused a change, nothing was changed
    │   ├── VersionConflict      somebody else changed the state first
    │   ├── SwitchIsHeld         running code holds the switch on
    │   ├── HoldLost             the hold is gone: expired, or broken by an operator
    │   ├── UnknownWindow        there is no such window
    │   └── DeadlinePassed       the change came to the store too late
    ├── BackendUnavailable       the store did not answer, nothing was changed
    │   └── OutcomeUnknown       it did not answer a change, which may have been made or not
    ├── CorruptState             the store has something that is no state
    ├── EmptiedStore             the store lost the state that it had
    ├── DrainTimeout             requests are still running; maintenance is on
    ├── NotUnderMaintenance      a token was asked for, and there is no maintenance that it could be bound to
    ├── MissingExtra             (also ImportError)  an optional dependency isn't installed
    └── UnsupportedFastAPI       this FastAPI's router can't be read exactly
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
    """The base of this package's own errors."""


class InvalidSwitchName(MaintenanceError, ValueError):
    """A switch name that can't be a key, a variable and a file name alike."""

    def __init__(self, name: object) -> None:
        self.name = name
        super().__init__(
            f"invalid switch name {name!r}: accepted are lower-case letters, digits, '_' and '-', "
            "beginning with a letter or digit, such as 'billing' or 'eu-west_1'"
        )


class InvalidConfiguration(MaintenanceError, ValueError):
    """An option was given a value that can't work."""


class UnknownBackend(MaintenanceError, ValueError):
    """A backend type or URL scheme that no backend answers to."""

    def __init__(self, kind: str, known: Iterable[str]) -> None:
        self.kind = kind
        self.known = tuple(known)
        super().__init__(f"no backend {kind!r}; known: {', '.join(self.known)}")


class AmbiguousSwitch(MaintenanceError):
    """Several apps of this process brought their own backend, so "the" switch has no meaning."""

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__(
            f"{count} apps in this process have a backend of their own: pass backend=... to say which is meant, "
            "or register one with configure_backend(..., name=...) and pass name=..."
        )


class ReadOnlyBackend(MaintenanceError):
    """The store can only be read from here, so the switch did not move."""

    def __init__(self, where: str, way_out: str) -> None:
        self.where = where
        super().__init__(f"{where} can't be set from here, nothing was changed: {way_out}")


class UnsupportedByBackend(MaintenanceError):
    """The store has no room for what was asked, so nothing was changed."""

    def __init__(self, backend: str, what: str) -> None:
        self.backend = backend
        self.what = what
        super().__init__(
            f"{backend} stores a plain on/off and can't keep {what}, nothing was changed: "
            "leave it out, or keep the switch where the whole state is stored: in a file, Redis or an SQL database"
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
            "somebody else changed it meanwhile; read it again and decide anew"
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
        """Whether it expired; otherwise an operator broke it, or it expired long ago."""
        why = "it expired" if expired else "it expired, or an operator broke it"
        super().__init__(f"hold {', '.join(self.ids)} is gone: {why}")


class UnknownWindow(ChangeRejected):
    """There is no window of that id: it was cancelled, or it is long over."""

    def __init__(self, ids: Iterable[str], known: Iterable[str]) -> None:
        self.ids = tuple(ids)
        self.known = tuple(known)
        super().__init__(
            f"no window {', '.join(map(repr, self.ids))}, nothing was changed; "
            f"there is {', '.join(map(repr, self.known)) or 'none'}"
        )


class DeadlinePassed(ChangeRejected):
    """The change came to the store after the time that its caller waited, so it was not made."""

    def __init__(self) -> None:
        super().__init__("the change came to the store too late, nothing was changed: try again")


class BackendUnavailable(MaintenanceError):
    """The store did not answer, and nothing was changed.

    Whether that opens or closes the service is the choice of ``on_backend_error``, never the backend's.
    """

    def __init__(self, backend: str, problem: object) -> None:
        self.backend = backend
        self.problem = problem
        super().__init__(f"{backend} is not available: {problem}")


class OutcomeUnknown(BackendUnavailable):
    """The store did not answer a change: it may have been made or not."""

    def __init__(self, backend: str, problem: object) -> None:
        super().__init__(backend, problem)
        self.args = (f"{backend} did not say whether the change was made: {problem}; read the state to know",)


class CorruptState(MaintenanceError):
    """The store has something that is no state, or one that is too large.

    Args:
        where: The document's place.
        problem: What is wrong with it.
        revision: Its revision, where the store knows it: by that, ``forget`` can replace the document.
    """

    def __init__(self, where: str, problem: str, *, revision: str | None = None) -> None:
        self.where = where
        self.problem = problem
        self.revision = revision
        super().__init__(f"{where} has no readable maintenance state: {problem}")


class EmptiedStore(MaintenanceError):
    """The store lost the state that it had: data loss, not an "off"."""

    def __init__(self, where: str) -> None:
        self.where = where
        super().__init__(f"{where} had a state and has none now: set the mode again, on or off, to go on from there")


class NotUnderMaintenance(MaintenanceError):
    """A token is bound to a maintenance, and the switch is off."""

    def __init__(self, switch: str) -> None:
        self.switch = switch
        super().__init__(
            f"switch {switch!r} is not under maintenance, no token was made: a token opens one maintenance, "
            "and not the next; turn the switch on first"
        )


class DrainTimeout(MaintenanceError):
    """Requests that began before the maintenance are still running, and maintenance is on.

    It stays on for the ``ttl`` of the block that was not entered, without one until ``await error.release()``.
    """

    def __init__(self, seconds: float, requests: Iterable[tuple[str, str]]) -> None:
        self.requests = tuple(requests)
        """Method and route of each."""
        self.count = len(self.requests)
        self.release: Callable[[], Awaitable[None]] | None = None
        """Ends the maintenance at once."""
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
    """The installed FastAPI's router can't be read exactly, so no request can be judged."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(
            f"fastapi-maintenance can't read the routes of FastAPI {fastapi_version}: {problem}. "
            "Rather than judge requests wrongly it answers none; upgrade fastapi-maintenance, "
            "or go back to the FastAPI version that worked"
        )


class MaintenanceActive(HTTPException):
    """A guard refused the request: 503 with the default body and ``Retry-After``.

    A handler of your own for it, for an ``HTTPException`` or for the status answers it. Without one, the client gets
    what it prefers, or the custom response, if the middleware is around or ``maintenance_exception_handler`` is
    registered; else FastAPI's own handler answers, in JSON.
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
        """Why the request was refused."""
        self.terms = terms
        """The guard's ``Terms``, by which ``maintenance_exception_handler`` answers."""
        super().__init__(status, detail=detail, headers=dict(headers))


class WebSocketMaintenanceActive(WebSocketException, MaintenanceActive):
    """The same on a websocket whose server knows no denial response: the handshake is closed with 1013.

    ``WebSocketException`` comes first, so that Starlette picks the handler that closes.
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
        MaintenanceActive.__init__(self, decision, detail=detail, headers=headers, terms=terms, status=status)
        self.code = WS_1013_TRY_AGAIN_LATER
        self.reason = detail
