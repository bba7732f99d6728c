"""The condition of the server: what makes work slower for everybody, cheap enough to be asked every few seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workerd.job import AnyConnection

LIMIT = 1.0  # seconds; the leader has other things to do

# By the server's own statistics: no table is read. Partitions of the history are left out, for they are dropped, not vacuumed.
_ROWS = r"""
    SELECT s.relname, s.n_live_tup, s.n_dead_tup,
        NOT coalesce(c.reloptions && '{autovacuum_enabled=false,autovacuum_enabled=off,autovacuum_enabled=0,autovacuum_enabled=no}', false)
    FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid
    WHERE s.schemaname = 'workerd' AND s.relname NOT LIKE 'history\_%' ORDER BY s.relname
"""
# Dead rows stay while a snapshot may see them, whoever holds it: a session of this database, or a prepared transaction. An autovacuum of
# a large table may take hours, and holds none back.
_OLDEST = """
    WITH held AS (
        SELECT xact_start AS since, backend_xmin IS NOT NULL OR backend_xid IS NOT NULL AS sees FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
            AND backend_type IS DISTINCT FROM 'autovacuum worker'
        UNION ALL SELECT prepared, true FROM pg_prepared_xacts WHERE database = current_database())
    SELECT coalesce(extract(epoch FROM now() - min(since)), 0)::float8,
        coalesce(extract(epoch FROM now() - min(since) FILTER (WHERE sees)), 0)::float8 FROM held
"""
_NODES = """
    SELECT count(*) FILTER (WHERE dead_at IS NULL AND NOT draining) AS alive,
        count(*) FILTER (WHERE dead_at IS NULL AND draining) AS draining,
        count(*) FILTER (WHERE dead_at IS NOT NULL AND NOT stopped) AS dead
    FROM workerd.node WHERE (dead_at IS NULL OR dead_at > now() - interval '1 day') AND forgotten_at IS NULL
"""
_QUARANTINED = "SELECT count(*) FROM workerd.quarantined WHERE at > now() - interval '1 day'"


@dataclass(frozen=True, slots=True)
class Rows:
    """What a table holds; `vacuumed`: autovacuum is not switched off for it."""

    table: str
    live: int
    dead: int
    vacuumed: bool


@dataclass(frozen=True, slots=True)
class Condition:
    dead_rows: dict[str, int]  # by table
    oldest_transaction: float  # seconds for which the oldest one has been open; 0: none is
    oldest_snapshot: float  # seconds for which the oldest one that keeps dead rows has been held; 0: none is
    nodes: dict[str, int]  # by state, as `workerctl nodes list` has them
    quarantined: int  # jobs within the last day


async def condition(connection: AnyConnection) -> Condition:
    """What the server tells. Sessions of other roles are seen by members of pg_read_all_stats only. Raises TimeoutError."""
    dead_rows = {each.table: each.dead for each in await rows(connection)}
    [(transaction, snapshot)] = await connection.fetch(_OLDEST, timeout=LIMIT)
    [nodes] = await connection.fetch(_NODES, timeout=LIMIT)
    quarantined = await connection.fetchval(_QUARANTINED, timeout=LIMIT)
    return Condition(dead_rows, max(0.0, transaction), max(0.0, snapshot), dict(nodes), quarantined)


async def rows(connection: AnyConnection) -> list[Rows]:
    """Of each table but the history. Raises TimeoutError."""
    return [Rows(*row) for row in await connection.fetch(_ROWS, timeout=LIMIT)]
