"""The audience: whoever looks at a page on which jobs tell how far they are."""

from __future__ import annotations

import asyncio
import contextlib
from time import monotonic

STAYS = 5.0  # seconds after which it has left, unless it is heard of again
INTERVAL = 0.25  # seconds between two writes of progress for it


class Audience:
    """How often to write progress: as the settings say, and more often while somebody looks."""

    def __init__(self, interval: float) -> None:
        """`interval`: seconds while nobody does."""
        self._interval = interval
        self._until = 0.0
        self._came = asyncio.Event()

    @property
    def interval(self) -> float:
        """Seconds between two writes, now."""
        return min(self._interval, INTERVAL) if monotonic() < self._until else self._interval

    def looks(self) -> None:
        """Somebody looks."""
        self._until = monotonic() + STAYS
        self._came.set()

    async def pause(self) -> None:
        """Return when it is time to write, or when somebody has come."""
        self._came.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.interval):  # no task of its own, as wait_for would make
                await self._came.wait()
