"""Rescue: take jobs back from dead nodes. A node is dead by declaration; its leases are then free for all to take back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workerd.queue.quarantine import sifted

if TYPE_CHECKING:
    from datetime import datetime

    from workerd.queue.database import Connection

LOOK_LIMIT = 3.0  # seconds
MANAGER_SESSION = "worker manager {} maintenance"  # the name of the session that each manager has as long as it runs

# The lock of a node is looked at, not tried: a try could meet the node's own attempt to take it again. Silence counts only for a rescuer
# that has been connected for a while: after an outage of the database or of its network all were silent, and come back at their own pace.
# So it is with nodes that work through a manager: while none is connected, and a moment longer, their silence counts a minute later. When
# managers of another role came cannot be seen: they count as old.
_SUSPECTS = f"""
    WITH manager AS MATERIALIZED (
        SELECT CASE count(*) WHEN 0 THEN clock_timestamp() ELSE coalesce(min(backend_start), '-infinity') END AS since
        FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE '{MANAGER_SESSION.format("%")}'
    )
    SELECT n.id, n.name, n.beat,
        n.locked AND NOT EXISTS (SELECT FROM pg_locks k WHERE k.locktype = 'advisory' AND k.objsubid = 1
            AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND k.classid::bigint = n.id >> 32 AND k.objid::bigint = n.id & 4294967295) AS unlocked,
        clock_timestamp() - greatest(n.beat + make_interval(secs => 3 * n.heartbeat), s.backend_start + interval '5 s',
            CASE n.transport WHEN 'http' THEN least((SELECT since FROM manager) + interval '5 s',
                n.beat + make_interval(secs => 3 * n.heartbeat + 60)) END) > '0' AS silent,
        CASE WHEN pg_postmaster_start_time() > clock_timestamp() - make_interval(secs => 6 * n.heartbeat)
            THEN 3 * n.heartbeat ELSE 1 END AS grace
    FROM workerd.node n, pg_stat_get_activity(pg_backend_pid()) s WHERE n.dead_at IS NULL
"""  # noqa: S608 - made of constants
_DECLARE = (
    "UPDATE workerd.node SET dead_at = clock_timestamp() WHERE id = $1 AND beat = $2 AND dead_at IS NULL RETURNING true"
)

# The session that holds the node's lock tells which other ones are that daemon's, unless a living one has its name: one that took over.
_END_SESSIONS = """
    SELECT count(pg_terminate_backend(a.pid)) FROM pg_locks k JOIN pg_stat_activity l ON l.pid = k.pid
        JOIN pg_stat_activity a ON a.datname = l.datname AND a.client_addr IS NOT DISTINCT FROM l.client_addr
        JOIN workerd.node dead ON dead.id = $1
    WHERE k.locktype = 'advisory' AND k.objsubid = 1 AND l.datname = current_database()
        AND k.classid::bigint = $1::bigint >> 32 AND k.objid::bigint = $1::bigint & 4294967295
        AND l.application_name LIKE '% lease' AND a.pid <> pg_backend_pid() AND (
            a.pid = l.pid
            OR a.application_name IN (left(l.application_name, -6), left(l.application_name, -6) || ' pool',
                left(l.application_name, -6) || ' maintenance')
            AND NOT EXISTS (SELECT FROM workerd.node n WHERE n.name = dead.name AND n.dead_at IS NULL))
"""


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
    """All nodes that count as living, as they look now. Raises TimeoutError: what is seen late proves nothing."""
    return [Sight(*row) for row in await connection.fetch(_SUSPECTS, timeout=LOOK_LIMIT)]


async def declare_dead(connection: Connection, sight: Sight) -> bool:
    """Declare a node dead unless it has beaten since it was looked at."""
    async with connection.transaction():
        await connection.execute("SET LOCAL synchronous_commit = on")
        return await connection.fetchval(_DECLARE, sight.id, sight.beat) is not None


async def end_sessions(connection: Connection, node: int) -> int:
    """End what the server still takes for sessions of a dead node, since they keep locks; returns their number.

    Raises asyncpg.InsufficientPrivilegeError where they belong to another role.
    """
    count: int = await connection.fetchval(_END_SESSIONS, node)
    return count


@dataclass(frozen=True, slots=True)
class Rescued:
    node: str
    id: int
    task: str
    failed: bool  # it had crashed too often


async def rescue(connection: Connection, max_crashes: int, ttl: float) -> list[Rescued]:
    """Take back the jobs of every lease whose node does not live; up to 100 leases a call."""
    rows = await sifted(connection, "SELECT * FROM workerd.rescue(100, $1, $2)", max_crashes, ttl)
    return [Rescued(*row) for row in rows]
