"""What a user of fastapi-maintenance 0.0.5 can write by its public names, with the same result."""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

import fastapi_maintenance
from fastapi_maintenance import (
    MaintenanceModeMiddleware,
    configure_backend,
    force_maintenance_mode_off,
    force_maintenance_mode_on,
    get_maintenance_mode,
    maintenance_mode_on,
    set_maintenance_mode,
)
from fastapi_maintenance.backends import BaseStateBackend, EnvVarBackend, LocalFileBackend
from tests.support.asgi import BODY, get, status

pytestmark = pytest.mark.anyio

PUBLIC = (
    "configure_backend",
    "get_maintenance_mode",
    "set_maintenance_mode",
    "force_maintenance_mode_off",
    "force_maintenance_mode_on",
    "MaintenanceModeMiddleware",
    "maintenance_mode_on",
)


def test_its_public_names_are_here() -> None:
    assert set(PUBLIC) <= set(fastapi_maintenance.__all__)
    for module in "middleware", "decorators", "backends":
        importlib.import_module(f"fastapi_maintenance.{module}")


def app_with(*arguments: Any, **options: Any) -> Any:
    """Return an app with the middleware; one that is given its arguments by position stands around the app."""
    app = FastAPI()
    if not arguments:
        app.add_middleware(MaintenanceModeMiddleware, **options)

    @app.get("/")
    async def root() -> dict[str, str]:
        return {"hello": "world"}

    @app.get("/health")
    @force_maintenance_mode_off
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/deprecated")
    @force_maintenance_mode_on
    async def deprecated() -> None: ...

    return MaintenanceModeMiddleware(app, *arguments) if arguments else app


async def test_the_default_answer_is_the_same() -> None:
    for app in app_with(enable_maintenance=True), app_with(True):
        answer = await get(app, "/")
        assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (503, BODY, "3600")
        assert await status(app, "/health") == 200
        assert await status(app, "/docs") == 200
        assert await status(app, "/missing") == 404


async def test_forced_endpoints_are_blocked_while_it_is_off() -> None:
    app = app_with(enable_maintenance=False)
    assert [await status(app, path) for path in ("/", "/health", "/deprecated")] == [200, 200, 503]


@pytest.mark.parametrize("value", ["1", "yes", "Y", "true", "T", "on"])
async def test_the_environment_says_it(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_with()
    assert await status(app, "/") == 200
    monkeypatch.setenv("FASTAPI_MAINTENANCE_MODE", value)
    assert await status(app, "/") == 503
    assert await get_maintenance_mode() is True
    monkeypatch.setenv("OTHER", "no")
    configure_backend("env", var_name="OTHER")
    assert await get_maintenance_mode() is False
    assert await EnvVarBackend(var_name="OTHER").get_value() is False


async def test_a_file_says_it(tmp_path: Path) -> None:
    path = tmp_path / "maintenance.txt"
    backend = LocalFileBackend(file_path=str(path))
    app = app_with(backend=backend)
    try:
        await set_maintenance_mode(True, backend)
        assert path.read_text() == "1"
        assert await status(app, "/") == 503
        await set_maintenance_mode(value=False, backend=backend)
        assert path.read_text() == "0"
        assert await status(app, "/") == 200
        configure_backend("file", file_path=str(path))
        assert await get_maintenance_mode() is False
    finally:
        await backend.aclose()


TRUE, FALSE = ("1", "yes", "y", "true", "t", "on"), ("0", "no", "n", "false", "f", "off", "")


@pytest.mark.parametrize("write", [str, str.upper, str.title, "  {}\n".format])
def test_its_helpers_for_texts_are_here(write: Any) -> None:
    """Its documentation had backends call them."""
    for words, value in (TRUE, True), (FALSE, False):
        assert [BaseStateBackend._str_to_bool(write(word)) for word in words] == [value] * len(words)
    assert [EnvVarBackend()._bool_to_str(value) for value in (True, False)] == ["1", "0"]


@pytest.mark.parametrize("word", ["2", "maybe", "truth", "o n", "x" * 1000])
def test_its_helpers_refuse_other_texts(word: str) -> None:
    with pytest.raises(ValueError, match="must be 1, yes, y, true, t, on; 0, no") as error:
        BaseStateBackend._str_to_bool(word)
    assert len(str(error.value)) < 200
    with pytest.raises(ValueError, match="must be True or False, got 2"):
        BaseStateBackend._bool_to_str(2)  # type: ignore[arg-type]


async def test_a_backend_that_calls_its_helpers_works() -> None:
    """As in the example of its documentation."""

    class Texts(BaseStateBackend):
        text = ""

        async def get_value(self) -> bool:
            return self._str_to_bool(self.text)

        async def set_value(self, value: bool) -> None:
            self.text = self._bool_to_str(value)

    backend = Texts()
    app = app_with(backend=backend)
    assert await status(app, "/") == 200
    await set_maintenance_mode(True, backend)
    assert (backend.text, await status(app, "/")) == ("1", 503)


async def test_handlers_may_be_sync_or_async(anyio_backend: str) -> None:
    def is_exempt(request: Request) -> bool:
        return request.headers.get("x-key") == "secret"

    async def is_exempt_later(request: Request) -> bool:
        await asyncio.sleep(0)
        return is_exempt(request)

    def respond(request: Request) -> Response:
        return JSONResponse({"path": request.url.path}, 503)

    async def respond_later(request: Request) -> Response:
        return respond(request)

    for exempt_handler in is_exempt, is_exempt_later:
        for response_handler in respond, respond_later:
            app = app_with(True, None, exempt_handler, response_handler)
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                assert (await client.get("/", headers={"x-key": "secret"})).status_code == 200
                assert (await client.get("/")).json() == {"path": "/"}


class DictBackend(BaseStateBackend):
    """A user's own, as its documentation shows one."""

    def __init__(self) -> None:
        self.state = {"on": False}

    async def get_value(self) -> bool:
        return self.state["on"]

    async def set_value(self, value: bool) -> None:
        self.state["on"] = value


async def test_a_block_switches_on_and_back() -> None:
    backend = DictBackend()
    app = app_with(backend=backend)
    assert await status(app, "/") == 200
    async with maintenance_mode_on(backend):
        assert backend.state == {"on": True}
        assert await status(app, "/") == 503
        async with maintenance_mode_on():  # the only app's
            assert await status(app, "/") == 503
    assert backend.state == {"on": False}
    assert await status(app, "/") == 200


async def test_an_unknown_backend_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="known"):
        configure_backend("carrier-pigeon")
