"""Waiting: jobs that nobody will take as things are, and whether anybody leads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workerd.job import AnyConnection

_FIRST = 1000  # jobs of each lane that are looked at: what nobody takes is soon at its head

_WAITING = """
    SELECT l.queue, l.node, w.task, w.jobs,
        EXISTS (SELECT FROM workerd.node n WHERE n.dead_at IS NULL AND w.task = ANY (n.tasks)) AS known,
        EXISTS (SELECT FROM workerd.node n WHERE n.dead_at IS NULL AND n.name = l.node) AS node_lives
    FROM workerd.lane l JOIN workerd.queue q ON q.name = l.queue AND q.paused_at IS NULL, LATERAL (
        SELECT task, count(*) AS jobs FROM (SELECT task FROM workerd.ready r WHERE r.lane = l.id ORDER BY pos LIMIT $1) AS first
        GROUP BY task) AS w
    WHERE NOT EXISTS (
        SELECT FROM workerd.node n WHERE n.dead_at IS NULL AND w.task = ANY (n.tasks) AND (n.queues = '{}' OR l.queue = ANY (n.queues))
            AND (l.node IS NULL OR l.node = n.name))
    ORDER BY w.jobs DESC, l.queue, w.task
"""
# Where the only node was killed nobody declares it dead: by its heartbeat, too.
_IN_VAIN = """
    SELECT EXISTS (
        SELECT FROM workerd.ready r JOIN workerd.lane l ON l.id = r.lane JOIN workerd.queue q ON q.name = l.queue AND q.paused_at IS NULL
        WHERE r.id = $1 AND NOT EXISTS (SELECT FROM workerd.lease e WHERE e.lane = r.lane AND e.last >= r.pos AND e.tickets @> r.pos)
            AND NOT EXISTS (
                SELECT FROM workerd.node n WHERE n.dead_at IS NULL AND n.beat > clock_timestamp() - make_interval(secs => 6 * n.heartbeat)
                    AND r.task = ANY (n.tasks) AND (n.queues = '{}' OR l.queue = ANY (n.queues)) AND (l.node IS NULL OR l.node = n.name)))
"""
_BEATING = "SELECT id::text FROM workerd.node WHERE dead_at IS NULL AND beat > clock_timestamp() - make_interval(secs => 6 * heartbeat)"
_LED = """
    SELECT EXISTS (
        SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND objid = 0
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND classid = 'workerd.node'::regclass::oid)
"""
_OVERDUE = """
    SELECT name, extract(epoch FROM clock_timestamp() - next_at)::float8 FROM workerd.schedule
    WHERE paused_at IS NULL AND isfinite(next_at) AND next_at < clock_timestamp() - make_interval(secs => $1) ORDER BY next_at
"""


@dataclass(frozen=True, slots=True)
class Untaken:
    """Jobs of a task in a queue, pinned to a node or to none, that no living node takes; at most 1,000 are counted.

    `known`: a living node runs the task. `node_lives`: that to which they are pinned does.
    """

    queue: str
    node: str | None
    task: str
    jobs: int
    known: bool
    node_lives: bool


async def beating(connection: AnyConnection) -> set[str]:
    """The ids of the nodes that have beaten of late. Where the only one was killed nobody declares it dead."""
    return {row["id"] for row in await connection.fetch(_BEATING)}


async def untaken(connection: AnyConnection) -> list[Untaken]:
    """Jobs that no living node takes. What waits in a paused queue waits for that."""
    return [Untaken(*row) for row in await connection.fetch(_WAITING, _FIRST)]


async def in_vain(connection: AnyConnection, job_id: int) -> bool:
    """Whether this job is queued, in a queue that is not paused, and no living node takes it."""
    found: bool = await connection.fetchval(_IN_VAIN, job_id)
    return found


async def is_led(connection: AnyConnection) -> bool:
    """Whether a node leads at this moment."""
    led: bool = await connection.fetchval(_LED)
    return led


async def overdue(connection: AnyConnection, seconds: float) -> list[tuple[str, float]]:
    """The schedules that have been due for more than so many seconds, and for how long."""
    return [(row[0], row[1]) for row in await connection.fetch(_OVERDUE, seconds)]
