"""Bypass: who gets a token, what it opens, how it is refused, and that nobody else sees it."""

# No `from __future__ import annotations`: FastAPI reads the annotations of endpoints made in functions.

import logging
import random
import re
import secrets
import string
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, quote, urljoin, urlsplit

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, WebSocket
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from fastapi_maintenance import (
    Bypass,
    Exemptions,
    InvalidConfiguration,
    InvalidSwitchName,
    MaintenanceGuard,
    MaintenanceMode,
    MaintenanceModeMiddleware,
    MaintenanceState,
    MissingExtra,
    NotUnderMaintenance,
    cancel_maintenance,
    configure_backend,
    force_maintenance_mode_on,
    get_maintenance_state,
    maintenance_mode_off,
    maintenance_mode_on,
    schedule_maintenance,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import BaseStateBackend, EnvVarBackend, MemoryBackend
from fastapi_maintenance.gate.bypass import MAX_LIFETIME, Claims, _relative_location, maintenance_ids
from fastapi_maintenance.model.state import Hold
from fastapi_maintenance.switches.app_switch import AppSwitch
from tests.support.asgi import call, client, get, handshake, request, scope_of, status
from tests.support.costs import cost_of, cost_of_seconds
from tests.support.servers import exchange, uvicorn_server

pytestmark = pytest.mark.anyio

SECRET = "an old secret of more than 16 bytes"
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HEADER = "X-Maintenance-Bypass"
PARAMETER = "maintenance_bypass"


@pytest.fixture
def backend() -> BaseStateBackend:
    """Return the backend of the default switch; named ones are beside it."""
    return configure_backend("memory")


def app_with(bypass: Bypass | None, **options: Any) -> FastAPI:
    """Return an app under the middleware, whose endpoints tell the query that they see."""
    made = FastAPI()
    made.add_middleware(MaintenanceModeMiddleware, exemptions=Exemptions(bypass=bypass), **options)
    add_routes(made)
    return made


def add_routes(made: FastAPI | APIRouter) -> None:
    """Add endpoints that tell the query that they see."""

    @made.get("/")
    @made.get("/items/")
    @made.get("/items/{item}")
    async def read(request: Request) -> dict[str, str]:
        return {"query": request.url.query}

    @made.post("/items/{item}")
    async def write(request: Request) -> dict[str, str]:
        return {"query": request.url.query}

    @made.get("/forced")
    @force_maintenance_mode_on
    async def forced() -> str:
        raise AssertionError

    @made.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(websocket.url.query)
        await websocket.close()


def guarded(guard: MaintenanceGuard) -> FastAPI:
    """Return an app whose endpoints are behind a guard, and no middleware."""
    made, router = FastAPI(), APIRouter(dependencies=[Depends(guard)])
    add_routes(router)
    made.include_router(router)
    return made


async def status_with(app: ASGIApp, token: str, path: str = "/items/7", method: str = "GET") -> int:
    """Return the status of the answer to a request with a token in its header."""
    return await status(app, path, method, headers={HEADER: token})


# What a Bypass is made of


@pytest.mark.parametrize("secret", [SECRET, SECRET.encode(), [SECRET], (SECRET, b"x" * 16), "ü" * 8, "\udcff" * 16])
def test_a_secret_is_text_or_bytes_or_several(secret: Any) -> None:
    """At least 128 bits each, counted in bytes; text that is no UTF-8 comes from a variable with any bytes."""
    assert Bypass(secret).claims_of("a.b", NOW) is None


@pytest.mark.parametrize(
    ("secret", "problem"),
    [
        ("hunter2-hunter2", "15 bytes"),
        (b"\xfehunter2", "8 bytes"),
        ([SECRET, "hunter2"], "7 bytes"),
        ("", "0 bytes"),
        (None, "NoneType; is the variable set?"),
        (128, "int"),
        ([], "list"),
        ([SECRET, None], "list"),
    ],
)
def test_a_secret_that_can_be_guessed_is_refused_and_not_shown(secret: Any, problem: str) -> None:
    """The error tells how many bytes there are, how many are needed, and how to make them."""
    with pytest.raises(InvalidConfiguration) as error:
        Bypass(secret)
    assert problem in str(error.value)
    assert "hunter2" not in repr(error.value)
    assert error.value.__suppress_context__ or error.value.__context__ is None


def test_a_secret_is_never_shown() -> None:
    """Neither by the object nor by what has it."""
    bypass = Bypass(SECRET)
    app = app_with(bypass)
    for shown in (repr(bypass), str(bypass), repr(Exemptions(bypass=bypass)), repr(app.user_middleware)):
        assert SECRET not in shown
    assert not hasattr(bypass, "secret")


@pytest.mark.parametrize(
    "options",
    [
        {"parameter": ""},
        {"parameter": "a b"},
        {"parameter": "a&b"},
        {"parameter": None},
        {"header": "X Bypass"},
        {"header": "X-Bypass\n"},
        {"cookie": "a=b"},
        {"cookie": "__Host-x"},
        {"revoked": {"alice"}},
    ],
)
def test_an_option_that_can_not_work_is_refused_by_name(options: dict[str, Any]) -> None:
    """A name that can't be one in a URL, a header or a cookie, and a revocation list that isn't asked."""
    with pytest.raises(InvalidConfiguration, match=next(iter(options))):
        Bypass(SECRET, **options)


def test_exemptions_take_a_bypass_and_nothing_else() -> None:
    """A secret that was passed itself is not shown in the error."""
    with pytest.raises(InvalidConfiguration, match="not str") as error:
        Exemptions(bypass=SECRET)  # type: ignore[arg-type]
    assert SECRET not in str(error.value)


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told where the bypass is made, not at the first request."""
    monkeypatch.setitem(sys.modules, "itsdangerous", None)
    with pytest.raises(MissingExtra, match=re.escape("pip install 'fastapi-maintenance[bypass]'")) as error:
        Bypass(SECRET)
    assert error.value.extra == "bypass"
    assert isinstance(error.value, ImportError)


# Which maintenance a token is bound to


def state_since(since: datetime | None, **more: Any) -> MaintenanceState:
    return MaintenanceState(version=1, mode=MaintenanceMode.ON, since=since, **more)


def test_a_maintenance_is_told_by_when_it_was_switched_on() -> None:
    """The reason and the end may change, and blocks come and go."""
    one = maintenance_ids(state_since(NOW), NOW)
    hold = {"h": Hold(kind="on")}
    more = maintenance_ids(state_since(NOW, reason="x", until=NOW + timedelta(1), holds=hold), NOW)
    assert [len(one), len(more)] == [1, 2]
    assert one[0] == more[0]
    assert one == maintenance_ids(state_since(NOW.astimezone(timezone(timedelta(hours=5)))), NOW)
    assert one != maintenance_ids(state_since(NOW + timedelta(microseconds=1)), NOW)


def test_a_maintenance_by_blocks_is_told_by_each_of_them() -> None:
    """Whether the mode is off, or is over; in whatever order a store keeps them."""
    holds = {"off": Hold(kind="off"), "a": Hold(kind="on"), "b": Hold(kind="on")}
    off = MaintenanceState(version=1, holds=holds)
    over = state_since(NOW - timedelta(2), until=NOW, holds=holds)
    assert maintenance_ids(off, NOW) == maintenance_ids(over, NOW)
    assert len(maintenance_ids(off, NOW)) == 2
    assert len(maintenance_ids(over, NOW - timedelta(1))) == 3
    without = [off.model_copy(update={"holds": {}}), MaintenanceState(version=7), state_since(NOW, until=NOW)]
    assert len({tuple(maintenance_ids(state, NOW)) for state in without}) == 1, "the same whenever nothing is on"


def test_a_store_of_on_or_off_does_not_tell_maintenances_apart() -> None:
    """Its blocks are known in one process only, so they don't count either."""
    on = MaintenanceState(mode=MaintenanceMode.ON)
    assert maintenance_ids(on, NOW) == maintenance_ids(on.model_copy(update={"holds": {"h": Hold(kind="on")}}), NOW)


# Tokens


async def test_a_token_says_for_whom_until_when_and_for_what(backend: BaseStateBackend) -> None:
    """It is signed, not sealed: who has it may read it."""
    await set_maintenance_mode(True)
    bypass, before = Bypass(SECRET), datetime.now(UTC)
    token = await bypass.token(holder="alice", lifetime=60)
    claims = bypass.claims_of(token, before)
    assert claims is not None
    assert claims.holder == "alice"
    assert before.timestamp() + 60 <= claims.expires < datetime.now(UTC).timestamp() + 61
    assert list(claims.opens) == ["default"]
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", await bypass.token(holder="Ünal; \r\n,"))


@pytest.mark.parametrize("lifetime", [0, -1, timedelta(0), MAX_LIFETIME + timedelta(seconds=1), float("nan"), 1e300])
async def test_a_lifetime_that_is_none_or_endless_is_refused(lifetime: float | timedelta) -> None:
    """Up to 30 days."""
    with pytest.raises(InvalidConfiguration, match="lifetime"):
        await Bypass(SECRET).token(lifetime=lifetime)


async def test_a_token_expires() -> None:
    """At its second."""
    configure_backend("memory", initial=True)
    bypass = Bypass(SECRET)
    token = await bypass.token(lifetime=timedelta(hours=1))
    claims = bypass.claims_of(token, datetime.now(UTC))
    assert claims is not None
    end = datetime.fromtimestamp(claims.expires, UTC)
    assert bypass.claims_of(token, end - timedelta(microseconds=1))
    assert bypass.claims_of(token, end) is None
    assert await status_with(app_with(bypass), token) == 200
    expired = bypass.sign(claims.model_copy(update={"expires": int(datetime.now(UTC).timestamp())}))
    assert await status_with(app_with(bypass), expired) == 503


async def test_there_is_no_token_without_a_maintenance(backend: BaseStateBackend) -> None:
    """It could open none: the next one is another one."""
    with pytest.raises(NotUnderMaintenance, match="'default' is not under maintenance") as error:
        await Bypass(SECRET).token()
    assert error.value.switch == "default"
    await set_maintenance_mode(True)
    with pytest.raises(NotUnderMaintenance, match="'billing'"):
        await Bypass(SECRET).token("default", "billing")


async def test_where_maintenances_can_not_be_told_apart_a_token_can_be_made_beforehand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a variable, the link is often made before the restart; only its end and the secret end it."""
    bypass = Bypass(SECRET)
    token = await bypass.token()
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "1")
    assert await status_with(app_with(bypass), token) == 200
    assert await status_with(app_with(bypass), await bypass.token(backend=EnvVarBackend("OTHER"))) == 200


async def test_an_app_under_maintenance_by_its_option_makes_and_takes_tokens(backend: BaseStateBackend) -> None:
    """``enable_maintenance=True`` has no beginning: such a token ends by time."""
    bypass = Bypass(SECRET)
    app = app_with(bypass, enable_maintenance=True)
    tokens = []

    async def make(scope: Scope, receive: Receive, send: Send) -> None:
        tokens.append(await bypass.token())
        await Response()(scope, receive, send)

    inner = MaintenanceModeMiddleware(make, enable_maintenance=True, exemptions=Exemptions(paths=["/make"]))
    assert await status(inner, "/make") == 200
    assert await status_with(app, tokens[0]) == 200
    assert (await get(app, f"/?{PARAMETER}={tokens[0]}")).status_code == 303


async def test_a_token_for_no_switch_can_not_be_made(backend: BaseStateBackend) -> None:
    """Names are checked, and the whole has to fit into a cookie."""
    await set_maintenance_mode(True)
    with pytest.raises(InvalidSwitchName):
        await Bypass(SECRET).token("*")
    with pytest.raises(InvalidConfiguration, match="to fit into a cookie"):
        await Bypass(SECRET).token(holder="x" * 2000)


async def test_a_token_can_be_made_for_the_switch_of_a_backend() -> None:
    """As everything else that takes ``backend``."""
    backend, bypass = MemoryBackend(), Bypass(SECRET)
    await set_maintenance_mode(True, backend)
    app = app_with(bypass, backend=backend)
    assert await status_with(app, await bypass.token(backend=backend)) == 200
    assert await status_with(app, await bypass.token()) == 200, "the only app's backend is meant"


# Who is refused


async def test_a_header_lets_in_and_nothing_else_does(backend: BaseStateBackend) -> None:
    """The reference for what follows."""
    await set_maintenance_mode(True)
    bypass = Bypass(SECRET)
    app, token = app_with(bypass), await bypass.token()
    assert await status(app, "/items/7") == 503
    assert await status_with(app, token) == 200
    assert await status_with(app, f" {token} ") == 200
    assert await status_with(app, token, method="POST") == 200
    assert await status_with(app_with(None), token) == 503
    assert await status(app, "/items/7", headers={"X-Other": token, "Authorization": token}) == 503


async def test_every_change_of_a_token_is_noticed(backend: BaseStateBackend) -> None:
    """Each letter replaced, dropped, doubled; even those of which decoding would make the same signature."""
    await set_maintenance_mode(True)
    bypass = Bypass(SECRET)
    app, token = app_with(bypass), await bypass.token(holder="alice")
    letters = "AQgw" + string.ascii_letters[::9] + "-_.=!"
    tampered = {token[:place] + letter + token[place + 1 :] for place in range(len(token)) for letter in letters}
    tampered |= {token[:place] + token[place + 1 :] for place in range(len(token))}
    tampered |= {token[:place] + "!" + token[place:] for place in range(len(token) + 1)}
    tampered |= {token[:-1] + letter for letter in string.ascii_letters + string.digits + "-_"}
    tampered |= {token + "=", token + "\x00", "é" + token, token.upper(), token.swapcase(), token * 2, token[::-1]}
    tampered |= {".".join(token.split(".")[::-1]), token.split(".")[0], f".{token}", f"{token}.", "." * 9}
    tampered -= {token}
    assert len(tampered) > 1000
    async with client(app) as one:
        for each in sorted(tampered):
            assert (await one.get("/items/7", headers={HEADER.encode(): each.encode("latin-1")})).status_code == 503, (
                each
            )


async def test_random_tokens_do_not_pass(backend: BaseStateBackend) -> None:
    """2,000 of them: noise, well-formed ones, and right claims with a wrong signature."""
    await set_maintenance_mode(True)
    bypass = Bypass(SECRET)
    app, token = app_with(bypass), await bypass.token()
    chance = random.Random(0)
    tokens = [secrets.token_urlsafe(chance.randrange(200)) for _ in range(400)]
    tokens += [f"{secrets.token_urlsafe(chance.randrange(200))}.{secrets.token_urlsafe(32)}" for _ in range(800)]
    tokens += [f"{token.rpartition('.')[0]}.{secrets.token_urlsafe(32)}" for _ in range(800)]
    async with client(app) as one:
        for each in tokens:
            assert (await one.get("/items/7", headers={HEADER: each})).status_code == 503


@pytest.mark.parametrize("secret", ["another secret of more than 16 bytes", SECRET.upper(), SECRET + " ", SECRET[:-1]])
async def test_a_token_of_another_secret_does_not_pass(backend: BaseStateBackend, secret: str) -> None:
    """Spaces and case count."""
    await set_maintenance_mode(True)
    assert await status_with(app_with(Bypass(SECRET)), await Bypass(secret).token()) == 503


async def test_a_secret_is_replaced_in_two_steps(backend: BaseStateBackend) -> None:
    """The first one signs, all count; once the old one is gone, so are its tokens."""
    await set_maintenance_mode(True)
    new = "a new secret of more than 16 bytes"
    old_token = await Bypass(SECRET).token()
    both = Bypass((new, SECRET))
    assert await status_with(app_with(both), old_token) == 200
    assert await status_with(app_with(Bypass(new)), await both.token()) == 200
    assert await status_with(app_with(Bypass(SECRET)), await both.token()) == 503
    assert await status_with(app_with(Bypass(new)), old_token) == 503


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"holder":"","expires":99999999999,"opens":{}}',
        b'{"holder":"","expires":"99999999999","opens":{"default":"%s"}}',
        b'{"holder":"","expires":1e400,"opens":{"default":"%s"}}',
        b'{"holder":"","expires":99999999999,"opens":{"default":"%s"},"more":1}',
    ],
)
async def test_what_is_signed_but_not_a_token_does_not_pass(backend: BaseStateBackend, said: bytes) -> None:
    """Such as one that another version of the package made."""
    from itsdangerous import base64_encode

    await set_maintenance_mode(True)
    bypass = Bypass(SECRET)
    claims = bypass.claims_of(await bypass.token(), datetime.now(UTC))
    assert claims is not None
    filled = said.replace(b"%s", claims.opens["default"].encode())
    for encoded in (base64_encode(filled), b"a", b"_" * 5):
        assert await status_with(app_with(bypass), bypass._signer.sign(encoded).decode()) == 503


async def test_a_signature_of_another_purpose_does_not_pass(backend: BaseStateBackend) -> None:
    """The app may sign other things with the same secret."""
    from itsdangerous import Signer

    await set_maintenance_mode(True)
    bypass = Bypass(SECRET)
    said = (await bypass.token()).rpartition(".")[0]
    for options in ({}, {"salt": "fastapi_maintenance.bypass"}, {"key_derivation": "hmac"}):
        signed = Signer(SECRET, **options).sign(said).decode()  # type: ignore[arg-type]
        assert await status_with(app_with(bypass), signed) == 503


async def test_a_token_of_another_switch_does_not_pass(backend: BaseStateBackend) -> None:
    """Whether it is under maintenance or not."""
    await set_maintenance_mode(True)
    await set_maintenance_mode(True, name="billing")
    bypass = Bypass(SECRET)
    assert await status_with(app_with(bypass), await bypass.token("billing")) == 503
    assert await status_with(app_with(bypass), await bypass.token("billing", "default")) == 200


@pytest.mark.parametrize("mode", ["on", "read_only"])
async def test_a_new_maintenance_ends_the_tokens_of_the_last(mode: Any, backend: BaseStateBackend) -> None:
    """One is new if the switch was off in between."""
    bypass = Bypass(SECRET)
    app = app_with(bypass)
    await set_maintenance_mode(mode)
    token = await bypass.token()
    assert await status_with(app, token, method="POST") == 200
    await set_maintenance_mode(False)
    await set_maintenance_mode(mode)
    assert await status_with(app, token, method="POST") == 503
    assert await status_with(app, await bypass.token(), method="POST") == 200


@pytest.mark.parametrize("kind", ["memory", "file"])
async def test_a_corrected_maintenance_keeps_its_tokens(kind: str, tmp_path: Path) -> None:
    """Another end, reason or mode, and none of these."""
    backend = configure_backend("file", file_path=tmp_path / "state") if kind == "file" else configure_backend(kind)
    bypass = Bypass(SECRET)
    app = app_with(bypass, backend=backend)
    await set_maintenance_mode(True, backend)
    token = await bypass.token(backend=backend)
    corrections: list[dict[str, Any]] = [
        {"value": True, "until": timedelta(hours=2)},
        {"value": True, "reason": "new disks"},
        {"value": True},
        {"value": "read_only"},
        {"value": True},
        {"value": True},
    ]
    for correction in corrections:
        await set_maintenance_mode(**correction, backend=backend)
        assert await status_with(app, token, method="POST") == 200, correction


async def test_a_window_that_takes_longer_keeps_its_tokens(backend: BaseStateBackend) -> None:
    """The mode that is stored while a window goes on continues it."""
    now = datetime.now(UTC)
    window = await schedule_maintenance(now - timedelta(hours=1), now + timedelta(hours=1))
    bypass = Bypass(SECRET)
    claims = bypass.claims_of(await bypass.token(), now)
    assert claims is not None
    await set_maintenance_mode(True, until=timedelta(hours=3))
    assert claims.admit("default", await get_maintenance_state(), window.end)
    await set_maintenance_mode(False)
    await set_maintenance_mode(True)
    assert not claims.admit("default", await get_maintenance_state(), now)


async def test_a_new_block_ends_the_tokens_of_the_last(backend: BaseStateBackend) -> None:
    """Each block that stands alone is a maintenance of its own."""
    bypass = Bypass(SECRET)
    app = app_with(bypass)
    async with maintenance_mode_on():
        token = await bypass.token()
        assert await status_with(app, token) == 200
        async with maintenance_mode_on():
            assert await status_with(app, token) == 200
            inner = await bypass.token()
        async with maintenance_mode_off():
            with pytest.raises(NotUnderMaintenance):
                await bypass.token()
        assert await status_with(app, inner) == 200, "it is the outer block's as well"
    async with maintenance_mode_on():
        assert await status_with(app, token) == 503


async def test_another_occurrence_of_a_window_is_another_maintenance(backend: BaseStateBackend) -> None:
    """A token for tonight opens tonight, and not next week; one that was ended early is over."""
    now = datetime.now(UTC)
    window = await schedule_maintenance(now - timedelta(hours=1), now + timedelta(hours=1), rrule="FREQ=WEEKLY")
    bypass = Bypass(SECRET)
    claims = bypass.claims_of(await bypass.token(), now)
    assert claims is not None
    state = await get_maintenance_state()
    week = timedelta(weeks=1)
    for moment, is_admitted in ((now, True), (window.end, False), (now + week, False), (now - week, False)):
        assert claims.admit("default", state, moment) is is_admitted
    other = await schedule_maintenance(now - timedelta(hours=2), now + timedelta(hours=2), mode="on")
    state = await get_maintenance_state()
    assert claims.admit("default", state, now), "whatever else goes on at the same time"
    assert len(maintenance_ids(state, now)) == 2
    await cancel_maintenance(window.id)
    assert not claims.admit("default", await get_maintenance_state(), now)
    await set_maintenance_mode(False)
    assert maintenance_ids(await get_maintenance_state(), now) == ["since "]
    assert other.id in (await get_maintenance_state()).windows


async def revoked_later(revoked: set[str], holder: str) -> bool:
    return holder in revoked


@pytest.mark.parametrize(
    "make",
    [
        lambda revoked: revoked.__contains__,
        lambda revoked: lambda holder: holder in revoked,
        lambda revoked: partial(revoked_later, revoked),
        lambda revoked: lambda holder: revoked_later(revoked, holder),
    ],
    ids=["method", "function", "async", "awaitable"],
)
async def test_a_revoked_holder_is_out_at_once(
    backend: BaseStateBackend, make: Callable[[set[str]], Callable[[str], bool | Awaitable[bool]]]
) -> None:
    """By header, by cookie and by a link that is opened again; others stay."""
    await set_maintenance_mode(True)
    revoked: set[str] = set()
    bypass = Bypass(SECRET, revoked=make(revoked))
    app = app_with(bypass)
    alice, bob = await bypass.token(holder="alice"), await bypass.token(holder="bob")
    async with client(app) as browser:
        assert (await browser.get(f"/items/7?{PARAMETER}={alice}")).status_code == 303
        assert (await browser.get("/items/7")).status_code == 200
        revoked.add("alice")
        assert (await browser.get("/items/7")).status_code == 503
        assert (await browser.get(f"/items/7?{PARAMETER}={alice}")).status_code == 503
    assert await status_with(app, alice) == 503
    assert await status_with(app, bob) == 200


async def test_a_revocation_that_fails_lets_nobody_in(
    backend: BaseStateBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, with the holder and without the token."""
    await set_maintenance_mode(True)

    def revoked(holder: str) -> bool:
        raise OSError("down")

    bypass = Bypass(SECRET, revoked=revoked)
    token = await bypass.token(holder="alice")
    assert await status_with(app_with(bypass), token) == 503
    assert await status(app_with(bypass), f"/?{PARAMETER}={token}") == 503
    assert "'alice' is refused" in caplog.text
    assert token not in caplog.text


async def test_a_token_does_not_open_what_is_forced_on(backend: BaseStateBackend) -> None:
    """Nothing does; its link is answered, and then blocked."""
    await set_maintenance_mode(True)
    bypass = Bypass(SECRET)
    app, token = app_with(bypass), await bypass.token()
    assert await status_with(app, token, "/forced") == 503
    assert await status(app, f"/forced?{PARAMETER}={token}", follow_redirects=True) == 503


async def test_what_does_not_exist_stays_so_for_a_token(backend: BaseStateBackend) -> None:
    """404, 405, and the redirect to the path with a slash, which keeps the rest of the query."""
    await set_maintenance_mode(True)
    bypass = Bypass(SECRET)
    app, token = app_with(bypass), await bypass.token()
    assert await status_with(app, token, "/missing") == 404
    assert await status_with(app, token, method="PUT") == 405
    answer = await get(app, f"/items?a=1&{PARAMETER}={token}", follow_redirects=True)
    assert [step.status_code for step in (*answer.history, answer)] == [303, 307, 200]
    assert answer.url.query == b"a=1"


async def test_only_so_many_tokens_are_verified(backend: BaseStateBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is full of them costs no more than a few signatures."""
    await set_maintenance_mode(True)
    bypass = Bypass(SECRET)
    token = await bypass.token()
    looked_at = []

    def claims_of(self: Bypass, token: str, now: datetime) -> Claims | None:
        looked_at.append(token)
        return None

    scope = scope_of(headers={"cookie": f"maintenance_bypass.default=x{token}; " * 300})
    scope["headers"] += [(b"x-maintenance-bypass", token.encode())]
    monkeypatch.setattr(Bypass, "claims_of", claims_of)
    assert (await call(app_with(bypass), scope)).status == 503
    assert looked_at == [token, *[f"x{token}"] * 31]


NO_TOKENS = {
    "of another form": "maintenance_bypass.default=junk",
    "almost of its form": f"maintenance_bypass.default=e30.{'A' * 42}",
    "for another switch": f"maintenance_bypass.billing=e30.{'A' * 43}",
    "of another name": f"maintenance_bypassed.default=e30.{'A' * 43}",
}


@pytest.mark.parametrize("junk", NO_TOKENS.values(), ids=NO_TOKENS)
async def test_what_is_no_token_hides_none(backend: BaseStateBackend, junk: str) -> None:
    """Cookies that can't open the switch don't count, however many there are."""
    await set_maintenance_mode(True)
    bypass = Bypass(SECRET)
    cookies = [*[junk] * 500, f"maintenance_bypass.default={await bypass.token()}"]
    app = app_with(bypass)
    assert await status(app, "/items/7", headers={"cookie": "; ".join(cookies)}) == 200
    scope = scope_of("/items/7")
    scope["headers"] = [(b"cookie", cookie.encode()) for cookie in cookies]
    assert (await call(app, scope)).status == 200


async def test_what_other_hosts_can_set_hides_no_cookie_of_this_host(backend: BaseStateBackend) -> None:
    """A neighbouring host can send as many tokens of a good form as a browser keeps, but not with the prefix."""
    await set_maintenance_mode(True)
    bypass = Bypass(SECRET)
    token, forged = await bypass.token(), "e30." + "A" * 43
    cookies = "; ".join([*[f"maintenance_bypass.default={forged}"] * 180, f"{{}}maintenance_bypass.default={token}"])
    app = app_with(bypass)
    assert await status(app, "/items/7", headers={"cookie": cookies.format("__Host-")}) == 200
    assert await status(app, "/items/7", headers={"cookie": cookies.format("")}) == 503
    # Nor any other way of a token.
    assert await status(app, "/items/7", headers={"cookie": cookies.format(""), HEADER: token}) == 200


@pytest.mark.parametrize(
    "cookie",
    [
        "maintenance_bypass.default=e30." + "A" * 43 + "; ",
        "maintenance_bypass.billing=e30." + "A" * 43 + "; ",
        "maintenance_bypass.default=",
        "maintenance_bypass.",
        "a" * 1000 + ".",
        "=",
        "; ",
        ";",
        " ",
    ],
)
async def test_no_cookies_take_long(backend: BaseStateBackend, cookie: str) -> None:
    """A server with httptools lets a client send megabytes of them."""
    bypass = Bypass(SECRET)
    state = MaintenanceState(mode=MaintenanceMode.ON)
    scope = scope_of()
    for start in ("", "maintenance_bypass.default="):
        scope["headers"] = [(b"cookie", (start + cookie * 1_000_000)[:1_000_000].encode())]
        started = time.thread_time()
        assert not await bypass.admits(scope, "default", state, NOW)
        assert cost_of_seconds(time.thread_time() - started) < 50


@pytest.mark.parametrize("pair", ["&", "a&", f"{PARAMETER}&", f"{PARAMETER}=%41&", "%6d", f"{PARAMETER}=%2", "%41"])
def test_no_query_takes_long(pair: str) -> None:
    """A server with httptools lets a client send 64 KB of it."""
    bypass = Bypass(SECRET)
    query = f"{PARAMETER}={pair * 65_536}"[:65_536].encode()
    assert cost_of(lambda: bypass.take(scope_of(query_string=query), AppSwitch())) < 50


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_raw_junk_holds_no_server_up(http: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes on the wire: cookies of 60 KB and of 1 MB, with a good token at the end, and a query of 60 KB."""
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "1")
    bypass, took = Bypass(SECRET), []
    app = app_with(bypass)

    async def timed(scope: Scope, receive: Receive, send: Send) -> None:
        started = time.thread_time()
        await app(scope, receive, send)
        took.append(time.thread_time() - started)

    token = run(bypass.token())
    junk = "maintenance_bypass.default=junk; " * 40_000
    with uvicorn_server(timed, http=http) as server:

        def status_of(path: str, cookies: str) -> bytes:
            lines = f"GET {path} HTTP/1.1", "Host: a", "Connection: close", f"Cookie: {cookies}", "", ""
            return exchange(server.port, "\r\n".join(lines)).split(b" ")[1]

        good = f"; maintenance_bypass.default={token}"
        assert status_of("/items/7", junk[:60_000] + good) == b"200"
        assert status_of("/items/7", junk[:1_000_000] + good) == (b"503" if http == "httptools" else b"400")
        assert status_of(f"/items/7?{'a&' * 30_000}{PARAMETER}={token}", "a=b") == b"303"
    assert cost_of_seconds(max(took)) < 50


async def test_a_token_that_is_too_long_is_not_even_read(
    backend: BaseStateBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No signature is computed of what can't be one."""
    bypass = Bypass(SECRET)
    monkeypatch.setattr(type(bypass._signer), "get_signature", None)
    assert bypass.claims_of("a" * 3000 + "." + "A" * 43, NOW) is None
    assert bypass.claims_of("", NOW) is None


# The link


async def test_a_link_gives_a_cookie_and_leads_to_the_same_url(backend: BaseStateBackend) -> None:
    """303, no store, no referrer; the cookie can't be read by scripts nor sent along by other sites."""
    await set_maintenance_mode(True)
    bypass = Bypass(SECRET)
    link = await bypass.link("http://testserver/items/7?a=1&b=%2F", lifetime=60)
    async with client(app_with(bypass)) as browser:
        answer = await browser.get(link)
        assert answer.status_code == 303
        assert answer.headers["location"] == "?a=1&b=%2F"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.content == b""
        (cookie,) = SimpleCookie(answer.headers["set-cookie"]).values()
        assert cookie.key == "maintenance_bypass.default"
        assert (cookie["path"], cookie["httponly"], cookie["samesite"], cookie["secure"]) == ("/", True, "Lax", "")
        assert 40 <= int(cookie["max-age"]) <= 61
        answer = await browser.get(link, follow_redirects=True)
        assert (answer.status_code, answer.json()) == (200, {"query": "a=1&b=%2F"})
        assert PARAMETER not in str(answer.url)
        await set_maintenance_mode(False)
        await set_maintenance_mode(True)
        assert (await browser.get("/items/7")).status_code == 503, "the cookie is of the last maintenance"


async def test_a_cookie_by_https_is_for_https_and_this_host_alone(backend: BaseStateBackend) -> None:
    """The prefix makes browsers hold on to it."""
    await set_maintenance_mode(True)
    bypass = Bypass(SECRET, cookie="tester")
    app, token = app_with(bypass), await bypass.token()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://testserver") as browser:
        answer = await browser.get(f"/?{PARAMETER}={token}")
        (cookie,) = SimpleCookie(answer.headers["set-cookie"]).values()
        assert cookie.key == "__Host-tester.default"
        assert (cookie["path"], cookie["secure"], cookie["domain"]) == ("/", True, "")
        assert (await browser.get("/")).status_code == 200


async def test_a_cookie_for_one_switch_leaves_that_of_another(backend: BaseStateBackend) -> None:
    """A tester with two links is in both."""
    await set_maintenance_mode(True)
    await set_maintenance_mode(True, name="billing")
    bypass = Bypass(SECRET)
    app = app_with(bypass)
    billing = APIRouter(prefix="/billing", dependencies=[Depends(MaintenanceGuard("billing"))])
    add_routes(billing)
    app.include_router(billing)
    async with client(app) as browser:
        assert (await browser.get(await bypass.link("/"))).status_code == 303
        assert (await browser.get("/billing/items/7")).status_code == 503
        assert (await browser.get(await bypass.link("/", "billing"))).status_code == 303
        assert set(browser.cookies) == {"maintenance_bypass.default", "maintenance_bypass.billing"}
        assert (await browser.get("/items/7")).status_code == 200
        assert (await browser.get("/billing/items/7")).status_code == 200
        assert (await browser.get("/billing/forced")).status_code == 503


@pytest.mark.parametrize("cookie", ["{}", "a=b; {}; c=d", 'a=";{};"', "maintenance_bypass.x=no; {}"])
async def test_the_cookie_is_found_among_others(backend: BaseStateBackend, cookie: str) -> None:
    """Also where another one of the same name, of another path, stands before it."""
    await set_maintenance_mode(True)
    bypass = Bypass(SECRET)
    headers = {"cookie": cookie.format(f"maintenance_bypass.default={await bypass.token()}")}
    assert await status(app_with(bypass), "/items/7", headers=headers) == 200
    other = {"cookie": headers["cookie"].replace("maintenance_bypass.default", "maintenance_bypass")}
    assert await status(app_with(bypass), "/items/7", headers=other) == 503


async def test_a_request_that_writes_is_let_in_by_its_link(backend: BaseStateBackend) -> None:
    """A redirect would lose its body; HEAD is redirected as GET is."""
    await set_maintenance_mode(True)
    bypass = Bypass(SECRET)
    app, link = app_with(bypass), await bypass.link("/items/7")
    answer = await request(app, "POST", link)
    assert (answer.status_code, answer.json()) == (200, {"query": ""})
    assert "set-cookie" not in answer.headers
    assert await status(app, link, "HEAD") == 303


async def test_of_several_tokens_in_a_query_the_first_counts(backend: BaseStateBackend) -> None:
    await set_maintenance_mode(True)
    bypass = Bypass(SECRET)
    app, token = app_with(bypass), await bypass.token()
    assert await status(app, f"/items/7?{PARAMETER}={token}&{PARAMETER}=x") == 303
    assert await status(app, f"/items/7?{PARAMETER}=x&{PARAMETER}={token}") == 503


async def test_a_link_works_while_the_mode_is_read_only(backend: BaseStateBackend) -> None:
    """Reading passes anyway, but the tester came to write."""
    await set_maintenance_mode("read_only")
    bypass = Bypass(SECRET)
    async with client(app_with(bypass)) as browser:
        assert (await browser.post("/items/7")).status_code == 503
        assert (await browser.get(await bypass.link("/items/7"), follow_redirects=True)).status_code == 200
        assert (await browser.post("/items/7")).status_code == 200


async def test_a_link_comes_with_a_path_or_a_whole_url(backend: BaseStateBackend) -> None:
    """Its query, its fragment and other parameters stay, an older token goes."""
    await set_maintenance_mode(True)
    bypass = Bypass(SECRET)
    token = "[A-Za-z0-9_.-]+"
    for url, link in {
        "https://api.example/x": rf"https://api\.example/x\?{PARAMETER}={token}",
        "/x?a=1&a=2#end": rf"/x\?a=1&a=2&{PARAMETER}={token}#end",
        f"http://[::1]:8000?{PARAMETER}=old&b": rf"http://\[::1\]:8000\?b&{PARAMETER}={token}",
    }.items():
        assert re.fullmatch(link, await bypass.link(url))
    for url in ("", "x", "//api.example/x", "javascript:alert(1)", "ftp://api.example/", "https:///x"):
        with pytest.raises(InvalidConfiguration, match="url must begin with"):
            await bypass.link(url)


async def test_names_can_be_chosen(backend: BaseStateBackend) -> None:
    """Where two services share a host, or a proxy is picky."""
    await set_maintenance_mode(True)
    bypass = Bypass(SECRET, parameter="preview", header="Preview", cookie="preview")
    app, token = app_with(bypass), await bypass.token()
    assert await status(app, "/items/7", headers={"preview": token}) == 200
    assert await status(app, f"/items/7?preview={token}") == 303
    assert await status(app, f"/items/7?{PARAMETER}={token}") == 503
    assert await status_with(app, token) == 503


# Nobody else sees the token


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("is_plain", [True, False])
@pytest.mark.parametrize(
    ("query", "seen"),
    [
        ("{}=x", ""),
        ("{}", ""),
        ("{}=", ""),
        ("a=1&{}=x", "a=1"),
        ("{}=x&a=1&&b=%2f+%C3", "a=1&&b=%2f+%C3"),
        ("{}=x&{}=y", ""),
        ("maintenance%5Fbypass=x&a", "a"),
        ("%6daintenance_bypas%73=x", ""),
        ("a={}", "a={}"),
        ("not_{}=1", "not_{}=1"),
        ("a=%41", "a=%41"),
    ],
)
async def test_nobody_after_us_sees_the_token(
    backend: BaseStateBackend, mode: bool, is_plain: bool, query: str, seen: str
) -> None:
    """Whether maintenance is on or off and the token is good or not, and whatever else is in the query."""
    await set_maintenance_mode(mode)
    scopes: list[Scope] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await Response()(scope, receive, send)

    class Sub(MaintenanceModeMiddleware):
        async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
            scopes.append(request.scope)
            return await super().dispatch(request, call_next)

    exemptions = Exemptions(paths=["/open"], bypass=Bypass(SECRET))
    kind = MaintenanceModeMiddleware if is_plain else Sub
    scope = scope_of("/open", query_string=query.replace("{}", PARAMETER).encode())
    assert (await call(kind(inner, exemptions=exemptions), scope)).status == 200
    expected = seen.replace("{}", PARAMETER).encode()
    assert [scope["query_string"] for scope in scopes] == [expected] * (1 if is_plain else 2)
    assert scope["query_string"] == expected, "what the server logs"


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["maintenance_bypass", "maintenance", "_bypass", "%5f", "%5F", "%6D", "m", "aintenance_bypass"]
        )
        | st.sampled_from(["&", "=", "%", "+", ";", "x", "%26", "%3D", "\n", "\x00", "%2525", "é"]),
        max_size=8,
    ).map("".join)
)
def test_no_spelling_of_the_parameter_is_left(query: str) -> None:
    """As the application would read the query, which has all the rest."""
    bypass, scope = Bypass(SECRET), scope_of(query_string=query.encode())
    read = partial(parse_qsl, keep_blank_values=True)
    was_taken = bypass.take(scope, AppSwitch())
    before, after = read(query.encode().decode("latin-1")), read(scope["query_string"].decode("latin-1"))
    assert after == [pair for pair in before if pair[0] != PARAMETER]
    assert was_taken is (before != after)


async def test_a_scope_can_be_printed_without_showing_the_token(backend: BaseStateBackend) -> None:
    """As a debugging middleware would; a server need not send a query at all."""
    token = await Bypass(SECRET).token(backend=EnvVarBackend())
    scopes = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(repr(scope))
        await Response()(scope, receive, send)

    app = MaintenanceModeMiddleware(inner, exemptions=Exemptions(bypass=Bypass(SECRET)))
    await call(app, scope_of(query_string=f"{PARAMETER}={token}".encode()))
    scope = scope_of()
    del scope["query_string"]
    await call(app, scope)
    assert len(scopes) == 2
    assert token not in "".join(scopes)


async def test_handlers_do_not_see_the_token(backend: BaseStateBackend) -> None:
    """Nor what they log of the request."""
    await set_maintenance_mode(True)
    seen: list[str] = []
    app = app_with(
        Bypass(SECRET),
        exempt_handler=lambda request: seen.append(str(request.url)),
        response_handler=lambda request: Response(str(request.url), 503),
    )
    answer = await get(app, f"/items/7?{PARAMETER}=x&a=1")
    assert [*seen, answer.text] == ["http://testserver/items/7?a=1"] * 2


async def test_without_a_bypass_a_query_is_nobodys_business(backend: BaseStateBackend) -> None:
    """The parameter may be the app's own."""
    assert (await get(app_with(None), f"/items/7?{PARAMETER}=x")).json() == {"query": f"{PARAMETER}=x"}


async def test_a_link_is_only_good_during_maintenance(backend: BaseStateBackend) -> None:
    """Off again: no cookie, no redirect, and the page as always, without the token."""
    await set_maintenance_mode(True)
    bypass = Bypass(SECRET)
    link = await bypass.link("/items/7?a=1")
    await set_maintenance_mode(False)
    answer = await get(app_with(bypass), link)
    assert (answer.status_code, answer.json()) == (200, {"query": "a=1"})
    assert "set-cookie" not in answer.headers


# Nobody is led elsewhere


def as_browsers_read(base: str, reference: str) -> str:
    """Return the origin and path that a reference leads to, by the URL standard as far as it matters here."""
    reference = re.sub(r"[\t\n\r]", "", reference.strip("".join(map(chr, range(33)))))
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", reference)
    path, mark, query = reference.partition("?")
    path = path.replace("\\", "/")
    if scheme or path.startswith("//"):
        return "elsewhere"
    parts = urlsplit(base)
    if not path:
        return f"{parts.scheme}://{parts.netloc}{parts.path}{mark}{query}"
    whole = path if path.startswith("/") else parts.path.replace("\\", "/").rpartition("/")[0] + "/" + path
    kept: list[str] = []
    segments = whole.split("/")[1:]
    for place, segment in enumerate(segments):
        is_up = re.fullmatch(r"(?:\.|%2e){2}", segment, re.IGNORECASE)
        is_here = re.fullmatch(r"\.|%2e", segment, re.IGNORECASE)
        if is_up:
            del kept[-1:]
        if not is_up and not is_here:
            kept.append(segment)
        elif place == len(segments) - 1:
            kept.append("")
    return f"{parts.scheme}://{parts.netloc}/{'/'.join(kept)}{mark}{query}"


EVIL = [
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/\\/evil.example/x",
    "/%5Cevil.example",
    "/%2F%2Fevil.example",
    "/\t/evil.example",
    "/\n//evil.example",
    "/\r\nLocation: https://evil.example",
    "/https://evil.example",
    "/https:evil.example",
    "/javascript:alert(1)",
    "//evil.example/..",
    "/.//evil.example",
    "/..//evil.example",
    "/x/..//evil.example",
    "/@evil.example",
    "//user:pass@evil.example:80/",
    "/\x00//evil.example",
    "/ü//évil",
    "/a/b;c=d,e'f",
    "https://evil.example/",
    "",
    "*",
]


@pytest.mark.parametrize("query", ["", "//evil.example", "next=//evil", "\\\\evil", "\r\nSet-Cookie: a=b", "#//evil"])
@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("path", EVIL)
def test_a_link_leads_nowhere_else(path: str, raw: bool, query: str) -> None:
    """However the path is spelled: the redirect is to a query or to a name beside the page."""
    scope = {"path": path, "query_string": query.encode()}
    if raw:
        scope["raw_path"] = path.encode()
    location = _relative_location(scope)
    assert re.fullmatch(r"(?:\?|\./)[!-~]*", location)
    base = "https://service.example/" + quote(path.lstrip("/\\"))
    for read in (urljoin, as_browsers_read):
        assert urlsplit(read(base, location))[:2] == ("https", "service.example")


paths = st.text(st.sampled_from("/\\.;:@%2e?#\t\n\r ax\x00é"), max_size=12)


@settings(deadline=None)
@given(paths, paths)
@example("/", "")
@example("/a/", "")
@example("/a/..", "")
def test_no_path_and_query_lead_elsewhere(path: str, query: str) -> None:
    """Whatever is made of the characters that mean something in a URL."""
    location = _relative_location({"path": path, "raw_path": path.encode(), "query_string": query.encode()})
    assert re.fullmatch(r"(?:\?|\./)[!-~]*", location)
    base = "https://service.example/a/b?c"
    assert as_browsers_read(base, location).startswith("https://service.example/")
    assert urlsplit(urljoin(base, location))[:2] == ("https", "service.example")


@settings(deadline=None)
@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1), max_size=4),
    st.lists(st.tuples(st.text(min_size=1), st.text()), max_size=3),
)
def test_a_link_leads_back_to_where_it_came_from(segments: list[str], pairs: list[tuple[str, str]]) -> None:
    """The same path, and the same parameters but ours."""
    path = "/" + "/".join(quote(segment, safe="") for segment in segments if segment not in (".", ".."))
    bypass = Bypass(SECRET)
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)
    scope = scope_of(path, query_string=f"{PARAMETER}=token&{query}".encode())
    assert bypass.take(scope, AppSwitch())
    there = f"https://service.example{path}?{PARAMETER}=token&{query}"
    for read in (urljoin, as_browsers_read):
        back = urlsplit(read(there, _relative_location(scope)))
        assert (back.netloc, back.path) == ("service.example", path)
        assert parse_qsl(back.query, keep_blank_values=True) == [pair for pair in pairs if pair[0] != PARAMETER]


async def test_a_prefix_that_a_proxy_took_away_stays(backend: BaseStateBackend) -> None:
    """The app knows nothing of it, and need not."""
    await set_maintenance_mode(True)
    bypass = Bypass(SECRET)
    app = app_with(bypass)
    link = await bypass.link("/items/7")
    assert urljoin(f"https://host/prefix{link}", (await get(app, link)).headers["location"]) == (
        "https://host/prefix/items/7"
    )
    assert (await get(app, link, root_path="/prefix")).headers["location"] == "./7"


# Websockets


@pytest.mark.parametrize("denial", [True, False])
async def test_a_websocket_comes_in_by_header_cookie_or_query(backend: BaseStateBackend, denial: bool) -> None:
    """There is nothing to redirect; the token is taken out of the query all the same."""
    await set_maintenance_mode(True)
    bypass = Bypass(SECRET)
    app, token = app_with(bypass), await bypass.token()
    assert not (await handshake(app, denial=denial)).accepted
    assert (await handshake(app, headers={HEADER: token})).accepted
    assert (await handshake(app, headers={"cookie": f"maintenance_bypass.default={token}"})).accepted
    answer = await handshake(app, query_string=f"a=1&{PARAMETER}={token}".encode(), denial=denial)
    assert answer.texts == ["a=1"]
    assert not (await handshake(app, query_string=f"{PARAMETER}={token[:-2]}".encode(), denial=denial)).accepted


# The guard


async def test_a_guard_takes_the_tokens_of_its_own_bypass(backend: BaseStateBackend) -> None:
    """Without a middleware: header, cookie, link and websocket, and a query that endpoints don't see."""
    await set_maintenance_mode(True)
    bypass = Bypass(SECRET)
    app = guarded(MaintenanceGuard(exemptions=Exemptions(bypass=bypass)))
    token = await bypass.token()
    assert await status_with(app, token) == 200
    assert await status_with(app, token[:-1]) == 503
    assert await status_with(app, token, "/forced") == 503
    async with client(app) as browser:
        answer = await browser.get(f"/items/7?a=1&{PARAMETER}={token}")
        assert (answer.status_code, answer.headers["location"]) == (303, "?a=1")
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert (await browser.get("/items/7?a=1")).json() == {"query": "a=1"}
    assert (await request(app, "POST", f"/items/7?{PARAMETER}={token}")).json() == {"query": ""}
    assert (await handshake(app, query_string=f"{PARAMETER}={token}".encode())).texts == [""]


async def test_a_guard_blocks_by_two_switches_and_a_token_opens_its_own(backend: BaseStateBackend) -> None:
    """To pass both, it is made for both."""
    bypass = Bypass(SECRET)
    app = guarded(MaintenanceGuard("billing", exemptions=Exemptions(bypass=bypass)))
    await set_maintenance_mode(True, name="billing")
    billing = await bypass.token("billing")
    assert await status_with(app, billing) == 200
    await set_maintenance_mode(True)
    default, both = await bypass.token(), await bypass.token("default", "billing")
    assert [await status_with(app, token) for token in (billing, default, both)] == [503, 503, 200]
    await set_maintenance_mode(False, name="billing")
    assert [await status_with(app, token) for token in (billing, default, both)] == [503, 200, 200]


async def test_a_guard_takes_the_tokens_of_the_middlewares_bypass(backend: BaseStateBackend) -> None:
    """The middleware redeems links for the guard's switch, while its own is off."""
    await set_maintenance_mode(True, name="billing")
    bypass = Bypass(SECRET)
    app = guarded(MaintenanceGuard("billing"))
    app.add_middleware(MaintenanceModeMiddleware, exemptions=Exemptions(bypass=bypass))
    token = await bypass.token("billing")
    assert await status(app, "/items/7") == 503
    assert await status_with(app, token) == 200
    assert await status(app, f"/items/7?{PARAMETER}={token}", follow_redirects=True) == 200
    assert (await handshake(app, query_string=f"{PARAMETER}={token}".encode())).texts == [""]


async def test_a_guard_redeems_the_links_that_the_middleware_can_not(backend: BaseStateBackend) -> None:
    """Each has a secret of its own; the middleware took the token out of the query already."""
    await set_maintenance_mode(True, name="billing")
    own = Bypass("the guard's own secret")
    app = guarded(MaintenanceGuard("billing", exemptions=Exemptions(bypass=own)))
    app.add_middleware(MaintenanceModeMiddleware, exemptions=Exemptions(bypass=Bypass(SECRET)))
    link = await own.link("/items/7?a=1", "billing")
    async with client(app) as browser:
        answer = await browser.get(link, follow_redirects=True)
        assert [step.status_code for step in (*answer.history, answer)] == [303, 200]
    assert await status(app, await Bypass(SECRET).link("/items/7", "billing")) == 303


# Nor a trace


def exported(provider: TracerProvider) -> InMemorySpanExporter:
    """Return where a provider's spans are when they have ended."""
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


def attributes_of(exporter: InMemorySpanExporter, name: str) -> list[Any]:
    """Return an attribute of all spans that have it."""
    return [(span.attributes or {})[name] for span in exporter.get_finished_spans() if name in (span.attributes or {})]


@pytest.mark.skipif(not hasattr(FastAPI(), "_native_telemetry"), reason="FastAPI makes no spans of its own")
@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("query", ["a=1&{}={}&b=%2F", "a=1&maintenance%5Fbypass={1}&b=%2F", "a=1&{0}=x&{0}={1}&b=%2F"])
@pytest.mark.parametrize("is_guard", [True, False])
async def test_fastapis_own_span_does_not_have_the_token(
    backend: BaseStateBackend, mode: bool, query: str, is_guard: bool
) -> None:
    """It is begun before any middleware; also where another span is the current one when we see the request."""
    await set_maintenance_mode(True)
    provider = TracerProvider()
    exporter, bypass = exported(provider), Bypass(SECRET)
    token = await bypass.token()
    await set_maintenance_mode(mode)

    class InASpan:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            with provider.get_tracer("other").start_as_current_span("other"):
                await self.app(scope, receive, send)

    telemetry: Any = {"tracer_provider": provider}
    app = FastAPI(telemetry=telemetry)
    add_routes(app)
    if is_guard:
        app = FastAPI(telemetry=telemetry)
        router = APIRouter(dependencies=[Depends(MaintenanceGuard("default", exemptions=Exemptions(bypass=bypass)))])
        add_routes(router)
        app.include_router(router)
    else:
        app.add_middleware(MaintenanceModeMiddleware, exemptions=Exemptions(bypass=bypass))
        app.add_middleware(InASpan)
    await get(app, "/items/7?" + query.format(PARAMETER, token))
    assert attributes_of(exporter, "url.query") == ["a=1&b=%2F"]
    assert token[5:40] not in repr([span.to_json() for span in exporter.get_finished_spans()])


@pytest.mark.skipif(not hasattr(FastAPI(), "_native_telemetry"), reason="FastAPI makes no spans of its own")
@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_a_raw_request_leaves_no_token_in_a_span(http: str) -> None:
    """Bytes on the wire, with the parameter's name as browsers never write it."""
    provider = TracerProvider()
    exporter, telemetry = exported(provider), cast("Any", {"tracer_provider": provider})
    app = FastAPI(telemetry=telemetry)
    app.add_middleware(MaintenanceModeMiddleware, exemptions=Exemptions(bypass=Bypass(SECRET)))
    with uvicorn_server(app, http=http) as server:
        request_line = "GET /?a=1&%6Daintenance%5fbypass=e30.secret&b= HTTP/1.1"
        exchange(server.port, f"{request_line}\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert attributes_of(exporter, "url.query") == ["a=1&b="]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"url.query": "{}"}, {"url.query": ""}),
        ({"url.query": "a=?&{}"}, {"url.query": "a=?"}),
        (
            {"url.full": "http://testserver/x?{}", "url.path": "/x"},
            {"url.full": "http://testserver/x", "url.path": "/x"},
        ),
        ({"http.url": "http://testserver/x?{}&a=ä\udcff"}, {"http.url": "http://testserver/x?a=ä\udcff"}),
        ({"http.target": "/x?a&{}", "url.query": 7}, {"http.target": "/x?a", "url.query": 7}),
        ({"http.target": "/x?a", "other": "{}"}, {"http.target": "/x?a", "other": "{}"}),
        ({}, {}),
    ],
)
@pytest.mark.parametrize("is_recorded", [True, False])
def test_a_span_around_us_has_no_token_in_its_urls(
    attributes: dict[str, Any], expected: dict[str, Any], is_recorded: bool
) -> None:
    """By the old and the new names of OpenTelemetry; what isn't recorded, or has ended, stays as it is."""
    pair, provider = f"{PARAMETER}=a.b", TracerProvider(sampler=ALWAYS_ON if is_recorded else ALWAYS_OFF)
    exporter = exported(provider)

    def filled(values: dict[str, Any]) -> dict[str, Any]:
        return {name: value.format(pair) if isinstance(value, str) else value for name, value in values.items()}

    scope = scope_of(query_string=f"{pair}&a".encode())
    with provider.get_tracer("outer").start_as_current_span("GET", attributes=filled(attributes)):
        assert Bypass(SECRET).take(scope, AppSwitch())
    assert scope["query_string"] == b"a"
    assert [dict(span.attributes or {}) for span in exporter.get_finished_spans()] == [filled(expected)] * is_recorded


def test_no_trace_is_looked_for_where_nobody_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenTelemetry is optional, and stays unimported."""
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    scope = scope_of(query_string=f"{PARAMETER}=x".encode())
    assert Bypass(SECRET).take(scope, AppSwitch())
    assert scope["query_string"] == b""


# With a real server


class Watching(BaseHTTPMiddleware):
    """Logs every URL, as many services do."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        logging.getLogger("watching").info("%s", request.url)
        return await call_next(request)


@pytest.mark.parametrize("ws", ["websockets", "websockets-sansio", "wsproto"])
@pytest.mark.filterwarnings("ignore:remove second argument:DeprecationWarning")
def test_the_access_log_does_not_have_the_token(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, ws: str
) -> None:
    """Nor has ours, nor that of a middleware inside: on and off, good and bad, by HTTP and websocket."""
    caplog.set_level(logging.INFO)
    bypass, variable = Bypass(SECRET), "FASTAPI_MAINTENANCE_MODE"
    app = FastAPI()
    app.add_middleware(Watching)
    app.add_middleware(MaintenanceModeMiddleware, exemptions=Exemptions(bypass=bypass))
    add_routes(app)
    with (
        uvicorn_server(app, ws=ws, access_log=True) as server,
        httpx.Client(base_url=server.http("")) as browser,
    ):
        token = run(bypass.token(holder="alice"))
        for mode, statuses in (("1", [303, 503, 200, 503]), ("0", [200, 200, 200, 200])):
            monkeypatch.setenv(variable, mode)
            answers = [
                browser.get(f"/items/7?page={mode}&{PARAMETER}={token}"),
                browser.get(f"/items/7?page={mode}&{PARAMETER}={token}x", headers={"cookie": ""}),
                browser.post(f"/items/7?page={mode}&maintenance%5Fbypass={token}"),
                browser.post(f"/items/7?page={mode}&{PARAMETER}={token[1:]}", headers={"cookie": ""}),
            ]
            assert [answer.status_code for answer in answers] == statuses
            with connect(server.ws(f"/ws?page={mode}&{PARAMETER}={token}")) as websocket:
                assert websocket.recv() == f"page={mode}"
        monkeypatch.setenv(variable, "1")
        with pytest.raises(InvalidStatus):
            connect(server.ws(f"/ws?page=1&{PARAMETER}={token[1:]}"))
    ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore", "websockets.cl"))]
    lines = [record.getMessage() for record in ours]
    assert sum("page=" in line for line in lines if "HTTP/1.1" in line) == 8
    assert sum("page=" in line for line in lines if "WebSocket /ws" in line) >= 3
    assert any("link of 'alice' was opened, for default" in line for line in lines)
    assert not [line for line in lines if token[5:40] in line or token[-20:-5] in line]


def run(coroutine: Any) -> Any:
    """Return what a coroutine returns that awaits nothing."""
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    return stop.value.value
