"""Changes of many jobs in one statement: queue again, remove."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workerd.job import AnyConnection

_DELETE = """
    WITH gone AS (DELETE FROM workerd.history WHERE id = ANY ($1) RETURNING id),
    lines AS (DELETE FROM workerd.job_log WHERE id IN (SELECT id FROM gone))
    SELECT id FROM gone
"""
_RETRY = "SELECT id, workerd.retry(id) AS was FROM unnest($1::bigint[]) AS id"


async def delete(connection: AnyConnection, job_ids: Sequence[int]) -> set[int]:
    """Remove final jobs with what they logged; returns the ids of those that were there."""
    return {row[0] for row in await connection.fetch(_DELETE, job_ids)}


async def retry(connection: AnyConnection, job_ids: Sequence[int]) -> dict[int, str]:
    """Queue failed, cancelled and scheduled jobs now, in one transaction; for each what `workerd.retry` says of it."""
    return {row["id"]: row["was"] for row in await connection.fetch(_RETRY, job_ids)}
