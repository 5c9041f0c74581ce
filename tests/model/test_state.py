"""The state of one switch: which mode counts, what is told, and what a change makes of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fastapi_maintenance.exceptions import (
    ChangeRejected,
    CorruptState,
    HoldLost,
    InvalidConfiguration,
    SwitchIsHeld,
    VersionConflict,
)
from fastapi_maintenance.model.change import Change, set_mode
from fastapi_maintenance.model.limits import MAX_BYTES, check_size
from fastapi_maintenance.model.modes import MaintenanceMode, as_mode, parse_mode
from fastapi_maintenance.model.state import Hold, MaintenanceState, RecentChange
from fastapi_maintenance.model.windows.window import Window
from fastapi_maintenance.stores.files.content import is_plain

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
ON, OFF, READ_ONLY = MaintenanceMode.ON, MaintenanceMode.OFF, MaintenanceMode.READ_ONLY

IDS = ("a", "b", "c", "d")
ends = st.none() | st.integers(-2, 2).map(lambda hours: NOW + timedelta(hours=hours))
holds = st.dictionaries(
    st.sampled_from(IDS),
    st.builds(
        Hold,
        kind=st.sampled_from(["on", "off"]),
        reason=st.none() | st.just("because"),
        expires_at=ends,
        masks=st.frozensets(st.sampled_from(IDS)),
    ),
)
states = st.builds(
    MaintenanceState,
    version=st.integers(0, 9),
    mode=st.sampled_from(MaintenanceMode),
    reason=st.none() | st.just("new disks"),
    until=ends,
    holds=holds,
)


@given(states, st.sampled_from([None, True, False]))
def test_the_mode_that_counts_is_that_of_the_formula(state: MaintenanceState, override: bool | None) -> None:
    """An on-hold that is not masked, or else the stored mode while no off-hold opens it."""
    live = {id_: hold for id_, hold in state.holds.items() if hold.expires_at is None or hold.expires_at > NOW}
    closing = {id_ for id_, hold in live.items() if hold.kind == "on"}
    opening = {id_: hold for id_, hold in live.items() if hold.kind == "off"}
    for hold in opening.values():
        closing -= hold.masks
    is_over = state.until is not None and state.until <= NOW
    stored = OFF if is_over else state.mode
    if override is not None:
        stored = {True: ON, False: OFF}[override]
    expected = ON if closing else OFF if opening else stored
    assert state.without_expired_holds(NOW).mode_at(NOW, override=override) is expected


@given(states)
def test_an_off_hold_without_masks_never_opens_what_other_code_closed(state: MaintenanceState) -> None:
    """Nobody opens another's migration."""
    closed = Change(put_holds={"migration": Hold(kind="on")}).applied_to(state, NOW)
    both = Change(put_holds={"other": Hold(kind="off")}).applied_to(closed, NOW)
    assert both.mode_at(NOW) is ON


@given(states)
def test_an_off_hold_opens_the_on_hold_that_encloses_it(state: MaintenanceState) -> None:
    """Inner code can open what its own caller closed: what is left is decided by the others' holds."""
    masking = Hold(kind="off", masks=frozenset({"outer"}))
    nested = Change(put_holds={"outer": Hold(kind="on"), "inner": masking}).applied_to(state, NOW)
    without_outer = Change(drop_holds=frozenset({"outer"})).applied_to(nested, NOW)
    assert nested.mode_at(NOW) is without_outer.mode_at(NOW)


@given(states, st.permutations(IDS))
def test_holds_can_be_dropped_in_any_order(state: MaintenanceState, order: list[str]) -> None:
    """After the last one has gone, the stored mode counts again."""
    stored = state.model_copy(update={"holds": {}})
    for id_ in order:
        state = Change(drop_holds=frozenset({id_})).applied_to(state, NOW)
    assert not state.holds
    assert state.mode_at(NOW) is stored.mode_at(NOW)


@given(states)
def test_each_change_makes_the_next_version_and_leaves_the_former_alone(state: MaintenanceState) -> None:
    """States are immutable; a reader that has one keeps it."""
    before = state.model_dump()
    after = set_mode(ON, now=NOW).applied_to(state, NOW)
    assert after.version == state.version + 1
    assert state.model_dump() == before
    assert after.holds_at(NOW) == state.holds_at(NOW)


def test_dropping_and_putting_go_together() -> None:
    """One change can replace one hold by another."""
    state = MaintenanceState(holds={"a": Hold(kind="on"), "b": Hold(kind="on")})
    change = Change(put_holds={"c": Hold(kind="off")}, drop_holds=frozenset({"a", "unknown"}))
    assert list(change.applied_to(state, NOW).holds) == ["b", "c"]


def test_turning_on_notes_when_it_began() -> None:
    """``since`` is the time of the change, given by the caller."""
    until = NOW + timedelta(hours=1)
    state = set_mode(READ_ONLY, now=NOW, reason="new disks", until=until).applied_to(MaintenanceState(), NOW)
    assert (state.mode, state.reason, state.since, state.until) == (READ_ONLY, "new disks", NOW, until)


def test_turning_off_forgets_reason_beginning_and_end() -> None:
    """What belonged to the former maintenance is not told of the next one."""
    state = MaintenanceState(mode=ON, reason="new disks", since=NOW, until=NOW + timedelta(hours=1))
    change = set_mode(OFF, now=NOW, by="an operator")
    after = change.applied_to(state, NOW)
    made = RecentChange(id=change.id, by="an operator", at=NOW, what="off")
    assert after == MaintenanceState(
        epoch=change.id, version=1, updated_by="an operator", updated_at=NOW, recent_changes=(made,)
    )


def test_a_running_hold_has_its_own_reason_and_no_end() -> None:
    """Nobody knows when the code will be through, whatever end the operator stored."""
    hold = Hold(kind="on", reason="migrating")
    state = MaintenanceState(mode=ON, reason="new disks", until=NOW + timedelta(hours=1), holds={"a": hold})
    assert state.explanation_at(NOW)[:2] == ("migrating", None)


def test_a_hold_without_a_reason_tells_the_stored_one() -> None:
    """Some reason is better than none."""
    state = MaintenanceState(reason="new disks", holds={"a": Hold(kind="off"), "b": Hold(kind="on")})
    assert state.explanation_at(NOW)[:2] == ("new disks", None)


def test_the_reason_told_is_that_of_a_hold_that_closes() -> None:
    """A hold that is masked closes nothing, so its reason explains nothing."""
    state = MaintenanceState(
        holds={
            "outer": Hold(kind="on", reason="masked"),
            "inner": Hold(kind="off", masks=frozenset({"outer"})),
            "other": Hold(kind="on", reason="migrating"),
        }
    )
    assert state.explanation_at(NOW)[:2] == ("migrating", None)


def test_what_is_over_is_not_told() -> None:
    """Neither the reason nor the end of a maintenance that has ended."""
    state = MaintenanceState(mode=ON, reason="new disks", until=NOW)
    assert state.explanation_at(NOW)[:2] == (None, None)
    assert state.explanation_at(NOW - timedelta(seconds=1))[:2] == ("new disks", NOW)


def test_what_ends_now_is_over_and_what_comes_next_is_known() -> None:
    hour = timedelta(hours=1)
    state = MaintenanceState(mode=ON, until=NOW, holds={"a": Hold(kind="on", expires_at=NOW + hour)})
    assert [state.same_until(moment) for moment in (NOW - hour, NOW, NOW + hour)] == [NOW, None, None]
    assert state.next_change_at(NOW - hour) is None, "it is held"
    assert state.next_change_at(NOW + hour) is None, "nothing is left"


# Expiry of holds


def test_a_hold_that_was_not_renewed_counts_no_more() -> None:
    """For whoever reads it from the moment on at which it expires; a state that was read before stays as it is."""
    second = timedelta(seconds=1)
    state = MaintenanceState(
        mode=OFF, reason="stored", holds={"a": Hold(kind="on", reason="migrating", expires_at=NOW + second)}
    )
    read = [state.without_expired_holds(NOW + number * second) for number in (0, 1, 2)]
    assert [one.mode_at(NOW + 2 * second) for one in read] == [ON, OFF, OFF]
    assert [one.explanation_at(NOW + 2 * second)[0] for one in read] == ["migrating", "stored", "stored"]
    assert read[0] is state
    assert list(state.holds_at(NOW)) == ["a"]
    assert state.holds_at(NOW + second) == {}


def test_a_mask_expires_with_its_hold() -> None:
    """What the inner block opened is closed again while the outer one goes on."""
    inner = Hold(kind="off", expires_at=NOW, masks=frozenset({"outer"}))
    state = MaintenanceState(holds={"outer": Hold(kind="on"), "inner": inner})
    assert state.without_expired_holds(NOW - timedelta(seconds=1)).mode_at(NOW) is OFF
    assert state.without_expired_holds(NOW).mode_at(NOW) is ON


@given(states)
def test_any_change_drops_the_holds_that_expired_an_hour_ago(state: MaintenanceState) -> None:
    """So a document does not grow with what died, and the owner of a hold finds it expired."""
    for change in (set_mode(ON, now=NOW), Change(is_renewal=True), Change(drop_holds=frozenset({"x"}))):
        assert change.applied_to(state, NOW).holds == state.holds_at(NOW - timedelta(hours=1))


def test_a_renewal_prolongs_and_says_nothing_else() -> None:
    """Neither the version nor who changed the state and when."""
    hold, later = Hold(kind="on", expires_at=NOW), NOW + timedelta(minutes=1)
    state = MaintenanceState(epoch="e", version=7, updated_by="somebody", updated_at=NOW, holds={"a": hold})
    renewed = hold.model_copy(update={"expires_at": later})
    change = Change(put_holds={"a": renewed}, required_holds=frozenset({"a"}), is_renewal=True, by="me")
    assert change.applied_to(state, NOW - timedelta(seconds=1)) == state.model_copy(update={"holds": {"a": renewed}})


# Refusals


def held(**holds: Hold) -> MaintenanceState:
    return MaintenanceState(epoch="e", version=3, holds=holds)


def test_a_change_of_another_version_is_refused() -> None:
    """Somebody else was first; the error has both versions."""
    change = Change(fields={"mode": ON}, expected_version=2)
    with pytest.raises(VersionConflict) as error:
        change.applied_to(held(), NOW)
    assert (error.value.expected, error.value.actual) == (2, 3)
    assert Change(fields={"mode": ON}, expected_version=3).applied_to(held(), NOW).version == 4
    assert Change(fields={"mode": ON}, expected_version=0).applied_to(MaintenanceState(), NOW).version == 1


def test_a_change_that_needs_holds_is_refused_without_them() -> None:
    """The error names those that are gone; one that has expired is there for another hour."""
    state = held(live=Hold(kind="on"), dead=Hold(kind="on", expires_at=NOW))
    change = Change(required_holds=frozenset({"live", "dead", "unknown", "other"}))
    with pytest.raises(HoldLost) as error:
        change.applied_to(state, NOW)
    assert (error.value.ids, error.value.expired) == (("other", "unknown"), False)
    required = Change(required_holds=frozenset({"live", "dead"}))
    assert set(required.applied_to(state, NOW).holds) == {"live", "dead"}
    after = required.applied_to(state, NOW + timedelta(hours=1))
    assert (after.version, set(after.holds)) == (4, {"live"})
    with pytest.raises(HoldLost, match="hold dead is gone"):
        Change(required_holds=frozenset({"dead"})).applied_to(after, NOW)


def test_a_store_says_when_what_it_puts_expires() -> None:
    """By its own clock, whatever time it is elsewhere."""
    hold = Hold(kind="on", owner="me", expires_at=NOW)
    minute = timedelta(seconds=60)
    taken = Change(put_holds={"a": hold}, ttl=minute).applied_to(MaintenanceState(), NOW)
    assert taken.holds["a"] == hold.model_copy(update={"expires_at": NOW + minute})
    renewal = Change(put_holds={"a": hold}, required_holds=frozenset({"a"}), ttl=minute, is_renewal=True)
    later = NOW + minute / 2
    renewed = renewal.applied_to(taken, later)
    assert renewed.holds["a"].expires_at == later + minute
    assert (renewed.version, renewed.updated_at) == (taken.version, taken.updated_at)
    assert Change(put_holds={"b": hold}).applied_to(taken, NOW).holds["b"] == hold
    with pytest.raises(HoldLost, match="hold a is gone: it expired") as error:
        renewal.applied_to(taken, NOW + minute)
    assert error.value.expired


def test_turning_off_can_be_refused_while_code_holds_the_switch_on() -> None:
    """The error names the owners; holds that open, and those that have expired, are no reason."""
    change = set_mode(OFF, now=NOW, break_holds=False)
    dead, opening = Hold(kind="on", owner="d", expires_at=NOW), Hold(kind="off", owner="o")
    with pytest.raises(SwitchIsHeld) as error:
        change.applied_to(held(b=Hold(kind="on", owner="b"), a=Hold(kind="on", owner="a"), d=dead, o=opening), NOW)
    assert error.value.owners == ("a", "b")
    assert change.applied_to(held(d=dead, o=opening), NOW).holds_at(NOW) == {"o": opening}
    for mode in (ON, READ_ONLY):
        assert set_mode(mode, now=NOW, break_holds=False).break_holds is None


def test_holds_can_be_broken() -> None:
    """All of them at once, and new ones may take their place."""
    state = held(a=Hold(kind="on"), b=Hold(kind="off"))
    assert Change(break_holds=True).applied_to(state, NOW).holds == {}
    own = Hold(kind="off")
    assert Change(break_holds=True, put_holds={"c": own}).applied_to(state, NOW).holds == {"c": own}


@given(states, st.integers(0, 9), st.frozensets(st.sampled_from(IDS)), st.booleans())
def test_a_change_is_made_as_a_whole_or_refused(
    state: MaintenanceState, version: int, required: frozenset[str], refuse: bool
) -> None:
    """What was required is so afterwards, or nothing was changed."""
    break_holds = False if refuse else None
    change = Change(fields={"mode": ON}, expected_version=version, required_holds=required, break_holds=break_holds)
    before = state.model_dump()
    live = state.holds_at(NOW)
    is_refused = (
        version != state.version
        or not required <= state.holds.keys()
        or (refuse and any(hold.kind == "on" for hold in live.values()))
    )
    try:
        after = change.applied_to(state, NOW)
    except ChangeRejected:
        assert is_refused
    else:
        assert not is_refused
        assert (after.mode, after.version) == (ON, version + 1)
    assert state.model_dump() == before


# The life of a document, and what it remembers


def test_the_first_change_begins_an_epoch() -> None:
    """By its own id, so that two documents never share one; the others keep it."""
    first, second = Change(fields={"mode": ON}), Change(fields={"mode": OFF})
    one = first.applied_to(MaintenanceState(), NOW)
    two = second.applied_to(one, NOW)
    assert (one.epoch, one.version) == (first.id, 1)
    assert (two.epoch, two.version) == (first.id, 2)


def test_changes_have_ids_of_their_own() -> None:
    """Unless a retry says that it is one."""
    assert Change().id != Change().id
    assert Change(id="x").id == "x"


def test_a_document_remembers_its_last_changes() -> None:
    """Which, who made them and when; enough for retries, and not without end."""
    state = MaintenanceState()
    for number in range(100):
        state = Change(fields={"mode": ON}, id=str(number), by="me").applied_to(state, NOW)
    assert [change.id for change in state.recent_changes] == [str(number) for number in range(68, 100)]
    assert state.recent_changes[-1] == RecentChange(id="99", by="me", at=NOW, what="on")
    assert [state.remembers(id_) for id_ in ("67", "68", "99", "100")] == [False, True, True, False]


def test_a_renewal_is_not_remembered() -> None:
    """It is idempotent, and there are many."""
    assert Change(is_renewal=True, id="x").applied_to(held(), NOW).recent_changes == ()


@pytest.mark.parametrize(
    ("epoch", "version", "remembers"),
    [("e", 40, True), ("e", 8, True), ("e", 7, False), ("e", 41, False), ("f", 40, False), ("", 8, True)],
)
def test_whether_every_change_since_is_remembered(epoch: str, version: int, remembers: bool) -> None:
    """Only then may a change that is not among them be made again."""
    changes = tuple(RecentChange(id=str(number), by=None, at=NOW, what="on") for number in range(32))
    state = MaintenanceState(epoch="e", version=40, recent_changes=changes)
    assert state.remembers_all_since(MaintenanceState(epoch=epoch, version=version)) is remembers


@pytest.mark.parametrize(
    ("change", "summary"),
    [
        (set_mode(READ_ONLY, now=NOW), "read_only"),
        (Change(put_holds={"a": Hold(kind="on")}), "held"),
        (Change(drop_holds=frozenset({"a"})), "hold dropped"),
        (set_mode(OFF, now=NOW, break_holds=True), "off, holds broken"),
        (Change(put_windows={"w": Window(id="w", start=NOW, end=NOW + timedelta(hours=1))}), "window planned"),
        (Change(required_windows=frozenset({"w"}), drop_windows=frozenset({"w"})), "window cancelled"),
        (Change(forgets=True), "forgotten"),
        (Change(), ""),
    ],
)
def test_a_change_has_a_summary(change: Change, summary: str) -> None:
    assert change.summary == summary


def test_a_switch_can_be_forgotten() -> None:
    """It is off and says nothing more, but goes on in its epoch, so that nobody takes the tombstone for a loss."""
    window = Window(id="w", start=NOW, end=NOW + timedelta(hours=1))
    state = MaintenanceState(epoch="e", version=7, mode=ON, reason="disks", windows={"w": window})
    after = Change(forgets=True, id="x").applied_to(state, NOW)
    assert (after.mode, after.reason, after.windows, after.holds) == (OFF, None, {}, {})
    assert (after.epoch, after.version, after.forgotten) == ("e", 8, True)
    assert set_mode(ON, now=NOW).applied_to(after, NOW).forgotten is False


@given(states)
def test_any_change_clears_the_mark_of_a_document_that_was_put_back(state: MaintenanceState) -> None:
    """Then it is somebody's word again. A renewal is not."""
    restored = state.model_copy(update={"restored": True})
    assert Change().applied_to(restored, NOW).restored is False
    assert Change(is_renewal=True).applied_to(restored, NOW).restored is True


# As it is stored

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
moments = st.datetimes(
    datetime(1800, 1, 1),  # noqa: DTZ001 - the strategy adds the timezone
    datetime(9000, 1, 1),  # noqa: DTZ001
    timezones=st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
milliseconds = moments.map(lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000))
any_states = st.builds(
    MaintenanceState,
    epoch=texts,
    version=st.integers(0, 2**53 - 1),
    mode=st.sampled_from(MaintenanceMode),
    reason=st.none() | texts,
    since=st.none() | moments,
    until=st.none() | moments,
    holds=st.dictionaries(
        texts,
        st.builds(
            Hold,
            kind=st.sampled_from(["on", "off"]),
            owner=texts,
            reason=st.none() | texts,
            expires_at=st.none() | milliseconds,
            masks=st.frozensets(texts, max_size=3),
        ),
        max_size=3,
    ),
    windows=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
        st.builds(
            Window,
            id=st.just("w"),
            start=moments.filter(lambda moment: moment.year < 8990),
            end=st.just(datetime(9001, 1, 1, tzinfo=UTC)),
            mode=st.sampled_from(["on", "read_only"]),
            reason=st.none() | texts,
            ended=st.none() | moments,
        ),
        max_size=3,
    ).map(lambda windows: {id_: window.model_copy(update={"id": id_}) for id_, window in windows.items()}),
    updated_by=st.none() | texts,
    updated_at=st.none() | moments,
    recent_changes=st.lists(st.builds(RecentChange, id=texts, by=st.none() | texts), max_size=3).map(tuple),
)


@given(any_states)
def test_a_state_survives_its_own_json(state: MaintenanceState) -> None:
    """What is written is what is read, as bytes and as text."""
    raw = state.to_json()
    assert MaintenanceState.from_json(raw, where="here") == state
    assert MaintenanceState.from_json(raw.decode(), where="here") == state


@given(any_states)
def test_times_are_in_utc(state: MaintenanceState) -> None:
    """Python's own: freed at the end of a process, pydantic's timezone crashes it."""
    read = MaintenanceState.from_json(state.to_json(), where="here")
    for moment in (read.since, read.until, read.updated_at, *(hold.expires_at for hold in read.holds.values())):
        assert moment is None or moment.tzinfo is UTC
    assert (read.since, read.until) == (state.since, state.until)


def test_a_document_says_what_is_not_as_usual() -> None:
    """And always what it is: its schema, its version and its mode. A person can read it."""
    assert MaintenanceState().to_json() == b'{"schema":1,"epoch":"","version":0,"mode":"off"}'
    state = MaintenanceState(
        epoch="e",
        version=7,
        mode=READ_ONLY,
        reason="schöne neue Platten",
        until=NOW,
        holds={"a": Hold(kind="on", expires_at=NOW + timedelta(milliseconds=1, microseconds=999))},
    )
    assert json.loads(state.to_json()) == {
        "schema": 1,
        "epoch": "e",
        "version": 7,
        "mode": "read_only",
        "reason": "schöne neue Platten",
        "until": "2026-11-20T12:00:00Z",
        "holds": {"a": {"kind": "on", "expires_at": 1795176000001}},
    }
    assert "schöne" in state.to_json().decode()


def document(**fields: Any) -> str:
    return json.dumps({"schema": 1, "mode": "on", **fields})


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ("", "Invalid JSON"),
        ("{", "Invalid JSON"),
        (document()[:-1], "Invalid JSON"),
        (document() + "x", "Invalid JSON"),
        (b"\xff", "Invalid JSON"),
        (b"\x00" * 100, "Invalid JSON"),
        ('{"schema":1,"reason":"\\ud800"}', "Invalid JSON"),
        ("[" * 5000, "Invalid JSON"),
        ("null", "Input should be an object"),
        ("[]", "Input should be an object"),
        ('"on"', "Input should be an object"),
        ("{}", "its schema is missing"),
        ('{"mode":"on","version":3}', "its schema is missing"),
        (document(schema=2), "schema: Input should be 1"),
        (document(schema="1"), "schema: Input should be 1"),
        (document(version=2**53), "version: Input should be less than or equal to 9007199254740991"),
        (document(retry_after=10**9 + 1), "retry_after: Input should be less than or equal to 1000000000"),
        (document(mode="maybe"), "mode: Input should be 'off', 'read_only' or 'on'"),
        (document(mode="ON"), "mode: Input should be"),
        (document(mode=True), "mode: Input should be"),
        (document(version="1"), "version: Input should be a valid integer"),
        (document(version=1.5), "version: Input should be a valid integer"),
        (document(version=True), "version: Input should be a valid integer"),
        (document(version=-1), "version: Input should be greater than or equal to 0"),
        (document(version=None), "version: Input should be a valid integer"),
        (document(reason=1), "reason: Input should be a valid string"),
        (document(until="2026-01-01T00:00:00"), "until: Value error, until 2026-01-01 00:00:00 has no time zone"),
        (document(until="2026-01-01"), "until: Input should be a valid datetime"),
        (document(until=1795176000), "until: Input should be a valid datetime"),
        (document(until="0001-01-01T00:00:00+01:00"), "until: Value error, until must be within the years 1 to 9999"),
        (document(holds=[]), "holds: Input should be an object"),
        (document(holds={"a": {}}), "holds.a.kind: Field required"),
        (document(holds={"a": {"kind": "half"}}), "holds.a.kind: Input should be 'on' or 'off'"),
        (document(holds={"a\nERROR \u2066b\u202e\u200f": {"kind": 3}}), "holds.a ERROR b.kind: Input should be"),
        (document(holds={"a": {"kind": "on", "expires_at": 1.5}}), "holds.a.expires_at: Input should be a valid"),
        (document(holds={"a": {"kind": "on", "expires_at": True}}), "holds.a.expires_at: Input should be a valid"),
        (
            document(holds={"a": {"kind": "on", "expires_at": 10**30}}),
            "expires_at: Value error, milliseconds since 1970 must be",
        ),
        (document(holds={"a": {"kind": "on", "masks": "b"}}), "holds.a.masks: Input should be a valid array"),
        (document(recent_changes=[1]), "recent_changes.0: Input should be an object"),
    ],
)
def test_what_is_no_document_is_refused(raw: bytes | str, problem: str) -> None:
    """It is told where it was, and what is wrong with it; nothing is guessed."""
    with pytest.raises(CorruptState, match="here has no readable maintenance state: ") as error:
        MaintenanceState.from_json(raw, where="here")
    assert error.value.where == "here"
    assert problem in error.value.problem
    assert "\n" not in error.value.problem


def test_a_document_that_can_not_be_read_is_not_told_by_its_content() -> None:
    """Whatever was stored there may be secret."""
    with pytest.raises(CorruptState) as error:
        MaintenanceState.from_json(document(reason=["s3cr3t"]), where="here")
    assert "s3cr3t" not in str(error.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
fields = st.sampled_from([*MaintenanceState.model_fields, "schema"])
hold_fields = st.sampled_from(list(Hold.model_fields))
broken_holds = st.dictionaries(texts, st.dictionaries(hold_fields, json_values, max_size=3), max_size=2)


@given(
    st.binary()
    | texts
    | json_values.map(json.dumps)
    | st.dictionaries(fields, json_values).map(json.dumps)
    | broken_holds.map(lambda holds: document(holds=holds))
)
def test_whatever_is_stored_is_a_state_or_corrupt(raw: bytes | str) -> None:
    """Nothing makes it raise anything else."""
    try:
        state = MaintenanceState.from_json(raw, where="here")
    except CorruptState:
        return
    assert MaintenanceState.from_json(state.to_json(), where="here") == state


def test_a_document_has_a_largest_size() -> None:
    """In bytes, when it is written and when it is read."""
    room = MAX_BYTES - len(MaintenanceState(reason="x").to_json()) + 1
    largest = MaintenanceState(reason="x" * room)
    assert len(largest.to_json()) == MAX_BYTES
    assert MaintenanceState.from_json(largest.to_json(), where="here") == largest
    for reason in ("x" * (room + 1), "ü" * room):
        with pytest.raises(InvalidConfiguration, match=r"would have \d+ bytes, nothing was changed: .* shorten the r"):
            MaintenanceState(reason=reason).to_json()
    for raw in (document(reason="x" * MAX_BYTES), b" " * (MAX_BYTES + 1)):
        with pytest.raises(CorruptState, match="more than 65536 bytes"):
            MaintenanceState.from_json(raw, where="here")


def test_whoever_makes_a_document_can_ask_whether_it_may_be_stored() -> None:
    check_size(MAX_BYTES)
    with pytest.raises(InvalidConfiguration, match="65537 bytes"):
        check_size(MAX_BYTES + 1)


@pytest.mark.parametrize(
    ("state", "plain"),
    [
        (MaintenanceState(), True),
        (MaintenanceState(mode=ON, since=NOW, version=7, updated_by="me", updated_at=NOW), True),
        (MaintenanceState(mode=READ_ONLY), False),
        (MaintenanceState(mode=ON, reason="new disks"), False),
        (MaintenanceState(mode=ON, until=NOW), False),
        (MaintenanceState(holds={"a": Hold(kind="on", expires_at=NOW)}), False),
        (MaintenanceState.model_validate({"closures": {}}), False),
    ],
)
def test_a_state_is_plain_if_a_boolean_says_all(state: MaintenanceState, plain: bool) -> None:
    """When it began, and who was last, is for stores that have room for it."""
    assert is_plain(state) is plain


@pytest.mark.parametrize(
    "field",
    [{"mode": "maybe"}, {"until": datetime(2026, 1, 1)}, {"holds": {"a": {"kind": "half"}}}, {"version": -1}],  # noqa: DTZ001 - naive on purpose
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
    accepted = f"True, False or one of {', '.join(repr(mode.value) for mode in MaintenanceMode)}"
    assert str(error.value) == f"maintenance mode must be {accepted}, got {value!r}"


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
    with pytest.raises(ValueError, match="must be 1/on/true/yes, 0/off/false/no or read_only") as error:
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


def test_who_makes_a_change_is_named_shortly() -> None:
    assert Change(by="x" * 301).by == "x" * 300


def test_the_highest_version_is_followed_by_a_new_life() -> None:
    """Nobody who writes a high version keeps the others from changes."""
    last = MaintenanceState(epoch="e", version=2**53 - 1)
    after = set_mode(ON, now=NOW).applied_to(last, NOW)
    assert after.version == 1
    assert after.epoch != "e"
