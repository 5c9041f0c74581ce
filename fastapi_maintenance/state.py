"""The state of one switch, and how a change makes the next state of it.

Everything here is a pure function of its arguments.
"""

from __future__ import annotations

import json
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    field_validator,
)
from pydantic_core import from_json, to_json

from .exceptions import (
    CorruptState,
    HoldLost,
    InvalidConfiguration,
    SwitchIsHeld,
    UnknownWindow,
    VersionConflict,
)
from .page import in_one_line
from .schedule import MAX_WINDOWS, Occurrence, Outlook, Step, Timetable, Window

MAX_BYTES = 64 * 1024
"""The largest document that is stored or read."""

_ROOM_FOR_MODE = _ROOM_FOR_HOLD = 16 * 1024
"""What the longest reason, in characters that take six bytes each, and all that goes with it can take."""

MAX_REASON = 2000
"""The longest reason that is accepted, in characters."""
MAX_OWNER = 300
"""The longest name of who holds or changes a switch, in characters."""
MAX_HOLDS = 200
"""How many holds a switch may have at a time."""
MAX_RETRY_AFTER = 10**9
"""The most seconds after which clients may be told to come back."""
MAX_VERSION = 2**53 - 1
"""The highest version: JavaScript and Lua know no higher whole numbers. After it a new life (``epoch``) begins."""

_LONGEST_PROBLEM = 300

_MOST_RECENT_CHANGES = 32
"""How many changes a document remembers, so that none is made twice."""
_EXPIRED_HOLDS_KEPT_FOR = timedelta(hours=1)
"""So long a hold that has expired stays in the document: code that comes back from a long sleep finds it expired, and
not broken by an operator."""


_TIMETABLE = "_known_timetable"
"""Where a state keeps what it has worked out of its windows: beside the fields, so neither compared nor stored."""


class MaintenanceMode(StrEnum):
    """What a switch does to requests."""

    OFF = "off"
    ON = "on"
    READ_ONLY = "read_only"
    """The safe methods of RFC 9110 pass, the others are answered with 503."""


UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""When the clocks of stores begin; a state's ``epoch`` is something else."""


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        msg = f"{moment.isoformat()} is out of range"
        raise ValueError(msg) from None


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A time in Python's own UTC. Pydantic's timezone crashes a process that frees it at its end (pydantic-core 2.50)."""


def to_milliseconds(moment: datetime) -> int:
    """Return the whole milliseconds since 1970, as stores tell times."""
    return (moment - UNIX_EPOCH) // timedelta(milliseconds=1)


def _from_milliseconds(value: object) -> object:
    if type(value) is not int:  # bool is an int, and no time
        return value
    try:
        return UNIX_EPOCH + timedelta(milliseconds=value)
    except OverflowError:
        msg = f"{value} ms since 1970 is no time"
        raise ValueError(msg) from None


Milliseconds = Annotated[
    Moment,
    BeforeValidator(_from_milliseconds),
    PlainSerializer(to_milliseconds, return_type=int, when_used="json"),
]
"""A time that stores compare with their own clock: in JSON the milliseconds since 1970."""


class Hold(BaseModel):
    """A temporary override by running code: for as long as it lives, the switch is held on or off."""

    # Members that only newer versions know are kept.
    model_config = ConfigDict(frozen=True, extra="allow")

    kind: Literal["on", "off"]
    owner: str = ""
    """Whose it is, for people: host, process, function."""
    reason: str | None = None
    expires_at: Milliseconds | None = None
    """When it is gone unless it was renewed; ``None``: not by itself."""
    masks: frozenset[str] = frozenset()
    """Ids of the on-holds that an off-hold opens: those that enclose it in its own execution context."""


class RecentChange(BaseModel):
    """A change that the document remembers."""

    model_config = ConfigDict(frozen=True, extra="allow")

    id: str
    by: str | None = None
    at: Moment | None = None
    what: str = ""
    """For people."""


class UnreadableWindow(NamedTuple):
    """A stored window that can't be understood here: it is kept, and does not apply."""

    stored: Any
    problem: str


class Explanation(NamedTuple):
    """What clients are told of a maintenance."""

    reason: str | None = None
    until: datetime | None = None
    """When it is known to end."""
    retry_after: int | None = None
    """After how many seconds to come back while the end isn't known; ``None``: the app's answer says it."""


_STRENGTH = {MaintenanceMode.OFF: 0, MaintenanceMode.READ_ONLY: 1, MaintenanceMode.ON: 2}
_RANKED = (MaintenanceMode.OFF, MaintenanceMode.READ_ONLY, MaintenanceMode.ON)
"""The modes by their rank in a timetable."""
_NOTHING_PLANNED = Outlook([Step(UNIX_EPOCH, 0)], None)


class MaintenanceState(BaseModel):
    """What is known of one switch: immutable, a change makes a new one with the next ``version``.

    ``mode`` is the stored mode, what an operator set; ``mode_at(now)`` is what counts.
    """

    # Members that only newer versions know are kept.
    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    schema_: Literal[1] = Field(default=1, validation_alias="schema", serialization_alias="schema")
    epoch: str = ""
    """The life of the document: another one means that the store was emptied in between."""
    version: int = Field(default=0, ge=0, le=MAX_VERSION)
    """Grows with each change within an epoch."""
    mode: MaintenanceMode = MaintenanceMode.OFF
    reason: str | None = None
    since: Moment | None = None
    """When the maintenance began that ``mode`` makes: to store a mode again, or another one that blocks, keeps it."""
    until: Moment | None = None
    retry_after: int | None = Field(default=None, ge=0, le=MAX_RETRY_AFTER)
    """After how many seconds clients are told to come back while the end isn't known."""
    holds: dict[str, Hold] = Field(default_factory=dict)
    windows: dict[str, Window] = Field(default_factory=dict, max_length=MAX_WINDOWS)
    """The planned periods of maintenance, by their ids."""
    updated_by: str | None = None
    updated_at: Moment | None = None
    recent_changes: tuple[RecentChange, ...] = ()
    """The last changes, renewals of holds apart; the last of them made this version."""
    restored: bool = False
    """Whether this document was put back into a store that had lost it, and nobody has changed it since."""
    forgotten: bool = False
    """Whether the switch was forgotten, and nobody has set it since."""
    _unreadable: dict[str, UnreadableWindow] = PrivateAttr(default_factory=dict)

    @field_validator("windows")
    @classmethod
    def _by_their_ids(cls, windows: dict[str, Window]) -> dict[str, Window]:
        for id_, window in windows.items():
            if id_ != window.id:
                msg = f"window {window.id!r} is stored as {id_!r}"
                raise ValueError(msg)
        return windows

    @property
    def unreadable_windows(self) -> Mapping[str, UnreadableWindow]:
        """The stored windows that can't be understood here, by their ids."""
        return self._unreadable

    @property
    def timetable(self) -> Timetable:
        """The windows, made ready to be asked."""
        made: tuple[dict[str, Window], Timetable] | None = self.__dict__.get(_TIMETABLE)
        if made is None or made[0] is not self.windows:  # a copy takes along what was made of the former windows
            made = self.__dict__[_TIMETABLE] = self.windows, Timetable(self.windows.values())
        return made[1]

    def prepare(self, now: datetime, former: MaintenanceState | None = None) -> None:
        """Work out what the windows say at ``now``: the first time it takes longer, and no request should wait.

        What ``former`` has worked out is taken over if it has the same windows.
        """
        if not self.windows:
            return
        if former is not None and former.windows == self.windows:
            self.__dict__[_TIMETABLE] = self.windows, former.timetable
        self.timetable.at(now)

    def mode_at(self, now: datetime, *, instead: bool | None = None) -> MaintenanceMode:
        """Return the mode that counts at ``now``.

        An on-hold that no off-hold masks wins; then any off-hold opens; then the stored mode until its end, or a
        window, whichever blocks more. ``instead`` (an app's ``enable_maintenance``) stands in for these two.
        """
        planned = _RANKED[self.timetable.at(now).rank] if self.windows and instead is None else MaintenanceMode.OFF
        return self._mode_at(now, planned, instead)

    def _mode_at(self, now: datetime, planned: MaintenanceMode, instead: bool | None = None) -> MaintenanceMode:
        """Return the mode that counts at ``now``, when windows make ``planned``."""
        if self.holds:
            # Where no on-hold closes, there is an off-hold: alone, or masking the others.
            return MaintenanceMode.ON if _closing(self.holds) else MaintenanceMode.OFF
        if instead is not None:
            return MaintenanceMode.ON if instead else MaintenanceMode.OFF
        mode = self.stored_mode_at(now)
        return planned if _STRENGTH[planned] > _STRENGTH[mode] else mode

    def stored_mode_at(self, now: datetime) -> MaintenanceMode:
        """Return the stored mode, which is off after its end."""
        return MaintenanceMode.OFF if self.until is not None and now >= self.until else self.mode

    def holds_at(self, now: datetime) -> dict[str, Hold]:
        """Return the holds that have not expired at ``now``, by the store's clock."""
        return {id_: hold for id_, hold in self.holds.items() if hold.expires_at is None or now < hold.expires_at}

    def without_expired_holds(self, now: datetime) -> Self:
        """Return the state without the holds that have expired at ``now``, by the store's clock.

        A store's state is read so. From then on its holds apply until another reading says that they are gone: this
        host's clock says nothing of a hold that is being renewed while this process stands still.
        """
        living = self.holds_at(now) if self.holds else self.holds
        return self if len(living) == len(self.holds) else self.model_copy(update={"holds": living})

    def remembers(self, change_id: str) -> bool:
        """Return whether a change is one of the last that were made."""
        return any(change.id == change_id for change in self.recent_changes)

    def remembers_all_since(self, base: MaintenanceState) -> bool:
        """Return whether every change that was made since ``base`` is still remembered."""
        is_same = self.epoch == base.epoch or not base.epoch
        return is_same and 0 <= self.version - base.version <= len(self.recent_changes)

    def explanation_at(self, now: datetime, *, instead: bool | None = None) -> Explanation:
        """Return what to tell clients at ``now``.

        It belongs to what closes: while code holds the switch on, or ``instead`` closes, the end is not known. Of a
        stored mode and windows it is the end of all that follow each other without a gap.
        """
        for hold in _closing(self.holds) if self.holds else ():
            return Explanation(hold.reason or self.reason, None, self.retry_after)
        if instead is not None:
            return Explanation()
        mode = self.stored_mode_at(now)
        until, reason = self.until, self.reason
        if self.windows:
            segment = self.timetable.at(now)
            if segment.occurrence is not None:
                planned, of_window = _RANKED[segment.rank], segment.occurrence.window.reason
                if _STRENGTH[planned] > _STRENGTH[mode]:
                    return Explanation(of_window, self.timetable.closed_until(now, planned))
                reason = reason or (of_window if planned is mode else None)
            until = self._end(mode)
        if self.until is not None and now >= self.until:
            return Explanation()
        return Explanation(reason, until, self.retry_after)

    def _end(self, mode: MaintenanceMode) -> datetime | None:
        """Return when neither the stored mode goes on, which is ``mode``, nor a window that blocks as much."""
        if self.until is None or mode is MaintenanceMode.OFF:
            return self.until
        return self.timetable.closed_until(self.until, mode)

    def next_change_at(self, now: datetime) -> datetime | None:
        """Return when another mode will count, unless somebody changes the state before.

        ``None``: never, or that is not in sight, or nobody can say. That is so while code holds the switch: it renews
        its holds before they expire, until it gives them back.
        """
        if self.holds:
            return None
        outlook = self.timetable.outlook(now) if self.windows else _NOTHING_PLANNED
        ends = [self.until, *(step.since for step in outlook.steps)]
        mode, rank, ahead = self.mode_at(now), outlook.steps[0].rank, deque(outlook.steps[1:])
        for moment in sorted({end for end in ends if end is not None and end > now}):
            if outlook.horizon is not None and moment >= outlook.horizon:
                break
            if ahead and ahead[0].since == moment:
                rank = ahead.popleft().rank
            if self._mode_at(moment, _RANKED[rank]) is not mode:
                return moment
        return None

    def same_until(self, now: datetime) -> datetime | None:
        """Return until when mode and explanation stay what they are at ``now``; ``None``: for ever."""
        ends = [self.until]
        if self.windows:
            ends.append(self.timetable.at(now).until)
        return min((end for end in ends if end is not None and end > now), default=None)

    def upcoming(self, now: datetime, limit: int) -> list[Occurrence]:
        """Return the next occurrences of windows that have not begun at ``now``, at most ``limit``, in order."""
        return self.timetable.upcoming(now, limit)

    def windows_left(self, now: datetime) -> list[Window]:
        """Return the windows that are not over at ``now``."""
        over = self.timetable.over(now)
        return [window for id_, window in self.windows.items() if id_ not in over]

    def to_json(self) -> bytes:
        """Return the document as it is stored.

        Raises:
            InvalidConfiguration: It is larger than a document may be.
        """
        document: dict[str, Any] = {"schema": 1, "epoch": self.epoch, "version": self.version, "mode": self.mode.value}
        document |= self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        if self._unreadable:
            kept = {id_: window.stored for id_, window in self._unreadable.items()}
            document["windows"] = {**(document.get("windows") or {}), **kept}
        return checked_size(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode())

    @classmethod
    def from_json(cls, raw: bytes | str, *, where: str) -> Self:
        """Return the state of a stored document; ``where`` names the place in the error.

        Raises:
            CorruptState: It is no document, one of another schema, or larger than one may be.
        """
        if len(raw) > MAX_BYTES:
            raise CorruptState(where, f"more than {MAX_BYTES} bytes")
        try:
            state = cls.model_validate_json(raw, strict=True)
        except ValidationError as error:
            state = cls._readable_part(raw, error, where)
        if "schema_" not in state.model_fields_set:
            raise CorruptState(where, "it does not say which schema it has")
        return state

    @classmethod
    def _readable_part(cls, raw: bytes | str, error: ValidationError, where: str) -> Self:
        """Return the state of a document without the windows that can't be read, if these are the only problem."""
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
        """Return the state with these windows that can't be read."""
        state = self.model_copy()
        state._unreadable = unreadable  # noqa: SLF001 - of this very class
        return state

    def without_unreadable(self, ids: frozenset[str]) -> Self:
        """Return the state without these windows that can't be read."""
        if not ids & self._unreadable.keys():
            return self
        return self.with_unreadable({id_: window for id_, window in self._unreadable.items() if id_ not in ids})


def _problem_of_window(id_: str, stored: Any) -> str | None:
    """Return what is wrong with a stored window, if anything is."""
    try:
        window = Window.model_validate_json(to_json(stored), strict=True)
    except ValidationError as error:
        return problem_of(error)
    return None if window.id == id_ else f"window {window.id!r} is stored as {id_!r}"


def problem_of(error: ValidationError) -> str:
    """Return the first problem of a document, with its place: in one line, for logs that keep them apart by lines."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return in_one_line(f"{place}: {first['msg']}" if place else first["msg"])[:_LONGEST_PROBLEM]


def _closing(holds: Mapping[str, Hold]) -> list[Hold]:
    """Return the on-holds that no off-hold masks."""
    masked = frozenset().union(*(hold.masks for hold in holds.values() if hold.kind == "off"))
    return [hold for id_, hold in holds.items() if hold.kind == "on" and id_ not in masked]


def checked_size(document: bytes) -> bytes:
    """Return a document, or raise ``InvalidConfiguration`` if it is too large to be stored."""
    if len(document) > MAX_BYTES:
        raise too_large(len(document))
    return document


def too_large(size: int, limit: int = MAX_BYTES) -> InvalidConfiguration:
    """Return the error for a document of so many bytes."""
    room = "" if limit == MAX_BYTES else ", so that a mode and a hold always fit"
    return InvalidConfiguration(
        f"the state would have {size} bytes, nothing was changed: at most {limit} are stored{room}; "
        "shorten the reasons, or plan fewer windows"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A write, carried out at the store as a whole or not at all: fields to set, holds and windows to put and drop."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    put_holds: Mapping[str, Hold] = field(default_factory=dict)
    ttl: timedelta | None = None
    """For how long the put holds live from now, by the store's clock; ``None``: as they say themselves."""
    drop_holds: frozenset[str] = frozenset()
    break_holds: bool = False
    """Drop all holds."""
    put_windows: Mapping[str, Window] = field(default_factory=dict)
    drop_windows: frozenset[str] = frozenset()
    ends_windows_at: datetime | None = None
    """End the occurrences that go on then, by the clock of who asks: windows are judged by that, not by a store's."""
    expected_version: int | None = None
    """Refuse unless the state is at this version."""
    required_holds: frozenset[str] = frozenset()
    """Refuse unless these holds are there; a renewal also where one of them has expired."""
    required_windows: frozenset[str] = frozenset()
    """Refuse unless these windows are there."""
    refuse_while_held: bool = False
    """Refuse while an on-hold is alive."""
    is_renewal: bool = False
    """Only prolongs holds: neither the next version nor news."""
    forgets: bool = False
    """Forget the switch: whatever the document has, it is off and says nothing more."""
    by: str | None = None
    """Who makes it, for people."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Makes a retry harmless: a store makes the change with one id once."""

    def __post_init__(self) -> None:
        """Keep the name of who makes it short: it is for people."""
        if self.by is not None:
            check_text(self.by, "by")
            object.__setattr__(self, "by", self.by[:MAX_OWNER])

    def check(self, state: MaintenanceState, now: datetime) -> None:
        """Raise the ``ChangeRejected`` that says so where what the change requires isn't so."""
        if self.expected_version is not None and self.expected_version != state.version:
            raise VersionConflict(self.expected_version, state.version)
        lost = self.required_holds - state.holds.keys()
        if lost:
            raise HoldLost(sorted(lost))
        expired = self.required_holds - state.holds_at(now).keys()
        if expired and self.is_renewal:
            raise HoldLost(sorted(expired), expired=True)
        known = state.windows.keys() | state.unreadable_windows.keys()
        unknown = self.required_windows - known
        if unknown:
            raise UnknownWindow(sorted(unknown), sorted(known))
        if self.refuse_while_held:
            owners = sorted(in_one_line(hold.owner) for hold in state.holds_at(now).values() if hold.kind == "on")
            if owners:
                raise SwitchIsHeld(owners)

    def holds_after(self, holds: Mapping[str, Hold], now: datetime) -> dict[str, Hold]:
        """Return the holds that follow ``holds``, which are those that have not expired."""
        kept = {} if self.break_holds else {id_: hold for id_, hold in holds.items() if id_ not in self.drop_holds}
        expiry = {} if self.ttl is None else {"expires_at": now + self.ttl}
        put = {id_: _put_over(kept.get(id_), hold, **expiry) for id_, hold in self.put_holds.items()}
        return {**kept, **put}

    def applied_to(self, state: MaintenanceState, now: datetime) -> MaintenanceState:
        """Return the state that follows ``state``.

        Raises:
            VersionConflict, HoldLost, UnknownWindow, SwitchIsHeld: A requirement of the change isn't met.
            InvalidConfiguration: It has too many windows or holds.
        """
        self.check(state, now)
        after = self.after(state, now)
        self.check_room(state, after)
        return after

    def check_room(self, before: MaintenanceState, after: MaintenanceState) -> None:
        """Raise ``InvalidConfiguration`` where more windows or holds would leave too little room for a mode."""
        more_windows = bool(after.windows.keys() - before.windows.keys())
        if more_windows and len(after.windows) + len(after.unreadable_windows) > MAX_WINDOWS:
            raise InvalidConfiguration(
                f"{MAX_WINDOWS} windows are planned already, nothing was changed: cancel one first, "
                "or let one window recur (rrule)"
            )
        more_holds = bool(after.holds.keys() - before.holds.keys())
        if more_holds and len(after.holds) > MAX_HOLDS:
            raise InvalidConfiguration(f"{MAX_HOLDS} blocks hold the switch already, nothing was changed")
        if more_windows or more_holds:
            limit = MAX_BYTES - _ROOM_FOR_MODE - (_ROOM_FOR_HOLD if more_windows else 0)
            size = len(after.model_copy(update=_WITHOUT_MODE).to_json())
            if size > limit:
                raise too_large(size, limit)

    def after(self, state: MaintenanceState, now: datetime) -> MaintenanceState:
        """Return the state that would follow ``state``, whatever the change requires."""
        if self.forgets:
            state = MaintenanceState(epoch=state.epoch, version=state.version, recent_changes=state.recent_changes)
        holds = state.holds_at(now - _EXPIRED_HOLDS_KEPT_FOR)
        update: dict[str, Any] = {"holds": self.holds_after(holds, now), "windows": self._windows_after(state)}
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
        return state.model_copy(update=update).without_unreadable(self.drop_windows)

    def _since(self, state: MaintenanceState, since: datetime, now: datetime) -> datetime | None:
        """Return when the maintenance began that this change goes on with, or begins."""
        if state.stored_mode_at(now) is not MaintenanceMode.OFF:
            return state.since  # a maintenance that is corrected began when it began
        going_on = state.timetable.all_at(since) if state.windows else ()
        return min((occurrence.start for occurrence in going_on), default=since)

    @property
    def summary(self) -> str:
        """The change in a few words, for people."""
        parts = {
            "forgotten": self.forgets,
            str(self.fields.get("mode", "")): "mode" in self.fields,
            "holds broken": self.break_holds,
            "held": bool(self.put_holds),
            "hold dropped": bool(self.drop_holds),
            "window planned": bool(self.put_windows),
            "window cancelled": bool(self.required_windows),
        }
        return ", ".join(part for part, applies in parts.items() if applies)

    def _windows_after(self, state: MaintenanceState) -> dict[str, Window]:
        ended = {}
        if self.ends_windows_at is not None:
            # The occurrence's own start is what is marked, so that a clock that is ahead ends nothing else.
            ended = {active.window.id: active.start for active in state.timetable.all_at(self.ends_windows_at)}
        if not (self.put_windows or self.drop_windows or ended):
            return state.windows
        kept = {id_: window for id_, window in state.windows.items() if id_ not in self.drop_windows}
        windows = {id_: _ended(window, ended.get(id_)) for id_, window in kept.items()}
        return {**windows, **{id_: _put_over(windows.get(id_), window) for id_, window in self.put_windows.items()}}


def check_text(value: object, name: str) -> None:
    """Raise ``InvalidConfiguration`` if a value is no text that can be stored."""
    try:
        str.encode(value)  # type: ignore[arg-type]
    except (TypeError, UnicodeEncodeError):
        raise InvalidConfiguration(f"{name}={value!r}: a text is needed") from None


_WITHOUT_MODE: dict[str, Any] = {
    name: MaintenanceState.model_fields[name].get_default()
    for name in ("reason", "since", "until", "retry_after", "updated_by", "recent_changes")
}
"""What a state is measured without, when the room that is left for these is what matters."""

_T = TypeVar("_T", Hold, Window)


def _put_over(former: _T | None, new: _T, **update: Any) -> _T:
    """Return what is put in the place of ``former``, whose members that this version does not know stay."""
    kept = {} if former is None else former.model_extra or {}
    return new.model_copy(update={**kept, **(new.model_extra or {}), **update}) if kept or update else new


def _ended(window: Window, start: datetime | None) -> Window:
    """Return a window whose occurrences up to ``start`` are over."""
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
    **requirements: Any,
) -> Change:
    """Return the change that stores ``mode``; reason, end and retry_after belong to it and replace the former ones.

    A maintenance that goes on already keeps its ``since``. To store "off" also ends the occurrences of windows that go
    on: who opens a service wants it open. ``requirements`` are the other members of ``Change``, such as
    ``expected_version``.
    """
    since = None if mode is MaintenanceMode.OFF else now
    fields = {"mode": mode, "reason": reason, "since": since, "until": until, "retry_after": retry_after}
    ends_windows_at = now if mode is MaintenanceMode.OFF else None
    return Change(fields=fields, ends_windows_at=ends_windows_at, by=by, **requirements)


def is_plain(state: MaintenanceState) -> bool:
    """Return whether a plain boolean says all that a state says."""
    return (
        state.mode is not MaintenanceMode.READ_ONLY
        and not state.model_extra
        and not state.unreadable_windows
        and not state.forgotten
        and not state.holds
        and not state.windows
        and state.reason is None
        and state.until is None
        and state.retry_after is None
    )


def as_mode(value: bool | str) -> MaintenanceMode:
    """Return the mode that a caller means by a bool, a mode or a mode's name.

    Raises:
        InvalidConfiguration: It is none of these.
    """
    if isinstance(value, bool):
        return MaintenanceMode.ON if value else MaintenanceMode.OFF
    try:
        return MaintenanceMode(value)
    except ValueError:
        modes = ", ".join(repr(mode.value) for mode in MaintenanceMode)
        raise InvalidConfiguration(f"maintenance mode {value!r}: accepted are True, False, {modes}") from None


_BOOL = TypeAdapter(bool)


def parse_mode(text: str) -> MaintenanceMode:
    """Return the mode that a human or a variable wrote: a boolean as pydantic reads it, or ``read_only``.

    Raises:
        ValueError: Naming what is accepted.
    """
    word = text.strip().lower().replace("-", "_")
    if word == MaintenanceMode.READ_ONLY:
        return MaintenanceMode.READ_ONLY
    try:
        return MaintenanceMode.ON if _BOOL.validate_python(word) else MaintenanceMode.OFF
    except ValidationError:
        msg = f"{text!r} is no maintenance mode: accepted are 1/on/true/yes, 0/off/false/no, and read_only"
        raise ValueError(msg) from None
