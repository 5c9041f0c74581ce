"""Changes of a state, and how they are applied, for all stores."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from ..exceptions import HoldLost, InvalidConfiguration, SwitchIsHeld, UnknownWindow, VersionConflict
from .limits import MAX_BYTES, MAX_HOLDS, MAX_OWNER, MAX_VERSION, ROOM_FOR_HOLD, ROOM_FOR_MODE, check_size
from .modes import MaintenanceMode
from .state import Hold, MaintenanceState, RecentChange
from .text import check_text, in_one_line
from .windows.window import MAX_WINDOWS, Window

_MOST_RECENT_CHANGES = 32
"""How many changes a document remembers, so that no retry applies a change twice."""
_EXPIRED_HOLDS_KEPT_FOR = timedelta(hours=1)
"""How long an expired hold stays in the document: code that resumes after a long sleep sees that its hold expired,
and was not broken by an operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """An atomic write to the store: fields to set, holds and windows to put and drop."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    put_holds: Mapping[str, Hold] = field(default_factory=dict)
    ttl: timedelta | None = None
    """How long the put holds live from now, by the store's clock; ``None``: keep their own ``expires_at``."""
    drop_holds: frozenset[str] = frozenset()
    break_holds: bool | None = None
    """``True``: drop all holds; ``False``: refuse while an on-hold is alive; ``None``: do neither."""
    put_windows: Mapping[str, Window] = field(default_factory=dict)
    drop_windows: frozenset[str] = frozenset()
    ends_windows_at: datetime | None = None
    """End the occurrences that are active at this time, by the caller's clock: windows never use a store's clock."""
    expected_version: int | None = None
    """Refuse unless the state is at this version."""
    required_holds: frozenset[str] = frozenset()
    """Refuse unless these holds exist; a renewal is also refused if one of them has expired."""
    required_windows: frozenset[str] = frozenset()
    """Refuse unless these windows exist."""
    is_renewal: bool = False
    """Only extends holds: no new version, and no event."""
    forgets: bool = False
    """Forget the switch: reset the document to "off", without holds, windows and reason."""
    by: str | None = None
    """The author of the change, to show to operators."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Makes a retry harmless: a store applies each id once."""

    def __post_init__(self) -> None:
        """Shorten ``by``, which is for people only."""
        if self.by is not None:
            check_text(self.by, "by")
            object.__setattr__(self, "by", self.by[:MAX_OWNER])

    def applied_to(self, state: MaintenanceState, now: datetime) -> MaintenanceState:
        """Return ``state`` after this change.

        Raises:
            VersionConflict, HoldLost, UnknownWindow, SwitchIsHeld: The state does not meet a requirement.
            InvalidConfiguration: The state would have too many windows or holds.
        """
        self._check_requirements(state, now)
        if self.forgets:
            state = MaintenanceState(epoch=state.epoch, version=state.version, recent_changes=state.recent_changes)
        update: dict[str, Any] = {"holds": self._holds_after(state, now), "windows": self._windows_after(state)}
        if not self.is_renewal:
            made = RecentChange(id=self.id, by=self.by, at=now, what=self.summary)
            update |= self.fields
            if update.get("since") is not None:
                update["since"] = self._since(state, update["since"], now)
            update |= {
                "epoch": state.epoch if state.epoch and state.version < MAX_VERSION else self.id,
                "version": state.version + 1 if state.version < MAX_VERSION else 1,
                "updated_by": self.by,
                "updated_at": now,
                "recent_changes": (*state.recent_changes, made)[-_MOST_RECENT_CHANGES:],
                "restored": False,
                "forgotten": self.forgets,
            }
        after = state.model_copy(update=update).without_unreadable(self.drop_windows)
        windows = len(after.windows) + len(after.unreadable_windows)
        if windows > MAX_WINDOWS and _has_more(after.windows, state.windows):
            raise InvalidConfiguration(
                f"{MAX_WINDOWS} windows are planned already, nothing was changed: cancel one first, "
                "or let one window recur (rrule)"
            )
        if len(after.holds) > MAX_HOLDS and _has_more(after.holds, state.holds):
            raise InvalidConfiguration(f"{MAX_HOLDS} blocks hold the switch already, nothing was changed")
        return after

    def _check_requirements(self, state: MaintenanceState, now: datetime) -> None:
        """Raise the ``ChangeRejected`` for the first requirement that the state does not meet."""
        if self.expected_version is not None and self.expected_version != state.version:
            raise VersionConflict(self.expected_version, state.version)
        lost = self.required_holds - state.holds.keys()
        if lost:
            raise HoldLost(sorted(lost))
        living = state.holds_at(now)
        expired = self.required_holds - living.keys()
        if expired and self.is_renewal:
            raise HoldLost(sorted(expired), expired=True)
        known = state.windows.keys() | state.unreadable_windows.keys()
        unknown = self.required_windows - known
        if unknown:
            raise UnknownWindow(sorted(unknown), sorted(known))
        owners = sorted(in_one_line(hold.owner) for hold in living.values() if hold.kind == "on")
        if owners and self.break_holds is False:
            raise SwitchIsHeld(owners)

    def _holds_after(self, state: MaintenanceState, now: datetime) -> dict[str, Hold]:
        holds = {} if self.break_holds else state.holds_at(now - _EXPIRED_HOLDS_KEPT_FOR)
        kept = {id_: hold for id_, hold in holds.items() if id_ not in self.drop_holds}
        expiry = {} if self.ttl is None else {"expires_at": now + self.ttl}
        return {**kept, **{id_: _replace(kept.get(id_), hold, **expiry) for id_, hold in self.put_holds.items()}}

    def _since(self, state: MaintenanceState, since: datetime, now: datetime) -> datetime | None:
        """Return when the maintenance began that this change continues or starts."""
        if state.stored_mode_at(now) is not MaintenanceMode.OFF:
            return state.since  # to correct a maintenance does not change when it began
        active = state.timetable.all_at(since) if state.windows else ()
        return min((occurrence.start for occurrence in active), default=since)

    @property
    def summary(self) -> str:
        """The change in a few words, to show to operators."""
        parts = {
            "forgotten": self.forgets,
            str(self.fields.get("mode", "")): "mode" in self.fields,
            "holds broken": bool(self.break_holds),
            "held": bool(self.put_holds),
            "hold dropped": bool(self.drop_holds),
            "window planned": bool(self.put_windows),
            "window cancelled": bool(self.required_windows),
        }
        return ", ".join(part for part, applies in parts.items() if applies)

    def _windows_after(self, state: MaintenanceState) -> dict[str, Window]:
        ended = {}
        if self.ends_windows_at is not None:
            # Store the start of the occurrence, not the caller's time: a clock that is ahead would end later ones too.
            ended = {active.window.id: active.start for active in state.timetable.all_at(self.ends_windows_at)}
        if not (self.put_windows or self.drop_windows or ended):
            return state.windows
        kept = {id_: window for id_, window in state.windows.items() if id_ not in self.drop_windows}
        windows = {id_: _end_occurrences(window, ended.get(id_)) for id_, window in kept.items()}
        return {**windows, **{id_: _replace(windows.get(id_), window) for id_, window in self.put_windows.items()}}


def to_document(after: MaintenanceState, before: MaintenanceState) -> bytes:
    """Return the document to store after a change.

    Raises:
        InvalidConfiguration: It is too large, or new windows or holds leave too little room for a mode.
    """
    content = after.serialize()
    has_more_windows = _has_more(after.windows, before.windows)
    if has_more_windows or _has_more(after.holds, before.holds):
        of_mode = after.model_dump_json(include=_FIELDS_OF_MODE, exclude_defaults=True).encode()
        check_size(len(content) - len(of_mode), MAX_BYTES - ROOM_FOR_MODE - (ROOM_FOR_HOLD if has_more_windows else 0))
    check_size(len(content))
    return content


_FIELDS_OF_MODE = {"reason", "since", "until", "retry_after", "updated_by", "recent_changes"}
"""The fields for which ``to_document`` reserves space."""


def _has_more(after: Mapping[str, object], before: Mapping[str, object]) -> bool:
    return not after.keys() <= before.keys()


_T = TypeVar("_T", Hold, Window)


def _replace(former: _T | None, new: _T, **update: Any) -> _T:
    """Return ``new``, with the members of ``former`` that only newer versions know."""
    kept = {} if former is None else former.model_extra or {}
    return new.model_copy(update={**kept, **(new.model_extra or {}), **update}) if kept or update else new


def _end_occurrences(window: Window, start: datetime | None) -> Window:
    """Return a window with all occurrences that began up to ``start`` ended."""
    if start is None or (window.ended is not None and window.ended >= start):
        return window
    return window.model_copy(update={"ended": start})


def set_mode(
    mode: MaintenanceMode,
    *,
    now: datetime,
    reason: str | None = None,
    until: datetime | None = None,
    retry_after: int | None = None,
    by: str | None = None,
    break_holds: bool | None = None,
    expected_version: int | None = None,
) -> Change:
    """Return the change that stores ``mode`` and replaces reason, end and retry_after.

    A maintenance that is already active keeps its ``since``. Mode "off" also ends the active occurrences of windows,
    so that the service opens. With ``break_holds=False``, only "off" is refused while code holds the switch on.
    """
    is_off = mode is MaintenanceMode.OFF
    return Change(
        fields={
            "mode": mode,
            "reason": reason,
            "since": None if is_off else now,
            "until": until,
            "retry_after": retry_after,
        },
        ends_windows_at=now if is_off else None,
        break_holds=break_holds if is_off or break_holds else None,
        by=by,
        expected_version=expected_version,
    )
