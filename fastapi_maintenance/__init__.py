"""Maintenance mode for FastAPI: exact, and free of cost while nothing is under maintenance."""

from .answers.answer import Answer
from .exceptions import (
    AmbiguousSwitch,
    BackendUnavailable,
    ChangeRejected,
    CorruptState,
    DeadlinePassed,
    DrainTimeout,
    EmptiedStore,
    HoldLost,
    InvalidConfiguration,
    InvalidSwitchName,
    MaintenanceActive,
    MaintenanceError,
    MissingExtra,
    NotUnderMaintenance,
    OutcomeUnknown,
    ReadOnlyBackend,
    SwitchIsHeld,
    UnknownBackend,
    UnknownWindow,
    UnsupportedByBackend,
    UnsupportedFastAPI,
    VersionConflict,
)
from .gate.bypass import Bypass
from .gate.exemptions import Exemptions
from .guard import MaintenanceGuard, maintenance_exception_handler, maintenance_guard
from .holds.block import MaintenanceBlock, maintenance_mode_off, maintenance_mode_on
from .holds.in_flight import InFlight, in_flight
from .inspection.openapi import document_maintenance
from .middleware import MaintenanceModeMiddleware
from .model.decision import Decision
from .model.modes import MaintenanceMode
from .model.state import MaintenanceState
from .model.windows.timetable import Occurrence
from .model.windows.window import Window
from .routing.marks import force_maintenance_mode_off, force_maintenance_mode_on
from .switches.control import (
    cancel_maintenance,
    forget_switch,
    get_maintenance_mode,
    get_maintenance_state,
    get_maintenance_status,
    is_maintenance_on,
    list_switches,
    schedule_maintenance,
    set_maintenance_mode,
)
from .switches.events import Subscription, on_change
from .switches.registry import configure_backend
from .switches.transitions import Transition
from .switches.views.view import Knowledge, SwitchStatus

__version__ = "1.0.0"

__all__ = [
    "AmbiguousSwitch",
    "Answer",
    "BackendUnavailable",
    "Bypass",
    "ChangeRejected",
    "CorruptState",
    "DeadlinePassed",
    "Decision",
    "DrainTimeout",
    "EmptiedStore",
    "Exemptions",
    "HoldLost",
    "InFlight",
    "InvalidConfiguration",
    "InvalidSwitchName",
    "Knowledge",
    "MaintenanceActive",
    "MaintenanceBlock",
    "MaintenanceError",
    "MaintenanceGuard",
    "MaintenanceMode",
    "MaintenanceModeMiddleware",
    "MaintenanceState",
    "MissingExtra",
    "NotUnderMaintenance",
    "Occurrence",
    "OutcomeUnknown",
    "ReadOnlyBackend",
    "Subscription",
    "SwitchIsHeld",
    "SwitchStatus",
    "Transition",
    "UnknownBackend",
    "UnknownWindow",
    "UnsupportedByBackend",
    "UnsupportedFastAPI",
    "VersionConflict",
    "Window",
    "cancel_maintenance",
    "configure_backend",
    "document_maintenance",
    "force_maintenance_mode_off",
    "force_maintenance_mode_on",
    "forget_switch",
    "get_maintenance_mode",
    "get_maintenance_state",
    "get_maintenance_status",
    "in_flight",
    "is_maintenance_on",
    "list_switches",
    "maintenance_exception_handler",
    "maintenance_guard",
    "maintenance_mode_off",
    "maintenance_mode_on",
    "on_change",
    "schedule_maintenance",
    "set_maintenance_mode",
]
