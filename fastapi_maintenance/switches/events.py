"""Hooks that run when the effective mode of a switch changes in this process."""

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
from .views.lookup import view_of
from .views.view import View

logger = logging.getLogger("fastapi_maintenance")

Hook = Callable[[Transition], None] | Callable[[Transition], Awaitable[None]]


class Subscription:
    """Calls a hook with each transition of a switch, one at a time, until ``cancel``."""

    def __init__(self, hook: Hook, view: View, switch: str) -> None:
        self._hook = hook
        self._view = view
        self._switch = switch
        self._start()
        _subscriptions.add(self)

    def cancel(self) -> None:
        """Stop calling the hook; transitions that are queued already are still delivered."""
        _subscriptions.discard(self)
        self._view.transitions.unsubscribe(self._enqueue)
        self._view.leave(self)
        self._events.put(None)

    def _start(self) -> None:
        """Start the hook's thread and subscribe to the transitions."""
        self._events: queue.SimpleQueue[Transition | None] = queue.SimpleQueue()
        # Not the I/O thread, which renews holds: a hook may block.
        thread = threading.Thread(target=self._run, name="fastapi-maintenance-hook", daemon=True)
        thread.start()
        self._view.transitions.subscribe(self._enqueue, self._view.peek)
        self._view.start(self)

    def restart(self) -> None:
        """Restart in a forked child, which has none of its parent's threads."""
        self._view.transitions.unsubscribe(self._enqueue)
        self._start()

    def _enqueue(self, transition: Transition) -> None:
        self._events.put(replace(transition, switch=self._switch))

    def _run(self) -> None:
        events = self._events
        with asyncio.Runner() as runner:
            while (transition := events.get()) is not None:
                try:
                    result: Any = self._hook(transition)
                    if inspect.isawaitable(result):
                        runner.run(_await(result))
                except Exception:
                    logger.exception("an on_change hook failed: %r", self._hook)


async def _await(result: Awaitable[None]) -> None:
    await result


_subscriptions: set[Subscription] = set()
"""The subscriptions that were not cancelled."""


def on_change(hook: Hook, backend: BaseStateBackend | None = None, *, name: str = DEFAULT) -> Subscription:
    """Call ``hook`` for each transition of a switch in this process; return a subscription that you can cancel.

    A transition is a change of the effective mode: by a stored change here or elsewhere, or because a window begins or
    ends, ``until`` is reached, or a hold expires. The first state that the process reads is not a transition.

    Args:
        hook: A function that takes the ``Transition``, sync or async. It runs in its own thread and event loop, one
            call at a time, so it can't share the app's clients. Its exceptions are logged.
        backend: The switch's backend; ``None``: the answering app's, the only app's own, or the configured one.
        name: The switch.

    With a two-method backend, a change is noticed at the next request that reads it; with the environment, within a
    second.

    Raises:
        InvalidConfiguration: The hook is not callable.
        AmbiguousSwitch: Several apps have a backend of their own.
        InvalidSwitchName: The name can't be a switch's.
    """
    if not callable(hook):
        raise InvalidConfiguration(f"hook must be a function that takes a Transition, got {hook!r}")
    return Subscription(hook, view_of(registry.resolve(backend, name)), name)


@io_thread.call_after_fork
def _restart_after_fork() -> None:
    for subscription in list(_subscriptions):
        subscription.restart()
