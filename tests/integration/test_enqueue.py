"""Enqueues that share a statement, a connection or a COPY: each caller has its own id or its own error, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import until
from workerd import Queue
from workerd.errors import DatabaseError, TaskError
from workerd.queue.enqueue import COPY_FROM

if TYPE_CHECKING:
    import asyncpg

    DB = asyncpg.Connection[asyncpg.Record]

MANY = COPY_FROM + 7


async def payloads(db: DB, ids: list[int]) -> list[Any]:
    rows = await db.fetch("SELECT id, payload ->> 'value' AS value FROM workerd.job WHERE id = ANY ($1)", ids)
    values = {row["id"]: row["value"] for row in rows}
    return [values.get(job) for job in ids]


async def test_callers_at_the_same_time_have_the_ids_of_their_own_jobs(queue: Queue, db: DB) -> None:
    ids = await asyncio.gather(*(queue.enqueue("echo", {"value": n}, priority=n % 3) for n in range(2500)))
    assert await payloads(db, ids) == [str(n) for n in range(2500)]


async def test_a_call_that_cannot_be_stored_fails_alone(queue: Queue, db: DB) -> None:
    queue_name = {"value": 1}
    answers = await asyncio.gather(
        *(queue.enqueue("echo", queue_name) for _ in range(5)),
        queue.enqueue("", queue_name),
        *(queue.enqueue("echo", queue_name) for _ in range(5)),
        return_exceptions=True,
    )
    assert [isinstance(answer, int) for answer in answers] == [True] * 5 + [False] + [True] * 5
    assert isinstance(answers[5], TaskError)
    assert await db.fetchval("SELECT count(*) FROM workerd.ready") == 10


async def test_a_caller_that_is_cancelled_takes_no_other_with_it(queue: Queue, db: DB) -> None:
    calls = [asyncio.create_task(queue.enqueue("echo", {"value": n})) for n in range(20)]
    await asyncio.sleep(0)
    calls[0].cancel()
    calls[7].cancel()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    ids = [answer for answer in answers if isinstance(answer, int)]
    assert len(ids) >= 18
    assert None not in await payloads(db, ids)


async def test_a_session_that_is_ended_is_replaced_at_the_next_call(queue: Queue, db: DB) -> None:
    await queue.enqueue("echo")
    await db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'worker client'")
    outcomes = [await _outcome(queue) for _ in range(3)]
    assert outcomes[-1] == "written"


async def _outcome(queue: Queue) -> str:
    try:
        await queue.enqueue("echo")
    except DatabaseError:  # it was under way when the session ended
        return "told"
    return "written"


async def test_the_kept_connection_leaves_the_only_one_of_the_pool_to_others(dsn: str) -> None:
    async with Queue.connect(dsn, pool_size=1, acquire_timeout=10) as queue:
        going = True

        async def keep_enqueuing() -> None:
            while going:
                await queue.enqueue("echo")

        busy = asyncio.create_task(keep_enqueuing())
        async with queue.connection() as connection:
            assert await connection.fetchval("SELECT 1") == 1
        going = False
        await busy


async def test_many_in_one_call_have_their_ids_in_order(queue: Queue, db: DB) -> None:
    ids = await queue.enqueue_many("echo", [{"value": n} for n in range(MANY)], queue="lots", priority=3, max_retries=2)
    assert await payloads(db, ids) == [str(n) for n in range(MANY)]
    rows = await db.fetch("SELECT DISTINCT queue, priority, state, max_retries FROM workerd.job")
    assert [tuple(row) for row in rows] == [("lots", 3, "queued", 2)]


async def test_many_in_one_call_may_have_to_wait(queue: Queue, db: DB) -> None:
    await queue.enqueue_many("echo", [{}] * MANY, delay="1h")
    row = await db.fetchrow("SELECT count(*), min(run_at) > now() + interval '59 min' FROM workerd.scheduled")
    assert row is not None
    assert tuple(row) == (MANY, True)


async def test_many_in_one_call_belong_to_the_transaction_of_the_caller(queue: Queue, db: DB) -> None:
    transaction = db.transaction()
    await transaction.start()
    await queue.enqueue_many("echo", [{}] * MANY, connection=db)
    await transaction.rollback()
    assert await db.fetchval("SELECT count(*) FROM workerd.ready") == 0


async def test_one_bad_payload_among_many_stores_none_and_leaves_the_transaction_usable(queue: Queue, db: DB) -> None:
    async with db.transaction():
        kept = await queue.enqueue("echo", {"value": 1}, connection=db)
        with pytest.raises(TaskError):
            await queue.enqueue_many("", [{}] * MANY, connection=db)
    assert await db.fetchval("SELECT array_agg(id) FROM workerd.ready") == [kept]


async def test_connections_that_a_burst_has_opened_are_closed_when_nobody_uses_them(dsn: str, db: DB) -> None:
    sessions = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'worker burst'"
    )
    async with Queue.connect(dsn, idle_limit=0.5, name="worker burst") as queue:
        async with queue.connection(), queue.connection(), queue.connection():
            assert await db.fetchval(sessions) == 3

        async def closed() -> bool:
            count: int = await db.fetchval(sessions)
            return count == 0

        await until(closed, "all are closed")
        await queue.enqueue("echo")
