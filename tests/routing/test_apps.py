"""Which objects call their ``.app``, as far as their code says so."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.routing import Router
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from fastapi_maintenance import MaintenanceModeMiddleware
from fastapi_maintenance.routing.apps import _reads_app as reads_app


class Direct:
    app: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class Inherited(Direct): ...


class Deferring(Direct):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)


class ByMethods:
    app: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.first(scope, receive, send)

    async def first(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.second(scope, receive, send)

    async def second(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self.first(scope, receive, send)
        await self.app(scope, receive, send)


class ByInnerFunction:
    app: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def inner() -> None:
            await self.app(scope, receive, send)

        await inner()


class ByProperty:
    app: Any = None

    @property
    def inner(self) -> Any:
        return self.app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.inner(scope, receive, send)


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    async def wrapper(*arguments: Any) -> None:
        await function(*arguments)

    return wrapper


class Decorated:
    app: Any = None

    @decorated
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


@pytest.mark.parametrize(
    "kind",
    [
        *(Direct, Inherited, Deferring, ByMethods, ByInnerFunction, ByProperty, Decorated),
        *(BaseHTTPMiddleware, CORSMiddleware, SessionMiddleware, MaintenanceModeMiddleware),
    ],
)
def test_a_middleware_reads_its_app(kind: type[Any]) -> None:
    """Directly or further in; and every one that a stock app has."""
    assert reads_app(kind)


def test_every_middleware_of_a_stock_app_reads_its_app() -> None:
    """Or its router would not be found."""
    for app in (FastAPI(), Starlette()):
        step: Any = app.build_middleware_stack()
        while not isinstance(step, Router):
            assert reads_app(type(step))
            step = step.app


app = FastAPI()


class Elsewhere:
    def __init__(self, inner: Any) -> None:
        self.app = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = app
        await StaticFiles(directory=".")(scope, receive, send)

    def url(self) -> Any:
        return self.app.url_path_for("one")


class Recursive:
    app: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self(scope, receive, send)

    __call__ = decorated(decorated(__call__))


def ring() -> Callable[..., Any]:
    async def one(*arguments: Any) -> None:
        await other(*arguments)

    async def other(*arguments: Any) -> None:
        await one(*arguments)

    return one


class Ring:
    app: Any = None
    __call__ = ring()


class Foreign:
    """Has a call that is not written in Python."""

    app: Any = None
    __call__ = print


@pytest.mark.parametrize("kind", [Elsewhere, Recursive, Ring, Foreign, StaticFiles, object, type])
def test_what_does_not_read_its_app_is_no_middleware(kind: type[Any]) -> None:
    """Not a variable of that name, nor a method that is not used, nor what can't be read."""
    assert not reads_app(kind)
