"""Changes of jobs by their ids: other arguments, place and time; queue again, remove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workerd.errors import JobError, NotFound
from workerd.queue.driver_errors import answered

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from workerd.job import AnyConnection

CHUNK = 500  # jobs of one statement
FAILURE_TTL = 30 * 86400.0  # seconds that a job which is cancelled by hand is kept

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
        coalesce($5::timestamptz, now() + $7::interval), $6)
    FROM workerd.job j WHERE j.id = $1
"""


async def change(connection: AnyConnection, job_id: int, payload: str | None, options: Mapping[str, Any]) -> str:
    """Give a job that has not started another payload (JSON), place or time; returns the state it was in.

    `options`: checked ones of an enqueue. Raises JobError when there is no such job, when it runs or has ended.
    """
    values = [options.get(name) for name in ("queue", "priority", "run_at", "max_retries", "delay")]
    while True:
        state: str | None = await answered(connection.fetchval(_CHANGE, job_id, payload, *values))
        if state in (None, "unknown"):
            raise NotFound(f"there is no job {job_id}")
        if state in ("running", "final"):
            raise JobError(f"job {job_id} {'runs' if state == 'running' else 'is finished'} already: it is not changed")
        if state != "again":
            return str(state)


async def cancel_one(connection: AnyConnection, job_id: int) -> str:
    """Cancel a job, whatever it does; returns the state it was found in. Raises JobError for an unknown or finished one."""
    state = (await answered(cancel(connection, [job_id], FAILURE_TTL)))[job_id]
    if state == "unknown":
        raise NotFound(f"there is no job {job_id}")
    if state == "final":
        raise JobError(f"job {job_id} is finished already")
    return state


async def retry_one(connection: AnyConnection, job_id: int) -> str:
    """Queue a failed, cancelled or scheduled job now; returns the state it was in. Raises JobError for any other."""
    state = (await answered(retry(connection, [job_id])))[job_id]
    refused = not_retried(job_id, state)
    if refused is not None:
        raise JobError(refused)
    return state


def not_retried(job_id: int, state: str) -> str | None:
    """Why `workerd.retry` did not queue a job, from what it answered; None when it did."""
    match state:
        case "unknown":
            return f"there is no job {job_id}"
        case "key taken":
            return f"job {job_id} cannot be retried: another job with its key is not finished"
        case "queued" | "running" | "succeeded":
            return f"job {job_id} is {state}: only failed, cancelled and scheduled jobs can be retried"
        case _:
            return None


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
