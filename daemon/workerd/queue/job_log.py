"""What jobs log, kept with their attempts: written in batches, fenced by the lease."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

from workerd import codec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workerd.job import AnyConnection
    from workerd.job_lines import JobLines, Line
    from workerd.queue.claim import Claimed

CHUNK = 5000  # lines written by one statement

_WRITE = """
    INSERT INTO workerd.job_log (id, attempt, line, at, level, message)
    SELECT p.id, p.attempt, p.line, clock_timestamp() - make_interval(secs => p.age), p.level, p.message
    FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::int[], $7::int[], $8::float8[], $9::text[], $10::text[])
        AS p(n, split, pos, id, attempt, line, age, level, message)
    JOIN workerd.lease l ON l.node = $1 AND l.n IN (p.n, p.split) AND l.tickets @> p.pos
    ON CONFLICT DO NOTHING
"""
_LINES = "SELECT attempt, line, at, level, message FROM workerd.job_log WHERE id = $1 ORDER BY attempt, line"


async def write(connection: AnyConnection, node: int, logged: Sequence[tuple[Claimed, JobLines]]) -> None:
    """Write what attempts of one node have logged and not written yet; that of a rescued job is dropped."""
    rows = [(job, line) for job, lines in logged for line in lines.pending]
    for start in range(0, len(rows), CHUNK):
        await connection.execute(_WRITE, node, *_columns(rows[start : start + CHUNK]))
    done: dict[int, list[Line]] = {}
    for job, line in rows:
        done.setdefault(job.id, []).append(line)
    for job, lines in logged:
        lines.written(done.get(job.id, []))


async def lines_of(connection: AnyConnection, job_id: int) -> list[dict[str, Any]]:
    """The kept lines of a job in their order, as JSON-ready values."""
    rows = await connection.fetch(_LINES, job_id)
    return [codec.as_json(row) for row in rows]


def _columns(rows: Sequence[tuple[Claimed, Line]]) -> tuple[list[Any], ...]:
    now = monotonic()
    return (
        [job.n for job, _ in rows],
        [job.split for job, _ in rows],
        [job.pos for job, _ in rows],
        [job.id for job, _ in rows],
        [job.attempt for job, _ in rows],
        [line.number for _, line in rows],
        [now - line.at for _, line in rows],
        [line.level for _, line in rows],
        [line.message for _, line in rows],
    )
