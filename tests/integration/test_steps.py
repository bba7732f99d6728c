"""Steps are done once; jobs wait for answers without holding a worker, and no answer is lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.examples import examples
from tests.step_handlers import calls
from tests.support import InProcess, until, until_state
from workerd import JobError, PayloadError, Queue
from workerd.limit import Limit
from workerd.queue import limits, prune
from workerd.tasks import registry
from workerd.testing import run

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg

    from tests.support import Ctl
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    calls.clear()
    return settings.model_copy(update={"tasks": ("tests.handlers", "tests.step_handlers")})


async def _outcomes(db: DB, job: int) -> list[str]:
    return [
        row[0]
        for row in await db.fetch(
            "SELECT a ->> 'outcome' FROM workerd.job, jsonb_array_elements(attempts) a WHERE id = $1", job
        )
    ]


@pytest.mark.parametrize("task", ["stepping", "stepping_in_thread"])
async def test_a_step_that_has_succeeded_is_skipped_and_its_result_returned(
    node: InProcess, queue: Queue, task: str
) -> None:
    job = await queue.enqueue(task, {"fails": 2})
    assert await queue.result(job, timeout=60) == {"first": ["a", 1], "second": {"b": 2}, "attempt": 3}
    assert calls == ["first", "second", "second", "second"]


async def test_steps_of_one_handler_run_side_by_side(node: InProcess, queue: Queue) -> None:
    job = await queue.enqueue("stepping_aside", {"count": 20})
    assert await queue.result(job, timeout=60) == list(range(20))
    assert len(calls) == 20


@pytest.mark.parametrize("name", ["stepping_later", "stepping_later_in_thread"])
async def test_a_step_may_be_an_object_or_a_wrapper_of_a_coroutine(node: InProcess, queue: Queue, name: str) -> None:
    assert await queue.result(await queue.enqueue(name), timeout=60) == [1, 2]
    assert await run(registry[name]) == [1, 2]


async def test_a_result_that_is_no_json_fails_the_job(node: InProcess, queue: Queue, db: DB) -> None:
    job = await queue.enqueue("stepping_badly")
    row = await until_state(db, job, "failed")
    assert "the result of the step bad is not JSON" in row["error"]


async def test_a_step_without_a_name_is_refused(node: InProcess, queue: Queue, db: DB) -> None:
    row = await until_state(db, await queue.enqueue("stepping_badly", {"name": ""}), "failed")
    assert "the step's name has 0 characters, allowed are 1 to 200" in row["error"]


async def test_a_step_of_a_run_that_was_rescued_is_not_kept(node: InProcess, queue: Queue, db: DB) -> None:
    """Its lease is taken away while the function runs."""
    begun, go_on = _gate(1)
    job = await queue.enqueue("stepping_gated", {"number": 1})
    await asyncio.wait_for(begun.wait(), 60)
    await db.execute("DELETE FROM workerd.lease")
    go_on.set()
    await until(lambda: _said(calls, "LeaseLost"), "the handler learns it")
    assert await db.fetchval("SELECT count(*) FROM workerd.step WHERE id = $1", job) == 0


def _gate(number: int) -> tuple[asyncio.Event, asyncio.Event]:
    from tests import handlers

    return handlers.gate(number)


async def _said(words: list[str], word: str) -> bool:
    return word in words


@pytest.mark.parametrize("task", ["waiting", "waiting_in_thread", "waiting_in_child"])
async def test_a_job_waits_without_a_worker_until_it_is_answered(
    settings: Settings, queue: Queue, db: DB, task: str
) -> None:
    async with InProcess(settings.model_copy(update={"workers": 1})):
        job = await queue.enqueue(task, {"event": "approved", "timeout": "1h"})
        row = await until_state(db, job, "scheduled")
        assert row["error"].startswith("waits for approved, ")
        assert await queue.result(await queue.enqueue("echo", {"value": 1}), timeout=60) == 1
        assert await queue.signal(job, "approved", {"by": "Ada"})
        assert await queue.result(job, timeout=60) == {"by": "Ada"}
    row = await until_state(db, job, "succeeded")
    assert (row["attempt"], row["failures"]) == (2, 0)
    assert await _outcomes(db, job) == ["snoozed"]


async def test_a_group_of_waits_waits_for_all_answers(node: InProcess, queue: Queue, db: DB) -> None:
    job = await queue.enqueue("waiting_for_both")
    await until_state(db, job, "scheduled")
    assert await queue.signal(job, "other", 2)
    assert await queue.signal(job, "one", 1)
    assert await queue.result(job, timeout=60) == [1, 2]
    assert await db.fetchval("SELECT failures FROM workerd.job WHERE id = $1", job) == 0


async def test_a_job_that_waits_holds_no_place_under_a_limit(node: InProcess, queue: Queue, db: DB) -> None:
    await limits.put(db, "queue", "narrow", Limit(concurrency=1))
    waits = await queue.enqueue("waiting", {"event": "approved"}, queue="narrow")
    await until_state(db, waits, "scheduled")
    assert await queue.result(await queue.enqueue("echo", {"value": 1}, queue="narrow"), timeout=60) == 1
    await queue.signal(waits, "approved", "yes")
    assert await queue.result(waits, timeout=60) == "yes"


async def test_an_answer_that_comes_first_is_kept_and_the_first_one_holds(
    settings: Settings, queue: Queue, db: DB
) -> None:
    job = await queue.enqueue("waiting", {"event": "approved"})
    assert await queue.signal(job, "approved", "early")
    assert not await queue.signal(job, "approved", "late")
    assert await queue.signal(job, "another")
    async with InProcess(settings):
        assert await queue.result(job, timeout=60) == "early"
    assert await _outcomes(db, job) == []


async def test_an_answer_of_nothing_is_an_answer(node: InProcess, queue: Queue, db: DB) -> None:
    job = await queue.enqueue("waiting", {"event": "approved"})
    await until_state(db, job, "scheduled")
    await queue.signal(job, "approved")
    assert await queue.result(job, timeout=60) is None


async def test_the_time_is_over_for_good(node: InProcess, queue: Queue, db: DB) -> None:
    """The handler goes another way, fails, and goes that way again though the answer is there now."""
    _, go_on = _gate(4)
    job = await queue.enqueue("waiting_briefly", {"event": "approved", "number": 4})
    await until(lambda: _said(calls, "timed out"), "the time is over")
    assert await queue.signal(job, "approved", "late")
    go_on.set()
    assert await queue.result(job, timeout=60) == ["timed out", "timed out"]


async def test_a_job_that_failed_since_the_time_was_over_waits_anew_when_it_is_retried(
    node: InProcess, queue: Queue, db: DB
) -> None:
    job = await queue.enqueue("waiting", {"event": "approved", "timeout": 0.2}, max_retries=0)
    row = await until_state(db, job, "failed")
    assert "was not told approved in time" in row["error"]
    await queue.retry(job)
    await until_state(db, job, "scheduled")
    assert await queue.signal(job, "approved", "after all")
    assert await queue.result(job, timeout=60) == "after all"


async def test_an_answer_between_the_look_and_the_end_of_the_attempt_is_not_lost(
    node: InProcess, queue: Queue, db: DB
) -> None:
    begun, go_on = _gate(2)
    job = await queue.enqueue("waiting_gated", {"number": 2})
    await asyncio.wait_for(begun.wait(), 60)
    await queue.signal(job, "approved", "between")
    go_on.set()
    assert await queue.result(job, timeout=60) == "between"
    assert await _outcomes(db, job) == ["snoozed"]


async def test_an_answer_in_a_long_transaction_counts_when_it_commits(node: InProcess, queue: Queue, db: DB) -> None:
    begun, go_on = _gate(3)
    job = await queue.enqueue("waiting_gated", {"number": 3})
    await asyncio.wait_for(begun.wait(), 60)
    async with queue.connection() as own, own.transaction():
        assert await queue.signal(job, "approved", "long", connection=own)
        go_on.set()
        await until_state(db, job, "scheduled")
    assert await queue.result(job, timeout=60) == "long"


async def test_an_answer_does_not_shorten_the_pause_before_a_retry(node: InProcess, queue: Queue, db: DB) -> None:
    job = await queue.enqueue("waiting_then_failing", {"event": "approved"})
    await until_state(db, job, "scheduled")
    await queue.signal(job, "approved")
    assert await queue.result(await queue.enqueue("echo", {"value": 1}, delay=1.0), timeout=60) == 1
    assert await _outcomes(db, job) == ["failed"]


async def test_a_job_that_is_finished_takes_no_answer(node: InProcess, queue: Queue) -> None:
    job = await queue.enqueue("echo", {"value": 1})
    await queue.result(job, timeout=60)
    with pytest.raises(JobError, match=f"job {job} is finished or does not exist: it takes no signal"):
        await queue.signal(job, "approved")
    with pytest.raises(PayloadError, match="the payload of approved is not JSON"):
        await queue.signal(job, "approved", object())


async def test_steps_of_a_child_are_kept_by_the_daemon(node: InProcess, queue: Queue, db: DB) -> None:
    job = await queue.enqueue("stepping_in_child", {"fails": 2})
    result = await queue.result(job, timeout=60)
    assert (result["attempt"], result["second"]) == (3, {"b": 2})
    rows = await db.fetch("SELECT name FROM workerd.step WHERE id = $1 ORDER BY at", job)
    assert [row["name"] for row in rows] == ["first", "second"]


async def test_a_child_asks_from_its_threads_but_not_from_a_fork(node: InProcess, queue: Queue, db: DB) -> None:
    threads, fork, late, bad = [
        await queue.enqueue("asking_in_child", {"how": how}) for how in ("threads", "fork", "late", "badly")
    ]
    assert await queue.result(threads, timeout=60) == list(range(40))
    assert await queue.result(fork, timeout=60) == [7, 5]
    assert (await until_state(db, late, "failed"))["error"].startswith(
        f"TimeoutError: job {late} was not told approved in time"
    )
    assert "the result of the step bad is not JSON" in (await until_state(db, bad, "failed"))["error"]


async def test_a_thread_that_a_job_has_left_in_its_child_writes_nothing_for_the_next_one(
    node: InProcess, queue: Queue, db: DB
) -> None:
    for how, said in (("thread left behind", None), ("its answer", "LeaseLost")):
        job = await queue.enqueue("asking_in_child", {"how": how})
        assert await queue.result(job, timeout=60) == said
    assert await db.fetchval("SELECT count(*) FROM workerd.step") == 0


async def test_what_a_job_has_behind_it_goes_when_it_cannot_run_again(node: InProcess, queue: Queue, db: DB) -> None:
    done = await queue.enqueue("stepping", {"fails": 0})
    await queue.result(done, timeout=60)
    failed = await queue.enqueue("stepping", {"fails": 9}, max_retries=0)
    await until_state(db, failed, "failed")
    waits = await queue.enqueue("waiting", {"event": "approved"})
    await until_state(db, waits, "scheduled")
    await prune.prune(db, 86400.0)
    assert [row[0] for row in await db.fetch("SELECT DISTINCT id FROM workerd.step")] == [failed]
    assert [row[0] for row in await db.fetch("SELECT id FROM workerd.awaited")] == [waits]
    await queue.retry(failed)
    await until_state(db, failed, "failed")
    assert calls.count("first") == 2, "the step of the failed job was not skipped"


async def test_the_command_answers_and_shows_the_steps(node: InProcess, queue: Queue, db: DB, ctl: Ctl) -> None:
    job = await queue.enqueue("stepping_then_waiting")
    await until_state(db, job, "scheduled")
    shown: dict[str, Any] = await asyncio.to_thread(ctl.json, "jobs", "show", str(job))
    assert [(step["name"], step["result"]) for step in shown["steps"]] == [("first", ["a", 1])]
    said = await asyncio.to_thread(ctl, "jobs", "signal", str(job), "approved", '{"by": "Ada"}')
    assert (said.returncode, said.stdout) == (0, f"job {job} is told approved\n")
    assert await queue.result(job, timeout=60) == {"by": "Ada"}
    said = await asyncio.to_thread(ctl, "jobs", "signal", str(job), "approved")
    assert (said.returncode, said.stderr.count("\n")) == (1, 1)
    said = await asyncio.to_thread(ctl, "jobs", "signal", str(job), "approved", "{")
    assert said.returncode == 2


async def test_the_example_of_the_documentation(
    settings: Settings, queue: Queue, db: DB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handlers, answer = examples("steps.md")
    (tmp_path / "example_of_steps.py").write_text(handlers)
    monkeypatch.syspath_prepend(tmp_path)
    there: dict[str, Any] = {"Queue": Queue}
    exec(answer, there)  # noqa: S102 - our own page
    async with InProcess(settings.model_copy(update={"tasks": ("example_of_steps",)})):
        job = await queue.enqueue("fulfil", {"customer": 7})
        await until_state(db, job, "scheduled")
        await there["approve"](queue, job)
        assert await queue.result(job, timeout=60) == {
            "receipt": f"order-{job} of customer 7",
            "label": "label-7.pdf",
            "approved_by": "Ada",
        }
