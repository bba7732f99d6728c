"""Finish: end attempts, whatever their outcome; give back what was not started."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from workerd.codec import storable
from workerd.fingerprint import LONGEST, fingerprint

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg

    from workerd.job import AnyConnection
    from workerd.job_lines import JobLines
    from workerd.outcomes import Outcome
    from workerd.queue.claim import Claimed

_FINISH = "SELECT workerd.finish($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
_FINISH_SUCCEEDED = "SELECT * FROM workerd.finish_succeeded($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
_OWN_LEASES = """
    SELECT n, array(SELECT workerd.positions(tickets)) AS tickets, array(SELECT workerd.positions(cancel)) AS cancel
    FROM workerd.lease WHERE node = $1
"""


@dataclass(slots=True, eq=False)
class Finished:
    """An attempt that ended.

    `started` is monotonic, `ran` is seconds, `ttl` the seconds to keep the job (0: not at all), `progress` the last one reported,
    `lines` what the job has logged.

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
    lines: JobLines | None = None

    @property
    def succeeded(self) -> bool:
        return self.outcome.ending == "succeeded"

    @property
    def is_plain(self) -> bool:
        """Whether a success leaves nothing behind: neither history nor a key, progress or a slot."""
        return not self.ttl and self.job.key is None and self.progress is None and self.job.options is None


def is_good(end: Finished) -> bool:
    """Whether `cycle` can write it: a success, in the lease of its claim, with nothing to be written before."""
    return end.succeeded and end.job.split is None and end.lines is None


async def finish(connection: AnyConnection, node: int, ended: Sequence[Finished]) -> list[bool]:
    """Write the ends of attempts of one node; for each whether its lease still held it. A False had been rescued and changed nothing."""
    good = [end for end in ended if end.succeeded]
    others = [end for end in ended if not end.succeeded]
    held: dict[Finished, bool] = {}
    if good:
        row = await connection.fetchrow(_FINISH_SUCCEEDED, node, *succeeded(good))
        assert row is not None
        held.update(zip(good, owned(good, row), strict=True))
    if others:
        held.update(zip(others, await _finish_any(connection, node, others), strict=True))
    return [held[end] for end in ended]


def succeeded(ended: Sequence[Finished]) -> tuple[list[Any], ...]:
    """The arguments by which `workerd.finish_succeeded` is told of ends: ranges of tickets that leave nothing, and columns of the rest."""
    plain = defaultdict[int, list[int]](list)
    kept = []
    for end in ended:
        if end.is_plain:
            plain[end.job.n].append(end.job.pos)
        else:
            kept.append(end)
    ranges: list[tuple[int, int, int]] = [(n, *pair) for n, tickets in plain.items() for pair in _ranges(tickets)]
    now = monotonic()
    return (
        [n for n, _, _ in ranges],
        [first for _, first, _ in ranges],
        [behind for _, _, behind in ranges],
        [end.job.n for end in kept],
        [end.job.pos for end in kept],
        [now - end.started for end in kept],
        [end.outcome.result for end in kept],
        [end.ttl for end in kept],
        [end.progress for end in kept],
    )


def _ranges(tickets: list[int]) -> list[tuple[int, int]]:
    """Tickets as ranges, from the first one up to but not including the second."""
    tickets.sort()
    if tickets[-1] - tickets[0] == len(tickets) - 1:
        return [(tickets[0], tickets[-1] + 1)]
    ranges = []
    first = before = tickets[0]
    for ticket in tickets[1:]:
        if ticket > before + 1:
            ranges.append((first, before + 1))
            first = ticket
        before = ticket
    return [*ranges, (first, before + 1)]


def owned(ended: Sequence[Finished], row: asyncpg.Record) -> list[bool]:
    """For each end whether its lease still held it, from what `workerd.finish_succeeded` answered."""
    if not row["lost_n"]:
        return [True] * len(ended)
    lost = set(zip(row["lost_n"], row["lost_pos"], strict=True))
    return [(end.job.n, end.job.pos) not in lost for end in ended]


async def _finish_any(connection: AnyConnection, node: int, ended: Sequence[Finished]) -> list[bool]:
    now = monotonic()
    columns: tuple[list[Any], ...] = tuple([] for _ in range(10))
    for end in ended:
        error = None if end.outcome.error is None else storable(end.outcome.error[:LONGEST])
        values = (
            end.job.n,
            end.job.pos,
            end.outcome.ending,
            end.outcome.result,
            error,
            end.outcome.delay,
            now - end.started,
            end.ttl,
            end.progress,
            fingerprint(error) if error is not None and end.outcome.ending in ("failed", "retry") else None,
        )
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    owned = set(await connection.fetchval(_FINISH, node, *columns))
    return [place + 1 in owned for place in range(len(ended))]


async def give_back(connection: AnyConnection, node: int, n: int, positions: list[int] | None, ttl: float) -> int:
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


async def own_leases(connection: AnyConnection, node: int) -> list[Lease]:
    """What the database says that this node holds, with the tickets whose cancellation was asked for."""
    return [
        Lease(row["n"], frozenset(row["tickets"]), frozenset(row["cancel"]))
        for row in await connection.fetch(_OWN_LEASES, node)
    ]
