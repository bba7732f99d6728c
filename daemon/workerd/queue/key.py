"""Keys: while one is held, no other job with it is enqueued."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workerd.job import AnyConnection

_FREE = "DELETE FROM workerd.key WHERE key = $1 AND id = $2"


async def free(connection: AnyConnection, key: str, job_id: int) -> None:
    """Let the key of a job that starts be free."""
    await connection.execute(_FREE, key, job_id)
