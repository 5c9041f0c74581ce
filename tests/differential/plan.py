"""What a random application is made of, as data: printable, and buildable any number of times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import fastapi.routing
from fastapi import FastAPI

LAZY_INCLUDES = hasattr(fastapi.routing, "_IncludedRouter")
"""FastAPI >= 0.137 keeps included routers; before, their routes were copied (mounts and hosts were left out)."""
FRONTENDS = hasattr(FastAPI, "frontend")
"""FastAPI >= 0.138 serves frontends behind all other routes."""


class Mark(StrEnum):
    """What a decorator said about an endpoint or an app."""

    ON = "on"
    OFF = "off"


@dataclass
class Dependency:
    """Code that FastAPI runs before an endpoint."""

    id: str
    style: str
    """``async``, ``sync``, ``yield`` or ``class``."""
    denies: bool = False
    """Answers 401 when the query says ``deny=1``, before the endpoint is reached."""


@dataclass
class Endpoint:
    """Code at the end of a route."""

    id: str
    shape: str
    """How it is written: ``async``, ``sync``, ``typed``, ``partial``, ``instance``, ``bound``, ``class``, ..."""
    mark: Mark | None = None
    mark_place: str = "below"
    """``below`` or ``above`` the route's decorator, or ``inside`` (of a partial; on ``__call__``; on the class)."""
    methods: dict[str, Mark | None] = field(default_factory=dict)
    """The methods of an endpoint class, with their own marks."""
    outcome: str = "ok"
    """``ok``, ``http_error``, ``error``, ``stream`` or ``background``."""


@dataclass
class Leaf:
    """A route that ends at one endpoint."""

    kind: str
    """``api``, ``plain``, ``socket``, ``plain_socket``, or ``custom`` (a subclass of ``BaseRoute``)."""
    path: str
    endpoint: Endpoint
    methods: tuple[str, ...] = ()
    route_class: str = "stock"
    """``stock``, or a subclass: ``header`` (own ``matches``), ``fallback`` (matches partially), ``handle`` (own)."""
    dependencies: list[Dependency] = field(default_factory=list)
    middleware: str = ""
    """The effect of the route's own middleware, which is ``none`` or ``cors``, if it has one."""


@dataclass
class Frontend:
    """Static files behind all other routes."""

    id: str
    path: str
    fallback: str | None


@dataclass
class RouterPlan:
    """A list of routes, and what its owner adds to all of them."""

    id: str
    prefix: str = ""
    gated: bool = False
    """Whether it is a subclass whose ``matches`` wants a header."""
    dependencies: list[Dependency] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)
    late: list[Node] = field(default_factory=list)
    """What is added after the first requests."""


@dataclass
class Include:
    """A router within a router."""

    prefix: str
    router: RouterPlan
    dependencies: list[Dependency] = field(default_factory=list)


@dataclass
class Middleware:
    """Something between the maintenance middleware and a router, or in front of both."""

    effect: str
    """``none``, ``header`` (of the response), ``cors``, ``answer``, or what is rewritten: ``path``, ``method``, ..."""
    style: str
    """``asgi`` (changes the scope), ``copy`` (passes another), ``anew`` (one with the keys of ASGI only), ``base``
    (``BaseHTTPMiddleware``), ``closure``, or ``hidden`` (one that shows nobody what it wraps)."""

    @property
    def interferes(self) -> bool:
        """Return whether the router may see another request than the one that arrived, or none."""
        return self.effect not in ("none", "header")


@dataclass
class Override:
    """How a subclass calls what it overrides."""

    method: str
    """``__call__`` or ``app``; ``router.__call__`` or ``router.app`` where it is the app's router that overrides."""
    does: Middleware
    """What it does before: the same as a middleware."""


@dataclass
class AppPlan:
    """An ASGI app: one with a router, or an opaque one."""

    id: str
    kind: str
    """``fastapi``, ``starlette``, ``router``, ``api_router``, ``routes``, ``opaque`` or ``function`` (opaque too)."""
    router: RouterPlan
    mark: Mark | None = None
    docs: dict[str, str | None] = field(default_factory=dict)
    root_path: str = ""
    redirect_slashes: bool = True
    default: Endpoint | None = None
    dependencies: list[Dependency] = field(default_factory=list)
    middlewares: list[Middleware] = field(default_factory=list)
    override: Override | None = None
    """How it overrides how it is called, if it does; the whole app's own ``__call__`` only around the middleware."""
    wrapper: str = ""
    """What the app is wrapped in before it is mounted: ``class``, ``closure``, ``hidden`` (opaque), ``facade`` (calls
    something else), ``cors``, ``bound`` (its method ``app``, which goes round its entrance), or nothing."""
    wrapper_mark: Mark | None = None

    @property
    def wrapper_id(self) -> str:
        """Return the name under which the wrapper's mark is known."""
        return f"{self.id}.{self.wrapper}"


@dataclass
class Branch:
    """An app at a path or host."""

    at: str
    app: AppPlan
    host: bool = False
    middlewares: list[Middleware] = field(default_factory=list)


Node = Leaf | Include | Branch | Frontend


@dataclass(frozen=True)
class Ask:
    """One request."""

    method: str
    """``WEBSOCKET`` for a handshake."""
    path: str
    root_path: str = ""
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    denial: bool = True
    """Whether the server can answer a handshake with a response."""


@dataclass(frozen=True)
class Extend:
    """The moment at which a router gets its late routes, by ``append`` or the router's own methods."""

    router: str
    how: str


@dataclass(frozen=True)
class Remark:
    """The moment at which an endpoint, class, method or app gets another mark."""

    target: str
    mark: Mark


@dataclass(frozen=True)
class Rearrange:
    """The moment at which somebody changes a router's list of routes by hand."""

    router: str
    how: str
    """``reverse``, ``rotate`` (into another list), ``swap`` (two of them), or ``drop`` (one)."""


Step = Ask | Extend | Remark | Rearrange


@dataclass
class Scenario:
    """An app, where the maintenance middleware stands, and what happens to it."""

    seed: int
    app: AppPlan
    placement: str = "added"
    """``added``, ``constructor``, or ``around`` the whole app."""
    outer: list[Middleware] = field(default_factory=list)
    docs_exempt: bool = True
    preflight_exempt: bool = True
    guard: str = ""
    """Where the guard stands: on the ``app``, on the ``routes``, or nowhere."""
    batch: str = ""
    """How a middleware makes some requests out of one: in ``sequence``, ``gathered``, from a ``thread``, or not."""
    app_per_state: bool = False
    """Whether each state has its own app, instead of one app that is switched between any two requests."""
    steps: list[Step] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """Where a subject stands: all that can carry a mark on the way to it, outermost first."""

    chain: tuple[str, ...] = ()
    tags: frozenset[str] = frozenset()
    """What makes this place special, for counting what was exercised."""
    prefix: str = ""
    host: str = ""
    depth: int = 0


@dataclass(frozen=True)
class Goal:
    """A way to reach a subject: what a request should look like."""

    subject: str
    path: str
    host: str
    methods: tuple[str, ...]


@dataclass
class Survey:
    """What is known of an app by construction."""

    places: dict[str, Place] = field(default_factory=dict)
    marks: dict[str, Mark | None] = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)
    routers: dict[str, RouterPlan] = field(default_factory=dict)
    remarked: set[str] = field(default_factory=set)
    """What got its mark after the first request."""
    levels: set[int] = field(default_factory=set)
    """The depths at which a middleware stands that interferes."""
    effects: set[str] = field(default_factory=set)
    """What these middlewares do."""
    styles: set[str] = field(default_factory=set)
    """How all middlewares are written."""

    def remark(self, target: str, mark: Mark) -> None:
        """Take note of a mark that was set after the first request."""
        self.marks[target] = mark
        self.remarked.add(target)

    def mark_of(self, subject: str | None) -> Mark | None:
        """Return the innermost mark on the way to a subject."""
        chain = self.places[subject].chain if subject is not None else ()
        return next((mark for name in reversed(chain) if (mark := self.marks[name]) is not None), None)

    def tags_of(self, subject: str | None) -> frozenset[str]:
        """Return what makes a subject's place special."""
        return self.places[subject].tags if subject is not None else frozenset()


def survey(app: AppPlan) -> Survey:
    """Walk through a plan."""
    found = Survey()
    _survey_app(found, app, Place())
    return found


def _survey_app(found: Survey, app: AppPlan, place: Place) -> None:
    _survey_middlewares(found, app.middlewares, place.depth)
    if app.wrapper == "cors":
        _survey_middlewares(found, [Middleware("cors", "asgi")], place.depth)
    if app.wrapper:
        found.marks[app.wrapper_id] = app.wrapper_mark
        place = _inner(place, app.wrapper_id, f"wrapped: {app.wrapper}")
        found.places[app.wrapper_id] = place
    found.marks[app.id] = app.mark
    place = _inner(place, app.id, *([f"in mounted {app.kind}"] if place.depth else []))
    if app.override is not None:
        _survey_middlewares(found, [app.override.does], place.depth)
        place = replace(place, tags=place.tags | {f"override: {app.override.method}"})
    found.places[app.id] = place
    if app.kind in ("opaque", "function"):
        found.goals.append(Goal(app.id, f"{place.prefix}/any/thing", place.host, ("GET", "POST", "WEBSOCKET")))
        return
    if app.default is not None:
        found.marks[app.default.id] = app.default.mark
        found.places[app.default.id] = _inner(place, app.default.id, "custom default")
        found.goals.append(Goal(app.default.id, f"{place.prefix}/nowhere", place.host, ("GET", "POST", "WEBSOCKET")))
    for url in app.docs.values():
        if url is not None:
            found.goals.append(Goal(app.id, place.prefix + url, place.host, ("GET",)))
    if app.root_path:
        tag = "root_path of a mounted app" if place.depth else "root_path of the app"
        place = replace(place, tags=place.tags | {tag})
    if not app.redirect_slashes:
        place = replace(place, tags=place.tags | {"no slash redirects"})
    if any(not middleware.interferes for middleware in app.middlewares):
        place = replace(place, tags=place.tags | {"innocent middleware"})
    _survey_router(found, app.router, place)


def _survey_middlewares(found: Survey, middlewares: Sequence[Middleware], depth: int) -> None:
    found.styles |= {middleware.style for middleware in middlewares}
    effects = {middleware.effect for middleware in middlewares if middleware.interferes}
    if effects:
        found.levels.add(depth)
        found.effects |= effects


def _survey_router(found: Survey, router: RouterPlan, place: Place) -> None:
    found.routers[router.id] = router
    late = {"added late"} | ({"added late to an included router"} if "included" in place.tags else set())
    for children, tags in ((router.children, set[str]()), (router.late, late)):
        for child in children:
            more = tags | _neighbours(child, children)
            _survey_node(found, router, child, replace(place, tags=place.tags | more))


def _neighbours(node: Node, nodes: Sequence[Node]) -> set[str]:
    """Return what is special about a route because of the routes beside it."""
    if not isinstance(node, Leaf):
        return set()
    others = [other for other in nodes if isinstance(other, Leaf) and other is not node]
    tags = {"same path, another method" for other in others if (other.path, other.kind) == (node.path, node.kind)}
    if node.path == "/users/me" or node.path.startswith("/users/{"):
        for other in others:
            if {node.path == "/users/me", other.path == "/users/me"} == {
                True,
                False,
            } and "/users/{" in other.path + node.path:
                first = min(node, other, key=lambda each: next(i for i, any_ in enumerate(nodes) if any_ is each))
                tags.add("/users/me first" if first.path == "/users/me" else "/users/{id} first")
    return tags


def _survey_node(found: Survey, router: RouterPlan, node: Node, place: Place) -> None:
    if isinstance(node, Include):
        tags = place.tags | {"nested include" if "included" in place.tags else "included"}
        if node.router.gated:
            tags |= {"gated router"}
        if "{" in node.prefix:
            tags |= {"parameter in a prefix"}
        _survey_router(found, node.router, replace(place, prefix=place.prefix + node.prefix, tags=tags))
    elif isinstance(node, Branch):
        tags = place.tags | ({"below a host"} if node.host else {"below a mount"})
        if "included" in tags:
            tags |= {"included host" if node.host else "included mount"}
        if node.middlewares:
            tags |= {"below a mount with middleware"}
        if any(middleware.effect == "cors" for middleware in node.middlewares):
            tags |= {"CORS on the mount"}
        inner = replace(place, tags=tags, depth=place.depth + 1)
        _survey_middlewares(found, node.middlewares, inner.depth)
        if node.host:
            _survey_app(found, node.app, replace(inner, host=node.at))
        else:
            _survey_app(found, node.app, replace(inner, prefix=place.prefix + node.at))
    elif isinstance(node, Frontend):
        path = place.prefix + router.prefix + node.path.rstrip("/")
        tags = place.tags | {"frontend"} | ({"included frontend"} if "included" in place.tags else set())
        found.places[node.id] = replace(place, tags=tags)
        found.goals += [Goal(node.id, path + file, place.host, ("GET",)) for file in ("/", "/app.js", "/deep/link")]
    else:
        _survey_leaf(found, router, node, place)


def _survey_leaf(found: Survey, router: RouterPlan, leaf: Leaf, place: Place) -> None:
    endpoint = leaf.endpoint
    if leaf.middleware == "cors":  # it stands behind the router's entrance
        _survey_middlewares(found, [Middleware("cors", "asgi")], place.depth + 1)
        place = replace(place, tags=place.tags | {"CORS on the route"})
    found.marks[endpoint.id] = endpoint.mark
    here = _inner(
        place, endpoint.id, f"route: {leaf.kind}", f"endpoint: {endpoint.shape}", f"class: {leaf.route_class}"
    )
    if endpoint.mark is not None:
        here = replace(here, tags=here.tags | {f"marked {endpoint.mark_place}"})
    found.places[endpoint.id] = here
    for method, mark in endpoint.methods.items():
        name = f"{endpoint.id}.{method}"
        found.marks[name] = mark
        found.places[name] = _inner(here, name, *(["method mark"] if mark is not None else []))
    path = router.prefix + leaf.path if leaf.kind in ("api", "socket") else leaf.path
    methods = leaf.methods or tuple(method.upper() for method in endpoint.methods) or ("GET", "POST")
    if "get" in endpoint.methods and "GET" in methods:
        methods = (*methods, "HEAD")
    found.goals.append(Goal(endpoint.id, place.prefix + path, place.host, methods))


def _inner(place: Place, name: str, *tags: str) -> Place:
    return replace(place, chain=(*place.chain, name), tags=place.tags | set(tags))


def describe(node: object, indent: str = "") -> Iterator[str]:
    """Yield a plan as an indented tree, for people."""
    if isinstance(node, (list, tuple)):
        for each in node:
            yield from describe(each, indent)
        return
    if isinstance(node, Scenario):
        yield f"{indent}seed {node.seed}: {_own_fields(node)}"
        yield from describe(node.app, indent + "  ")
        return
    yield f"{indent}{type(node).__name__}({_own_fields(node)})"
    for name in ("app", "router", "children", "late"):
        value = getattr(node, name, None)
        if isinstance(value, (AppPlan, RouterPlan)) or (value and isinstance(value, list)):
            if name == "late":
                yield f"{indent}  late:"
            yield from describe(value, indent + "  ")


def _own_fields(node: object) -> str:
    """Return the fields of one node that differ from their defaults, without the nodes below it."""
    shown = []
    for name, spec in getattr(node, "__dataclass_fields__", {}).items():
        value = getattr(node, name)
        default = spec.default_factory() if callable(spec.default_factory) else spec.default
        if value != default and name not in ("app", "router", "children", "late", "steps", "seed"):
            shown.append(f"{name}={_short(value)}")
    return ", ".join(shown)


def _short(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(_short(each) for each in value) + "]"
    if hasattr(value, "__dataclass_fields__"):
        return f"{type(value).__name__}({_own_fields(value)})"
    return repr(str(value)) if isinstance(value, str) else repr(value)
