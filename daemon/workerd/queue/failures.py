"""Failures by their fingerprint: what failed alike, how often, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workerd import codec

if TYPE_CHECKING:
    from workerd.job import AnyConnection

# Attempts that failed: those that ended their job, and those before them in the jobs' own lists. 'other' has no fingerprint: its
# node died too often, or an older version wrote it.
_FAILURES = """
    WITH ended AS (
        SELECT h.id, h.task, coalesce(h.fingerprint, 'other') AS fingerprint, h.error, h.finished_at AS at
        FROM workerd.history h WHERE h.state = 'failed' AND h.finished_at > now() - make_interval(secs => $1)
        UNION ALL
        SELECT j.id, j.task, a ->> 'fingerprint', a ->> 'error', (a ->> 'ended_at')::timestamptz
        FROM (
            SELECT id, task, attempts FROM workerd.history WHERE attempts IS NOT NULL AND finished_at > now() - make_interval(secs => $1)
            UNION ALL SELECT id, task, attempts FROM workerd.scheduled WHERE attempts IS NOT NULL
            UNION ALL SELECT id, task, attempts FROM workerd.ready WHERE attempts IS NOT NULL) AS j, jsonb_array_elements(j.attempts) AS a
        WHERE a ? 'fingerprint' AND (a ->> 'ended_at')::timestamptz > now() - make_interval(secs => $1))
    SELECT fingerprint, task, count(*) AS count, count(DISTINCT id) AS jobs, (array_agg(id ORDER BY at DESC))[1] AS example,
        (array_agg(split_part(error, E'\\n', 1) ORDER BY at DESC))[1] AS error, min(at) AS first_seen, max(at) AS last_seen
    FROM ended WHERE $2::text IS NULL OR task = $2
    GROUP BY fingerprint, task ORDER BY count DESC, last_seen DESC
"""


async def failures(connection: AnyConnection, hours: float, task: str | None) -> list[dict[str, Any]]:
    """The failed attempts of the last hours, those that failed alike together, the most frequent first; as JSON-ready values.

    `example` is the job that failed so last, `error` the first line that it said.
    """
    return [codec.as_json(row) for row in await connection.fetch(_FAILURES, hours * 3600, task)]
