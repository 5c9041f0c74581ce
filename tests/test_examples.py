"""Every example is imported as a user would, and does what it says."""

import asyncio
import importlib.util
import json
import queue
import re
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from fastapi_maintenance import configure_backend, set_maintenance_mode
from tests.asgi import get, handshake, request, status

pytestmark = pytest.mark.anyio

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))
DEFAULT = {"detail": "Service temporarily unavailable due to maintenance"}


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
    return Importer(monkeypatch)


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
    assert (answer.status_code, answer.json()) == (503, DEFAULT)


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
        assert await status(app, f"/operator/{switch}/{setting}", "POST") == 303

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
    assert "Maintenance of <b>default</b> is <b>off</b>" in (await get(app, "/operator")).text
    await request(app, "POST", "/operator/default/on")
    assert "Maintenance of <b>default</b> is <b>on</b>" in (await get(app, "/operator")).text
    assert (await get(app, "/health")).json()["maintenance"] == {"default": True, "billing": False}


async def test_the_service_echoes(example: Importer) -> None:
    """The websocket sends every text back."""
    assert (await handshake(example("service").app, "/echo", "one", "two")).texts == ["one", "two"]


async def test_the_service_lets_the_shops_browsers_read_its_503(example: Importer) -> None:
    """``CORSMiddleware`` stands outside of ours."""
    app = example("service").app
    answer = await get(app, "/legacy", headers={"Origin": "https://shop.example"})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (503, "https://shop.example")


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


async def until(is_so: Any) -> None:
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
