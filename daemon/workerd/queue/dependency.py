"""Dependencies: which jobs a job waits for, and what they came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workerd import codec

if TYPE_CHECKING:
    from workerd.job import AnyConnection

_RESULTS = """
    SELECT d.parent, h.result FROM workerd.dependency d LEFT JOIN workerd.history h ON h.id = d.parent AND h.state = 'succeeded'
    WHERE d.child = $1 ORDER BY d.parent
"""
# As far as the jobs around it reach in both directions, the nearest first.
_GRAPH = """
    WITH RECURSIVE up AS (
        SELECT d.parent, d.child, 1 AS depth FROM workerd.dependency d WHERE d.child = $1
        UNION SELECT d.parent, d.child, up.depth + 1 FROM up JOIN workerd.dependency d ON d.child = up.parent WHERE up.depth < 20),
    down AS (
        SELECT d.parent, d.child, 1 AS depth FROM workerd.dependency d WHERE d.parent = $1
        UNION SELECT d.parent, d.child, down.depth + 1 FROM down JOIN workerd.dependency d ON d.parent = down.child WHERE down.depth < 20)
    SELECT e.parent, e.child, min(e.depth) AS depth FROM (SELECT * FROM up UNION ALL SELECT * FROM down) e
    GROUP BY e.parent, e.child ORDER BY min(e.depth), e.parent, e.child LIMIT $2
"""
_JOBS = "SELECT id, task, state FROM workerd.job WHERE id = ANY ($1) ORDER BY id"


async def results(connection: AnyConnection, job_id: int) -> dict[int, Any]:
    """What the jobs came to that a job waited for, by their ids in the order of their enqueueing; None where one has no result."""
    rows = await connection.fetch(_RESULTS, job_id)
    return {row["parent"]: None if row["result"] is None else codec.loads(row["result"]) for row in rows}


@dataclass(frozen=True)
class Graph:
    """Jobs around one: `edges` from a job to one that waits for it, and of the `jobs` that are kept `id`, `task` and `state`."""

    edges: list[tuple[int, int]]
    jobs: list[dict[str, Any]]


async def graph(connection: AnyConnection, job_id: int, most: int) -> Graph:
    """The jobs that a job waits for, and those that wait for it, of up to `most` edges."""
    edges = [(row["parent"], row["child"]) for row in await connection.fetch(_GRAPH, job_id, most)]
    rows = await connection.fetch(_JOBS, sorted({job for edge in edges for job in edge}))
    return Graph(edges, [dict(row) for row in rows])
