"""FastAPI's and Starlette's own test suites, with the middleware around each of their apps; prints Markdown.

    python -m tests.injected                       with the newest FastAPI (about half an hour)
    python -m tests.injected --fastapi 0.128       with one of those of tests.matrix, or any version such as 0.150.2
    python -m tests.injected --suite starlette --way on

Each suite is taken from the source distribution of the version that is installed, and runs without anything injected
first. Ends with 1 if a test ends otherwise, if what would be blocked is not what runs, or if so little was injected
that this would hardly be noticed. ``known.py`` has the differences that have a reason.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.matrix import FASTAPIS
from tests.support.scripts import ROOT

from .injection import FINDINGS, WAYS
from .known import reason_for

HOME = ROOT / ".suites"
GROUPS = {"starlette": "dev", "fastapi": "tests"}
"""The suites, and the dependency group by which each names what its tests need."""
FEWEST = {"starlette": (150, 300), "fastapi": (350, 1_500)}
"""How many apps and connections there must be at least: about half of those with FastAPI 0.128."""
MOST_FAILURES = 0.02
"""The share of tests that may fail without anything injected: as root, without a network, with newer dependencies."""
MOST_RERUN = 50
"""How many tests that differ run again by themselves; of more than these some differ for sure."""
RERUNS = 3
"""How often: FastAPI 0.128 has a websocket test that hangs now and then, with nothing injected as well."""
MOST_LINES = 20
ORACLES = ("on", "new-scope")
"""The ways in which what would be blocked is compared with what ran."""

Outcomes = Mapping[str, str]


@dataclass
class Run:
    """What one suite reported, run in one way."""

    outcomes: Outcomes
    counts: Counter[str] = field(default_factory=Counter)
    disagreements: list[dict[str, str]] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Return what the plugin wrote into a folder."""
        run = cls(json.loads((folder / "outcomes.json").read_text("utf-8")))
        for file in folder.glob("connections-*.json"):
            found = json.loads(file.read_text("utf-8"))
            run.counts.update(found["counts"])
            run.disagreements += found["disagreements"]
        return run


@dataclass
class Suite:
    """A test suite, where it was unpacked, and what runs it."""

    name: str
    version: str
    python: Path
    sources: Path

    @property
    def folder(self) -> Path:
        """Where the source distribution was unpacked."""
        return self.sources / f"{self.name}-{self.version}"

    def run(self, way: str, tests: Sequence[str] = ()) -> Run:
        """Run all tests, or only some, which then run one after the other."""
        reports = HOME / "reports" / self.folder.name / (f"{way}-again" if tests else way)
        reports.mkdir(parents=True, exist_ok=True)
        for old in reports.iterdir():
            old.unlink()
        # Their own configuration, and not that of this project, which is further up.
        options = [
            "-q",
            "-c",
            "pyproject.toml",
            "-p",
            "no:sugar",
            "-p",
            "injection",
            f"--way={way}",
            f"--reports={reports}",
        ]
        with (reports / "log").open("w", encoding="utf-8") as log:
            ended = subprocess.run(
                [self.python, "-m", "pytest", *options, *(tests or ("-n", "auto", "tests"))],
                check=False,
                cwd=self.folder,
                # Their own time-out is too short for a busy machine; where they have none, a test might hang for ever.
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), "PYTEST_TIMEOUT": "120"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        if ended.returncode not in (0, 1):
            sys.exit(f"{self.name}, {way}: pytest ended with {ended.returncode}, see {reports / 'log'}")
        return Run.read(reports)


def differing(bare: Outcomes, injected: Outcomes) -> list[str]:
    """Return the tests that ended otherwise, or in one of the runs only."""
    return sorted(test for test in {*bare, *injected} if bare.get(test) != injected.get(test))


def problems_of(suite: str, way: str, run: Run, differences: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return what makes a run a failure, and what differs for a known reason."""
    problems: list[str] = []
    explained: list[str] = []
    for test in differences:
        reason = reason_for(suite, test)
        (problems if reason is None else explained).append(f"{test}: {reason or 'ends otherwise'}")
    problems += [f"{each['test']}: {each['what']}: {each['finding']}" for each in run.disagreements]
    apps, connections = FEWEST[suite]
    if run.counts["apps"] < apps:
        problems.append(f"only {run.counts['apps']} apps got the middleware, there must be {apps}")
    if way in ORACLES and run.counts["connections"] < connections:
        problems.append(f"only {run.counts['connections']} connections were watched, there must be {connections}")
    return problems, explained


def steady_differences(suite: Suite, way: str, bare: Outcomes, injected: Outcomes) -> list[str]:
    """Return the tests that differ also each time that they run again by themselves."""
    differences = differing(bare, injected)
    for _ in range(0 if len(differences) > MOST_RERUN else RERUNS):
        if differences:
            differences = differing(suite.run("bare", differences).outcomes, suite.run(way, differences).outcomes)
    return differences


def print_row(suite: Suite, way: str, outcomes: Outcomes, more: Iterable[object], begin: float) -> None:
    """Print a row of the table."""
    ended = Counter(outcomes.values())
    seconds = f"{time.monotonic() - begin:.0f} s"
    cells = (suite.folder.name, way, len(outcomes), ended["passed"], ended["failed"], *more, seconds)
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def examine(suite: Suite, ways: Iterable[str]) -> bool:
    """Run a suite in each way, print a row of the table for each, and return whether nothing was found."""
    lines: list[str] = []
    begin = time.monotonic()
    bare = suite.run("bare").outcomes
    ended = Counter(bare.values())
    print_row(suite, "bare", bare, ("",) * (3 + len(FINDINGS)), begin)
    if ended["failed"] > MOST_FAILURES * len(bare):
        lines.append(f"FAILED bare: {ended['failed']} of {len(bare)} tests fail without anything injected")
    for way in ways:
        begin = time.monotonic()
        run = suite.run(way)
        # In a scope of its own a request may look another way to tests: only what runs is compared.
        compared = way != "new-scope"
        differences = steady_differences(suite, way, bare, run.outcomes) if compared else []
        problems, explained = problems_of(suite.name, way, run, differences)
        counts = run.counts
        differ = f"{len(differences)}, {len(explained)} explained" if compared else ""
        found = [counts[each] if way in ORACLES else "" for each in ("connections", *FINDINGS)]
        print_row(suite, way, run.outcomes, (differ, counts["apps"], *found), begin)
        lines += [f"FAILED {way}: {problem}" for problem in problems]
        lines += [f"explained {way}: {each}" for each in explained]
        unsteady = set(differing(bare, run.outcomes)).difference(differences) if compared else ()
        lines += [f"unsteady {way}: {test}: ends this way or that" for test in sorted(unsteady)]
    for line in lines[:MOST_LINES]:
        print(f"  {suite.name}: {line}", file=sys.stderr, flush=True)
    if len(lines) > MOST_LINES:
        print(f"  {suite.name}: and more, see {HOME / 'reports'}", file=sys.stderr, flush=True)
    return not any(line.startswith("FAILED") for line in lines)


def install(fastapi: str, home: Path) -> None:
    """Make an environment with a FastAPI, the test suites of it and of its Starlette, and what these need."""
    print(f"Installing into {home.relative_to(ROOT)}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
    pip = [str(home / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wanted = FASTAPIS.get(fastapi, (f"fastapi=={fastapi}",))
    subprocess.run([*pip, "install", "--upgrade", "pip>=25.1"], check=True)  # it knows dependency groups
    tools = ("pytest-xdist>=3.6", "pytest-timeout>=2.3")
    subprocess.run([*pip, "install", "--editable", ".", *tools, *wanted], check=True, cwd=ROOT)
    suites = suites_in(home)
    pins = [f"{suite.name}=={suite.version}" for suite in suites]
    download = ["download", "--no-deps", "--no-binary", ",".join(GROUPS), "--dest", str(home / "sources")]
    subprocess.run([*pip, *download, *pins], check=True)
    # One after the other, since each may pin its own tools. FastAPI's say less, so they go last and prevail.
    for suite in suites:
        with tarfile.open(f"{suite.folder}.tar.gz") as archive:
            archive.extractall(home / "sources", filter="data")
        needs = ["fastapi[all]", "--group", f"{suite.folder / 'pyproject.toml'}:{GROUPS[suite.name]}"]
        subprocess.run([*pip, "install", *pins, *wanted, *needs], check=True)


def suites_in(home: Path) -> list[Suite]:
    """Return the suites of the versions that an environment has."""
    python = home / "bin" / "python"
    code = "import importlib.metadata, sys; print(*map(importlib.metadata.version, sys.argv[1:]))"
    shown = subprocess.run([python, "-c", code, *GROUPS], check=True, capture_output=True, text=True).stdout.split()
    return [Suite(name, version, python, home / "sources") for name, version in zip(GROUPS, shown, strict=True)]


def main(arguments: Sequence[str]) -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(description="FastAPI's and Starlette's own tests, with the middleware injected.")
    parser.add_argument("--fastapi", default="newest", help=f"a version, or one of {', '.join(FASTAPIS)}")
    parser.add_argument("--suite", action="append", choices=list(GROUPS))
    parser.add_argument("--way", action="append", choices=WAYS[1:])
    parser.add_argument("--keep", action="store_true", help="use the environment of the run before")
    options = parser.parse_args(arguments)
    home = HOME / f"fastapi-{options.fastapi}"
    if not options.keep:
        install(options.fastapi, home)
    suites = [suite for suite in suites_in(home) if suite.name in (options.suite or GROUPS)]
    columns = ("suite", "way", "tests", "passed", "failed", "differ", "apps", "connections", *FINDINGS, "time")
    print("|", " | ".join(columns), "|")
    print("|---" * len(columns) + "|", flush=True)
    found = [examine(suite, options.way or WAYS[1:]) for suite in suites]
    return 0 if all(found) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
