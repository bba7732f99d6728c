"""Changes of jobs by their ids: other arguments, place and time; queue again, remove."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workerd.errors import JobError, NotFound
from workerd.queue.driver_errors import answered

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from workerd.job import AnyConnection

CHUNK = 500  # jobs of one statement

_DELETE = """
    WITH gone AS (DELETE FROM workerd.history WHERE id = ANY ($1) RETURNING id),
    lines AS (DELETE FROM workerd.job_log WHERE id IN (SELECT id FROM gone))
    SELECT id FROM gone
"""
_CANCEL = "SELECT id, workerd.cancel(id, $2) AS was FROM unnest($1::bigint[]) AS id"
_RETRY = "SELECT id, workerd.retry(id) AS was FROM unnest($1::bigint[]) AS id"


# What is not given stays as it is.
_CHANGE = """
    SELECT workerd.change(j.id, $2::jsonb,
        CASE WHEN $3::text IS NOT NULL OR $4::int IS NOT NULL
            THEN workerd.lane_of(coalesce($3, j.queue), coalesce($4, j.priority), j.pinned) END,
        $5, $6)
    FROM workerd.job j WHERE j.id = $1
"""


async def change(
    connection: AnyConnection, job_id: int, payload: str | None, queue: str | None, priority: int | None, run_at: datetime | None,
    max_retries: int | None,
) -> str:  # fmt: skip
    """Give a job that has not started another payload (JSON), place or time; returns the state it was in.

    Raises JobError when there is none, when it runs or has ended.
    """
    while True:
        state: str | None = await answered(
            connection.fetchval(_CHANGE, job_id, payload, queue, priority, run_at, max_retries)
        )
        if state in (None, "unknown"):
            raise NotFound(f"there is no job {job_id}")
        if state in ("running", "final"):
            raise JobError(f"job {job_id} {'runs' if state == 'running' else 'is finished'} already: it is not changed")
        if state != "again":
            return str(state)


async def delete(connection: AnyConnection, job_ids: Sequence[int]) -> set[int]:
    """Remove final jobs with what they logged; returns the ids of those that were there."""
    return {row[0] for row in await connection.fetch(_DELETE, job_ids)}


async def retry(connection: AnyConnection, job_ids: Sequence[int]) -> dict[int, str]:
    """Queue failed, cancelled and scheduled jobs now, in one transaction; for each what `workerd.retry` says of it."""
    return {row["id"]: row["was"] for row in await connection.fetch(_RETRY, job_ids)}


async def cancel(connection: AnyConnection, job_ids: Sequence[int], ttl: float) -> dict[int, str]:
    """Cancel jobs, whatever they do; for each the state it was found in, `unknown` or `final`. `ttl`: seconds to keep those that waited."""
    was: dict[int, str] = {}
    while left := [job for job in job_ids if was.get(job, "again") == "again"]:
        was.update({row["id"]: row["was"] for row in await connection.fetch(_CANCEL, left, ttl)})
    return was
