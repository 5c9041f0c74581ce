"""A slice of ``make stress``."""

from __future__ import annotations

from .toggling import redis_url, toggle


def test_toggling_under_load_loses_nothing() -> None:
    """Four workers, and every answer is a 200 or a 503."""
    with redis_url() as url:
        outcome = toggle(url, 3)
    assert outcome.is_right, outcome
