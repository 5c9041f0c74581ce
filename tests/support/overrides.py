"""Subclasses that override how an app or router is called."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.routing import Router
from starlette.types import Receive, Scope, Send

OVERRIDES = [
    (APIRouter, "app"),
    (APIRouter, "__call__"),
    (Router, "app"),
    (Router, "__call__"),
    (Starlette, "__call__"),
    (FastAPI, "__call__"),
]
each_override = pytest.mark.parametrize(
    ("base", "method"), OVERRIDES, ids=[f"{base.__name__}.{method}" for base, method in OVERRIDES]
)


def overriding(base: type[Any], method: str, ran: list[str]) -> type[Any]:
    """Return a subclass that notes ``override`` in ``ran`` before it calls what it overrides."""

    async def override(self: Any, scope: Scope, receive: Receive, send: Send) -> None:
        ran.append("override")
        await getattr(base, method)(self, scope, receive, send)

    return type("Own", (base,), {method: override})
