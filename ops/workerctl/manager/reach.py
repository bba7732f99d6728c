"""How the manager itself reaches the database on behalf of nodes: sessions that claim, and one that hears notifications."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from workerctl.manager.bell import Bell
from workerd.queue.client import Queue

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from workerd.job import AnyConnection

CLAIMERS = 5  # connections on which nodes are served: a claim takes about a millisecond
PATIENCE = 10.0  # seconds for one of them: less than a node waits for its answer


class Reach:
    """Opened at first use: a manager without nodes of its own needs neither. `dsn` leads past any pooler."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._bell = Bell(dsn)
        self._ringing: asyncio.Task[None] | None = None
        self._queue: Queue | None = None
        self._opening = asyncio.Lock()

    @property
    def bell(self) -> Bell:
        if self._ringing is None:
            self._ringing = asyncio.create_task(self._bell.run(), name="bell")
        return self._bell

    async def claims(self) -> AbstractAsyncContextManager[AnyConnection]:
        """A session with the settings of a claimer. Raises DatabaseError."""
        async with self._opening:
            if self._queue is None:
                self._queue = await Queue.connect(
                    self._dsn, pool_size=CLAIMERS, acquire_timeout=PATIENCE, name="worker manager claims", claims=True
                )
        return self._queue.connection()

    async def close(self) -> None:
        await self._bell.close()
        if self._ringing is not None:
            self._ringing.cancel()
            await asyncio.wait([self._ringing])
        if self._queue is not None:
            self._queue.terminate()


def _reach(request: Request) -> Reach:
    found: Reach = request.app.state.reach
    return found


TheReach = Annotated[Reach, Depends(_reach)]
