"""How each gate judged a request, stored in the scope of the request."""

from __future__ import annotations

from contextvars import ContextVar
from copy import copy
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.routing import Router
from starlette.types import Scope

from ..model.decision import Decision, Mark
from ..model.state import MaintenanceState
from ..routing.apps import router_of
from ..routing.marks import mark_of
from ..routing.walk import Entry, Target
from ..switches.app_switch import answering

if TYPE_CHECKING:
    from .gate import Entrance, Gate


SCOPE_KEY = "fastapi_maintenance"
"""The key of the visit to the innermost gate in the scope of a request."""


class Visit:
    """How one gate judged one request."""

    __slots__ = (
        "_beyond",
        "_facts",
        "_method",
        "_path",
        "gate",
        "is_preflight",
        "outer",
        "refused",
        "root_path",
        "state",
        "target",
    )

    def __init__(
        self,
        gate: Gate,
        scope: Scope,
        outer: Visit | None,
        state: MaintenanceState | None = None,
        target: Target | None = None,
        *,
        is_preflight: bool = False,
    ) -> None:
        self.gate = gate
        self.outer = outer
        """The visit to the next outer gate, such as the gate of the app that mounts this app."""
        self.state = state
        """The switch's state when the request was judged, used until the request ends; ``None`` before."""
        self.target = target
        """The resolved target; ``None`` while the switch is off and nothing is forced on."""
        self.is_preflight = is_preflight
        """Whether it passes only because a ``CORSMiddleware`` may still answer it."""
        self.refused: Decision | None = None
        """The decision by which a user's ``dispatch`` had to refuse it."""
        self.root_path: str = scope.get("root_path", "")
        self._path = scope.get("path")
        self._method: str | None = scope.get("method")
        self._facts: object = None
        """A copy of the routing facts behind the target; ``None`` if type, path and method were enough."""
        self._beyond = False
        """Whether the request has passed the last expected router and is within its target."""

    def __deepcopy__(self, memo: object) -> Visit:
        """Return this visit: a copy of the scope belongs to the same request."""
        return self

    def with_outer(self, outer: Visit | None) -> Visit:
        """Return a copy with another outer visit."""
        twin = copy(self)
        twin.outer = outer
        return twin

    def note(self, target: Target, scope: Scope) -> None:
        """Store the target and the routing facts behind it."""
        self.target, self._beyond, self._facts = target, False, _routing_facts(scope)

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
            if scope["path"] != self._path or scope.get("method") != self._method:
                return False
        elif self._facts != _routing_facts(scope):
            return False
        self._beyond = entry is self.target.entries[-1]
        return not self.is_preflight or entrance.may_meet_cors(self.target)

    def with_original_method(self, scope: Scope) -> Scope:
        """Return a scope with the client's method, which decides whether an answer has a body."""
        return scope if scope.get("method") == self._method else {**scope, "method": self._method}

    def mark_outside(self, router: Router, scope: Scope) -> Mark | None:
        """Return the innermost mark outside of a router, or ``None`` if none is known."""
        entry = self.entry_of(router)
        if entry is not None:
            return entry.mark
        target = self.target
        if target is not None and target.mark is not None and self._beyond and not self.gate.leads_to(router):
            # The router is within an opaque app, whose mark applies to all that it runs.
            return target.mark
        app = scope.get("app")
        return mark_of(app) if isinstance(app, Starlette) and router_of(app) is router else None

    def is_at_root(self, router: Router) -> bool:
        """Return whether a router is the first on the request's way."""
        entries = () if self.target is None else self.target.entries
        return entries[0].router is router if entries else self.gate.root is router

    def entry_of(self, router: Router) -> Entry | None:
        """Return the expected entry of the request into a router, or ``None``."""
        for entry in () if self.target is None else self.target.entries:
            if entry.router is router:
                return entry
        return None


UNKNOWN = Target(runs=True)
_NO_FACTS = object()
"""Differs from the facts of every request."""


def _routing_facts(scope: Scope) -> object:
    """Return a copy of the parts of a scope that routing depends on, except the root path."""
    return scope["path"], scope.get("method"), scope.get("query_string"), tuple(map(tuple, scope.get("headers", ())))


def visit_of(scope: Scope) -> Visit | None:
    """Return the visit of a request to the innermost gate that it passed."""
    visit: Visit | None = scope.get(SCOPE_KEY)
    return visit


def visit_at_endpoint(scope: Scope) -> Visit | None:
    """Return ``visit_of`` at an endpoint, even if an inner middleware built the scope without our key."""
    visit = visit_of(scope)
    if visit is None and "router" in scope:
        visit = link(visits_around(scope, scope["router"]))
    return visit


def visits_of(visit: Visit | None) -> list[Visit]:
    """Return the visits of a request to all gates that it passed, outermost first."""
    visits = []
    while visit is not None:
        visits.append(visit)
        visit = visit.outer
    return visits[::-1]


judged_again: ContextVar[tuple[object, Visit] | None] = ContextVar("fastapi_maintenance_judged_again", default=None)
"""The innermost visit of the request last judged again at a router, with the ``answering`` of that time."""


def visits_judged_again() -> list[Visit]:
    """Return the visits of the current request to all gates, if it was judged again at a router."""
    judged = judged_again.get()
    return visits_of(judged[1]) if judged is not None and judged[0] is answering.get() else []


def visits_around(scope: Scope, router: Router, inner: Gate | None = None) -> list[Visit]:
    """Return new visits of a request whose scope was built anew, within a request that passed the gates.

    It is judged as a request of its own, because a middleware may make many requests out of one. Only gates that lead
    to the router judge it, because an app may also call an app that it does not contain. ``inner`` is left out.
    """
    visits: dict[Gate, Visit] = {}
    around, newest = answering.get(), visits_judged_again()
    while around is not None:
        app, outer_scope, around = around
        gate = app.gate
        if gate not in (None, inner, *visits) and gate.leads_to(router):
            visits[gate] = gate.visit_of_part(outer_scope, scope, newest or visits_of(visit_of(outer_scope)))
    return list(visits.values())[::-1]


def link(visits: list[Visit]) -> Visit | None:
    """Link new visits, outermost first, each as ``outer`` of the next; return the innermost visit."""
    outer = None
    for visit in visits:
        visit.outer = outer
        outer = visit
    return outer
