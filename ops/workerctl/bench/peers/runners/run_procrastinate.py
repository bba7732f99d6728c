"""procrastinate: 20 jobs at a time, each deleted when it is done, psycopg, uvloop."""

from __future__ import annotations

import asyncio
import os
import time

import psycopg
from lines import Tally, in_transactions, in_turn, next_command, say, serve, timed, together, trickle
from procrastinate import App, PsycopgConnector

DSN = os.environ["DATABASE_URL"]
CONCURRENCY = 20
POOL = CONCURRENCY + 2  # connections of a worker at most: one for each job, and what it needs besides
APPLICATION_POOL = 10  # of an application whose coroutines enqueue

tally = Tally()


def application(pool: int) -> App:
    name = {"application_name": f"procrastinate {os.getpid()}"}
    return App(connector=PsycopgConnector(conninfo=DSN, min_size=1, max_size=pool, kwargs=name))


async def noop() -> None:
    tally.count()


async def stamp(number: int) -> None:
    tally.stamp(number)


async def prepare() -> None:
    async with application(1).open_async() as app:
        await app.schema_manager.apply_schema_async()


async def fill(jobs: int) -> float:
    """Enqueue so many in one call, which is one transaction; returns when its commit was known."""
    app = application(1)
    task = app.task(name="noop")(noop)
    async with app.open_async():
        await task.batch_defer_async(*({} for _ in range(jobs)))
        return time.monotonic()


async def enqueue(way: str, jobs: int, coroutines: int, in_each: int) -> float:
    """Seconds."""
    app = application(APPLICATION_POOL)
    task = app.task(name="noop")(noop)
    async with app.open_async(), await psycopg.AsyncConnection.connect(DSN, autocommit=True) as connection:

        async def inside() -> None:
            await task.configure(connection=connection).defer_async()

        async def many_inside() -> None:
            async with connection.transaction():
                await task.configure(connection=connection).batch_defer_async(*({} for _ in range(jobs)))

        await task.defer_async()  # the first call of a connection plans its statements: it is not counted
        work = {
            "single": lambda: in_turn(task.defer_async, jobs),
            "transaction": lambda: in_transactions(connection.transaction, inside, jobs, 1),
            "transaction_jobs": lambda: in_transactions(connection.transaction, inside, jobs, in_each),
            "coroutines": lambda: together(task.defer_async, jobs, coroutines),
            "many": lambda: task.batch_defer_async(*({} for _ in range(jobs))),
            "many_transaction": many_inside,
        }
        return await timed(work[way]())


async def numbered(jobs: int, rate: float, at_once: int) -> dict[int, float]:
    """Enqueue jobs that write down when they start."""
    app = application(1)
    task = app.task(name="stamp")(stamp)

    async def some(numbers: list[int]) -> None:
        await task.batch_defer_async(*({"number": number} for number in numbers))

    async with app.open_async():
        await some([-1])  # plans the statements
        return await trickle(some, jobs, rate, at_once)


async def work() -> None:
    """Work until the next command."""
    say("begin")
    app = application(POOL)
    app.task(name="noop")(noop)
    app.task(name="stamp")(stamp)
    async with app.open_async():
        running = asyncio.create_task(
            app.run_worker_async(concurrency=CONCURRENCY, delete_jobs="always", install_signal_handlers=False)
        )
        await _listening(app)
        say("ready")
        stop = asyncio.create_task(next_command())
        await asyncio.wait((running, stop), return_when=asyncio.FIRST_COMPLETED)
        running.cancel()
        await asyncio.wait((running,))
    tally.end()


async def _listening(app: App) -> None:
    """Wait until a connection of this worker hears notifications, which it does not tell."""
    heard = """
        SELECT count(*) AS listening FROM pg_stat_activity
        WHERE application_name = current_setting('application_name') AND query LIKE 'LISTEN%%'
    """
    while not (await app.connector.execute_query_one_async(heard))["listening"]:  # noqa: ASYNC110 - no event
        await asyncio.sleep(0.005)


serve({"prepare": prepare, "fill": fill, "enqueue": enqueue, "trickle": numbered, "work": work})
