"""Rescue: take jobs back from dead nodes. A node is dead by declaration; its leases are then free for all to take back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from workerd.queue.database import Connection

# The lock of a node is looked at, not tried: a try could meet the node's own attempt to take it again.
_SUSPECTS = """
    SELECT n.id, n.name, n.beat,
        n.locked AND NOT EXISTS (SELECT FROM pg_locks k WHERE k.locktype = 'advisory' AND k.objsubid = 1
            AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND k.classid::bigint = n.id >> 32 AND k.objid::bigint = n.id & 4294967295) AS unlocked,
        clock_timestamp() - n.beat > make_interval(secs => 3 * n.heartbeat) AS silent,
        CASE WHEN pg_postmaster_start_time() > clock_timestamp() - make_interval(secs => 6 * n.heartbeat)
            THEN 3 * n.heartbeat ELSE 1 END AS grace
    FROM workerd.node n WHERE n.dead_at IS NULL
"""
_DECLARE = (
    "UPDATE workerd.node SET dead_at = clock_timestamp() WHERE id = $1 AND beat = $2 AND dead_at IS NULL RETURNING true"
)


@dataclass(frozen=True, slots=True)
class Sight:
    """One look at a living node: whether its lock is free, whether its beat is overdue, seconds for which a free lock is forgiven."""

    id: int
    name: str
    beat: datetime
    unlocked: bool
    silent: bool
    grace: float


async def look(connection: Connection) -> list[Sight]:
    """All nodes that count as living, as they look now."""
    return [Sight(*row) for row in await connection.fetch(_SUSPECTS)]


async def declare_dead(connection: Connection, sight: Sight) -> bool:
    """Declare a node dead unless it has beaten since it was looked at."""
    async with connection.transaction():
        await connection.execute("SET LOCAL synchronous_commit = on")
        return await connection.fetchval(_DECLARE, sight.id, sight.beat) is not None


@dataclass(frozen=True, slots=True)
class Rescued:
    node: str
    id: int
    task: str
    failed: bool  # it had crashed too often


async def rescue(connection: Connection, max_crashes: int, ttl: float) -> list[Rescued]:
    """Take back the jobs of every lease whose node does not live; up to 100 leases a call."""
    return [
        Rescued(*row) for row in await connection.fetch("SELECT * FROM workerd.rescue(100, $1, $2)", max_crashes, ttl)
    ]
