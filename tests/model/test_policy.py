"""The decision: which rule wins, for everything that can be known of a request."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from fastapi_maintenance.model.decision import Decision, Facts, Mark, Rule
from fastapi_maintenance.model.modes import SAFE_METHODS, MaintenanceMode
from fastapi_maintenance.model.policy import PRECEDENCE, decide
from fastapi_maintenance.model.state import Hold, MaintenanceState

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)

# What runs, the mark, the exemption, the mode, and the method, against what is to come of it. `*` stands for
# anything. The rows exclude each other, so that no order of them can hide a mistake.
TRUTH = """
    nothing  *     *       *          *       | pass   nothing_runs
    code     on    *       *          *       | block  forced_on
    code     off   *       *          *       | pass   forced_off
    code     none  exempt  *          *       | pass   exempt
    code     none  none    off        *       | pass   mode
    code     none  none    on         *       | block  mode
    code     none  none    read_only  safe    | pass   mode
    code     none  none    read_only  unsafe  | block  mode
    code     none  none    read_only  socket  | block  mode
"""
ROWS = [(row.split("|")[0].split(), row.split("|")[1].split()) for row in TRUTH.strip().splitlines()]

METHODS = {
    "safe": ("GET", "HEAD", "OPTIONS", "TRACE"),
    "unsafe": ("POST", "PUT", "PATCH", "DELETE", "CONNECT", "QUERY", "get", "PURGE", ""),
    "socket": (None,),
}

KNOWN = (["nothing", "code"], ["none", "on", "off"], ["none", "exempt"], ["off", "on", "read_only"])
"""What runs, marks, exemptions, modes."""


def expected(*case: str) -> list[str]:
    """Return the outcome that the table has for a case; exactly one row has to say something."""
    outcomes = [
        outcome
        for conditions, outcome in ROWS
        if all(condition in ("*", value) for condition, value in zip(conditions, case, strict=True))
    ]
    assert len(outcomes) == 1, f"{len(outcomes)} rows for {case}"
    return outcomes[0]


def facts_of(run: str, mark: str, exemption: str, method: str | None) -> Facts:
    return Facts(
        runs=run == "code",
        mark=None if mark == "none" else Mark(mark),
        method=method,
        exemption=None if exemption == "none" else "path",
    )


@pytest.mark.parametrize(("kind", "method"), [(kind, method) for kind, known in METHODS.items() for method in known])
def test_the_first_rule_with_an_opinion_wins(kind: str, method: str | None) -> None:
    """For all facts and modes, each of them with each method, the decision is the one of the table."""
    for run, mark, exemption, mode in itertools.product(*KNOWN):
        decision = decide(facts_of(run, mark, exemption, method), MaintenanceState(mode=MaintenanceMode(mode)), NOW)
        outcome, rule = expected(run, mark, exemption, mode, kind)
        assert (decision.blocked, decision.rule) == (outcome == "block", Rule(rule)), (run, mark, exemption, mode)


def test_the_table_has_one_row_for_each_case() -> None:
    """The table itself is complete and free of contradictions."""
    for case in itertools.product(*KNOWN, METHODS):
        expected(*case)


def test_the_rules_are_asked_in_the_order_of_their_names() -> None:
    """The enumeration of rules documents the precedence, so it lists them in that order."""
    facts_and_rules = [
        (Facts(runs=False, mark=Mark.ON, method="GET", exemption="docs"), Rule.NOTHING_RUNS),
        (Facts(runs=True, mark=Mark.ON, method="GET", exemption="docs"), Rule.FORCED_ON),
        (Facts(runs=True, mark=Mark.OFF, method="GET", exemption="docs"), Rule.FORCED_OFF),
        (Facts(runs=True, mark=None, method="GET", exemption="docs"), Rule.EXEMPT),
        (Facts(runs=True, mark=None, method="GET"), Rule.MODE),
    ]
    on = MaintenanceState(mode=MaintenanceMode.ON)
    assert [decide(facts, on, NOW).rule for facts, _ in facts_and_rules] == list(Rule)
    assert [rule for _, rule in facts_and_rules] == list(Rule)


def test_the_last_rule_always_has_an_opinion() -> None:
    """Whatever the others leave undecided is decided by the mode."""
    nothing_known = Facts(runs=True, mark=None, method=None)
    assert [rule(nothing_known, MaintenanceMode.OFF) for rule in PRECEDENCE] == [
        *[None] * (len(PRECEDENCE) - 1),
        (False, Rule.MODE),
    ]


def test_safe_methods_are_those_of_the_rfc() -> None:
    """RFC 9110, section 9.2.1 names four."""
    assert frozenset(METHODS["safe"]) == SAFE_METHODS


@pytest.mark.parametrize("method", ["GET", "POST", None])
def test_an_exemption_does_not_open_an_endpoint_forced_on(method: str | None) -> None:
    """Whoever is exempt is still blocked there, even while the switch is off."""
    facts = Facts(runs=True, mark=Mark.ON, method=method, exemption="handler")
    assert decide(facts, MaintenanceState(), NOW).blocked


def test_a_blocking_decision_tells_reason_and_end() -> None:
    """What the operator said reaches whoever writes the answer."""
    until = NOW + timedelta(hours=1)
    state = MaintenanceState(mode=MaintenanceMode.READ_ONLY, reason="new disks", until=until)
    decision = decide(Facts(runs=True, mark=None, method="POST"), state, NOW, switch="billing")
    assert decision == Decision(
        blocked=True,
        rule=Rule.MODE,
        switch="billing",
        mode=MaintenanceMode.READ_ONLY,
        reason="new disks",
        until=until,
    )


def test_a_passing_decision_tells_the_exemption() -> None:
    """Who asks why a request passed gets the exemption's name, and no reason for a maintenance it never met."""
    state = MaintenanceState(mode=MaintenanceMode.ON, reason="new disks")
    decision = decide(Facts(runs=True, mark=None, method="GET", exemption="preflight"), state, NOW)
    assert decision == Decision(
        blocked=False,
        rule=Rule.EXEMPT,
        switch="default",
        mode=MaintenanceMode.ON,
        exemption="preflight",
    )


@pytest.mark.parametrize(
    ("override", "stored", "blocked"),
    [(True, "off", True), (True, "read_only", True), (False, "on", False), (None, "on", True), (None, "off", False)],
)
def test_enable_maintenance_stands_in_for_the_stored_mode(override: bool | None, stored: str, blocked: bool) -> None:
    """True and False replace what is stored, None leaves it."""
    state = MaintenanceState(mode=MaintenanceMode(stored))
    decision = decide(Facts(runs=True, mark=None, method="GET"), state, NOW, override=override)
    assert decision.blocked is blocked


@pytest.mark.parametrize(("kind", "override", "blocked"), [("on", False, True), ("off", True, False)])
def test_holds_stand_above_enable_maintenance(kind: str, override: bool, blocked: bool) -> None:
    """What running code holds counts more than what the app was built with."""
    state = MaintenanceState(holds={"a": Hold.model_validate({"kind": kind})})
    decision = decide(Facts(runs=True, mark=None, method="GET"), state, NOW, override=override)
    assert decision.blocked is blocked


def test_maintenance_that_is_over_blocks_no_more() -> None:
    """At its end, to the microsecond, requests pass."""
    state = MaintenanceState(mode=MaintenanceMode.ON, until=NOW)
    facts = Facts(runs=True, mark=None, method="GET")
    assert decide(facts, state, NOW - timedelta(microseconds=1)).blocked
    assert not decide(facts, state, NOW).blocked


def test_an_endpoint_forced_on_promises_no_end() -> None:
    """It stays closed when the switch opens, so the switch's end is not told to its clients."""
    state = MaintenanceState(mode=MaintenanceMode.ON, until=NOW + timedelta(minutes=5))
    assert decide(Facts(runs=True, mark=Mark.ON, method="GET"), state, NOW).until is None


def test_enable_maintenance_promises_no_end() -> None:
    """An app that was built closed stays so when the stored maintenance ends, so its clients are told no end."""
    state = MaintenanceState(mode=MaintenanceMode.ON, until=NOW + timedelta(minutes=5))
    decision = decide(Facts(runs=True, mark=None, method="GET"), state, NOW, override=True)
    assert decision.blocked
    assert decision.until is None
