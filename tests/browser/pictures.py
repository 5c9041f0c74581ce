"""Make the pictures of the documentation: ``make screenshots``.

Everything in them is real: a server, a browser, the command line on a terminal. Only the time is always the same, and
what is different on each machine is replaced, so that a picture changes when what it shows does.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import select
import shlex
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from fcntl import ioctl
from pathlib import Path
from typing import Any

import httpx
import time_machine
from anyio.from_thread import start_blocking_portal
from fastapi import Depends, FastAPI
from playwright.sync_api import Browser, sync_playwright
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from fastapi_maintenance import MaintenanceGuard, MaintenanceModeMiddleware, configure_backend, maintenance_mode_on
from fastapi_maintenance.admin import maintenance_admin
from tests.support.commands import environment
from tests.support.servers import uvicorn_server

from .test_page_in_chromium import SWITCHES

IMAGES = Path(__file__).parents[2] / "docs" / "images"
NOW = datetime(2027, 3, 1, 2, 0, tzinfo=UTC)
REASON = "We are moving to a larger database. Your data is safe."
LARGEST = 150_000
"""Bytes: a picture is cloned by everybody."""
SECONDS = 60


@contextmanager
def service() -> Iterator[str]:
    """Run a service with two switches, of which one is on and the other one held by running code."""
    configure_backend("memory")
    configure_backend("memory", name="billing")
    app = FastAPI()
    app.add_middleware(MaintenanceModeMiddleware)
    app.get("/")(lambda: "shop")
    app.get("/bills", dependencies=[Depends(MaintenanceGuard("billing"))])(lambda: "bills")
    app.include_router(maintenance_admin(insecure=True, user=lambda _: "alice"), prefix="/admin")
    hold = maintenance_mode_on(name="billing", reason="migration 42", owner="migrate.py on db1")
    with start_blocking_portal() as portal, uvicorn_server(app) as server, portal.wrap_async_context_manager(hold):
        close(server.http("/admin/api/switches/default"))
        yield server.http()


def close(switch: str) -> None:
    """Do what an operator would: switch on, and plan another maintenance."""
    saturday = NOW.replace(day=6, hour=22)
    mode = {"mode": "on", "reason": REASON, "until": NOW + timedelta(minutes=25)}
    window = {"start": saturday, "end": saturday + timedelta(hours=2), "reason": "new disks"}
    with httpx.Client(trust_env=False, headers={"Content-Type": "application/json"}) as operator:
        operator.put(f"{switch}/mode", content=json.dumps(mode, default=str)).raise_for_status()
        operator.post(f"{switch}/windows", content=json.dumps(window, default=str)).raise_for_status()


def photograph(browser: Browser, url: str, name: str, *, scheme: Any, size: tuple[int, int]) -> None:
    """Save what a reader in Berlin sees at that time."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        device_scale_factor=1.5,
        color_scheme=scheme,
        timezone_id="Europe/Berlin",
        locale="en-GB",
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.clock.set_fixed_time(NOW)
    page.goto(url)
    page.screenshot(path=IMAGES / name, full_page=True, animations="disabled")
    context.close()


# The command line

SIZE = (24, 80)
"""Lines and columns of the terminal."""
SCRIPT = (
    (timedelta(0), "on --for 2h --reason 'migration 42'"),
    (timedelta(minutes=5), "status"),
)
BEGIN = """
import sys, time_machine
time_machine.travel(sys.argv.pop(1)).start()
from fastapi_maintenance.cli import main
sys.exit(main())
"""
LOOK = TerminalTheme(
    (20, 20, 18),
    (242, 240, 234),
    [(20, 20, 18), (255, 138, 128), (125, 223, 159), (255, 194, 77), *[(242, 240, 234)] * 4],
)
# That of rich loads its font from elsewhere.
SVG = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="A terminal">
<style>
.{unique_id}-matrix {{ font: {char_height}px ui-monospace, "Cascadia Mono", Menlo, "DejaVu Sans Mono", monospace; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def said_by(command: str, at: datetime, store: str) -> str:
    """Return what a command says on a terminal, with its colours."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *SIZE, 0, 0))
    env = environment({"FASTAPI_MAINTENANCE_BACKEND": store, "TERM": "xterm-256color", "LOGNAME": "alice"})
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN, at.isoformat(), *shlex.split(command)], env=env, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    said, give_up = b"", time.monotonic() + SECONDS
    with contextlib.suppress(OSError):  # which is how Linux tells that all others have closed it
        while time.monotonic() < give_up and (chunk := _read(ours)) is not None:
            said += chunk
    os.close(ours)
    assert process.wait(SECONDS) == 0, said
    return said.decode().replace("\r\n", "\n").rstrip()


def _read(terminal: int) -> bytes | None:
    if not select.select([terminal], [], [], 0.2)[0]:
        return b""
    return os.read(terminal, 65536) or None


def record() -> None:
    """Save what an operator sees on a terminal."""
    console = Console(record=True, width=SIZE[1], file=io.StringIO())
    with tempfile.TemporaryDirectory() as folder:
        for after, command in SCRIPT:
            said = said_by(command, NOW + after, f"file://{folder}/maintenance")
            said = said.replace(folder, "/run/shop").replace(f"@{socket.gethostname()}", "@ops1")
            console.print(Text(f"$ fastapi-maintenance {command}", "bold"))
            console.print(Text.from_ansi(said))
    console.print()  # rich cuts the last line off below its letters
    svg = console.export_svg(title="", theme=LOOK, code_format=SVG, unique_id="cli")
    (IMAGES / "cli.svg").write_text(svg, "utf-8")


def main() -> None:
    """Make all pictures."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    record()
    with time_machine.travel(NOW), sync_playwright() as playwright, service() as url:
        browser = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=SWITCHES)
        for scheme in ("light", "dark"):
            photograph(browser, url, f"page-{scheme}.png", scheme=scheme, size=(800, 640))
        photograph(browser, f"{url}admin/", "admin.png", scheme="light", size=(800, 600))
        browser.close()
    for picture in sorted(IMAGES.iterdir()):
        size = picture.stat().st_size
        assert size < LARGEST, (picture, size)
        print(f"{picture.relative_to(Path.cwd())}: {size} bytes")


if __name__ == "__main__":
    main()
