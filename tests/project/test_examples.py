"""Every example is imported as a user would, and does what it says."""

import asyncio
import importlib.util
import json
import os
import queue
import re
import shlex
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from openfeature import api as openfeature
from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from examples.demo import stop
from fastapi_maintenance import ReadOnlyBackend, configure_backend, set_maintenance_mode
from tests.support import commands
from tests.support.asgi import BODY, client, get, handshake, request, status
from tests.support.scripts import ROOT
from tests.support.servers import uvicorn_server
from tests.support.stores import RedisServer, free_port
from tests.support.traffic import until, wait_until

pytestmark = pytest.mark.anyio

EXAMPLES = ROOT / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))
PASSWORD = "correct horse"


class Importer:
    """Imports examples anew, as a new process would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def __call__(self, name: str) -> Any:
        """Return the example ``name``."""
        spec = importlib.util.spec_from_file_location(f"examples.{name}", EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        self._monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Importer:
    """Return what imports an example; what it stores is stored where nobody else looks."""
    monkeypatch.setenv("SERVICE_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BYPASS_SECRET", "0123456789abcdef" * 2)
    monkeypatch.setenv("OPERATORS_PASSWORD", PASSWORD)
    monkeypatch.setenv("SHOP_DATABASE", str(tmp_path / "shop.db"))
    return Importer(monkeypatch)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Have this process and all that it starts keep switches in a file; return its URL."""
    url = f"file://{tmp_path / 'switch'}"
    monkeypatch.setenv("FASTAPI_MAINTENANCE_BACKEND", url)
    return url


def commands_in(module: Any) -> list[list[str]]:
    """Return the arguments of each ``fastapi-maintenance`` that an example tells its reader to run."""
    found = re.findall(r"^ {4}(?:\w+=\S+ )*fastapi-maintenance (.*)$", module.__doc__, re.MULTILINE)
    return [shlex.split(line) for line in found]


def run(command: list[str], url: str) -> str:
    """Run a ``fastapi-maintenance`` that has to succeed, and return what it prints."""
    secret = {name: os.environ[name] for name in ("FASTAPI_MAINTENANCE_BYPASS_SECRET",)}
    ended = commands.run(*command, env={"FASTAPI_MAINTENANCE_BACKEND": url, **secret})
    assert (ended.status, ended.error) == (0, "")
    return ended.out


async def soon(app: FastAPI, path: str, expected: int) -> None:
    """Wait until an app answers so: it reads its file every tenth of a second."""
    give_up = time.monotonic() + 20
    while await status(app, path) != expected:
        assert time.monotonic() < give_up
        await asyncio.sleep(0.02)


def test_the_table_of_examples_names_each_once() -> None:
    """Whoever looks for a case finds its file, and no file is found by its name alone."""
    linked = re.findall(r"\]\((\w+)\.py\)", EXAMPLES.joinpath("README.md").read_text("utf-8"))
    assert sorted(linked) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_example_says_what_it_is_for(name: str, example: Importer) -> None:
    """It can be imported, and begins with a sentence about itself."""
    assert re.match(r"[A-Z].*\.$", example(name).__doc__.split("\n\n")[0], re.DOTALL)


@pytest.mark.parametrize("name", NAMES)
def test_every_command_in_an_example_names_an_app_that_it_has(name: str, example: Importer) -> None:
    """What is to be copied into a terminal works."""
    module = example(name)
    for target, attribute in re.findall(r"uvicorn examples\.(\w+):(\w+)", module.__doc__):
        assert target == name
        assert isinstance(getattr(module, attribute), FastAPI)


# responses.py


@dataclass
class Expected:
    """What one of the apps answers under maintenance."""

    kind: str
    text: str
    status: int = 503
    path: str = "/items/7"
    accept: str = "*/*"
    retry_after: str | None = "600"


PAGE = EXAMPLES.joinpath("pages", "maintenance.html").read_text("utf-8")
JSON, HTML, TEXT = "application/json", "text/html; charset=utf-8", "text/plain; charset=utf-8"
RESPONSES = {
    "json_app": [Expected(JSON, '{"error":"maintenance","retry_after":600}')],
    "html_app": [Expected(HTML, "<!doctype html><title>Back soon</title><h1>Back soon</h1>")],
    "template_app": [
        Expected(
            HTML,
            PAGE.replace("The shop is closed for maintenance.", "/items/7 will be back in about 10 minutes.").rstrip(
                "\n"
            ),
        )
    ],
    "file_app": [Expected(HTML, PAGE)],
    "text_app": [Expected(TEXT, "Back soon.\n")],
    "redirect_app": [Expected("", "", 302, retry_after=None)],
    "stream_app": [Expected(TEXT, "Back soon.\n")],
    "accept_app": [
        Expected(JSON, '{"error":"maintenance","retry_after":600}'),
        Expected(HTML, "<!doctype html><title>Back soon</title><h1>Back soon</h1>", accept="text/html,*/*;q=0.8"),
    ],
    "path_app": [
        Expected(HTML, "<!doctype html><h1>The shop is closed until noon.</h1>"),
        Expected(JSON, '{"error":"/api/items/7 is under maintenance"}', path="/api/items/7"),
    ],
}


def test_every_app_of_responses_is_exercised(example: Importer) -> None:
    """A new shape of response comes with what it is expected to answer."""
    assert {name for name, value in vars(example("responses")).items() if isinstance(value, FastAPI)} == set(RESPONSES)


@pytest.mark.parametrize("name", RESPONSES)
async def test_an_app_of_responses_answers_its_way_during_maintenance_only(
    name: str, example: Importer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Items while the switch is off, the handler's answer while it is on; what does not exist stays 404."""
    app = getattr(example("responses"), name)
    for path in ("/items/7", "/api/items/7"):
        assert (await get(app, path)).json() == {"item": 7}
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "1")
    for expected in RESPONSES[name]:
        answer = await get(app, expected.path, headers={"Accept": expected.accept})
        assert (answer.status_code, answer.text) == (expected.status, expected.text)
        assert answer.headers.get("content-type", "") == expected.kind
        assert answer.headers.get("retry-after") == expected.retry_after
    assert await status(app, "/none") == 404
    assert await status(app, "/docs") == 200


async def test_the_redirect_of_responses_leads_to_the_status_page(
    example: Importer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients are sent to another host, where nothing is under maintenance."""
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "1")
    answer = await get(example("responses").redirect_app, "/items/7")
    assert answer.headers["location"] == "https://status.example/"


async def test_the_negotiated_answer_of_responses_tells_caches_so(
    example: Importer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache must not give the page to a client that takes JSON."""
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "1")
    assert (await get(example("responses").accept_app, "/items/7")).headers["vary"] == "Accept"


async def test_the_file_of_responses_may_be_missing(
    example: Importer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As its docstring says, clients then get the default answer."""
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "1")
    responses = example("responses")
    monkeypatch.setattr(responses, "PAGES", tmp_path)
    answer = await get(responses.file_app, "/items/7")
    assert (answer.status_code, answer.json()) == (503, BODY)


# exemptions.py


async def test_exemptions_lets_in_whom_it_says(example: Importer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes, colleagues and testers get in; everybody else, and whoever guesses, does not."""
    app = example("exemptions").app
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", "1")
    assert await status(app, "/health") == 200
    assert await status(app, "/internal/jobs/7") == 200
    assert await status(app, "/items/7") == 503
    assert await status(app, "/items/7", headers={"X-Tester": "let-me-in"}) == 200
    assert await status(app, "/items/7", headers={"X-Tester": "let-me-in?"}) == 503
    assert await status(app, "/items/7", headers={b"X-Tester": b"\xff"}) == 503
    monkeypatch.delenv("FASTAPI_MAINTENANCE_MODE")
    assert await status(app, "/items/7") == 200


# service.py


async def at_the_desk(app: Any, method: str, path: str, **options: Any) -> httpx.Response:
    """Return the answer to an operator on this machine, whom alone the example's page lets in."""
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 50000))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as operator:
        return await operator.request(method, path, **options)


async def test_the_service_follows_its_two_switches(example: Importer) -> None:
    """The default switch is the whole service, ``billing`` only its router; marks stand above both."""
    app = example("service").app

    async def statuses() -> dict[str, int | None]:
        paths = ("/items/7", "/billing/invoices/7", "/billing/status", "/legacy", "/health", "/none")
        return {path: await status(app, path) for path in paths} | {
            "POST /items": await status(app, "/items", "POST"),
            "/echo": (await handshake(app, "/echo")).status,
        }

    async def turn(switch: str, setting: str) -> None:
        answer = await at_the_desk(app, "PUT", f"/operator/api/switches/{switch}/mode", json={"mode": setting})
        assert answer.status_code == 200

    normal = await statuses()
    assert normal == {
        "/items/7": 200,
        "/billing/invoices/7": 200,
        "/billing/status": 200,
        "/legacy": 503,
        "/health": 200,
        "/none": 404,
        "POST /items": 200,
        "/echo": None,
    }
    await turn("billing", "on")
    assert await statuses() == normal | {"/billing/invoices/7": 503}
    await turn("default", "on")
    closed = ("/items/7", "/billing/invoices/7", "POST /items", "/echo")
    assert await statuses() == normal | dict.fromkeys(closed, 503)
    await turn("billing", "off")
    assert await statuses() == normal | dict.fromkeys(closed, 503)
    await turn("default", "off")
    assert await statuses() == normal


async def test_the_service_shows_its_switches_whatever_they_say(example: Importer) -> None:
    """The operator's page and the health check stay open, and tell the truth."""
    app = example("service").app
    for is_on in False, True:
        await set_maintenance_mode(is_on, reason="new disks" if is_on else None)
        page = (await at_the_desk(app, "GET", "/operator/")).text
        assert ("new disks" in page) is is_on
        assert "billing" in page
        assert (await get(app, "/health")).json()["maintenance"] == {"default": is_on, "billing": False}


async def test_the_service_leads_to_what_its_switches_close(example: Importer) -> None:
    """From its first page, which stays open, to the operator's page and every kind of answer."""
    app = example("service").app
    await set_maintenance_mode(True)
    start = (await get(app, "/")).text
    linked = {}
    for path in re.findall(r"href=(/\S*?)>", start):
        linked[path] = (await at_the_desk(app, "GET", path)).status_code
    assert linked == {
        "/operator/": 200,
        "/items/7": 503,
        "/billing/invoices/7": 503,
        "/billing/status": 200,
        "/legacy": 503,
        "/health": 200,
        "/missing": 404,
        "/docs": 200,
    }


async def test_the_service_echoes(example: Importer) -> None:
    """The websocket sends every text back."""
    assert (await handshake(example("service").app, "/echo", "one", "two")).texts == ["one", "two"]


async def test_the_service_lets_the_shops_browsers_read_its_503(example: Importer) -> None:
    """``CORSMiddleware`` stands outside of ours."""
    app = example("service").app
    answer = await get(app, "/legacy", headers={"Origin": "https://shop.example"})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (503, "https://shop.example")


# webhook.py


async def test_the_webhook_is_told(example: Importer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over HTTP, once per transition; one that fails is logged and holds up nothing."""
    told: queue.Queue[dict[str, Any]] = queue.Queue()

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Webhook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("WEBHOOK_URL", f"http://127.0.0.1:{server.server_port}/")
        app = example("webhook").app
        assert await status(app, "/items") == 200
        await set_maintenance_mode(True, reason="new disks")
        assert await status(app, "/items") == 503
        assert await asyncio.to_thread(told.get, timeout=20) == {
            "switch": "default",
            "mode": "on",
            "reason": "new disks",
            "until": None,
            "by": None,
        }
        await set_maintenance_mode(False)
        assert (await asyncio.to_thread(told.get, timeout=20))["mode"] == "off"
        server.shutdown()


# pausing_worker.py


async def test_the_worker_pauses(example: Importer) -> None:
    """What has begun is finished, what waits goes on when maintenance has ended."""
    configure_backend("memory", name="default")
    module = example("pausing_worker")
    worker = await asyncio.to_thread(module.PausingWorker)
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    worker.jobs.put("first")
    await until(lambda: worker.done == ["first"])
    await set_maintenance_mode(True)
    await until(lambda: not worker._may_run.is_set())
    worker.jobs.put("second")
    await asyncio.sleep(0.1)
    assert worker.done == ["first"]
    await set_maintenance_mode(False)
    await until(lambda: worker.done == ["first", "second"])
    worker.jobs.put(None)
    await asyncio.to_thread(thread.join, 20)
    assert not thread.is_alive()


# quickstart.py


async def test_the_quick_start_closes_all_but_its_health_check(
    example: Importer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the variable only."""
    app = example("quickstart").app
    for value, expected in ("0", 200), ("1", 503):
        monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", value)
        assert await status(app, "/items/7") == expected
        assert await status(app, "/health") == 200
        assert await status(app, "/missing") == 404


# two_switches.py


async def test_two_switches_close_a_router_each_and_the_default_one_both(example: Importer, store: str) -> None:
    """By the command that the example shows, in a process of its own."""
    module = example("two_switches")
    paths = ("/", "/billing/terms", "/billing/invoices/7", "/search?q=anvil", "/billing/none")

    async def statuses() -> list[int]:
        return [await status(module.app, path) for path in paths]

    assert await statuses() == [200, 200, 200, 200, 404]
    [on] = commands_in(module)
    run(on, store)
    await soon(module.app, "/billing/invoices/7", 503)
    assert await statuses() == [200, 200, 503, 200, 404]
    await set_maintenance_mode(False, name="billing")
    await set_maintenance_mode(True)
    assert await statuses() == [200, 200, 503, 503, 404]
    await set_maintenance_mode(False)
    assert await statuses() == [200, 200, 200, 200, 404]


# redis_workers.py


@contextmanager
def workers(module: Any, url: str) -> Iterator[httpx.Client]:
    """Start an example as it says itself, but on a free port; end it and its workers whatever happens."""
    [arguments] = re.findall(r"^ {4}uvicorn (.*)$", module.__doc__, re.MULTILINE)
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", *shlex.split(arguments), "--port", str(port), "--log-level", "warning"],
        cwd=EXAMPLES.parent,
        env=commands.environment({"REDIS_URL": url}),
        start_new_session=True,
    )
    try:
        # A connection for each request, so that it may come to any worker.
        limits = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=20) as one:
            yield one
    finally:
        stop(server)


def test_four_workers_follow_one_switch_in_redis(example: Importer) -> None:
    """Each of them, and so does one request after the other."""
    module = example("redis_workers")
    [on] = commands_in(module)
    with RedisServer() as redis, workers(module, redis.url) as service, ThreadPoolExecutor(8) as pool:
        told: dict[int, dict[str, object]] = {}

        def ask(_: int) -> None:
            with suppress(httpx.TransportError):  # it does not listen yet
                health = service.get("/health").json()
                told[health.pop("worker")] = health

        def all_say(maintenance: bool) -> bool:
            list(pool.map(ask, range(16)))
            return list(told.values()) == [{"maintenance": maintenance, "knowledge": "ready"}] * 4

        wait_until(lambda: all_say(False), 30)
        assert service.get("/items/7").json() == {"item": 7}
        run(on, redis.url)
        wait_until(lambda: all_say(True), 10)
        answers = [service.get("/items/7") for _ in range(16)]
        assert {answer.status_code for answer in answers} == {503}
        assert all(500 < int(answer.headers["retry-after"]) < 600 for answer in answers)
        run(["off"], redis.url)
        wait_until(lambda: all_say(False), 10)
        assert {service.get("/items/7").status_code for _ in range(16)} == {200}


# template_page.py


async def test_the_template_page_is_for_browsers(example: Importer, store: str) -> None:
    """With what the operator said, escaped; programs get JSON."""
    app = example("template_page").app
    await set_maintenance_mode(True, reason="<b>new</b> anvils", until=datetime(2080, 1, 1, 12, tzinfo=UTC))
    page = await get(app, "/items/7", headers={"Accept": "text/html"})
    assert (page.status_code, page.headers["content-type"]) == (503, HTML)
    assert page.headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'"
    assert "<title>The anvil shop is closed</title>" in page.text
    assert "<p>We are counting anvils.</p>\n<p>&lt;b&gt;new&lt;/b&gt; anvils</p>\n" in page.text
    assert '<time datetime="2080-01-01T12:00:00+00:00">2080-01-01 12:00 UTC</time>' in page.text
    assert "Back as soon as we can" not in page.text
    assert "$" not in page.text
    assert (await get(app, "/items/7")).json()["detail"] == "We are counting anvils."
    await set_maintenance_mode(True)
    page = await get(app, "/items/7", headers={"Accept": "text/html"})
    assert "<p>We are counting anvils.</p>\n\n\n<p>Back as soon as we can.</p>" in page.text


# bypass.py


async def test_the_bypass_lets_in_whom_the_operator_sends_the_link(example: Importer, store: str) -> None:
    """Both by the commands that the example shows: the link leaves a cookie, and ends with the maintenance."""
    module = example("bypass")
    on, bypass = commands_in(module)
    assert await status(module.app, "/items/7") == 200
    run(on, store)
    await soon(module.app, "/items/7", 503)
    link = run(bypass, store).strip()
    async with client(module.app) as tester:
        opened = await tester.get(link, follow_redirects=True)
        assert (str(opened.url), opened.json()) == ("http://127.0.0.1:8000/items/7", {"item": 7})
        assert await status(module.app, "/items/7") == 503
        await set_maintenance_mode(False)
        await set_maintenance_mode(True)
        assert (await tester.get(opened.url)).status_code == 503


# migration.py


def test_the_migration_closes_the_service_while_it_runs(example: Importer, store: str, tmp_path: Path) -> None:
    """By ``fastapi-maintenance run``, against a real server; here the migration has to wait for the database."""
    module = example("migration")
    [migrate] = commands_in(module)
    migrate[migrate.index("python")] = sys.executable
    more = {"FASTAPI_MAINTENANCE_BACKEND": store, "SHOP_DATABASE": os.environ["SHOP_DATABASE"]}
    with uvicorn_server(module.app, lifespan="on") as server, httpx.Client(timeout=20) as visitor:
        items = server.http("/items")
        assert visitor.get(items).json() == [{"name": "anvil", "price": 12.5}]
        with closing(sqlite3.connect(tmp_path / "shop.db")) as database:
            database.execute("BEGIN IMMEDIATE")
            with commands.started(*migrate, env=more, cwd=EXAMPLES.parent) as process:
                wait_until(lambda: visitor.get(items).status_code == 503, 20)
                assert visitor.get(items).json()["reason"] == "prices in cents"
                database.rollback()
                ended = commands.end_of(process)
        assert (ended.status, ended.out) == (0, "")
        assert ended.error.splitlines() == ["default: ON while the command runs, version 1", "default: OFF"]
        wait_until(lambda: visitor.get(items).status_code == 200, 20)
        assert visitor.get(items).json() == [{"name": "anvil", "cents": 1250}]


# admin.py


async def test_the_admin_is_for_operators_who_never_lock_themselves_out(example: Importer, store: str) -> None:
    """Without the password nothing; with it the page and the API, under maintenance as well."""
    app, page = example("admin").app, "/ops/maintenance/"
    for auth in (None, ("ops", "wrong")):
        assert await status(app, page, auth=auth) == 401
        assert await status(app, f"{page}api/switches/default/mode", "PUT", auth=auth, json={"mode": "on"}) == 401
    operator = ("ops", PASSWORD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPERATORS_PASSWORD", "")
        assert await status(app, page, auth=("ops", "")) == 401

    async def switch(name: str, mode: str) -> None:
        change = await request(
            app,
            "PUT",
            f"{page}api/switches/{name}/mode",
            auth=operator,
            json={"mode": mode, "reason": "new tax rates"},
        )
        assert change.status_code == 200

    async def statuses() -> tuple[int, int]:
        return await status(app, "/items/7"), await status(app, "/invoices/7")

    shown = (await get(app, page, auth=operator)).text
    assert 'data-name="default"' in shown
    assert 'data-name="billing"' in shown
    assert await statuses() == (200, 200)
    await switch("billing", "on")
    assert await statuses() == (200, 503)
    await switch("default", "on")
    assert await statuses() == (503, 503)
    assert "new tax rates" in (await get(app, page, auth=operator)).text
    await switch("default", "off")
    await switch("billing", "off")
    assert await statuses() == (200, 200)


# websocket_chat.py


def test_the_chat_says_goodbye_when_maintenance_begins(example: Importer, store: str) -> None:
    """To those who are in it; who comes later gets a 503, and when it is over the chat is open again."""
    module = example("websocket_chat")
    [on] = commands_in(module)
    with uvicorn_server(module.app, lifespan="on") as server:

        def guest() -> ClientConnection:
            return connect(server.ws("/chat"), open_timeout=20, close_timeout=20)

        with guest() as ann, guest() as bob:
            ann.send("hello")
            assert (ann.recv(20), bob.recv(20)) == ("hello", "hello")
            run(on, store)
            for one in (ann, bob):
                assert one.recv(20) == "Closed for maintenance: back in a minute"
                with pytest.raises(ConnectionClosed) as closed:
                    one.recv(20)
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1012
        with pytest.raises(InvalidStatus) as refused:
            guest()
        assert refused.value.response.status_code == 503
        run(["off"], store)

        def is_open() -> bool:
            with suppress(InvalidStatus), guest() as carol:
                carol.send("again")
                return carol.recv(20) == "again"
            return False

        wait_until(is_open, 20)
        assert module.guests == {}


# openfeature_flag.py


async def test_openfeature_flag_is_read_and_cannot_be_set(example: Importer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag is turned at the provider; a flag that it lacks is off."""
    module = example("openfeature_flag")
    monkeypatch.setattr(module.OpenFeatureBackend, "cache_seconds", 0)
    assert await status(module.app, "/orders") == 200
    try:
        for variant, expected in ("on", 503), ("off", 200):
            flag = InMemoryFlag(variant, {"on": True, "off": False})
            openfeature.set_provider_and_wait(InMemoryProvider({"maintenance": flag}))
            assert await status(module.app, "/orders") == expected
        with pytest.raises(ReadOnlyBackend, match="OpenFeature provider"):
            await set_maintenance_mode(True, module.OpenFeatureBackend("maintenance"))
    finally:
        openfeature.shutdown()
        openfeature.clear_providers()
