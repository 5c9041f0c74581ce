"""Python in a process of its own, for what ends or forks one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

MULTIPART = "ignore:Please use:PendingDeprecationWarning"
"""Starlette before 0.40 imports python-multipart by its former name."""
STRICT = ("-X", "dev", "-W", "error", "-W", "ignore:.*fork:DeprecationWarning", "-W", MULTIPART)
"""Python's options by which it takes warnings for errors, but for forks: those are what is tested."""


def complaints_in(errors: str) -> list[str]:
    """Return the lines of standard error that complain."""
    # In development mode asyncio remarks on what took longer than 0.1 s: this machine may be busy.
    return [line for line in errors.splitlines() if not line.startswith("Executing <")]


def output_of(code: str, *arguments: object) -> str:
    """Return what a script prints that has to succeed, take warnings for errors, and complain about nothing."""
    command = [sys.executable, *STRICT, "-c", code, *map(str, arguments)]
    ended = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, complaints_in(ended.stderr)) == (0, []), ended.stderr
    return ended.stdout
