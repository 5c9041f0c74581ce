"""The HTML page of the admin."""

# No `from __future__ import annotations`: FastAPI reads the annotations of functions that are made in a function.

import functools
import secrets
from collections import defaultdict
from datetime import UTC, datetime, timedelta

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.status import HTTP_303_SEE_OTHER, HTTP_403_FORBIDDEN, HTTP_409_CONFLICT, HTTP_412_PRECONDITION_FAILED

from ..answers.page import digest_of, read_page_file
from ..exceptions import InvalidConfiguration, MaintenanceError, VersionConflict
from ..holds.in_flight import others_in_flight
from ..model.modes import PARTIAL, MaintenanceMode
from ..model.state import Explanation, MaintenanceState
from ..routing.marks import force_maintenance_mode_off
from ..switches.app_switch import DEFAULT
from ..switches.control import break_hold, cancel_maintenance, change_mode, get_maintenance_state, schedule_maintenance
from .access import Desk
from .api import MAX_IN_FLIGHT_SHOWN, describe_switch, required_version
from .refusals import refusal_of

_COOKIE = "maintenance_admin"


def add_page(router: APIRouter, desk: Desk) -> None:
    """Add the routes of the page to the router."""

    @router.get("/", include_in_schema=False, name="maintenance_admin")
    @force_maintenance_mode_off
    async def show(request: Request) -> Response:
        """Show all switches."""
        return await _render(desk, request)

    @router.post("/", include_in_schema=False)
    @force_maintenance_mode_off
    async def act(request: Request) -> Response:
        """Perform the action of a form, and show the page again."""
        form = {name: value for name, value in (await request.form()).items() if isinstance(value, str)}
        token = request.cookies.get(_COOKIE, "")
        if not token or not secrets.compare_digest(token.encode(), form.get("token", "").encode()):
            raise refusal_of(HTTP_403_FORBIDDEN, "this form is too old or comes from another site: reload the page")
        name = desk.check_name(request, form.get("name", DEFAULT))
        try:
            await _perform(form, name, await desk.user(request))
        except VersionConflict:
            problem = (
                f"Nothing was done: somebody else changed {name!r} since you loaded the page. Review the current "
                "state below (your input is kept) and decide again."
            )
            return await _render(desk, request, problem, HTTP_412_PRECONDITION_FAILED, refused=form)
        except (MaintenanceError, ValueError) as error:
            return await _render(desk, request, f"{name}: {error}", HTTP_409_CONFLICT, refused=form)
        return RedirectResponse(_HERE, HTTP_303_SEE_OTHER)


_HERE = "./"
"""A relative reference to the page: old versions of Starlette build absolute URLs from ``Host``."""


async def _perform(form: dict[str, str], name: str, by: str | None) -> None:
    """Perform the action of a form.

    Raises:
        MaintenanceError, ValueError: The action failed.
    """
    # The state must still be the one that the operator saw; the change requires its version, so there is no race.
    version = await required_version(name, form.get("etag", ""))
    reason = form.get("reason", "").strip() or None
    match form.get("action"):
        case "set":
            mode = MaintenanceMode(form.get("mode", ""))
            is_off = mode is MaintenanceMode.OFF
            await change_mode(
                mode,
                name=name,
                reason=None if is_off else reason,
                until=None if is_off else await _parse_end(form.get("until", ""), name),
                retry_after=None if is_off else _parse_seconds(form.get("retry_after", "")),
                by=by,
                expected_version=version,
                break_holds=is_off and form.get("break_holds") == "yes",
            )
        case "plan":
            start, end = _parse_time(form.get("start")), _parse_time(form.get("end"))
            if start is None or end is None:
                raise InvalidConfiguration("start and end must be given")
            planned = MaintenanceMode(form["mode"]) if form.get("mode") in PARTIAL else MaintenanceMode.ON
            rrule = form.get("rrule", "").strip() or None
            await schedule_maintenance(
                start, end, name=name, mode=planned, reason=reason, rrule=rrule, zone="UTC" if rrule else None, by=by
            )
        case "cancel":
            await cancel_maintenance(form.get("window", ""), name=name, by=by)
        case "break":
            await break_hold(form.get("hold", ""), name=name, by=by)
        case action:
            raise InvalidConfiguration(f"action must be set, plan, cancel or break, got {action!r}")


def _stored_or_current(state: MaintenanceState, now: datetime) -> tuple[MaintenanceMode, Explanation]:
    """Return the initial values of a form: the stored mode, or the effective one if the stored one is off."""
    if state.stored_mode_at(now) is not MaintenanceMode.OFF:
        return state.mode, Explanation(state.reason, state.until, state.retry_after)
    mode = state.mode_at(now)
    return mode, Explanation() if mode is MaintenanceMode.OFF else state.explanation_at(now)


async def _form_fields_of(name: str) -> dict[str, str]:
    """Return the fields of the form that changes a switch as text, with a key for its label."""
    state, now = await get_maintenance_state(name=name), datetime.now(UTC)
    mode, (reason, until, retry_after) = _stored_or_current(state, now)
    is_held = bool(state.holds_at(now)) and state.stored_mode_at(now) is MaintenanceMode.OFF
    return {
        "does": "switch on" if mode is MaintenanceMode.OFF else "keep on" if is_held else "change",
        "mode": mode.value,
        "reason": reason or "",
        "until": "" if until is None else _format_time(until),
        "retry_after": "" if retry_after is None else str(retry_after),
    }


async def _parse_end(text: str, name: str) -> datetime | None:
    """Return the entered end; an unchanged one keeps its seconds, which the field doesn't show."""
    until = _stored_or_current(await get_maintenance_state(name=name), datetime.now(UTC))[1].until
    return until if until is not None and text == _format_time(until) else _parse_time(text)


def _format_time(moment: datetime) -> str:
    """Return a time in the format of a browser's field."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M}"


def _parse_seconds(text: str) -> int | None:
    """Return the entered seconds, or ``None`` for an empty field."""
    if not text.strip():
        return None
    try:
        return int(text)
    except ValueError:
        raise InvalidConfiguration(f"Retry-After must be whole seconds, such as 600, got {text!r}") from None


def _parse_time(text: str | None) -> datetime | None:
    """Return the entered time, in UTC unless it has a zone, or ``None`` for an empty field."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidConfiguration(f"time must have the format 2030-01-31T22:00, got {text!r}") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


async def _render(
    desk: Desk,
    request: Request,
    problem: str | None = None,
    status: int = 200,
    *,
    refused: dict[str, str] | None = None,
) -> Response:
    token = request.cookies.get(_COOKIE) or secrets.token_urlsafe(24)
    html = desk.template.render(
        switches=[(await describe_switch(name), await _form_fields_of(name)) for name in desk.names(request)],
        # Fields that the form lacks are empty.
        refused=defaultdict(str, refused or {}),
        fresh=defaultdict(str, start=_format_time(datetime.now(UTC) + timedelta(hours=1))),
        in_flight=[tuple(one) for one in others_in_flight()[:MAX_IN_FLIGHT_SHOWN]],
        now=datetime.now(UTC),
        problem=problem,
        token=token,
        style=read_page_file("admin.css"),
        script=read_page_file("admin.js"),
        here=_HERE,
    )
    response = HTMLResponse(html, status, _security_headers())
    # Without a path, the cookie applies to the page's directory (RFC 6265, section 5.1.4).
    is_secure = request.scope.get("scheme") == "https"
    response.set_cookie(_COOKIE, token, path=None, httponly=True, samesite="strict", secure=is_secure)
    return response


@functools.cache
def _security_headers() -> dict[str, str]:
    return {
        "Cache-Control": "no-store",
        "Content-Security-Policy": (
            f"default-src 'none'; style-src {digest_of(read_page_file('admin.css'))}; "
            f"script-src {digest_of(read_page_file('admin.js'))}; "
            "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        ),
        "Referrer-Policy": "same-origin",  # with "no-referrer", browsers also omit the origin of forms
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }
