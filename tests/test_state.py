"""The state of one switch: which mode counts, what is told, and what a change makes of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fastapi_maintenance.exceptions import InvalidConfiguration
from fastapi_maintenance.state import (
    Change,
    Hold,
    MaintenanceMode,
    MaintenanceState,
    as_mode,
    parse_mode,
    set_mode,
)

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
ON, OFF, READ_ONLY = MaintenanceMode.ON, MaintenanceMode.OFF, MaintenanceMode.READ_ONLY

IDS = ("a", "b", "c", "d")
holds = st.dictionaries(
    st.sampled_from(IDS),
    st.builds(
        Hold,
        kind=st.sampled_from(["on", "off"]),
        reason=st.none() | st.just("because"),
        masks=st.frozensets(st.sampled_from(IDS)),
    ),
)
ends = st.none() | st.integers(-2, 2).map(lambda hours: NOW + timedelta(hours=hours))
states = st.builds(
    MaintenanceState,
    version=st.integers(0, 9),
    mode=st.sampled_from(MaintenanceMode),
    reason=st.none() | st.just("new disks"),
    until=ends,
    holds=holds,
)


@given(states, st.sampled_from([None, True, False]))
def test_the_mode_that_counts_is_that_of_the_formula(state: MaintenanceState, instead: bool | None) -> None:
    """An on-hold that is not masked, or else the stored mode while no off-hold opens it."""
    closing = {id_ for id_, hold in state.holds.items() if hold.kind == "on"}
    opening = {id_: hold for id_, hold in state.holds.items() if hold.kind == "off"}
    for hold in opening.values():
        closing -= hold.masks
    is_over = state.until is not None and state.until <= NOW
    stored = OFF if is_over else state.mode
    if instead is not None:
        stored = {True: ON, False: OFF}[instead]
    expected = ON if closing else OFF if opening else stored
    assert state.mode_at(NOW, instead=instead) is expected


@given(states)
def test_an_off_hold_without_masks_never_opens_what_other_code_closed(state: MaintenanceState) -> None:
    """Nobody opens another's migration."""
    closed = Change(put_holds={"migration": Hold(kind="on")}).applied_to(state)
    both = Change(put_holds={"other": Hold(kind="off")}).applied_to(closed)
    assert both.mode_at(NOW) is ON


@given(states)
def test_an_off_hold_opens_the_on_hold_that_encloses_it(state: MaintenanceState) -> None:
    """Inner code can open what its own caller closed: what is left is decided by the others' holds."""
    masking = Hold(kind="off", masks=frozenset({"outer"}))
    nested = Change(put_holds={"outer": Hold(kind="on"), "inner": masking}).applied_to(state)
    without_outer = Change(drop_holds=frozenset({"outer"})).applied_to(nested)
    assert nested.mode_at(NOW) is without_outer.mode_at(NOW)


@given(states, st.permutations(IDS))
def test_holds_can_be_dropped_in_any_order(state: MaintenanceState, order: list[str]) -> None:
    """After the last one has gone, the stored mode counts again."""
    stored = state.model_copy(update={"holds": {}})
    for id_ in order:
        state = Change(drop_holds=frozenset({id_})).applied_to(state)
    assert not state.holds
    assert state.mode_at(NOW) is stored.mode_at(NOW)


@given(states)
def test_each_change_makes_the_next_version_and_leaves_the_former_alone(state: MaintenanceState) -> None:
    """States are immutable; a reader that has one keeps it."""
    before = state.model_dump()
    after = set_mode(ON, now=NOW).applied_to(state)
    assert after.version == state.version + 1
    assert state.model_dump() == before
    assert after.holds == state.holds


@given(states)
def test_a_state_survives_its_own_json(state: MaintenanceState) -> None:
    """What is written is what is read."""
    assert MaintenanceState.model_validate_json(state.model_dump_json()) == state


def test_dropping_and_putting_go_together() -> None:
    """One change can replace one hold by another."""
    state = MaintenanceState(holds={"a": Hold(kind="on"), "b": Hold(kind="on")})
    change = Change(put_holds={"c": Hold(kind="off")}, drop_holds=frozenset({"a", "unknown"}))
    assert list(change.applied_to(state).holds) == ["b", "c"]


def test_turning_on_notes_when_it_began() -> None:
    """``since`` is the time of the change, given by the caller."""
    until = NOW + timedelta(hours=1)
    state = set_mode(READ_ONLY, now=NOW, reason="new disks", until=until).applied_to(MaintenanceState())
    assert (state.mode, state.reason, state.since, state.until) == (READ_ONLY, "new disks", NOW, until)


def test_turning_off_forgets_reason_beginning_and_end() -> None:
    """What belonged to the former maintenance is not told of the next one."""
    state = MaintenanceState(mode=ON, reason="new disks", since=NOW, until=NOW + timedelta(hours=1))
    after = set_mode(OFF, now=NOW).applied_to(state)
    assert after == MaintenanceState(version=1)


def test_a_running_hold_has_its_own_reason_and_no_end() -> None:
    """Nobody knows when the code will be through, whatever end the operator stored."""
    hold = Hold(kind="on", reason="migrating")
    state = MaintenanceState(mode=ON, reason="new disks", until=NOW + timedelta(hours=1), holds={"a": hold})
    assert state.explanation_at(NOW) == ("migrating", None)


def test_a_hold_without_a_reason_tells_the_stored_one() -> None:
    """Some reason is better than none."""
    state = MaintenanceState(reason="new disks", holds={"a": Hold(kind="off"), "b": Hold(kind="on")})
    assert state.explanation_at(NOW) == ("new disks", None)


def test_the_reason_told_is_that_of_a_hold_that_closes() -> None:
    """A hold that is masked closes nothing, so its reason explains nothing."""
    state = MaintenanceState(
        holds={
            "outer": Hold(kind="on", reason="masked"),
            "inner": Hold(kind="off", masks=frozenset({"outer"})),
            "other": Hold(kind="on", reason="migrating"),
        }
    )
    assert state.explanation_at(NOW) == ("migrating", None)


def test_what_is_over_is_not_told() -> None:
    """Neither the reason nor the end of a maintenance that has ended."""
    state = MaintenanceState(mode=ON, reason="new disks", until=NOW)
    assert state.explanation_at(NOW) == (None, None)
    assert state.explanation_at(NOW - timedelta(seconds=1)) == ("new disks", NOW)


@pytest.mark.parametrize(
    "field",
    [{"mode": "maybe"}, {"until": datetime(2026, 1, 1)}, {"holds": {"a": {"kind": "half"}}}, {"unknown": 1}],  # noqa: DTZ001 - naive on purpose
)
def test_a_state_that_makes_no_sense_is_refused(field: dict[str, Any]) -> None:
    """Unknown modes, unknown fields and naive times can't get in."""
    with pytest.raises(ValidationError):
        MaintenanceState.model_validate(field)


def test_states_and_holds_are_frozen() -> None:
    """Requests read them without a lock."""
    state, hold = MaintenanceState(), Hold(kind="on")
    with pytest.raises(ValidationError, match="frozen"):
        state.mode = ON
    with pytest.raises(ValidationError, match="frozen"):
        hold.reason = "changed"


@pytest.mark.parametrize(
    ("value", "mode"),
    [
        (True, ON),
        (False, OFF),
        ("on", ON),
        ("off", OFF),
        ("read_only", READ_ONLY),
        *((mode, mode) for mode in MaintenanceMode),
    ],
)
def test_callers_mean_a_mode_by_a_bool_or_its_name(value: bool | str, mode: MaintenanceMode) -> None:
    """Bools, modes and their names are accepted."""
    assert as_mode(value) is mode


@pytest.mark.parametrize("value", ["maybe", "ON", "", 1, None, b"on", []])
def test_other_values_are_refused_by_name(value: Any) -> None:
    """The message has the value and all that is accepted."""
    with pytest.raises(InvalidConfiguration) as error:
        as_mode(value)
    assert str(error.value) == f"maintenance mode {value!r}: accepted are True, False, 'off', 'on', 'read_only'"


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        *((text, ON) for text in ("1", "on", "true", "yes", "y", "t", " TRUE\n", "On")),
        *((text, OFF) for text in ("0", "off", "false", "no", "n", "f", "\tFalse ")),
        *((text, READ_ONLY) for text in ("read_only", "READ_ONLY", "read-only", " Read-Only ")),
    ],
)
def test_humans_write_a_mode_as_pydantic_reads_booleans(text: str, mode: MaintenanceMode) -> None:
    """Upper case and blanks do not matter, and a dash is as good as an underscore."""
    assert parse_mode(text) is mode


@pytest.mark.parametrize("text", ["", "maybe", "2", "-1", "readonly", "read only", "o n", "1.0", "none"])
def test_a_text_that_is_no_mode_is_refused(text: str) -> None:
    """The message has the text as it was written and all that is accepted."""
    with pytest.raises(ValueError, match="accepted are 1/on/true/yes, 0/off/false/no, and read_only") as error:
        parse_mode(text)
    assert repr(text) in str(error.value)


@given(st.text())
def test_every_text_is_a_mode_or_a_value_error(text: str) -> None:
    """No text makes it raise anything else."""
    try:
        mode = parse_mode(text)
    except ValueError:
        return
    assert mode in MaintenanceMode
