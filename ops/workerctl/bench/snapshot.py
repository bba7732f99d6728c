"""Snapshot: a drain beside a transaction of another session that keeps vacuum from removing what is done."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING

from workerctl.bench.drain import drain
from workerctl.bench.figure import Figure
from workerctl.bench.server import NAME
from workerctl.bench.site import MANY
from workerd.queue.database import connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import Any

    from workerctl.bench.site import Site


async def snapshot(site: Site) -> list[Figure]:
    """Without one, beside an old snapshot, and beside a transaction that has an id; all of them older than the jobs."""
    jobs = MANY * site.jobs
    beside: dict[str, Callable[[], AbstractAsyncContextManager[Any]]] = {
        "": nullcontext,
        "snapshot": lambda: _transaction(site, "repeatable_read", "SELECT count(*) FROM workerd.lane"),
        "xid": lambda: _transaction(site, "read_committed", "SELECT pg_current_xact_id()::text"),
    }
    rates = {}
    for held in site.in_order(list(beside)):
        async with beside[held]():
            await site.ours.lay(jobs)
            rates[held] = (await drain(site.ours, jobs)).rate
    figures = []
    for held, what in (("snapshot", "beside an old snapshot"), ("xid", "beside an old transaction with an id")):
        whole, key, who = f"drain of {jobs:,} {what}", f"drain_old_{held}", site.ours.title
        figures += [
            Figure(key, whole, who, "jobs/s", rates[held]),
            Figure(f"{key}_ratio", f"{whole}, against without", who, "ratio", rates[held] / rates[""]),
        ]
    return figures


@asynccontextmanager
async def _transaction(site: Site, isolation: Any, first: str) -> AsyncIterator[None]:
    connection = await connect(site.ours.dsn, NAME)
    try:
        async with connection.transaction(isolation=isolation):
            await connection.fetchval(first)
            yield
    finally:
        await connection.close()
