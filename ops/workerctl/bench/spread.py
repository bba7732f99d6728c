"""Spread: jobs that take their time, on daemons with few workers: who has a free one gets the next job."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from statistics import quantiles
from typing import TYPE_CHECKING

from workerctl.bench.drain import ready, stop
from workerctl.bench.figure import Figure
from workerctl.bench.holds import watch

if TYPE_CHECKING:
    from workerctl.bench.site import Site

WORKERS = 4  # of each daemon
LONG = 1.0  # seconds of a long job
LONG_JOBS = 40  # at most
LONG_DAEMONS = 2
SHORT = 0.05  # seconds of a short job
SHORT_DAEMONS = 8
LONGEST = 6.0  # seconds that the short jobs take at best


async def long(site: Site) -> list[Figure]:
    """Two daemons and 40 jobs of a second: five seconds at best. Where little is measured, one for each worker."""
    jobs = max(LONG_DAEMONS * WORKERS, int(LONG_JOBS * site.part))
    seconds, _ = await _run(site, LONG_DAEMONS, jobs, LONG)
    what = f"{jobs} jobs of {LONG:.0f} s by two daemons with {WORKERS} workers each"
    return [Figure("spread", what, site.ours.title, "s", seconds)]


async def short(site: Site) -> list[Figure]:
    """Eight daemons whose claims are of one job mostly: what they do of what their workers could, and how long a lane is locked."""
    ideal = SHORT_DAEMONS * WORKERS / SHORT  # jobs/s
    jobs = int(ideal * max(1.0, LONGEST * site.part))
    seconds, holds = await _run(site, SHORT_DAEMONS, jobs, SHORT)
    percentiles = quantiles(holds, n=100, method="inclusive")
    what, who = (
        f"{jobs:,} jobs of {1000 * SHORT:.0f} ms by {SHORT_DAEMONS} daemons with {WORKERS} workers each",
        site.ours.title,
    )
    return [
        Figure("ones", what, who, "jobs/s", jobs / seconds),
        Figure("ones_share", f"{what}, of the ideal {ideal:.0f} jobs/s", who, "ratio", jobs / seconds / ideal),
        Figure("ones_lock_p50", f"{what}: lane locked, p50", who, "ms", percentiles[49]),
        Figure("ones_lock_p99", f"{what}: lane locked, p99", who, "ms", percentiles[98]),
    ]


async def _run(site: Site, daemons: int, jobs: int, seconds: float) -> tuple[float, list[float]]:
    """Seconds from the commit of the jobs to the last one done, and how many milliseconds the lane was locked, each time seen."""
    ours = site.ours
    await ours.clear()
    async with AsyncExitStack() as stack:
        workers = await ready(stack, [ours.worker(number, workers=WORKERS) for number in range(daemons)])
        over = asyncio.Event()
        began = await ours.fill(jobs, task="pause", payload={"seconds": seconds})
        watching = asyncio.create_task(watch(ours.dsn, over))
        ended = await ours.done(workers)
        over.set()
        holds = await watching
        await stop(workers, jobs)
    return ended - began, holds
