"""Examine an installation that has no extra: ``make wheel-test`` runs this with an environment that has nothing else.

It stands alone: nothing of the checkout is there to be imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from importlib import metadata, resources
from pathlib import Path

from fastapi import Depends

import fastapi_maintenance
from fastapi_maintenance import Bypass, MissingExtra, configure_backend
from fastapi_maintenance.admin import maintenance_admin

DATA = {
    "py.typed",
    *(f"pages/{name}" for name in ("admin.css", "admin.html", "admin.js", "maintenance.html")),
}
"""What is no Python, and would be missing only when it is needed."""
NEEDS = {
    **{f"fastapi_maintenance.cli.{name}": "rich" for name in ("changes", "commands", "program", "reports")},
    "fastapi_maintenance.pytest_plugin": "pytest",
}
"""The modules that can't be imported without something else, and what they lack."""
EXTRAS = {
    "redis": ["redis"],
    "sqlalchemy": ["sqlalchemy"],
    "cli": ["rich", "typer"],
    "admin": ["jinja2", "python_multipart", "multipart"],
    "schedule": ["tzdata"],
    "bypass": ["itsdangerous"],
}
"""What each extra installs. The one that is not here, otel, comes with FastAPI or is not missed."""


USES: list[tuple[str, Callable[[], object]]] = [
    ("redis", lambda: configure_backend("redis://127.0.0.1")),
    ("sqlalchemy", lambda: configure_backend("postgresql+asyncpg://127.0.0.1/maintenance")),
    ("admin", lambda: maintenance_admin(dependencies=[Depends(dict)])),
    ("bypass", lambda: Bypass("x" * 32)),
]
COMMANDS = [
    [str(Path(sysconfig.get_path("scripts"), "fastapi-maintenance")), "status"],
    [sys.executable, "-I", "-m", "fastapi_maintenance", "status"],
]


def told_by(use: Callable[[], object]) -> str:
    try:
        use()
    except MissingExtra as error:
        return str(error)
    return "nothing is missing"


def check_the_environment() -> None:
    """Make sure that it is a package that was installed, and that none of the extras is there."""
    home = Path(fastapi_maintenance.__file__).parent
    assert home.parent == Path(sysconfig.get_path("purelib")), home
    there = [name for names in EXTRAS.values() for name in names if importlib.util.find_spec(name)]
    assert there == [], f"this environment is not empty: {there}"


def check_the_files() -> None:
    """Make sure that nothing is missing, and that nothing else was installed."""
    package = resources.files(fastapi_maintenance)
    missing = [name for name in DATA if not package.joinpath(name).is_file()]
    assert missing == [], missing
    own = {"fastapi_maintenance", f"fastapi_maintenance-{metadata.version('fastapi-maintenance')}.dist-info"}
    tops = {path.parts[0] for path in metadata.files("fastapi-maintenance") or ()}
    assert tops - own == {".."}, tops  # the command is elsewhere
    declared = set(metadata.metadata("fastapi-maintenance").get_all("Provides-Extra") or ())
    assert declared == {*EXTRAS, "all", "otel"}, declared


def check_the_modules() -> None:
    """Make sure that each module can be imported, but for those that are known."""
    names = [module.name for module in pkgutil.walk_packages(fastapi_maintenance.__path__, "fastapi_maintenance.")]
    lacking = {}
    for name in names:
        if name != "fastapi_maintenance.__main__":  # it runs the command
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as error:
                lacking[name] = error.name
    assert lacking == NEEDS, lacking
    assert len(names) > 30, names


def check_the_errors() -> None:
    """Make sure that whoever needs an extra is told how to install it."""
    for extra, use in USES:
        assert told_by(use).endswith(f": pip install 'fastapi-maintenance[{extra}]'"), (extra, told_by(use))
    for command in COMMANDS:
        ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        told = "error: the command line needs an extra: pip install 'fastapi-maintenance[cli]'\n"
        assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", told), ended


if __name__ == "__main__":
    check_the_environment()
    check_the_files()
    check_the_modules()
    check_the_errors()
    print("fastapi-maintenance", metadata.version("fastapi-maintenance"), "is complete, and works without any extra")
