"""The admin's page."""

from __future__ import annotations

import base64
import functools
import hashlib
import secrets
from collections import defaultdict
from datetime import UTC, datetime, timedelta

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.status import HTTP_303_SEE_OTHER, HTTP_403_FORBIDDEN, HTTP_409_CONFLICT, HTTP_412_PRECONDITION_FAILED

from ..exceptions import InvalidConfiguration, MaintenanceError, VersionConflict
from ..holds.in_flight import others_in_flight
from ..model.modes import MaintenanceMode
from ..model.state import Explanation, MaintenanceState
from ..routing.marks import force_maintenance_mode_off
from ..switches.app_switch import DEFAULT
from ..switches.control import break_hold, cancel_maintenance, change_mode, get_maintenance_state, schedule_maintenance
from .access import Page, file
from .api import SHOWN_IN_FLIGHT, describe_switch, expected
from .refusals import refusal

_COOKIE = "maintenance_admin"


# The page


def add_page(router: APIRouter, page: Page) -> None:
    @router.get("/", include_in_schema=False, name="maintenance_admin")
    @force_maintenance_mode_off
    async def show(request: Request) -> Response:
        """Show all switches."""
        return await _shown(page, request)

    @router.post("/", include_in_schema=False)
    @force_maintenance_mode_off
    async def act(request: Request) -> Response:
        """Do what a form asks for, and show the page again."""
        form = {name: value for name, value in (await request.form()).items() if isinstance(value, str)}
        token = request.cookies.get(_COOKIE, "")
        if not token or not secrets.compare_digest(token.encode(), form.get("token", "").encode()):
            raise refusal(HTTP_403_FORBIDDEN, "this form is too old, or from another site: load the page again")
        name = page.checked(request, form.get("name", DEFAULT))
        try:
            await _carried_out(form, name, await page.user(request))
        except VersionConflict:
            return await _shown(page, request, _changed_meanwhile(name), HTTP_412_PRECONDITION_FAILED, refused=form)
        except (MaintenanceError, ValueError) as error:
            return await _shown(page, request, f"{name}: {error}", HTTP_409_CONFLICT, refused=form)
        return RedirectResponse(_HERE, HTTP_303_SEE_OTHER)


_HERE = "./"
"""The page, as a reference from itself: a URL made of the request follows ``Host`` on old Starlette."""


def _changed_meanwhile(name: str) -> str:
    return (
        f"Nothing was done: somebody else changed {name!r} since you loaded the page. Below is what it says now, with "
        "what you had entered: look again and decide."
    )


async def _carried_out(form: dict[str, str], name: str, by: str | None) -> None:
    """Do what a form asks for.

    Raises:
        MaintenanceError, ValueError: It could not be done.
    """
    # What the operator saw must still be so; the change itself requires the version, so nothing slips in between.
    version = await expected(name, form.get("etag", ""))
    reason = form.get("reason", "").strip() or None
    match form.get("action"):
        case "set":
            mode = MaintenanceMode(form.get("mode", ""))
            is_off = mode is MaintenanceMode.OFF
            broken = is_off and form.get("break_holds") == "yes"
            await change_mode(
                mode,
                name=name,
                reason=None if is_off else reason,
                until=None if is_off else await _entered_end(form.get("until", ""), name),
                retry_after=None if is_off else _seconds(form.get("retry_after", "")),
                by=by,
                expected_version=version,
                refuse_while_held=is_off and not broken,
                break_holds=broken,
            )
        case "plan":
            start, end = _moment(form.get("start")), _moment(form.get("end"))
            if start is None or end is None:
                raise InvalidConfiguration("a start and an end are needed")
            planned = MaintenanceMode.READ_ONLY if form.get("mode") == "read_only" else MaintenanceMode.ON
            rrule = form.get("rrule", "").strip() or None
            await schedule_maintenance(
                start, end, name=name, mode=planned, reason=reason, rrule=rrule, zone="UTC" if rrule else None, by=by
            )
        case "cancel":
            await cancel_maintenance(form.get("window", ""), name=name, by=by)
        case "break":
            await break_hold(form.get("hold", ""), name=name, by=by)
        case action:
            raise InvalidConfiguration(f"action {action!r}: accepted are set, plan, cancel, break")


def _stored(state: MaintenanceState, now: datetime) -> tuple[MaintenanceMode, Explanation]:
    """Return what a form that changes a switch begins with: the stored mode, or what else is going on."""
    if state.stored_mode_at(now) is not MaintenanceMode.OFF:
        return state.mode, Explanation(state.reason, state.until, state.retry_after)
    mode = state.mode_at(now)
    return mode, Explanation() if mode is MaintenanceMode.OFF else state.explanation_at(now)


async def _filled_in(name: str) -> dict[str, str]:
    """Return the fields of a form that changes a switch, as text, and what it does."""
    state, now = await get_maintenance_state(name=name), datetime.now(UTC)
    mode, (reason, until, retry_after) = _stored(state, now)
    is_held = bool(state.holds_at(now)) and state.stored_mode_at(now) is MaintenanceMode.OFF
    return {
        "does": "switch on" if mode is MaintenanceMode.OFF else "keep on" if is_held else "change",
        "mode": mode.value,
        "reason": reason or "",
        "until": "" if until is None else _entered(until),
        "retry_after": "" if retry_after is None else str(retry_after),
    }


async def _entered_end(text: str, name: str) -> datetime | None:
    """Return the end that was entered; one that was left as it was keeps its seconds, which the field doesn't have."""
    until = _stored(await get_maintenance_state(name=name), datetime.now(UTC))[1].until
    return until if until is not None and text == _entered(until) else _moment(text)


def _entered(moment: datetime) -> str:
    """Return a time as a browser's field has it."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M}"


def _seconds(text: str) -> int | None:
    """Return a number of seconds that was entered."""
    if not text.strip():
        return None
    try:
        return int(text)
    except ValueError:
        raise InvalidConfiguration(f"Retry-After {text!r}: whole seconds are needed, such as 600") from None


def _moment(text: str | None) -> datetime | None:
    """Return a time that was entered; the page says that times are in UTC."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidConfiguration(f"{text!r} is no time: one such as 2030-01-31T22:00 is needed") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


async def _shown(
    page: Page,
    request: Request,
    problem: str | None = None,
    status: int = 200,
    *,
    refused: dict[str, str] | None = None,
) -> Response:
    token = request.cookies.get(_COOKIE) or secrets.token_urlsafe(24)
    html = page.template.render(
        switches=[(await describe_switch(name), await _filled_in(name)) for name in page.names(request)],
        # Fields that a form did not have are empty.
        refused=defaultdict(str, refused or {}),
        fresh=defaultdict(str, start=_entered(datetime.now(UTC) + timedelta(hours=1))),
        in_flight=[tuple(one) for one in others_in_flight()[:SHOWN_IN_FLIGHT]],
        now=datetime.now(UTC),
        problem=problem,
        token=token,
        style=file("admin.css"),
        script=file("admin.js"),
        here=_HERE,
    )
    response = HTMLResponse(html, status, _headers())
    # Without a path it is for the page's directory, as the browser knows it (RFC 6265, section 5.1.4).
    is_secure = request.scope.get("scheme") == "https"
    response.set_cookie(_COOKIE, token, path=None, httponly=True, samesite="strict", secure=is_secure)
    return response


@functools.cache
def _headers() -> dict[str, str]:
    return {
        "Cache-Control": "no-store",
        "Content-Security-Policy": (
            f"default-src 'none'; style-src '{_hash('admin.css')}'; script-src '{_hash('admin.js')}'; "
            "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        ),
        "Referrer-Policy": "same-origin",  # with "no-referrer" browsers hide the origin of forms from us as well
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }


def _hash(name: str) -> str:
    """Return how a Content-Security-Policy names what stands in the page itself."""
    return "sha256-" + base64.b64encode(hashlib.sha256(file(name).encode()).digest()).decode()
