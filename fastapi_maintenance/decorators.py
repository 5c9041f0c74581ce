"""The decorators that force endpoints on or off."""

from .routing.marks import force_maintenance_mode_off, force_maintenance_mode_on

__all__ = ["force_maintenance_mode_off", "force_maintenance_mode_on"]
