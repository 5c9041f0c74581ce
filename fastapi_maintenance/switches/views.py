"""This process's view of each backend: always the same one."""

from __future__ import annotations

import contextlib

from ..backends.base import VIEW, BaseStateBackend, StateBackend, StoreBackend
from ..model.change import Change
from ..model.state import MaintenanceState
from .app_switch import AppSwitch
from .follower import StoreView
from .two_method import BooleanView
from .view import Knowledge, SwitchStatus, View


def view_of(backend: BaseStateBackend) -> View:
    """Return this process's view of a backend, always the same one."""
    view: View | None = vars(backend).get(VIEW)
    if view is None:
        # One call, so that threads that come together share one view.
        view = vars(backend).setdefault(VIEW, _new_view(backend))
    return view


def view_for(app: AppSwitch, backend: BaseStateBackend) -> View:
    """Return the view of a backend that an app uses, until ``leave_all`` or until the app is gone."""
    view = view_of(backend)
    if view not in app.views:
        app.views.add(view)
        view.start(app)
    return view


def leave(app: AppSwitch, view: View) -> None:
    """Have an app use a view no longer."""
    app.views.discard(view)
    view.leave(app)


def leave_all(app: AppSwitch) -> None:
    """Have an app use none of its views any more; the next request begins anew."""
    with contextlib.suppress(KeyError):  # empty
        while True:
            app.views.pop().leave(app)


def _new_view(backend: BaseStateBackend) -> View:
    if isinstance(backend, StoreBackend):
        return StoreView(backend)
    return MemoryView(backend) if isinstance(backend, StateBackend) else BooleanView(backend)


class MemoryView(View):
    """The view of a backend that has its whole state in this process: nothing to add."""

    def __init__(self, backend: StateBackend) -> None:
        super().__init__(backend)
        self._backend = backend

    def peek(self) -> MaintenanceState | None:
        """Return the backend's state."""
        return self._backend.peek()

    def latest(self) -> MaintenanceState:
        """Return the backend's state."""
        return self.read_blocking()

    async def read(self) -> MaintenanceState:
        """Return the backend's state."""
        return self.read_blocking()

    def read_blocking(self) -> MaintenanceState:
        """Return the backend's state."""
        state = self._backend.peek()
        if state is None:
            msg = f"{self._backend!r} is a StateBackend that is not followed, so its peek() has to return the state"
            raise TypeError(msg)
        return state

    async def apply(self, change: Change) -> MaintenanceState:
        """Carry out one change at the backend."""
        state = await self._backend.apply(change)
        self._notice(state.holds)
        if self.transitions.are_wanted:
            self.transitions.heard(state)
        return state

    def status(self) -> SwitchStatus:
        """Return that everything is known."""
        return SwitchStatus(Knowledge.READY, self.read_blocking().version, 0.0)
