"""Jobs that are there at every moment."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from workerd import Queue

ENOUGH = 300  # jobs that wait: more than a second of work for three containers
LOOK = 0.1  # seconds


async def under_load(queue: Queue, work: Coroutine[None, None, object]) -> int:
    """Do it while jobs wait and run; returns how many jobs were enqueued."""
    doing = asyncio.create_task(work)
    count = 0
    async with queue.connection() as connection:
        while not doing.done():
            if await connection.fetchval("SELECT count(*) FROM workerd.ready") < ENOUGH:
                await queue.enqueue_many("nap", [{"seconds": 0.05}] * ENOUGH)
                count += ENOUGH
            await asyncio.wait({doing}, timeout=LOOK)
    await doing
    return count
