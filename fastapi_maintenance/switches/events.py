"""Hooks that are called when maintenance begins, ends or changes in this process."""

from __future__ import annotations

import asyncio
import inspect
import logging
import queue
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from ..backends.base import BaseStateBackend
from ..concurrency import io_thread
from ..exceptions import InvalidConfiguration
from .app_switch import DEFAULT
from .registry import registry
from .transitions import Transition
from .view import View
from .views import view_of

logger = logging.getLogger("fastapi_maintenance")

Hook = Callable[[Transition], None] | Callable[[Transition], Awaitable[None]]


class Subscription:
    """A hook that is called with each transition of a switch, one after the other, until ``cancel``."""

    def __init__(self, hook: Hook, view: View, switch: str) -> None:
        self._hook = hook
        self._view = view
        self._switch = switch
        self._begin()
        _subscriptions.add(self)

    def cancel(self) -> None:
        """Call the hook no longer, but for what it was not told of yet."""
        _subscriptions.discard(self)
        self._view.transitions.unsubscribe(self._tell)
        self._view.leave(self)
        self._events.put(None)

    def _begin(self) -> None:
        """Start the thread that the hook runs in, and listen."""
        self._events: queue.SimpleQueue[Transition | None] = queue.SimpleQueue()
        # Its own, and not the one that follows the stores: a hook may block, and holds have to be renewed meanwhile.
        thread = threading.Thread(target=self._run, name="fastapi-maintenance-hook", daemon=True)
        thread.start()
        self._view.transitions.subscribe(self._tell, self._view.peek)
        self._view.start(self)

    def begin_anew(self) -> None:
        """Begin again in a forked child, which has none of its parent's threads."""
        self._view.transitions.unsubscribe(self._tell)
        self._begin()

    def _tell(self, transition: Transition) -> None:
        self._events.put(replace(transition, switch=self._switch))

    def _run(self) -> None:
        events = self._events
        with asyncio.Runner() as runner:
            while (transition := events.get()) is not None:
                try:
                    result: Any = self._hook(transition)
                    if inspect.isawaitable(result):
                        runner.run(_awaited(result))
                except Exception:
                    logger.exception("an on_change hook failed: %r", self._hook)


async def _awaited(result: Awaitable[None]) -> None:
    await result


_subscriptions: set[Subscription] = set()
"""Those that nobody has cancelled."""


def on_change(hook: Hook, backend: BaseStateBackend | None = None, *, name: str = DEFAULT) -> Subscription:
    """Have ``hook`` called once per transition of a switch in this process, and return what can end that.

    A transition is when another mode counts than before, as requests see it: by a change here or elsewhere, or because
    a window, an end or a hold's time has come. What is so when the process learns of the switch first is none.

    Args:
        hook: A function that takes the ``Transition``, sync or async. It runs in a thread of its own, with an event
            loop of its own, one call after the other; so it can't share the app's clients. What it raises is logged.
        backend: Whose switch; ``None``: the one that is meant here, see ``get_maintenance_mode``.
        name: The switch.

    Changes that this process can't see without asking are noticed when a request asks (a backend of your own), or
    within a second (the environment).

    Raises:
        InvalidConfiguration: The hook can't be called.
        AmbiguousSwitch: Several apps have a backend of their own.
        InvalidSwitchName: The name can't be a switch's.
    """
    if not callable(hook):
        raise InvalidConfiguration(f"hook={hook!r}: a function that takes a Transition is needed")
    return Subscription(hook, view_of(registry.meant(backend, name)), name)


@io_thread.call_after_fork
def _begin_anew() -> None:
    for subscription in list(_subscriptions):
        subscription.begin_anew()
