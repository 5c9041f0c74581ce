"""The admin's JSON API against its own description, by Schemathesis."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, settings

from fastapi_maintenance import MaintenanceModeMiddleware, configure_backend
from fastapi_maintenance.admin import maintenance_admin

app = FastAPI()
app.add_middleware(MaintenanceModeMiddleware)
app.include_router(maintenance_admin(insecure=True, names=["default", "billing"]), prefix="/admin")
schema = schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.fixture(autouse=True)
def _memory() -> None:
    """Keep both switches in memory; what one example leaves is there for the next."""
    for name in "default", "billing":
        configure_backend("memory", name=name)


@schema.parametrize()
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_is_described_is_what_is_answered(case: Any) -> None:
    """No 500, no status and no body that the description lacks, whatever is sent; what it forbids is refused."""
    case.call_and_validate()
