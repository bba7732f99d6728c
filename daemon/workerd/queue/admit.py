"""Admission: jobs that wait for others, or for their turn under a limit, are let into the ready table by the leader alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from workerd.queue.quarantine import sifted

if TYPE_CHECKING:
    from workerd.queue.database import Connection

ROWS = 1000  # jobs that are moved at once
LIMIT = 10.0  # seconds for one call

_LOOK = """
    SELECT EXISTS (SELECT FROM workerd.unlooked) OR EXISTS (SELECT FROM workerd.dependency WHERE news) AS children,
        EXISTS (SELECT FROM workerd.slot) OR EXISTS (SELECT FROM workerd.scheduled WHERE waits = 'limit') AS lines,
        (SELECT coalesce(sum(workers), 0)::int FROM workerd.node WHERE dead_at IS NULL AND NOT draining) AS workers,
        array(SELECT name FROM workerd.task WHERE limited ORDER BY name) AS tasks,
        array(SELECT id FROM workerd.lane WHERE limited ORDER BY id) AS lanes
"""
_SETTLE = "SELECT workerd.settle($1, $2, $3)"
_ADMIT = "SELECT * FROM workerd.admit($1, $2)"
_HOLD_BACK = "SELECT workerd.hold_back($1, $2, $3)"
_LANES = "SELECT id FROM workerd.lane"
# The key of `workerd.wake_leader`: whoever lets somebody wait tells a leader that sleeps.
_SLEEP = "SELECT pg_advisory_lock_shared('workerd.queue'::regclass::oid::int, 64)"
_RISE = "SELECT pg_advisory_unlock_shared('workerd.queue'::regclass::oid::int, 64)"


class Waiting(NamedTuple):
    """What there is to do: for jobs with parents, for lines; the workers of the fleet; the tasks and lanes that are limited."""

    children: bool
    lines: bool
    workers: int
    tasks: list[str]
    lanes: list[int]


class Admitted(NamedTuple):
    """How many were let in, how many have been and not started, and the seconds until a rate allows the next one."""

    admitted: int
    queued: int
    next_in: float | None


async def look(connection: Connection) -> Waiting:
    """See whether there is anything to do."""
    row = await connection.fetchrow(_LOOK, timeout=LIMIT)
    assert row is not None
    return Waiting(*row)


async def settle(connection: Connection, node: int, ttl: float) -> int:
    """Decide about jobs whose parents ended; returns how many were looked at.

    `node` is who ends batches; jobs that cannot run any more are kept for `ttl` seconds.
    """
    [(settled,)] = await sifted(connection, _SETTLE, ROWS, node, ttl, timeout=LIMIT)
    return int(settled)


async def admit(connection: Connection, ahead: int) -> Admitted:
    """Let in whom the limits allow; of each task at most `ahead` jobs that have not started."""
    [row] = await sifted(connection, _ADMIT, ROWS, ahead, timeout=LIMIT)
    return Admitted(*row)


async def lane_ids(connection: Connection) -> list[int]:
    """All lanes."""
    return [row["id"] for row in await connection.fetch(_LANES, timeout=LIMIT)]


async def hold_back(connection: Connection, lane: int, since: int) -> int | None:
    """Send jobs that were queued before their limit into their lines; returns the ticket to go on behind, None at the end of the lane."""
    [row] = await sifted(connection, _HOLD_BACK, lane, since, ROWS, timeout=LIMIT)
    until: int | None = row[0]
    return until


async def sleep(connection: Connection) -> None:
    """From now on who lets somebody wait notifies."""
    await connection.execute(_SLEEP, timeout=LIMIT)


async def rise(connection: Connection) -> None:
    """Notifications are needed no more."""
    await connection.execute(_RISE, timeout=LIMIT)
