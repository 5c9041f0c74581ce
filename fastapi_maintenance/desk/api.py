"""The admin's API."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from fastapi import APIRouter, Depends, Request, Response
from starlette.status import HTTP_201_CREATED, HTTP_204_NO_CONTENT

from ..exceptions import VersionConflict
from ..holds.in_flight import others_in_flight
from ..model.modes import MaintenanceMode
from ..model.state import MaintenanceState
from ..model.windows.window import Window
from ..routing.marks import force_maintenance_mode_off
from ..switches.control import (
    break_hold,
    cancel_maintenance,
    change_mode,
    get_maintenance_state,
    get_maintenance_status,
    schedule_maintenance,
)
from .access import Page
from .models import HoldModel, IfMatch, ModeChange, SwitchModel, SwitchName, WindowModel, WindowPlan
from .refusals import REFUSALS, refusals
from .requests import json_only

SHOWN_IN_FLIGHT = 20
_MOST_ETAGS = 32
"""How many of ``If-Match`` are compared."""


def add_api(router: APIRouter, page: Page) -> None:
    @router.get("/api/switches", responses=REFUSALS)
    @force_maintenance_mode_off
    async def list_switches(request: Request) -> list[SwitchModel]:
        """Return all switches."""
        with refusals():
            return [await describe_switch(name) for name in page.names(request)]

    @router.get("/api/switches/{name}", responses=REFUSALS)
    @force_maintenance_mode_off
    async def get_switch(name: SwitchName, request: Request, response: Response) -> SwitchModel:
        """Return one switch, with its ETag."""
        with refusals():
            described = await describe_switch(page.checked(request, name))
        response.headers["ETag"] = described.etag
        return described

    @router.put("/api/switches/{name}/mode", responses=REFUSALS, dependencies=[Depends(json_only)])
    @force_maintenance_mode_off
    async def set_mode(
        name: SwitchName, change: ModeChange, request: Request, response: Response, if_match: IfMatch = None
    ) -> SwitchModel:
        """Store a mode; ``off`` is refused while code holds the switch on, unless that is to be broken."""
        with refusals():
            await change_mode(
                change.mode,
                name=page.checked(request, name),
                reason=change.reason,
                until=change.until,
                retry_after=change.retry_after,
                by=await page.user(request),
                expected_version=await expected(name, if_match),
                refuse_while_held=change.mode is MaintenanceMode.OFF and not change.break_holds,
                break_holds=change.break_holds,
            )
            described = await describe_switch(name)
        response.headers["ETag"] = described.etag
        return described

    @router.post(
        "/api/switches/{name}/windows",
        responses=REFUSALS,
        status_code=HTTP_201_CREATED,
        dependencies=[Depends(json_only)],
    )
    @force_maintenance_mode_off
    async def plan_window(name: SwitchName, plan: WindowPlan, request: Request) -> WindowModel:
        """Plan a maintenance."""
        with refusals():
            window = await schedule_maintenance(
                plan.start,
                plan.end,
                name=page.checked(request, name),
                mode=plan.mode,
                reason=plan.reason,
                rrule=plan.rrule,
                zone=plan.zone,
                by=await page.user(request),
            )
        return _of_window(window)

    @router.delete("/api/switches/{name}/windows/{window_id}", responses=REFUSALS, status_code=HTTP_204_NO_CONTENT)
    @force_maintenance_mode_off
    async def cancel_window(name: SwitchName, window_id: str, request: Request) -> None:
        """Cancel a planned maintenance."""
        with refusals():
            await cancel_maintenance(window_id, name=page.checked(request, name), by=await page.user(request))

    @router.delete("/api/switches/{name}/holds/{hold_id}", responses=REFUSALS, status_code=HTTP_204_NO_CONTENT)
    @force_maintenance_mode_off
    async def break_one_hold(name: SwitchName, hold_id: str, request: Request) -> None:
        """Take a hold away from the code that has it."""
        with refusals():
            await break_hold(hold_id, name=page.checked(request, name), by=await page.user(request))


async def describe_switch(name: str) -> SwitchModel:
    state, status, now = await get_maintenance_state(name=name), get_maintenance_status(name=name), datetime.now(UTC)
    reason, until, retry_after = state.explanation_at(now)
    return SwitchModel(
        name=name,
        mode=state.mode_at(now),
        stored_mode=state.mode,
        reason=reason,
        until=until,
        retry_after=retry_after,
        version=state.version,
        etag=_etag(state),
        updated_by=state.updated_by,
        updated_at=state.updated_at,
        next_change_at=state.next_change_at(now),
        holds=[
            HoldModel(id=id_, kind=hold.kind, owner=hold.owner, reason=hold.reason, expires_at=hold.expires_at)
            for id_, hold in state.holds_at(now).items()
        ],
        windows=[_of_window(window) for window in state.windows_left(now)],
        knowledge=status.knowledge,
        last_error=status.last_error,
        in_flight=len(others_in_flight(name=name)),
    )


def _of_window(window: Window) -> WindowModel:
    return WindowModel.model_validate(window.model_dump(include=set(WindowModel.model_fields)))


def _etag(state: MaintenanceState) -> str:
    """Return what tells a state from those before and after it (RFC 9110, section 8.8.3)."""
    life = hashlib.sha256(state.epoch.encode()).hexdigest()[:12]
    # With the mode, as a store that keeps on or off only has no versions.
    return f'"{life}-{state.version}-{state.mode}"'


async def expected(name: str, if_match: str | None) -> int | None:
    """Return the version that a change is based on, or ``None`` if it is not to matter.

    Raises:
        VersionConflict: It is not the one that there is.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    state = await get_maintenance_state(name=name)
    if _etag(state) not in [tag.strip() for tag in if_match.split(",", _MOST_ETAGS)[:_MOST_ETAGS]]:
        raise VersionConflict(-1, state.version)
    return state.version
