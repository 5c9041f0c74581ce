"""The fixture ``maintenance``: ``pytest_plugins = ["fastapi_maintenance.pytest_plugin"]`` in a ``conftest.py``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from . import testing
from .backends.memory import MemoryBackend


@pytest.fixture
def maintenance() -> Iterator[Callable[..., MemoryBackend]]:
    """Return ``fastapi_maintenance.testing.maintenance`` as a function; its effect lasts until the end of the test."""
    with contextlib.ExitStack() as stack:

        def set_for_this_test(*arguments: object, **options: object) -> MemoryBackend:
            return stack.enter_context(testing.maintenance(*arguments, **options))  # type: ignore[arg-type]

        yield set_for_this_test
