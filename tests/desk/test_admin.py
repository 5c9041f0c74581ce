"""The operator's page and its JSON API."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request, Security
from fastapi.testclient import TestClient

from fastapi_maintenance import (
    InvalidConfiguration,
    MaintenanceGuard,
    MaintenanceModeMiddleware,
    MissingExtra,
    configure_backend,
    get_maintenance_mode,
    get_maintenance_state,
    maintenance_guard,
    maintenance_mode_on,
    schedule_maintenance,
    set_maintenance_mode,
)
from fastapi_maintenance.admin import maintenance_admin
from fastapi_maintenance.backends import LocalFileBackend, MemoryBackend
from tests.support.asgi import Answer, call, scope_of
from tests.support.costs import cost_of_seconds
from tests.support.places import TwoMethods
from tests.support.servers import exchange, uvicorn_server

pytestmark = pytest.mark.anyio

HOST = "http://localhost"
API = "/admin/api/switches"
MARKUP = "<script>alert(1)</script>\"'&"


def app_with(**options: Any) -> FastAPI:
    """Return an app with a guarded switch, and the admin in the middle of everything that could lock it out."""
    app = FastAPI(dependencies=[Depends(maintenance_guard)])
    app.add_middleware(MaintenanceModeMiddleware)
    app.get("/bills", dependencies=[Depends(MaintenanceGuard("billing"))])(lambda: "bills")
    guarded = APIRouter(dependencies=[Depends(MaintenanceGuard("operators"))])
    guarded.include_router(maintenance_admin(**{"insecure": True, **options}), prefix="/admin")
    app.include_router(guarded)
    return app


@pytest.fixture(autouse=True)
def _memory() -> None:
    for name in "default", "billing", "operators":
        configure_backend("memory", name=name)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app_with(user=lambda request: request.headers.get("x-user", "ops"))) as client:
        yield client


def client_of(app: FastAPI, **options: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url=HOST, **options)


def fields_of(page: str, action: str, name: str = "default") -> dict[str, str]:
    """Return the hidden fields of a form, as a browser would send them."""
    for form in re.findall(r"<form.*?</form>", page, re.DOTALL):
        fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form))
        if fields["action"] == action and fields["name"] == name:
            return {key: value.replace("&#34;", '"') for key, value in fields.items()}
    raise AssertionError(page)


async def post(client: httpx.AsyncClient, fields: dict[str, str], **more: str) -> httpx.Response:
    return await client.post("/admin/", data={**fields, **more}, headers={"origin": HOST})


# Who gets in


def test_without_anything_that_keeps_strangers_out_it_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InvalidConfiguration, match=r"pass dependencies=\[Depends"):
        maintenance_admin()
    maintenance_admin(insecure=True)
    assert "everybody on this machine can switch the service off" in caplog.text


DOORS = [("GET", "/admin/"), ("POST", "/admin/"), ("GET", API), ("PUT", f"{API}/default/mode")]


async def asked(
    method: str, path: str, client: tuple[str, int] | None, *headers: tuple[str, str], app: FastAPI | None = None
) -> Answer:
    """Return the answer to a request with exactly these headers."""
    scope = scope_of(path, method, client=client)
    scope["headers"] = [(name.encode(), value.encode()) for name, value in headers]
    return await call(app or app_with(), scope)


@pytest.mark.parametrize(
    ("client", "host"),
    [
        ("127.0.0.1", "localhost"),
        ("127.0.0.1", "LocalHost:8000"),
        ("127.8.7.6", "127.0.0.2:80"),
        ("::1", "[::1]:8000"),
        ("::ffff:127.0.0.1", "[::1]"),
        ("testclient", "testserver"),
        ("testclient", "localhost"),
    ],
)
async def test_without_dependencies_this_machine_is_answered(client: str, host: str) -> None:
    assert (await asked("GET", "/admin/", (client, 50000), ("host", host))).status == 200
    assert (await asked("GET", API, (client, 50000), ("host", host))).status == 200


HERE = ("127.0.0.1", 50000)


@pytest.mark.parametrize(
    ("client", "headers"),
    [
        (("192.0.2.7", 50000), [("host", "localhost")]),
        (("2001:db8::1", 50000), [("host", "[::1]")]),
        (("localhost", 50000), [("host", "localhost")]),
        (("192.0.2.7", 50000), [("host", "testserver")]),
        (None, [("host", "localhost")]),
        (HERE, [("host", "rebound.example")]),
        (HERE, [("host", "rebound.example:8000")]),
        (HERE, [("host", "localhost.rebound.example")]),
        (HERE, [("host", "rebound.example@localhost")]),
        (HERE, [("host", "127.0.0.1.rebound.example")]),
        (HERE, [("host", "192.0.2.7")]),
        (HERE, [("host", "0.0.0.0")]),
        (HERE, [("host", "[2001:db8::1]:80")]),
        (HERE, [("host", "[::1")]),
        (HERE, [("host", "testserver")]),
        (HERE, [("host", "localhost"), ("host", "rebound.example")]),
        (HERE, [("host", "")]),
        (HERE, []),
        (HERE, [("host", "localhost"), ("x-forwarded-for", "127.0.0.1")]),
        (HERE, [("host", "localhost"), ("forwarded", "for=192.0.2.7")]),
        (HERE, [("host", "localhost"), ("x-forwarded-host", "rebound.example")]),
        (("testclient", 50000), [("host", "rebound.example")]),
    ],
)
async def test_without_dependencies_nobody_else_is_answered(
    client: tuple[str, int] | None, headers: list[tuple[str, str]]
) -> None:
    """Neither other machines, nor pages of other sites whose names lead here, nor what a proxy passes on."""
    for method, path in DOORS:
        answer = await asked(method, path, client, *headers, ("content-type", "application/json"))
        assert answer.status == 403, (method, path)
        assert b"replace insecure=True with dependencies=[Depends(...)]" in answer.body
    assert await get_maintenance_mode() is False


async def test_with_dependencies_any_machine_is_answered() -> None:
    app = app_with(dependencies=[Depends(lambda: None)])
    answer = await asked("GET", "/admin/", ("192.0.2.7", 50000), ("host", "admin.example"), app=app)
    assert answer.status == 200


def test_starlettes_test_client_is_answered() -> None:
    with TestClient(app_with()) as client:
        assert client.get("/admin/").status_code == 200
        assert client.put(f"{API}/default/mode", json={"mode": "on"}).json()["mode"] == "on"


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_raw_requests_by_other_names_are_refused(http: str) -> None:
    """Bytes on the wire: a rebound name, an absolute target, no name, and a client that claims to be a proxy."""
    with uvicorn_server(app_with(), http=http) as server:

        def status_of(*lines: str) -> bytes:
            return exchange(server.port, "\r\n".join([*lines, "Connection: close", "", ""])).split(b" ")[1]

        request = f"GET {API} HTTP/1.1"
        assert status_of(request, f"Host: localhost:{server.port}") == b"200"
        assert status_of(request, f"Host: 127.0.0.1:{server.port}") == b"200"
        assert status_of(request, f"Host: rebound.example:{server.port}") == b"403"
        assert status_of(f"GET http://localhost{API} HTTP/1.1", "Host: rebound.example") in (b"403", b"404")
        assert status_of(f"GET {API} HTTP/1.0") == b"403"
        assert status_of(request, "Host: localhost", "X-Forwarded-For: 127.0.0.1") == b"403"


async def only_operators() -> None:
    raise HTTPException(401, "who are you?")


@pytest.mark.parametrize(
    ("dependencies", "message"),
    [
        ([only_operators], r"only_operators.*write dependencies=\[Depends\(\.\.\.\)\]"),
        (Depends(only_operators), r"only_operators.*write dependencies=\[Depends\(\.\.\.\)\]"),
        (only_operators, r"only_operators.*write dependencies=\[Depends\(\.\.\.\)\]"),
        ([Depends(only_operators), "login"], r"'login'.*write dependencies=\[Depends\(\.\.\.\)\]"),
        (iter(()), "would let everybody switch the service off"),
        (None, "would let everybody switch the service off"),
    ],
)
def test_what_would_keep_nobody_out_is_refused(dependencies: Any, message: str) -> None:
    """With how it is written, and not at the first request."""
    with pytest.raises(InvalidConfiguration, match=message):
        maintenance_admin(dependencies=dependencies)


async def test_dependencies_may_come_from_any_iterable() -> None:
    async with client_of(app_with(insecure=False, dependencies=iter([Security(only_operators)]))) as client:
        assert (await client.get("/admin/")).status_code == 401


async def test_dependencies_keep_strangers_out_of_everything() -> None:
    def only_operators(authorization: str = Header("")) -> None:
        if authorization != "Bearer right":
            raise HTTPException(401, "who are you?")

    app = app_with(insecure=False, dependencies=[Depends(only_operators)])
    async with client_of(app) as client:
        for method, path in [
            ("GET", "/admin/"),
            ("POST", "/admin/"),
            ("GET", API),
            ("GET", f"{API}/default"),
            ("PUT", f"{API}/default/mode"),
            ("POST", f"{API}/default/windows"),
            ("DELETE", f"{API}/default/windows/x"),
            ("DELETE", f"{API}/default/holds/x"),
        ]:
            answer = await client.request(method, path, json={"mode": "on"} if method in ("PUT", "POST") else None)
            assert answer.status_code == 401, (method, path)
            assert answer.json() == {"detail": "who are you?"}
        assert (await client.get(API, headers={"authorization": "Bearer right"})).status_code == 200


async def test_it_never_locks_itself_out(client: httpx.AsyncClient) -> None:
    """By the default switch, nor by one of a guard around it; and it can open both again."""
    for name in "default", "operators":
        await set_maintenance_mode(True, name=name)
    assert (await client.get("/bills")).status_code == 503
    for name in "default", "operators":
        page = (await client.get("/admin/")).text
        assert (await post(client, fields_of(page, "set", name))).status_code == 303
    assert (await client.get("/bills")).status_code == 200


@pytest.mark.parametrize("missing", [["jinja2"], ["python_multipart", "multipart"]])
def test_a_missing_extra_is_told(missing: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for module in missing:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r"fastapi-maintenance\[admin\]"):
        maintenance_admin(insecure=True)


# The API


async def test_switches_are_listed(client: httpx.AsyncClient) -> None:
    """Those that are configured and those of guards, the default one first."""
    names = [one["name"] for one in (await client.get(API)).json()]
    assert names == ["default", "billing", "operators"]
    async with client_of(app_with(names=["billing"])) as other:
        assert [one["name"] for one in (await other.get(API)).json()] == ["billing"]
        assert (await other.get(f"{API}/default")).status_code == 404
    with pytest.raises(ValueError, match="invalid switch name"):
        maintenance_admin(insecure=True, names=["?"])
    with pytest.raises(InvalidConfiguration, match=r"names='default' is one string; write names=\('default',\)"):
        maintenance_admin(insecure=True, names="default")


async def test_who_makes_a_change_is_told_by_a_function(caplog: pytest.LogCaptureFixture) -> None:
    """Sync or async; one that fails is logged, and it isn't known who it was. An answer of its own is one."""

    async def found(request: Request) -> str:
        return request.headers["x-user"]

    def refuses(request: Request) -> str:
        raise HTTPException(403, "no operator")

    url = f"{API}/default/mode"
    async with client_of(app_with(user=found)) as client:
        answer = await client.put(url, json={"mode": "on"}, headers={"x-user": "jo"})
        assert answer.json()["updated_by"] == "jo"
        answer = await client.put(url, json={"mode": "read_only"})
        assert (answer.status_code, answer.json()["updated_by"]) == (200, None)
        assert "user failed, so this change is stored without a name" in caplog.text
        assert "KeyError: 'x-user'" in caplog.text
        fields = fields_of((await client.get("/admin/")).text, "set")
        assert (await post(client, fields)).status_code == 303
    caplog.clear()
    async with client_of(app_with(user=lambda request: 7)) as client:
        answer = await client.put(url, json={"mode": "on"})
        assert (answer.status_code, answer.json()["updated_by"]) == (200, None)
        assert "user must return a string, got 7" in caplog.text
    async with client_of(app_with(user=refuses)) as client:
        assert (await client.put(url, json={"mode": "off"})).status_code == 403
    with pytest.raises(InvalidConfiguration, match=r"user must be a function.*such as lambda request: .*got 'bob'"):
        maintenance_admin(insecure=True, user="bob")  # type: ignore[arg-type]


async def test_a_mode_is_stored_with_what_belongs_to_it(client: httpx.AsyncClient) -> None:
    end = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    change = {"mode": "read_only", "reason": "disks", "until": end, "retry_after": 5}
    answer = await client.put(f"{API}/billing/mode", json=change, headers={"x-user": "jo"})
    told = answer.json()
    assert answer.status_code == 200
    assert (told["mode"], told["reason"], told["retry_after"], told["updated_by"]) == ("read_only", "disks", 5, "jo")
    assert datetime.fromisoformat(told["until"]) == datetime.fromisoformat(end)
    assert answer.headers["etag"] == told["etag"] == (await client.get(f"{API}/billing")).headers["etag"]
    assert (await client.put(f"{API}/billing/mode", json={"mode": "off"})).json()["mode"] == "off"


async def test_a_change_can_require_what_it_is_based_on(client: httpx.AsyncClient) -> None:
    etag = (await client.get(f"{API}/default")).headers["etag"]
    url = f"{API}/default/mode"
    assert (await client.put(url, json={"mode": "on"}, headers={"if-match": f'"other", {etag}'})).status_code == 200
    answer = await client.put(url, json={"mode": "off"}, headers={"if-match": etag})
    assert (answer.status_code, answer.json()["detail"]) == (
        412,
        "somebody else has changed the switch: review its state and decide again",
    )
    assert await get_maintenance_mode() is True
    assert (await client.put(url, json={"mode": "off"}, headers={"if-match": "*"})).status_code == 200


async def test_a_change_of_a_store_without_versions_is_noticed_by_its_mode(
    client: httpx.AsyncClient, tmp_path: Any
) -> None:
    """In the API and on the page; off and on again is the same as nothing."""
    configure_backend(TwoMethods(str(tmp_path / "switch")), name="billing")
    etag = (await client.get(f"{API}/billing")).headers["etag"]
    page = (await client.get("/admin/")).text
    await set_maintenance_mode(True, name="billing")
    url = f"{API}/billing/mode"
    assert (await client.put(url, json={"mode": "off"}, headers={"if-match": etag})).status_code == 412
    answer = await post(client, fields_of(page, "set", "billing"), mode="off")
    assert answer.status_code == 412
    assert await get_maintenance_mode(name="billing") is True
    await set_maintenance_mode(False, name="billing")
    assert (await client.put(url, json={"mode": "on"}, headers={"if-match": etag})).status_code == 200


async def test_windows_are_planned_and_cancelled(client: httpx.AsyncClient) -> None:
    start = datetime.now(UTC) + timedelta(hours=1)
    plan = {
        "start": start.isoformat(),
        "end": (start + timedelta(hours=1)).isoformat(),
        "rrule": "FREQ=DAILY",
        "zone": "UTC",
        "reason": "backup",
    }
    answer = await client.post(f"{API}/default/windows", json=plan)
    assert answer.status_code == 201
    window = answer.json()
    assert (window["rrule"], window["reason"], window["mode"]) == ("FREQ=DAILY", "backup", "on")
    listed = (await client.get(f"{API}/default")).json()
    assert listed["windows"] == [window]
    assert listed["next_change_at"] is not None
    assert (await client.delete(f"{API}/default/windows/{window['id']}")).status_code == 204
    answer = await client.delete(f"{API}/default/windows/{window['id']}")
    assert answer.status_code == 404
    naive = {**plan, "start": start.replace(tzinfo=None).isoformat()}
    assert (await client.post(f"{API}/default/windows", json=naive)).status_code == 422
    never = {**plan, "end": plan["start"]}
    answer = await client.post(f"{API}/default/windows", json=never)
    assert answer.status_code == 422
    assert "is not after the start" in answer.json()["detail"][0]["msg"]


async def test_holds_refuse_an_off_and_can_be_broken(client: httpx.AsyncClient) -> None:
    url = f"{API}/default/mode"
    async with maintenance_mode_on(owner="migration 42", reason="copying") as block:
        answer = await client.put(url, json={"mode": "off"})
        assert answer.status_code == 409
        assert "held on by migration 42" in answer.json()["detail"]
        [hold] = (await client.get(f"{API}/default")).json()["holds"]
        assert (hold["owner"], hold["kind"], hold["reason"]) == ("migration 42", "on", "copying")
        assert (await client.delete(f"{API}/default/holds/{hold['id']}")).status_code == 204
        assert block.lost.is_set()
        assert (await client.delete(f"{API}/default/holds/{hold['id']}")).status_code == 404
    async with maintenance_mode_on():
        assert (await client.put(url, json={"mode": "off", "break_holds": True})).json()["mode"] == "off"


async def test_what_a_store_can_not_do_is_told(client: httpx.AsyncClient, tmp_path: Any) -> None:
    cases: list[tuple[Any, dict[str, str], int, str]] = [
        ("env", {"mode": "on"}, 409, "can't be set from here"),
        (TwoMethods(str(tmp_path / "switch")), {"mode": "read_only"}, 409, "can't keep read_only"),
        (LocalFileBackend(tmp_path / "no" / "directory"), {"mode": "on"}, 503, "is not available"),
    ]
    for backend, body, status, message in cases:
        made = configure_backend(backend, name="billing")
        answer = await client.put(f"{API}/billing/mode", json=body)
        assert (answer.status_code, message in answer.json()["detail"]) == (status, True), answer.text
        if isinstance(made, LocalFileBackend):
            await made.aclose()


# Other sites


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost.evil.example"},
        {"sec-fetch-site": "cross-site", "origin": HOST},
        {"sec-fetch-site": "same-site"},
    ],
)
async def test_what_another_site_asks_for_is_refused(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """Through whatever door, also with the right token."""
    fields = fields_of((await client.get("/admin/")).text, "set")
    asked = [
        client.build_request("POST", "/admin/", data=fields, headers=headers),
        client.build_request("PUT", f"{API}/default/mode", json={"mode": "on"}, headers=headers),
        client.build_request("DELETE", f"{API}/default/holds/x", headers=headers),
    ]
    for request in asked:
        assert (await client.send(request)).status_code == 403
    assert await get_maintenance_mode() is False


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_the_api_takes_json_only(client: httpx.AsyncClient, kind: str) -> None:
    """The rest a form of another site could send."""
    for method, url in ("PUT", f"{API}/default/mode"), ("POST", f"{API}/default/windows"):
        answer = await client.request(method, url, content=b'{"mode":"on"}', headers={"content-type": kind})
        assert answer.status_code == 415
    assert await get_maintenance_mode() is False


@pytest.mark.parametrize("token", ["", "wrong", "ü"])
async def test_a_form_needs_the_token_of_its_page(client: httpx.AsyncClient, token: str) -> None:
    fields = fields_of((await client.get("/admin/")).text, "set")
    assert (await post(client, {**fields, "mode": "on", "token": token})).status_code == 403
    client.cookies.clear()
    assert (await post(client, {**fields, "mode": "on"})).status_code == 403
    assert await get_maintenance_mode() is False


async def test_nothing_is_changed_by_get(client: httpx.AsyncClient) -> None:
    fields = fields_of((await client.get("/admin/")).text, "set")
    assert (await client.get("/admin/", params={**fields, "mode": "on"})).status_code == 200
    for path in f"{API}/default/mode", f"{API}/default/windows", f"{API}/default/holds/x":
        assert (await client.get(path)).status_code == 405
    assert await get_maintenance_mode() is False


async def test_no_cache_keeps_what_the_api_answers(client: httpx.AsyncClient) -> None:
    """Neither what there is nor, as some would, that there is nothing."""
    start = datetime.now(UTC) + timedelta(hours=1)
    window = {"start": start.isoformat(), "end": (start + timedelta(hours=1)).isoformat()}
    planned = await client.post(f"{API}/default/windows", json=window)
    answers = [
        planned,
        await client.get(API),
        await client.get(f"{API}/default"),
        await client.put(f"{API}/default/mode", json={"mode": "on"}),
        await client.delete(f"{API}/default/windows/{planned.json()['id']}"),
        await client.get(f"{API}/unknown"),
        await client.delete(f"{API}/default/holds/unknown"),
        await client.put(f"{API}/default/mode", content=b'{"mode":"on"}', headers={"content-type": "text/plain"}),
        await client.put(f"{API}/default/mode", json={"mode": "on"}, headers={"if-match": '"other"'}),
        await client.put(f"{API}/default/mode", json={"mode": "on"}, headers={"origin": "http://evil.example"}),
        await client.post("/admin/", data={}),
    ]
    assert [answer.status_code for answer in answers] == [201, 200, 200, 200, 204, 404, 404, 415, 412, 403, 403]
    assert {answer.headers["cache-control"] for answer in answers} == {"no-store"}


async def test_only_so_many_etags_are_compared(client: httpx.AsyncClient) -> None:
    """A header of a megabyte takes no time."""
    etag = (await client.get(f"{API}/default")).headers["etag"]
    started = time.thread_time()
    for etags, status in (['"a"'] * 31 + [etag], 200), (['"a"'] * 32 + [etag], 412), (['"a"'] * 250_000, 412):
        change = {"mode": "off", "reason": None}
        headers = {"if-match": ",".join(etags)}
        assert (await client.put(f"{API}/default/mode", json=change, headers=headers)).status_code == status
        etag = (await client.get(f"{API}/default")).headers["etag"]
    assert cost_of_seconds(time.thread_time() - started) < 1_000


# The page


async def test_the_page_is_closed_to_everything_but_itself(client: httpx.AsyncClient) -> None:
    answer = await client.get("/admin/")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert (answer.headers["cache-control"], answer.headers["referrer-policy"]) == ("no-store", "same-origin")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Secure" not in cookie
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app_with()), base_url="https://localhost") as by_https:
        assert "Secure" in (await by_https.get("/admin/")).headers["set-cookie"]


@pytest.mark.parametrize("host", ["localhost/evil", "localhost/../evil", "evil.example#", "[", "a b", "evil.example?"])
async def test_the_page_does_not_follow_the_host(host: str) -> None:
    """Old Starlette makes URLs of whatever stands in the header."""
    app = app_with(dependencies=[Depends(lambda: None)])
    answer = await asked("GET", "/admin/", HERE, ("host", host), app=app)
    assert answer.status == 200
    page = answer.body.decode()
    assert set(re.findall(r'(?:action|href|data-api)="([^"]*)"', page)) == {"./", "./api/switches"}
    assert "evil" not in page
    assert "path" not in answer.headers["set-cookie"].lower()


async def test_the_cookie_is_for_the_page_alone(client: httpx.AsyncClient) -> None:
    """By its default path, the directory that the browser asked for (RFC 6265, section 5.1.4)."""
    await client.get("/admin/")
    assert [cookie.path for cookie in client.cookies.jar] == ["/admin"]


@pytest.mark.parametrize("action", ["set", "plan"])
async def test_a_reason_has_a_limit_in_forms_and_in_the_api(client: httpx.AsyncClient, action: str) -> None:
    """The same one, of which the browser knows."""
    page = (await client.get("/admin/")).text
    assert set(re.findall(r'name="reason" maxlength="(\d+)"', page)) == {"2000"}
    start = datetime.now(UTC) + timedelta(hours=1)
    times = {"start": start.isoformat(), "end": (start + timedelta(hours=1)).isoformat()}
    method, path = ("PUT", "mode") if action == "set" else ("POST", "windows")
    more = {} if action == "set" else times
    for length, statuses in (2001, (422, 409)), (2000, (200 if action == "set" else 201, 303)):
        body = {"mode": "on", "reason": "r" * length, **more}
        by_api = (await client.request(method, f"{API}/default/{path}", json=body)).status_code
        fields = fields_of((await client.get("/admin/")).text, action)
        by_form = (await post(client, {**fields, **body})).status_code
        assert (by_api, by_form) == statuses


async def test_what_others_wrote_is_escaped(client: httpx.AsyncClient) -> None:
    """Reasons, owners and names of people."""
    await client.put(f"{API}/default/mode", json={"mode": "on", "reason": MARKUP}, headers={"x-user": MARKUP})
    start = datetime.now(UTC) + timedelta(hours=1)
    await schedule_maintenance(start, start + timedelta(hours=1), reason=MARKUP)
    async with maintenance_mode_on(owner=MARKUP, reason=MARKUP):
        page = (await client.get("/admin/")).text
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 5


async def test_a_switch_is_switched_by_plain_forms(client: httpx.AsyncClient) -> None:
    """On with reason and end, planned, cancelled, broken, off."""
    page = (await client.get("/admin/")).text
    answer = await post(
        client, fields_of(page, "set", "billing"), mode="read_only", reason=" disks ", until="2999-01-31T22:00"
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "./")
    state = await get_maintenance_state(name="billing")
    assert (state.mode, state.reason, state.updated_by) == ("read_only", "disks", "ops")
    assert state.until == datetime(2999, 1, 31, 22, tzinfo=UTC)
    page = (await client.get("/admin/")).text
    assert "READ-ONLY" in page
    assert "● Maintenance" in page
    start = datetime.now(UTC) + timedelta(hours=1)
    times = {"start": f"{start:%Y-%m-%dT%H:%M}", "end": f"{start + timedelta(hours=1):%Y-%m-%dT%H:%M}"}
    fields = fields_of(page, "plan", "billing")
    assert (await post(client, fields, **times, mode="on", rrule="FREQ=WEEKLY")).status_code == 303
    page = (await client.get("/admin/")).text
    assert "again by FREQ=WEEKLY in UTC" in page
    assert (await post(client, fields_of(page, "cancel", "billing"))).status_code == 303
    assert (await get_maintenance_state(name="billing")).windows == {}
    async with maintenance_mode_on(name="billing", owner="migration") as block:
        page = (await client.get("/admin/")).text
        answer = await post(client, fields_of(page, "set", "billing"))
        assert answer.status_code == 409
        assert "held on by migration" in answer.text
        assert (await post(client, fields_of(page, "break", "billing"))).status_code == 303
        assert block.lost.is_set()
    async with maintenance_mode_on(name="billing"):
        page = (await client.get("/admin/")).text
        assert (await post(client, fields_of(page, "set", "billing"), break_holds="yes")).status_code == 303
    state = await get_maintenance_state(name="billing")
    assert (state.mode, state.holds, state.reason) == ("off", {}, None)


def entered(page: str, action: str, name: str = "default") -> dict[str, str]:
    """Return what a browser would send if a form is sent as it was shown, the last one of that kind."""
    forms = [form for form in re.findall(r"<form.*?</form>", page, re.DOTALL) if f'value="{action}"' in form]
    form = next(form for form in reversed(forms) if f'name="name" value="{name}"' in form)
    fields = {}
    for tag in re.findall(r"<input [^>]*>", form):
        attributes = dict(re.findall(r'([\w-]+)="([^"]*)"', tag))
        fields[attributes["name"]] = unescape(attributes.get("value", ""))
    options = re.findall(r'<option value="(\w+)"( selected)?>', form)
    if options:
        fields["mode"] = next((value for value, selected in options if selected), options[0][0])
    return fields


async def test_a_change_begins_with_what_is_on(client: httpx.AsyncClient) -> None:
    """So who corrects the reason loses neither mode nor end, to the second, nor what clients are told."""
    until = datetime.now(UTC) + timedelta(hours=2)
    await set_maintenance_mode("read_only", reason='"disks"', until=until, retry_after=600)
    page = (await client.get("/admin/")).text
    assert "Change…" in page
    assert "Yes, switch default on" not in page
    assert (await post(client, entered(page, "set"))).status_code == 303
    state = await get_maintenance_state()
    assert (state.mode, state.reason, state.until, state.retry_after) == ("read_only", '"disks"', until, 600)
    later = {"until": f"{until + timedelta(hours=1):%Y-%m-%dT%H:%M}", "retry_after": "60", "mode": "on"}
    page = (await client.get("/admin/")).text
    assert (await post(client, entered(page, "set") | later)).status_code == 303
    state = await get_maintenance_state()
    assert (state.mode, state.reason, state.retry_after) == ("on", '"disks"', 60)
    assert state.until == (until + timedelta(hours=1)).replace(second=0, microsecond=0)
    page = (await client.get("/admin/")).text
    assert (await post(client, entered(page, "set") | {"until": "", "retry_after": ""})).status_code == 303
    state = await get_maintenance_state()
    assert (state.until, state.retry_after) == (None, None)


async def test_a_change_of_what_is_planned_begins_with_the_plan(client: httpx.AsyncClient) -> None:
    """As it is on now; what is over is not on, and its form is empty."""
    now = datetime.now(UTC)
    window = await schedule_maintenance(now - timedelta(hours=1), now + timedelta(hours=1), reason="backup")
    page = (await client.get("/admin/")).text
    assert "Change…" in page
    assert (await post(client, entered(page, "set"))).status_code == 303
    state = await get_maintenance_state()
    assert (state.mode, state.reason, state.until) == ("on", "backup", window.end)
    await set_maintenance_mode(False)
    page = (await client.get("/admin/")).text
    assert "Yes, switch default on" in page
    fields = entered(page, "set")
    assert (fields["mode"], fields["reason"], fields["until"], fields["retry_after"]) == ("on", "", "", "")


@pytest.mark.parametrize(
    ("action", "typed", "problem"),
    [
        (
            "set",
            {"mode": "read_only", "until": "2020-01-01T00:00", "retry_after": "60"},
            "until must be in the future",
        ),
        ("set", {"mode": "on", "until": "", "retry_after": "soon"}, "must be whole seconds"),
        (
            "plan",
            {"mode": "read_only", "start": "2020-01-01T00:00", "end": "2020-01-01T01:00", "rrule": ""},
            "after now",
        ),
    ],
)
async def test_a_refused_form_keeps_what_was_typed(
    client: httpx.AsyncClient, action: str, typed: dict[str, str], problem: str
) -> None:
    """And is open, beside the problem; the forms of other switches and kinds are as ever."""
    page = (await client.get("/admin/")).text
    typed = {**typed, "reason": f"disks {MARKUP}"}
    answer = await post(client, entered(page, action) | typed)
    assert answer.status_code == 409
    assert problem in answer.text
    assert MARKUP not in answer.text
    again = entered(answer.text, action)
    assert {name: again[name] for name in typed} == typed
    assert answer.text.count("<details open>") == 1
    assert entered(answer.text, action, "billing")["reason"] == ""
    assert entered(answer.text, "plan" if action == "set" else "set")["reason"] == ""
    assert (await get_maintenance_state()).version == 0


async def test_a_form_that_came_too_late_keeps_what_was_typed(client: httpx.AsyncClient) -> None:
    """Above it stands what somebody else made of the switch; a form without all fields is no failure."""
    page = (await client.get("/admin/")).text
    await set_maintenance_mode(True, reason="theirs")
    fields = entered(page, "set")
    answer = await post(client, fields | {"reason": "mine"})
    assert answer.status_code == 412
    assert "<p>theirs" in answer.text
    assert entered(answer.text, "set")["reason"] == "mine"
    assert entered(answer.text, "set")["etag"] != fields["etag"]
    answer = await post(client, {name: fields[name] for name in ("token", "name", "etag", "action", "mode")})
    assert answer.status_code == 412
    async with maintenance_mode_on(name="billing", owner="migration"):
        page = (await client.get("/admin/")).text
        answer = await post(client, fields_of(page, "set", "billing"))
        assert " checked>" not in answer.text
        assert entered(answer.text, "set", "billing")["mode"] == "on"


async def test_a_hold_is_not_shown_as_an_end(client: httpx.AsyncClient, tmp_path: Path) -> None:
    """It is renewed for as long as its code runs."""
    configure_backend("file", file_path=tmp_path / "switch")
    async with maintenance_mode_on(owner="migration"):
        page = (await client.get("/admin/")).text
        assert "Changes by itself" not in page
        assert "Yes, keep default on" in page, "as the mode that is stored outlives the hold"
        assert re.search(r"Until it is given back, or at \d{4}-\d\d-\d\d \d\d:\d\d UTC if its process has died", page)
        assert (await client.get(f"{API}/default")).json()["next_change_at"] is None


async def test_two_tabs_do_not_undo_each_other(client: httpx.AsyncClient) -> None:
    """The second is told what has become of the switch, and nothing happens twice."""
    first = second = (await client.get("/admin/")).text
    assert (await post(client, fields_of(first, "set"), mode="on", reason="disks")).status_code == 303
    version = (await get_maintenance_state()).version
    for action, more in (
        ("set", {"mode": "read_only"}),
        ("plan", {"start": "2999-01-01T00:00", "end": "2999-01-01T01:00"}),
    ):
        answer = await post(client, fields_of(second, action), **more)
        assert answer.status_code == 412
        assert "Nothing was done: somebody else changed &#39;default&#39;" in answer.text
        assert 'class="mode on">ON' in answer.text
    assert (await get_maintenance_state()).version == version


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"mode": "sometimes"}, "sometimes"),
        ({"mode": "on", "until": "tomorrow"}, "got &#39;tomorrow&#39;"),
        ({"mode": "on", "until": "2020-01-01T00:00"}, "until must be in the future"),
        ({"action": "explode"}, "action must be set, plan, cancel or break"),
        ({"action": "plan"}, "start and end must be given"),
        ({"action": "plan", "start": "2999-01-01T00:00", "end": "2998-01-01T00:00"}, "is not after the start"),
        ({"action": "cancel", "window": "x"}, "x"),
        ({"action": "break", "hold": "x"}, "hold x is gone"),
    ],
)
async def test_what_can_not_be_done_is_told_on_the_page(
    client: httpx.AsyncClient, more: dict[str, str], message: str
) -> None:
    await set_maintenance_mode(True)
    fields = fields_of((await client.get("/admin/")).text, "set")
    answer = await post(client, {**fields, **more})
    assert answer.status_code == 409
    assert message in answer.text
    assert (await get_maintenance_state()).version == 1


async def test_an_unknown_switch_is_not_found(client: httpx.AsyncClient) -> None:
    fields = fields_of((await client.get("/admin/")).text, "set")
    assert (await post(client, {**fields, "name": "other"})).status_code == 404


async def test_a_store_that_fails_is_told(client: httpx.AsyncClient, tmp_path: Any) -> None:
    (tmp_path / "switch").mkdir()
    backend = configure_backend(LocalFileBackend(tmp_path / "switch", init_timeout=0.1), name="billing")
    page = (await client.get("/admin/")).text
    assert "The store is error: " in page
    assert isinstance(backend, LocalFileBackend)
    await backend.aclose()


async def test_what_is_in_flight_is_told_without_the_request_that_asks() -> None:
    """On the page and in the API, for each switch."""
    app, arrived, done = app_with(), anyio.Event(), anyio.Event()

    @app.get("/slow", dependencies=[Depends(MaintenanceGuard("billing"))])
    async def slow() -> None:
        arrived.set()
        await done.wait()

    async def counted(client: httpx.AsyncClient) -> dict[str, int]:
        return {one["name"]: one["in_flight"] for one in (await client.get(API)).json()}

    async with client_of(app) as client, anyio.create_task_group() as tasks:
        assert await counted(client) == {"default": 0, "billing": 0, "operators": 0}
        page = (await client.get("/admin/")).text
        assert page.count("0 requests in flight here") == 3
        assert "In flight in this process" not in page
        tasks.start_soon(client.get, "/slow")
        await arrived.wait()
        assert await counted(client) == {"default": 1, "billing": 1, "operators": 0}
        page = (await client.get("/admin/")).text
        assert page.count("1 request in flight here") == 2
        assert re.findall("<li>([A-Z]+ [^<]*)</li>", page) == ["GET /slow"]
        done.set()


async def test_an_app_that_is_not_of_fastapi_can_have_it_as_well() -> None:
    """Mounted in a Starlette app, whose guards nobody can know."""
    from starlette.applications import Starlette
    from starlette.routing import Mount

    inner = FastAPI()
    inner.include_router(maintenance_admin(insecure=True))
    outer = Starlette(routes=[Mount("/ops", inner)])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(outer), base_url=HOST) as client:
        page = (await client.get("/ops/")).text
        assert set(re.findall(r'(?:action|href|data-api)="([^"]*)"', page)) == {"./", "./api/switches"}
        fields = fields_of(page, "set")
        assert (await client.post("/ops/", data={**fields, "mode": "on"})).status_code == 303
    assert await get_maintenance_mode() is True


async def test_the_app_in_the_request_may_be_any_asgi_app() -> None:
    from fastapi_maintenance.desk.access import Desk

    desk = Desk(names=None, user=lambda _: "")
    request = Request({"type": "http", "app": object(), "headers": []})
    assert desk.names(request) == ["default", "billing", "operators"]
    assert isinstance(configure_backend("memory"), MemoryBackend)
