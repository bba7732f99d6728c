"""workerd's own side of the comparison: an application that enqueues. What works is a daemon."""

from __future__ import annotations

import os
import time
from typing import Any

from lines import in_transactions, in_turn, serve, timed, together, trickle

from workerd import Queue

DSN = os.environ["DATABASE_URL"]
CHUNK = 20_000  # jobs a call


async def fill(jobs: int, task: str = "noop", payload: dict[str, Any] | None = None, **options: Any) -> float:
    """Enqueue so many in one transaction; returns when its commit was known."""
    async with Queue.connect(DSN) as queue, queue.connection() as connection:
        async with connection.transaction():
            for first in range(0, jobs, CHUNK):
                await queue.enqueue_many(
                    task, [payload or {}] * min(CHUNK, jobs - first), connection=connection, **options
                )
        return time.monotonic()


async def enqueue(way: str, jobs: int, coroutines: int, in_each: int) -> float:
    """Seconds."""
    async with Queue.connect(DSN) as queue, queue.connection() as connection:

        async def one() -> None:
            await queue.enqueue("noop")

        async def inside() -> None:
            await queue.enqueue("noop", connection=connection)

        async def many_inside() -> None:
            async with connection.transaction():
                await queue.enqueue_many("noop", [{}] * jobs, connection=connection)

        await one()  # the first call of a connection plans its statements: it is not counted
        work = {
            "single": lambda: in_turn(one, jobs),
            "transaction": lambda: in_transactions(connection.transaction, inside, jobs, 1),
            "transaction_jobs": lambda: in_transactions(connection.transaction, inside, jobs, in_each),
            "coroutines": lambda: together(one, jobs, coroutines),
            "many": lambda: queue.enqueue_many("noop", [{}] * jobs),
            "many_transaction": many_inside,
        }
        return await timed(work[way]())


async def numbered(jobs: int, rate: float, at_once: int) -> dict[int, float]:
    """Enqueue jobs that write down when they start."""
    async with Queue.connect(DSN) as queue:

        async def some(numbers: list[int]) -> None:
            if len(numbers) == 1:
                await queue.enqueue("stamp", {"number": numbers[0]})
            else:
                await queue.enqueue_many("stamp", [{"number": number} for number in numbers])

        await some([-1])  # plans the statements
        return await trickle(some, jobs, rate, at_once)


serve({"fill": fill, "enqueue": enqueue, "trickle": numbered})
