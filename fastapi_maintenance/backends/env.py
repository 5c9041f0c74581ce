"""The environment variable as a switch: read for every request, set from outside."""

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

    A change of ``os.environ`` counts at once. No variable, or an empty one, is off; so is a value that can't be read,
    with a logged warning.

    Args:
        var_name: The variable's name.
    """

    read_only: ClassVar[bool] = True

    def __init__(self, var_name: str = DEFAULT_VARIABLE) -> None:
        name: object = var_name
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise InvalidConfiguration(
                f"var_name={var_name!r}: the name of an environment variable is needed, such as {DEFAULT_VARIABLE!r}"
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
        """Refuse: a process can't set the environment of the others.

        Raises:
            ReadOnlyBackend: Always.
        """
        raise ReadOnlyBackend(
            f"environment variable {self.var_name}",
            "set the variable and restart, or use a backend that can be written, such as "
            "configure_backend('memory') for one process",
        )

    def peek(self) -> MaintenanceState:
        """Return the state that the variable has now."""
        try:
            # What is behind the mapping: the mapping itself takes 0.7 µs to say that there is no such variable.
            raw = os.environ._data.get(self._key)  # type: ignore[attr-defined]  # noqa: SLF001
        except AttributeError:  # somebody put another mapping there
            raw = os.environ.get(self.var_name)
        if raw != self._seen:
            # In this order: another thread that sees the new value must not get the old state.
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
        """Return the backend of a named switch: its variable has the name appended, in upper case."""
        return EnvVarBackend(f"{self.var_name}_{name.upper().replace('-', '_')}")
