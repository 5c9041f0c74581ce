"""All tests on each Python and FastAPI that is supported; prints Markdown.

    python -m tests.matrix                                   every pair (an hour or so)
    python -m tests.matrix --python 3.13 --fastapi newest    only these
    python -m tests.matrix -- -k schedule                    only these tests

Pythons that are not installed are left out, and said to be. Ends with 1 if a test failed.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.support.scripts import ROOT

HOME = ROOT / ".matrix"

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
FASTAPIS: Mapping[str, tuple[str, ...]] = {
    # With what was current beside it, as in the dependency group "oldest".
    "0.115": ("fastapi==0.115.0", "starlette==0.38.6", "anyio<4.13"),
    # Its Starlette's test client warns of what newer anyio calls otherwise.
    "0.128": ("fastapi==0.128.*", "anyio<4.13"),
    "0.136": ("fastapi==0.136.*",),
    "0.137.2": ("fastapi==0.137.2",),
    "0.150": ("fastapi==0.150.*",),
    "newest": ("fastapi",),
}


def interpreter(python: str) -> str | None:
    """Return an installed interpreter of that version, or ``None``."""
    candidates = [
        shutil.which(f"python{python}"),
        *map(str, Path.home().glob(f".pyenv/versions/{python}.*/bin/python")),
    ]
    for candidate in filter(None, candidates):
        told = subprocess.run([candidate, "-c", "import venv"], check=False, capture_output=True)
        if told.returncode == 0:
            return candidate
    return None


def environment(python: str, interpreter: str, fastapi: str) -> Path:
    """Return the interpreter of a new virtual environment with that FastAPI and all that the tests need."""
    home = HOME / f"python{python}-fastapi{fastapi}"
    subprocess.run([interpreter, "-m", "venv", "--clear", str(home)], check=True)
    made = home / "bin" / "python"
    pip = [str(made), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    subprocess.run([*pip, "--upgrade", "pip>=25.1"], check=True)
    subprocess.run([*pip, "--editable", ".", "--group", "test", *FASTAPIS[fastapi]], check=True, cwd=ROOT)
    return made


def row(python: str, fastapi: str, pytest_arguments: Sequence[str]) -> tuple[str, bool]:
    """Run the tests of one pair; return a row of the table, and whether all of them passed."""
    found = interpreter(python)
    if found is None:
        return f"| {python} | {fastapi} | | not installed | |", True
    try:
        made = environment(python, found, fastapi)
    except subprocess.CalledProcessError as error:
        return f"| {python} | {fastapi} | | can't be installed: {error} | |", False
    versions = subprocess.run(
        [made, "-c", "import fastapi, starlette; print(fastapi.__version__, starlette.__version__)"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    begin = time.monotonic()
    ran = subprocess.run(
        [made, "-m", "pytest", "-q", "-n", "auto", *pytest_arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    (HOME / f"python{python}-fastapi{fastapi}.log").write_text(ran.stdout + ran.stderr, "utf-8")
    counted = ", ".join(re.findall(r"\d+ (?:passed|failed|skipped|errors?)", ran.stdout.splitlines()[-1]))
    seconds = time.monotonic() - begin
    return f"| {python} | {versions[0]} | {versions[1]} | {counted} | {seconds:.0f} s |", ran.returncode == 0


def main(arguments: Iterable[str]) -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(description="All tests on each Python and FastAPI that is supported.")
    parser.add_argument("--python", action="append", choices=PYTHONS)
    parser.add_argument("--fastapi", action="append", choices=list(FASTAPIS))
    parser.add_argument("pytest_arguments", nargs="*")
    options = parser.parse_args(list(arguments))
    HOME.mkdir(exist_ok=True)
    print("| Python | FastAPI | Starlette | tests | time |\n|---|---|---|---|---|", flush=True)
    passed = True
    for python in options.python or PYTHONS:
        for fastapi in options.fastapi or FASTAPIS:
            line, is_right = row(python, fastapi, options.pytest_arguments)
            print(line, flush=True)
            passed &= is_right
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
