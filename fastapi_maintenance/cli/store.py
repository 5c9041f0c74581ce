"""The store that a command means, and what it has now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..backends.base import BaseStateBackend, StoreBackend
from ..backends.env import EnvVarBackend
from ..backends.memory import MemoryBackend
from ..concurrency import io_thread
from ..exceptions import (
    BackendUnavailable,
    InvalidConfiguration,
    MaintenanceError,
    ReadOnlyBackend,
    UnsupportedByBackend,
)
from ..model.modes import as_mode
from ..model.state import MaintenanceState
from ..stores.files.store import FileStore
from ..switches.app_switch import DEFAULT
from ..switches.backend_urls import BACKEND_VARIABLE, backend_from_url, checked_name, made_backend
from ..switches.control import list_switches
from ..switches.registry import registry

_PATIENCE_SECONDS = 5.0
"""How long a store may take: an operator waits, where a request can't."""
_SECONDS_TO_COMPLETE = 1.0
"""How long a store may take while a shell completes a name."""
_POLLS_UNTIL_SEEN = 1.1
"""How many polls it takes until all workers have seen a change: one, and what a reading takes itself. Pushes don't
count, as the connection for them may be dead."""


def store_of(url: str | None, name: str = DEFAULT) -> BaseStateBackend:
    """Return the backend of a switch: in the store of a URL, or else in the configured one.

    Raises:
        UnknownBackend, InvalidConfiguration, InvalidSwitchName, MissingExtra: It can't be one.
    """
    return stores_of(url, (name,))[name]


def stores_of(
    url: str | None, names: Iterable[str], *, var_name: str | None = None, file_path: str | None = None
) -> dict[str, BaseStateBackend]:
    """Return the backends of switches by their names, each once; they share their connections.

    Version 0.0.5 had ``var_name`` beside ``env`` and ``file_path`` beside ``file``, the place of one switch.

    Raises:
        UnknownBackend, InvalidConfiguration, InvalidSwitchName, MissingExtra: One of them can't be one.
    """
    names = tuple(map(checked_name, names))
    for option, value, kind in ("var_name", var_name, "env"), ("file_path", file_path, "file"):
        if value is not None:
            return {_only(names, option): _made_as_formerly(names[0], url, option, value, kind)}
    default = registry.meant() if url is None else backend_from_url(url.strip())
    if isinstance(default, MemoryBackend):
        raise InvalidConfiguration(
            "memory:// is the memory of one process, and this command is another one: "
            "it needs the store of the app, such as file:///path or redis://host"
        )
    if isinstance(default, StoreBackend):  # before it has siblings, which take over what it has
        default.timeout_seconds = max(default.timeout_seconds, _PATIENCE_SECONDS)
    return {name: registry.meant(default, name) for name in names}


def _only(names: tuple[str, ...], option: str) -> str:
    if len(names) > 1:
        raise InvalidConfiguration(f"--{option.replace('_', '-')} must come with one switch, got {', '.join(names)}")
    return names[0]


def _made_as_formerly(name: str, url: str | None, option: str, value: str, kind: str) -> BaseStateBackend:
    """Return the backend of a type and its place, as version 0.0.5 took them."""
    if url != kind:
        raise InvalidConfiguration(
            f"--{option.replace('_', '-')} {value!r}: it must come with --backend {kind}; "
            f"--backend {kind}:{'//' if kind == 'env' else ''}{value} says the same"
        )
    return made_backend(name, kind, {option: value})


def all_of(default: BaseStateBackend, names: Iterable[str]) -> dict[str, BaseStateBackend]:
    """Return the backends of these switches beside the default one."""
    return {name: registry.meant(default, name) for name in names}


async def names_in(default: BaseStateBackend) -> list[str]:
    """Return the names of all switches of a store, the default one first, without forgotten ones.

    Raises:
        MaintenanceError: It can't list them, or none is stored.
        BackendUnavailable: It did not answer.
    """
    try:
        names = await list_switches(default)
    except UnsupportedByBackend:
        raise MaintenanceError(
            f"{place_of(default)} can't list its switches: name them, such as 'status default billing'"
        ) from None
    if not names:
        raise MaintenanceError(f"no switch is stored in {place_of(default)} or beside it, nothing was changed")
    return names


def complete_names(ctx: Any, incomplete: str) -> list[str]:
    """Return the names that begin so, of the switches in the store; none if that fails, or takes longer than a second.

    Args:
        ctx: The command as click has understood it so far.
        incomplete: The beginning.
    """
    try:
        default = store_of(ctx.params.get("backend"))
        if isinstance(default, StoreBackend):
            default.timeout_seconds = _SECONDS_TO_COMPLETE
        names = io_thread.submit(default.switch_names()).result(2 * _SECONDS_TO_COMPLETE) or ()
    except Exception:  # noqa: BLE001 - who presses a key asked for no error
        return []
    return [name for name in names if name.startswith(incomplete)]


async def load(backend: BaseStateBackend) -> MaintenanceState | None:
    """Return what the store has now, or ``None`` if it has nothing; nothing is written or created.

    Raises:
        BackendUnavailable: It did not answer, or is a file without a directory.
        CorruptState: It has something else.
    """
    if isinstance(backend, StoreBackend):
        state = await io_thread.run(backend.load())
        if state is None and is_file(backend):
            try:
                await io_thread.run(backend.store.names())  # raises where there is no directory either
            except BackendUnavailable as error:
                raise BackendUnavailable(repr(backend), error.problem) from None
        return state
    known = backend.peek()
    return MaintenanceState(mode=as_mode(bool(await backend.get_value()))) if known is None else known


async def read(backend: BaseStateBackend) -> MaintenanceState:
    """Return what ``load`` does, and a state that is off where the store has nothing."""
    return await load(backend) or MaintenanceState()


def place_of(backend: BaseStateBackend) -> str:
    """Return where a backend keeps its state, without credentials; of a user's own class, its name."""
    place = str(backend)
    return type(backend).__qualname__ if place == object.__repr__(backend) else place


def explained(error: MaintenanceError, backend: BaseStateBackend) -> str:
    """Return what an error says, with the store named as ``place_of`` does."""
    return str(error).replace(repr(backend), place_of(backend))


def in_folder(backend: BaseStateBackend) -> str:
    """Return what a line says of a file with a relative path: who is in another folder changes another file."""
    if isinstance(backend, StoreBackend) and isinstance(backend.store, FileStore) and not backend.store.is_absolute:
        return f", in {backend.store.path_of(backend.switch.key)}"
    return ""


def is_file(backend: BaseStateBackend) -> bool:
    """Return whether a backend keeps its state in a file: without one it is off, and nothing was lost."""
    return isinstance(backend, StoreBackend) and backend.store.missing_is_off


def seconds_until_seen(backend: BaseStateBackend) -> float:
    """Return how long it takes until all workers have seen a change, if they read the store as often as by default."""
    reads_every = backend.poll_seconds if isinstance(backend, StoreBackend) else backend.cache_seconds
    return reads_every * _POLLS_UNTIL_SEEN


class UnknownSwitch(MaintenanceError):
    """The store has no state of a switch of that name, so no app may go by it."""

    def __init__(self, name: str, backend: BaseStateBackend, *, hint: str) -> None:
        super().__init__(
            f"switch {name!r} has no state in {place_of(backend)}, nothing was changed: "
            f"is that how the app calls it?{hint}"
        )


def nothing_in(backend: BaseStateBackend) -> str:
    """Return what a switch does whose store has nothing: no file is off, but what is shared may have been lost."""
    if is_file(backend):
        return "OFF (there is no file)"
    return "no document: off, unless running workers keep an earlier state"


def check_known(name: str, backend: BaseStateBackend, state: MaintenanceState | None, *, new: bool | None) -> None:
    """Make sure that a switch of that name is known in its store, where a mistyped one would be set in vain.

    Args:
        name: The switch.
        backend: Its backend.
        state: What the store has.
        new: Whether it is set for the first time; ``None`` where it can't be.

    Raises:
        UnknownSwitch: It is not, and not said to be new.
    """
    if not new and name != DEFAULT and (state is None or state.forgotten):
        raise UnknownSwitch(name, backend, hint="" if new is None else " --new sets it for the first time")


def check_writable(backend: BaseStateBackend) -> None:
    """Make sure that what is changed here is seen by others.

    Raises:
        ReadOnlyBackend: It is not.
    """
    if isinstance(backend, EnvVarBackend):
        raise ReadOnlyBackend(
            f"environment variable {backend.var_name}",
            "set it where the app is started and restart the app, or keep the state in a store that both can reach: "
            f"--backend URL, or {BACKEND_VARIABLE}",
        )
