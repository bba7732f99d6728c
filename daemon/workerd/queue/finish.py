"""Finish: end attempts, whatever their outcome; give back what was not started."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from workerd.codec import storable
from workerd.outcomes import SUCCEEDED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workerd.job import AnyConnection
    from workerd.outcomes import Outcome
    from workerd.queue.claim import Claimed
    from workerd.queue.database import Connection

_FINISH = "SELECT workerd.finish($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
_FINISH_PLAIN = "SELECT workerd.finish_plain($1, $2, $3)"
_OWN_LEASES = """
    SELECT n, array(SELECT workerd.positions(tickets)) AS tickets, array(SELECT workerd.positions(cancel)) AS cancel
    FROM workerd.lease WHERE node = $1
"""


@dataclass(slots=True, eq=False)
class Finished:
    """An attempt that ended.

    `started` is monotonic, `ran` is seconds, `ttl` the seconds to keep the job (0: not at all), `progress` the last one reported.

    `committed`: the handler has finished the job in a transaction of its own, so that its lease is expected to be gone; where that
    transaction was rolled back, this outcome counts.
    """

    job: Claimed
    outcome: Outcome
    started: float
    ran: float
    ttl: float
    progress: float | None
    committed: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether it leaves nothing behind: neither history nor a key, progress or another attempt."""
        return self.outcome is SUCCEEDED and not self.ttl and self.job.key is None and self.progress is None


async def finish(connection: AnyConnection, node: int, ended: Sequence[Finished]) -> list[bool]:
    """Write the ends of attempts of one node; for each whether its lease still held it. A False had been rescued and changed nothing."""
    plain: list[Finished] = []
    others: list[Finished] = []
    for end in ended:
        (plain if end.is_plain else others).append(end)
    owned = set()
    if plain:
        fences = ([end.job.n for end in plain], [end.job.pos for end in plain])
        owned = set(await connection.fetchval(_FINISH_PLAIN, node, *fences))
    rest = dict(zip(map(id, others), await _finish_any(connection, node, others), strict=True)) if others else {}
    return [rest.get(id(end), end.job.pos in owned) for end in ended]


async def _finish_any(connection: AnyConnection, node: int, ended: Sequence[Finished]) -> list[bool]:
    now = monotonic()
    columns: tuple[list[Any], ...] = tuple([] for _ in range(9))
    for end in ended:
        values = (
            end.job.n,
            end.job.pos,
            end.outcome.ending,
            end.outcome.result,
            None if end.outcome.error is None else storable(end.outcome.error),
            end.outcome.delay,
            now - end.started,
            end.ttl,
            end.progress,
        )
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    owned = set(await connection.fetchval(_FINISH, node, *columns))
    return [place + 1 in owned for place in range(len(ended))]


async def give_back(connection: Connection, node: int, n: int, positions: list[int] | None, ttl: float) -> int:
    """Give back tickets of a lease that were not started (None: the whole lease); returns how many are free again."""
    return len(await connection.fetchval("SELECT workerd.give_back($1, $2, $3, $4)", node, n, positions, ttl))


async def split(connection: AnyConnection, job: Claimed, n: int) -> bool:
    """Move a job into a lease `n` of its own; False when it was rescued."""
    moved: bool = await connection.fetchval("SELECT workerd.split_lease($1, $2, $3, $4)", job.node, job.n, job.pos, n)
    return moved


async def holds(connection: AnyConnection, job: Claimed, n: int) -> bool:
    """Whether the job is in the lease `n` of its node."""
    held: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM workerd.lease WHERE node = $1 AND n = $2 AND tickets @> $3::bigint)",
        job.node,
        n,
        job.pos,
    )
    return held


@dataclass(frozen=True, slots=True)
class Lease:
    n: int
    tickets: frozenset[int]
    cancel: frozenset[int]


async def own_leases(connection: Connection, node: int) -> list[Lease]:
    """What the database says that this node holds, with the tickets whose cancellation was asked for."""
    return [
        Lease(row["n"], frozenset(row["tickets"]), frozenset(row["cancel"]))
        for row in await connection.fetch(_OWN_LEASES, node)
    ]
