"""The stager: queues scheduled jobs when they are due, or when what they wait for has been answered."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from workerd.queue import signals, stage

if TYPE_CHECKING:
    from workerd.queue.database import Connection

ROUND = 0.5  # seconds at most between two looks: somebody may have scheduled an earlier job
SHARE = (
    20  # looking for answers may take one part in so many of the time: it grows with those that nobody waits for yet
)


class Stager:
    def __init__(self) -> None:
        self._answers_at = 0.0  # when to look for answers again, monotonic

    async def run_once(self, connection: Connection) -> float:
        """Queue what is due; returns the seconds until the next job is."""
        began = monotonic()
        wait = min(ROUND, self._answers_at - began)
        if wait <= 0:
            await signals.wake(connection)
            self._answers_at = monotonic() + (monotonic() - began) * SHARE
            wait = ROUND
        staged, next_in = await stage.stage(connection)
        if staged == stage.BATCH:
            return 0.0
        return wait if next_in is None else min(wait, max(next_in, 0.005))
