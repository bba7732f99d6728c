"""Drain: how fast waiting jobs are done, by one daemon or several, also beside an old snapshot."""

from __future__ import annotations

import time
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from workerctl.bench.daemon import Daemon
from workerctl.bench.figure import Figure
from workerctl.bench.progress import all_done
from workerctl.bench.site import MANY, Site
from workerd.errors import WorkerdError
from workerd.queue import enqueue
from workerd.queue.database import connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

CHUNK = 20_000  # jobs a statement
DAEMONS = 4


async def few(site: Site) -> list[Figure]:
    """`jobs` jobs, without and with history."""
    return [
        *await _one(site, "drain_jobs", "noop", site.jobs, "no history"),
        *await _one(site, "drain_jobs_kept", "kept", site.jobs, "history kept"),
    ]


async def many(site: Site) -> list[Figure]:
    """Six times as many: long enough for what grows with the number of jobs to show."""
    return [
        *await _one(site, "drain_many", "noop", MANY * site.jobs, "no history"),
        *await _one(site, "drain_many_kept", "kept", MANY * site.jobs, "history kept"),
    ]


async def four(site: Site) -> list[Figure]:
    """Several daemons that are ready when the jobs appear, all in one commit."""
    jobs = MANY * site.jobs
    await site.clear()
    with ExitStack() as stack:
        daemons = [stack.enter_context(Daemon(site, f"bench{number}")) for number in range(DAEMONS)]
        for daemon in daemons:
            daemon.wait_ready()
        async with site.connection.transaction():
            await fill(site, "noop", jobs)
        began = time.monotonic()
        rate = await _rate(site, daemons, jobs, began)
    return [Figure("drain_four", f"drain of {jobs:,}, four daemons, no history", "jobs/s", rate)]


async def old_snapshot(site: Site) -> list[Figure]:
    """With and without a transaction that keeps vacuum from removing what is done."""
    jobs = MANY * site.jobs
    rates: dict[bool, float] = {}
    for held in (False, True) if site.turn % 2 else (True, False):  # neither gains from being second
        await site.clear()
        await fill(site, "noop", jobs)
        if held:
            async with _snapshot(site):
                rates[held], _ = await drain(site, jobs)
        else:
            rates[held], _ = await drain(site, jobs)
    what = f"drain of {jobs:,} beside an old snapshot"
    return [
        Figure("drain_old_snapshot", what, "jobs/s", rates[True]),
        Figure("drain_old_snapshot_ratio", f"{what}, against without", "ratio", rates[True] / rates[False]),
    ]


async def fill(site: Site, task: str, jobs: int) -> None:
    """Enqueue so many jobs of a task."""
    what = enqueue.options(task, None, None, None, None, None)
    for first in range(0, jobs, CHUNK):
        await enqueue.many(site.connection, what, ["{}"] * min(CHUNK, jobs - first))


async def drain(site: Site, jobs: int) -> tuple[float, float]:
    """Start a daemon on waiting jobs: its jobs/s from its readiness to the last one done, and its peak memory in MB."""
    with Daemon(site) as daemon:
        began = daemon.wait_ready()
        return await _rate(site, [daemon], jobs, began), daemon.peak_mb()


async def _one(site: Site, key: str, task: str, jobs: int, variant: str) -> list[Figure]:
    await site.clear()
    await fill(site, task, jobs)
    rate, peak = await drain(site, jobs)
    what = f"drain of {jobs:,}, {variant}"
    return [Figure(key, what, "jobs/s", rate), Figure(f"{key}_memory", f"{what}: peak memory", "MB", peak)]


async def _rate(site: Site, daemons: Sequence[Daemon], jobs: int, began: float) -> float:
    took = await all_done(daemons, jobs) - began
    left = await site.connection.fetchval("SELECT count(*) FROM workerd.ready")
    if left:
        raise WorkerdError(f"{jobs:,} jobs are done and {left:,} still wait: some ran twice")
    return jobs / took


@asynccontextmanager
async def _snapshot(site: Site) -> AsyncIterator[None]:
    connection = await connect(site.dsn, "workerctl bench snapshot")
    try:
        async with connection.transaction(isolation="repeatable_read"):
            await connection.fetchval("SELECT count(*) FROM workerd.lane")  # takes the snapshot
            yield
    finally:
        await connection.close()
