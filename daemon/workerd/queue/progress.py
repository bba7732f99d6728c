"""Progress of running jobs, written in batches and fenced by the lease."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workerd.codec import storable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workerd.job import AnyConnection
    from workerd.queue.claim import Claimed

_REPORT = """
    INSERT INTO workerd.progress (id, fraction, message)
    SELECT p.id, p.fraction, p.message
    FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::real[], $6::text[]) AS p(n, pos, id, fraction, message)
    JOIN workerd.lease l ON l.node = $1 AND l.n = p.n AND l.tickets @> p.pos
    ON CONFLICT (id) DO UPDATE SET fraction = excluded.fraction, message = excluded.message, at = clock_timestamp()
"""
_WATCHED = "SELECT pg_notify('workerd', 'watched')"


@dataclass(frozen=True, slots=True)
class Progress:
    job: Claimed
    fraction: float
    message: str | None


async def report(connection: AnyConnection, node: int, reports: Sequence[Progress]) -> None:
    """Write the newest progress of each job; that of a rescued job is dropped."""
    await connection.execute(
        _REPORT,
        node,
        [r.job.n for r in reports],
        [r.job.pos for r in reports],
        [r.job.id for r in reports],
        [r.fraction for r in reports],
        [None if r.message is None else storable(r.message) for r in reports],
    )


async def watched(connection: AnyConnection) -> None:
    """Let all nodes know that somebody looks, for the next seconds: they write more often."""
    await connection.execute(_WATCHED)
