"""How a gate judged a request, and whether the request still is the one that was judged."""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Router
from starlette.types import Scope

from ..model.decision import Mark
from ..model.state import MaintenanceState
from ..routing.apps import router_of
from ..routing.entrance import Entrance
from ..routing.marks import mark_of
from ..routing.walk import Entry, Target


class Judgement:
    """How one gate judged one request, and by which facts."""

    __slots__ = (
        *("_facts", "_is_beyond", "_path"),
        *("default_answer", "is_preflight", "method", "root_path", "state", "target"),
    )

    def __init__(
        self, scope: Scope, state: MaintenanceState | None, target: Target | None = None, *, is_preflight: bool = False
    ) -> None:
        self.state = state
        """The state by which the request is judged until it ends; ``None`` before it was read."""
        self.target = target
        """The resolved target; ``None`` while the switch is off and nothing is forced on."""
        self.is_preflight = is_preflight
        """Whether it passes only because a ``CORSMiddleware`` may still answer it."""
        self.default_answer: Response | None = None
        """The answer if a user's ``dispatch`` fails after it had to refuse the request."""
        self.root_path: str = scope.get("root_path", "")
        self._path = scope.get("path")
        self.method: str | None = scope.get("method")
        """The method of the client, as far as known."""
        self._facts: object = None
        """A copy of the routing facts behind the target; ``None`` if type, path and method were enough."""
        self._is_beyond = False
        """Whether the request has passed the last expected router and is within its target."""

    def note(self, target: Target, scope: Scope) -> None:
        """Store the target and the routing facts behind it."""
        self.target, self._is_beyond, self._facts = target, False, _routing_facts(scope)

    def invalidate(self, target: Target | None) -> None:
        """Make each router judge the request again; ``target`` still provides the marks around each router."""
        self.target, self._facts = target or UNKNOWN, _NO_FACTS

    def covers(self, entrance: Entrance, scope: Scope) -> bool:
        """Return whether the request reaches an entrance unchanged and needs no second judgement."""
        if self.target is None:
            return True  # off, and nothing is forced on: it passes, changed or not
        entry = self.entry_of(entrance.router)
        if entry is None or entry.root_path != scope.get("root_path", ""):
            return False
        if self._facts is None:
            if scope["path"] != self._path or scope.get("method") != self.method:
                return False
        elif self._facts != _routing_facts(scope):
            return False
        self._is_beyond = entry is self.target.entries[-1]
        return not self.is_preflight or entrance.may_meet_cors(self.target)

    def with_method(self, scope: Scope) -> Scope:
        """Return a scope with the client's method, which decides whether an answer has a body."""
        return scope if scope.get("method") == self.method else {**scope, "method": self.method}

    def mark_outside(self, router: Router, scope: Scope, leads_to: Callable[[Router], bool]) -> Mark | None:
        """Return the innermost mark outside of a router, or ``None`` if none is known.

        ``leads_to`` returns whether the gate leads to a router.
        """
        entry = self.entry_of(router)
        if entry is not None:
            return entry.mark
        target = self.target
        if target is not None and target.mark is not None and self._is_beyond and not leads_to(router):
            # The router is within an opaque app, whose mark applies to all that it runs.
            return target.mark
        app = scope.get("app")
        return mark_of(app) if isinstance(app, Starlette) and router_of(app) is router else None

    def entry_of(self, router: Router) -> Entry | None:
        """Return the expected entry of the request into a router, or ``None``."""
        for entry in () if self.target is None else self.target.entries:
            if entry.router is router:
                return entry
        return None


UNKNOWN = Target(runs=True)
PASSED = Judgement({}, MaintenanceState())
"""The shared judgement of requests without a root path while the switch is off and nothing is forced on."""
_NO_FACTS = object()
"""Differs from the facts of every request."""


def _routing_facts(scope: Scope) -> object:
    """Return a copy of the parts of a scope that routing depends on, except the root path."""
    return scope["path"], scope.get("method"), scope.get("query_string"), tuple(map(tuple, scope.get("headers", ())))
