"""Move: jobs that have waited long enough where they are go on to another lane."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workerd.queue.quarantine import sifted

if TYPE_CHECKING:
    from workerd.queue.database import Connection

ROWS = 1000  # jobs of a lane that are looked at
LIMIT = 10.0  # seconds
PATIENCE = 5.0  # seconds for which a job is kept for the node that it prefers

# A node that does not live, or leaves, keeps nothing for itself.
_PREFERRED = """
    SELECT l.id, workerd.lane_of(l.queue, l.priority), CASE WHEN EXISTS (
            SELECT FROM workerd.node n WHERE n.name = l.node AND n.dead_at IS NULL AND NOT n.draining)
        THEN clock_timestamp() - make_interval(secs => $1) ELSE 'infinity' END, NULL::float8
    FROM workerd.lane l WHERE l.node IS NOT NULL AND EXISTS (SELECT FROM workerd.ready r WHERE r.lane = l.id)
"""
# Each lane hands on to the next higher one that there is.
_AGED = """
    SELECT low.id, high.id, clock_timestamp(), q.ageing
    FROM workerd.queue q JOIN workerd.lane low ON low.queue = q.name AND low.node IS NULL
    JOIN LATERAL (SELECT h.id, h.priority FROM workerd.lane h WHERE h.queue = q.name AND h.node IS NULL AND h.priority > low.priority
        ORDER BY h.priority LIMIT 1) high ON true
    WHERE q.ageing IS NOT NULL AND EXISTS (SELECT FROM workerd.ready r WHERE r.lane = low.id) ORDER BY high.priority DESC
"""
_MOVE = "SELECT workerd.move_queued($1, $2, $3, $4, $5)"


async def move(connection: Connection) -> int:
    """Let others have what waits for a node that is busy or gone, and raise the priority of what has waited long; returns how many moved.

    One lane a transaction: nobody holds the lock of one and waits for that of another.
    """
    moves = await connection.fetch(_PREFERRED, PATIENCE, timeout=LIMIT) + await connection.fetch(_AGED, timeout=LIMIT)
    return sum([row[0] for each in moves for row in await sifted(connection, _MOVE, *each, ROWS, timeout=LIMIT)])
