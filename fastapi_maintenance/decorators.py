"""The decorators that force maintenance on or off for endpoints."""

from .routing.marks import force_maintenance_mode_off, force_maintenance_mode_on

__all__ = ["force_maintenance_mode_off", "force_maintenance_mode_on"]
