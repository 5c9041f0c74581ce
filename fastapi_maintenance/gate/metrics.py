"""OpenTelemetry metrics and span attributes, if ``opentelemetry-api`` is installed.

Without an SDK the API does nothing. Requests that simply pass are not counted and cost nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ..model.decision import Decision, Rule
from ..model.modes import MaintenanceMode
from ..switches.registry import registry
from ..switches.views.lookup import view_of
from ..switches.views.view import Knowledge, View

_METER = "fastapi_maintenance"
_HEALTHY = (Knowledge.READY, Knowledge.NOT_READY)


class _Instruments(NamedTuple):
    blocked: Any
    exempted: Any
    current_span: Callable[[], Any]


@functools.cache
def _instruments() -> _Instruments | None:
    """Return the counters, or ``None`` if the API isn't installed; the first call registers the gauges."""
    try:
        from opentelemetry import metrics, trace  # noqa: PLC0415 - an optional dependency
    except ImportError:
        return None
    meter = metrics.get_meter(_METER)

    def gauge(name: str, unit: str, description: str, value: Callable[[View], float | None]) -> None:
        def observe(_: object) -> Iterable[metrics.Observation]:
            for switch, backend in registry.in_use():
                now = value(view_of(backend))
                if now is not None:
                    yield metrics.Observation(now, {"maintenance.switch": switch})

        meter.create_observable_gauge(f"{_METER}.{name}", [observe], unit, description)

    modes = ", ".join(f"{mode.strength} {mode}" for mode in MaintenanceMode)
    gauge("mode", "1", f"The effective mode: {modes}", lambda view: view.latest().mode_at(datetime.now(UTC)).strength)
    gauge("state.age", "s", "How long ago the store last answered", lambda view: view.status().age_seconds)
    gauge("store.healthy", "1", "Whether the store answers: 1 or 0", lambda view: view.status().knowledge in _HEALTHY)
    return _Instruments(
        meter.create_counter(f"{_METER}.requests.blocked", "{request}", "Requests that were refused"),
        meter.create_counter(
            f"{_METER}.requests.exempted",
            "{request}",
            "Requests that passed only by an exemption",
        ),
        trace.get_current_span,
    )


def register_gauges() -> None:
    """Register the gauges, once."""
    _instruments()


def count(decision: Decision, route: str | None) -> None:
    """Count a request that was blocked or exempt; ``route`` is the declared path."""
    if not decision.blocked and decision.rule is not Rule.EXEMPT:
        return
    instruments = _instruments()
    if instruments is None:
        return
    attributes = {
        "maintenance.switch": decision.switch,
        "maintenance.reason": decision.rule.value if decision.blocked else decision.exemption or "",
        "http.route": route or "",
    }
    (instruments.blocked if decision.blocked else instruments.exempted).add(1, attributes)
    if decision.blocked:
        span = instruments.current_span()
        if span.is_recording():
            span.set_attribute("maintenance.blocked", True)
            span.set_attribute("maintenance.switch", decision.switch)
            span.set_attribute("maintenance.reason", decision.rule.value)
