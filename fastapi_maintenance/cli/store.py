"""The store of a command, its switches and their states."""

from __future__ import annotations

import asyncio
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
from ..switches.backend_urls import BACKEND_VARIABLE, backend_from_url, check_name, make_backend
from ..switches.control import list_switches
from ..switches.registry import registry

_PATIENCE_SECONDS = 5.0
"""The time-out of a store: an operator can wait longer than a request."""
_SECONDS_TO_COMPLETE = 1.0
"""The time-out of a store while a shell completes a name."""
_POLLS_UNTIL_SEEN = 1.1
"""Polls until all workers have seen a change: one, plus the time of a reading. Pushes are ignored
because their connection may be dead."""


def store_of(url: str | None, name: str = DEFAULT) -> BaseStateBackend:
    """Return the backend of a switch in the store of a URL, or in the configured store.

    Raises:
        UnknownBackend, InvalidConfiguration, InvalidSwitchName, MissingExtra: The URL or name is invalid.
    """
    return stores_of(url, (name,))[name]


def stores_of(
    url: str | None, names: Iterable[str], *, var_name: str | None = None, file_path: str | None = None
) -> dict[str, BaseStateBackend]:
    """Return the backends of switches by name; they share their connections.

    ``var_name`` (for ``env``) and ``file_path`` (for ``file``) are options of version 0.0.5, for one switch.

    Raises:
        UnknownBackend, InvalidConfiguration, InvalidSwitchName, MissingExtra: The URL or a name is invalid.
    """
    names = tuple(map(check_name, names))
    for option, value, kind in ("var_name", var_name, "env"), ("file_path", file_path, "file"):
        if value is not None:
            return {names[0]: _backend_of_former_options(names, url, option, value, kind)}
    default = registry.resolve() if url is None else backend_from_url(url.strip())
    if isinstance(default, MemoryBackend):
        raise InvalidConfiguration(
            "memory:// is the memory of another process: --backend must be the store of the app, "
            "such as file:///path or redis://host"
        )
    if isinstance(default, StoreBackend):  # before it has siblings, which copy its settings
        default.timeout_seconds = max(default.timeout_seconds, _PATIENCE_SECONDS)
    return siblings_of(default, names)


def _backend_of_former_options(
    names: tuple[str, ...], url: str | None, option: str, value: str, kind: str
) -> BaseStateBackend:
    """Return the backend for the options of version 0.0.5."""
    flag = f"--{option.replace('_', '-')}"
    if len(names) > 1:
        raise InvalidConfiguration(f"{flag} must come with one switch, got {', '.join(names)}")
    if url != kind:
        equivalent = f"--backend {kind}:{'//' if kind == 'env' else ''}{value}"
        raise InvalidConfiguration(f"{flag} {value!r} must come with --backend {kind}; {equivalent} is equivalent")
    return make_backend(names[0], kind, {option: value})


def siblings_of(default: BaseStateBackend, names: Iterable[str]) -> dict[str, BaseStateBackend]:
    """Return the backends of these switches in the same store."""
    return {name: registry.resolve(default, name) for name in names}


def all_stores_of(url: str | None) -> dict[str, BaseStateBackend]:
    """Return the backends of all switches in a store, the default one first, without forgotten ones.

    Raises:
        MaintenanceError: The store can't list its switches, or is empty.
        BackendUnavailable: The store did not answer.
    """
    default = store_of(url)
    try:
        names = asyncio.run(list_switches(default))
    except UnsupportedByBackend:
        raise MaintenanceError(
            f"{place_of(default)} can't list its switches: name them, such as 'status default billing'"
        ) from None
    if not names:
        raise MaintenanceError(f"no switch is stored in {place_of(default)} or beside it, nothing was changed")
    return siblings_of(default, names)


def complete_names(ctx: Any, incomplete: str) -> list[str]:
    """Return the names of stored switches that begin with ``incomplete``; none after an error or a second.

    ``ctx`` is the click context of the incomplete command.
    """
    try:
        default = store_of(ctx.params.get("backend"))
        if isinstance(default, StoreBackend):
            default.timeout_seconds = _SECONDS_TO_COMPLETE
        names = io_thread.submit(default.switch_names()).result(2 * _SECONDS_TO_COMPLETE) or ()
    except Exception:  # noqa: BLE001 - completion must not print errors
        return []
    return [name for name in names if name.startswith(incomplete)]


async def load_state(backend: BaseStateBackend) -> MaintenanceState | None:
    """Return the stored state, or ``None`` if nothing is stored; writes nothing.

    Raises:
        BackendUnavailable: The store did not answer, or the file's directory doesn't exist.
        CorruptState: The document is unreadable.
    """
    if isinstance(backend, StoreBackend):
        state = await backend.load()
        if state is None and is_file(backend):
            try:
                await io_thread.run(backend.store.names())  # raises if the directory doesn't exist
            except BackendUnavailable as error:
                raise BackendUnavailable(repr(backend), error.problem) from None
        return state
    known = backend.peek()
    return MaintenanceState(mode=as_mode(bool(await backend.get_value()))) if known is None else known


async def read_state(backend: BaseStateBackend) -> MaintenanceState:
    """Return the stored state, or a state that is off if nothing is stored."""
    return await load_state(backend) or MaintenanceState()


def place_of(backend: BaseStateBackend) -> str:
    """Return the location of a backend's state without credentials, or the name of a custom class."""
    place = str(backend)
    return type(backend).__qualname__ if place == object.__repr__(backend) else place


def message_of(error: MaintenanceError, backend: BaseStateBackend) -> str:
    """Return the message of an error, with the store named as in ``place_of``."""
    return str(error).replace(repr(backend), place_of(backend))


def folder_suffix(backend: BaseStateBackend) -> str:
    """Return the absolute path for a line about a relative one, which depends on the working directory."""
    if isinstance(backend, StoreBackend) and isinstance(backend.store, FileStore) and not backend.store.is_absolute:
        return f", in {backend.store.path_of(backend.switch.key)}"
    return ""


def is_file(backend: BaseStateBackend) -> bool:
    """Return whether the state is in a file; a missing file means off."""
    return isinstance(backend, StoreBackend) and backend.store.missing_is_off


def seconds_until_seen(backend: BaseStateBackend) -> float:
    """Return the seconds until all workers have seen a change, for the default ``poll_seconds``."""
    reads_every = backend.poll_seconds if isinstance(backend, StoreBackend) else backend.cache_seconds
    return reads_every * _POLLS_UNTIL_SEEN


def describe_empty_store(backend: BaseStateBackend) -> str:
    """Return the effect of an empty store: a missing file means off, other stores may have lost their document."""
    if is_file(backend):
        return "OFF (there is no file)"
    return "no document: off, unless running workers keep an earlier state"


def check_known(name: str, backend: BaseStateBackend, state: MaintenanceState | None, *, new: bool | None) -> None:
    """Raise an error if a named switch has no state: its name may be mistyped.

    Args:
        name: The switch.
        backend: Its backend.
        state: The stored state.
        new: Whether ``--new`` was given; ``None`` if the command doesn't have it.

    Raises:
        MaintenanceError: The store has no such switch, and ``--new`` was not given.
    """
    if not new and name != DEFAULT and (state is None or state.forgotten):
        hint = "" if new is None else " --new sets it for the first time"
        raise MaintenanceError(
            f"switch {name!r} has no state in {place_of(backend)}, nothing was changed: "
            f"check the name that the app uses.{hint}"
        )


def check_writable(backend: BaseStateBackend) -> None:
    """Raise an error if the app can't see changes made by this process.

    Raises:
        ReadOnlyBackend: The state is in the environment.
    """
    if isinstance(backend, EnvVarBackend):
        raise ReadOnlyBackend(
            f"environment variable {backend.var_name}",
            "set it in the app's environment and restart the app, or use a store that both can reach: "
            f"--backend URL, or {BACKEND_VARIABLE}",
        )
