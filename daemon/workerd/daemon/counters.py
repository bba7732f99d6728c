"""Counters of the daemon that only its metrics tell."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

BATCHES = (1, 2, 5, 10, 20, 50, 100, 200, 500)  # jobs: the edges of the histogram


@dataclass
class Counters:
    """Written by the main loop, read by the threads that answer for metrics."""

    batches: list[int] = field(default_factory=lambda: [0] * (len(BATCHES) + 1))
    claimed: int = 0  # jobs
    reconnects: int = 0
    leases_lost: int = 0

    def claims(self, jobs: int) -> None:
        """A claim found so many jobs."""
        self.batches[bisect_left(BATCHES, jobs)] += 1
        self.claimed += jobs
