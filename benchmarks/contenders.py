"""How each contender is put around an app. Runs in a worker, which imports one contender only."""

from __future__ import annotations

import importlib
import os
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from benchmarks.apps import Endpoint
from benchmarks.cases import EXEMPT_PATH, MISSING_PATH, Backend, Contender, Scene, State

_VARIABLE = "FASTAPI_MAINTENANCE_MODE"


class Plain:
    """No middleware; the base of the others."""

    def mark(self, endpoint: Endpoint, forced_on: bool) -> Endpoint:
        """Force an endpoint on or off."""
        return endpoint

    def middleware(self, scene: Scene) -> tuple[Any, dict[str, Any]] | None:
        """Return the middleware's class and keywords, or ``None``."""
        return None

    async def begin(self, scene: Scene, store: str) -> None:
        """Bring about a scene's state; ``store`` is the path or URL of a backend that needs one."""

    def version(self) -> str | None:
        """Return what is installed, or ``None`` if nothing has to be."""
        return None


class NoOpASGI:
    """The least that a middleware can do: for a blocking switch, a set of open paths and a ready answer."""

    def __init__(self, app: ASGIApp, blocks: bool) -> None:
        self.app = app
        self.blocks = blocks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if self.blocks and scope["type"] == "http" and scope["path"] not in _OPEN:
            await _refusal()(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class NoOpBaseHTTP(BaseHTTPMiddleware):
    """The same, the way that Starlette's tutorial shows."""

    def __init__(self, app: ASGIApp, blocks: bool) -> None:
        super().__init__(app)
        self.blocks = blocks

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Pass the request on, or refuse it."""
        if self.blocks and request.scope["path"] not in _OPEN:
            return _refusal()
        return await call_next(request)


_OPEN = frozenset({EXEMPT_PATH, MISSING_PATH})


def _refusal() -> Response:
    content = {"detail": "Service temporarily unavailable due to maintenance"}
    return JSONResponse(content, status_code=503, headers={"Retry-After": "3600"})


class NoOp(Plain):
    """One of the two no-op middlewares."""

    def __init__(self, kind: type[NoOpASGI | NoOpBaseHTTP]) -> None:
        self._kind = kind

    def middleware(self, scene: Scene) -> tuple[Any, dict[str, Any]]:
        """Return the middleware's class and keywords."""
        return self._kind, {"blocks": scene.state is State.ON}


class FastAPIMaintenance(Plain):
    """fastapi-maintenance: the reference and ours have the same names."""

    def __init__(self) -> None:
        self._package = importlib.import_module("fastapi_maintenance")
        self._backends = importlib.import_module("fastapi_maintenance.backends")
        self._backend: Any = None

    def mark(self, endpoint: Endpoint, forced_on: bool) -> Endpoint:
        """Force an endpoint on or off."""
        package = self._package
        force = package.force_maintenance_mode_on if forced_on else package.force_maintenance_mode_off
        marked: Endpoint = force(endpoint)
        return marked

    def middleware(self, scene: Scene) -> tuple[Any, dict[str, Any]]:
        """Return the middleware's class and keywords."""
        options: dict[str, Any] = {}
        if self._backend is not None:
            options["backend"] = self._backend
        if scene.state is State.ON:
            options |= self.exemption()
        return self._package.MaintenanceModeMiddleware, options

    def exemption(self) -> dict[str, Any]:
        """Return the keywords that exempt ``EXEMPT_PATH``."""
        return {"exempt_handler": lambda request: request.url.path == EXEMPT_PATH}

    async def begin(self, scene: Scene, store: str) -> None:
        """Bring about a scene's state."""
        is_on = scene.state is State.ON
        os.environ.pop(_VARIABLE, None)  # "off" is mostly no variable at all
        match scene.backend:
            case Backend.ENV:
                if is_on:
                    os.environ[_VARIABLE] = "1"
            case Backend.OWN:
                self._backend = self._own_backend(is_on)
            case Backend.FILE | Backend.REDIS:
                self._backend = self._stored_backend(scene.backend, store)
                await self._package.set_maintenance_mode(is_on, backend=self._backend)

    def _stored_backend(self, backend: Backend, store: str) -> Any:
        if backend is Backend.FILE:
            return self._backends.LocalFileBackend(file_path=store)
        raise _nothing_like(backend)

    def _own_backend(self, value: bool) -> Any:
        async def get_value(_self: object) -> bool:
            return value

        async def set_value(_self: object, value: bool) -> None:
            raise NotImplementedError(value)

        base = self._backends.BaseStateBackend
        return type("OwnBackend", (base,), {"get_value": get_value, "set_value": set_value})()

    def version(self) -> str | None:
        """Return what is installed."""
        return version_of("fastapi-maintenance")


class Ours(FastAPIMaintenance):
    """fastapi-maintenance of this checkout."""

    def exemption(self) -> dict[str, Any]:
        """Return the keywords that exempt ``EXEMPT_PATH``."""
        return {"exemptions": self._package.Exemptions(paths=[EXEMPT_PATH])}

    def _stored_backend(self, backend: Backend, store: str) -> Any:
        if backend is Backend.REDIS:
            return self._backends.RedisBackend(store)
        return super()._stored_backend(backend, store)


class Waygate(Plain):
    """waygate."""

    def __init__(self) -> None:
        self._waygate = importlib.import_module("waygate.fastapi")
        self._package = importlib.import_module("waygate")
        self._engine: Any = None

    def mark(self, endpoint: Endpoint, forced_on: bool) -> Endpoint:
        """Put an endpoint under maintenance, or keep it open."""
        force = self._waygate.maintenance(reason="benchmark") if forced_on else self._waygate.force_active
        marked: Endpoint = force(endpoint)
        return marked

    def middleware(self, scene: Scene) -> tuple[Any, dict[str, Any]]:
        """Return the middleware's class and keywords."""
        return self._waygate.WaygateMiddleware, {"engine": self._engine}

    async def begin(self, scene: Scene, store: str) -> None:
        """Bring about a scene's state."""
        self._engine = self._package.WaygateEngine(self._backend(scene.backend, store))
        if scene.backend is Backend.REDIS:
            await self._engine.start()  # it listens to the others
        if scene.state is State.ON:
            await self._engine.enable_global_maintenance(reason="benchmark", exempt_paths=[EXEMPT_PATH])

    def _backend(self, backend: Backend, store: str) -> Any:
        match backend:
            case Backend.ENV:
                return self._package.MemoryBackend()
            case Backend.FILE:
                return self._package.FileBackend(store)
            case Backend.REDIS:
                return self._package.RedisBackend(store)
            case Backend.OWN:
                raise _nothing_like(backend)

    def version(self) -> str | None:
        """Return what is installed."""
        return version_of("waygate")


def _nothing_like(backend: Backend) -> NotImplementedError:
    return NotImplementedError(f"no {backend} backend")


def version_of(name: str) -> str | None:
    """Return the version of an installed package, or ``None``: a checkout need not be installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def make(contender: Contender) -> Plain:
    """Return a contender, imported now."""
    match contender:
        case Contender.BARE:
            return Plain()
        case Contender.ASGI:
            return NoOp(NoOpASGI)
        case Contender.BASE_HTTP:
            return NoOp(NoOpBaseHTTP)
        case Contender.REFERENCE:
            return FastAPIMaintenance()
        case Contender.WAYGATE:
            return Waygate()
        case Contender.OURS:
            return Ours()
