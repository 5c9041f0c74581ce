"""The state of one switch: its document, and its meaning at a time.

All functions are pure, ``now`` included.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    ValidationError,
    field_validator,
)
from pydantic_core import from_json, to_json

from ..exceptions import CorruptState
from .limits import MAX_BYTES, MAX_RETRY_AFTER, MAX_VERSION, check_size
from .modes import MaintenanceMode
from .moments import UNIX_EPOCH, Moment, from_milliseconds, to_milliseconds
from .text import in_one_line
from .windows.timetable import Occurrence, Outlook, Step, Timetable
from .windows.window import MAX_WINDOWS, Window

_LONGEST_PROBLEM = 300

_TIMETABLE = "_cached_timetable"
"""The key of the cached timetable in a state's ``__dict__``: not a field, so neither compared nor stored."""


Milliseconds = Annotated[
    Moment,
    BeforeValidator(from_milliseconds),
    PlainSerializer(to_milliseconds, return_type=int, when_used="json"),
]
"""A time by the clock of the store: in JSON, milliseconds since 1970."""


class Hold(BaseModel):
    """A temporary override by running code: it holds the switch on or off until it expires or is released."""

    # Members that only newer versions know are kept.
    model_config = ConfigDict(frozen=True, extra="allow")

    kind: Literal["on", "off"]
    owner: str = ""
    """The holder of the switch, to show to operators: host, process, function."""
    reason: str | None = None
    expires_at: Milliseconds | None = None
    """When it expires unless it is renewed; ``None``: never."""
    masks: frozenset[str] = frozenset()
    """Ids of the on-holds that an off-hold overrides: the enclosing blocks in its execution context."""


class RecentChange(BaseModel):
    """A change that the document remembers, for retries and to show to operators."""

    model_config = ConfigDict(frozen=True, extra="allow")

    id: str
    by: str | None = None
    at: Moment | None = None
    what: str = ""
    """A summary to show to operators."""


class UnreadableWindow(NamedTuple):
    """A stored window that is invalid in this process: it is kept, but does not apply."""

    stored: Any
    problem: str


class Explanation(NamedTuple):
    """The details of a maintenance for clients."""

    reason: str | None = None
    until: datetime | None = None
    """When it ends, if that is known."""
    retry_after: int | None = None
    """Seconds for ``Retry-After`` while the end is unknown; ``None``: use the value of the app's answer."""


_NOTHING_PLANNED = Outlook([Step(UNIX_EPOCH, MaintenanceMode.OFF)], None)


class MaintenanceState(BaseModel):
    """The state of one switch. It is immutable: a change makes a new state with the next ``version``.

    ``mode`` is the stored mode, as an operator set it; ``mode_at(now)`` is the effective mode.
    """

    # Members that only newer versions know are kept.
    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    schema_: Literal[1] = Field(default=1, validation_alias="schema", serialization_alias="schema")
    epoch: str = ""
    """Identifies the life of the document: another epoch means that the store was emptied in between."""
    version: int = Field(default=0, ge=0, le=MAX_VERSION)
    """Increases with each change within an epoch."""
    mode: MaintenanceMode = MaintenanceMode.OFF
    reason: str | None = None
    since: Moment | None = None
    """When the stored maintenance began; to store another blocking mode keeps it."""
    until: Moment | None = None
    retry_after: int | None = Field(default=None, ge=0, le=MAX_RETRY_AFTER)
    """Seconds for ``Retry-After`` while the end is unknown."""
    holds: dict[str, Hold] = Field(default_factory=dict)
    windows: dict[str, Window] = Field(default_factory=dict, max_length=MAX_WINDOWS)
    """The planned periods of maintenance, by their ids."""
    updated_by: str | None = None
    updated_at: Moment | None = None
    recent_changes: tuple[RecentChange, ...] = ()
    """The last changes without renewals of holds; the last one made this version."""
    restored: bool = False
    """Whether this document was restored to a store that had lost it, and was not changed since."""
    forgotten: bool = False
    """Whether the switch was forgotten and not set since."""
    _unreadable: dict[str, UnreadableWindow] = PrivateAttr(default_factory=dict)

    @field_validator("windows")
    @classmethod
    def _check_ids(cls, windows: dict[str, Window]) -> dict[str, Window]:
        for id_, window in windows.items():
            if id_ != window.id:
                msg = f"window {window.id!r} is stored as {id_!r}"
                raise ValueError(msg)
        return windows

    @property
    def unreadable_windows(self) -> Mapping[str, UnreadableWindow]:
        """The stored windows that are invalid in this process, by their ids."""
        return self._unreadable

    @property
    def timetable(self) -> Timetable:
        """The timetable of the windows, cached."""
        cached: tuple[dict[str, Window], Timetable] | None = self.__dict__.get(_TIMETABLE)
        if cached is None or cached[0] is not self.windows:  # a copy inherits the cache of its former windows
            cached = self.__dict__[_TIMETABLE] = self.windows, Timetable(self.windows.values())
        return cached[1]

    def prepare(self, now: datetime, former: MaintenanceState | None = None) -> None:
        """Fill the cache for ``now``, so that no request has to wait for it.

        A ``former`` state with the same windows shares its timetable.
        """
        if not self.windows:
            return
        if former is not None and former.windows == self.windows:
            self.__dict__[_TIMETABLE] = self.windows, former.timetable
        self.timetable.at(now)

    def mode_at(self, now: datetime, *, override: bool | None = None) -> MaintenanceMode:
        """Return the effective mode at ``now``.

        An on-hold that no off-hold masks wins; otherwise any off-hold opens; otherwise the stored mode, until its end,
        or an active window applies, whichever blocks more. ``override`` (an app's ``enable_maintenance``) takes
        precedence over the last two.
        """
        planned = self.timetable.at(now).mode if self.windows and override is None else MaintenanceMode.OFF
        return self._mode_at(now, planned, override)

    def _mode_at(self, now: datetime, planned: MaintenanceMode, override: bool | None = None) -> MaintenanceMode:
        """Return the effective mode at ``now``, where ``planned`` is the mode of the windows."""
        if self.holds:
            # Without an unmasked on-hold there is an off-hold: alone, or one that masks the others.
            return MaintenanceMode.ON if _unmasked_on_holds(self.holds) else MaintenanceMode.OFF
        if override is not None:
            return MaintenanceMode.ON if override else MaintenanceMode.OFF
        mode = self.stored_mode_at(now)
        return planned if planned.strength > mode.strength else mode

    def stored_mode_at(self, now: datetime) -> MaintenanceMode:
        """Return the stored mode, which is off after its end."""
        return MaintenanceMode.OFF if self.until is not None and now >= self.until else self.mode

    def holds_at(self, now: datetime) -> dict[str, Hold]:
        """Return the holds that have not expired at ``now``, by the store's clock."""
        return {id_: hold for id_, hold in self.holds.items() if hold.expires_at is None or now < hold.expires_at}

    def without_expired_holds(self, now: datetime) -> Self:
        """Return the state without the holds that have expired at ``now``, by the store's clock.

        Every reading of a store applies this. Then the holds apply until another reading, whatever this host's clock
        says: the holder may renew them while this process is suspended.
        """
        living = self.holds_at(now) if self.holds else self.holds
        return self if len(living) == len(self.holds) else self.model_copy(update={"holds": living})

    def remembers(self, change_id: str) -> bool:
        """Return whether a change is among the recent changes."""
        return any(change.id == change_id for change in self.recent_changes)

    def remembers_all_since(self, base: MaintenanceState) -> bool:
        """Return whether the recent changes include all changes since ``base``."""
        is_same = self.epoch == base.epoch or not base.epoch
        return is_same and 0 <= self.version - base.version <= len(self.recent_changes)

    def explanation_at(self, now: datetime, *, override: bool | None = None) -> Explanation:
        """Return the details for clients at ``now``.

        The end is unknown while code holds the switch on or ``override`` closes. Otherwise it is the end of the stored
        mode and of all windows that follow without a gap.
        """
        for hold in _unmasked_on_holds(self.holds) if self.holds else ():
            return Explanation(hold.reason or self.reason, None, self.retry_after)
        if override is not None:
            return Explanation()
        mode = self.stored_mode_at(now)
        until, reason = self.until, self.reason
        if self.windows:
            segment = self.timetable.at(now)
            if segment.occurrence is not None:
                planned, of_window = segment.mode, segment.occurrence.window.reason
                if planned.strength > mode.strength:
                    return Explanation(of_window, self.timetable.closed_until(now, planned))
                reason = reason or (of_window if planned is mode else None)
            if until is not None and mode is not MaintenanceMode.OFF:  # windows may follow without a gap
                until = self.timetable.closed_until(until, mode)
        if self.until is not None and now >= self.until:
            return Explanation()
        return Explanation(reason, until, self.retry_after)

    def next_change_at(self, now: datetime) -> datetime | None:
        """Return when the effective mode changes next, unless somebody changes the state before.

        ``None``: never, too far ahead, or unknown because code holds the switch: it renews its holds until it releases
        them.
        """
        if self.holds:
            return None
        outlook = self.timetable.outlook(now) if self.windows else _NOTHING_PLANNED
        ends = [self.until, *(step.since for step in outlook.steps)]
        mode, planned, ahead = self.mode_at(now), outlook.steps[0].mode, deque(outlook.steps[1:])
        for moment in sorted({end for end in ends if end is not None and end > now}):
            if outlook.horizon is not None and moment >= outlook.horizon:
                break
            if ahead and ahead[0].since == moment:
                planned = ahead.popleft().mode
            if self._mode_at(moment, planned) is not mode:
                return moment
        return None

    def same_until(self, now: datetime) -> datetime | None:
        """Return until when mode and explanation stay the same as at ``now``; ``None``: for ever."""
        ends = [self.until]
        if self.windows:
            ends.append(self.timetable.at(now).until)
        return min((end for end in ends if end is not None and end > now), default=None)

    def upcoming(self, now: datetime, limit: int) -> list[Occurrence]:
        """Return the next occurrences of windows that begin after ``now``, at most ``limit``, in order."""
        return self.timetable.upcoming(now, limit)

    def windows_left(self, now: datetime) -> list[Window]:
        """Return the windows that are not over at ``now``."""
        over = self.timetable.over(now)
        return [window for id_, window in self.windows.items() if id_ not in over]

    def to_json(self) -> bytes:
        """Return the document as it is stored.

        Raises:
            InvalidConfiguration: The document is too large.
        """
        content = self.serialize()
        check_size(len(content))
        return content

    def serialize(self) -> bytes:
        """Return the document, however large it is."""
        document: dict[str, Any] = {"schema": 1, "epoch": self.epoch, "version": self.version, "mode": self.mode.value}
        document |= self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        if self._unreadable:
            kept = {id_: window.stored for id_, window in self._unreadable.items()}
            document["windows"] = {**(document.get("windows") or {}), **kept}
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, raw: bytes | str, *, where: str) -> Self:
        """Return the state of a stored document; ``where`` names the place in the error.

        Raises:
            CorruptState: It is not a document, has another schema, or is too large.
        """
        if len(raw) > MAX_BYTES:
            raise CorruptState(where, f"more than {MAX_BYTES} bytes")
        try:
            state = cls.model_validate_json(raw, strict=True)
        except ValidationError as error:
            state = cls._parse_readable_part(raw, error, where)
        if "schema_" not in state.model_fields_set:
            raise CorruptState(where, "its schema is missing")
        return state

    @classmethod
    def _parse_readable_part(cls, raw: bytes | str, error: ValidationError, where: str) -> Self:
        """Return the state of a document whose only problem is invalid windows.

        Raises:
            CorruptState: It has another problem.
        """
        try:
            document = from_json(raw)
            windows = document["windows"].items()
        except (ValueError, LookupError, TypeError, AttributeError):
            raise CorruptState(where, problem_of(error)) from None
        unreadable: dict[str, UnreadableWindow] = {}
        readable: dict[str, Any] = {}
        for id_, stored in windows:
            problem = _problem_of_window(id_, stored)
            if problem is None and len(readable) == MAX_WINDOWS:
                problem = f"there are more than {MAX_WINDOWS} windows"
            if problem is None:
                readable[id_] = stored
            else:
                unreadable[id_] = UnreadableWindow(stored, problem)
        try:
            state = cls.model_validate_json(to_json({**document, "windows": readable}), strict=True)
        except ValidationError as other:
            raise CorruptState(where, problem_of(other)) from None
        return state.with_unreadable(unreadable)

    def with_unreadable(self, unreadable: dict[str, UnreadableWindow]) -> Self:
        """Return the state with these unreadable windows."""
        state = self.model_copy()
        state._unreadable = unreadable  # noqa: SLF001 - of the same class
        return state

    def without_unreadable(self, ids: frozenset[str]) -> Self:
        """Return the state without the unreadable windows of these ids."""
        if not ids & self._unreadable.keys():
            return self
        return self.with_unreadable({id_: window for id_, window in self._unreadable.items() if id_ not in ids})


def _problem_of_window(id_: str, stored: Any) -> str | None:
    """Return the problem of a stored window; ``None``: it is valid."""
    try:
        window = Window.model_validate_json(to_json(stored), strict=True)
    except ValidationError as error:
        return problem_of(error)
    return None if window.id == id_ else f"window {window.id!r} is stored as {id_!r}"


def problem_of(error: ValidationError) -> str:
    """Return the first problem of a document and its place, in one line for logs."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return in_one_line(f"{place}: {first['msg']}" if place else first["msg"])[:_LONGEST_PROBLEM]


def _unmasked_on_holds(holds: Mapping[str, Hold]) -> list[Hold]:
    """Return the on-holds that no off-hold masks."""
    masked = frozenset().union(*(hold.masks for hold in holds.values() if hold.kind == "off"))
    return [hold for id_, hold in holds.items() if hold.kind == "on" and id_ not in masked]
