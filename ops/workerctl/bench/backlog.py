"""Backlog: what a million jobs that a daemon has nothing to do with cost those that it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workerctl.bench.drain import drain
from workerctl.bench.figure import Figure
from workerctl.bench.ours import open_ours

if TYPE_CHECKING:
    from workerctl.bench.ours import Ours
    from workerctl.bench.site import Site

BACKLOG = 1_000_000
READY = 5000  # jobs
LOAD_LIMIT = 600.0  # seconds
ROUNDS = 5  # at most, with and without, each repetition: so short a drain varies

# So many copies of a job that is in history, but for the id.
_COPIES = """
    INSERT INTO workerd.history SELECT copy.* FROM (SELECT h FROM workerd.history h LIMIT 1) one, generate_series(1, $1::int),
        LATERAL jsonb_populate_record(one.h, jsonb_build_object('id', nextval('workerd.job_id'))) copy
"""
KINDS = {"scheduled": "scheduled", "other_queue": "waiting in another queue", "history": "in history"}


async def backlog(site: Site) -> list[Figure]:
    """A drain on a database with the backlog and on one without, in turns."""
    jobs, behind = min(READY, site.jobs), int(BACKLOG * site.part)
    figures = []
    async with open_ours(site.url, site.folder, "_backlog") as loaded:
        for kind, what in KINDS.items():
            await loaded.clear()
            await site.ours.clear()
            await _load(loaded, kind, behind)
            for number in range(max(1, round(ROUNDS * site.part))):
                pair = [site.ours, loaded] if (site.turn + number) % 2 else [loaded, site.ours]
                rates = {ours: await _drain(ours, jobs) for ours in pair}
                whole, key, who = f"drain of {jobs:,} beside {behind:,} {what}", f"backlog_{kind}", site.ours.title
                figures += [
                    Figure(key, whole, who, "jobs/s", rates[loaded]),
                    Figure(f"{key}_ratio", f"{whole}, against without", who, "ratio", rates[loaded] / rates[site.ours]),
                ]
    return figures


async def _load(ours: Ours, kind: str, jobs: int) -> None:
    if kind == "scheduled":
        await ours.fill(jobs, delay="1d")
    elif kind == "other_queue":
        await ours.fill(jobs, queue="other")
    else:
        await ours.keeping().fill(1)
        await drain(ours, 1)
        await ours.connection.execute(_COPIES, jobs, timeout=LOAD_LIMIT)
    await ours.connection.execute("VACUUM (ANALYZE)", timeout=LOAD_LIMIT)  # what autovacuum would do some time


async def _drain(ours: Ours, jobs: int) -> float:
    await ours.fill(jobs)
    return (await drain(ours, jobs)).rate
