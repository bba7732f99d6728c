"""A contender: workerd or a peer, with a database of its own, a process that enqueues, and those that work."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from workerctl.bench.process import ContenderError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import asyncpg

    from workerctl.bench.process import Process
    from workerctl.bench.worker import Worker

POLL = 0.005  # seconds between two looks for a job that is not finished: each costs the server some microseconds
DONE_LIMIT = 300.0  # seconds
SETTLE_LIMIT = 60.0  # seconds
_WRITTEN = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint"


class Contender(ABC):
    """`name` and `title` tell its figures from those of others.

    `newest` is the query for the newest job that is not finished: where jobs are done in order it stays until the end, so that
    it never looks through what is left of finished ones.
    """

    name: str
    title: str
    newest: str
    clearing: str

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record], producer: Process) -> None:
        self.connection = connection
        self._producer = producer

    @abstractmethod
    def worker(self, number: int = 0, *, quick: bool = False) -> Worker:
        """A process that works; `quick`: with the settings for few jobs that shall start soon."""

    async def clear(self) -> None:
        """Remove all jobs, and with them what vacuum would have to do for those before."""
        await self.connection.execute(self.clearing)

    async def fill(self, jobs: int, **what: Any) -> float:
        """Enqueue so many jobs in one transaction; returns when its commit was known (monotonic seconds)."""
        at: float = await self.ask("fill", jobs=jobs, **what)
        return at

    async def lay(self, jobs: int) -> int:
        """Have so many jobs wait, and statistics of their tables: without them some plans are several times slower.

        Returns how many bytes of write-ahead log the jobs took.
        """
        await self.clear()
        before = await self.written()
        await self.fill(jobs)
        written = await self.written() - before
        await self.connection.execute("ANALYZE", timeout=SETTLE_LIMIT)
        return written

    async def done(self, workers: Sequence[Worker]) -> float:
        """Wait until these have left no job unfinished; returns when that was (monotonic seconds). Raises ContenderError."""
        limit = time.monotonic() + DONE_LIMIT
        while await self.connection.fetchval(self.newest) is not None:
            for worker in workers:
                worker.check()
            if time.monotonic() > limit:
                raise ContenderError(f"jobs are left after {DONE_LIMIT:.0f} s")
            await asyncio.sleep(POLL)
        return time.monotonic()

    async def written(self) -> int:
        """Bytes of write-ahead log that the server has written since it was made, for all of its databases."""
        written: int = await self.connection.fetchval(_WRITTEN)
        return written

    async def ask(self, do: str, **arguments: Any) -> Any:
        """Let the process that enqueues do something, and return its answer."""
        await self._producer.tell(do, **arguments)
        return (await self._producer.hear(do))["answer"]

    def key(self, measured: str) -> str:
        """The key of its figure."""
        return f"{measured}_{self.name}" if self.name else measured

    def who(self, jobs: int) -> str:
        """Its title, with how many jobs it got where others got so many."""
        return self.title if self.sized(jobs) == jobs else f"{self.title}, {self.sized(jobs):,} jobs"

    def sized(self, jobs: int) -> int:
        """How many of so many jobs are enough for it."""
        return jobs
