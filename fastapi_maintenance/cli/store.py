"""The store that a command means, and what it has now."""

from __future__ import annotations

from .. import background
from ..backends.base import BaseStateBackend, FollowedBackend
from ..backends.env import EnvVarBackend
from ..backends.memory import MemoryBackend
from ..exceptions import InvalidConfiguration, MaintenanceError, ReadOnlyBackend
from ..registry import BACKEND_VARIABLE, DEFAULT, backend_from_url, checked_name, made_backend, registry
from ..state import MaintenanceState, as_mode

_PATIENCE_SECONDS = 5.0
"""How long a store may take: an operator waits, where a request can't."""
_POLLS_UNTIL_SEEN = 1.1
"""How many polls it takes until all workers have seen a change: one, and what a reading takes itself. Pushes don't
count, as the connection for them may be dead."""


def store_of(
    url: str | None, name: str = DEFAULT, *, var_name: str | None = None, file_path: str | None = None
) -> BaseStateBackend:
    """Return the backend of a switch: in the store of a URL, or else in the configured one.

    Version 0.0.5 had ``var_name`` beside ``env`` and ``file_path`` beside ``file``, which say where the switch is.

    Raises:
        UnknownBackend, InvalidConfiguration, InvalidSwitchName, MissingExtra: It can't be one.
    """
    checked_name(name)
    for option, value, kind in ("var_name", var_name, "env"), ("file_path", file_path, "file"):
        if value is not None:
            if url != kind:
                raise InvalidConfiguration(
                    f"--{option.replace('_', '-')} {value!r}: it must come with --backend {kind}; "
                    f"--backend {kind}:{'//' if kind == 'env' else ''}{value} says the same"
                )
            return made_backend(name, kind, {option: value})
    default = registry.meant() if url is None else backend_from_url(url.strip())
    if isinstance(default, MemoryBackend):
        raise InvalidConfiguration(
            "memory:// is the memory of one process, and this command is another one: "
            "it needs the store of the app, such as file:///path or redis://host"
        )
    if isinstance(default, FollowedBackend):  # before it has siblings, which take over what it has
        default.timeout_seconds = max(default.timeout_seconds, _PATIENCE_SECONDS)
    return registry.meant(default, name)


async def read(backend: BaseStateBackend) -> MaintenanceState:
    """Return what the store has now; nothing is written or created.

    Raises:
        BackendUnavailable: It did not answer.
        CorruptState: It has something else.
    """
    if isinstance(backend, FollowedBackend):
        return await background.run(backend.load()) or MaintenanceState()
    known = backend.peek()
    return MaintenanceState(mode=as_mode(bool(await backend.get_value()))) if known is None else known


def seconds_until_seen(backend: BaseStateBackend) -> float:
    """Return how long it takes until all workers have seen a change, if they read the store as often as by default."""
    reads_every = backend.poll_seconds if isinstance(backend, FollowedBackend) else backend.cache_seconds
    return reads_every * _POLLS_UNTIL_SEEN


class UnknownSwitch(MaintenanceError):
    """A switch of that name was never set in the store, so no app may go by it."""

    def __init__(self, name: str, backend: BaseStateBackend) -> None:
        super().__init__(
            f"switch {name!r} was never set in {backend!r}, nothing was changed: "
            "is that how the app calls it? --new sets it for the first time"
        )


def is_known(name: str, backend: BaseStateBackend, state: MaintenanceState) -> bool:
    """Return whether a switch was ever set in its store, as far as that can tell: a variable can't."""
    return name == DEFAULT or bool(state.epoch) or isinstance(backend, EnvVarBackend)


def check_known(name: str, backend: BaseStateBackend, state: MaintenanceState, *, new: bool) -> None:
    """Make sure that a switch of that name is known in its store, where a mistyped one would be set in vain.

    Raises:
        UnknownSwitch: It is not, and not said to be new.
    """
    if not new and not is_known(name, backend, state):
        raise UnknownSwitch(name, backend)


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
