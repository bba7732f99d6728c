"""Tally: counters and histograms by task for `stats`, collected in memory and added to the database now and then."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workerd.job import AnyConnection

BUCKETS = 120
STEP = 1.2  # each bucket is 20 % wider than the one before; the first ends at 0.01 ms, the last at 9 hours
_FIRST_MS = 0.01
_BOUNDS = [_FIRST_MS * STEP**place for place in range(BUCKETS)]

_ADD = """
    INSERT INTO workerd.tally AS t (slot, node, task, queue, succeeded, failed, cancelled, retried, run, wait)
    VALUES (date_bin('5 minutes', now(), 'epoch'::timestamptz), $1, $2, $3, $4, $5, $6, $7, $8, $9)
    ON CONFLICT (slot, node, task, queue) DO UPDATE SET
        succeeded = t.succeeded + excluded.succeeded, failed = t.failed + excluded.failed,
        cancelled = t.cancelled + excluded.cancelled, retried = t.retried + excluded.retried,
        run = array(SELECT a + b FROM unnest(t.run, excluded.run) WITH ORDINALITY AS u(a, b, i) ORDER BY i),
        wait = array(SELECT a + b FROM unnest(t.wait, excluded.wait) WITH ORDINALITY AS u(a, b, i) ORDER BY i)
"""


def bucket(seconds: float) -> int:
    """The place of a duration in a histogram."""
    return bisect_left(_BOUNDS, seconds * 1000, 0, BUCKETS - 1)


def bound(place: int) -> float:
    """The longest duration, in milliseconds, of a place in a histogram."""
    return _BOUNDS[place]


def quantile(histogram: list[int], share: float) -> float | None:
    """The duration in milliseconds below which `share` of the observations lie, to within one bucket; None when there are none."""
    total = sum(histogram)
    if not total:
        return None
    seen = 0
    for place, count in enumerate(histogram):
        seen += count
        if seen >= share * total:
            return _BOUNDS[place]
    return _BOUNDS[-1]


def _histogram() -> list[int]:
    return [0] * BUCKETS


@dataclass(slots=True)
class Tally:
    """What one node counted for one task of one queue since the last flush."""

    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    retried: int = 0
    run: list[int] = field(default_factory=_histogram)
    wait: list[int] = field(default_factory=_histogram)
    seconds: float = 0.0  # that the runs took together; for metrics, not kept
    waited: float = 0.0  # seconds for which the jobs waited together; as above

    def merge(self, other: Tally) -> None:
        """Add the counts of `other`."""
        self.succeeded += other.succeeded
        self.failed += other.failed
        self.cancelled += other.cancelled
        self.retried += other.retried
        self.seconds += other.seconds
        self.waited += other.waited
        self.run = [a + b for a, b in zip(self.run, other.run, strict=True)]
        self.wait = [a + b for a, b in zip(self.wait, other.wait, strict=True)]


async def add(connection: AnyConnection, node: int, tallies: dict[tuple[str, str], Tally]) -> None:
    """Add the counters, by (task, queue), to those of the current five minutes."""
    await connection.executemany(
        _ADD,
        [
            (node, task, queue, t.succeeded, t.failed, t.cancelled, t.retried, t.run, t.wait)
            for (task, queue), t in tallies.items()
        ],
    )
