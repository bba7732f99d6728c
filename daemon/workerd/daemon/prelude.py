"""The prelude: what comes before the start of a job that was asked for something that few are."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from workerd.outcomes import Expired
from workerd.queue import dependency

if TYPE_CHECKING:
    from workerd.daemon.run import Run
    from workerd.job import AnyConnection
    from workerd.queue.client import Queue

_FREE_KEY = "DELETE FROM workerd.key WHERE key = $1 AND id = $2"


class Prelude:
    """A job does not start past its deadline, its key may be free from now on, and it is told what its parents came to."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    async def play(self, run: Run) -> None:
        """Raises Expired, DatabaseError."""
        claimed = run.claimed
        options = claimed.options or {}
        if claimed.start_by is not None and monotonic() > claimed.start_by:
            raise Expired("its deadline had passed before it could start")
        if claimed.key is not None and options.get("key_until") == "started":
            async with self._queue.connection() as connection:
                await free_key(connection, claimed.key, claimed.id)
        if run.job is not None and "after" in options:
            async with self._queue.connection() as connection:
                run.job.parents = await dependency.results(connection, claimed.id)


async def free_key(connection: AnyConnection, key: str, job_id: int) -> None:
    """Let the key of a job that starts be free."""
    await connection.execute(_FREE_KEY, key, job_id)
