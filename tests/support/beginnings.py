"""The registry as a process finds it that has just begun."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from fastapi_maintenance.backends import EnvVarBackend
from fastapi_maintenance.switches.registry import registry


@contextmanager
def nothing_configured() -> Iterator[None]:
    """Have no backend configured and no app made at the begin of a block."""
    begun: dict[str, Any] = {"_configured": {}, "_apps": weakref.WeakSet(), "had_app": False, "_guarded": {}}
    with (
        patch.multiple(registry, **begun),
        patch("fastapi_maintenance.switches.registry._ENVIRONMENT", EnvVarBackend()),
    ):
        registry.version += 1  # never back: an app from before may have kept what it looked up
        yield
    registry.version += 1
