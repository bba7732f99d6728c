"""Enqueues at an even rate, whatever becomes of the database, and writes down what was committed."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from time import monotonic
from typing import TYPE_CHECKING

import asyncpg

from tests.soak.tasks import task_of
from workerd.errors import DatabaseError
from workerd.queue.database import CONNECTION_ERRORS

if TYPE_CHECKING:
    from workerd import Queue

RATE = 500  # jobs/s
TICK = 0.1  # seconds between two batches
LARGEST = 500  # jobs of a batch, where an outage has to be made up for
PATIENCE = 0.05  # seconds until a batch is tried again

TABLES = """
    CREATE TABLE batch (first bigint PRIMARY KEY);
    CREATE TABLE enqueued (id bigint PRIMARY KEY, task text NOT NULL)
"""


class Producer:
    """Each batch is one transaction: its jobs, their ids, and its number, by which a commit whose answer was lost is recognised."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self.made = 0  # jobs
        self.retried = 0  # batches

    async def run(self, seconds: float) -> None:
        """Enqueue for so long."""
        began, before = monotonic(), self.made
        while self.made - before < RATE * seconds:
            due = round(RATE * min(monotonic() - began, seconds)) - (self.made - before)
            await self.make(due)
            await asyncio.sleep(TICK)

    async def make(self, jobs: int) -> None:
        """Enqueue so many at once."""
        end = self.made + jobs
        while self.made < end:
            await self._commit(range(self.made, min(self.made + LARGEST, end)))

    async def _commit(self, numbers: range) -> None:
        while True:
            try:
                await self._enqueue(numbers)
                break
            except asyncpg.UniqueViolationError:  # it was committed after all
                break
            except (DatabaseError, asyncpg.PostgresError, *CONNECTION_ERRORS):
                self.retried += 1
                await asyncio.sleep(PATIENCE)
        self.made += len(numbers)

    async def _enqueue(self, numbers: range) -> None:
        calls = defaultdict[str, list[dict[str, int]]](list)
        for n in numbers:
            calls[task_of(n)].append({"n": n})
        async with self._queue.connection() as connection, connection.transaction():
            await connection.execute("INSERT INTO batch VALUES ($1)", numbers[0])
            for task, payloads in calls.items():
                ids = await self._queue.enqueue_many(task, payloads, connection=connection)
                await connection.execute("INSERT INTO enqueued SELECT unnest($1::bigint[]), $2", ids, task)
