"""`on_failure`: a job that has failed for good is told of by another one, which comes with the failure or not at all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import tests.notice_handlers  # noqa: F401 - its tasks are there before those of a test
from tests import handlers
from tests.support import InProcess, until, until_state
from workerd import TaskError, task
from workerd.daemon import executor
from workerd.limit import Limit
from workerd.on_failure import check
from workerd.queue import limits
from workerd.tasks import registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    import asyncpg

    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"tasks": ("tests.handlers", "tests.notice_handlers")})


@pytest.fixture
def own_tasks() -> Iterator[None]:
    before = dict(registry)
    yield
    registry.clear()
    registry.update(before)


async def notices(db: DB, job: int) -> list[dict[str, Any]]:
    """The payloads of the notices of a job that has ended."""
    rows = await db.fetch(
        "SELECT payload FROM workerd.job WHERE payload ? 'attempt' AND (payload ->> 'job_id')::bigint = $1", job
    )
    return [json.loads(row["payload"]) for row in rows]


@pytest.mark.parametrize(
    ("how", "error", "attempt"),
    [
        ("raise", "ValueError: order 7 is wrong\nTraceback", 2),
        ("discard", "no such order", 1),
        ("timeout", "timeout: it ran longer than 0.2 s", 2),
        ("deaf", "timeout: it ran longer than 0.2 s, and it ignores", 2),
    ],
)
async def test_each_way_to_fail_for_good_is_told_once_and_says_what_happened(
    node: InProcess, queue: Queue, db: DB, monkeypatch: pytest.MonkeyPatch, how: str, error: str, attempt: int
) -> None:
    monkeypatch.setattr(executor, "CANCEL_GRACE", 0.2)
    _, go_on = handlers.gate(7)
    job = await queue.enqueue("ending", {"how": how, "n": 7})
    await until_state(db, job, "failed")
    go_on.set()
    [notice] = await notices(db, job)
    assert notice.pop("error").startswith(error)
    assert notice == {"job_id": job, "task": "ending", "payload": {"how": how, "n": 7}, "attempt": attempt}


async def test_a_wrong_payload_and_a_dead_child_are_told_of(node: InProcess, queue: Queue, db: DB) -> None:
    jobs = {
        "the payload does not fit": await queue.enqueue("ending", {"where": 1}),
        "its process was killed by SIGKILL": await queue.enqueue("dying_child"),
    }
    for error, job in jobs.items():
        await until_state(db, job, "failed")
        [notice] = await notices(db, job)
        assert notice["error"].startswith(error)


async def test_the_notice_is_an_ordinary_job_of_its_task(node: InProcess, queue: Queue, db: DB) -> None:
    job = await queue.enqueue("ending", {"how": "discard"})
    found = await until(
        lambda: db.fetchrow("SELECT * FROM workerd.job WHERE task = 'told' AND state = 'succeeded'"), "it was told"
    )
    assert (found["queue"], found["priority"], json.loads(found["result"])) == ("notices", 3, job)


async def test_other_ends_are_not_told_of(node: InProcess, queue: Queue, db: DB) -> None:
    for how in ("fine", "snooze once"):
        await queue.result(await queue.enqueue("ending", {"how": how}), timeout=60)
    stopped = await queue.enqueue("ending", {"how": "cancelled"})
    await until_state(db, stopped, "running")
    await queue.cancel(stopped)
    await until_state(db, stopped, "cancelled")
    retried = await queue.enqueue("ending", {"how": "raise"}, max_retries=5)
    await until(lambda: db.fetchval("SELECT failures > 1 FROM workerd.job WHERE id = $1", retried), "it was retried")
    await queue.cancel(retried)
    await until_state(db, retried, "cancelled")
    untold = await queue.enqueue("discarding")
    await until_state(db, untold, "failed")
    assert await db.fetchval("SELECT count(*) FROM workerd.job WHERE task = 'told'") == 0


async def test_who_is_retried_by_hand_and_fails_again_is_told_of_again(node: InProcess, queue: Queue, db: DB) -> None:
    job = await queue.enqueue("ending", {"how": "discard"})
    await until_state(db, job, "failed")
    await queue.retry(job)
    await until(
        lambda: db.fetchval("SELECT attempt = 2 AND state = 'failed' FROM workerd.job WHERE id = $1", job), "again"
    )
    assert sorted(notice["attempt"] for notice in await notices(db, job)) == [1, 2]


async def test_what_would_be_too_large_for_a_payload_is_left_out(node: InProcess, queue: Queue, db: DB) -> None:
    large = await queue.enqueue("ending", {"how": "discard", "n": "x" * 950_000})
    wordy = await queue.enqueue("ending", {"how": "large error", "n": "x" * 790_000})
    await until_state(db, large, "failed")
    await until_state(db, wordy, "failed")
    [notice] = await notices(db, large)
    assert (notice["payload"], notice["error"]) == (None, "no such order")
    [notice] = await notices(db, wordy)
    assert len(notice["payload"]["n"]) == 790_000
    assert len(notice["error"]) == 16_000


async def test_a_limited_task_is_told_in_its_turn(node: InProcess, queue: Queue, db: DB) -> None:
    await limits.put(db, "task", "told", Limit(concurrency=1))
    jobs = await queue.enqueue_many("ending", [{"how": "discard", "n": n} for n in range(20)])
    await until(
        lambda: db.fetchval("SELECT count(*) = 20 FROM workerd.history WHERE task = 'told' AND state = 'succeeded'"),
        "told",
    )
    assert {job for job in jobs if len(await notices(db, job)) != 1} == set()


async def test_a_notice_that_fails_may_be_told_of_by_another_task(node: InProcess, queue: Queue, db: DB) -> None:
    first = await queue.enqueue("failing_twice")
    last = await until(
        lambda: db.fetchrow("SELECT payload FROM workerd.history WHERE task = 'told_in_the_end'"),
        "the last one is told",
    )
    payload = json.loads(last["payload"])
    assert payload["task"] == "telling_fails"
    assert payload["payload"]["job_id"] == first


@pytest.mark.usefixtures("own_tasks")
async def test_code_that_declares_it_no_more_is_heeded(settings: Settings, queue: Queue, db: DB) -> None:
    declared = "SELECT on_failure FROM workerd.task WHERE name = 'changing'"
    for told in ("told", None):

        @task(name="changing", on_failure=told, retry=0)
        async def changing() -> None:
            raise ValueError

        async with InProcess(settings):
            assert await db.fetchval(declared) == told
            job = await queue.enqueue("changing")
            await until_state(db, job, "failed")
            assert len(await notices(db, job)) == (told is not None)


@pytest.mark.usefixtures("own_tasks")
async def test_a_circle_is_refused_also_with_what_others_have_declared(settings: Settings, db: DB) -> None:
    with pytest.raises(TaskError, match="circle, one failure would have notices without end: itself -> itself"):
        check({"itself": task(name="itself", on_failure="itself")(lambda **failure: None)})
    del registry["itself"]
    async with InProcess(settings):
        await db.execute("INSERT INTO workerd.task VALUES ('elsewhere', 'default', 0, 0)")
        await db.execute("UPDATE workerd.task SET on_failure = 'here' WHERE name = 'elsewhere'")

    @task(name="here", on_failure="elsewhere")
    async def here(**failure: Any) -> None: ...

    with pytest.raises(TaskError, match=r"circle, .*: (here -> elsewhere -> here|elsewhere -> here -> elsewhere)"):
        async with InProcess(settings):
            pass


@pytest.mark.usefixtures("own_tasks")
def test_who_is_told_takes_what_it_is_told() -> None:
    @task(name="narrow")
    async def narrow(job_id: int) -> None: ...

    wide = task(name="wide", on_failure=narrow)(lambda: None)
    with pytest.raises(TaskError, match="narrow is the on_failure of wide, so its arguments are job_id, task, payload"):
        check({"narrow": narrow, "wide": wide})
