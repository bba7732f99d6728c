"""Tasks that wait for a sign of the test: a file, which daemons of several processes see."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from workerd import Job, task

LOOK = 0.02  # seconds


@task
async def held(sign: str, *, job: Job) -> None:
    """Each attempt has a sign of its own."""
    while not Path(f"{sign}-{job.attempt}").exists():  # noqa: ASYNC110 - no event reaches both
        await asyncio.sleep(LOOK)


@task
async def blocking_until(sign: str) -> None:
    while not Path(sign).exists():
        time.sleep(LOOK)  # noqa: ASYNC251 - a handler that blocks the loop, as they do


@task
async def holding(sign: str, *, job: Job) -> None:
    """Keeps a connection of the pool."""
    async with job.connection() as connection:
        await connection.fetchval("SELECT 'held'")
        while not Path(sign).exists():  # noqa: ASYNC110
            await asyncio.sleep(LOOK)
