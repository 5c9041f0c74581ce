"""What a state backend is."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal

from .. import background
from ..exceptions import InvalidConfiguration, VersionConflict
from ..state import Change, MaintenanceMode, MaintenanceState, as_mode, set_mode

VIEW = "_fastapi_maintenance_view"
"""The attribute in which a backend has this process's view of it, once there is one."""


class BaseStateBackend(ABC):
    """Where the state of one switch is kept.

    A backend of your own needs ``get_value`` and ``set_value`` only. Both are awaited in the event loop of whoever
    asks, so it may share the app's clients. What ``get_value`` raises is contained: a request never sees it, and the
    last known state stays. What ``set_value`` raises comes to whoever makes the change.
    """

    read_only: ClassVar[bool] = False
    """Whether the state can only be read from here."""
    cache_seconds: float = 0
    """For how long an answer of ``get_value`` counts; 0: it is asked for every request that needs to know.

    So with a store of your own, mind its time-outs: a request waits for the answer.
    """

    @abstractmethod
    async def get_value(self) -> bool:
        """Return whether maintenance is on."""

    @abstractmethod
    async def set_value(self, value: bool) -> None:
        """Store whether maintenance is on.

        Raises:
            ReadOnlyBackend: The store can't be written from here.
        """

    @staticmethod
    def _str_to_bool(value: str) -> bool:
        """Return the boolean that a stored text means; an empty one is ``False``. For backends of your own.

        Raises:
            ValueError: It is none of ``1 yes y t true on``, ``0 no n f false off``, in any case.
        """
        word = value.strip().lower()
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
        msg = f"{value[:20]!r} is no boolean: accepted are 1, yes, y, true, t, on; 0, no, n, false, f, off, or nothing"
        raise ValueError(msg)

    @staticmethod
    def _bool_to_str(value: bool) -> str:
        """Return the text by which a backend of your own can store a boolean: ``"1"`` or ``"0"``.

        Raises:
            ValueError: It is no boolean, nor 1 or 0.
        """
        text = str(int(value))
        if text in {"0", "1"}:
            return text
        msg = f"{value!r} is no boolean: True or False must be given"
        raise ValueError(msg)

    def peek(self) -> MaintenanceState | None:
        """Return the stored state without any I/O, or ``None`` where it takes I/O to know it.

        Called for every request.
        """
        return None

    def sibling(self, name: str) -> BaseStateBackend | None:
        """Return the backend of the switch ``name`` in the same store, or ``None`` if the store has room for one."""
        return None

    async def names_beside(self) -> list[str]:
        """Return the names of the siblings that may have a state in the store; none where the store can't list them.

        Raises:
            BackendUnavailable: The store did not answer.
        """
        return []

    def siblings_made(self) -> dict[str, BaseStateBackend]:
        """Return the siblings that are in use, by name; the registry adds to them."""
        # Not made by a constructor: a user's own backend need not call this class's.
        siblings: dict[str, BaseStateBackend] = vars(self).setdefault("_fastapi_maintenance_siblings", {})
        return siblings


class StateBackend(BaseStateBackend):
    """A backend that keeps the whole state: modes, reasons, holds."""

    @abstractmethod
    async def apply(self, change: Change) -> MaintenanceState:
        """Carry out one change at the store, as a whole or not at all, and return the state after it.

        Raises:
            ChangeRejected: The store refused it.
            BackendUnavailable: The store did not answer, and nothing was changed.
            OutcomeUnknown: The store did not answer, and something may have been changed.
        """

    async def set_value(self, value: bool) -> None:
        """Store whether maintenance is on; requests of this process are judged by it from the next one on."""
        change = set_mode(as_mode(value), now=datetime.now(UTC))
        view = vars(self).get(VIEW)
        await (self.apply_anywhere(change) if view is None else view.apply(change))

    async def apply_anywhere(self, change: Change) -> MaintenanceState:
        """Do what ``apply`` does, from any event loop."""
        return await self.apply(change)


_TRUE = frozenset({"1", "yes", "y", "true", "t", "on"})
_FALSE = frozenset({"0", "no", "n", "false", "f", "off", ""})

_LEAST_DIFFERENCE = timedelta(milliseconds=250)


def clock_difference(store_time: datetime) -> timedelta:
    """Return how much this host's clock is ahead of a store's, which said just now what time it is.

    What is less than the time that an answer takes is no difference.
    """
    ahead = datetime.now(UTC) - store_time
    return ahead if abs(ahead) > _LEAST_DIFFERENCE else timedelta()


OnBackendError = Literal["keep", "open", "closed"]


class FollowedBackend(StateBackend):
    """A backend whose state is kept outside of this process, and followed by the background thread.

    Requests read the thread's last copy. All methods with I/O are called on the background thread's event loop only,
    so a connection never meets another loop. They may be cancelled.

    Args:
        poll_seconds: How often the store is read, beside what it pushes.
        timeout_seconds: How long one reading or writing may take, connecting included.
        on_backend_error: What counts when the store fails: ``"keep"`` the last known state; ``"open"`` or
            ``"closed"`` once that is older than ``max_stale``.
        max_stale: Seconds; goes with ``"open"`` and ``"closed"``.
        initial: What counts when the store never answered since the start.
        init_timeout: Seconds that the first request waits for the first answer.

    Raises:
        InvalidConfiguration: An option can't work.
    """

    def __init__(
        self,
        *,
        poll_seconds: float = 1.0,
        timeout_seconds: float = 1.0,
        on_backend_error: OnBackendError = "keep",
        max_stale: float | None = None,
        initial: bool | MaintenanceMode = False,
        init_timeout: float = 2.0,
    ) -> None:
        durations: dict[str, object] = {
            "poll_seconds": poll_seconds,
            "timeout_seconds": timeout_seconds,
            "init_timeout": init_timeout,
            "max_stale": 1 if max_stale is None else max_stale,
        }
        for name, seconds in durations.items():
            if not (isinstance(seconds, (int, float)) and seconds > 0):
                raise InvalidConfiguration(f"{name}={seconds!r}: a number of seconds above 0 is needed")
        if on_backend_error not in ("keep", "open", "closed"):
            raise InvalidConfiguration(f"on_backend_error={on_backend_error!r}: accepted are 'keep', 'open', 'closed'")
        if (on_backend_error == "keep") != (max_stale is None):
            raise InvalidConfiguration(
                f"on_backend_error={on_backend_error!r} with max_stale={max_stale!r}: "
                "'open' and 'closed' need max_stale, the age in seconds from which on they count; 'keep' has none"
            )
        self.poll_seconds = poll_seconds
        self.timeout_seconds = timeout_seconds
        self.on_backend_error: OnBackendError = on_backend_error
        self.max_stale = max_stale
        self.initial = as_mode(initial)
        self.init_timeout = init_timeout
        self.stop_following: Callable[[], Coroutine[Any, Any, None]] | None = None
        """Ends what follows this backend, if anything does; runs on the background thread."""

    def _options(self) -> dict[str, Any]:
        """Return the options that a sibling takes over."""
        return {
            "poll_seconds": self.poll_seconds,
            "timeout_seconds": self.timeout_seconds,
            "on_backend_error": self.on_backend_error,
            "max_stale": self.max_stale,
            "initial": self.initial,
            "init_timeout": self.init_timeout,
        }

    @abstractmethod
    async def load(self) -> MaintenanceState | None:
        """Return the stored state, or ``None`` if nothing is stored.

        Raises:
            BackendUnavailable: The store did not answer within ``timeout_seconds``.
            CorruptState: The store has something else.
        """

    async def listen(self, heard: Callable[[MaintenanceState | None], None]) -> None:
        """Call ``heard`` with each state that the store pushes, until the connection is lost.

        ``heard(None)`` means that something may have been missed: it is called once the store has confirmed the
        subscription, and the state is then read. A store that pushes nothing returns at once.

        Raises:
            BackendUnavailable: The connection could not be made, or was lost.
        """

    async def store_time(self) -> datetime | None:
        """Return what time it is by the store's clock, or ``None`` if that is the one of this host.

        Raises:
            BackendUnavailable: The store did not answer.
        """
        return None

    async def try_writing(self) -> str | None:
        """Do what a change does without changing anything; return why that was not tried, if it was not.

        Raises:
            BackendUnavailable: A change would fail, and why; so do ``ReadOnlyBackend`` and ``CorruptState``.
        """
        with contextlib.suppress(VersionConflict):
            await self.apply(Change(expected_version=-1))  # no state is at that version, so any store refuses it
        return None

    async def disconnect(self) -> None:
        """Close the connections that this backend opened. What it was given stays open."""

    async def aclose(self) -> None:
        """Follow the store no longer, and close the connections that this backend opened; its siblings alike.

        Whoever asks later begins anew. An app's stores are followed until its lifespan has ended, so this is for code
        without one: after a call such as ``is_maintenance_on()`` in a script or job worker, the store is followed
        until ``aclose()`` or until the backend is gone.
        """
        for sibling in [one for one in self.siblings_made().values() if isinstance(one, FollowedBackend)]:
            await sibling.aclose()
        if self.stop_following is not None:
            await background.run(self.stop_following())
        await background.run(self.disconnect())

    async def get_value(self) -> bool:
        """Return whether anything is blocked now, as the store has it."""
        state = await background.run(self.load())
        return state is not None and state.mode_at(datetime.now(UTC)) is not MaintenanceMode.OFF

    async def apply_anywhere(self, change: Change) -> MaintenanceState:
        """Do what ``apply`` does, from any event loop."""
        return await background.run(self.apply(change))
