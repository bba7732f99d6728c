"""Steps that a job has behind it, with their results; written under the fence of its lease."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workerd import codec

if TYPE_CHECKING:
    from workerd.job import AnyConnection
    from workerd.queue.claim import Claimed

_STEPS = "SELECT name, result, at FROM workerd.step WHERE id = $1 ORDER BY at"
_KNOWN = "SELECT name, result FROM workerd.step WHERE id = $1"
# The first result holds, should an earlier attempt that does not know yet that it was given up write its own.
_KEEP = """
    INSERT INTO workerd.step (id, name, result)
    SELECT $4, $5, $6::jsonb FROM workerd.lease l WHERE l.node = $1 AND l.n = ANY ($2) AND l.tickets @> $3::bigint
    ON CONFLICT (id, name) DO UPDATE SET name = excluded.name RETURNING result
"""


async def known(connection: AnyConnection, job_id: int) -> dict[str, str]:
    """The results, as JSON, of a job's steps by their names."""
    return {row["name"]: row["result"] for row in await connection.fetch(_KNOWN, job_id)}


async def steps_of(connection: AnyConnection, job_id: int) -> list[dict[str, Any]]:
    """The steps that a job has behind it, in their order, as JSON-ready values."""
    rows = await connection.fetch(_STEPS, job_id)
    return [codec.as_json(row) | {"result": codec.loads(row["result"])} for row in rows]


async def keep(connection: AnyConnection, job: Claimed, name: str, result: str) -> str | None:
    """Keep a step's result; returns the one that holds, None when no lease of the node holds the job any more."""
    kept: str | None = await connection.fetchval(_KEEP, job.node, [job.n, job.split], job.pos, job.id, name, result)
    return kept
