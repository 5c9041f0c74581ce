"""A file on a system that does not answer, such as a hung network share: it stops nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.scripts import MULTIPART, ROOT
from tests.support.stores import RedisServer

PROGRAM = """
import asyncio, json, sys, time
from pathlib import Path
from fastapi_maintenance import maintenance_mode_on, set_maintenance_mode
from fastapi_maintenance.backends import LocalFileBackend, RedisBackend
from fastapi_maintenance.switches.views.lookup import view_of
from tests.support.scripts import ROOT

hung_path, hung_while, url = sys.argv[1:]

async def seconds_until(condition):
    begun = time.monotonic()
    while not condition():
        await asyncio.sleep(0.001)
    return time.monotonic() - begun

async def main():
    hung = LocalFileBackend(hung_path, init_timeout=1)
    shared, other = (RedisBackend(url, poll_seconds=60) for _ in range(2))
    begun = time.monotonic()
    await view_of(hung).read()
    told = {"start": time.monotonic() - begun}
    view = view_of(shared)
    await view.read()
    async with maintenance_mode_on(shared, ttl=1) as block:
        await asyncio.sleep(2.5)
        told["held"] = view.peek().mode_at(None) == "on" and not block.lost.is_set()
    seen = []
    for mode in ("on", "off") * 3:
        await set_maintenance_mode(mode, other)
        seen.append(await seconds_until(lambda: view.peek().mode == mode))
    told["seen"] = sorted(seen)[2]
    Path(hung_while).unlink()
    told["back"] = await seconds_until(lambda: view_of(hung).peek().mode == "on")
    Path(hung_while).touch()
    await asyncio.sleep(0.5)
    print(json.dumps(told))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a library by which ``open`` of one path hangs."""
    compiler = shutil.which("cc")
    assert compiler is not None, "a C compiler must be installed: it makes open() hang"
    library = tmp_path_factory.mktemp("shim") / "hung.so"
    source = ROOT / "tests/programs/hung_open.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return library


def test_a_file_that_hangs_stops_nothing_else(shim: Path, tmp_path: Path) -> None:
    """A start waits for ``init_timeout``; a switch in Redis is seen and held as ever; the process ends."""
    path, while_there = tmp_path / "switch", tmp_path / "hung"
    path.write_text("1")
    while_there.touch()
    environment = {
        "LD_PRELOAD": str(shim),
        "HUNG_PATH": str(path),
        "HUNG_WHILE": str(while_there),
        "PYTHONPATH": str(ROOT),
    }
    with RedisServer() as server:
        program = [
            sys.executable,
            "-W",
            "error",
            "-W",
            MULTIPART,
            "-c",
            PROGRAM,
            str(path),
            str(while_there),
            server.url,
        ]
        ended = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert 0.9 < told["start"] < 2
    assert told["held"]
    assert told["seen"] < 0.5
    assert told["back"] < 1.5
