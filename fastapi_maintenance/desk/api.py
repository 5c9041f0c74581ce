"""The JSON API of the admin."""

# No `from __future__ import annotations`: FastAPI reads the annotations of functions that are made in a function.

import hashlib
from datetime import UTC, datetime

from fastapi import APIRouter, Depends, Request, Response
from starlette.status import HTTP_201_CREATED, HTTP_204_NO_CONTENT

from ..exceptions import VersionConflict
from ..holds.in_flight import others_in_flight
from ..model.state import MaintenanceState
from ..routing.marks import force_maintenance_mode_off
from ..switches.control import (
    break_hold,
    cancel_maintenance,
    change_mode,
    describe_state,
    get_maintenance_state,
    get_maintenance_status,
    schedule_maintenance,
)
from .access import Desk
from .models import IfMatch, ModeChange, SwitchModel, SwitchName, WindowModel, WindowPlan
from .refusals import REFUSALS, convert_errors
from .requests import require_json

MAX_IN_FLIGHT_SHOWN = 20
_MOST_ETAGS = 32
"""The maximum number of ETags in ``If-Match`` that are compared."""


def add_api(router: APIRouter, desk: Desk) -> None:
    """Add the routes of the API to the router."""

    @router.get("/api/switches", responses=REFUSALS)
    @force_maintenance_mode_off
    async def list_switches(request: Request) -> list[SwitchModel]:
        """Return all switches."""
        with convert_errors():
            return [await describe_switch(name) for name in desk.names(request)]

    @router.get("/api/switches/{name}", responses=REFUSALS)
    @force_maintenance_mode_off
    async def get_switch(name: SwitchName, request: Request, response: Response) -> SwitchModel:
        """Return one switch, with its ETag."""
        with convert_errors():
            described = await describe_switch(desk.check_name(request, name))
        response.headers["ETag"] = described.etag
        return described

    @router.put("/api/switches/{name}/mode", responses=REFUSALS, dependencies=[Depends(require_json)])
    @force_maintenance_mode_off
    async def set_mode(
        name: SwitchName, change: ModeChange, request: Request, response: Response, if_match: IfMatch = None
    ) -> SwitchModel:
        """Store a mode; ``off`` is refused while code holds the switch on, unless ``break_holds`` is set."""
        with convert_errors():
            await change_mode(
                change.mode,
                name=desk.check_name(request, name),
                by=await desk.user(request),
                expected_version=await required_version(name, if_match),
                **change.model_dump(exclude={"mode"}),
            )
            described = await describe_switch(name)
        response.headers["ETag"] = described.etag
        return described

    @router.post(
        "/api/switches/{name}/windows",
        responses=REFUSALS,
        status_code=HTTP_201_CREATED,
        dependencies=[Depends(require_json)],
    )
    @force_maintenance_mode_off
    async def plan_window(name: SwitchName, plan: WindowPlan, request: Request) -> WindowModel:
        """Plan a maintenance."""
        with convert_errors():
            checked = desk.check_name(request, name)
            window = await schedule_maintenance(**plan.model_dump(), name=checked, by=await desk.user(request))
        return WindowModel.model_validate(window, from_attributes=True)

    @router.delete("/api/switches/{name}/windows/{window_id}", responses=REFUSALS, status_code=HTTP_204_NO_CONTENT)
    @force_maintenance_mode_off
    async def cancel_window(name: SwitchName, window_id: str, request: Request) -> None:
        """Cancel a planned maintenance."""
        with convert_errors():
            await cancel_maintenance(window_id, name=desk.check_name(request, name), by=await desk.user(request))

    @router.delete("/api/switches/{name}/holds/{hold_id}", responses=REFUSALS, status_code=HTTP_204_NO_CONTENT)
    @force_maintenance_mode_off
    async def break_one_hold(name: SwitchName, hold_id: str, request: Request) -> None:
        """Break a hold of running code."""
        with convert_errors():
            await break_hold(hold_id, name=desk.check_name(request, name), by=await desk.user(request))


async def describe_switch(name: str) -> SwitchModel:
    """Return the current state of a switch."""
    state, status, now = await get_maintenance_state(name=name), get_maintenance_status(name=name), datetime.now(UTC)
    return SwitchModel(
        name=name,
        etag=_etag_of(state),
        knowledge=status.knowledge,
        last_error=status.last_error,
        in_flight=len(others_in_flight(name=name)),
        **describe_state(state, now),
    )


def _etag_of(state: MaintenanceState) -> str:
    """Return the ETag of a state (RFC 9110, section 8.8.3)."""
    life = hashlib.sha256(state.epoch.encode()).hexdigest()[:12]
    # Includes the mode because a store of bare on or off values has no versions.
    return f'"{life}-{state.version}-{state.mode}"'


async def required_version(name: str, if_match: str | None) -> int | None:
    """Return the version that a change requires, or ``None`` for any version.

    Raises:
        VersionConflict: The state has another version.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    state = await get_maintenance_state(name=name)
    if _etag_of(state) not in [tag.strip() for tag in if_match.split(",", _MOST_ETAGS)[:_MOST_ETAGS]]:
        raise VersionConflict(-1, state.version)
    return state.version
