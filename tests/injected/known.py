"""Tests of FastAPI and Starlette that end otherwise under the middleware, each with the reason why it must."""

from __future__ import annotations

from typing import NamedTuple


class Known(NamedTuple):
    """Why some tests differ."""

    suite: str
    tests: str
    """How the ids of these tests begin."""
    reason: str


KNOWN = (
    Known(
        "starlette",
        "tests/middleware/test_opentelemetry.py::test_instrumentation_uses_actual_route_match_once",
        "it counts how often a route's own matches() is called, and the middleware has to call it once more",
    ),
)


def reason_for(suite: str, test: str) -> str | None:
    """Return why a test is known to differ, or ``None``."""
    return next((known.reason for known in KNOWN if known.suite == suite and test.startswith(known.tests)), None)
