"""The default answer to refused requests: JSON, a problem document, a page or plain text."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.status import HTTP_503_SERVICE_UNAVAILABLE
from starlette.types import Scope

from ..exceptions import InvalidConfiguration
from ..model.decision import Decision
from ..model.limits import MAX_RETRY_AFTER
from ..model.text import legible
from .accept import preferred_type
from .body import JSON, PROBLEM, build_answer, build_problem, format_iso, partial_texts_of
from .page import SHIPPED, SHIPPED_POLICY, Page

DETAIL = "Service temporarily unavailable due to maintenance"
TITLE = "We’ll be back soon"
RETRY_AFTER_SECONDS = 3600
"""The default of ``retry_after``, for maintenance without a known end."""

HTML, TEXT = "text/html", "text/plain"
OFFERED = (JSON, PROBLEM, HTML, TEXT)
"""The media types of the default answer; the first is for clients without a preference."""

_SECOND = timedelta(seconds=1)
_LAST_MINUTE = datetime.max.replace(second=0, microsecond=0, tzinfo=UTC)
"""The last whole minute that an end, such as ``datetime.max``, can be rounded up to."""
_LONGEST_RELOAD_SECONDS = 2_000_000
"""Browsers store the delay in 31 bits of milliseconds; a longer delay would reload immediately."""

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")
_DEFAULT_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_OUR_HEADERS = {
    "retry-after": "it is set by retry_after=, or by the end of the maintenance",
    "content-type": "it is the type that the client prefers",
    "content-length": "the body defines it",
    "transfer-encoding": "the server sets it",
    "connection": "the server sets it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to refused requests without a ``response_handler``.

    Clients choose by ``Accept`` (RFC 9110, section 12.5.1) between JSON, the problem document of RFC 9457, a page and
    plain text; the default is JSON.

    Args:
        status: The HTTP status, 400 to 599; load balancers and search engines understand 503.
        headers: More headers, such as ``{"Cache-Control": "no-cache"}``; they override the default headers.
        retry_after: Seconds in ``Retry-After`` while the end isn't known.
        jitter_seconds: Spreads the clients: up to so many random seconds are added to each ``Retry-After``.
        detail: The sentence in every answer. The default has another form while only changes are refused.
        title: The headline of the page and the plain text, likewise.
        html: The page: a template as a string, or the ``Path`` of a template file. See ``Page`` for its syntax.

    Raises:
        InvalidConfiguration: An invalid value.
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
                f"status must be 400 to 599, so that nobody mistakes the answer for the app's, got {self.status!r}"
            )
        for name in ("retry_after", "jitter_seconds"):
            value = getattr(self, name)
            if not _is_int(value) or not 0 <= value <= MAX_RETRY_AFTER:
                raise InvalidConfiguration(f"{name} must be whole seconds from 0 to {MAX_RETRY_AFTER}, got {value!r}")
        for name in ("detail", "title"):
            value = getattr(self, name)
            if not isinstance(value, str) or not legible(value):
                raise InvalidConfiguration(f"{name} must be a text, got {value!r}")
        headers = MappingProxyType(_check_headers(self.headers))
        object.__setattr__(self, "headers", headers)
        object.__setattr__(self, "fixed_headers", _add_default_headers(headers))
        object.__setattr__(self, "_page", _page_of(self.html))

    def with_retry_after(
        self, decision: Decision, now: datetime, draw: Callable[[int], int] = secrets.randbelow
    ) -> Decision:
        """Return the decision with ``retry_after``, the whole seconds after which its client may retry.

        It is never after the end plus jitter. With jitter it is never before the end; without, it is rounded down, so
        a punctual client can be early by less than a second and refused once more.

        Args:
            decision: The reason of the refusal; a decision that already has ``retry_after`` is returned unchanged.
            now: The time of the answer.
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
            earliest = min(_round_up(left), latest)
        spread = latest - earliest
        return replace(decision, retry_after=earliest + (draw(spread + 1) if spread else 0))

    def detail_of(self, decision: Decision) -> str:
        """Return the sentence for one refusal."""
        return _text_of(self.detail, decision)

    def varies(self, decision: Decision) -> bool:
        """Return whether the answer to the same request depends on time or chance."""
        return decision.until is not None or self.jitter_seconds > 0

    def headers_of(self, decision: Decision) -> dict[str, str]:
        """Return the headers of any media type, for a decision with ``retry_after``."""
        return {"Retry-After": str(decision.retry_after), **self.fixed_headers}

    def response(self, decision: Decision, request: Request, now: datetime) -> Response:
        """Return the answer that the client of ``request`` prefers, for a decision with ``retry_after``."""
        kind, detail, headers = preferred_type_of(request.scope), self.detail_of(decision), self.headers_of(decision)
        response: Response
        if kind == HTML:
            response = self._build_page(decision, now, headers, get=request.method in ("GET", "HEAD"))
        elif kind == TEXT:
            response = PlainTextResponse(self._build_text(decision), self.status, headers)
        elif kind == PROBLEM:
            response = JSONResponse(build_problem(decision, detail, self.status), self.status, headers, PROBLEM)
        else:
            response = JSONResponse(build_answer(decision, detail), self.status, headers)
        if request.method == "HEAD":
            response.body = b""  # Content-Length stays the same as for GET
        return response

    def _build_page(self, decision: Decision, now: datetime, headers: dict[str, str], *, get: bool) -> Response:
        end = decision.until
        values = {
            "title": legible(_text_of(self.title, decision)),
            "detail": legible(self.detail_of(decision)),
            "read_only": "" if (texts := partial_texts_of(decision)) is None else texts.note,
            "reason": legible(decision.reason or ""),
            "until": "" if end is None else format_iso(end),
            "until_text": "" if end is None else format_end(end),
            "seconds": _reload_seconds(decision, now) if get else "",
        }
        if self.html is None and "content-security-policy" not in map(str.lower, headers):
            headers["Content-Security-Policy"] = SHIPPED_POLICY
        return HTMLResponse(self._page.render(values, get=get), self.status, headers)

    def _build_text(self, decision: Decision) -> str:
        lines = [legible(_text_of(self.title, decision)), legible(self.detail_of(decision))]
        if (texts := partial_texts_of(decision)) is not None:
            lines.append(texts.note)
        if decision.until is not None:
            lines.append(f"Expected back: {format_end(decision.until)}")
        if decision.reason:
            lines.append(legible(decision.reason))
        return "\n\n".join(filter(None, lines)) + "\n"


def preferred_type_of(scope: Scope) -> str:
    """Return the media type, out of those offered, that the client of a request prefers."""
    # RFC 9110, section 5.3, lets a client split the header into several.
    accept = b", ".join([value for name, value in scope.get("headers", ()) if name == b"accept"])
    return preferred_type(accept.decode("latin-1"), OFFERED)


def _text_of(text: str, decision: Decision) -> str:
    """Return a text, or in place of a default one that of the mode."""
    texts = partial_texts_of(decision)
    if texts is None:
        return text
    return {DETAIL: texts.detail, TITLE: texts.title}.get(text, text)


def format_end(end: datetime) -> str:
    """Return an end for people, rounded up to a minute except in the calendar's last minute."""
    at = min(end.astimezone(UTC), _LAST_MINUTE)
    past_minute = timedelta(seconds=at.second, microseconds=at.microsecond)
    return f"{at + -past_minute % timedelta(minutes=1):%Y-%m-%d %H:%M} UTC"


def _reload_seconds(decision: Decision, now: datetime) -> str:
    """Return the seconds after which a page reloads itself: after the end, with jitter; empty for never."""
    if decision.until is None:
        return ""
    seconds = max(1, _round_up(decision.until - now), decision.retry_after or 0)
    return str(seconds) if seconds <= _LONGEST_RELOAD_SECONDS else ""


def _round_up(duration: timedelta) -> int:
    return -(-duration // _SECOND)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_headers(headers: Any) -> dict[str, str]:
    """Return a copy of valid headers, or raise ``InvalidConfiguration``."""
    if not isinstance(headers, Mapping):
        raise InvalidConfiguration(f"headers must be a mapping from names to values, got {headers!r}")
    for name, value in headers.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise InvalidConfiguration(f"headers: {name!r} is no valid header name")
        if name.lower() in _OUR_HEADERS:
            raise InvalidConfiguration(f"headers: {name!r} can't be set, {_OUR_HEADERS[name.lower()]}")
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
            raise InvalidConfiguration(f"headers: {name!r} must be Latin-1 text on one line, got {value!r}")
    return dict(headers)


def _add_default_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers with our defaults and ``Vary: Accept`` added."""
    names = {name.lower(): name for name in headers}
    merged = dict(headers)
    merged |= {name: value for name, value in _DEFAULT_HEADERS.items() if name.lower() not in names}
    vary = merged.pop(names["vary"]) if "vary" in names else ""
    listed = [name.strip() for name in vary.split(",") if name.strip()]
    if not {"accept", "*"} & {name.lower() for name in listed}:
        listed.append("Accept")
    return merged | {"Vary": ", ".join(listed)}


def _page_of(html: Any) -> Page:
    """Return the page for ``html=``, or raise ``InvalidConfiguration``."""
    if html is None:
        return SHIPPED
    if isinstance(html, os.PathLike):
        try:
            html = Path(html).read_text("utf-8")
        except (OSError, UnicodeError) as error:
            raise InvalidConfiguration(f"html: can't read {html!r}: {error}") from error
    elif not isinstance(html, str):
        raise InvalidConfiguration(f"html must be a template or the Path of a template file, got {html!r}")
    elif "<" not in html:
        raise InvalidConfiguration(f"html must be HTML, got {html!r}; pass a file as Path({html!r})")
    try:
        return Page(html)
    except ValueError as error:
        raise InvalidConfiguration(f"html: {error}") from error


DEFAULT_ANSWER = Answer()
