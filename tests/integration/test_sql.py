"""What any language can do: enqueue by a function, look by a view."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from tests.support import InProcess, state_of

if TYPE_CHECKING:
    from workerd import Queue

    DB = asyncpg.Connection[asyncpg.Record]


async def test_sql_enqueues_what_the_daemon_runs(node: InProcess, queue: Queue, db: DB) -> None:
    job = await db.fetchval("""SELECT workerd.enqueue('echo', '{"value": 5}')""")
    assert await queue.result(job, timeout=60) == 5


async def test_sql_takes_named_options_and_the_tasks_declaration(node: InProcess, queue: Queue, db: DB) -> None:
    declared = await db.fetchval("""SELECT workerd.enqueue('posted', '{"to": "x"}', run_at => now() + '1 hour')""")
    row = await db.fetchrow("SELECT queue, priority, state FROM workerd.job WHERE id = $1", declared)
    assert row is not None
    assert tuple(row) == ("mail", 7, "scheduled")
    own = await db.fetchval(
        """SELECT workerd.enqueue('posted', '{"to": "x"}', queue => 'q', priority => 1, key => 'k', max_retries => 0,
            run_at => now() + '1 hour')"""
    )
    row = await db.fetchrow("SELECT queue, priority, key, max_retries FROM workerd.job WHERE id = $1", own)
    assert row is not None
    assert tuple(row) == ("q", 1, "k", 0)


async def test_the_view_counts_jobs_by_status(node: InProcess, queue: Queue, db: DB) -> None:
    await queue.result(await queue.enqueue("echo"), timeout=60)
    await queue.enqueue("echo", delay="1h")
    await queue.enqueue("unknown")
    counted = await db.fetch("SELECT status, count(*) FROM workerd.task_queue GROUP BY status ORDER BY status")
    assert [tuple(row) for row in counted] == [("queued", 1), ("scheduled", 1), ("succeeded", 1)]
    columns = await db.fetchrow("SELECT * FROM workerd.task_queue LIMIT 1")
    assert columns is not None
    assert list(columns.keys()) == [
        "id",
        "task_type",
        "status",
        "priority",
        "payload",
        "result",
        "error_message",
        "attempt",
        "max_retries",
        "created_at",
        "started_at",
        "completed_at",
        "worker",
    ]


REFUSED = {
    "workerd.enqueue('t', '[1]')": "not a JSON object",
    "workerd.enqueue('t', NULL)": "not a JSON object",
    "workerd.enqueue('t', jsonb_build_object('x', repeat('y', 1000001)))": "has 1,000,009 bytes, the limit is 1,000,000",
    "workerd.enqueue('t', priority => 99999)": "priority 99999",
    "workerd.enqueue('t', queue => '')": "the name of a queue is empty",
    "workerd.enqueue('t', key => '')": "key is empty",
}


async def test_sql_refuses_what_cannot_run(db: DB) -> None:
    said = {}
    for call in REFUSED:
        try:
            said[call] = str(await db.fetchval(f"SELECT {call}"))
        except asyncpg.PostgresError as error:
            said[call] = str(error)
    assert {call: said[call] for call, reason in REFUSED.items() if reason not in said[call]} == {}
    assert await db.fetchval("SELECT count(*) FROM workerd.job") == 0


async def test_a_job_that_commits_late_is_found(node: InProcess, queue: Queue, db: DB) -> None:
    """Tickets are drawn before the commit: one that appears behind the low bound is found by a sweep."""
    transaction = db.transaction()
    await transaction.start()
    late = await queue.enqueue("echo", {"value": "late"}, connection=db)
    for n in range(50):
        await queue.enqueue("echo", {"value": n})
    await queue.result(await queue.enqueue("echo"), timeout=60)
    await transaction.commit()
    assert await queue.result(late, timeout=60) == "late"
    assert await state_of(db, late) == "succeeded"
