"""What is counted, by OpenTelemetry's own SDK."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from opentelemetry import metrics as api
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from starlette.endpoints import HTTPEndpoint
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from fastapi_maintenance import (
    Exemptions,
    MaintenanceGuard,
    MaintenanceMode,
    MaintenanceModeMiddleware,
    configure_backend,
    force_maintenance_mode_on,
    get_maintenance_mode,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import LocalFileBackend, MemoryBackend
from fastapi_maintenance.gate import metrics as module
from tests.support.asgi import get, status

pytestmark = pytest.mark.anyio

READER = InMemoryMetricReader()
PROVIDER = MeterProvider([READER])


@pytest.fixture(autouse=True)
def _own_meter(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Count with the SDK in this module's tests, and not in others."""
    monkeypatch.setattr(api, "get_meter", PROVIDER.get_meter)
    module._instruments.cache_clear()
    _points()
    yield
    module._instruments.cache_clear()


def _points() -> dict[str, list[Any]]:
    found = READER.get_metrics_data()
    if found is None:
        return {}
    return {
        metric.name: list(metric.data.data_points)
        for resource in found.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


BEFORE: dict[tuple[Any, ...], int] = {}


def counted(name: str) -> dict[tuple[str, str, str], int]:
    """Return how often each was counted since this was asked last."""
    grown = {}
    for point in _points().get(f"fastapi_maintenance.requests.{name}", []):
        attributes = point.attributes
        key = tuple(attributes[one] for one in ("maintenance.switch", "maintenance.reason", "http.route"))
        since = point.value - BEFORE.get((name, *key), 0)
        BEFORE[name, *key] = point.value
        if since:
            grown[key] = since
    return grown


class Items(HTTPEndpoint):
    async def get(self, request: Any) -> PlainTextResponse:
        return PlainTextResponse("item")


def app_with(**options: Any) -> FastAPI:
    app, inner = FastAPI(), FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, **options)
    router = APIRouter(prefix="/shop")

    @router.get("/items/{item_id}")
    async def item(item_id: int) -> int:
        return item_id

    @app.get("/gone")
    @force_maintenance_mode_on
    async def gone() -> None: ...

    @app.get("/bills/{bill_id}", dependencies=[Depends(MaintenanceGuard("billing"))])
    async def bill(bill_id: int) -> int:
        return bill_id

    @app.websocket("/chat/{room}")
    async def chat(websocket: WebSocket, room: str) -> None: ...

    @inner.get("/x/{y}")
    async def mounted(y: str) -> str:
        return y

    app.include_router(router)
    app.router.routes.append(Route("/class/{name}", Items))
    app.mount("/inner", inner)
    app.mount("/opaque", PlainTextResponse("opaque"))
    return app


async def test_what_is_blocked_and_what_is_exempt_is_counted_by_its_route() -> None:
    """By the path as it was declared: a number per item would be one series per item."""
    backend = MemoryBackend(initial=True)
    app = app_with(backend=backend, exemptions=Exemptions(paths=["/shop/items/7"]))
    counted("blocked"), counted("exempted")
    paths = ["/shop/items/1", "/shop/items/2", "/gone", "/class/a", "/inner/x/1", "/opaque/y", "/missing", "/docs"]
    for path in [*paths, "/shop/items/7"]:
        await get(app, path)
    assert counted("blocked") == {
        ("default", "mode", "/shop/items/{item_id}"): 2,
        ("default", "forced_on", "/gone"): 1,
        ("default", "mode", "/class/{name}"): 1,
        ("default", "mode", "/inner/x/{y}"): 1,
        ("default", "mode", "/opaque"): 1,
    }
    assert counted("exempted") == {
        ("default", "path", "/shop/items/{item_id}"): 1,
        ("default", "docs", "/docs"): 1,
    }


async def test_what_a_guard_blocks_is_counted_for_its_switch() -> None:
    configure_backend("memory", name="billing")
    app = app_with(backend=MemoryBackend())
    counted("blocked")
    assert await status(app, "/bills/1") == 200
    await set_maintenance_mode(True, name="billing")
    assert await status(app, "/bills/1") == 503
    assert counted("blocked") == {("billing", "mode", "/bills/{bill_id}"): 1}


@pytest.mark.usefixtures("nothing_marked")
async def test_requests_that_simply_pass_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the switch is off the metrics are not even asked, so they cost nothing."""
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware, backend=MemoryBackend())
    app.get("/")(lambda: None)
    monkeypatch.setattr(module, "count", None)
    assert await status(app, "/") == 200


async def test_modes_ages_and_stores_are_observed(tmp_path: Any) -> None:
    """Of each switch that this process knows, when somebody looks."""
    configure_backend("memory", name="search")
    broken = tmp_path / "broken"
    broken.mkdir()
    file = configure_backend(LocalFileBackend(broken, init_timeout=0.1), name="reports")
    configure_backend(LocalFileBackend(tmp_path / "unused"), name="unused")  # nobody asks it, so nothing is wrong
    app = app_with(backend=MemoryBackend(MaintenanceMode.READ_ONLY))
    await get(app, "/missing")
    await set_maintenance_mode(True, name="search")
    assert await get_maintenance_mode(name="reports") is False
    points = _points()

    def of(name: str) -> dict[str, float]:
        return {point.attributes["maintenance.switch"]: point.value for point in points[f"fastapi_maintenance.{name}"]}

    assert of("mode") == {"default": 1, "search": 2, "reports": 0, "unused": 0}
    assert of("store.healthy") == {"default": 1, "search": 1, "reports": 0, "unused": 1}
    assert of("state.age") == {"default": 0, "search": 0}
    assert isinstance(file, LocalFileBackend)
    await file.aclose()


async def test_a_blocked_request_is_told_to_the_span_that_it_is_in() -> None:
    app = app_with(backend=MemoryBackend(initial=True))
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("request") as current:
        await get(app, "/shop/items/1")
    span: Any = current
    told = {name: value for name, value in (span.attributes or {}).items() if name.startswith("maintenance")}
    assert told == {
        "maintenance.blocked": True,
        "maintenance.switch": "default",
        "maintenance.reason": "mode",
    }
    assert not trace.get_current_span().is_recording()


async def test_without_the_api_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    module._instruments.cache_clear()
    app = app_with(backend=MemoryBackend(initial=True))
    assert await status(app, "/shop/items/1") == 503
    assert module._instruments() is None
