"""Maintenance mode for FastAPI: exact, and free of cost while nothing is under maintenance."""

from .control import (
    get_maintenance_mode,
    get_maintenance_state,
    maintenance_mode_off,
    maintenance_mode_on,
    set_maintenance_mode,
)
from .decorators import force_maintenance_mode_off, force_maintenance_mode_on
from .exceptions import (
    AmbiguousSwitch,
    InvalidConfiguration,
    InvalidSwitchName,
    MaintenanceActive,
    MaintenanceError,
    ReadOnlyBackend,
    UnknownBackend,
    UnsupportedByBackend,
    UnsupportedFastAPI,
)
from .exemptions import Exemptions
from .guard import MaintenanceGuard, maintenance_exception_handler, maintenance_guard
from .middleware import MaintenanceModeMiddleware
from .registry import configure_backend
from .state import MaintenanceMode, MaintenanceState

__version__ = "1.0.0.dev0"

__all__ = [
    "AmbiguousSwitch",
    "Exemptions",
    "InvalidConfiguration",
    "InvalidSwitchName",
    "MaintenanceActive",
    "MaintenanceError",
    "MaintenanceGuard",
    "MaintenanceMode",
    "MaintenanceModeMiddleware",
    "MaintenanceState",
    "ReadOnlyBackend",
    "UnknownBackend",
    "UnsupportedByBackend",
    "UnsupportedFastAPI",
    "configure_backend",
    "force_maintenance_mode_off",
    "force_maintenance_mode_on",
    "get_maintenance_mode",
    "get_maintenance_state",
    "maintenance_exception_handler",
    "maintenance_guard",
    "maintenance_mode_off",
    "maintenance_mode_on",
    "set_maintenance_mode",
]
