"""Whether a session waits in vain: the network between it and its client is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workerd.queue.database import Connection

# It waits for its client, or is stuck in sending to it, while the client waits for it.
_STRANDED = """
    SELECT NOT EXISTS (
        SELECT FROM pg_stat_activity
        WHERE pid = $1 AND application_name = $2 AND state = 'active' AND wait_event IS DISTINCT FROM 'ClientWrite'
    ), (
        SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE pid = $1 AND application_name = $2 AND (wait_event = 'ClientWrite' OR state <> 'active')
    )
"""


async def is_stranded(connection: Connection, pid: int, name: str, timeout: float) -> bool:
    """Asked on another connection of the session of this process id and name; one that is stranded is ended."""
    row = await connection.fetchrow(_STRANDED, pid, name, timeout=timeout)
    assert row is not None
    return bool(row[0])
