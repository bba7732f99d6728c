"""How many jobs to claim."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workerd.daemon.prefetch import AHEAD, room


@pytest.mark.parametrize(
    ("slots", "busy", "waiting", "mean_run", "limit", "expected"),
    [
        (4, 0, 0, None, 500, 4),  # nothing known yet: one a slot
        (4, 3, 0, None, 500, 1),
        (4, 4, 0, None, 500, 0),
        (4, 0, 4, None, 500, 0),
        (4, 0, 1, None, 500, 3),
        (4, 4, 0, 60.0, 500, 0),  # long jobs: nothing ahead
        (4, 3, 0, 60.0, 500, 1),
        (4, 4, 0, 0.01, 500, 40),  # short ones: a tenth of a second of work
        (4, 4, 20, 0.01, 500, 20),
        (4, 4, 21, 0.01, 500, 0),  # more than half still waits: later, more at a time
        (4, 2, 1, 0.01, 500, 41),
        (4, 0, 0, 0.0, 500, 500),
        (4, 0, 0, None, 3, 3),
        (4, 6, 0, None, 500, 0),  # scaled down while jobs run
        (0, 0, 0, None, 500, 0),
    ],
)
def test_room(slots: int, busy: int, waiting: int, mean_run: float | None, limit: int, expected: int) -> None:
    assert room(slots, busy, waiting, mean_run, limit) == expected


@given(
    slots=st.integers(0, 10000),
    busy=st.integers(0, 10000),
    waiting=st.integers(0, 1000),
    mean_run=st.none() | st.floats(0, 1e6),
    limit=st.integers(1, 500),
)
def test_no_more_is_claimed_than_the_limit_and_than_can_begin_soon(
    slots: int, busy: int, waiting: int, mean_run: float | None, limit: int
) -> None:
    count = room(slots, busy, waiting, mean_run, limit)
    idle = max(0, slots - busy)
    assert 0 <= count <= limit
    if count:
        assert waiting + count - idle <= (AHEAD / max(mean_run, 1e-6) * slots if mean_run is not None else 0)
    if idle > waiting:
        assert count >= min(limit, idle - waiting)
