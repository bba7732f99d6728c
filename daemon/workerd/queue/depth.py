"""Depth: how many jobs wait in each queue, asked again and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workerd.queue.database import Connection

LIMIT = 1.0  # seconds; the leader has other things to do

DEPTHS = """
    WITH held AS MATERIALIZED (SELECT lane, range_agg(tickets) AS tickets FROM workerd.lease GROUP BY lane),
    lanes AS (
        SELECT l.id, l.queue, coalesce(h.tickets, '{}') AS tickets FROM workerd.lane l LEFT JOIN held h ON h.lane = l.id),
    waiting AS MATERIALIZED (
        SELECT lane, count(*) FILTER (WHERE waits IS NULL) AS scheduled, count(*) FILTER (WHERE waits = 'jobs') AS blocked,
            count(*) FILTER (WHERE waits = 'limit') AS in_line, min(run_at) FILTER (WHERE waits = 'limit') AS oldest
        FROM workerd.scheduled GROUP BY lane),
    counted AS (
        SELECT l.queue, r.n + coalesce(s.in_line, 0) AS ready, coalesce(c.n, 0) AS running, coalesce(s.scheduled, 0) AS scheduled,
            coalesce(s.blocked, 0) AS blocked, least(o.queued_at, s.oldest) AS queued_at
        FROM lanes l LEFT JOIN waiting s ON s.lane = l.id, LATERAL (SELECT count(*) AS n FROM workerd.ready r WHERE r.lane = l.id) r,
            LATERAL (SELECT sum(upper(t) - lower(t)) AS n FROM unnest(l.tickets) t) c
            LEFT JOIN LATERAL (
                SELECT r.queued_at FROM workerd.ready r WHERE r.lane = l.id AND NOT r.pos <@ l.tickets ORDER BY r.pos LIMIT 1) o ON true)
    SELECT queue, sum(ready - running)::bigint AS queued, sum(running)::bigint AS running, sum(scheduled)::bigint AS scheduled,
        sum(blocked)::bigint AS blocked,
        CASE WHEN bool_or(isfinite(queued_at)) THEN
            greatest(extract(epoch FROM now() - min(queued_at) FILTER (WHERE isfinite(queued_at))), 0)::double precision END AS oldest
    FROM counted GROUP BY queue ORDER BY queue
"""


@dataclass(frozen=True, slots=True)
class Depth:
    queue: str
    queued: int
    running: int
    scheduled: int
    blocked: int
    oldest: float | None  # seconds for which the first in line has been queued; None: none waits


async def depths(connection: Connection) -> list[Depth]:
    """The depth of each queue. Raises TimeoutError when there are too many jobs to be counted within LIMIT."""
    return [Depth(*row) for row in await connection.fetch(DEPTHS, timeout=LIMIT)]
