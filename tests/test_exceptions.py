"""The errors: their tree, and the facts that they carry."""

from __future__ import annotations

import inspect
import re

import fastapi
import pytest
from fastapi import HTTPException, WebSocketException

from fastapi_maintenance import exceptions
from fastapi_maintenance.exceptions import (
    AmbiguousSwitch,
    InvalidConfiguration,
    InvalidSwitchName,
    MaintenanceActive,
    MaintenanceError,
    ReadOnlyBackend,
    UnknownBackend,
    UnsupportedByBackend,
    UnsupportedFastAPI,
    WebSocketMaintenanceActive,
)
from fastapi_maintenance.policy import Decision, Rule
from fastapi_maintenance.state import MaintenanceMode

DECISION = Decision(blocked=True, rule=Rule.MODE, switch="default", mode=MaintenanceMode.ON)


def test_the_tree_is_the_one_that_is_drawn() -> None:
    """At the top of the module, with what else each error is."""
    drawn = {}
    for name, also in re.findall(r"[├└]── (\w+) +(?:\(also (\w+)\))?", exceptions.__doc__ or ""):
        drawn[name] = {MaintenanceError.__name__, also} - {""}
    own = {
        name: {base.__name__ for base in value.__bases__}
        for name, value in vars(exceptions).items()
        if inspect.isclass(value) and issubclass(value, MaintenanceError) and value is not MaintenanceError
    }
    assert drawn == own


@pytest.mark.parametrize(
    ("error", "facts", "told"),
    [
        (InvalidSwitchName("A"), {"name": "A"}, "'A': accepted are lower-case letters"),
        (UnknownBackend("x", ["env", "memory"]), {"kind": "x", "known": ("env", "memory")}, "'x'; known: env, memory"),
        (AmbiguousSwitch(3), {"count": 3}, "3 apps in this process"),
        (ReadOnlyBackend("the store", "wait"), {"where": "the store"}, "the store can't be set from here"),
        (UnsupportedByBackend("B()", "a reason"), {"backend": "B()", "what": "a reason"}, "B() stores a plain on/off"),
        (UnsupportedFastAPI("it is new"), {"problem": "it is new"}, f"FastAPI {fastapi.__version__}: it is new."),
        (InvalidConfiguration("x=1: no"), {}, "x=1: no"),
    ],
)
def test_errors_carry_their_facts(error: MaintenanceError, facts: dict[str, object], told: str) -> None:
    """As attributes and in the message."""
    assert {name: getattr(error, name) for name in facts} == facts
    assert told in str(error)


def test_a_refusal_is_an_http_exception() -> None:
    """With all that FastAPI's stock handler needs."""
    error = MaintenanceActive(DECISION, detail="closed", headers={"Retry-After": "5"}, terms=None)
    assert isinstance(error, HTTPException)
    assert (error.status_code, error.detail, error.headers) == (503, "closed", {"Retry-After": "5"})
    assert error.decision is DECISION


def test_a_refusal_of_a_websocket_is_both() -> None:
    """Whoever handles either gets it; the handler of websockets is chosen first."""
    error = WebSocketMaintenanceActive(DECISION, detail="closed", headers={}, terms=None)
    assert isinstance(error, MaintenanceActive)
    assert isinstance(error, WebSocketException)
    assert (error.code, error.reason, error.decision) == (1013, "closed", DECISION)
    order = type(error).__mro__
    assert order.index(WebSocketException) < order.index(HTTPException)
