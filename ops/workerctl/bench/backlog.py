"""Backlog: what a million jobs that are not due yet cost those that are."""

from __future__ import annotations

from workerctl.bench.drain import drain, fill
from workerctl.bench.figure import Figure
from workerctl.bench.site import MANY, Site

BACKLOG = 1_000_000

_INSERT = """
    INSERT INTO workerd.scheduled (id, lane, run_at, task, payload)
    SELECT nextval('workerd.job_id'), workerd.lane_of('default', 0), now() + interval '1 day' + n * interval '1 second', 'noop', '{}'
    FROM generate_series(1, $1::int) n
"""


async def backlog(site: Site) -> list[Figure]:
    """A drain with and without the backlog."""
    jobs = MANY * site.jobs
    rates: dict[bool, float] = {}
    for behind in (False, True) if site.turn % 2 else (True, False):  # neither gains from being second
        await site.clear()
        if behind:
            await site.connection.execute(_INSERT, BACKLOG, timeout=600)
        await fill(site, "noop", jobs)
        rates[behind], _ = await drain(site, jobs)
    what = f"drain of {jobs:,} beside {BACKLOG:,} scheduled jobs"
    return [
        Figure("backlog", what, "jobs/s", rates[True]),
        Figure("backlog_ratio", f"{what}, against without", "ratio", rates[True] / rates[False]),
    ]
