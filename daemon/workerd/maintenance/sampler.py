"""The sampler: writes down each second what the fleet did, so that charts survive whoever draws them."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from workerd.queue import samples
from workerd.queue.samples import Counts, Sample

if TYPE_CHECKING:
    from datetime import datetime

    from workerd.maintenance.census import Census
    from workerd.queue.database import Connection

ROUND = 1.0  # seconds at least between two samples
SHARE = 50  # sampling may take one part in so many of the time: it grows with nodes and tasks


class Sampler:
    def __init__(self, census: Census) -> None:
        self._census = census
        self._counted: dict[datetime, Counts] | None = (
            None  # None: what was counted before this one sampled is not its own
        )
        self._counted_at = 0.0
        self._minute = 0.0

    async def run_once(self, connection: Connection) -> float:
        """Sample once; returns the seconds until the next time."""
        began = monotonic()
        at, counted = await samples.counted(connection)
        if self._counted is not None:
            await samples.keep(
                connection, 1, [self._sample(at, self._new(counted, self._counted), began - self._counted_at)]
            )
        self._counted, self._counted_at = counted, began
        minute = began // 60
        if minute != self._minute:
            self._minute = minute
            await samples.add_up(connection)
        return max(ROUND, (monotonic() - began) * SHARE)

    def _sample(self, at: datetime, counts: Counts, covers: float) -> Sample:
        depths = self._census.depths
        if not depths:
            return Sample(at, covers, counts)
        return Sample(
            at,
            covers,
            counts,
            queued=sum(depth.queued for depth in depths),
            running=sum(depth.running for depth in depths),
            scheduled=sum(depth.scheduled for depth in depths),
            oldest=max((depth.oldest for depth in depths if depth.oldest is not None), default=None),
        )

    @staticmethod
    def _new(now: dict[datetime, Counts], before: dict[datetime, Counts]) -> Counts:
        return sum((each - before.get(slot, Counts()) for slot, each in now.items()), Counts())
