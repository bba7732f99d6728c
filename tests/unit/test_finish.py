"""How the ends of attempts are told to the database, and what its answer says about each."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.support import Clock, claimed
from workerd.outcomes import SUCCEEDED, Outcome
from workerd.queue.finish import Finished, owned, succeeded


def ended(pos: int, n: int = 1, *, ttl: float = 0.0, key: str | None = None, progress: float | None = None) -> Finished:
    job = claimed(pos, n)
    job.key = key
    return Finished(job, Outcome("succeeded", result="1") if ttl else SUCCEEDED, 1000.0, 0.5, ttl, progress)


@pytest.mark.parametrize(
    ("tickets", "ranges"),
    [
        ([(1, 7)], [(1, 7, 8)]),
        ([(1, 8), (1, 7), (1, 9)], [(1, 7, 10)]),
        ([(1, 7), (1, 9), (1, 10), (1, 12)], [(1, 7, 8), (1, 9, 11), (1, 12, 13)]),
        ([(2, 8), (1, 7), (1, 8)], [(2, 8, 9), (1, 7, 9)]),
        ([], []),
    ],
)
def test_successes_that_leave_nothing_are_told_as_ranges_of_tickets(
    tickets: list[tuple[int, int]], ranges: list[tuple[int, int, int]]
) -> None:
    n, first, behind, *kept = succeeded([ended(pos, n) for n, pos in tickets])
    assert list(zip(n, first, behind, strict=True)) == ranges
    assert kept == [[]] * 6


@pytest.mark.parametrize("what", [{"ttl": 60.0}, {"key": "a"}, {"progress": 0.5}])
def test_a_success_that_leaves_something_is_told_by_itself(
    what: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("workerd.queue.finish.monotonic", clock)
    clock.now += 2.0
    plain, kept = ended(1), ended(2, n=3, **what)
    assert (plain.is_plain, kept.is_plain) == (True, False)
    assert succeeded([plain, kept]) == (
        [1],
        [1],
        [2],
        [3],
        [2],
        [2.0],
        [kept.outcome.result],
        [what.get("ttl", 0.0)],
        [what.get("progress")],
    )


def test_ends_that_the_database_lost_are_those_of_its_answer() -> None:
    ends = [ended(1), ended(2), ended(2, n=5)]
    row: Any = {"lost_n": [5, 1], "lost_pos": [2, 1]}
    assert owned(ends, row) == [False, True, False]
    assert owned(ends, {"lost_n": None, "lost_pos": None}) == [True, True, True]  # type: ignore[arg-type]  # as a record
