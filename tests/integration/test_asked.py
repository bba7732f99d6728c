"""What few jobs are asked for: what becomes of another job with the key, until when the key holds, a deadline, a node; changes by hand."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests import handlers
from tests.support import InProcess, state_of, until, until_state
from workerd import JobError, TaskError

if TYPE_CHECKING:
    import asyncpg

    from tests.support import Ctl
    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]


async def payload_of(db: DB, job_id: int) -> Any:
    return json.loads(await db.fetchval("SELECT payload FROM workerd.job WHERE id = $1", job_id))


@pytest.mark.parametrize("delay", [None, "1h"])
async def test_a_waiting_job_with_the_key_is_kept_or_replaced(queue: Queue, db: DB, delay: str | None) -> None:
    job = await queue.enqueue("echo", {"value": 1}, key="k", delay=delay)
    assert await queue.enqueue("echo", {"value": 2}, key="k") == job
    assert await payload_of(db, job) == {"value": 1}
    assert await queue.enqueue("echo", {"value": 3}, key="k", delay=delay, conflict="replace", priority=7) == job
    assert await payload_of(db, job) == {"value": 3}
    row = await db.fetchrow("SELECT priority FROM workerd.job WHERE id = $1", job)
    assert row is not None
    assert row["priority"] == 7
    assert await db.fetchval("SELECT count(*) FROM workerd.job") == 1


async def test_a_burst_of_calls_becomes_one_job_that_starts_after_the_last(
    queue: Queue, db: DB, node: InProcess
) -> None:
    jobs = {await queue.enqueue("echo", {"value": n}, key="burst", delay=0.3, conflict="replace") for n in range(10)}
    (job,) = jobs
    assert await queue.result(job, timeout=60) == 9


async def test_rescheduling_changes_the_time_alone(queue: Queue, db: DB) -> None:
    job = await queue.enqueue("echo", {"value": 1}, key="k")
    at = datetime.now(UTC) + timedelta(hours=2)
    assert await queue.enqueue("echo", {"value": 2}, key="k", run_at=at, conflict="reschedule") == job
    row = await until_state(db, job, "scheduled")
    assert (row["run_at"], json.loads(row["payload"])) == (at, {"value": 1})


async def test_a_running_job_with_the_key_stays_as_it_is(queue: Queue, db: DB, node: InProcess) -> None:
    begun, go_on = handlers.gate(530)
    job = await queue.enqueue("gated", {"number": 530}, key="k")
    await begun.wait()
    assert await queue.enqueue("gated", {"number": 531}, key="k", conflict="replace") == job
    go_on.set()
    assert await queue.result(job, timeout=60) == "went on"


async def test_a_key_until_started_is_free_while_the_job_runs(queue: Queue, db: DB, node: InProcess) -> None:
    begun, go_on = handlers.gate(532)
    first = await queue.enqueue("gated", {"number": 532}, key="k", key_until="started")
    await begun.wait()
    second = await queue.enqueue("echo", {"value": 2}, key="k")
    assert second != first
    assert await queue.result(second, timeout=60) == 2
    go_on.set()
    assert await queue.result(first, timeout=60) == "went on"
    assert await db.fetchval("SELECT count(*) FROM workerd.key") == 0


async def test_racing_replacements_leave_one_job(queue: Queue, db: DB) -> None:
    ids = await asyncio.gather(
        *(queue.enqueue("echo", {"value": n}, key="k", conflict="replace", delay=n % 2) for n in range(40))
    )
    assert len(set(ids)) == 1
    assert await db.fetchval("SELECT count(*) FROM workerd.job") == 1


async def test_past_its_deadline_a_job_is_cancelled_instead_of_started(
    settings: Settings, queue: Queue, db: DB
) -> None:
    late = await queue.enqueue("echo", deadline=0.05)
    in_time = await queue.enqueue("echo", {"value": 1}, deadline="1h")
    await until(
        lambda: db.fetchval(
            "SELECT clock_timestamp() > enqueued_at + interval '0.1 s' FROM workerd.job WHERE id = $1", late
        ),
        "its deadline has passed",
    )
    async with InProcess(settings):
        row = await until_state(db, late, "cancelled")
        assert row["error"] == "its deadline had passed before it could start"
        assert await queue.result(in_time, timeout=60) == 1


async def test_a_pinned_job_runs_on_its_node_and_waits_for_it(settings: Settings, queue: Queue, db: DB) -> None:
    pinned = await queue.enqueue("echo", {"value": 1}, pin="there", priority=9)
    other = await queue.enqueue("echo", {"value": 2})
    async with InProcess(settings.model_copy(update={"node_name": "here"})):
        await until_state(db, other, "succeeded")
        assert await state_of(db, pinned) == "queued"
    async with InProcess(settings.model_copy(update={"node_name": "there"})):
        assert (await until_state(db, pinned, "succeeded"))["node"] == "there"


async def test_a_job_that_prefers_a_node_that_does_not_live_goes_to_another(
    settings: Settings, queue: Queue, db: DB
) -> None:
    job = await queue.enqueue("echo", prefer="there")
    async with InProcess(settings.model_copy(update={"node_name": "here"})):
        assert (await until_state(db, job, "succeeded"))["node"] == "here"
        mine = await queue.enqueue_many("echo", [{}] * 3, prefer="here")
        for each in mine:
            assert (await until_state(db, each, "succeeded"))["node"] == "here"


async def test_the_priority_of_what_waits_rises_with_its_age(settings: Settings, queue: Queue, db: DB) -> None:
    async with InProcess(settings.model_copy(update={"workers": 1})):
        begun, go_on = handlers.gate(533)
        await queue.enqueue("gated", {"number": 533}, priority=5)
        await begun.wait()
        old = await queue.enqueue("echo", {"value": "old"}, priority=0)
        await db.execute("UPDATE workerd.queue SET ageing = 0.2")
        await until(lambda: db.fetchval("SELECT priority = 5 FROM workerd.job WHERE id = $1", old), "it has risen")
        urgent = await queue.enqueue("echo", {"value": "urgent"}, priority=5)
        go_on.set()
        first, second = [await until_state(db, job, "succeeded") for job in (old, urgent)]
        assert first["started_at"] < second["started_at"]


async def test_a_waiting_job_is_changed_by_hand_and_others_are_not(queue: Queue, db: DB, ctl: Ctl) -> None:
    job = await queue.enqueue("echo", {"value": 1})
    assert await queue.change(job, payload={"value": 2}, queue="other", priority=3) == "queued"
    row = await db.fetchrow("SELECT queue, priority, payload FROM workerd.job WHERE id = $1", job)
    assert row is not None
    assert (row["queue"], row["priority"], json.loads(row["payload"])) == ("other", 3, {"value": 2})
    assert await queue.change(job, delay="1h") in ("queued", "scheduled")
    await until_state(db, job, "scheduled")
    done = await asyncio.to_thread(ctl, "jobs", "edit", str(job), "--delay", "0", "--payload", '{"value": 3}')
    assert done.stdout == f"job {job}, which was scheduled, is changed\n"
    await queue.cancel(job)
    with pytest.raises(JobError, match="is finished already: it is not changed"):
        await queue.change(job, priority=1)
    with pytest.raises(JobError, match="there is no job 99"):
        await queue.change(99, priority=1)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"conflict": "merge"}, "conflict is 'merge', allowed is keep or replace or reschedule"),
        ({"key_until": "dawn"}, "key_until is 'dawn', allowed is finished or started"),
        ({"deadline": "soon"}, "deadline 'soon' is not a duration"),
        ({"deadline": datetime(2030, 1, 1)}, "deadline has no time zone"),  # noqa: DTZ001
        ({"pin": "a", "prefer": "b"}, "pin and prefer exclude each other"),
        ({"pin": ""}, r"pin \(the name of a node"),
        ({"colour": "red"}, "enqueue knows no option colour"),
    ],
)
async def test_what_cannot_be_asked_is_one_line(queue: Queue, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(TaskError, match=reason):
        await queue.enqueue("echo", **options)


def test_the_command_draws_the_jobs_that_wait_for_each_other(ctl: Ctl) -> None:
    first = ctl.json("enqueue", "echo", "{}")["id"]
    second = ctl.json("enqueue", "echo", "{}", "--after", str(first), "--deadline", "1h", "--prefer", "here")["id"]
    shown = ctl("jobs", "show", str(second)).stdout
    assert f"jobs that wait for each other:\n{first} echo queued\n└── → {second} echo blocked\n" in shown
    assert ctl.json("jobs", "show", str(first))["graph"]["edges"] == [[first, second]]
