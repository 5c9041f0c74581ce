"""Planned periods of maintenance."""
