"""What a state backend is."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, TypedDict, TypeVar, Unpack

from ..concurrency import io_thread
from ..exceptions import BackendUnavailable, InvalidConfiguration, MaintenanceError
from ..model.change import Change, set_mode
from ..model.modes import MaintenanceMode, as_mode
from ..model.state import MaintenanceState
from ..stores.contract import DocumentStore, is_switch_name
from ..stores.stored_switch import OnEmptied, StoredSwitch

T = TypeVar("T")

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

    async def switch_names(self) -> list[str] | None:
        """Return the names of the switches that have a document in the store; ``None``: it can't list them.

        Raises:
            BackendUnavailable: The store did not answer.
        """
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

OnBackendError = Literal["keep", "open", "closed"]


class FollowOptions(TypedDict, total=False):
    """How a process follows a store. Every backend with a store takes these."""

    poll_seconds: float
    """How often the store is read, besides after its pushes; 1 s, for a file 0.1 s."""
    timeout_seconds: float
    """How long one reading or change may take, connecting included; 1 s."""
    on_backend_error: OnBackendError
    """Which mode applies while the store fails: ``"keep"`` (the default) the last known state; ``"open"`` or
    ``"closed"`` once that is older than ``max_stale``."""
    max_stale: float | None
    """Seconds; only with ``"open"`` and ``"closed"``."""
    initial: bool | MaintenanceMode
    """The mode that applies if the store has never answered since the start; off."""
    init_timeout: float
    """How many seconds the first request waits for the first answer; 2 s."""
    on_emptied: OnEmptied
    """``"restore"`` (the default) puts the newest known state back into a store that has lost it; ``"keep"`` does not,
    and this process keeps that state until somebody sets the mode. A file has no such loss: no file means off."""


class StoreBackend(StateBackend):
    """A switch in a document store: one of ours, or one of your own.

    Requests read this process's copy, which the background thread keeps up to date. All I/O happens on that thread's
    event loop, so a connection never meets another loop.

    Args:
        store: The store.
        key: The switch's name there.
        options: How to follow it, see ``FollowOptions``.

    Raises:
        InvalidConfiguration: An option can't work.
    """

    def __init__(self, store: DocumentStore, key: str = "default", **options: Unpack[FollowOptions]) -> None:
        _check_options(options)
        self.store = store
        self.options = options
        self.poll_seconds = options.get("poll_seconds", 1.0)
        self.on_backend_error: OnBackendError = options.get("on_backend_error", "keep")
        self.max_stale = options.get("max_stale")
        self.initial = as_mode(options.get("initial", False))
        self.init_timeout = options.get("init_timeout", 2.0)
        self.switch = StoredSwitch(
            store,
            key,
            timeout_seconds=options.get("timeout_seconds", 1.0),
            on_emptied=options.get("on_emptied", "restore"),
        )
        self.stop_following: Callable[[], Coroutine[Any, Any, None]] | None = None
        """Ends what follows this backend, if anything does; runs on the background thread."""
        self._sharing: weakref.WeakSet[StoreBackend] = weakref.WeakSet({self})
        """The backends that use the same store."""

    def __repr__(self) -> str:
        return self.switch.where

    def __str__(self) -> str:
        return self.store.address(self.switch.key)

    @property
    def timeout_seconds(self) -> float:
        """How long one reading or change may take."""
        return self.switch.timeout_seconds

    @timeout_seconds.setter
    def timeout_seconds(self, seconds: float) -> None:
        self.switch.timeout_seconds = self.options["timeout_seconds"] = seconds

    def sibling(self, name: str) -> StoreBackend:
        """Return the backend of another switch in the same store, with the same options."""
        sibling = StoreBackend(self.store, name, **self.options)
        sibling._sharing = self._sharing
        self._sharing.add(sibling)
        return sibling

    @property
    def is_followed(self) -> bool:
        """Whether something follows this backend now."""
        view = vars(self).get(VIEW)
        return view is not None and view.is_following

    async def switch_names(self) -> list[str] | None:
        """Return the names of the switches that have a document in the store. On the background thread."""
        names = await self._answer(self.store.names())
        return (
            None
            if names is None
            else sorted(filter(is_switch_name, names), key=lambda name: (name != "default", name))
        )

    async def names_beside(self) -> list[str]:
        """Return the names of the other switches that have a document in the store."""
        return [name for name in await self.switch_names() or () if name != self.switch.key]

    async def load(self) -> MaintenanceState | None:
        """Return the stored state, or ``None`` if nothing is stored. On the background thread.

        Raises:
            BackendUnavailable: The store did not answer within ``timeout_seconds``.
            CorruptState: The store has something else.
            EmptiedStore: It has lost the state.
        """
        return await self.switch.read()

    async def apply(self, change: Change) -> MaintenanceState:
        """Carry out one change at the store and return the state after it. On the background thread."""
        return await self.switch.change(change)

    async def store_time(self) -> datetime | None:
        """Return the time by the store's clock, or ``None`` if that is the clock of this host.

        Raises:
            BackendUnavailable: The store did not answer.
        """
        return (await self._answer(self.store.read(self.switch.key))).now

    async def try_writing(self) -> str | None:
        """Find out whether this process may write, without changing anything; return why that is not known, if so.

        Raises:
            BackendUnavailable: A change would fail, and why; so do ``ReadOnlyBackend`` and ``CorruptState``.
        """
        await self.load()
        return await self._answer(self.store.try_writing(self.switch.key))

    async def _answer(self, asking: Coroutine[Any, Any, T]) -> T:
        """Return what the store answers in time."""
        try:
            return await io_thread.bounded(asking, self.timeout_seconds)
        except MaintenanceError:
            raise
        except Exception as error:
            raise BackendUnavailable(repr(self), str(error) or type(error).__name__) from error

    async def disconnect(self) -> None:
        """Close the connections, unless another backend of the same store is followed."""
        if not any(other.is_followed for other in self._sharing if other is not self):
            await self.store.aclose()

    async def aclose(self) -> None:
        """Follow the store no longer, and close the connections that this backend opened; its siblings alike.

        Whoever asks later begins anew. An app's stores are followed until its lifespan has ended, so this is for code
        without one: after a call such as ``is_maintenance_on()`` in a script or job worker, the store is followed
        until ``aclose()`` or until the backend is gone.
        """
        for sibling in [one for one in self.siblings_made().values() if isinstance(one, StoreBackend)]:
            await sibling.aclose()
        if self.stop_following is not None:
            await io_thread.run(self.stop_following())
        await io_thread.run(self.disconnect())

    async def get_value(self) -> bool:
        """Return whether anything is blocked now, as the store has it."""
        state = await io_thread.run(self.load())
        return state is not None and state.mode_at(datetime.now(UTC)) is not MaintenanceMode.OFF

    async def apply_anywhere(self, change: Change) -> MaintenanceState:
        """Do what ``apply`` does, from any event loop."""
        return await io_thread.run(self.apply(change))


def _check_options(options: FollowOptions) -> None:
    """Raise ``InvalidConfiguration`` if options can't work."""
    unknown = sorted(options.keys() - FollowOptions.__annotations__.keys())
    if unknown:
        accepted = ", ".join(FollowOptions.__annotations__)
        raise InvalidConfiguration(f"unknown option {', '.join(unknown)}; accepted are {accepted}")
    for name in ("poll_seconds", "timeout_seconds", "init_timeout", "max_stale"):
        seconds = options.get(name, 1)
        if seconds is None and name == "max_stale":
            continue
        if isinstance(seconds, bool) or not (isinstance(seconds, (int, float)) and seconds > 0):
            raise InvalidConfiguration(f"{name}={seconds!r} must be a number of seconds above 0")
    on_error, max_stale = options.get("on_backend_error", "keep"), options.get("max_stale")
    if on_error not in ("keep", "open", "closed"):
        raise InvalidConfiguration(f"on_backend_error={on_error!r} must be 'keep', 'open' or 'closed'")
    if (on_error == "keep") != (max_stale is None):
        raise InvalidConfiguration(
            f"on_backend_error={on_error!r} with max_stale={max_stale!r}: "
            "'open' and 'closed' apply once the state is older than max_stale seconds; 'keep' must be without it"
        )
    if options.get("on_emptied", "restore") not in ("restore", "keep"):
        raise InvalidConfiguration(f"on_emptied={options['on_emptied']!r} must be 'restore' or 'keep'")
