"""Snapshot: a drain beside a transaction of another session that keeps vacuum from removing what is done."""

from __future__ import annotations

from contextlib import asynccontextmanager
from statistics import mean
from typing import TYPE_CHECKING

from workerctl.bench.drain import drain
from workerctl.bench.figure import Figure
from workerctl.bench.server import NAME
from workerctl.bench.site import MANY
from workerd.queue.database import connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any

    from workerctl.bench.site import Site


BESIDE = {
    "snapshot": ("an old snapshot", "repeatable_read", "SELECT count(*) FROM workerd.lane"),
    "xid": ("an old transaction with an id", "read_committed", "SELECT pg_current_xact_id()::text"),
}


async def snapshot(site: Site) -> list[Figure]:
    """Beside a transaction that has a snapshot and one that has an id, both older than the jobs; before and after that without."""
    jobs, who, figures = MANY * site.jobs, site.ours.title, []
    without = [await _drain(site, jobs)]
    rates = {}
    for held in site.in_order(list(BESIDE)):
        _, isolation, first = BESIDE[held]
        async with _transaction(site, isolation, first):
            rates[held] = await _drain(site, jobs)
    without.append(await _drain(site, jobs))
    for held, rate in rates.items():
        what, key = f"drain of {jobs:,} beside {BESIDE[held][0]}", f"drain_old_{held}"
        figures += [
            Figure(key, what, who, "jobs/s", rate),
            Figure(f"{key}_ratio", f"{what}, against without", who, "ratio", rate / mean(without)),
        ]
    return figures


async def _drain(site: Site, jobs: int) -> float:
    await site.ours.lay(jobs)
    return (await drain(site.ours, jobs)).rate


@asynccontextmanager
async def _transaction(site: Site, isolation: Any, first: str) -> AsyncIterator[None]:
    connection = await connect(site.ours.dsn, NAME)
    try:
        async with connection.transaction(isolation=isolation):
            await connection.fetchval(first)
            yield
    finally:
        await connection.close()
