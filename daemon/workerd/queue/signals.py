"""Signals: answers from outside that jobs wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workerd.job import AnyConnection
    from workerd.queue.claim import Claimed
    from workerd.queue.database import Connection

_SEND = "SELECT workerd.signal($1, $2, $3::jsonb)"
_AWAIT = "SELECT answer, seconds_left FROM workerd.await_signal($1, $2, $3, $4, $5, $6)"
_WAKE = "SELECT workerd.wake_signalled()"


async def send(connection: AnyConnection, job_id: int, event: str, payload: str) -> bool:
    """Answer a job; False when this event was answered before. Raises asyncpg.NoDataFoundError for a job that takes no signal."""
    first: bool = await connection.fetchval(_SEND, job_id, event, payload)
    return first


async def look(connection: AnyConnection, job: Claimed, event: str, timeout: float) -> tuple[str | None, float | None]:
    """The answer, as JSON, or the seconds that are left for it (0: it has timed out); neither when no lease of the node holds the job.

    `timeout` is seconds from the first look on.
    """
    row = await connection.fetchrow(_AWAIT, job.node, [job.n, job.split], job.pos, job.id, event, timeout)
    assert row is not None
    return row["answer"], row["seconds_left"]


async def wake(connection: Connection) -> None:
    """Make jobs due that wait for what has been answered."""
    await connection.execute(_WAKE)
