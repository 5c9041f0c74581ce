"""Measures costs relative to other work, by turns, so that no bound depends on the speed of the machine."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.support.traffic import untraced


def times_as_long(one: Callable[[], object], other: Callable[[], object], *, rounds: int = 5) -> float:
    """Return how many times as long as another call one takes of this thread: the least of each, by turns."""
    least = [float("inf")] * 2
    with untraced():
        for turn in range(rounds):
            for which in (0, 1) if turn % 2 else (1, 0):
                begin = time.thread_time_ns()
                (one, other)[which]()
                least[which] = min(least[which], time.thread_time_ns() - begin)
    return least[0] / max(least[1], 1)


def cost_of(call: Callable[[], object], *, rounds: int = 3) -> float:
    """Return how many times as long as the yardstick a call takes: about its milliseconds on a machine of 2026."""
    return times_as_long(call, yardstick, rounds=rounds)


def cost_of_seconds(seconds: float) -> float:
    """Return the same for processor time that was measured somewhere else in this process."""
    began = time.thread_time()
    with untraced():
        for _ in range(5):
            yardstick()
    return seconds / ((time.thread_time() - began) / 5)


def yardstick() -> None:
    """Work for about a millisecond: calls, texts and dictionaries, as the package does."""
    found: dict[str, int] = {}
    for number in range(6_000):
        name = str(number % 97)
        found[name] = found.get(name, 0) + len(name)
