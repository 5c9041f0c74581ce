"""Random scenarios: an application, and what happens to it. One seed, one scenario."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

from .build import ANSWER, GATE, REWRITERS, VERSION
from .plan import (
    FRONTENDS,
    LAZY_INCLUDES,
    AppPlan,
    Ask,
    Branch,
    Dependency,
    Endpoint,
    Extend,
    Frontend,
    Goal,
    Include,
    Leaf,
    Mark,
    Middleware,
    Node,
    Override,
    Rearrange,
    Remark,
    RouterPlan,
    Scenario,
    Step,
    Survey,
    survey,
)

REQUESTS_PER_SCENARIO = 40

HOSTS = ("api.example.org", "{tenant}.example.org", "files.test")
METHODS = ("GET", "POST", "HEAD", "OPTIONS", "DELETE", "PUT", "PATCH", "TRACE", "PURGE", "QUERY", "get", "Post")
DOCS: tuple[dict[str, str | None], ...] = (
    {
        "openapi_url": "/openapi.json",
        "docs_url": "/docs",
        "redoc_url": "/redoc",
        "swagger_ui_oauth2_redirect_url": "/docs/oauth2-redirect",
    },
    {
        "openapi_url": "/api/schema.json",
        "docs_url": "/help",
        "redoc_url": None,
        "swagger_ui_oauth2_redirect_url": "/users/",
    },
    {"openapi_url": None, "docs_url": None, "redoc_url": None},
)
REWRITES = tuple(REWRITERS)
INNOCENT = ("none", "header")
BATCHES = ("", "", "sequence", "gathered", "thread")


def scenario(seed: int, *, guard: str = "", marks: Sequence[Mark] = (Mark.ON, Mark.OFF)) -> Scenario:
    """Return the scenario of a seed; with a guard, everything that can be blocked is FastAPI's own."""
    return _Grower(Random(seed), guard, marks).scenario(seed)


class _Grower:
    """Grows one scenario."""

    def __init__(self, rng: Random, guard: str, marks: Sequence[Mark]) -> None:
        self.rng = rng
        self.guard = guard
        self.marks = marks
        self.count = 0
        self.room = rng.randint(8, 26)
        """How many routes may still be added."""
        self.unmarkable: set[str] = set()
        """Apps that can't be marked with this FastAPI."""

    # Small choices.

    def name(self, letter: str) -> str:
        """Return a name that nothing else has."""
        self.count += 1
        return f"{letter}{self.count}"

    def chance(self, probability: float) -> bool:
        """Return true that often."""
        return self.rng.random() < probability

    def mark(self, probability: float = 0.35) -> Mark | None:
        """Return a mark, or none."""
        return self.rng.choice(self.marks) if self.chance(probability) else None

    def dependencies(self, at_least: int = 0, *, may_deny: bool = False) -> list[Dependency]:
        """Return up to two dependencies."""
        number = max(at_least, self.rng.choice((0, 0, 0, 1, 1, 2)))
        styles = ("async", "async", "sync", "yield", "class")
        return [
            Dependency(self.name("d"), self.rng.choice(styles), denies=may_deny and self.chance(0.3))
            for _ in range(number)
        ]

    # The tree.

    def scenario(self, seed: int) -> Scenario:
        """Grow an app and its story."""
        rng = self.rng
        app = self.app("fastapi", depth=0)
        grown = Scenario(
            seed,
            app,
            placement=rng.choice(("added", "added", "constructor", "around")),
            outer=[] if self.guard else self.middlewares(0.15, [*INNOCENT, "cors", *REWRITES]),
            docs_exempt=self.chance(0.85),
            preflight_exempt=self.chance(0.85),
            guard=self.guard,
            app_per_state=self.chance(0.25),
        )
        for middleware in grown.outer:
            # Without the scope's app, ours would not find what a hidden one inside of it leads to.
            middleware.style = "copy" if middleware.style == "anew" else middleware.style
        self.add_late(app)
        grown.steps = self.steps(grown)
        if not grown.outer:  # which the parts of a batch do not come through
            grown.batch = Random(f"batch {seed}").choice(BATCHES)
        return grown

    def app(self, kind: str, depth: int) -> AppPlan:
        """Grow an app."""
        rng = self.rng
        app = AppPlan(self.name("a"), kind, RouterPlan(self.name("r")))
        if depth and kind != "routes":
            app.mark = self.mark()
        if kind == "api_router" and not LAZY_INCLUDES:
            app.mark = None
            self.unmarkable.add(app.id)
        if depth and kind != "routes" and self.chance(0.3):
            first = "bound" if kind in ("router", "api_router") else "class"
            wrappers = ("class", "closure") if self.guard else (first, "closure", "hidden", "facade", "cors")
            app.wrapper = rng.choice(wrappers)
            app.wrapper_mark = self.mark()
        if kind in ("opaque", "function"):
            return app
        if kind in ("fastapi", "api_router"):
            app.dependencies = self.dependencies()
        if kind == "fastapi":
            app.docs = dict(DOCS[2] if self.guard else rng.choice(DOCS))
            if self.chance(0.2):
                app.root_path = rng.choice(("/api", "/sub", "/v1/api"))
        if kind != "routes":
            app.redirect_slashes = self.chance(0.8)
            if not self.guard and self.chance(0.2 if depth == 0 else 0.1):
                shape = rng.choice(("function", "instance"))
                app.default = Endpoint(self.name("e"), shape, self.mark())
        if kind in ("fastapi", "starlette", "router") and not self.guard:
            effects = [*INNOCENT, "cors", "answer", *REWRITES, *REWRITES, *REWRITES]
            app.middlewares = self.middlewares(0.6 if depth == 0 else 0.25, effects)
            if kind == "router" and any(middleware.style == "hidden" for middleware in app.middlewares):
                # What a router's own middleware hides can't be guarded: it stands behind the router's entrance.
                app.middlewares = []
        often = 0.35 if kind in ("router", "api_router") else 0.25 if depth else 0.1
        if kind != "routes" and not self.guard and self.chance(often):
            app.override = self.override(app)
        if app.wrapper == "bound":  # neither is called
            app.middlewares, app.override = [], None
        app.router.children = self.nodes(depth, of_fastapi=kind in ("fastapi", "api_router"))
        return app

    def override(self, app: AppPlan) -> Override:
        """Return how an app overrides how it is called; no middleware may rewrite what comes to it."""
        of_app = app.kind in ("fastapi", "starlette")
        method = self.rng.choice(
            ("__call__", "router.__call__", "router.app") if of_app else ("__call__", "app", "app")
        )
        effects = [*INNOCENT, *INNOCENT, "answer"]
        # What `app` rewrites has come past the entrance of its own router.
        if not method.endswith("app") and not any(each.interferes for each in app.middlewares):
            # At its entrance, a router's `__call__` is judged again: by another method it might have been blocked.
            effects += REWRITES if of_app and method == "__call__" else [each for each in REWRITES if each != "method"]
        override = Override(method, Middleware(self.rng.choice(effects), self.rng.choice(("asgi", "copy"))))
        if override.does.interferes or method == "router.__call__":
            app.middlewares = [each for each in app.middlewares if not each.interferes]
        return override

    def middlewares(self, probability: float, effects: Sequence[str]) -> list[Middleware]:
        """Return one or two middlewares, or none."""
        if not self.chance(probability):
            return []
        styles = ("asgi", "copy", "base", "closure", "hidden", "anew")
        return [
            Middleware(self.rng.choice(effects), self.rng.choice(styles)) for _ in range(self.rng.choice((1, 1, 2)))
        ]

    def nodes(self, depth: int, *, of_fastapi: bool, included: int = 0, may_be_empty: bool = False) -> list[Node]:
        """Grow the children of a router; ``included`` says how many includes lie above it."""
        nodes: list[Node] = []
        for _ in range(self.rng.randint(2, 6)):
            nodes += self.node(depth, of_fastapi=of_fastapi, included=included, may_be_empty=may_be_empty)
        return nodes

    def node(self, depth: int, *, of_fastapi: bool, included: int = 0, may_be_empty: bool = False) -> list[Node]:
        """Grow one child, or a pair of routes whose order matters."""
        rng = self.rng
        weights = {"plain": 2, "plain_socket": 1, "custom": 0.8}
        if of_fastapi:
            weights |= {"api": 7, "socket": 1.5}
            if FRONTENDS:
                weights["frontend"] = 0.5
        if self.guard:
            weights = {"api": 7, "socket": 2}
            if FRONTENDS and self.guard == "app":  # a frontend has no dependencies but those of its router
                weights["frontend"] = 0.5
        if self.room > 0:
            if of_fastapi and included < 3:
                weights["include"] = 2.5
            if depth < 3:
                weights["mount"] = 2
                # An include on FastAPI < 0.137 fails for a host without a prefix, and drops it with one.
                if not self.guard and (LAZY_INCLUDES or not included):
                    weights["host"] = 0.8
        kind = rng.choices(list(weights), list(weights.values()))[0]
        self.room -= 1
        if kind == "include":
            return [self.include(depth, included)]
        if kind in ("mount", "host"):
            return self.branches(depth, host=kind == "host", included=bool(included))
        if kind == "frontend":
            fallback = rng.choice(("auto", "index.html", None))
            return [Frontend(self.name("f"), rng.choice(("/", "/ui", "/users/")), fallback)]
        leaf = self.leaf(kind, may_be_empty=may_be_empty)
        if self.chance(0.25):  # the same path again: another method, or a route that is never reached
            other = self.leaf(kind)
            other.path = leaf.path
            return [leaf, other]
        if self.chance(0.15):
            special, general = self.leaf(kind), self.leaf(kind)
            special.path, general.path = "/users/me", f"/users/{{{self.name('p')}}}"
            pair: list[Node] = [special, general]
            rng.shuffle(pair)
            return pair
        return [leaf]

    def include(self, depth: int, included: int) -> Include:
        """Grow an included router."""
        rng = self.rng
        parameter = f"/t/{{{self.name('p')}}}"
        prefix = rng.choice(("", "/v1", "/users", "/api", parameter))
        router = RouterPlan(
            self.name("r"),
            prefix=rng.choice(("", "", "/items", "/v1")),
            gated=LAZY_INCLUDES and self.chance(0.1),
            dependencies=self.dependencies(),
        )
        router.children = self.nodes(depth, of_fastapi=True, included=included + 1, may_be_empty=bool(router.prefix))
        return Include(prefix, router, self.dependencies())

    def branches(self, depth: int, *, host: bool, included: bool) -> list[Node]:
        """Grow a mount or a host, sometimes both with the same app."""
        rng = self.rng
        kinds = ["fastapi"]
        if not self.guard:
            kinds += ["fastapi", "starlette", "router", "api_router", "opaque", "function"]
            kinds += [] if host else ["routes"]
        app = self.app(rng.choice(kinds), depth + 1)
        if host:
            return [Branch(rng.choice(HOSTS), app, host=True)]
        paths = ["/sub", "/users", "/api", "/v1", f"/t/{{{self.name('p')}}}"]
        if not included and self.chance(0.1):
            paths = [""]
        branch = Branch(rng.choice(paths), app)
        if app.root_path and branch.at and "{" not in branch.at and self.chance(0.7):
            app.root_path = branch.at
        if not self.guard:
            # One place per mount, so that a request is judged at the one router behind it. Nothing is judged behind
            # a middleware in front of an opaque app: it must not change what "safe" is judged by.
            opaque = app.kind in ("opaque", "function") or app.wrapper in ("hidden", "facade", "bound") or app.override
            more = () if opaque or app.middlewares else ("answer", *REWRITES)
            branch.middlewares = self.middlewares(0.2, (*INNOCENT, "cors", *more))
            if opaque and any(middleware.style == "hidden" for middleware in branch.middlewares):
                # Nobody sees that what is hidden is CORS, so the opaque app is what a preflight comes to.
                branch.middlewares = [each for each in branch.middlewares if each.effect != "cors"]
        if self.chance(0.05) and app.kind != "routes" and not self.guard:
            return [branch, Branch(rng.choice(HOSTS), app, host=True)] if not included else [branch]
        return [branch]

    def leaf(self, kind: str, *, may_be_empty: bool = False) -> Leaf:
        """Grow a route with its endpoint."""
        rng = self.rng
        shapes: dict[str, tuple[str, ...]] = {
            "api": ("async", "async", "sync", "typed", "partial", "instance", "bound"),
            "plain": ("async", "sync", "partial", "bound", "class", "class", "class", "dispatch", "await", "asgi"),
            "socket": ("async", "partial", "bound"),
            "plain_socket": ("async", "class", "partial", "bound"),
            "custom": ("asgi", "anonymous"),
        }
        endpoint = Endpoint(self.name("e"), rng.choice(shapes[kind]))
        leaf = Leaf(kind, self.path(), endpoint)
        if kind == "custom" and "{" in leaf.path:
            leaf.path = "/custom"  # it knows no parameters
        if may_be_empty and kind in ("api", "socket") and self.chance(0.1):
            leaf.path = ""
        if endpoint.shape != "anonymous":
            endpoint.mark = self.mark()
        places = ["below", "above"]
        if endpoint.shape in ("partial", "instance", "bound"):
            places.append("inside")
        is_function = endpoint.shape not in ("class", "dispatch", "await", "asgi")
        endpoint.mark_place = rng.choice(places) if is_function else "below"
        if kind == "plain" and endpoint.shape in ("class", "dispatch", "await"):
            names = rng.sample(("get", "post", "delete", "head", "options", "purge"), rng.randint(1, 3))
            endpoint.methods = {name: self.mark() for name in names}
        else:
            endpoint.outcome = rng.choice(("ok",) * 12 + ("http_error", "error", "stream", "background"))
        if kind in ("socket", "plain_socket"):
            leaf.methods = ("WEBSOCKET",)
        elif kind in ("api", "custom") or self.chance(0.6):
            choices = (("GET",), ("GET",), ("POST",), ("PUT",), ("DELETE",), ("GET", "POST"), ("GET", "OPTIONS"))
            leaf.methods = rng.choice(choices)
        if kind in ("api", "socket"):
            leaf.dependencies = self.dependencies(int(endpoint.shape == "typed"), may_deny=kind == "api")
        if kind in ("api", "plain") and self.chance(0.3):
            leaf.route_class = rng.choice(("header", "fallback") if self.guard else ("header", "fallback", "handle"))
        if kind in ("plain", "plain_socket") and self.chance(0.15):
            leaf.middleware = rng.choice(("none", "none", "cors")) if leaf.route_class != "handle" else "none"
        return leaf

    def path(self) -> str:
        """Return the path of a route; few words, so that routes get in each other's way."""
        parameter = self.name("p")
        if not self.guard and self.chance(0.04):
            return self.rng.choice((f"/items/{{{parameter}:boom}}", f"/users/{{{parameter}:missing}}"))
        return self.rng.choice(
            (
                "/users",
                "/users/",
                "/users/me",
                f"/users/{{{parameter}}}",
                "/items",
                "/items/",
                f"/items/{{{parameter}}}",
                f"/items/{{{parameter}:int}}",
                "/me",
                "/me/",
                "/",
                f"/{{{parameter}}}",
                f"/{{{parameter}}}/",
                f"/files/{{{parameter}:path}}",
                "/docs",
            )
        )

    def add_late(self, app: AppPlan) -> None:
        """Give one or two routers routes that are added after the first requests."""
        found = survey(app)
        rng = self.rng
        for router in rng.sample(list(found.routers.values()), min(len(found.routers), rng.choice((0, 1, 2)))):
            place = _place_of(app, router)
            if place is None:
                continue
            depth, of_fastapi, included = place
            if included and LAZY_INCLUDES and found.levels:
                # An included router's routes are cached when a request first comes by, and a rewriting middleware
                # makes that moment depend on whether the request is looked at before it is rewritten.
                continue
            self.room = 3
            for _ in range(rng.randint(1, 2)):
                router.late += self.node(depth, of_fastapi=of_fastapi, included=included)

    # The story.

    def steps(self, grown: Scenario) -> list[Step]:
        """Return the requests, with the changes between them."""
        rng = self.rng
        found = survey(grown.app)
        steps: list[Step] = [self.ask(grown, found) for _ in range(REQUESTS_PER_SCENARIO)]
        for router in found.routers.values():
            if router.late:
                # What is appended by hand does not get the dependencies of the app, so no guard either.
                step = Extend(router.id, "method" if self.guard else rng.choice(("method", "append")))
                steps.insert(rng.randint(5, REQUESTS_PER_SCENARIO // 2), step)
        fixed = {grown.app.id} | {name for name, place in found.places.items() if "added late" in place.tags}
        fixed |= {place.chain[-1] for place in found.places.values() if "endpoint: anonymous" in place.tags}
        fixed |= {name for name, place in found.places.items() if place.tags and "in mounted routes" in place.tags}
        targets = [name for name in found.marks if name not in fixed | self.unmarkable]
        for target in rng.sample(targets, min(len(targets), rng.choice((0, 0, 1, 3)))):
            steps.insert(rng.randint(1, len(steps)), Remark(target, rng.choice(self.marks)))
        for router in found.routers.values():
            place = _place_of(grown.app, router)
            # What is included is left alone, for the reason that `add_late` has.
            if place is not None and not place[2] and self.chance(0.15):
                how = rng.choice(("reverse", "rotate", "swap", "drop"))
                steps.insert(rng.randint(5, len(steps)), Rearrange(router.id, how))
        return steps

    def ask(self, grown: Scenario, found: Survey) -> Ask:
        """Return a request that aims at something, and hits it more often than not."""
        rng = self.rng
        goal = rng.choice(found.goals) if found.goals else Goal("", "/", "", ("GET",))
        method = rng.choice(goal.methods)
        if self.chance(0.2):
            method = rng.choice(METHODS)
        path = self.concrete(goal.path) or "/"
        if self.chance(0.25):
            path = self.near(path)
        if grown.app.root_path and self.chance(0.5):
            path = grown.app.root_path + path
        root_path = ""
        if self.chance(0.08):
            root_path = "/proxy"
            path = root_path + path if self.chance(0.7) else path
        headers = self.headers(grown, found, goal)
        if self.chance(0.12):
            method = method if method == "WEBSOCKET" else "OPTIONS"
            headers += [("origin", "https://elsewhere.test"), ("access-control-request-method", "POST")]
        elif self.chance(0.1):
            headers.append(("origin", "https://elsewhere.test"))
        query = rng.choice(("", "", "", "", "limit=abc", "deny=1", "limit=1&deny=1"))
        return Ask(method, path, root_path, query, tuple(headers), denial=self.chance(0.5))

    def headers(self, grown: Scenario, found: Survey, goal: Goal) -> list[tuple[str, str]]:
        """Return the headers that make a difference to some route or middleware."""
        rng = self.rng
        host = self.concrete(goal.host) if goal.host else "testserver"
        if self.chance(0.1):
            host = rng.choice(("api.example.org", "API.Example.org:8000", "acme.example.org", "files.test", "no host"))
        headers = [] if self.chance(0.02) else [("host", host)]
        if self.chance(0.7):
            headers.append((GATE, "open"))
        if self.chance(0.5):
            headers.append((VERSION, "2"))
        if self.chance(0.2):
            headers.append(("accept", rng.choice(("text/html", "*/*", "application/json"))))
        other = rng.choice(found.goals) if found.goals else goal
        values = {
            "path": self.concrete(other.path) or "/",
            "method": rng.choice((*other.methods, "POST", "GET", "DELETE")).replace("WEBSOCKET", "GET"),
            "root_path": rng.choice(("/users", "/api", "/v1", "/sub")),
            "host": self.concrete(other.host) or "api.example.org",
            "version": "2",
        }
        for effect, name in REWRITERS.items():
            # One at a time, mostly: each is to be seen making the difference alone.
            if self.chance(0.7 if found.effects == {effect} else 0.3):
                headers.append((name, values[effect]))
        if self.chance(0.2):
            headers.append((ANSWER, "please"))
        return headers

    def concrete(self, template: str) -> str:
        """Return a path or host with values for its parameters."""

        def value(match: re.Match[str]) -> str:
            convertor = match[1] or ""
            if convertor == ":int":
                return str(self.rng.randint(0, 99))
            if convertor == ":path":
                return self.rng.choice(("a", "a/b", "../c", ""))
            if convertor in (":boom", ":missing"):
                return self.rng.choice(("boom", "fine"))
            return self.rng.choice(("me", "7", "a b", "boom", "ünï"))

        return re.sub(r"\{\w+(:\w+)?\}", value, template)

    def near(self, path: str) -> str:
        """Return a path that is nearly another one."""
        rng = self.rng
        return rng.choice(
            (
                path + "/",
                path.rstrip("/") or "/",
                path + "/x",
                path.rsplit("/", 1)[0] or "/",
                "/" + path,
                path.replace("/", "//", 2),
                path + "//",
                "/./" + path.lstrip("/"),
                "/x/.." + path,
                path.upper(),
                path.replace("/", "%2F") or "/",
                path + "?x",
                path + "\n",
                # Starlette before 0.39 cuts a mount's path off by taking it for a regular expression.
                "/.*z/yz/" + path.lstrip("/").partition("/")[2],
                "/nothing/here",
                "/docs",
                "*",
            )
        )


def _place_of(app: AppPlan, wanted: RouterPlan) -> tuple[int, bool, int] | None:
    """Return a router's depth, whether it is FastAPI's, and how many includes lie above it."""

    def search(router: RouterPlan, place: tuple[int, bool, int]) -> tuple[int, bool, int] | None:
        if router is wanted:
            return place
        depth, of_fastapi, included = place
        for child in router.children:
            if isinstance(child, Include):
                found = search(child.router, (depth, of_fastapi, included + 1))
            elif isinstance(child, Branch):
                found = search(child.app.router, (depth + 1, child.app.kind in ("fastapi", "api_router"), 0))
            else:
                found = None
            if found is not None:
                return found
        return None

    return search(app.router, (0, True, 0))
