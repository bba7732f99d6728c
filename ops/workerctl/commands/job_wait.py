"""Waiting for a job: its result, and a word where it waits in vain."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from workerctl import context, render

if TYPE_CHECKING:
    from workerd.queue.client import Queue

PATIENCE = 2.0  # seconds between looks at whether any node takes it


async def result(job_id: int, timeout: float | None) -> Any:
    """What `Queue.result` returns and raises."""
    async with context.queue() as queue:
        watch = asyncio.create_task(_watch(queue, job_id))
        try:
            return await queue.result(job_id, timeout)
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)  # where the database has gone, the result says it


async def _watch(queue: Queue, job_id: int) -> None:
    """Say it once when no living node takes the job."""
    from asyncpg import PostgresError

    from workerd.queue import waiting

    with contextlib.suppress(PostgresError):  # who may wait for a job need not have the right to see the nodes
        while True:
            await asyncio.sleep(PATIENCE)
            async with queue.connection() as connection:
                if await waiting.in_vain(connection, job_id):
                    break
        render.warn(f"job {job_id} is queued and no living node takes it: workerctl start")
