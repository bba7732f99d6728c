"""Limits: rates and concurrency of tasks, queues and keys in the whole fleet, and fairness between keys."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from tests import handlers
from tests.support import InProcess, until, until_state
from workerd import TaskError, task
from workerd.declaration import declare
from workerd.limit import Limit
from workerd.queue import limits
from workerd.units import parse_rate

if TYPE_CHECKING:
    import asyncpg

    from tests.support import Ctl
    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

RUNS = "SELECT payload ->> 'tenant' AS tenant, started_at, finished_at FROM workerd.history WHERE task = $1 ORDER BY started_at"


async def ended(db: DB, task_name: str, count: int, limit: float = 30.0) -> list[asyncpg.Record]:
    await until(
        lambda: db.fetchval("SELECT count(*) >= $2 FROM workerd.history WHERE task = $1", task_name, count),
        f"{count} jobs of {task_name} have ended",
        limit,
    )
    return await db.fetch(RUNS, task_name)


def overlap(runs: list[asyncpg.Record]) -> int:
    """How many ran at the same time at most."""
    ends = sorted([(run["started_at"], 1) for run in runs] + [(run["finished_at"], -1) for run in runs])
    most = now = 0
    for _, step in ends:
        now += step
        most = max(most, now)
    return most


async def test_no_more_jobs_of_a_task_run_at_a_time_than_it_says(node: InProcess, queue: Queue, db: DB) -> None:
    await queue.enqueue_many("two_at_a_time", [{}] * 20)
    await asyncio.gather(*(queue.enqueue("two_at_a_time") for _ in range(20)))
    assert overlap(await ended(db, "two_at_a_time", 40)) == 2


async def test_each_key_has_its_own_concurrency_and_a_flood_of_one_does_not_hold_up_another(
    node: InProcess, queue: Queue, db: DB
) -> None:
    flood = await queue.enqueue_many("one_per_tenant", [{"tenant": "flood"}] * 10_000)
    await until_state(db, flood[0], "running", "succeeded")
    lonely = await queue.enqueue("one_per_tenant", {"tenant": "lonely"})
    row = await until_state(db, lonely, "succeeded")
    assert (row["started_at"] - row["enqueued_at"]).total_seconds() < 2 * handlers.LENGTH
    runs = await ended(db, "one_per_tenant", 20)
    assert overlap([run for run in runs if run["tenant"] == "flood"]) == 1


async def test_without_another_limit_keys_take_turns(settings: Settings, queue: Queue, db: DB) -> None:
    async with InProcess(settings.model_copy(update={"workers": 1})):
        await queue.enqueue_many("in_turn", [{"tenant": "flood"}] * 500)
        await until(lambda: db.fetchval("SELECT EXISTS (SELECT FROM workerd.history)"), "it began")
        late = await queue.enqueue_many("in_turn", [{"tenant": tenant} for tenant in "abcabc"])
        for job in late:
            await until_state(db, job, "succeeded")
        before = await db.fetchval(
            "SELECT count(*) FROM workerd.history WHERE started_at > (SELECT min(enqueued_at) FROM workerd.history WHERE id = ANY ($1))"
            " AND started_at < (SELECT max(started_at) FROM workerd.history WHERE id = ANY ($1))",
            late,
        )
    assert before < 60


async def test_a_rate_holds_and_is_used(node: InProcess, queue: Queue, db: DB) -> None:
    await queue.enqueue_many("forty_a_second", [{}] * 200)
    runs = await ended(db, "forty_a_second", 200)
    starts = [run["started_at"] for run in runs]
    took = (starts[-1] - starts[0]).total_seconds()
    assert 200 / 40 * 0.9 <= took <= 200 / 40 * 1.1


async def test_a_limit_by_command_holds_for_what_is_queued_already_and_is_lifted_again(
    settings: Settings, queue: Queue, db: DB, ctl: Ctl
) -> None:
    await queue.enqueue_many("pause", [{}] * 400)
    async with InProcess(settings.model_copy(update={"workers": 16})):
        await ended(db, "pause", 20)
        ctl("limits", "set", "queue", "default", "--concurrency", "1")
        set_at = await db.fetchval("SELECT clock_timestamp()")
        await asyncio.to_thread(ctl, "limits", "list")
        slow = [run for run in await ended(db, "pause", 120) if (run["started_at"] - set_at).total_seconds() > 1]
        assert overlap(slow) <= 1
        ctl("limits", "clear", "queue", "default")
        await ended(db, "pause", 400)
    assert not await db.fetchval("SELECT EXISTS (SELECT FROM workerd.lane WHERE limited)")


async def test_retries_wait_for_their_turn_too_and_nothing_is_lost(node: InProcess, queue: Queue, db: DB) -> None:
    jobs = await queue.enqueue_many("clumsy", [{"tenant": tenant} for tenant in "ab" * 10])
    for job in jobs:
        assert (await until_state(db, job, "succeeded"))["attempt"] == 2
    await until(lambda: db.fetchval("SELECT NOT EXISTS (SELECT FROM workerd.slot)"), "all slots are free again")


async def test_a_job_that_waits_for_its_turn_is_queued_and_can_be_cancelled(
    node: InProcess, queue: Queue, db: DB
) -> None:
    begun, go_on = handlers.gate(520)
    running = await queue.enqueue("alone", {"number": 520})
    await begun.wait()
    waiting = await queue.enqueue("alone", {"number": 521})
    assert (await until_state(db, waiting, "queued"))["attempt"] == 0
    stats = await db.fetchval("SELECT count(*) FROM workerd.job WHERE state = 'queued'")
    assert stats == 1
    await queue.cancel(waiting)
    await until_state(db, waiting, "cancelled")
    go_on.set()
    await until_state(db, running, "succeeded")


async def test_delayed_and_dependent_jobs_are_limited_as_well(node: InProcess, queue: Queue, db: DB) -> None:
    parent = await queue.enqueue("echo")
    await queue.enqueue_many("two_at_a_time", [{}] * 10, delay=0.1)
    await queue.enqueue_many("two_at_a_time", [{}] * 10, after=[parent])
    assert overlap(await ended(db, "two_at_a_time", 20)) == 2


async def test_what_the_code_declares_is_declared_once(db: DB) -> None:
    @task(name="declared_limit", limit="60/m", limit_key="tenant")
    async def handler(tenant: str) -> None: ...

    await db.execute("INSERT INTO workerd.task VALUES ('declared_limit', 'default', 0, 3)")
    await limits.declare(db, [declare(handler, 3)])
    await limits.declare(db, [declare(handler, 3)])
    (found,) = await limits.find(db)
    assert (found["scope"], found["rate"], found["limit_key"], found["origin"]) == ("key", 1.0, "tenant", "declared")
    await limits.put(db, "key", "declared_limit", Limit(concurrency=2))
    (found,) = await limits.find(db)
    assert (found["rate"], found["concurrency"], found["origin"]) == (None, 2, "operator")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"limit": "fast"}, "'fast' is not a rate: use 10/s, 100/m or 1000/h"),
        ({"concurrency": 0}, "concurrency is 0, allowed is a whole number from 1"),
        ({"limit_key": "tenant"}, "limit_key is tenant, which is no argument of it"),
    ],
)
def test_a_wrong_limit_is_one_line(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(TaskError, match=reason):
        task(name="wrong_limit", **options)(handlers.nap.fn)


def test_rates_as_people_write_them() -> None:
    assert [parse_rate(text) for text in ("10/s", "90/m", "3600/h", "5/10s", "2")] == [10, 1.5, 1, 0.5, 2]
    assert all(a < b for a, b in pairwise([parse_rate("1/d"), parse_rate("1/h"), parse_rate("1/m")]))
