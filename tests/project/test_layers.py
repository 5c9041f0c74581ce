"""The modules' order: imports only point down, so that each can be read without those above it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import fastapi_maintenance

PACKAGE = Path(fastapi_maintenance.__file__).parent

LAYERS = (
    {"exceptions", "accept", "page", "reachability", "recurrence", "route_index", "wrappers", "handlers"},
    {"background", "schedule", "stores.contract", "stores.file_lock"},
    {"state", "stores.check", "stores.per_loop", "stores.threads", "stores.urls"},
    {"policy", "stores", "stores.file", "stores.redis", "stores.sqlalchemy", "stores.switch"},
    {"decorators", "answers"},
    {"routes", "responses", "backends.base"},
    {"backends.env", "backends.file", "backends.memory", "backends.redis", "backends.sqlalchemy"},
    {"backends"},
    {"registry", "transitions"},
    {"snapshot"},
    {"bypass", "metrics", "known_targets"},
    {"exemptions"},
    {"terms", "verdicts"},
    {"gate", "control", "drain", "events"},
    {"guard", "middleware", "holds"},
    {"openapi", "testing"},
    {"pytest_plugin", "admin"},
    {""},
    {"cli.terminal", "cli.values", "cli.store"},
    {"cli.doctor", "cli.running", "cli.watching"},
    {"cli.commands"},
    {"cli"},
    {"__main__"},
)
"""Modules of the package, by what they may import: what stands further up in this list.

The package itself is the last, but for the command line, which nothing else imports.
"""

HEIGHT = {module: height for height, modules in enumerate(LAYERS) for module in modules}


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


def test_every_module_has_its_layer() -> None:
    """A new module has to be given a place."""
    assert set(HEIGHT) == set(MODULES)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_only_point_down(module: str) -> None:
    """To lower layers, not to neighbours, and not to the package as a whole."""
    upward = {other for other in imports_of(module) if HEIGHT[other] >= HEIGHT[module]}
    assert not upward


def test_imports_are_found_in_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test of this test: relative and absolute, inside functions, and not those for types only."""
    file = tmp_path / "gate.py"
    file.write_text(
        "from typing import TYPE_CHECKING\n"
        "from . import policy\n"
        "from .backends.base import BaseStateBackend\n"
        "from fastapi_maintenance.state import MaintenanceState\n"
        "if TYPE_CHECKING:\n    from .middleware import MaintenanceModeMiddleware\n"
        "def late():\n    import fastapi_maintenance.registry\n    import fastapi_maintenance\n"
    )
    monkeypatch.setitem(MODULES, "gate", file)
    assert imports_of("gate") == {"policy", "backends.base", "state", "registry", ""}


@pytest.mark.parametrize("module", ["state", "policy"])
def test_pure_modules_import_nothing_that_does_io(module: str) -> None:
    """The decision is a function of its arguments, and so is a state after a change."""
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            roots.add((node.module or "").split(".")[0])
    pure = {"__future__", "collections", "dataclasses", "datetime", "enum", "json", "pydantic", "typing", "uuid"}
    pure.add("pydantic_core")
    assert roots <= pure
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)]
    assert ".now(" not in MODULES[module].read_text("utf-8")
