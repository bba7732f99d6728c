"""Counters and histograms."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workerd.queue.tally import BUCKETS, STEP, Tally, bucket, quantile

LONGEST = 7 * 3600.0  # seconds: the last bucket ends a little later
runs = st.floats(min_value=0, max_value=LONGEST)


def histogram(durations: list[float]) -> list[int]:
    counts = [0] * BUCKETS
    for duration in durations:
        counts[bucket(duration)] += 1
    return counts


@pytest.mark.parametrize(
    ("seconds", "place"),
    [(-1.0, 0), (0.0, 0), (0.000_01, 0), (0.000_011, 1), (0.001, 26), (1.0, 64), (LONGEST, 119), (1e9, 119)],
)
def test_a_duration_has_a_place(seconds: float, place: int) -> None:
    assert bucket(seconds) == place


@given(runs, runs)
def test_longer_durations_are_never_placed_before_shorter_ones(one: float, other: float) -> None:
    assert bucket(min(one, other)) <= bucket(max(one, other))


@given(st.lists(runs, min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.95, 0.99, 1.0]))
def test_a_quantile_is_exact_to_within_one_bucket(durations: list[float], share: float) -> None:
    exact = sorted(durations)[math.ceil(share * len(durations)) - 1] * 1000
    estimate = quantile(histogram(durations), share)
    assert estimate is not None
    assert exact <= estimate * 1.000001
    assert estimate <= max(exact, 0.01) * STEP * 1.000001


def test_no_observations_have_no_quantile() -> None:
    assert quantile([0] * BUCKETS, 0.5) is None


@given(st.lists(runs, max_size=30), st.lists(runs, max_size=30))
def test_merged_tallies_count_as_if_counted_together(ours: list[float], theirs: list[float]) -> None:
    one = Tally(1, 2, 3, 4, histogram(ours), histogram(theirs))
    other = Tally(10, 20, 30, 40, histogram(theirs), histogram(ours))
    one.merge(other)
    together = histogram(ours + theirs)
    assert one == Tally(11, 22, 33, 44, together, together)
    assert other == Tally(10, 20, 30, 40, histogram(theirs), histogram(ours))
