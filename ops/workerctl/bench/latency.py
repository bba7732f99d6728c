"""Latency: how soon after its commit an idle daemon starts a job."""

from __future__ import annotations

import asyncio
import time
from statistics import quantiles
from typing import TYPE_CHECKING

from workerctl.bench.daemon import Daemon
from workerctl.bench.figure import Figure
from workerctl.bench.progress import all_done
from workerd import Queue

if TYPE_CHECKING:
    from workerctl.bench.site import Site

RATE = 50  # jobs/s
LONGEST = 10.0  # seconds
FULL = 20_000  # jobs of a benchmark that takes the full time; a shorter one takes less

_STARTED = "SELECT id, started_at FROM workerd.job WHERE id = ANY ($1)"


async def latency(site: Site) -> list[Figure]:
    """The median and the 99th percentile, in milliseconds. Our clock has to be the server's: run it on the same host."""
    await site.clear()
    with Daemon(site, "idle") as daemon:
        daemon.wait_ready()
        committed = await _trickle(site, max(1.0, min(LONGEST, LONGEST * site.jobs / FULL)))
        await all_done([daemon], len(committed) + 1)
        peak = daemon.peak_mb()
    rows = await site.connection.fetch(_STARTED, list(committed))
    waits = [1000 * (row["started_at"].timestamp() - committed[row["id"]]) for row in rows]
    percentiles = quantiles(waits, n=100, method="inclusive")
    what = f"from commit to start at {RATE} jobs/s"
    return [
        Figure("latency_p50", f"{what}, p50", "ms", percentiles[49]),
        Figure("latency_p99", f"{what}, p99", "ms", percentiles[98]),
        Figure("latency_memory", "idle daemon: peak memory", "MB", peak),
    ]


async def _trickle(site: Site, seconds: float) -> dict[int, float]:
    """Enqueue at an even rate; returns when each job's commit was known here, in seconds since the epoch."""
    committed = {}
    async with Queue.connect(site.dsn) as queue:
        await queue.enqueue("kept")  # the first call of a connection plans its statements: it is not counted
        began = time.monotonic()
        for number in range(int(seconds * RATE)):
            await asyncio.sleep(began + number / RATE - time.monotonic())
            job = await queue.enqueue("kept")
            committed[job] = time.time()
    return committed
