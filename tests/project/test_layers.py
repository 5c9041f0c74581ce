"""The rooms' order: imports only point down, so that each room can be read without those above it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import fastapi_maintenance

PACKAGE = Path(fastapi_maintenance.__file__).parent

FLOORS = (
    {"exceptions"},
    {"model"},
    {"concurrency"},
    {"stores"},
    {"backends"},
    {"switches", "routing"},
    {"answers"},
    {"gate"},
    {"holds"},
    {"middleware", "guard", "decorators"},
    {"inspection"},
    {"testing"},
    {"desk", "pytest_plugin"},
    {"admin"},
    {""},
    {"cli"},
    {"__main__"},
)
"""The rooms, by what they may import: rooms that are named before them in this list.

The empty name is the package itself: it imports its public names, and only the command line imports it.
"""

HEIGHT = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
MOST_LINES = 500
MOST_FILES = 10


def room_of(module: str) -> str:
    """Return the room in which a module is."""
    return module.partition(".")[0]


def name_of(file: Path) -> str:
    """Return a module's name without the package's."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {name_of(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def imports_of(module: str) -> set[str]:
    """Return the modules of this package that a module imports when it runs, anywhere in it."""
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    for_types_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    package = module.split(".") if MODULES[module].name == "__init__.py" else module.split(".")[:-1]
    package = [part for part in package if part]
    found = set()
    for node in ast.walk(tree):
        if id(node) in for_types_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1] + (node.module or "").split(".")
            found |= modules_in([part for part in base if part], [alias.name for alias in node.names])
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for name in names:
                if name.split(".")[0] == fastapi_maintenance.__name__:
                    found.add(name.partition(".")[2])
    return found


def modules_in(base: list[str], names: list[str]) -> set[str]:
    """Return what ``from base import names`` imports: modules below the base, else the base itself."""
    return {inner if (inner := ".".join([*base, name])) in MODULES else ".".join(base) for name in names}


def test_every_room_has_its_floor() -> None:
    """A new room must be given a place."""
    assert set(HEIGHT) == {room_of(module) for module in MODULES}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_only_point_down(module: str) -> None:
    """To lower floors, not to neighbours, and not to the package as a whole."""
    others = {room_of(other) for other in imports_of(module)} - {room_of(module)}
    assert {other for other in others if HEIGHT[other] >= HEIGHT[room_of(module)]} == set()


def test_no_room_has_a_circle() -> None:
    """Within a room, too, modules can be read one after the other."""
    imports = {module: imports_of(module) & MODULES.keys() for module in MODULES}
    while leaves := {module for module, others in imports.items() if not others & imports.keys()}:
        imports = {module: others for module, others in imports.items() if module not in leaves}
    assert imports == {}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_modules_are_short(module: str) -> None:
    assert len(MODULES[module].read_text("utf-8").splitlines()) <= MOST_LINES


def test_folders_are_small() -> None:
    folders = [PACKAGE, *(path for path in PACKAGE.rglob("*") if path.is_dir() and path.name != "__pycache__")]
    assert {
        folder.name: len(list(folder.glob("*.py")))
        for folder in folders
        if len(list(folder.glob("*.py"))) > MOST_FILES
    } == {}


def test_imports_are_found_in_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test of this test: relative and absolute, inside functions, and not those for types only."""
    file = tmp_path / "gate.py"
    file.write_text(
        "from typing import TYPE_CHECKING\n"
        "from . import judgement\n"
        "from ..backends.base import BaseStateBackend\n"
        "from fastapi_maintenance.model.state import MaintenanceState\n"
        "if TYPE_CHECKING:\n    from ..middleware import MaintenanceModeMiddleware\n"
        "def late():\n    import fastapi_maintenance.switches.registry\n    import fastapi_maintenance\n"
    )
    monkeypatch.setitem(MODULES, "gate.gate", file)
    assert imports_of("gate.gate") == {"gate.judgement", "backends.base", "model.state", "switches.registry", ""}


@pytest.mark.parametrize("module", sorted(module for module in MODULES if room_of(module) == "model"))
def test_pure_modules_import_nothing_that_does_io(module: str) -> None:
    """The decision is a function of its arguments, and so is a state after a change."""
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            roots.add((node.module or "").split(".")[0])
    assert not roots & {"asyncio", "os", "pathlib", "socket", "threading", "time", "logging", "random", "anyio"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)]
    assert ".now(" not in MODULES[module].read_text("utf-8")
