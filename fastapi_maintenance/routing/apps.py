"""Read apps, routers and the middleware around them."""

from __future__ import annotations

import dis
import gc
from collections.abc import Callable, Iterator
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any
from weakref import WeakKeyDictionary

from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Host, Mount, Router
from starlette.types import ASGIApp, Scope

from .compat import FASTAPI_SCOPE_KEY, is_included


def root_of(app: ASGIApp | None) -> Router | Starlette | None:
    """Return the router or app that ``app`` leads to, or ``None``."""
    for step in steps_of(app):
        if isinstance(step, (Router, Starlette)):
            return step
    return None


def router_of(app: Starlette) -> Router:
    """Return the router inside the app's middleware stack, or ``app.router`` while the stack is not built."""
    behind = () if app.middleware_stack is None else steps_of(app.middleware_stack)
    return next((step for step in behind if isinstance(step, Router)), app.router)


def declared_path(scope: Scope) -> str | None:
    """Return the declared path of the route in the scope, with the prefixes of mounts."""
    route = scope.get("route")
    context = scope.get(FASTAPI_SCOPE_KEY, {}).get("effective_route_context")
    # FastAPI leaves the context in the scope when a request enters a mount.
    if context is not None and (context.original_route is route or is_included(route)):
        route = getattr(context, "starlette_route", None) or context
    path = getattr(route, "path", None)
    if not isinstance(path, str):
        return None
    root_path: str = scope.get("root_path", "")
    return root_path.removeprefix(scope.get("app_root_path", root_path)) + path


def routers_of(app: ASGIApp) -> Iterator[Router]:
    """Yield the routers that an app leads to, outermost first, without matching or building any route."""
    seen: set[int] = set()
    apps = [app]
    while apps:
        root = root_of(apps.pop())
        router = router_of(root) if isinstance(root, Starlette) else root
        if router is None or id(router) in seen:
            continue
        seen.add(id(router))
        yield router
        apps.append(router.default)
        for route in router.routes:
            if isinstance(route, (Mount, Host)):
                apps.append(mounted_app(route))
            elif is_included(route):
                apps.append(route.original_router)  # type: ignore[attr-defined]
            elif not isinstance(route, APIRoute):
                apps.append(getattr(route, "app", None))  # type: ignore[arg-type]


def cors_of(app: Any) -> CORSMiddleware | None:
    """Return Starlette's ``CORSMiddleware`` around an endpoint, which answers preflights itself, or ``None``."""
    for step in steps_of(app):
        if isinstance(step, (Router, Starlette)):
            break
        if type(step) is CORSMiddleware:
            return step
    return None


def steps_of(app: Any, inner_of: Callable[[Any], Any] | None = None) -> Iterator[Any]:
    """Yield ``app`` and the apps it wraps, outermost first, up to a router or Starlette app.

    ``inner_of`` returns the app that a step wraps; by default, the app that its code calls.
    """
    seen: set[int] = set()
    while app is not None and id(app) not in seen:
        seen.add(id(app))
        yield app
        app = (inner_of or _called_app_of)(app)


def _called_app_of(app: Any) -> Any:
    """Return the ASGI app that a middleware calls, or ``None``; its code must read its ``.app``."""
    inner = inner_app_of(app)
    if inner is None or isinstance(app, (FunctionType, MethodType)) or _reads_app(type(app)):
        return inner
    return None


def inner_app_of(app: Any) -> Any:
    """Return the ``.app`` of a middleware or the variable ``app`` of a closure, or ``None``.

    For the bound method ``router.app``, which a router's own middleware wraps, return the router.
    """
    if isinstance(app, MethodType):
        owner = app.__self__
        return owner if isinstance(owner, Router) and getattr(app, "__name__", "") in ("app", "__call__") else None
    if not isinstance(app, FunctionType):
        return getattr(app, "app", None)
    try:
        return cell_of_app(app).cell_contents
    except ValueError:  # no such variable, or it is unset
        return None


def cell_of_app(closure: FunctionType) -> CellType:
    """Return the cell of a closure's variable ``app``, or raise ``ValueError``."""
    return (closure.__closure__ or ())[closure.__code__.co_freevars.index("app")]


def mounted_app(route: Mount | Host) -> Any:
    """Return the mounted app, even if the mount's middleware hides it."""
    hidden = getattr(route, "_base_app", None)
    return hidden if hidden is not None and root_of(route.app) is None else route.app


_readers: WeakKeyDictionary[type[Any], bool] = WeakKeyDictionary()
_READS = ("LOAD_ATTR", "LOAD_METHOD")


def _reads_app(kind: type[Any]) -> bool:
    """Return whether the ``__call__`` of a class, or a method that it uses, reads an attribute ``app``.

    If not, the instance can't call its ``app``. If so, it may still answer by itself, as middleware may.
    """
    answer = _readers.get(kind)
    if answer is None:
        answer = _readers[kind] = _finds_read_of_app(kind)
    return answer


def _finds_read_of_app(kind: type[Any]) -> bool:
    names = ["__call__"]
    for name in names:  # the loop extends it
        for code in _codes_of(kind, name):
            if any(step.argval == "app" and step.opname in _READS for step in dis.get_instructions(code)):
                return True
            names += [other for other in code.co_names if other not in names]
    return False


def _codes_of(kind: type[Any], name: str) -> Iterator[CodeType]:
    """Yield the code of a method and of the methods it overrides, with their nested and decorated functions."""
    waiting = [vars(owner)[name] for owner in kind.__mro__ if name in vars(owner)]
    seen: set[int] = set()
    while waiting:
        found = waiting.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, property):
            waiting.append(found.fget)
        elif isinstance(found, FunctionType):
            waiting += [found.__code__, *gc.get_referents(*(found.__closure__ or ()))]
        elif isinstance(found, CodeType):
            yield found
            waiting += found.co_consts
