"""The census: what the leader knows for all, for metrics and samples; it counts how many jobs wait in each queue."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from workerd.queue.depth import Depth, depths

if TYPE_CHECKING:
    from workerd.queue.condition import Condition
    from workerd.queue.database import Connection

ROUND = 1.0  # seconds at least between two counts
SHARE = 50  # a count may take one part in so many of the time: it grows with the queues


class Census:
    """Read by other threads: what is counted is replaced as a whole."""

    def __init__(self) -> None:
        self.depths: list[Depth] = []
        self.condition: Condition | None = None
        self.rescued = 0  # jobs that this process took back from dead nodes
        self.leads = False

    async def run_once(self, connection: Connection) -> float:
        """Count; returns the seconds until the next time."""
        began = monotonic()
        self.leads = True
        try:
            self.depths = await depths(connection)
        except TimeoutError:
            self.depths = []  # what is not known is not told
        return max(ROUND, (monotonic() - began) * SHARE)

    def forget(self) -> None:
        """Another node leads: what was counted here grows old."""
        self.depths, self.condition, self.leads = [], None, False
