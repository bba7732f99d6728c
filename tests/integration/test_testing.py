"""`workerd.testing` on a queue."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.examples import examples
from tests.support import state_of
from workerd import Job, task, testing
from workerd.queue import default_queue

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg

    from workerd import Queue


async def test_another_number_of_jobs_fails_and_shows_those_there_are(queue: Queue) -> None:
    await queue.enqueue_many("remind", [{"order": 7}, {"order": 8}])
    await testing.assert_enqueued(queue, "remind", count=2)
    await testing.assert_enqueued(queue, "remind", where={"order": 9}, count=0)
    message = '0 jobs of remind with {"order":9}, expected 1; its jobs: {"order": 7}, {"order": 8}'
    with pytest.raises(AssertionError, match=re.escape(message)):
        await testing.assert_enqueued(queue, "remind", where={"order": 9})


async def test_time_that_passes_queues_what_is_due_alone(queue: Queue, db: asyncpg.Connection[asyncpg.Record]) -> None:
    soon, late = [await queue.enqueue("remind", delay=delay) for delay in ("1h", "3h")]
    assert await testing.advance(queue, "2h") == 1
    assert (await state_of(db, soon), await state_of(db, late)) == ("queued", "scheduled")


@task(retry=0)
async def parent(n: int) -> int:
    if n < 0:
        raise ValueError(f"{n} is negative")
    return n


@task
def child(*, job: Job) -> int:
    return sum(job.parents.values())


@task
async def answered(*, job: Job) -> str:
    return str(await job.wait_for("answer", timeout="1h"))


async def test_all_that_is_due_is_run_and_what_becomes_due_meanwhile(queue: Queue) -> None:
    parents = await queue.enqueue_many(parent, [{"n": 1}, {"n": 2}])
    job = await queue.enqueue(child, after=parents)
    later = await queue.enqueue(parent, {"n": 3}, delay="1h")
    ended = await testing.drain(queue)
    assert sorted((end.job_id, end.how) for end in ended) == [(each, "succeeded") for each in [*parents, job]]
    assert await queue.result(job) == 3
    assert await queue.cancel(later) == "scheduled"
    assert await testing.drain(queue) == []


async def test_a_failure_is_told_with_its_traceback(queue: Queue) -> None:
    await queue.enqueue(parent, {"n": -1})
    (end,) = await testing.drain(queue)
    assert (end.how, end.payload) == ("failed", {"n": -1})
    assert end.error is not None
    assert end.error.startswith("ValueError: -1 is negative")
    assert "in parent" in end.error


async def test_a_wait_for_an_answer_ends_when_the_time_has_passed(queue: Queue) -> None:
    told, untold = [await queue.enqueue(answered) for _ in range(2)]
    assert sorted(end.how for end in await testing.drain(queue)) == ["snoozed", "snoozed"]
    await queue.signal(told, "answer", "yes")
    assert [(end.job_id, end.how) for end in await testing.drain(queue)] == [(told, "succeeded")]
    await testing.advance(queue, "1h")
    (end,) = await testing.drain(queue)
    assert (end.job_id, end.how) == (untold, "retried")
    assert "was not told answer in time" in str(end.error)


async def test_a_deadline_passes_with_the_time(queue: Queue) -> None:
    jobs = [
        await queue.enqueue(parent, {"n": 1}, deadline="2h"),
        await queue.enqueue(parent, {"n": 2}, delay="3h", deadline="2h"),
    ]
    await testing.advance(queue, "2h")
    await testing.advance(queue, "1h")
    assert sorted((end.job_id, end.how) for end in await testing.drain(queue)) == [(job, "cancelled") for job in jobs]


async def test_a_deadline_holds_for_who_goes_on_after_a_wait(queue: Queue) -> None:
    job = await queue.enqueue(answered, deadline="30m")
    assert [end.how for end in await testing.drain(queue)] == ["snoozed"]
    await testing.advance(queue, "31m")
    await queue.signal(job, "answer", "yes")
    (end,) = await testing.drain(queue)
    assert (end.how, end.error) == ("cancelled", "its deadline had passed before it could start")


async def test_what_cannot_be_run_is_named_when_the_time_is_over(queue: Queue) -> None:
    job = await queue.enqueue("nobody_knows_it")
    with pytest.raises(
        TimeoutError, match=f"not everything that is due has run within 0.3 s: job {job} nobody_knows_it is queued"
    ):
        await testing.drain(queue, timeout=0.3)


async def test_the_default_queue_is_what_it_was_after_a_drain(queue: Queue) -> None:
    before = default_queue.set_default(queue)
    try:
        job = await parent.enqueue(5)
        assert [end.job_id for end in await testing.drain(queue)] == [job]
        assert await default_queue.default() is queue
    finally:
        default_queue.set_default(before)


@pytest.mark.parametrize("embedded", [False, True])
def test_a_project_of_its_own_has_a_queue_for_each_test(server: str, tmp_path: Path, embedded: bool) -> None:
    """The page's test, and another one, as a user's project."""
    _, test = examples("testing-your-tasks.md")
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    (tmp_path / "test_one.py").write_text(test)
    (tmp_path / "test_two.py").write_text(
        "from workerd import testing\n"
        "async def test_nothing_is_left_of_others(workerd_queue):\n"
        "    await testing.assert_enqueued(workerd_queue, 'remind', count=0)\n"
    )
    environment = dict(os.environ) if embedded else {**os.environ, "WORKERD_TEST_URL": server}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "workerd.pytest_plugin"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_the_plugin_imports_next_to_nothing() -> None:
    """Every run of pytest pays for it, where workerd is installed."""
    code = "import sys, pytest, workerd.pytest_plugin; print(sorted({'asyncpg', 'pydantic', 'orjson'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
