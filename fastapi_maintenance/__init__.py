"""Maintenance mode for FastAPI: exact, and free of cost while nothing is under maintenance."""

from .answers import Answer
from .bypass import Bypass
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
    MissingExtra,
    NotUnderMaintenance,
    ReadOnlyBackend,
    UnknownBackend,
    UnsupportedByBackend,
    UnsupportedFastAPI,
)
from .exemptions import Exemptions
from .guard import MaintenanceGuard, maintenance_exception_handler, maintenance_guard
from .middleware import MaintenanceModeMiddleware
from .openapi import document_maintenance
from .policy import Decision
from .registry import configure_backend
from .state import MaintenanceMode, MaintenanceState

__version__ = "1.0.0.dev0"

__all__ = [
    "AmbiguousSwitch",
    "Answer",
    "Bypass",
    "Decision",
    "Exemptions",
    "InvalidConfiguration",
    "InvalidSwitchName",
    "MaintenanceActive",
    "MaintenanceError",
    "MaintenanceGuard",
    "MaintenanceMode",
    "MaintenanceModeMiddleware",
    "MaintenanceState",
    "MissingExtra",
    "NotUnderMaintenance",
    "ReadOnlyBackend",
    "UnknownBackend",
    "UnsupportedByBackend",
    "UnsupportedFastAPI",
    "configure_backend",
    "document_maintenance",
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
