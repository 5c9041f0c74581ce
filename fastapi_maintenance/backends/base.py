"""The base classes of all state backends, and the backend for document stores."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, TypedDict, Unpack

from ..concurrency import io_thread
from ..exceptions import InvalidConfiguration
from ..model.change import Change, set_mode
from ..model.modes import MaintenanceMode, as_mode
from ..model.state import MaintenanceState
from ..stores.contract import DocumentStore, is_switch_name
from ..stores.stored_switch import OnEmptied, StoredSwitch

VIEW = "_fastapi_maintenance_view"
"""The attribute in which a backend stores this process's view of it."""


class BaseStateBackend(ABC):
    """Keeps the state of one switch.

    A backend of your own needs only ``get_value`` and ``set_value``. Both are awaited in the caller's event loop, so
    they can use the app's clients. Errors of ``get_value`` are contained: requests never see them, and the last known
    state stays in effect. Errors of ``set_value`` are raised to the caller.
    """

    read_only: ClassVar[bool] = False
    """Whether this process can only read the state."""
    cache_seconds: float = 0
    """How long a result of ``get_value`` is cached; 0: each request that depends on it calls ``get_value``.

    Requests wait for the result, so give your store short time-outs.
    """

    @abstractmethod
    async def get_value(self) -> bool:
        """Return whether maintenance is on."""

    @abstractmethod
    async def set_value(self, value: bool) -> None:
        """Store whether maintenance is on.

        Raises:
            ReadOnlyBackend: This process can't write the store.
        """

    @staticmethod
    def _str_to_bool(value: str) -> bool:
        """Return the boolean that a stored text means; empty text is ``False``. For backends of your own.

        Raises:
            ValueError: The text is none of ``1 yes y t true on``, ``0 no n f false off``, in any case.
        """
        word = value.strip().lower()
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
        msg = f"value must be 1, yes, y, true, t, on; 0, no, n, false, f, off, or nothing; got {value[:20]!r}"
        raise ValueError(msg)

    @staticmethod
    def _bool_to_str(value: bool) -> str:
        """Return the text to store for a boolean: ``"1"`` or ``"0"``. For backends of your own.

        Raises:
            ValueError: The value is not a boolean, 1 or 0.
        """
        text = str(int(value))
        if text in {"0", "1"}:
            return text
        msg = f"value must be True or False, got {value!r}"
        raise ValueError(msg)

    def peek(self) -> MaintenanceState | None:
        """Return the stored state, or ``None`` if reading it takes I/O. Called for every request."""
        return None

    def sibling(self, name: str) -> BaseStateBackend | None:
        """Return the backend of the switch ``name`` in the same store, or ``None`` if it can hold only one."""
        return None

    async def switch_names(self) -> list[str] | None:
        """Return the names of the switches that have a document in the store, or ``None`` if it can't list them.

        Raises:
            BackendUnavailable: The store did not answer.
        """
        return None


def get_siblings(backend: BaseStateBackend) -> dict[str, BaseStateBackend]:
    """Return a backend's siblings in use, by name; the registry adds to this dictionary."""
    # Created here, because a user's own backend need not call its base class's constructor.
    siblings: dict[str, BaseStateBackend] = vars(backend).setdefault("_fastapi_maintenance_siblings", {})
    return siblings


class StateBackend(BaseStateBackend):
    """A backend that keeps the whole state: modes, reasons, holds."""

    @abstractmethod
    async def apply(self, change: Change) -> MaintenanceState:
        """Apply one change to the store atomically, and return the state after it.

        Raises:
            ChangeRejected: The store refused the change.
            BackendUnavailable: The store did not answer; nothing was changed.
            OutcomeUnknown: The store did not answer; the change may have been made.
        """

    async def set_value(self, value: bool) -> None:
        """Store whether maintenance is on; this process's next request already sees it."""
        change = set_mode(as_mode(value), now=datetime.now(UTC))
        view = vars(self).get(VIEW)
        await (self if view is None else view).apply(change)


_TRUE = frozenset({"1", "yes", "y", "true", "t", "on"})
_FALSE = frozenset({"0", "no", "n", "false", "f", "off", ""})

OnBackendError = Literal["keep", "open", "closed"]


class FollowOptions(TypedDict, total=False):
    """How a process follows a store. Every backend with a store accepts these options."""

    poll_seconds: float
    """Seconds between reads of the store, which is also read after each push; 1 s, for a file 0.1 s."""
    timeout_seconds: float
    """How many seconds one read or change may take, connecting included; 1 s."""
    on_backend_error: OnBackendError
    """The mode while the store fails: ``"keep"`` (the default) keeps the last known state; ``"open"`` or ``"closed"``
    applies once that state is older than ``max_stale``."""
    max_stale: float | None
    """Seconds; only with ``"open"`` and ``"closed"``."""
    initial: bool | MaintenanceMode
    """The mode until the store has answered for the first time; off."""
    init_timeout: float
    """How many seconds the first request waits for the first answer; 2 s."""
    on_emptied: OnEmptied
    """``"restore"`` (the default) writes the newest known state back to a store that has lost it; ``"keep"`` does not,
    and this process keeps that state until somebody sets the mode. A file can't lose its state: no file means off."""


DEFAULTS: FollowOptions = {
    "poll_seconds": 1.0,
    "timeout_seconds": 1.0,
    "on_backend_error": "keep",
    "max_stale": None,
    "initial": False,
    "init_timeout": 2.0,
    "on_emptied": "restore",
}


class StoreBackend(StateBackend):
    """A switch in a document store: a built-in store, or one of your own.

    Requests read this process's copy, which the background thread keeps up to date. All I/O happens on that thread's
    event loop, so a connection is never used on another loop, and the methods can be called from any.

    Args:
        store: The store.
        key: The name of the switch in the store.
        options: How to follow the store, see ``FollowOptions``.

    Raises:
        InvalidConfiguration: An option is invalid.
    """

    def __init__(self, store: DocumentStore, key: str = "default", **options: Unpack[FollowOptions]) -> None:
        self.options = check_options(options)
        self.store = store
        self.poll_seconds = self.options["poll_seconds"]
        self.on_backend_error = self.options["on_backend_error"]
        self.max_stale = self.options["max_stale"]
        self.initial = as_mode(self.options["initial"])
        self.init_timeout = self.options["init_timeout"]
        self.switch = StoredSwitch(
            store, key, timeout_seconds=self.options["timeout_seconds"], on_emptied=self.options["on_emptied"]
        )
        self.stop_following: Callable[[], Coroutine[Any, Any, None]] | None = None
        """Stops following this backend; ``None`` while nothing follows it. Runs on the background thread."""
        self._sharing: weakref.WeakSet[StoreBackend] = weakref.WeakSet({self})
        """The backends that use the same store."""

    def __repr__(self) -> str:
        return self.switch.where

    def __str__(self) -> str:
        return self.store.address(self.switch.key)

    @property
    def timeout_seconds(self) -> float:
        """How many seconds one read or change may take."""
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
        """Whether this process follows this backend now."""
        view = vars(self).get(VIEW)
        return view is not None and view.is_following

    async def switch_names(self) -> list[str] | None:
        """Return the names of the switches that have a document, ``default`` first."""
        names = await io_thread.run(self.switch.ask(self.store.names()))
        if names is None:
            return None
        return sorted(filter(is_switch_name, names), key=lambda name: (name != "default", name))

    async def load(self) -> MaintenanceState | None:
        """Return the stored state, or ``None`` if nothing is stored.

        Raises:
            BackendUnavailable: The store did not answer within ``timeout_seconds``.
            CorruptState: The stored document is not a valid state.
            EmptiedStore: The store has lost the state.
        """
        return await io_thread.run(self.switch.read())

    async def apply(self, change: Change) -> MaintenanceState:
        """Apply one change to the store and return the state after it."""
        return await io_thread.run(self.switch.change(change))

    async def store_time(self) -> datetime | None:
        """Return the time by the store's clock, or ``None`` if the store uses this host's clock.

        Raises:
            BackendUnavailable: The store did not answer.
        """
        return (await io_thread.run(self.switch.ask(self.store.read(self.switch.key)))).now

    async def try_writing(self) -> str | None:
        """Check that this process can write, without changing anything; return why that can't be checked, or ``None``.

        Raises:
            BackendUnavailable: A change would fail; ``ReadOnlyBackend`` and ``CorruptState`` mean the same.
        """
        await self.load()
        return await io_thread.run(self.switch.ask(self.store.try_writing(self.switch.key)))

    async def disconnect(self) -> None:
        """Close the connections, unless another backend that uses the same store is followed."""
        if not any(other.is_followed for other in self._sharing if other is not self):
            await self.store.aclose()

    async def aclose(self) -> None:
        """Stop following the store, and close the connections of this backend and its siblings.

        A later call follows the store again. The end of an app's lifespan does this for the app's stores. Scripts and
        job workers have no lifespan: after a call such as ``is_maintenance_on()``, the store is followed until
        ``aclose()`` or until the backend is garbage-collected.
        """
        for sibling in [one for one in get_siblings(self).values() if isinstance(one, StoreBackend)]:
            await sibling.aclose()
        if self.stop_following is not None:
            await io_thread.run(self.stop_following())
        await io_thread.run(self.disconnect())

    async def get_value(self) -> bool:
        """Return whether the stored state blocks anything now."""
        state = await self.load()
        return state is not None and state.mode_at(datetime.now(UTC)) is not MaintenanceMode.OFF


def check_options(given: FollowOptions) -> FollowOptions:
    """Return the options with the defaults, or raise ``InvalidConfiguration`` if an option is invalid."""
    unknown = sorted(given.keys() - DEFAULTS.keys())
    if unknown:
        raise InvalidConfiguration(f"unknown option {', '.join(unknown)}; accepted are {', '.join(DEFAULTS)}")
    options: FollowOptions = {**DEFAULTS, **given}
    on_error, max_stale = options["on_backend_error"], options["max_stale"]
    for name in ("poll_seconds", "timeout_seconds", "init_timeout", "max_stale"):
        seconds: object = options[name]
        if seconds is None and name == "max_stale":
            continue
        if isinstance(seconds, bool) or not (isinstance(seconds, (int, float)) and seconds > 0):
            raise InvalidConfiguration(f"{name}={seconds!r} must be a number of seconds above 0")
    if on_error not in ("keep", "open", "closed"):
        raise InvalidConfiguration(f"on_backend_error={on_error!r} must be 'keep', 'open' or 'closed'")
    if (on_error == "keep") != (max_stale is None):
        raise InvalidConfiguration(
            f"on_backend_error={on_error!r} with max_stale={max_stale!r}: "
            "'open' and 'closed' apply once the state is older than max_stale seconds; 'keep' must be without it"
        )
    if options["on_emptied"] not in ("restore", "keep"):
        raise InvalidConfiguration(f"on_emptied={options['on_emptied']!r} must be 'restore' or 'keep'")
    return options
