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
        if self._answers_at <= began:
            await signals.wake(connection)
            self._answers_at = monotonic() + (monotonic() - began) * SHARE
        staged, next_in = await stage.stage(connection)
        if staged == stage.BATCH:
            return 0.0
        return ROUND if next_in is None else min(ROUND, max(next_in, 0.005))
