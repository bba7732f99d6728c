"""PgQueuer: asyncpg, uvloop, batches of 200."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import asyncpg
from lines import Tally, in_transactions, in_turn, next_command, say, serve, timed, together, trickle
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.models import Job  # noqa: TC002 - PgQueuer reads the annotations of handlers
from pgqueuer.queries import Queries

DSN = os.environ["DATABASE_URL"]
BATCH = 200
CHUNK = 20_000  # jobs a call
POOL = 10  # connections of an application whose coroutines enqueue


class Listening(AsyncpgDriver):
    """Tells when notifications will be heard: from then on the worker is ready."""

    async def add_listener(self, *arguments: Any) -> None:
        await super().add_listener(*arguments)
        say("ready")


async def prepare() -> None:
    connection = await asyncpg.connect(DSN)
    await Queries(AsyncpgDriver(connection)).install()
    await connection.close()


async def fill(jobs: int) -> float:
    """Enqueue so many in one transaction; returns when its commit was known."""
    connection = await asyncpg.connect(DSN)
    queries = Queries(AsyncpgDriver(connection))
    async with connection.transaction():
        for first in range(0, jobs, CHUNK):
            await bulk(queries, min(CHUNK, jobs - first))
    at = time.monotonic()
    await connection.close()
    return at


async def bulk(queries: Queries, jobs: int) -> None:
    await queries.enqueue(["noop"] * jobs, [None] * jobs, [0] * jobs)


async def enqueue(way: str, jobs: int, coroutines: int, in_each: int) -> float:
    """Seconds."""
    async with asyncpg.create_pool(DSN, min_size=POOL, max_size=POOL) as pool, pool.acquire() as connection:
        alone, pooled = Queries(AsyncpgDriver(connection)), Queries(AsyncpgPoolDriver(pool))

        async def one() -> None:
            await alone.enqueue("noop", None)

        async def many_inside() -> None:
            async with connection.transaction():
                await bulk(alone, jobs)

        await one()  # the first call of a connection plans its statements: it is not counted
        work = {
            "single": lambda: in_turn(one, jobs),
            "transaction": lambda: in_transactions(connection.transaction, one, jobs, 1),
            "transaction_jobs": lambda: in_transactions(connection.transaction, one, jobs, in_each),
            "coroutines": lambda: together(lambda: pooled.enqueue("noop", None), jobs, coroutines),
            "many": lambda: bulk(alone, jobs),
            "many_transaction": many_inside,
        }
        return await timed(work[way]())


async def numbered(jobs: int, rate: float, at_once: int) -> dict[int, float]:
    """Enqueue jobs that write down when they start."""
    connection = await asyncpg.connect(DSN)
    queries = Queries(AsyncpgDriver(connection))

    async def some(numbers: list[int]) -> None:
        await queries.enqueue(["stamp"] * len(numbers), [str(n).encode() for n in numbers], [0] * len(numbers))

    await some([-1])  # plans the statements
    committed = await trickle(some, jobs, rate, at_once)
    await connection.close()
    return committed


async def work() -> None:
    """Work until the next command."""
    tally = Tally()
    say("begin")
    connection = await asyncpg.connect(DSN)
    application = PgQueuer(Listening(connection))

    @application.entrypoint("noop")
    async def noop(job: Job) -> None:
        tally.count()

    @application.entrypoint("stamp")
    async def stamp(job: Job) -> None:
        tally.stamp(int(job.payload or b"0"))

    running = asyncio.create_task(application.qm.run(batch_size=BATCH))
    stop = asyncio.create_task(next_command())
    await asyncio.wait((running, stop), return_when=asyncio.FIRST_COMPLETED)
    application.shutdown.set()
    await running
    tally.end()


serve({"prepare": prepare, "fill": fill, "enqueue": enqueue, "trickle": numbered, "work": work})
