"""Pydantic models of the API's requests and responses."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import Header, Path
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from ..model.limits import MAX_REASON, MAX_RETRY_AFTER
from ..model.modes import MaintenanceMode, PlannedModeName

_LONGEST_TEXT = 500
SwitchName = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=100)]


class HoldModel(BaseModel):
    """A hold: code that keeps a switch on or off while it runs."""

    id: str
    kind: Literal["on", "off"]
    owner: str
    reason: str | None
    expires_at: datetime | None


class WindowModel(BaseModel):
    """A planned maintenance."""

    id: str
    start: datetime
    end: datetime
    mode: PlannedModeName
    reason: str | None
    rrule: str | None
    zone: str | None


class SwitchModel(BaseModel):
    """The state of a switch."""

    name: str
    mode: MaintenanceMode
    """The effective mode."""
    stored_mode: MaintenanceMode
    reason: str | None
    until: datetime | None
    retry_after: int | None
    version: int
    etag: str
    updated_by: str | None
    updated_at: datetime | None
    next_change_at: datetime | None
    holds: list[HoldModel]
    windows: list[WindowModel]
    knowledge: str
    """The condition of this process's copy: ``ready``, ``stale``, ``error`` or ``not_ready``."""
    last_error: str | None
    in_flight: int
    """The number of requests under this switch in this process, except the current one."""


class ModeChange(BaseModel):
    """A mode to store."""

    model_config = ConfigDict(extra="forbid")

    mode: MaintenanceMode
    reason: str | None = Field(default=None, max_length=MAX_REASON)
    until: AwareDatetime | None = None
    retry_after: int | None = Field(default=None, ge=0, le=MAX_RETRY_AFTER)
    break_holds: bool = False


class WindowPlan(BaseModel):
    """A maintenance to plan."""

    model_config = ConfigDict(extra="forbid")

    start: AwareDatetime
    end: AwareDatetime
    mode: PlannedModeName = "on"
    reason: str | None = Field(default=None, max_length=MAX_REASON)
    rrule: str | None = Field(default=None, max_length=_LONGEST_TEXT)
    zone: str | None = Field(default=None, max_length=100)


class Problem(BaseModel):
    """The reason for a refusal."""

    detail: str


IfMatch = Annotated[str | None, Header(description="The ETag that the change is based on")]
