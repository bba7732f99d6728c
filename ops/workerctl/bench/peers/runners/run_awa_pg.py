"""awa-pg: 500 jobs at a time, two claimers, claims of 500, uvloop."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

import asyncpg
from awa import AsyncClient
from awa.bridge import insert_job
from lines import Tally, in_transactions, in_turn, next_command, say, serve, timed, together, trickle

DSN = os.environ["DATABASE_URL"]
QUEUE = {"name": "default", "max_workers": 500, "claimers": 2, "claim_batch_size": 500}


@dataclass
class Noop:
    """Its job does nothing."""


@dataclass
class Stamp:
    """Its job writes down when it starts."""

    number: int


async def prepare() -> None:
    async with AsyncClient(DSN) as client:
        await client.migrate()
        await client.install_queue_storage()


async def fill(jobs: int) -> float:
    """Enqueue so many in one call, which is one transaction; returns when its commit was known."""
    async with AsyncClient(DSN) as client:
        await client.enqueue_many_copy([Noop()] * jobs)
        return time.monotonic()


async def enqueue(way: str, jobs: int, coroutines: int, in_each: int) -> float:
    """Seconds."""
    connection = await asyncpg.connect(DSN)

    async def inside() -> None:
        await insert_job(connection, Noop())

    async with AsyncClient(DSN) as client:

        async def one() -> None:
            await client.insert(Noop())

        async def many_inside() -> None:
            async with await client.transaction() as transaction:  # on another's connection it takes one at a time
                await transaction.insert_many([Noop()] * jobs)

        await one()  # the first call of a connection plans its statements: it is not counted
        work = {
            "single": lambda: in_turn(one, jobs),
            "transaction": lambda: in_transactions(connection.transaction, inside, jobs, 1),
            "transaction_jobs": lambda: in_transactions(connection.transaction, inside, jobs, in_each),
            "coroutines": lambda: together(one, jobs, coroutines),
            "many": lambda: client.enqueue_many_copy([Noop()] * jobs),
            "many_transaction": many_inside,
        }
        try:
            return await timed(work[way]())
        finally:
            await connection.close()


async def numbered(jobs: int, rate: float, at_once: int) -> dict[int, float]:
    """Enqueue jobs that write down when they start."""
    async with AsyncClient(DSN) as client:

        async def some(numbers: list[int]) -> None:
            if len(numbers) == 1:
                await client.insert(Stamp(numbers[0]))
            else:
                await client.enqueue_many_copy([Stamp(number) for number in numbers])

        await some([-1])  # plans the statements
        return await trickle(some, jobs, rate, at_once)


async def work() -> None:
    """Work until the next command."""
    tally = Tally()
    say("begin")
    async with AsyncClient(DSN) as client:

        @client.task(Noop)
        async def noop(job: Any) -> None:
            tally.count()

        @client.task(Stamp)
        async def stamp(job: Any) -> None:
            tally.stamp(job.args.number)

        await client.start([QUEUE])
        say("ready")
        await next_command()
        await client.shutdown()
    tally.end()


serve({"prepare": prepare, "fill": fill, "enqueue": enqueue, "trickle": numbered, "work": work})
