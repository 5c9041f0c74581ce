"""The command line: in processes of its own, or in this one where a process is not what a test is about."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from fastapi_maintenance.cli import main
from tests.support.beginnings import nothing_configured
from tests.support.scripts import MULTIPART, ROOT

SECONDS = 60
"""How long a command may take at most; the machine may be busy."""


@dataclass(frozen=True)
class Ended:
    """What became of a command."""

    status: int
    out: str
    error: str

    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def complaint(self) -> str:
        """The one line on standard error."""
        [line] = self.error.splitlines()
        return line


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment in which nothing of ours is set but what is given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FASTAPI_MAINTENANCE")}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**kept, "PYTHONPATH": path, "PYTHONWARNINGS": f"error,{MULTIPART}", **(more or {})}


def start(
    *arguments: str, env: Mapping[str, str] | None = None, begin: str = "", **options: Any
) -> subprocess.Popen[str]:
    """Start a command in a session of its own, which no terminal has a part in; ``begin`` is Python to run first."""
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-m", "fastapi_maintenance", *arguments]
    if begin:
        begin = f"import os, signal, sys\n{begin}\nos.execv(sys.argv[1], sys.argv[1:])"
        command = [sys.executable, "-c", begin, *command]
    return subprocess.Popen(
        command,
        env=environment(env),
        text=True,
        **{"start_new_session": True, **pipes, **options},
    )


def end_of(process: subprocess.Popen[str]) -> Ended:
    """Wait for the end of a command."""
    try:
        out, error = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()  # and no waiting for its output: a child that ignores signals may keep the pipes open
        raise AssertionError(f"still running: {process.args!r}") from None
    return Ended(process.returncode, out, error)


def run(*arguments: str, env: Mapping[str, str] | None = None, **options: Any) -> Ended:
    """Run a command to its end."""
    return end_of(start(*arguments, env=env, **options))


def run_here(*arguments: str, env: Mapping[str, str] | None = None, encoding: str = "utf-8") -> Ended:
    """Run a command in this process, which saves the second that a new one needs to import everything."""
    out, error = (
        io.TextIOWrapper(io.BytesIO(), encoding, errors, newline="", write_through=True)
        for errors in ("strict", "backslashreplace")
    )
    with (
        nothing_configured(),
        patch.dict(os.environ, environment(env), clear=True),
        redirect_stdout(out),
        redirect_stderr(error),
    ):
        status = main(arguments)
    return Ended(status, *(each.buffer.getvalue().decode() for each in (out, error)))


@contextmanager
def started(*arguments: str, env: Mapping[str, str] | None = None, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a command for the duration of a block; what still runs at its end is killed."""
    process = start(*arguments, env=env, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait(SECONDS)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def has_come(path: Path) -> None:
    """Wait until there is a file."""
    give_up = time.monotonic() + SECONDS
    while not path.exists():
        assert time.monotonic() < give_up, path
        time.sleep(0.02)
