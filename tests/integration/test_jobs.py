"""What becomes of a job: the ways in, the ways through, the ways out."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests import handlers
from tests.support import InProcess, state_of, until, until_state
from workerd import JobError, JobFailed, PayloadError, Queue, TaskError
from workerd.errors import DatabaseError

if TYPE_CHECKING:
    import asyncpg

    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]


async def test_a_job_runs_and_its_result_is_kept(queue: Queue, node: InProcess, db: DB) -> None:
    job = await queue.enqueue("echo", {"value": {"deep": [1, "zwei", None]}})
    assert await queue.result(job, timeout=60) == {"deep": [1, "zwei", None]}
    row = await db.fetchrow("SELECT * FROM workerd.job WHERE id = $1", job)
    assert row is not None
    assert (row["state"], row["attempt"], row["failures"], row["node"]) == ("succeeded", 1, 0, node.settings.node)
    assert row["enqueued_at"] <= row["started_at"] <= row["finished_at"]


async def test_a_task_enqueues_by_its_signature(node: InProcess, queue: Queue, db: DB) -> None:
    job = await handlers.posted.enqueue("a@b.example")
    assert await queue.result(job, timeout=60) == "a@b.example"
    row = await db.fetchrow("SELECT queue, priority FROM workerd.job WHERE id = $1", job)
    assert row is not None
    assert tuple(row) == ("mail", 7)
    with pytest.raises(TaskError, match="missing a required argument: 'to'"):
        await handlers.posted.enqueue()


async def test_a_handler_enqueues_further_jobs(node: InProcess, queue: Queue) -> None:
    children = await queue.result(await queue.enqueue("enqueuing", {"values": [1, 2]}), timeout=60)
    assert [await queue.result(child, timeout=60) for child in children] == [1, 2]


async def test_higher_priorities_run_first_and_equal_ones_in_order(settings: Settings, queue: Queue, db: DB) -> None:
    jobs = {p: [await queue.enqueue("echo", {"value": p}, priority=p) for _ in range(3)] for p in (0, 5, -5)}
    async with InProcess(settings.model_copy(update={"workers": 1})):
        await queue.result(jobs[-5][-1], timeout=60)
    ended = [r[0] for r in await db.fetch("SELECT id FROM workerd.job ORDER BY started_at, finished_at")]
    assert ended == [*jobs[5], *jobs[0], *jobs[-5]]


async def test_a_delayed_job_waits_for_its_time(node: InProcess, queue: Queue, db: DB) -> None:
    job = await queue.enqueue("echo", {"value": 1}, delay=0.3)
    assert await state_of(db, job) == "scheduled"
    await queue.result(job, timeout=60)
    row = await db.fetchrow("SELECT started_at - enqueued_at AS waited FROM workerd.job WHERE id = $1", job)
    assert row is not None
    assert timedelta(seconds=0.3) <= row["waited"] < timedelta(seconds=2)


async def test_run_at_takes_aware_times_only(queue: Queue, db: DB) -> None:
    job = await queue.enqueue("echo", run_at=datetime.now(UTC) + timedelta(hours=1))
    assert await state_of(db, job) == "scheduled"
    with pytest.raises(TaskError, match="no time zone"):
        await queue.enqueue("echo", run_at=datetime.now())  # noqa: DTZ005 - the mistake
    with pytest.raises(TaskError, match="exclude each other"):
        await queue.enqueue("echo", run_at=datetime.now(UTC), delay=1)


async def test_a_key_dedupes_until_its_job_is_final(node: InProcess, queue: Queue) -> None:
    begun, go_on = handlers.gate(1)
    first = await queue.enqueue("gated", {"number": 1}, key="invoice-1")
    assert await queue.enqueue("gated", {"number": 1}, key="invoice-1") == first
    await begun.wait()
    assert await queue.enqueue("gated", {"number": 1}, key="invoice-1") == first
    go_on.set()
    await queue.result(first, timeout=60)
    again = await queue.enqueue("echo", key="invoice-1")
    assert again != first


async def test_one_hundred_enqueues_of_one_key_at_a_time_make_one_job(queue: Queue) -> None:
    assert len(set(await asyncio.gather(*(queue.enqueue("echo", key="same") for _ in range(100))))) == 1


async def test_a_failing_job_is_retried_until_it_succeeds(node: InProcess, queue: Queue, db: DB) -> None:
    job = await queue.enqueue("stumble", {"until_attempt": 3})
    assert await queue.result(job, timeout=60) == 3
    row = await db.fetchrow("SELECT attempt, failures, attempts FROM workerd.job WHERE id = $1", job)
    assert row is not None
    assert (row["attempt"], row["failures"]) == (3, 2)
    assert "attempt 1 stumbles" in row["attempts"]
    assert "attempt 2 stumbles" in row["attempts"]


async def test_a_job_fails_when_its_retries_are_used_up(node: InProcess, queue: Queue, db: DB) -> None:
    job = await queue.enqueue("stumble", {"until_attempt": 99})
    with pytest.raises(JobFailed, match="ValueError: attempt 3 stumbles"):
        await queue.result(job, timeout=60)
    assert await queue.retry(job) == "failed"
    row = await until_state(db, job, "failed")
    assert row["attempt"] > 3


async def test_max_retries_of_the_enqueue_counts_over_the_task(node: InProcess, queue: Queue) -> None:
    job = await queue.enqueue("stumble", {"until_attempt": 2}, max_retries=0)
    with pytest.raises(JobFailed, match="attempt 1 stumbles"):
        await queue.result(job, timeout=60)


async def test_retry_after_decides_when_and_spends_a_retry(node: InProcess, queue: Queue, db: DB) -> None:
    job = await queue.enqueue("later", {"seconds": 0.05})
    assert await queue.result(job, timeout=60) == 2
    assert await db.fetchval("SELECT failures FROM workerd.job WHERE id = $1", job) == 1
    with pytest.raises(JobFailed, match="come back later"):
        await queue.result(await queue.enqueue("impatient"), timeout=60)


async def test_snooze_counts_no_failure(node: InProcess, queue: Queue) -> None:
    job = await queue.enqueue("snoozing", {"times": 3})
    assert await queue.result(job, timeout=60) == {"attempt": 4, "failures": 0}


async def test_discard_fails_at_once(node: InProcess, queue: Queue, db: DB) -> None:
    job = await queue.enqueue("discarding")
    with pytest.raises(JobFailed, match="this will never work"):
        await queue.result(job, timeout=60)
    assert await db.fetchval("SELECT attempt FROM workerd.job WHERE id = $1", job) == 1


async def test_a_job_past_its_timeout_is_cancelled_and_fails(node: InProcess, queue: Queue) -> None:
    with pytest.raises(JobFailed, match=r"timeout: it ran longer than 0\.2 s"):
        await queue.result(await queue.enqueue("too_slow"), timeout=60)


async def test_a_queued_a_scheduled_and_a_running_job_can_be_cancelled(node: InProcess, queue: Queue, db: DB) -> None:
    begun, _ = handlers.gate(2)
    running = await queue.enqueue("gated", {"number": 2})
    waiting = await queue.enqueue("a task that nobody knows")
    scheduled = await queue.enqueue("echo", delay="1h")
    await begun.wait()
    assert await queue.cancel(scheduled) == "scheduled"
    assert await queue.cancel(waiting) == "queued"
    assert await queue.cancel(running) == "running"
    for job in (running, waiting, scheduled):
        with pytest.raises(JobFailed, match="cancelled"):
            await queue.result(job, timeout=60)
        with pytest.raises(JobError, match="finished already"):
            await queue.cancel(job)
    with pytest.raises(JobError, match="no job"):
        await queue.cancel(10**12)


async def test_progress_is_written_and_the_last_one_kept(node: InProcess, queue: Queue, db: DB) -> None:
    job = await queue.enqueue("measured")
    await queue.result(job, timeout=60)
    assert await db.fetchval("SELECT progress FROM workerd.job WHERE id = $1", job) == 0.75


async def test_def_handlers_run_in_threads(node: InProcess, queue: Queue, db: DB) -> None:
    job = await queue.enqueue("in_thread", {"value": 3})
    assert await queue.result(job, timeout=60) == {"value": 3, "main": False}


async def test_a_result_that_is_not_json_fails_the_job(node: InProcess, queue: Queue) -> None:
    with pytest.raises(JobFailed, match="the result of unserialisable is not JSON"):
        await queue.result(await queue.enqueue("unserialisable"), timeout=60)


async def test_arguments_that_do_not_fit_fail_the_job(node: InProcess, queue: Queue) -> None:
    with pytest.raises(JobFailed, match="does not fit echo"):
        await queue.result(await queue.enqueue("echo", {"nonsense": 1}), timeout=60)


async def test_result_ttl_zero_leaves_no_row(node: InProcess, queue: Queue, db: DB) -> None:
    job = await queue.enqueue("forgotten")

    async def gone() -> bool:
        return await state_of(db, job) is None

    await until(gone, "the job has left")
    with pytest.raises(JobError, match="not kept any more"):
        await queue.result(job, timeout=60)


async def test_finish_in_commits_the_writes_and_the_success_together(settings: Settings, queue: Queue, db: DB) -> None:
    await db.execute("CREATE TABLE written (n int)")
    async with InProcess(settings):
        job = await queue.enqueue("transactional", {"n": 1})
        assert await queue.result(job, timeout=60) == {"wrote": 1}
    assert [r[0] for r in await db.fetch("SELECT n FROM written")] == [1]


async def test_a_rolled_back_finish_in_is_retried(settings: Settings, queue: Queue, db: DB) -> None:
    await db.execute("CREATE TABLE written (n int)")
    async with InProcess(settings):
        job = await queue.enqueue("transactional", {"n": 2, "rolls_back": True})
        assert await queue.result(job, timeout=60) == {"wrote": 2}
    assert [r[0] for r in await db.fetch("SELECT n FROM written")] == [2]
    assert await db.fetchval("SELECT attempt FROM workerd.job WHERE id = $1", job) == 2


async def test_an_enqueue_in_a_transaction_exists_when_it_commits(node: InProcess, queue: Queue, db: DB) -> None:
    transaction = db.transaction()
    await transaction.start()
    rolled_back = await queue.enqueue("echo", {"value": 1}, connection=db)
    await transaction.rollback()
    async with db.transaction():
        committed = await queue.enqueue("echo", {"value": 2}, connection=db)
        others = await queue.enqueue_many("echo", [{"value": 3}, {"value": 4}], connection=db)
    assert [await queue.result(job, timeout=60) for job in (committed, *others)] == [2, 3, 4]
    assert await state_of(db, rolled_back) is None


async def test_enqueue_many_returns_ids_in_order(node: InProcess, queue: Queue) -> None:
    jobs = await queue.enqueue_many("echo", [{"value": n} for n in range(250)])
    assert [await queue.result(job, timeout=60) for job in jobs] == list(range(250))


async def test_bad_payloads_are_refused_with_advice(queue: Queue, db: DB) -> None:
    with pytest.raises(PayloadError, match="store the data elsewhere"):
        await queue.enqueue("echo", {"value": "x" * 1_000_001})
    with pytest.raises(PayloadError, match="not JSON"):
        await queue.enqueue("echo", {"value": {1, 2}})
    with pytest.raises(PayloadError, match="NUL"):
        await queue.enqueue("echo", {"value": "a\0b"})
    with pytest.raises(TaskError, match="priority"):
        await queue.enqueue("echo", priority=40000)
    assert await db.fetchval("SELECT count(*) FROM workerd.job") == 0


async def test_large_payloads_arrive_whole(node: InProcess, queue: Queue) -> None:
    values = [f"{n}" * 60_000 for n in range(5)]
    jobs = [await queue.enqueue("echo", {"value": value}) for value in values]
    assert [await queue.result(job, timeout=60) for job in jobs] == values


async def test_jobs_of_unknown_tasks_wait_without_holding_up_others(node: InProcess, queue: Queue, db: DB) -> None:
    unknown = await queue.enqueue("somebody else's task")
    assert await queue.result(await queue.enqueue("echo", {"value": 1}), timeout=60) == 1
    assert await state_of(db, unknown) == "queued"


async def test_a_daemon_serves_its_queues_alone(settings: Settings, queue: Queue, db: DB) -> None:
    async with InProcess(settings.model_copy(update={"queues": ("b",)})):
        other = await queue.enqueue("echo", queue="a")
        await queue.result(await queue.enqueue("echo", queue="b"), timeout=60)
    assert await state_of(db, other) == "queued"


async def test_enqueues_at_the_same_time_each_get_their_own_answer(queue: Queue, db: DB) -> None:
    """They share statements; neither an id nor an error reaches the wrong caller."""
    wrong = asyncio.create_task(queue.enqueue("echo", {"value": -1}, priority=40000))
    given_up = asyncio.create_task(queue.enqueue("echo", {"value": -2}))
    calls = [asyncio.create_task(queue.enqueue("echo", {"value": n}, priority=n % 3)) for n in range(300)]
    await asyncio.sleep(0)
    given_up.cancel()
    ids = await asyncio.gather(*calls)
    with pytest.raises(TaskError, match="priority is 40000"):
        await wrong
    rows = await db.fetch("SELECT id, payload ->> 'value' AS value, priority FROM workerd.job WHERE id = ANY ($1)", ids)
    assert {row["id"]: (int(row["value"]), row["priority"]) for row in rows} == {
        job: (n, n % 3) for n, job in enumerate(ids)
    }


async def test_enqueues_without_a_database_all_hear_of_it(dsn: str) -> None:
    async with Queue.connect(dsn) as opened:
        opened.terminate()
        answers = await asyncio.gather(*(opened.enqueue("echo") for _ in range(3)), return_exceptions=True)
    assert all(isinstance(answer, DatabaseError) for answer in answers), answers


async def test_an_enqueue_that_the_database_refuses_unexpectedly_does_not_hang(queue: Queue, db: DB) -> None:
    await db.execute(
        "CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION $x$odd$x$; END $$"
    )
    await db.execute("CREATE TRIGGER odd BEFORE INSERT ON workerd.ready EXECUTE FUNCTION odd()")
    answers = await asyncio.gather(*(queue.enqueue("echo") for _ in range(3)), return_exceptions=True)
    assert [type(answer).__name__ for answer in answers] == ["DatabaseError"] * 3
    await db.execute("DROP TRIGGER odd ON workerd.ready")
    assert await queue.enqueue("echo")
