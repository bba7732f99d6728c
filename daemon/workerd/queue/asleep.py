"""Sleep on behalf of others: the next enqueue into any lane notifies (see `workerd.sleep_lock`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workerd.queue.database import Connection

LOCKS = 64  # that lanes share
_SLEEP = (
    "SELECT pg_advisory_lock_shared('workerd.queue'::regclass::oid::int, k) FROM generate_series(0, $1::int - 1) AS k"
)
_RISE = "SELECT pg_advisory_unlock_all()"


async def sleep(connection: Connection) -> None:
    """From now on an enqueue notifies; what was committed before is there to be seen."""
    await connection.execute(_SLEEP, LOCKS)


async def rise(connection: Connection) -> None:
    """No enqueue need notify: to be called by a session that holds no other locks."""
    await connection.execute(_RISE)
