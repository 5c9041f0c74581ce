"""The admin desk, as a router to include in an app."""

from .desk.router import maintenance_admin

__all__ = ["maintenance_admin"]
