"""Which answer a refused client gets by its ``Accept``, what stands in it, and how an app changes it."""

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from hypothesis import given
from hypothesis import strategies as st
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from fastapi_maintenance import (
    Answer,
    Decision,
    InvalidConfiguration,
    MaintenanceActive,
    MaintenanceGuard,
    MaintenanceMode,
    MaintenanceModeMiddleware,
    configure_backend,
    maintenance_exception_handler,
    set_maintenance_mode,
)
from fastapi_maintenance.answers.accept import _preferred_type, preferred_type
from fastapi_maintenance.answers.answer import DETAIL, HTML, OFFERED, TEXT, preferred_type_of
from fastapi_maintenance.answers.body import JSON, PROBLEM
from fastapi_maintenance.backends import MemoryBackend
from fastapi_maintenance.model.decision import Rule
from tests.support.asgi import call, get, handshake, request, scope_of
from tests.support.costs import cost_of, cost_of_seconds
from tests.support.scripts import ROOT
from tests.support.servers import exchange, uvicorn_server

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
UNTIL = NOW + timedelta(minutes=30)
LONGEST_RELOAD_SECONDS = 2_000_000

CHROME = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
    "application/signed-exchange;v=b3;q=0.7"
)
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
INTERNET_EXPLORER = "text/html, application/xhtml+xml, */*"

CLIENTS: dict[str, tuple[str | None, str]] = {
    "no header": (None, JSON),
    "curl, requests, httpx, fetch": ("*/*", JSON),
    "axios": ("application/json, text/plain, */*", JSON),
    "jQuery for JSON": ("application/json, text/javascript, */*; q=0.01", JSON),
    "jQuery for HTML": ("text/html, */*; q=0.01", HTML),
    "Chrome, Edge, Opera": (CHROME, HTML),
    "Firefox, Safari": (FIREFOX, HTML),
    "Internet Explorer": (INTERNET_EXPLORER, HTML),
    "Lynx": ("text/html, text/plain, text/sgml, text/css, application/xhtml+xml, */*;q=0.01", HTML),
    "Java": ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", HTML),
    "image in a page": ("image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", JSON),
    "event source": ("text/event-stream", JSON),
    "problem document": ("application/problem+json", PROBLEM),
    "problem document, else anything": ("application/problem+json, */*", PROBLEM),
    "problem document or JSON": ("application/problem+json, application/json", JSON),
    "problem document rather than JSON": ("application/problem+json, application/json;q=0.9", PROBLEM),
    "page, and little of the rest": ("*/*;q=0.1, text/html", HTML),
    "page, by capitals": ("TEXT/HTML", HTML),
    "text": ("text/plain", TEXT),
    "any text": ("text/*", HTML),
    "any text but a page": ("text/*, text/html;q=0", TEXT),
    "any application's": ("application/*;q=0.5, */*;q=0.1", JSON),
    "anything but JSON": ("application/json;q=0, */*", PROBLEM),
    "charset": ('text/html; charset="UTF-8"', HTML),
    "weight behind and before parameters": ("text/html;q=0.1;charset=utf-8, text/plain;charset=utf-8;q=0.2", TEXT),
    "spaces, tabs and empty elements": (" ,\t, text/html \t;\tq=0.3 ,, text/plain ; q=0.4 ,", TEXT),
    "empty parameters": ("text/html;;", HTML),
    "old extensions behind the weight": ("text/html;q=1;level, text/plain;q=0.1", TEXT),
    "parameters that nothing offered has": ("text/html;level=1, text/plain;q=0.1", TEXT),
    "comma in a quoted string": ('text/plain;x="text/html, text/html", text/html;q=0.2', HTML),
    "quote in a quoted string": (r'text/plain;x="\", text/plain, \"", text/html;q=0.2', HTML),
    "the RFC's example": (
        "text/*;q=0.3, text/plain;q=0.7, text/plain;format=flowed, text/plain;format=fixed;q=0.4, */*;q=0.5",
        TEXT,
    ),
    "the same range twice": ("text/html;q=0.1, text/plain;q=0.5, text/html;q=0.9", HTML),
    "nothing": ("*/*;q=0", JSON),
    "nothing that is offered": ("image/png, application/xml", JSON),
    "empty": ("", JSON),
    "nonsense": ("please, any / thing!", JSON),
    "a word": ("html", JSON),
    "weights that are none": (
        "text/html;q=1.5, text/html;q=-1, text/html;q=high, text/html;q=0.1234, text/html;q=",
        JSON,
    ),
    "Arabic digits": ("text/html;q=0.\u0665".encode().decode("latin-1"), JSON),
    "wildcard for half a type": ("*/html, tex*/html, text/h*", JSON),
    "wildcard with more behind": ("*/*x", JSON),
    "unclosed quote": ('text/html;x="1, text/html', JSON),
    "too much behind": ("text/html q=1, text/html;q=1 x", JSON),
    "long": ("text/x-" + "x" * 900 + ", text/html;q=0.5", HTML),
    "too long to be read": ("text/html, text/x-" + "x" * 1024, JSON),
}
every_client = pytest.mark.parametrize("client", CLIENTS)


def app_with(answer: Answer | None = None, **options: Any) -> FastAPI:
    """Return an app under maintenance."""

    async def page(request: Request) -> Response:
        raise AssertionError("under maintenance, and yet it runs")

    app = FastAPI(routes=[Route("/page", page, methods=["GET", "POST", "OPTIONS"])])
    app.add_middleware(MaintenanceModeMiddleware, **{"enable_maintenance": True, "answer": answer} | options)
    return app


def decision_of(reason: str | None = None, until: datetime | None = None) -> Decision:
    return Decision(True, Rule.MODE, "default", MaintenanceMode.ON, reason, until)


def answer_to(
    accept: str | None = None,
    *,
    reason: str | None = None,
    until: datetime | None = None,
    method: str = "GET",
    answer: Answer | None = None,
    now: datetime = NOW,
) -> Response:
    """Return what one client is told."""
    answer = answer or Answer()
    scope = scope_of("/page", method, headers={} if accept is None else {"Accept": accept})
    return answer.response(answer.with_retry_after(decision_of(reason, until), now), Request(scope), now)


def json_of(response: Response) -> Any:
    return json.loads(bytes(response.body))


def kind_of(headers: Mapping[str, str]) -> str:
    """Return the media type, after a look at what follows it."""
    kind, _, parameters = headers["content-type"].partition("; ")
    assert parameters == ("charset=utf-8" if kind.startswith("text/") else "")
    return kind


def check_body(kind: str, body: bytes) -> None:
    """Check that a body is what its media type says."""
    text = body.decode()
    if kind == JSON:
        assert json.loads(text) == {"detail": DETAIL}
    elif kind == PROBLEM:
        assert json.loads(text)["detail"] == DETAIL
        assert json.loads(text)["type"] == "about:blank"
    else:
        assert DETAIL in text
        assert text.startswith("<!doctype html>") is (kind == HTML)


# Which one


@every_client
def test_each_client_gets_what_it_prefers(client: str) -> None:
    """By weight, then by how precisely it was named, then by our own order, with JSON first."""
    accept, expected = CLIENTS[client]
    assert preferred_type(accept, OFFERED) == expected


@pytest.mark.anyio
@every_client
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
async def test_the_answer_is_of_the_preferred_kind_whatever_the_method(client: str, method: str) -> None:
    """Status, type and headers over the whole app; HEAD has GET's headers and no body."""
    accept, expected = CLIENTS[client]
    headers = {} if accept is None else {"Accept": accept}
    sent = await call(app_with(), scope_of("/page", method, headers=headers))
    assert (sent.status, kind_of(sent.headers)) == (503, expected)
    assert (sent.headers["retry-after"], sent.headers["cache-control"]) == ("3600", "no-store")
    assert sent.headers["x-content-type-options"] == "nosniff"
    assert sent.headers["vary"] == "Accept"
    assert int(sent.headers["content-length"]) > 0
    if method == "HEAD":
        assert sent.body == b""
        got = await call(app_with(), scope_of("/page", headers=headers))
        assert got.headers == sent.headers
    else:
        check_body(expected, sent.body)


@pytest.mark.anyio
@every_client
async def test_a_websocket_is_denied_in_the_preferred_kind(client: str) -> None:
    """A handshake's ``Accept`` counts as a request's."""
    accept, expected = CLIENTS[client]
    headers = {} if accept is None else {"Accept": accept}
    app = app_with()

    @app.websocket("/ws")
    async def never(websocket: object) -> None:
        raise AssertionError

    sent = await handshake(app, headers=headers)
    assert (sent.status, kind_of(sent.headers)) == (503, expected)
    check_body(expected, sent.body)


@pytest.mark.anyio
async def test_a_preflight_is_answered_by_cors_not_by_us() -> None:
    """OPTIONS as a preflight passes; the plain one that reaches code is refused."""
    preflight = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    app = FastAPI(routes=[Route("/page", lambda request: Response(), methods=["OPTIONS"])])
    app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"])
    app.add_middleware(MaintenanceModeMiddleware, enable_maintenance=True)
    assert (await request(app, "OPTIONS", "/page", headers=preflight)).status_code == 200
    assert (await request(app, "OPTIONS", "/page")).status_code == 503


def test_several_fields_are_one_list() -> None:
    """A client or proxy may split ``Accept`` up (RFC 9110, section 5.3)."""
    scope = scope_of()
    scope["headers"] = [(b"accept", b"text/plain;q=0.5"), (b"accept", b"text/html;q=0.9")]
    answer = Answer()
    response = answer.response(answer.with_retry_after(decision_of(), NOW), Request(scope), NOW)
    assert kind_of(response.headers) == HTML


@given(st.text())
def test_whatever_a_client_sends_it_gets_something_that_is_offered(accept: str) -> None:
    """No header raises."""
    assert preferred_type(accept, OFFERED) in OFFERED


def test_a_long_header_is_not_kept() -> None:
    """What clients make up is not to fill this process's memory."""
    before = _preferred_type.cache_info()
    assert preferred_type(f"text/html, text/x-{'x' * 1024}", OFFERED) == JSON
    assert _preferred_type.cache_info() == before


@pytest.mark.parametrize(("more", "expected"), [(0, HTML), (1, JSON)])
def test_no_more_than_1024_bytes_are_read(more: int, expected: str) -> None:
    """A longer header is no header, in one field or in several."""
    first, second = "text/html", "text/x-" + "x" * (1024 - len("text/html, text/x-") + more)
    assert preferred_type(f"{first}, {second}", OFFERED) == expected
    scope = scope_of()
    scope["headers"] = [(b"accept", first.encode()), (b"accept", second.encode())]
    assert preferred_type_of(scope) == expected


@pytest.mark.parametrize(("others", "expected"), [(31, HTML), (32, JSON)])
def test_no_more_than_32_ranges_are_read(others: int, expected: str) -> None:
    """A header with more is no header."""
    assert preferred_type(", ".join(["text/html", *["a/b"] * others]), OFFERED) == expected


_offers = st.sampled_from(OFFERED)
_elements = st.tuples(
    st.sampled_from([*OFFERED, "*/*", "text/*", "application/*", "image/png"]),
    st.integers(min_value=0, max_value=1000),
)


@given(st.lists(_elements, max_size=6))
def test_what_is_chosen_has_the_highest_weight(elements: list[tuple[str, int]]) -> None:
    """Nothing offered has a higher weight than the chosen one, judged by its most specific range."""

    def weight(media_type: str) -> int:
        for range_ in (media_type, media_type.partition("/")[0] + "/*", "*/*"):
            weights = [weight for one, weight in elements if one == range_]
            if weights:
                return max(weights)
        return 0

    accept = ", ".join(f"{range_};q={thousandths / 1000:.3f}" for range_, thousandths in elements)
    chosen = preferred_type(accept, OFFERED)
    if all(weight(offer) == 0 for offer in OFFERED):
        assert chosen == JSON
    else:
        assert weight(chosen) == max(weight(offer) for offer in OFFERED) > 0


@given(st.permutations(["text/html;q=0.5", "text/plain;q=0.7", "*/*;q=0.1", "application/problem+json;q=0.6"]))
def test_the_order_of_a_header_does_not_matter(elements: list[str]) -> None:
    """RFC 9110 gives the order no meaning."""
    assert preferred_type(", ".join(elements), OFFERED) == TEXT


LONG = {
    "quotes": '"',
    "quoted pairs": '"\\',
    "spaces": " ",
    "no parameters": "; ",
    "parameters": "a=b;",
    "backslashes": "\\",
    "commas": ",",
    "ranges": "a/b,",
    "ranges without commas": "a/b;",
    "ranges with parameters": "text/html;q=0.9,",
}
"""What a header is made of that is to take long."""


@pytest.mark.parametrize("start", ["", "text/html", 'text/html;a="'])
@pytest.mark.parametrize("part", LONG.values(), ids=LONG)
def test_no_header_takes_long(part: str, start: str) -> None:
    """The most that is read, and megabytes, which httptools lets a client send."""
    scope = scope_of()
    for size in (1_000, 1_000_000):
        scope["headers"] = [(b"accept", (start + part * size)[:size].encode())]
        assert cost_of(lambda: preferred_type_of(scope)) < 10


@pytest.mark.parametrize("http", ["httptools", "h11"])
@pytest.mark.parametrize("size", [60_000, 1_000_000])
def test_no_header_holds_a_server_up(size: int, http: str) -> None:
    """Bytes on the wire: it is answered as if it were not there, or refused by the server itself."""
    took: list[float] = []

    async def timed(scope: Scope, receive: Receive, send: Send) -> None:
        started = time.thread_time()
        await blocked(scope, receive, send)
        took.append(time.thread_time() - started)

    blocked = MaintenanceModeMiddleware(PlainTextResponse("open"), enable_maintenance=True)
    accept = ("text/html;q=0.9," * size)[:size]
    with uvicorn_server(timed, http=http) as server:
        answer = exchange(server.port, f"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAccept: {accept}\r\n\r\n")
    if http == "h11" and size > 64 * 1024:
        assert (answer.partition(b"\r\n")[0], took) == (b"HTTP/1.1 400 Bad Request", [])
        return
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"\r\ncontent-type: application/json\r\n" in answer
    assert cost_of_seconds(took[0]) < 20


# What stands in it


def test_json_has_the_reason_and_the_end_where_they_are_known() -> None:
    """The fixed body, and no empty members."""
    assert json_of(answer_to()) == {"detail": DETAIL}
    assert json_of(answer_to(reason="")) == {"detail": DETAIL}
    assert json_of(answer_to(reason="new disks")) == {"detail": DETAIL, "reason": "new disks"}
    body = json_of(answer_to(reason="new disks", until=UNTIL))
    assert body == {"detail": DETAIL, "reason": "new disks", "until": "2026-11-20T12:30:00+00:00"}


def test_the_end_is_told_exactly_and_in_utc() -> None:
    """Whatever zone it was given in, to the microsecond."""
    until = UNTIL.replace(microsecond=1).astimezone(timezone(timedelta(hours=9)))
    told = json_of(answer_to(until=until))["until"]
    assert told == "2026-11-20T12:30:00.000001+00:00"
    assert datetime.fromisoformat(told) == until


def test_a_problem_document_is_one_of_rfc_9457() -> None:
    """The members of section 3.1 with their types, extensions beside them, and the status repeated."""
    response = answer_to(PROBLEM, reason="new disks", until=UNTIL)
    assert response.headers["content-type"] == "application/problem+json"
    assert json_of(response) == {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": DETAIL,
        "reason": "new disks",
        "until": "2026-11-20T12:30:00+00:00",
        "retry_after": 1800,
    }
    plain = json_of(answer_to(PROBLEM))
    assert set(plain) == {"type", "title", "status", "detail", "retry_after"}
    assert plain["retry_after"] == 3600


def test_a_problem_documents_title_is_its_statuss_phrase() -> None:
    """As section 4.2.1 has it for about:blank; a status without a phrase gets one."""
    gone = json_of(answer_to(PROBLEM, answer=Answer(status=410, title="Bye")))
    assert (gone["title"], gone["status"]) == ("Gone", 410)
    own = json_of(answer_to(PROBLEM, answer=Answer(status=598)))
    assert (own["title"], own["status"]) == ("Under Maintenance", 598)


def test_plain_text_is_for_people() -> None:
    """Title, detail, the end to the minute, the reason."""
    assert (
        answer_to(TEXT, reason="new\r\ndisks", until=UNTIL - timedelta(seconds=1)).body
        == (
            "We’ll be back soon\n\nService temporarily unavailable due to maintenance\n\n"
            "Expected back: 2026-11-20 12:30 UTC\n\nnew\ndisks\n"
        ).encode()
    )
    assert answer_to(TEXT, reason="\0").body == f"We’ll be back soon\n\n{DETAIL}\n".encode()


HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(1)> \"double\" 'single' `back` & &amp; 🚧 👩‍💻\r\n"
    "Set-Cookie: stolen=1\r\n\r\n\0\x1b[31m \u202egnirts\u202c שלום \ud800 ${reason} $$ %s {0} \x85 \u2028"
    + "x"
    * 10_000
)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", OFFERED)
async def test_a_hostile_reason_stays_text_and_out_of_the_headers(kind: str) -> None:
    """Markup, quotes, line ends, controls, half characters, 10,000 letters: the headers are those without a reason."""
    plain = answer_to(kind, until=UNTIL)
    response = answer_to(kind, reason=HOSTILE, until=UNTIL)
    bare, told = dict(plain.headers), dict(response.headers)
    assert int(told.pop("content-length")) - int(bare.pop("content-length")) > 10_000
    assert told == bare
    text = bytes(response.body).decode()
    assert "x" * 10_000 in text
    if kind in (JSON, PROBLEM):
        assert json.loads(text)["reason"] == HOSTILE.replace("\ud800", "\ufffd")
    else:
        assert not re.search(r"[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    if kind == HTML:
        assert text.count("<script>") == 1
        assert "&lt;img src=x onerror=alert(1)&gt;" in text


@pytest.mark.anyio
async def test_reason_and_end_come_from_the_switch() -> None:
    """What an operator says reaches the client, through middleware and guard; the stock answer has none of it."""
    backend = configure_backend("memory")
    until = datetime.now(UTC) + timedelta(hours=1)
    await set_maintenance_mode(True, backend, reason="new disks", until=until)
    expected = {"detail": DETAIL, "reason": "new disks", "until": until.isoformat()}
    assert (await get(app_with(enable_maintenance=None), "/page")).json() == expected
    app = FastAPI()
    app.get("/page", dependencies=[Depends(MaintenanceGuard())])(lambda: None)
    stock = await get(app, "/page", headers={"Accept": "text/html"})
    assert (stock.status_code, stock.json()) == (503, {"detail": DETAIL})
    assert 3590 < int(stock.headers["retry-after"]) <= 3600
    app.add_exception_handler(MaintenanceActive, maintenance_exception_handler)
    app.middleware_stack = None
    assert (await get(app, "/page")).json() == expected
    page = await get(app, "/page", headers={"Accept": "text/html"})
    assert "new disks" in page.text


READ_ONLY_TEXTS = {
    JSON: ('"mode":"read_only"', "Service temporarily read-only due to maintenance"),
    PROBLEM: ('"mode":"read_only"', "Service temporarily read-only due to maintenance"),
    HTML: ("<title>Read-only for now</title>", "Service temporarily read-only", "Reading works, changing does not."),
    TEXT: ("Read-only for now\n", "Service temporarily read-only", "Reading works, changing does not."),
}


@pytest.mark.parametrize("kind", OFFERED)
def test_a_refusal_of_changes_alone_says_so(kind: str) -> None:
    """In each kind of answer, also with texts of one's own; an endpoint that is closed for good is not read-only."""

    def text_of(decision: Decision, answer: Answer) -> str:
        request = Request(scope_of("/page", "POST", headers={"Accept": kind}))
        return bytes(answer.response(answer.with_retry_after(decision, NOW), request, NOW).body).decode()

    read_only = replace(decision_of(), mode=MaintenanceMode.READ_ONLY)
    for text in READ_ONLY_TEXTS[kind]:
        assert text in text_of(read_only, Answer())
        for other in decision_of(), replace(read_only, rule=Rule.FORCED_ON):
            assert text not in text_of(other, Answer())
    own = text_of(read_only, Answer(detail="Stock-taking", title="Closed"))
    assert "Stock-taking" in own
    assert READ_ONLY_TEXTS[kind][0 if "json" in kind else -1] in own
    assert "Service temporarily" not in own


# Retry-After

_moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - has one
_spans = st.timedeltas(timedelta(days=-2), timedelta(days=400))


@given(_moments, _spans, st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_retry_after_is_never_negative_nor_after_the_end_plus_jitter(
    now: datetime, left: timedelta, jitter: int, random: Any
) -> None:
    """And less than a second too early at most, which only happens without jitter."""
    decision = Answer(jitter_seconds=jitter).with_retry_after(decision_of(until=now + left), now, random.randrange)
    seconds = decision.retry_after
    assert isinstance(seconds, int)
    assert seconds >= 0
    assert timedelta(seconds=seconds) <= max(left, timedelta(0)) + timedelta(seconds=jitter)
    assert timedelta(seconds=seconds) > left - timedelta(seconds=1)
    if jitter:
        assert timedelta(seconds=seconds) >= left


@given(st.integers(0, 10**6), st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_an_unknown_end_is_told_as_configured_plus_jitter(seconds: int, jitter: int, random: Any) -> None:
    """No end, no arithmetic."""
    answer = Answer(retry_after=seconds, jitter_seconds=jitter)
    told = answer.with_retry_after(decision_of(), NOW, random.randrange).retry_after
    assert told is not None
    assert seconds <= told <= seconds + jitter


@pytest.mark.parametrize("jitter", [1, 2, 60])
def test_jitter_takes_every_second_there_is(jitter: int) -> None:
    """From the first whole second after the end to the last before the end plus jitter."""
    until, answer = NOW + timedelta(seconds=10.5), Answer(jitter_seconds=jitter)
    decision = decision_of(until=until)
    draws = [answer.with_retry_after(decision, NOW, lambda below, n=n: n % below) for n in range(jitter)]  # type: ignore[misc]
    assert [decision.retry_after for decision in draws] == list(range(11, 11 + jitter))


def test_jitter_is_drawn_for_each_client() -> None:
    """Not once for all."""
    answer = Answer(jitter_seconds=10**6)
    assert len({answer.with_retry_after(decision_of(), NOW).retry_after for _ in range(20)}) > 10


def test_what_a_client_was_told_stays() -> None:
    """A decision is told once, so that header, body and handler agree."""
    answer = Answer(jitter_seconds=10**6)
    told = answer.with_retry_after(decision_of(), NOW)
    assert answer.with_retry_after(told, NOW + timedelta(hours=1)) is told
    scope = scope_of(headers={"Accept": PROBLEM})
    response = answer.response(told, Request(scope), NOW)
    assert response.headers["retry-after"] == str(json_of(response)["retry_after"]) == str(told.retry_after)


def test_pages_reload_when_their_clients_are_told_to_come_back() -> None:
    """And so not all of them at once."""
    answer = Answer(jitter_seconds=60)
    decision = decision_of(until=UNTIL)
    for told in (answer.with_retry_after(decision, NOW, lambda below, n=n: n % below) for n in (0, 17, 59)):  # type: ignore[misc]
        page = answer.response(told, Request(scope_of(headers={"Accept": HTML})), NOW)
        assert f'data-reload="{page.headers["retry-after"]}"' in bytes(page.body).decode()


@given(_spans, st.integers(0, 100))
def test_a_page_reloads_after_the_end_and_within_the_jitter(left: timedelta, jitter: int) -> None:
    """Never before the end; at once, but not in a rush, if it is over."""
    response = answer_to(HTML, until=NOW + left, answer=Answer(jitter_seconds=jitter))
    found = re.search(r'data-reload="(\d*)"', bytes(response.body).decode())
    assert found is not None
    if not found[1]:
        assert left > timedelta(seconds=LONGEST_RELOAD_SECONDS - 101)
    else:
        seconds = max(0, ceil(left.total_seconds()))
        assert max(1, seconds) <= int(found[1]) <= max(1, seconds + jitter)


@pytest.mark.parametrize(("seconds", "reloads"), [(LONGEST_RELOAD_SECONDS, True), (LONGEST_RELOAD_SECONDS + 1, False)])
def test_a_page_whose_end_is_too_far_for_a_browsers_timer_does_not_reload(seconds: int, reloads: bool) -> None:
    body = bytes(answer_to(HTML, until=NOW + timedelta(seconds=seconds)).body).decode()
    assert (f'data-reload="{seconds}"' in body) is reloads
    assert ('data-reload=""' in body) is not reloads


# The value object


@pytest.mark.anyio
async def test_an_answer_changes_status_headers_times_and_texts(tmp_path: Path) -> None:
    """Through the middleware, in every kind of answer."""
    file = tmp_path / "page.html"
    file.write_text("<h1>$title</h1><p>$detail", "utf-8")
    answer = Answer(
        status=502,
        headers={"x-team": "shop", "cache-control": "no-cache", "Vary": "Accept-Language"},
        retry_after=60,
        detail="Closed",
        title="Stock-taking",
        html=file,
    )
    app = app_with(answer)
    for kind in OFFERED:
        got = await get(app, "/page", headers={"Accept": kind})
        assert (got.status_code, kind_of(got.headers)) == (502, kind)
        assert (got.headers["x-team"], got.headers["retry-after"]) == ("shop", "60")
        assert got.headers.get_list("cache-control") == ["no-cache"]
        assert got.headers.get_list("vary") == ["Accept-Language, Accept"]
        assert "Closed" in got.text
    assert (await get(app, "/page", headers={"Accept": HTML})).text == "<h1>Stock-taking</h1><p>Closed"
    assert (await get(app, "/page", headers={"Accept": TEXT})).text == "Stock-taking\n\nClosed\n"


@pytest.mark.parametrize(
    ("vary", "expected"),
    [("*", "*"), ("Origin", "Origin, Accept"), ("ACCEPT, Origin", "ACCEPT, Origin"), ("", "Accept")],
)
def test_vary_always_names_accept(vary: str, expected: str) -> None:
    """A cache must not give one client's page to another one's program."""
    assert Answer(headers={"Vary": vary}).fixed_headers["Vary"] == expected


@pytest.mark.anyio
async def test_a_guards_answer_stands_above_the_middlewares() -> None:
    """Its own answer wins over the middleware's handler; its own handler takes the middleware's answer as default."""
    seen: list[Decision] = []

    def own(request: Request, decision: Decision) -> Response:
        seen.append(decision)
        raise LookupError

    configure_backend("memory", name="billing", initial=True)
    app = FastAPI()
    app.add_middleware(
        MaintenanceModeMiddleware,
        answer=Answer(retry_after=10),
        response_handler=lambda request: PlainTextResponse("middleware"),
    )
    app.add_exception_handler(MaintenanceActive, maintenance_exception_handler)
    guards = {
        "/plain": MaintenanceGuard("billing"),
        "/answer": MaintenanceGuard("billing", answer=Answer(retry_after=20)),
        "/handler": MaintenanceGuard("billing", response_handler=own),
        "/both": MaintenanceGuard("billing", response_handler=own, answer=Answer(retry_after=30)),
    }
    for path, guard in guards.items():
        app.get(path, dependencies=[Depends(guard)])(lambda: None)
    assert (await get(app, "/plain")).text == "middleware"
    assert (await get(app, "/answer")).headers["retry-after"] == "20"
    assert (await get(app, "/handler")).headers["retry-after"] == "10"
    assert (await get(app, "/both")).headers["retry-after"] == "30"
    assert [(decision.retry_after, decision.switch) for decision in seen] == [(10, "billing"), (30, "billing")]


@pytest.mark.anyio
async def test_a_guards_stock_answer_has_the_answers_status_and_headers() -> None:
    """Without the registered handler FastAPI makes the body, and takes the rest over."""
    configure_backend("memory", initial=True)
    guard = MaintenanceGuard(answer=Answer(status=502, retry_after=7, detail="Closed", headers={"x-team": "shop"}))
    app = FastAPI()
    app.get("/page", dependencies=[Depends(guard)])(lambda: None)

    @app.websocket("/ws", dependencies=[Depends(guard)])
    async def never(websocket: object) -> None:
        raise AssertionError

    got = await get(app, "/page")
    assert (got.status_code, got.json()) == (502, {"detail": "Closed"})
    assert (got.headers["retry-after"], got.headers["x-team"]) == ("7", "shop")
    sent = await handshake(app)
    assert (sent.status, sent.headers["retry-after"], sent.json()) == (502, "7", {"detail": "Closed"})
    assert (await handshake(app, denial=False)).close_code == 1013


def test_an_answer_is_a_value() -> None:
    """Frozen, comparable, and independent of the mapping that it was made from."""
    headers = {"x-team": "shop"}
    answer = Answer(headers=headers)
    headers["x-team"] = "other"
    assert answer == Answer(headers={"x-team": "shop"}) != Answer()
    assert repr(Answer(status=502)).startswith("Answer(status=502, headers=")
    with pytest.raises(FrozenInstanceError):
        answer.status = 200  # type: ignore[misc]
    with pytest.raises(TypeError):
        answer.headers["x-team"] = "other"  # type: ignore[index]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"status": 200}, "status must be 400 to 599"),
        ({"status": "503"}, "got '503'"),
        ({"status": True}, "got True"),
        ({"retry_after": -1}, "retry_after must be whole seconds from 0 to 1000000000, got -1"),
        ({"retry_after": 10**9 + 1}, "retry_after must be whole seconds from 0 to 1000000000, got 1000000001"),
        ({"retry_after": 1.5}, "got 1.5"),
        ({"retry_after": timedelta(1)}, "from 0 to 1000000000, got datetime.timedelta"),
        ({"jitter_seconds": -1}, "jitter_seconds must be whole seconds from 0 to 1000000000, got -1"),
        ({"jitter_seconds": False}, "got False"),
        ({"detail": ""}, "detail must be a text, got ''"),
        ({"title": None}, "title must be a text, got None"),
        ({"title": "\0"}, "title must be a text, got '\\x00'"),
        ({"headers": [("a", "b")]}, "headers must be a mapping from names to values, got [('a', 'b')]"),
        ({"headers": {"a b": "c"}}, "'a b' is no valid header name"),
        ({"headers": {1: "c"}}, "1 is no valid header name"),
        ({"headers": {"": "c"}}, "'' is no valid header name"),
        ({"headers": {"a": "b\r\nc"}}, "'a' must be Latin-1 text on one line, got 'b\\r\\nc'"),
        ({"headers": {"a": " b"}}, "'a' must be Latin-1 text on one line, got ' b'"),
        ({"headers": {"a": "\u20ac"}}, "'a' must be Latin-1 text on one line, got '\u20ac'"),
        ({"headers": {"a": 1}}, "'a' must be Latin-1 text on one line, got 1"),
        ({"headers": {"Retry-After": "1"}}, "'Retry-After' can't be set, it is set by retry_after="),
        ({"headers": {"content-TYPE": "text/plain"}}, "it is the type that the client prefers"),
        ({"headers": {"Content-Length": "1"}}, "the body defines it"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "the server sets it"),
        ({"headers": {"Connection": "close"}}, "the server sets it"),
        ({"html": 1}, "html must be a template or the Path of a template file, got 1"),
        ({"html": "page.html"}, "html must be HTML, got 'page.html'; pass a file as Path('page.html')"),
        ({"html": Path("/nonexistent/page.html")}, "html: can't read "),
        ({"html": "<p>$who"}, "html: unknown placeholder $who; accepted: $title, $detail, $read_only,"),
        ({"html": "<p>5 $"}, "write '$$' for a dollar sign"),
        ({"html": "<!-- if until --><p>"}, "has no other half"),
        ({"html": "<p><!-- endif -->"}, "has no other half"),
        ({"html": "<!-- if until --><!-- if not get --><!-- endif --><!-- endif -->"}, "has no other half"),
        (
            {"html": "<!-- if who --><!-- endif -->"},
            "'<!-- if who -->' has no valid condition; accepted: read_only, reason, until,",
        ),
    ],
)
def test_an_answer_that_can_not_work_is_refused(options: dict[str, Any], message: str) -> None:
    """Where it is made, with the value, what is accepted, and the way out."""
    with pytest.raises(InvalidConfiguration) as caught:
        Answer(**options)
    assert message in str(caught.value)


def test_a_file_that_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    """It can't be sent as what it would be called."""
    file = tmp_path / "page.html"
    file.write_bytes(b"<p>\xff")
    with pytest.raises(InvalidConfiguration, match=r"can't read .*: 'utf-8' codec"):
        Answer(html=file)


@pytest.mark.parametrize("make", [partial(MaintenanceModeMiddleware, FastAPI()), MaintenanceGuard])
def test_an_answer_has_to_be_one(make: Any) -> None:
    """Middleware and guard say so when they are made."""
    with pytest.raises(InvalidConfiguration, match=r"answer must be an Answer\(\.\.\.\), got \{'status': 503\}"):
        make(answer={"status": 503})


# Handlers that take the decision


@pytest.mark.anyio
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_handler_sees_the_whole_decision(is_async: bool) -> None:
    """Reason, end, seconds, mode, switch: as the header tells them."""
    seen: list[Decision] = []

    def handler(request: Request, decision: Decision) -> Response:
        seen.append(decision)
        return PlainTextResponse(decision.reason, 503, {"Retry-After": str(decision.retry_after)})

    async def in_async(request: Request, decision: Decision) -> Response:
        return handler(request, decision)

    backend = MemoryBackend()
    until = datetime.now(UTC) + timedelta(seconds=90)
    await set_maintenance_mode("read_only", backend, reason="new disks", until=until)
    app = app_with(
        enable_maintenance=None,
        backend=backend,
        response_handler=in_async if is_async else handler,
        answer=Answer(jitter_seconds=1000),
    )
    got = await request(app, "POST", "/page")
    (decision,) = seen
    assert (got.status_code, got.text) == (503, "new disks")
    assert (decision.reason, decision.until) == ("new disks", until)
    assert (decision.mode, decision.switch) == (MaintenanceMode.READ_ONLY, "default")
    assert decision.retry_after is not None
    assert 85 < decision.retry_after <= 1090
    assert got.headers["retry-after"] == str(decision.retry_after)


@pytest.mark.anyio
async def test_a_guards_handler_sees_the_decision_that_the_exception_has() -> None:
    """What stands in the exception's header is what the handler is told, jitter and all."""
    seen: list[Decision] = []

    def handler(request: Request, decision: Decision) -> Response:
        seen.append(decision)
        return PlainTextResponse("later", 503)

    async def both(request: Request, exc: Exception) -> Response:
        assert isinstance(exc, MaintenanceActive)
        await maintenance_exception_handler(request, exc)
        assert exc.headers is not None
        return PlainTextResponse(exc.headers["Retry-After"])

    configure_backend("memory", initial=True)
    guard = MaintenanceGuard(response_handler=handler, answer=Answer(jitter_seconds=10**6))
    app = FastAPI()
    app.add_exception_handler(MaintenanceActive, both)
    app.get("/page", dependencies=[Depends(guard)])(lambda: None)
    assert (await get(app, "/page")).text == str(seen[0].retry_after)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", OFFERED)
async def test_a_handler_that_fails_leaves_the_answer_that_the_client_prefers(kind: str) -> None:
    """The default is negotiated there, too."""

    def broken(request: Request, decision: Decision) -> Response:
        raise RequestValidationError([])

    got = await get(app_with(response_handler=broken), "/page", headers={"Accept": kind})
    assert (got.status_code, kind_of(got.headers)) == (503, kind)


# The documentation


def blocks(text: str) -> Iterator[str]:
    return iter(re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))


@pytest.mark.anyio
async def test_the_code_in_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of docs/answers.md in one go, and the app at its end answers as it says."""
    text = ROOT.joinpath("docs", "answers.md").read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "maintenance.html").write_text("<p>$detail", "utf-8")
    names: dict[str, Any] = {}
    for number, block in enumerate(blocks(text)):
        exec(compile(block, f"docs/answers.md, block {number}", "exec"), names)
    app = names["app"]
    got: httpx.Response = await get(app, "/items/1", headers={"Accept": "text/plain"})
    assert got.status_code == 503
    assert got.headers["cache-control"] == "no-store"
    assert "Closed for stock-taking" in got.text
    assert "503" in app.openapi()["paths"]["/items/{item_id}"]["get"]["responses"]
    for option in ("status", "headers", "retry_after", "jitter_seconds", "detail", "title", "html"):
        assert f"`{option}`" in text


# The calendar's last minute


@pytest.mark.anyio
@pytest.mark.parametrize("kind", OFFERED)
@pytest.mark.parametrize(
    ("end", "told"),
    [
        (datetime.max.replace(tzinfo=UTC), "9999-12-31 23:59 UTC"),
        (datetime(9999, 12, 31, 23, 59, 0, 1, tzinfo=UTC), "9999-12-31 23:59 UTC"),
        (datetime(9999, 12, 31, 23, 59, tzinfo=UTC), "9999-12-31 23:59 UTC"),
        (datetime(9999, 12, 31, 23, 58, 59, tzinfo=UTC), "9999-12-31 23:59 UTC"),
        (datetime(9999, 12, 31, 23, 58, tzinfo=UTC), "9999-12-31 23:58 UTC"),
    ],
)
async def test_an_end_that_no_minute_follows_is_told_all_the_same(kind: str, end: datetime, told: str) -> None:
    """``datetime.max`` is how some write for ever; people are told whole minutes, programs the end itself."""
    backend = MemoryBackend()
    await set_maintenance_mode(True, backend, until=end)
    got = await get(app_with(backend=backend, enable_maintenance=None), "/page", headers={"Accept": kind})
    assert (got.status_code, kind_of(got.headers)) == (503, kind)
    if kind in (HTML, TEXT):
        assert told in got.text
    else:
        assert got.json()["until"] == end.isoformat()
