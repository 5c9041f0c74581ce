"""Creates views and manages their use by apps; each backend has one view per process."""

from __future__ import annotations

import contextlib

from ...backends.base import VIEW, BaseStateBackend, StateBackend, StoreBackend
from ...model.change import Change
from ...model.state import MaintenanceState
from ..app_switch import AppSwitch
from .follower import StoreView
from .two_method import BooleanView
from .view import Knowledge, SwitchStatus, View


def view_of(backend: BaseStateBackend) -> View:
    """Return this process's only view of a backend."""
    view: View | None = vars(backend).get(VIEW)
    if view is None:
        # One atomic call, so that concurrent threads share one view.
        view = vars(backend).setdefault(VIEW, _create_view(backend))
    return view


def view_for(app: AppSwitch, backend: BaseStateBackend) -> View:
    """Return the view of a backend, in use by an app until ``leave``, ``leave_all`` or the end of the app."""
    view = view_of(backend)
    if view not in app.views:
        app.views.add(view)
        view.start(app)
    return view


def leave(app: AppSwitch, view: View) -> None:
    """End an app's use of a view."""
    app.views.discard(view)
    view.leave(app)


def leave_all(app: AppSwitch) -> None:
    """End an app's use of all its views; the next request starts again."""
    with contextlib.suppress(KeyError):  # empty
        while True:
            app.views.pop().leave(app)


def _create_view(backend: BaseStateBackend) -> View:
    if isinstance(backend, StoreBackend):
        return StoreView(backend)
    return MemoryView(backend) if isinstance(backend, StateBackend) else BooleanView(backend)


class MemoryView(View):
    """The view of a backend that keeps its whole state in this process."""

    def __init__(self, backend: StateBackend) -> None:
        super().__init__(backend)
        self._backend = backend

    def peek(self) -> MaintenanceState | None:
        """Return the backend's state."""
        return self._backend.peek()

    def latest(self) -> MaintenanceState:
        """Return the backend's state."""
        state = self._backend.peek()
        if state is None:
            msg = f"{self._backend!r} is a StateBackend without a store, so its peek() must return the state, got None"
            raise TypeError(msg)
        return state

    async def apply(self, change: Change) -> MaintenanceState:
        """Apply one change to the backend."""
        state = await self._backend.apply(change)
        self._notify_missing(state.holds)
        if self.transitions.has_subscribers:
            self.transitions.observe(state)
        return state

    def status(self) -> SwitchStatus:
        """Return ``READY``: the state is always current."""
        return SwitchStatus(Knowledge.READY, self.latest().version, 0.0)
