"""The operator's page and its JSON API, as a router: ``app.include_router(maintenance_admin(dependencies=[...]))``."""

# No `from __future__ import annotations`: FastAPI reads the annotations of functions that are made in a function.

import base64
import contextlib
import functools
import hashlib
import importlib
import importlib.resources
import logging
import re
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.params import Depends as Dependency
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.status import (
    HTTP_201_CREATED,
    HTTP_204_NO_CONTENT,
    HTTP_303_SEE_OTHER,
    HTTP_400_BAD_REQUEST,
    HTTP_403_FORBIDDEN,
    HTTP_404_NOT_FOUND,
    HTTP_409_CONFLICT,
    HTTP_412_PRECONDITION_FAILED,
    HTTP_415_UNSUPPORTED_MEDIA_TYPE,
    HTTP_501_NOT_IMPLEMENTED,
    HTTP_503_SERVICE_UNAVAILABLE,
)

from .control import (
    break_hold,
    cancel_maintenance,
    change_mode,
    get_maintenance_state,
    get_maintenance_status,
    schedule_maintenance,
)
from .decorators import force_maintenance_mode_off
from .drain import others_in_flight
from .exceptions import (
    HoldLost,
    InvalidConfiguration,
    MaintenanceError,
    MissingExtra,
    ReadOnlyBackend,
    SwitchIsHeld,
    UnknownWindow,
    UnsupportedByBackend,
    VersionConflict,
)
from .exemptions import items_of
from .guard import MaintenanceGuard
from .handlers import call
from .registry import DEFAULT, checked_name, registry
from .routes import operations_of
from .schedule import Window
from .state import MAX_REASON, MAX_RETRY_AFTER, Explanation, MaintenanceMode, MaintenanceState

logger = logging.getLogger("fastapi_maintenance")

_COOKIE = "maintenance_admin"
_SHOWN_IN_FLIGHT = 20
_LONGEST_TEXT = 500
_MOST_ETAGS = 32
"""How many of ``If-Match`` are compared."""

User = Callable[[Request], str | Awaitable[str]]
SwitchName = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=100)]


class HoldModel(BaseModel):
    """A hold: code that keeps a switch on or off for as long as it runs."""

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
    mode: Literal["on", "read_only"]
    reason: str | None
    rrule: str | None
    zone: str | None


class SwitchModel(BaseModel):
    """All there is to know of a switch."""

    name: str
    mode: MaintenanceMode
    """The mode that counts now."""
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
    """How well this process knows it: ``ready``, ``stale``, ``error`` or ``not_ready``."""
    last_error: str | None
    in_flight: int
    """How many requests that it governs this process is answering, the one that asks apart."""


class ModeChange(BaseModel):
    """What to store."""

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
    mode: Literal["on", "read_only"] = "on"
    reason: str | None = Field(default=None, max_length=MAX_REASON)
    rrule: str | None = Field(default=None, max_length=_LONGEST_TEXT)
    zone: str | None = Field(default=None, max_length=100)


class Problem(BaseModel):
    """Why something was refused."""

    detail: str


def maintenance_admin(
    *,
    dependencies: Iterable[Any] = (),
    names: Iterable[str] | None = None,
    user: User | None = None,
    insecure: bool = False,
) -> APIRouter:
    """Return a router with the operator's page at its root and a JSON API below ``/api``.

    It stays open whatever the switches say, and changes nothing by GET. Needs the extra ``admin``.

    Args:
        dependencies: What lets operators in, and nobody else: ``[Depends(only_operators)]``.
        names: The switches to show; by default all that this process knows, and those of the app's guards.
        user: Takes the request and returns who makes a change, for colleagues; sync or async. If it fails, that is
            logged, and nobody is named.
        insecure: Whether to do without ``dependencies``, on a developer's own machine: only clients with a loopback
            address that ask for ``localhost`` or such an address are answered, and Starlette's ``TestClient``. What
            comes through a proxy or a unix socket is refused, since anybody may have sent it.

    Raises:
        InvalidConfiguration: Nothing would keep strangers out, or an option has a value that can't work.
        MissingExtra: Jinja2 or python-multipart isn't installed.
    """
    keeping_out = _dependencies(dependencies)
    if not keeping_out and not insecure:
        raise InvalidConfiguration(
            "maintenance_admin() without dependencies would let everybody switch the service off: pass "
            "dependencies=[Depends(...)] with what lets operators in, or insecure=True on your own machine"
        )
    if user is not None and not callable(user):
        raise InvalidConfiguration(
            f"user={user!r}: a function is needed that takes the request and returns who makes a change, "
            "such as lambda request: request.user.display_name"
        )
    if not keeping_out:
        logger.warning("maintenance_admin(insecure=True): everybody on this machine can switch the service off")
        keeping_out = [Depends(_own_machine)]
    page = _Page(
        known=None if names is None else [checked_name(name) for name in items_of("names", names)],
        user=user if user is not None else lambda _: "admin",
    )
    router = APIRouter(
        dependencies=[*keeping_out, Depends(_same_site), Depends(_keep_out_of_caches)], tags=["maintenance"]
    )
    _add_api(router, page)
    _add_page(router, page)
    return router


def _dependencies(value: object) -> list[Any]:
    """Return what keeps strangers out, as FastAPI takes it."""
    dependencies = list(value) if isinstance(value, Iterable) else [value] if value is not None else []
    if isinstance(value, Dependency) or not all(isinstance(one, Dependency) for one in dependencies):
        raise InvalidConfiguration(
            f"dependencies={value!r}: a list is needed, with each in Depends; write dependencies=[Depends(...)] "
            "with what lets operators in"
        )
    return dependencies


class _Page:
    """What the routes of one admin share."""

    def __init__(self, *, known: list[str] | None, user: User) -> None:
        self._user = user
        self._known = known
        self.template = _template()

    def names(self, request: Request) -> list[str]:
        """Return the switches, the default one first."""
        if self._known is not None:
            return self._known
        found = [DEFAULT, *(name for name, _ in registry.in_use())]
        if isinstance(request.app, FastAPI):
            calls = (call for operation in operations_of(request.app) for call in operation.dependencies)
            found += [call.name for call in calls if isinstance(call, MaintenanceGuard)]
        return [DEFAULT, *sorted(set(found) - {DEFAULT})]

    def checked(self, request: Request, name: str) -> str:
        """Return a switch's name, or raise 404."""
        if name not in self.names(request):
            raise _refusal(HTTP_404_NOT_FOUND, f"there is no switch {name!r}")
        return name

    async def user(self, request: Request) -> str | None:
        """Return who makes a change, or ``None`` if the app's function fails to tell."""
        try:
            user = await call(self._user, request)
        except HTTPException:  # an answer of its own, as that of a dependency
            raise
        except Exception:
            logger.exception("user failed: it isn't known who makes this change")
            return None
        if not isinstance(user, str):
            logger.error("user returned %r, which is no string: it isn't known who makes this change", user)
            return None
        return user


# The API

_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": description}
    for status, description in {
        HTTP_400_BAD_REQUEST: "The body can't be read",
        HTTP_403_FORBIDDEN: "A request from another site, or from another machine where that may not ask",
        HTTP_404_NOT_FOUND: "No such switch, window or hold",
        HTTP_409_CONFLICT: "Code holds the switch, or its store can't keep that",
        HTTP_412_PRECONDITION_FAILED: "Somebody else changed it meanwhile",
        HTTP_415_UNSUPPORTED_MEDIA_TYPE: "The body is no JSON",
        HTTP_501_NOT_IMPLEMENTED: "An optional dependency is missing here",
        HTTP_503_SERVICE_UNAVAILABLE: "The store does not answer",
    }.items()
}
IfMatch = Annotated[str | None, Header(description="The ETag that the change is based on")]


def _add_api(router: APIRouter, page: _Page) -> None:
    @router.get("/api/switches", responses=_REFUSALS)
    @force_maintenance_mode_off
    async def list_switches(request: Request) -> list[SwitchModel]:
        """Return all switches."""
        with _refusals():
            return [await _described(name) for name in page.names(request)]

    @router.get("/api/switches/{name}", responses=_REFUSALS)
    @force_maintenance_mode_off
    async def get_switch(name: SwitchName, request: Request, response: Response) -> SwitchModel:
        """Return one switch, with its ETag."""
        with _refusals():
            described = await _described(page.checked(request, name))
        response.headers["ETag"] = described.etag
        return described

    @router.put("/api/switches/{name}/mode", responses=_REFUSALS, dependencies=[Depends(_json_only)])
    @force_maintenance_mode_off
    async def set_mode(
        name: SwitchName, change: ModeChange, request: Request, response: Response, if_match: IfMatch = None
    ) -> SwitchModel:
        """Store a mode; ``off`` is refused while code holds the switch on, unless that is to be broken."""
        with _refusals():
            await change_mode(
                change.mode,
                name=page.checked(request, name),
                reason=change.reason,
                until=change.until,
                retry_after=change.retry_after,
                by=await page.user(request),
                expected_version=await _expected(name, if_match),
                refuse_while_held=change.mode is MaintenanceMode.OFF and not change.break_holds,
                break_holds=change.break_holds,
            )
            described = await _described(name)
        response.headers["ETag"] = described.etag
        return described

    @router.post(
        "/api/switches/{name}/windows",
        responses=_REFUSALS,
        status_code=HTTP_201_CREATED,
        dependencies=[Depends(_json_only)],
    )
    @force_maintenance_mode_off
    async def plan_window(name: SwitchName, plan: WindowPlan, request: Request) -> WindowModel:
        """Plan a maintenance."""
        with _refusals():
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

    @router.delete("/api/switches/{name}/windows/{window_id}", responses=_REFUSALS, status_code=HTTP_204_NO_CONTENT)
    @force_maintenance_mode_off
    async def cancel_window(name: SwitchName, window_id: str, request: Request) -> None:
        """Cancel a planned maintenance."""
        with _refusals():
            await cancel_maintenance(window_id, name=page.checked(request, name), by=await page.user(request))

    @router.delete("/api/switches/{name}/holds/{hold_id}", responses=_REFUSALS, status_code=HTTP_204_NO_CONTENT)
    @force_maintenance_mode_off
    async def break_one_hold(name: SwitchName, hold_id: str, request: Request) -> None:
        """Take a hold away from the code that has it."""
        with _refusals():
            await break_hold(hold_id, name=page.checked(request, name), by=await page.user(request))


async def _described(name: str) -> SwitchModel:
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


async def _expected(name: str, if_match: str | None) -> int | None:
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


_STATUSES: tuple[tuple[type[MaintenanceError], int], ...] = (
    (VersionConflict, HTTP_412_PRECONDITION_FAILED),
    (SwitchIsHeld, HTTP_409_CONFLICT),
    (HoldLost, HTTP_404_NOT_FOUND),
    (UnknownWindow, HTTP_404_NOT_FOUND),
    (ReadOnlyBackend, HTTP_409_CONFLICT),
    (UnsupportedByBackend, HTTP_409_CONFLICT),
    (MissingExtra, HTTP_501_NOT_IMPLEMENTED),
    (MaintenanceError, HTTP_503_SERVICE_UNAVAILABLE),
)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Turn our errors into answers."""
    try:
        yield
    except InvalidConfiguration as error:
        problem = {"type": "value_error", "loc": ("body",), "msg": str(error), "input": None}
        raise RequestValidationError([problem]) from None
    except MaintenanceError as error:
        status = next(status for kind, status in _STATUSES if isinstance(error, kind))
        if isinstance(error, VersionConflict):
            raise _refusal(status, "somebody else changed the switch meanwhile; look again and decide") from None
        raise _refusal(status, str(error)) from None


def _refusal(status: int, detail: str) -> HTTPException:
    """Return an answer that no cache keeps: some would keep a 404 or a 501."""
    return HTTPException(status, detail, _NOT_KEPT)


_NOT_KEPT = {"Cache-Control": "no-store"}


def _keep_out_of_caches(response: Response) -> None:
    """Have no cache keep what the API answers."""
    response.headers.update(_NOT_KEPT)


# Against other machines and sites


_HOST = re.compile(r"(?:(localhost)|\[([0-9a-f:.]++)\]|([0-9.]++))(?::[0-9]*+)?", re.IGNORECASE)
_OF_PROXIES = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


def _own_machine(request: Request) -> None:
    """Refuse clients on other machines, and pages of other sites whose names lead here (DNS rebinding)."""
    client, hosts = request.client, request.headers.getlist("host")
    if client is not None and len(hosts) == 1 and not any(name in request.headers for name in _OF_PROXIES):
        is_test = client.host == "testclient"
        name = _HOST.fullmatch(hosts[0])
        is_local = name is not None and (name[1] or _is_loopback(name[2] or name[3]))
        if (is_test or _is_loopback(client.host)) and (is_local or (is_test and hosts == ["testserver"])):
            return
    raise _refusal(
        HTTP_403_FORBIDDEN,
        "maintenance_admin(insecure=True) answers only clients on this machine that ask for localhost, with no proxy "
        f"or unix socket in between, not {None if client is None else client.host!r} asking for {hosts!r}; anywhere "
        "else, replace insecure=True by dependencies=[Depends(...)] with what lets operators in",
    )


def _is_loopback(address: str) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


def _same_site(request: Request) -> None:
    """Refuse a change that a page of another site makes its visitor's browser ask for."""
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    foreign = site is not None and site not in ("same-origin", "none")
    # Only the host is compared: a proxy that ends TLS changes the scheme.
    if foreign or (origin is not None and origin.partition("://")[2] != request.headers.get("host")):
        raise _refusal(HTTP_403_FORBIDDEN, "this request comes from another site")


def _json_only(request: Request) -> None:
    """Refuse bodies that a form of another site can send: only JSON needs the site's consent (CORS)."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise _refusal(HTTP_415_UNSUPPORTED_MEDIA_TYPE, f"Content-Type {kind!r}: application/json is needed")


# The page


def _add_page(router: APIRouter, page: _Page) -> None:
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
            raise _refusal(HTTP_403_FORBIDDEN, "this form is too old, or from another site: load the page again")
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
    version = await _expected(name, form.get("etag", ""))
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
    page: _Page,
    request: Request,
    problem: str | None = None,
    status: int = 200,
    *,
    refused: dict[str, str] | None = None,
) -> Response:
    token = request.cookies.get(_COOKIE) or secrets.token_urlsafe(24)
    html = page.template.render(
        switches=[(await _described(name), await _filled_in(name)) for name in page.names(request)],
        # Fields that a form did not have are empty.
        refused=defaultdict(str, refused or {}),
        fresh=defaultdict(str, start=_entered(datetime.now(UTC) + timedelta(hours=1))),
        in_flight=[tuple(one) for one in others_in_flight()[:_SHOWN_IN_FLIGHT]],
        now=datetime.now(UTC),
        problem=problem,
        token=token,
        style=_file("admin.css"),
        script=_file("admin.js"),
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
    return "sha256-" + base64.b64encode(hashlib.sha256(_file(name).encode()).digest()).decode()


@functools.cache
def _file(name: str) -> str:
    return importlib.resources.files(__package__).joinpath("pages", name).read_text("utf-8")


def _import_form_parser() -> None:
    """Import what Starlette reads forms with, by its new name or by its old one."""
    try:
        importlib.import_module("python_multipart")
    except ImportError:
        importlib.import_module("multipart")


def _template() -> Any:
    try:
        import jinja2  # noqa: PLC0415 - an extra

        _import_form_parser()
    except ImportError:
        raise MissingExtra("maintenance_admin", "admin") from None
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["moment"] = lambda moment: f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return environment.from_string(_file("admin.html"))
