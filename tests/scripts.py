"""Python in a process of its own, for what ends or forks one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

_OPTIONS = ("-X", "dev", "-W", "error", "-W", "ignore:.*fork:DeprecationWarning")


def output_of(code: str, *arguments: object) -> str:
    """Return what a script prints that has to succeed, take warnings for errors, and complain about nothing."""
    command = [sys.executable, *_OPTIONS, "-c", code, *map(str, arguments)]
    ended = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=120)
    # In development mode asyncio remarks on what took longer than 0.1 s: this machine may be busy.
    complaints = [line for line in ended.stderr.splitlines() if not line.startswith("Executing <")]
    assert (ended.returncode, complaints) == (0, []), ended.stderr
    return ended.stdout
