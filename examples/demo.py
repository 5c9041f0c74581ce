"""Start the example service with two workers under uvicorn and show what it answers (``make demo``).

Every line is a real request; the exit code is 1 if any answer differs from what is expected.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import httpx
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

ROOT = Path(__file__).resolve().parent.parent
REQUEST_SECONDS = 10
START_SECONDS = 60
STOP_SECONDS = 10
ORIGIN = "https://shop.example"
UNDER_MAINTENANCE = "Service temporarily unavailable due to maintenance"


@dataclass(frozen=True)
class Answer:
    """What came back for a request or for a websocket handshake."""

    status: int
    retry_after: str
    body: str


@dataclass(frozen=True)
class Step:
    """One request and what is expected of it."""

    method: str
    path: str
    why: str
    status: int
    body: str = ""

    def accepts(self, answer: Answer) -> bool:
        """Check the status, a part of the body, and that exactly the 503s say when to come back."""
        retry_after = "3600" if self.status == 503 else ""
        return answer.status == self.status and answer.retry_after == retry_after and self.body in answer.body


def refused(method: str, path: str, why: str) -> Step:
    """Expect the default answer of maintenance mode."""
    return Step(method, path, why, 503, UNDER_MAINTENANCE)


ALWAYS = (
    refused("GET", "/legacy", "forced on: never runs"),
    Step("GET", "/health", "forced off: always runs", 200, '"status":"ok"'),
    Step("GET", "/missing", "nothing there: stays 404", 404, "Not Found"),
    Step("DELETE", "/items/7", "wrong method: stays 405", 405, "Method Not Allowed"),
    Step("GET", "/items/7/", "slash redirect: stays 307", 307),
    Step("GET", "/docs", "documentation: exempt", 200, "swagger"),
    Step("OPTIONS", "/items/7", "CORS preflight: passes", 200, "OK"),
)
NORMAL = (
    Step("GET", "/items/7", "runs", 200, '{"item":7}'),
    Step("POST", "/items", "runs", 200, '{"created":true}'),
    Step("WS", "/echo", "handshake accepted", 101, "hello"),
)
BILLING = (
    refused("GET", "/billing/invoices/7", "the router's guard"),
    Step("GET", "/billing/status", "forced off in that router", 200, '{"maintenance":true}'),
    Step("GET", "/billing/missing", "nothing there: stays 404", 404, "Not Found"),
    Step("DELETE", "/billing/invoices/7", "wrong method: stays 405", 405, "Method Not Allowed"),
)
SCENES: tuple[tuple[str, dict[str, bool], tuple[Step, ...]], ...] = (
    (
        "Normal: both switches off",
        {"default": False, "billing": False},
        (*NORMAL, Step("GET", "/billing/invoices/7", "runs", 200, '{"invoice":7}'), *ALWAYS),
    ),
    (
        "Maintenance of the whole service",
        {"default": True, "billing": False},
        (
            refused("GET", "/items/7", "refused"),
            refused("POST", "/items", "refused"),
            refused("WS", "/echo", "handshake refused"),
            refused("GET", "/billing/invoices/7", "refused: part of the whole"),
            *ALWAYS,
        ),
    ),
    ("Maintenance of billing only", {"default": False, "billing": True}, (*BILLING, *NORMAL, *ALWAYS)),
    (
        "Normal again",
        {"default": False, "billing": False},
        (*NORMAL, Step("GET", "/billing/invoices/7", "runs", 200, '{"invoice":7}')),
    ),
)


@contextmanager
def running_service() -> Iterator[str]:
    """Run the service on a free loopback port with two workers; end it whatever happens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="maintenance-demo-") as folder:
        log = Path(folder, "uvicorn.log")
        command = [
            sys.executable,
            "-m",
            "uvicorn",
            "examples.service:app",
            "--workers",
            "2",
            "--no-access-log",
        ]
        with log.open("wb") as output:
            server = subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--port", str(port)],
                cwd=ROOT,
                env={**os.environ, "SERVICE_STATE_DIR": folder},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a process group of its own, so that its workers end with it
            )
        try:
            yield f"127.0.0.1:{port}"
        except Exception:
            print(f"\nThe server's log:\n{log.read_text()}", file=sys.stderr)
            raise
        finally:
            stop(server)


def stop(server: subprocess.Popen[bytes]) -> None:
    """End the server and its workers, politely first."""
    try:
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(STOP_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait(STOP_SECONDS)


def workers(client: httpx.Client) -> dict[int, dict[str, bool]]:
    """Ask many times at once, until both have answered: which workers, and what they know of the switches."""

    def ask(_: int) -> tuple[int, dict[str, bool]]:
        health = client.get("/health", headers={"connection": "close"}).raise_for_status().json()
        return health["worker"], health["maintenance"]

    views: dict[int, dict[str, bool]] = {}
    with ThreadPoolExecutor(16) as pool:
        for _ in range(10):
            views.update(pool.map(ask, range(32)))
            if len(views) == 2:
                break
    return views


def wait_until_seen(client: httpx.Client, switches: dict[str, bool]) -> dict[int, dict[str, bool]]:
    """Return what the workers know, as soon as both have seen the switches, which each does within 0.1 s."""
    deadline = time.monotonic() + REQUEST_SECONDS
    while True:
        views = workers(client)
        if all(view == switches for view in views.values()) or time.monotonic() > deadline:
            return views
        time.sleep(0.05)


def wait_until_ready(client: httpx.Client) -> list[int]:
    """Return the ids of the two workers as soon as both have answered."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            found = sorted(workers(client))
        except httpx.TransportError:
            found = []
        if len(found) == 2:
            return found
        time.sleep(0.1)
    message = f"no two workers answered within {START_SECONDS} seconds"
    raise TimeoutError(message)


def ask(client: httpx.Client, method: str, path: str) -> Answer:
    """Send one request, or try one websocket handshake and say hello."""
    if method == "WS":
        return greet(f"ws://{client.base_url.netloc.decode()}{path}")
    headers = {"origin": ORIGIN}
    if method == "OPTIONS":
        headers["access-control-request-method"] = "GET"
    response = client.request(method, path, headers=headers)
    return Answer(response.status_code, response.headers.get("retry-after", ""), response.text)


def greet(url: str) -> Answer:
    """Say hello to the echo: its answer, or what the refused handshake said."""
    try:
        with connect(url, proxy=None, open_timeout=REQUEST_SECONDS, close_timeout=REQUEST_SECONDS) as websocket:
            websocket.send("hello")
            return Answer(101, "", str(websocket.recv(timeout=REQUEST_SECONDS)))
    except InvalidStatus as refusal:
        response = refusal.response
        return Answer(
            response.status_code,
            response.headers.get("retry-after", ""),
            bytes(response.body or b"").decode(),
        )


def show(client: httpx.Client) -> int:
    """Play all scenes and return how many lines were wrong."""
    pids = wait_until_ready(client)
    print(f"uvicorn at {client.base_url}, workers {pids[0]} and {pids[1]}")
    wrong = 0
    for title, switches, steps in SCENES:
        for switch, on in switches.items():
            path = f"/operator/api/switches/{switch}/mode"
            client.put(path, json={"mode": "on" if on else "off"}).raise_for_status()
        views = wait_until_seen(client, switches)
        agree = len(views) == 2 and all(view == switches for view in views.values())
        wrong += not agree
        print(f"\n{title}  [{'both workers agree' if agree else f'WRONG: workers see {views}'}]")
        print(f"   {'method':<8}{'path':<22}{'expected':<34}{'status':<8}{'retry':<7}body")
        for step in steps:
            answer = ask(client, step.method, step.path)
            right = step.accepts(answer)
            wrong += not right
            body = " ".join(answer.body.split())
            excerpt = body if len(body) <= 36 else f"{body[:33]}..."
            expected = f"{step.status} {step.why}"
            line = (
                f"{'ok' if right else '!!':<3}{step.method:<8}{step.path:<22}{expected:<34}"
                f"{answer.status:<8}{answer.retry_after or '-':<7}{excerpt}"
            )
            print(line.rstrip(), flush=True)
    return wrong


def interrupted(number: int, _frame: FrameType | None) -> None:
    """Leave by way of the clean-up, without a traceback."""
    raise SystemExit(128 + number)


def main() -> int:
    """Run the demo and return its exit code."""
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGINT, interrupted)
    with (
        running_service() as address,
        httpx.Client(base_url=f"http://{address}", timeout=REQUEST_SECONDS, trust_env=False) as client,
    ):
        wrong = show(client)
    print(f"\n{wrong} of the lines above are wrong." if wrong else "\nAll answers are as expected.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
