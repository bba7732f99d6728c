"""Enqueue: jobs a second by one application, one at a time, by many coroutines, and in bulk. No daemon runs."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from workerctl.bench.figure import Figure
from workerd import Queue

if TYPE_CHECKING:
    from workerctl.bench.site import Site

COROUTINES = 100
SINGLE = 10  # one at a time, a tenth of the jobs is enough


async def enqueue(site: Site) -> list[Figure]:
    """Each figure is jobs/s from the first call to the last commit."""
    single, rest = max(1, site.jobs // SINGLE), site.jobs
    async with Queue.connect(site.dsn) as queue:
        await _enqueue(queue, 1)  # the first call of a connection plans its statements: it is not counted
        await site.clear()
        began = time.monotonic()
        await _enqueue(queue, single)
        alone = single / (time.monotonic() - began)

        await site.clear()
        shares = [rest // COROUTINES + (number < rest % COROUTINES) for number in range(COROUTINES)]
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for share in shares:
                group.create_task(_enqueue(queue, share))
        together = rest / (time.monotonic() - began)

        await site.clear()
        began = time.monotonic()
        await queue.enqueue_many("noop", [{}] * rest)
        bulk = rest / (time.monotonic() - began)
    return [
        Figure("enqueue_single", f"enqueue of {single:,}, one awaited at a time", "jobs/s", alone),
        Figure("enqueue_coroutines", f"enqueue of {rest:,}, {COROUTINES} coroutines", "jobs/s", together),
        Figure("enqueue_many", f"enqueue_many of {rest:,}", "jobs/s", bulk),
    ]


async def _enqueue(queue: Queue, jobs: int) -> None:
    for _ in range(jobs):
        await queue.enqueue("noop")
