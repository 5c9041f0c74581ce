"""A slice of ``make stress``."""

from __future__ import annotations

import pytest

from .__main__ import SLICE


@pytest.mark.parametrize("store", SLICE)
def test_nothing_is_lost_and_nothing_is_read_in_pieces(store: str) -> None:
    """Processes that write at the same time each find their changes made, once; readers see whole states only."""
    outcome = SLICE[store].run(limit_seconds=120)
    assert outcome.is_right, outcome
    assert outcome.again == 0
