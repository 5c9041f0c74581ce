"""Processes that answer each command with a JSON object per line, and what they are started with."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Self

from benchmarks.cases import Contender
from benchmarks.environments import ROOT, python_of

WORKER = ROOT / "benchmarks" / "worker.py"


def worker_command(contender: Contender, *options: str, python: Path | None = None) -> list[str]:
    """Return the command line of a contender's worker; ``python`` is another than the contender's own."""
    return [str(python or python_of(contender)), str(WORKER), contender, *options]


def worker_environment() -> dict[str, str]:
    """Return the environment of a worker: nothing of the caller's decides what it does, hashes are the same."""
    others = ("FASTAPI_MAINTENANCE", "PYTHON", "COVERAGE")
    mine = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    return {**mine, "PYTHONHASHSEED": "0"}


class Process:
    """A process that answers; started for the duration of a block."""

    def __init__(self, *command: str) -> None:
        self._process = subprocess.Popen(
            command, env=worker_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def tell(self, **command: Any) -> None:
        """Send a command; ``answer`` must follow."""
        if self._process.stdin is not None:
            print(json.dumps(command), file=self._process.stdin, flush=True)

    def answer(self) -> dict[str, Any]:
        """Wait for the answer."""
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            msg = f"{self._process.args!r} ended with exit status {self._process.wait()}"
            raise RuntimeError(msg)
        answer: dict[str, Any] = json.loads(line)
        return answer
