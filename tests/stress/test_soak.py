"""A slice of ``make stress``."""

from __future__ import annotations

from .soak import soak
from .toggling import file_url

MAY_GROW_BYTES = 16 << 20
"""In seconds nothing gets flat: pools fill, and coverage counts lines. A request that stays is a thing in flight."""


def test_nothing_is_left_behind_by_requests_of_any_kind() -> None:
    """No file, thread, task or request, also where clients went away."""
    with file_url() as url:
        outcome = soak(url, 6)
    assert outcome.growing(may_grow_bytes=MAY_GROW_BYTES) == []
    assert outcome.wrong == []
    assert outcome.errors == []
