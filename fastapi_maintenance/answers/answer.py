"""What a refused client is told: in JSON, as a problem document, as a page or as plain text, whichever it prefers."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.status import HTTP_503_SERVICE_UNAVAILABLE
from starlette.types import Scope

from ..exceptions import InvalidConfiguration
from ..model.decision import Decision, Rule
from ..model.limits import MAX_RETRY_AFTER
from ..model.modes import MaintenanceMode
from ..model.text import encodable, legible
from .accept import preferred
from .page import SHIPPED, SHIPPED_POLICY, Page

DETAIL = "Service temporarily unavailable due to maintenance"
TITLE = "We’ll be back soon"
READ_ONLY = "Reading works, changing does not."
"""What people are told in addition while only changes are refused."""
_WHILE_READ_ONLY = {DETAIL: "Service temporarily read-only due to maintenance", TITLE: "Read-only for now"}
"""The default texts, and what they are while only changes are refused."""
RETRY_AFTER_SECONDS = 3600
"""What clients are told while the end isn't known."""

JSON, PROBLEM, HTML, TEXT = "application/json", "application/problem+json", "text/html", "text/plain"
OFFERED = (JSON, PROBLEM, HTML, TEXT)
"""The media types of the default answer, the one for clients that don't mind first."""

_SECOND = timedelta(seconds=1)
_LAST_MINUTE = datetime.max.replace(second=0, microsecond=0, tzinfo=UTC)
"""Behind it no whole minute is left to round an end up to, such as ``datetime.max``."""
_LONGEST_RELOAD_SECONDS = 2_000_000
"""Browsers keep such times in milliseconds and 31 bits; a longer one would be due at once."""

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")
_DEFAULT_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_OUR_HEADERS = {
    "retry-after": "it is told by retry_after=, or by the end of the maintenance",
    "content-type": "it follows from what the client prefers",
    "content-length": "it follows from the body",
    "transfer-encoding": "the server sets it",
    "connection": "the server sets it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How refused clients are answered where no ``response_handler`` does it.

    Clients choose by ``Accept`` (RFC 9110, section 12.5.1) between JSON, the problem document of RFC 9457, a page and
    plain text, and get JSON if they don't mind.

    Args:
        status: The HTTP status, 400 to 599; load balancers and search engines know what 503 means.
        headers: More headers, such as ``{"Cache-Control": "no-cache"}``, and stronger than the default ones.
        retry_after: The seconds after which clients are told to come back while the end isn't known.
        jitter_seconds: Spreads the clients out: each is told a time that is later by up to so many seconds.
        detail: The sentence in every answer. The default one says so where only changes are refused.
        title: The headline of the page and the plain text, likewise.
        html: The page: a template as a string, or the ``Path`` of a file with one. See ``Page`` for what it can have.

    Raises:
        InvalidConfiguration: A value that can't work.
    """

    status: int = HTTP_503_SERVICE_UNAVAILABLE
    headers: Mapping[str, str] = field(default_factory=dict)
    retry_after: int = RETRY_AFTER_SECONDS
    jitter_seconds: int = 0
    detail: str = DETAIL
    title: str = TITLE
    html: str | os.PathLike[str] | None = None
    _page: Page = field(init=False, repr=False, compare=False)
    fixed_headers: Mapping[str, str] = field(init=False, repr=False, compare=False)
    """The headers that don't depend on the decision."""

    def __post_init__(self) -> None:
        if not _is_int(self.status) or not 400 <= self.status <= 599:  # noqa: PLR2004
            raise InvalidConfiguration(
                f"status={self.status!r}: 400 to 599 is needed, so that nobody takes the answer for the real one"
            )
        for name in ("retry_after", "jitter_seconds"):
            value = getattr(self, name)
            if not _is_int(value) or not 0 <= value <= MAX_RETRY_AFTER:
                raise InvalidConfiguration(f"{name}={value!r} must be whole seconds from 0 to {MAX_RETRY_AFTER}")
        for name in ("detail", "title"):
            value = getattr(self, name)
            if not isinstance(value, str) or not legible(value):
                raise InvalidConfiguration(f"{name}={value!r}: a text is needed")
        headers = MappingProxyType(_checked_headers(self.headers))
        object.__setattr__(self, "headers", headers)
        object.__setattr__(self, "fixed_headers", _with_defaults(headers))
        object.__setattr__(self, "_page", _page_of(self.html))

    def told(self, decision: Decision, now: datetime, draw: Callable[[int], int] = secrets.randbelow) -> Decision:
        """Return the decision with the seconds after which its client is told to come back.

        It is never after the end plus jitter. Seconds are told as whole ones: without jitter the rest of a second is
        dropped, and a client that comes on time can be early by that, to be refused once more. With jitter it is never
        before the end either.

        Args:
            decision: Why the client is refused; one that has the seconds already keeps them.
            now: When the answer is sent.
            draw: Returns a random number below its argument.
        """
        if decision.retry_after is not None:
            return decision
        if decision.until is None:
            stated = decision.stated_retry_after
            earliest = self.retry_after if stated is None else stated
            latest = earliest + self.jitter_seconds
        else:
            left = max(timedelta(0), decision.until - now)
            latest = left // _SECOND + self.jitter_seconds
            earliest = min(_rounded_up(left), latest)
        spread = latest - earliest
        return replace(decision, retry_after=earliest + (draw(spread + 1) if spread else 0))

    def detail_of(self, decision: Decision) -> str:
        """Return the sentence for one refusal."""
        return _by_mode(self.detail, decision)

    def varies(self, decision: Decision) -> bool:
        """Return whether the answer to the same request is another one later, or by chance."""
        return decision.until is not None or self.jitter_seconds > 0

    def headers_of(self, decision: Decision) -> dict[str, str]:
        """Return the headers of every kind of answer, for a decision that was ``told``."""
        return {"Retry-After": str(decision.retry_after), **self.fixed_headers}

    def response(self, decision: Decision, request: Request, now: datetime) -> Response:
        """Return the answer that the client of ``request`` prefers, for a decision that was ``told``."""
        kinds = {JSON: self._json, PROBLEM: self._problem, HTML: self._html, TEXT: self._text}
        make = kinds[preferred_by(request.scope)]
        response = make(decision, now, self.headers_of(decision), get=request.method in ("GET", "HEAD"))
        if request.method == "HEAD":
            response.body = b""  # and Content-Length stays what it is for GET
        return response

    def _json(self, decision: Decision, now: datetime, headers: dict[str, str], *, get: bool) -> Response:
        return JSONResponse({"detail": encodable(self.detail_of(decision)), **_facts(decision)}, self.status, headers)

    def _problem(self, decision: Decision, now: datetime, headers: dict[str, str], *, get: bool) -> Response:
        problem = {
            # It means no more than the status does, whose phrase is then the title (RFC 9457, section 4.2.1).
            "type": "about:blank",
            "title": _phrase(self.status),
            "status": self.status,
            "detail": encodable(self.detail_of(decision)),
            **_facts(decision),
            "retry_after": decision.retry_after,
        }
        return JSONResponse(problem, self.status, headers, PROBLEM)

    def _html(self, decision: Decision, now: datetime, headers: dict[str, str], *, get: bool) -> Response:
        end = decision.until
        values = {
            "title": legible(_by_mode(self.title, decision)),
            "detail": legible(self.detail_of(decision)),
            "read_only": READ_ONLY if _is_read_only(decision) else "",
            "reason": legible(decision.reason or ""),
            "until": "" if end is None else _iso(end),
            "until_text": "" if end is None else in_words(end),
            "seconds": _reload_seconds(decision, now) if get else "",
        }
        if self.html is None and "content-security-policy" not in map(str.lower, headers):
            headers["Content-Security-Policy"] = SHIPPED_POLICY
        return HTMLResponse(self._page.render(values, get=get), self.status, headers)

    def _text(self, decision: Decision, now: datetime, headers: dict[str, str], *, get: bool) -> Response:
        lines = [legible(_by_mode(self.title, decision)), legible(self.detail_of(decision))]
        if _is_read_only(decision):
            lines.append(READ_ONLY)
        if decision.until is not None:
            lines.append(f"Expected back: {in_words(decision.until)}")
        if decision.reason:
            lines.append(legible(decision.reason))
        return PlainTextResponse("\n\n".join(filter(None, lines)) + "\n", self.status, headers)


def preferred_by(scope: Scope) -> str:
    """Return the media type, out of those offered, that the client of a request prefers."""
    # RFC 9110, section 5.3, lets a client split the header up.
    accept = b", ".join([value for name, value in scope.get("headers", ()) if name == b"accept"])
    return preferred(accept.decode("latin-1"), OFFERED)


def _facts(decision: Decision) -> dict[str, str]:
    """Return what is known of the maintenance."""
    facts = {"mode": MaintenanceMode.READ_ONLY.value} if _is_read_only(decision) else {}
    if decision.reason:
        facts["reason"] = encodable(decision.reason)
    if decision.until is not None:
        facts["until"] = _iso(decision.until)
    return facts


def _is_read_only(decision: Decision) -> bool:
    """Return whether the client was refused because its request may change something."""
    return decision.rule is Rule.MODE and decision.mode is MaintenanceMode.READ_ONLY


def _by_mode(text: str, decision: Decision) -> str:
    return _WHILE_READ_ONLY.get(text, text) if _is_read_only(decision) else text


def _iso(end: datetime) -> str:
    return end.astimezone(UTC).isoformat()


def in_words(end: datetime) -> str:
    """Return an end to the minute, for people: never before the end, but for the calendar's last minute."""
    at = min(end.astimezone(UTC), _LAST_MINUTE)
    past_minute = timedelta(seconds=at.second, microseconds=at.microsecond)
    return f"{at + -past_minute % timedelta(minutes=1):%Y-%m-%d %H:%M} UTC"


def _reload_seconds(decision: Decision, now: datetime) -> str:
    """Return after how many seconds a page is to reload itself: not before the end, nor all pages at once."""
    if decision.until is None:
        return ""
    seconds = max(1, _rounded_up(decision.until - now), decision.retry_after or 0)
    return str(seconds) if seconds <= _LONGEST_RELOAD_SECONDS else ""


def _rounded_up(duration: timedelta) -> int:
    return -(-duration // _SECOND)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # a status that isn't registered
        return "Under Maintenance"


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _checked_headers(headers: Any) -> dict[str, str]:
    """Return a copy of the headers, or raise ``InvalidConfiguration``."""
    if not isinstance(headers, Mapping):
        raise InvalidConfiguration(f"headers={headers!r}: a mapping from names to values is needed")
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise InvalidConfiguration(f"headers: {name!r} can't be a header's name")
        if name.lower() in _OUR_HEADERS:
            raise InvalidConfiguration(f"headers: {name!r} can't be set, {_OUR_HEADERS[name.lower()]}")
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
            raise InvalidConfiguration(f"headers: {value!r} can't be the value of {name!r}: Latin-1 text on one line")
    return dict(headers)


def _with_defaults(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers that don't depend on the decision."""
    names = {name.lower(): name for name in headers}
    merged = dict(headers)
    merged |= {name: value for name, value in _DEFAULT_HEADERS.items() if name.lower() not in names}
    vary = merged.pop(names["vary"]) if "vary" in names else ""
    listed = [name.strip() for name in vary.split(",") if name.strip()]
    if not {"accept", "*"} & {name.lower() for name in listed}:
        listed.append("Accept")
    return merged | {"Vary": ", ".join(listed)}


def _page_of(html: Any) -> Page:
    """Return the page that ``html=`` means, or raise ``InvalidConfiguration``."""
    if html is None:
        return SHIPPED
    if isinstance(html, os.PathLike):
        try:
            template = Path(html).read_text("utf-8")
        except (OSError, UnicodeError) as error:
            raise InvalidConfiguration(f"html={html!r}: it can't be read: {error}") from error
    elif not isinstance(html, str):
        raise InvalidConfiguration(f"html={html!r}: a template, or the Path of a file with one, is needed")
    elif "<" not in html:
        raise InvalidConfiguration(f"html={html!r} has no HTML in it; a file is given as Path({html!r})")
    else:
        template = html
    try:
        return Page(template)
    except ValueError as error:
        raise InvalidConfiguration(f"html: {error}") from error


DEFAULT_ANSWER = Answer()
