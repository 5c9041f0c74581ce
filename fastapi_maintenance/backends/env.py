"""The backend for an environment variable: read for every request, set by the environment."""

from __future__ import annotations

import logging
import os
from typing import Any, ClassVar

from ..exceptions import InvalidConfiguration, ReadOnlyBackend
from ..model.modes import MaintenanceMode, parse_mode
from ..model.state import MaintenanceState
from .base import BaseStateBackend

logger = logging.getLogger("fastapi_maintenance")

DEFAULT_VARIABLE = "FASTAPI_MAINTENANCE_MODE"

_OFF = MaintenanceState()


class EnvVarBackend(BaseStateBackend):
    """Maintenance by an environment variable: a boolean as pydantic reads it, or ``read_only``.

    A change of ``os.environ`` takes effect at once. A missing or empty variable means off; so does an invalid value,
    with a logged warning.

    Args:
        var_name: The variable's name.
    """

    read_only: ClassVar[bool] = True

    def __init__(self, var_name: str = DEFAULT_VARIABLE) -> None:
        name: object = var_name
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise InvalidConfiguration(
                f"var_name must be the name of an environment variable such as {DEFAULT_VARIABLE!r}, got {var_name!r}"
            )
        self.var_name = var_name
        self._key = var_name.upper() if os.name == "nt" else os.fsencode(var_name)
        self._seen: Any = None
        self._state = _OFF

    def __repr__(self) -> str:
        return f"EnvVarBackend({self.var_name!r})"

    def __str__(self) -> str:
        return f"env://{self.var_name}"

    async def get_value(self) -> bool:
        """Return whether the variable says that maintenance is on."""
        return self.peek().mode is not MaintenanceMode.OFF

    async def set_value(self, value: bool) -> None:
        """Raise ``ReadOnlyBackend``: a process can't set the environment of other processes.

        Raises:
            ReadOnlyBackend: Always.
        """
        raise ReadOnlyBackend(
            f"environment variable {self.var_name}",
            "set the variable and restart, or use a backend that can be written, such as "
            "configure_backend('memory') for one process",
        )

    def peek(self) -> MaintenanceState:
        """Return the state by the variable's present value."""
        try:
            # The dictionary behind the mapping: the mapping itself takes 0.7 µs to report a missing variable.
            raw = os.environ._data.get(self._key)  # type: ignore[attr-defined]  # noqa: SLF001
        except AttributeError:  # os.environ was replaced by another mapping
            raw = os.environ.get(self.var_name)
        if raw != self._seen:
            # The state is set first: another thread that sees the new value must not get the old state.
            self._state, self._seen = self._read(os.environ.get(self.var_name)), raw
        return self._state

    def _read(self, text: str | None) -> MaintenanceState:
        if text is None or not text.strip():
            return _OFF
        try:
            return MaintenanceState(mode=parse_mode(text))
        except ValueError as error:
            logger.warning("environment variable %s is read as off: %s", self.var_name, error)
            return _OFF

    def sibling(self, name: str) -> EnvVarBackend:
        """Return the backend of a named switch: its variable ends with the name in upper case."""
        return EnvVarBackend(f"{self.var_name}_{name.upper().replace('-', '_')}")
