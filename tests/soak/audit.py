"""What the database tells at the end: how the jobs ended, and how long they waited."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.soak.tasks import EXPECTED

if TYPE_CHECKING:
    import asyncpg

    DB = asyncpg.Connection[asyncpg.Record]

_ENDS = """
    SELECT e.task, h.state, h.attempt, h.failures, h.crashes, count(*), min(e.id) AS example
    FROM enqueued e LEFT JOIN workerd.history h USING (id) GROUP BY 1, 2, 3, 4, 5
"""
_UNKNOWN = "SELECT count(*) FROM workerd.history h WHERE NOT EXISTS (SELECT FROM enqueued e WHERE e.id = h.id)"
_TWICE = "SELECT count(*) FROM (SELECT id FROM workerd.history GROUP BY id HAVING count(*) > 1) AS twice"
_WAITS = """
    SELECT count(*) AS jobs, extract(epoch FROM max(finished_at) - min(enqueued_at))::float AS seconds,
        percentile_cont(array[0.5, 0.95, 0.99, 1]) WITHIN GROUP (ORDER BY extract(epoch FROM started_at - queued_at)) AS waits
    FROM workerd.history
"""


@dataclass(frozen=True)
class Waits:
    """Seconds from being queued to the start."""

    jobs: int
    rate: float  # jobs/s that have ended
    p50: float
    p95: float
    p99: float
    longest: float


async def wrong_ends(db: DB) -> list[str]:
    """Jobs that are not in the history, are in it twice, or ended otherwise than their task has to."""
    found = [
        f"{row['count']} jobs ended in another way than their task has to: {dict(row)}"
        for row in await db.fetch(_ENDS)
        if (row["state"], row["attempt"], row["failures"]) != EXPECTED[row["task"]] or row["crashes"]
    ]
    for what, query in (("are in the history, but were not enqueued", _UNKNOWN), ("ended twice", _TWICE)):
        if count := await db.fetchval(query):
            found.append(f"{count} jobs {what}")
    return found


async def waits(db: DB) -> Waits:
    row = await db.fetchrow(_WAITS)
    assert row is not None
    return Waits(row["jobs"], row["jobs"] / row["seconds"], *map(float, row["waits"]))
