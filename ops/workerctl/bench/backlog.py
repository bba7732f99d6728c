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
ROUNDS = 5  # with and without, each repetition: so short a drain varies

_SCHEDULED = """
    INSERT INTO workerd.scheduled (id, lane, run_at, task, payload)
    SELECT nextval('workerd.job_id'), workerd.lane_of('default', 0), now() + interval '1 day' + n * interval '1 second', 'noop', '{}'
    FROM generate_series(1, $1::int) n
"""
_OTHER_QUEUE = """
    INSERT INTO workerd.ready (lane, id, task, payload)
    SELECT workerd.lane_of('other', 0), nextval('workerd.job_id'), 'noop', '{}' FROM generate_series(1, $1::int) n
"""
_HISTORY = """
    INSERT INTO workerd.history (id, expires_on, lane, state, attempt, failures, crashes, enqueued_at, queued_at, started_at, task, payload)
    SELECT nextval('workerd.job_id'), (SELECT max(day) FROM workerd.history_day), workerd.lane_of('default', 0), 'succeeded', 1, 0, 0,
        now(), now(), now(), 'noop', '{}'
    FROM generate_series(1, $1::int) n
"""
KINDS = {
    "scheduled": ("scheduled", _SCHEDULED),
    "other_queue": ("waiting in another queue", _OTHER_QUEUE),
    "history": ("in history", _HISTORY),
}


async def backlog(site: Site) -> list[Figure]:
    """A drain on a database with the backlog and on one without, in turns."""
    jobs, behind = min(READY, site.jobs), int(BACKLOG * site.part)
    figures = []
    async with open_ours(site.url, site.folder, "_backlog") as loaded:
        for kind, (what, insert) in KINDS.items():
            await loaded.clear()
            await site.ours.clear()
            await loaded.connection.execute(insert, behind, timeout=600)
            await loaded.connection.execute("VACUUM (ANALYZE)", timeout=600)  # what autovacuum would do some time
            for number in range(ROUNDS):
                pair = [site.ours, loaded] if (site.turn + number) % 2 else [loaded, site.ours]
                rates = {ours: await _drain(ours, jobs) for ours in pair}
                whole, key, who = f"drain of {jobs:,} beside {behind:,} {what}", f"backlog_{kind}", site.ours.title
                figures += [
                    Figure(key, whole, who, "jobs/s", rates[loaded]),
                    Figure(f"{key}_ratio", f"{whole}, against without", who, "ratio", rates[loaded] / rates[site.ours]),
                ]
    return figures


async def _drain(ours: Ours, jobs: int) -> float:
    await ours.fill(jobs)
    return (await drain(ours, jobs)).rate
