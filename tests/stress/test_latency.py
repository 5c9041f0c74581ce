"""A slice of ``make bench-latency``."""

from __future__ import annotations

from benchmarks.latency import measure, percentile
from tests.support.places import redis_place
from tests.support.stores import RedisServer

BOUND_SECONDS = 1.0
"""Twenty times the goal of the benchmark: other tests have the processors here."""


def test_a_push_reaches_other_processes_at_once() -> None:
    """They poll once a minute only, so what they see before that was pushed."""
    with RedisServer() as server:
        place = redis_place(server, poll_seconds=60, timeout_seconds=10, init_timeout=30)
        found = measure(place, toggles=10, workers=4)
    assert len(found.of_toggles) == 40
    assert percentile(found.of_toggles, 99) <= BOUND_SECONDS, found
