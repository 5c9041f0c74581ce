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
    BackendUnavailable,
    ChangeRejected,
    CorruptState,
    DeadlinePassed,
    EmptiedStore,
    HoldLost,
    InvalidConfiguration,
    InvalidSwitchName,
    MaintenanceActive,
    MaintenanceError,
    MissingExtra,
    OutcomeUnknown,
    ReadOnlyBackend,
    SwitchIsHeld,
    UnknownBackend,
    UnknownWindow,
    UnsupportedByBackend,
    UnsupportedFastAPI,
    VersionConflict,
    WebSocketMaintenanceActive,
)
from fastapi_maintenance.model.decision import Decision, Rule
from fastapi_maintenance.model.modes import MaintenanceMode

DECISION = Decision(blocked=True, rule=Rule.MODE, switch="default", mode=MaintenanceMode.ON)


def test_the_tree_is_the_one_that_is_drawn() -> None:
    """At the top of the module, with what else each error is."""
    drawn = {}
    branch = [MaintenanceError.__name__]
    lines = re.findall(r"^ {4}([│ ]*)[├└]── (\w+) +(?:\(also (\w+)\))?", exceptions.__doc__ or "", re.MULTILINE)
    for indent, name, also in lines:
        depth = len(indent) // 4
        branch[depth + 1 :] = [name]
        drawn[name] = {branch[depth], also} - {""}
    own = {
        name: {base.__name__ for base in value.__bases__}
        for name, value in vars(exceptions).items()
        if inspect.isclass(value) and issubclass(value, MaintenanceError) and value is not MaintenanceError
    }
    assert drawn == own


@pytest.mark.parametrize(
    ("error", "facts", "told"),
    [
        (InvalidSwitchName("A"), {"name": "A"}, "'A': it must be lower-case letters"),
        (UnknownBackend("x", ["env", "memory"]), {"kind": "x", "known": ("env", "memory")}, "'x'; known: env, memory"),
        (AmbiguousSwitch(3), {"count": 3}, "3 apps in this process"),
        (ReadOnlyBackend("the store", "wait"), {"where": "the store"}, "the store can't be set from here"),
        (
            UnsupportedByBackend("B()", "a reason"),
            {"backend": "B()", "what": "a reason"},
            "in a file, Redis or an SQL database",
        ),
        (UnsupportedFastAPI("it is new"), {"problem": "it is new"}, f"FastAPI {fastapi.__version__}: it is new."),
        (VersionConflict(3, 4), {"expected": 3, "actual": 4}, "at version 4, not 3, nothing was changed"),
        (SwitchIsHeld(["a", "b"]), {"owners": ("a", "b")}, "held on by a, b, nothing was changed"),
        (HoldLost(["a", "b"]), {"ids": ("a", "b")}, "hold a, b is gone: it expired, or an operator broke it"),
        (UnknownWindow(["a"], ["b", "c"]), {"ids": ("a",), "known": ("b", "c")}, "changed; there is 'b', 'c'"),
        (DeadlinePassed(), {}, "too late, nothing was changed: try again"),
        (BackendUnavailable("B()", "no"), {"backend": "B()", "problem": "no"}, "B() is not available: no"),
        (OutcomeUnknown("B()", "no"), {"backend": "B()", "problem": "no"}, "B() did not say whether the change was"),
        (CorruptState("f", "no JSON"), {"where": "f", "problem": "no JSON"}, "f has no readable maintenance state"),
        (EmptiedStore("B()"), {"where": "B()"}, "B() had a state and has none now: set the mode again"),
        (MissingExtra("B", "redis"), {"extra": "redis"}, "B needs an extra: pip install 'fastapi-maintenance[redis]'"),
        (InvalidConfiguration("x=1: no"), {}, "x=1: no"),
    ],
)
def test_errors_carry_their_facts(error: MaintenanceError, facts: dict[str, object], told: str) -> None:
    """As attributes and in the message."""
    assert {name: getattr(error, name) for name in facts} == facts
    assert told in str(error)


@pytest.mark.parametrize(
    "error", [VersionConflict(3, 4), SwitchIsHeld(["a"]), HoldLost(["a"]), UnknownWindow(["a"], []), DeadlinePassed()]
)
def test_whoever_only_wants_to_know_that_a_change_was_refused_catches_one_error(error: MaintenanceError) -> None:
    """The store answered, so it is none of the errors of a store that does not."""
    assert isinstance(error, ChangeRejected)
    assert not isinstance(error, BackendUnavailable)


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
