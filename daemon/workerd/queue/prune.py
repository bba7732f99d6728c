"""Prune: remove what is past its TTL, by dropping whole partitions of the history."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from workerd.job import AnyConnection
    from workerd.queue.database import Connection

# One migration or pruner at a time may change partitions.
_LOCK = "SELECT pg_advisory_xact_lock('workerd.history'::regclass::oid::int, 0)"
_MISSING = """
    SELECT EXISTS (
        SELECT (now() AT TIME ZONE 'UTC' + make_interval(secs => ttl))::date + ahead
        FROM unnest($1::float8[]) ttl, generate_series(1, 3) ahead
        EXCEPT SELECT day FROM workerd.history_day)
"""
_EXPIRED = (
    "SELECT day FROM workerd.history_day WHERE day < (now() AT TIME ZONE 'UTC')::date AND isfinite(day) ORDER BY day"
)
_REMNANTS = """
    WITH old_nodes AS (DELETE FROM workerd.node n WHERE n.dead_at < now() - make_interval(secs => $1)
        AND NOT EXISTS (SELECT FROM workerd.lease l WHERE l.node = n.id)),
    old_quarantined AS (DELETE FROM workerd.quarantined WHERE at < now() - make_interval(secs => $1)),
    old_orders AS (DELETE FROM workerd.node_order WHERE ordered_at < now() - interval '1 day'),
    old_tallies AS (DELETE FROM workerd.tally WHERE slot < now() - make_interval(secs => $1))
    DELETE FROM workerd.progress p WHERE NOT EXISTS (SELECT FROM workerd.ready r WHERE r.id = p.id)
        AND NOT EXISTS (SELECT FROM workerd.scheduled s WHERE s.id = p.id)
"""
_OLD_LINES = """
    WITH gone AS (DELETE FROM workerd.job_log WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM workerd.job_log WHERE at < now() - make_interval(secs => $1) LIMIT 10000)) RETURNING 1)
    SELECT count(*) FROM gone
"""
# What a job has behind it is of use while it may run again: a failed or cancelled one by an operator's retry.
_OLD_STEPS = """
    WITH over AS MATERIALIZED (
        SELECT DISTINCT x.id FROM (
            SELECT id FROM workerd.step UNION ALL SELECT id FROM workerd.awaited UNION ALL SELECT id FROM workerd.signal) AS x
        WHERE NOT EXISTS (SELECT FROM workerd.ready r WHERE r.id = x.id) AND NOT EXISTS (SELECT FROM workerd.scheduled s WHERE s.id = x.id)
            AND NOT EXISTS (SELECT FROM workerd.history h WHERE h.id = x.id AND h.state <> 'succeeded')),
    steps AS (DELETE FROM workerd.step USING over WHERE step.id = over.id),
    signals AS (DELETE FROM workerd.signal USING over WHERE signal.id = over.id)
    DELETE FROM workerd.awaited USING over WHERE awaited.id = over.id
"""
_OLD_DEPENDENCIES = """
    WITH gone AS (DELETE FROM workerd.dependency WHERE ctid = ANY (ARRAY(
        SELECT d.ctid FROM workerd.dependency d WHERE d.ended IS NOT NULL AND NOT d.news
            AND NOT EXISTS (SELECT FROM workerd.history h WHERE h.id = d.child)
            AND NOT EXISTS (SELECT FROM workerd.ready r WHERE r.id = d.child)
            AND NOT EXISTS (SELECT FROM workerd.scheduled s WHERE s.id = d.child)
        LIMIT 10000)) RETURNING 1)
    SELECT count(*) FROM gone
"""
_FULL_BUCKETS = "DELETE FROM workerd.bucket WHERE at < now() - interval '1 day'"
KEEP = (
    35 * 86400.0
)  # seconds that dead nodes, counters and what jobs logged are kept, at least as long as what refers to them


async def add_days(connection: AnyConnection, ttls: Iterable[float]) -> None:
    """Make the partitions that jobs with these TTLs (seconds) need within the next two days."""
    wanted = sorted({ttl for ttl in ttls if ttl > 0})
    if not await connection.fetchval(_MISSING, wanted):
        return
    async with connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = '5s'")
        await connection.execute(_LOCK)
        await connection.execute("SELECT workerd.add_history_days($1)", wanted)


async def prune(connection: Connection, longest_ttl: float) -> list[str]:
    """Drop the partitions whose day has passed; returns their names."""
    dropped = []
    for row in await connection.fetch(_EXPIRED):
        async with connection.transaction():
            # dropping needs the parent to itself for a moment: rather try again later than make everybody wait
            await connection.execute("SET LOCAL lock_timeout = '2s'")
            await connection.execute(_LOCK)
            await connection.execute("SELECT workerd.drop_history_day($1)", row["day"])
        dropped.append(f"history_{row['day']:%Y%m%d}")
    async with connection.transaction():
        await connection.execute("SET LOCAL enable_seqscan = off")
        await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
        await connection.execute(_REMNANTS, max(KEEP, longest_ttl))
        await connection.execute(_OLD_STEPS)
    while await connection.fetchval(_OLD_LINES, max(KEEP, longest_ttl)):
        pass
    while await connection.fetchval(_OLD_DEPENDENCIES):
        pass
    while await connection.fetchval("SELECT workerd.forget_changes()"):
        pass
    await connection.execute(_FULL_BUCKETS)
    return dropped
