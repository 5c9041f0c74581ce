"""The names that the package promises."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib.resources import files
from types import ModuleType
from typing import Any

import pytest

import fastapi_maintenance
from fastapi_maintenance import backends, exceptions
from fastapi_maintenance.backends.base import StoreBackend

PROMISED = [
    "MaintenanceModeMiddleware",
    "MaintenanceGuard",
    "maintenance_guard",
    "MaintenanceActive",
    "maintenance_exception_handler",
    "Exemptions",
    "force_maintenance_mode_on",
    "force_maintenance_mode_off",
    "maintenance_mode_on",
    "maintenance_mode_off",
    "configure_backend",
    "get_maintenance_mode",
    "set_maintenance_mode",
    "get_maintenance_state",
    "get_maintenance_status",
    "is_maintenance_on",
    "schedule_maintenance",
    "cancel_maintenance",
    "Window",
    "Occurrence",
    "MaintenanceState",
    "MaintenanceMode",
    "SwitchStatus",
    "Knowledge",
]

PROMISED_BACKENDS = [
    "BaseStateBackend",
    "EnvVarBackend",
    "FollowOptions",
    "LocalFileBackend",
    "MemoryBackend",
    "RedisBackend",
    "SQLAlchemyBackend",
    "StoreBackend",
]

ERRORS = [
    name
    for name, value in vars(exceptions).items()
    if inspect.isclass(value) and value.__module__ == exceptions.__name__
]
INTERNAL = {"WebSocketMaintenanceActive"}
"""Raised for Starlette's sake; users catch ``MaintenanceActive``."""


@pytest.mark.parametrize("name", PROMISED)
def test_promised_names_are_there(name: str) -> None:
    """At the top level."""
    assert name in fastapi_maintenance.__all__


def test_the_promised_backends_are_there() -> None:
    """With those that need an extra, which is asked for when one is made."""
    assert backends.__all__ == PROMISED_BACKENDS


def test_importing_the_package_imports_no_extra() -> None:
    """Who uses neither Redis nor SQL need not have what they need, nor wait for it."""
    code = "import sys, fastapi_maintenance.backends; print(*sys.modules)"
    imported = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert "fastapi_maintenance.backends.redis" in imported
    assert not {"redis", "sqlalchemy", "greenlet"} & set(imported)


@pytest.mark.parametrize("module", [fastapi_maintenance, backends])
def test_all_names_are_importable_sorted_and_told_once(module: ModuleType) -> None:
    """A star import works, and a reader finds a name."""
    names = module.__all__
    assert sorted(names) == list(names)
    assert len(set(names)) == len(names)
    namespace: dict[str, Any] = {}
    exec(f"from {module.__name__} import *", namespace)
    assert set(names) <= set(namespace)


@pytest.mark.parametrize(
    ("module", "name"),
    [(module, name) for module in (fastapi_maintenance, backends) for name in module.__all__],
)
def test_all_names_are_documented(module: ModuleType, name: str) -> None:
    """By a docstring of their own, whose first line is a sentence."""
    value = getattr(module, name)
    documented = value if inspect.isclass(value) or inspect.isfunction(value) else type(value)
    docstring = documented.__doc__ or ""
    assert docstring.split("\n\n", maxsplit=1)[0].rstrip().endswith((".", "``."))
    assert not docstring.startswith((f"{name}(", "An enumeration", "Usage docs"))


@pytest.mark.parametrize("name", ["LocalFileBackend", "RedisBackend", "SQLAlchemyBackend"])
def test_followed_backends_take_the_same_options(name: str) -> None:
    """By keyword, with the same meaning in each; only how often a store is read depends on what reading costs."""
    own = list(inspect.signature(getattr(backends, name)).parameters.values())
    assert own[-1] == inspect.signature(StoreBackend).parameters["options"]
    assert all(parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD) for parameter in own[1:])


@pytest.mark.parametrize("name", backends.__all__)
def test_the_methods_of_backends_are_documented(name: str) -> None:
    """Users subclass them."""
    methods = [method for method in vars(getattr(backends, name)).values() if inspect.isfunction(method)]
    assert all(method.__doc__ for method in methods if not method.__name__.startswith("_"))


@pytest.mark.parametrize("name", sorted(set(ERRORS) - INTERNAL))
def test_errors_are_at_the_top_level(name: str) -> None:
    """Whoever wants to catch one need not look for it."""
    assert getattr(fastapi_maintenance, name) is getattr(exceptions, name)
    assert name in fastapi_maintenance.__all__


def test_the_package_tells_its_types() -> None:
    """By the marker of PEP 561."""
    assert files("fastapi_maintenance").joinpath("py.typed").is_file()


def test_the_package_tells_its_version() -> None:
    """As PEP 440 writes it."""
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?(\.dev\d+)?", fastapi_maintenance.__version__)


def test_the_public_functions_take_keywords_after_the_first_arguments() -> None:
    """So that more options can come."""
    for name in (
        "maintenance_mode_on",
        "maintenance_mode_off",
        "get_maintenance_mode",
        "get_maintenance_state",
        "get_maintenance_status",
        "is_maintenance_on",
    ):
        parameters = list(inspect.signature(getattr(fastapi_maintenance, name)).parameters.values())
        assert [parameter.name for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY] == [
            "backend"
        ]
    setting = list(inspect.signature(fastapi_maintenance.set_maintenance_mode).parameters.values())
    assert [parameter.name for parameter in setting if parameter.kind is not parameter.KEYWORD_ONLY] == [
        "value",
        "backend",
    ]


def test_the_middleware_takes_the_fixed_keywords() -> None:
    """Those of the contract, by these names and in this order."""
    parameters = list(inspect.signature(fastapi_maintenance.MaintenanceModeMiddleware).parameters)
    assert parameters[:5] == ["app", "enable_maintenance", "backend", "exempt_handler", "response_handler"]
