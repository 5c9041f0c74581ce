"""What is built has all that it needs, and nothing else; ``make wheel-test`` installs it as well."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.installed import DATA
from tests.support.scripts import ROOT

BESIDE = {"CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "pyproject.toml"}
"""What the directories of the sdist stand beside."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build wheel and sdist, without a look into the network."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    ended = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return folder


def files_of(folder: str) -> set[str]:
    """Return the files of a directory of the checkout, but for what is made by running them."""
    return {
        str(path.relative_to(ROOT))
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not {"__pycache__", "screenshots", ".venvs"} & set(path.parts)
    }


def test_the_wheel_is_the_package(built: Path) -> None:
    """With its templates, script and marker for type checkers, and without tests."""
    [wheel] = built.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == files_of("fastapi_maintenance")
    assert {f"fastapi_maintenance/{name}" for name in DATA} == {name for name in names if not name.endswith(".py")}


def test_the_sdist_is_all_that_its_tests_need(built: Path) -> None:
    """Who packages it for a distribution can run them."""
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    assert names > BESIDE
    for folder in ("benchmarks", "docs", "examples", "fastapi_maintenance", "tests"):
        assert {name for name in names if name.startswith(f"{folder}/")} == files_of(folder)


VULNERABLE = {
    "jinja2": "3.1.5",  # CVE-2025-27516
    "python-multipart": "0.0.30",  # CVE-2026-53540, and in those before CVE-2026-53538, -53539, -42561, -40347, ...
}
"""The last releases with known vulnerabilities, in November 2026."""


@pytest.mark.parametrize("name", VULNERABLE)
def test_no_release_with_known_vulnerabilities_is_accepted(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    declared = [*project["project"]["optional-dependencies"]["admin"], *project["dependency-groups"]["test"]]
    bounds = {bound for package, _, bound in (one.partition(">=") for one in declared) if package == name}
    assert len(bounds) == 1, "the tests use another bound than users do"
    assert [int(part) for part in bounds.pop().split(".")] > [int(part) for part in VULNERABLE[name].split(".")]
