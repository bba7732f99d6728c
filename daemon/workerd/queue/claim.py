"""Claim: take queued jobs for a node under a lease."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg

from workerd.errors import NodeDead

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workerd.queue.database import Connection
    from workerd.queue.lane import Lane

BEGINNING = -(2**63)  # below every ticket
NODE_DEAD = "WD001"  # the SQLSTATE of that refusal
MAX_BATCH = 500  # more scattered tickets would bloat the lease row

_CLAIM = "SELECT * FROM workerd.claim($1, $2, $3, $4, $5, $6, $7, $8, $9)"
_PAYLOADS = "SELECT * FROM workerd.payloads($1, $2)"


@dataclass(slots=True, eq=False)
class Claimed:
    """A job that this node holds. (node, n) is the lease, `pos` the ticket: together the fence of every write about it."""

    node: int
    n: int
    lane: Lane
    pos: int
    id: int
    task: str
    attempt: int
    failures: int
    crashes: int
    max_retries: int | None
    key: str | None
    waited: float  # seconds between queued and claimed
    payload: str  # JSON
    split: int | None = None  # a lease to which it may have been moved: asked for, the answer not heard yet


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one claim: `lane` is None when every lane was empty from its low bound on; `last` is the highest ticket looked at."""

    lane: Lane | None
    last: int
    jobs: list[Claimed]


async def claim(
    connection: Connection, node: int, n: int, lanes: Sequence[tuple[Lane, int]], batch: int, tasks: Sequence[str],
    *, free: bool, alone: bool, last_chance: int,
) -> Answer:  # fmt: skip
    """Claim up to `batch` jobs of the first of `lanes` (each with its low bound) that has any.

    `free`: a worker waits, so a job with a crash may be taken; `alone`: also one whose crashes have reached `last_chance`.
    Raises NodeDead when the node was declared dead.
    """
    by_id = {lane.id: lane for lane, _ in lanes}
    try:
        rows = await connection.fetch(
            _CLAIM, node, n, list(by_id), [low for _, low in lanes], min(batch, MAX_BATCH), tasks, free, alone, last_chance
        )  # fmt: skip
    except asyncpg.PostgresError as error:
        if error.sqlstate == NODE_DEAD:
            raise NodeDead(str(error)) from error
        raise
    if not rows:
        return Answer(None, BEGINNING, [])
    lane = by_id[rows[0]["lane"]]
    if rows[0]["id"] is None:
        return Answer(lane, rows[0]["pos"] or BEGINNING, [])
    jobs = [Claimed(node, n, lane, *row[1:]) for row in rows]
    large = [job for job in jobs if not job.payload]
    if large:
        rows = await connection.fetch(_PAYLOADS, lane.id, [job.pos for job in large])
        payloads = {row["pos"]: row["payload"] for row in rows}
        for job in large:
            job.payload = payloads.get(job.pos, "")
    # a job without its row was taken back and ended elsewhere between the two queries: this node had been declared dead
    return Answer(lane, jobs[-1].pos, [job for job in jobs if job.payload])
