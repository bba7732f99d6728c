"""Jobs that wait for other jobs: with which ends they start, and when they never will."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from tests import handlers
from tests.support import state_of, until, until_state
from workerd import After, Call, PayloadError, TaskError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support import InProcess
    from workerd import Queue

    DB = asyncpg.Connection[asyncpg.Record]


async def test_a_job_starts_when_all_that_it_waits_for_have_succeeded(node: InProcess, queue: Queue, db: DB) -> None:
    begun, go_on = handlers.gate(500)
    first = await queue.enqueue("echo", {"value": 1})
    second = await queue.enqueue("gated", {"number": 500})
    child = await queue.enqueue("gather", after=[first, second])
    await begun.wait()
    await until_state(db, first, "succeeded")
    assert await state_of(db, child) == "blocked"
    go_on.set()
    assert await queue.result(child, timeout=60) == [1, "went on"]


async def test_parents_that_have_ended_already_are_seen(node: InProcess, queue: Queue) -> None:
    parent = await queue.enqueue("echo", {"value": {"pages": 3}})
    await queue.result(parent, timeout=60)
    assert await queue.result(await queue.enqueue("gather", after=[parent]), timeout=60) == [{"pages": 3}]


@pytest.mark.parametrize("task", ["gather_in_thread", "gather_in_child"])
async def test_results_of_parents_reach_handlers_of_each_kind(node: InProcess, queue: Queue, task: str) -> None:
    parents = await queue.enqueue_many("echo", [{"value": n} for n in range(3)])
    assert await queue.result(await queue.enqueue(task, after=parents), timeout=60) == [0, 1, 2]


async def test_a_parent_that_leaves_no_row_counts_as_succeeded(node: InProcess, queue: Queue) -> None:
    begun, go_on = handlers.gate(501)
    parent = await queue.enqueue("fleeting", {"number": 501})
    child = await queue.enqueue("gather", after=[parent])
    await begun.wait()
    go_on.set()
    assert await queue.result(child, timeout=60) == [None]


async def test_what_waits_for_a_failed_job_is_cancelled_and_what_waits_for_that_too(
    node: InProcess, queue: Queue, db: DB
) -> None:
    begun, go_on = handlers.gate(502)
    failing = await queue.enqueue("gated_failure", {"number": 502})
    child = await queue.enqueue("gather", after=[failing])
    grandchild = await queue.enqueue("gather", after=[child])
    await begun.wait()
    go_on.set()
    row = await until_state(db, grandchild, "cancelled")
    assert row["error"] == f"job {child}, which it waits for, was cancelled"
    assert (await until_state(db, child, "cancelled"))["error"] == f"job {failing}, which it waits for, failed"


async def test_after_a_failure_too_and_after_any_of_several(node: InProcess, queue: Queue, db: DB) -> None:
    begun, go_on = handlers.gate(503)
    failing = await queue.enqueue("discarding")
    late = await queue.enqueue("gated", {"number": 503})
    cleanup = await queue.enqueue("gather", after=After([failing], end="finished"))
    first_come = await queue.enqueue("gather", after=After([failing, late], need="any", end="finished"))
    never = await queue.enqueue("gather", after=After([failing, failing], need="any"))
    await begun.wait()
    assert await queue.result(cleanup, timeout=60) == [None]
    assert await queue.result(first_come, timeout=60) == [None, None]
    await until_state(db, never, "cancelled")
    waits_on = await queue.enqueue("gather", after=After([failing, late], need="any"))
    await until(lambda: db.fetchval("SELECT NOT EXISTS (SELECT FROM workerd.unlooked)"), "its parents were looked at")
    assert await state_of(db, waits_on) == "blocked"
    go_on.set()
    assert await queue.result(waits_on, timeout=60) == [None, "went on"]


async def test_cancelling_a_parent_that_has_not_started_cancels_what_waits(
    queue: Queue, node: InProcess, db: DB
) -> None:
    parent = await queue.enqueue("echo", delay="1h")
    child = await queue.enqueue("gather", after=[parent])
    assert await queue.cancel(parent) == "scheduled"
    await until_state(db, child, "cancelled")


async def test_a_blocked_job_can_be_cancelled_and_can_be_told_not_to_wait(
    queue: Queue, node: InProcess, db: DB
) -> None:
    parent = await queue.enqueue("echo", delay="1h")
    child, impatient = [await queue.enqueue("gather", after=[parent]) for _ in range(2)]
    await queue.cancel(child)
    await until_state(db, child, "cancelled")
    assert await queue.retry(impatient) == "blocked"
    assert await queue.result(impatient, timeout=60) == [None]


async def test_parent_and_child_of_one_transaction_exist_both_or_not_at_all(
    node: InProcess, queue: Queue, db: DB
) -> None:
    async with queue.connection() as connection, connection.transaction():
        parent = await queue.enqueue("echo", {"value": 7}, connection=connection)
        child = await queue.enqueue("gather", after=[parent], connection=connection)
    assert await queue.result(child, timeout=60) == [7]


async def test_a_parent_that_ends_while_its_child_is_being_enqueued_is_not_missed(
    node: InProcess, queue: Queue, dsn: str
) -> None:
    begun, go_on = handlers.gate(504)
    parent = await queue.enqueue("gated", {"number": 504})
    await begun.wait()
    other = await asyncpg.connect(dsn)
    async with other.transaction():
        child = await other.fetchval("SELECT workerd.enqueue('gather', after => ARRAY[$1::bigint])", parent)
        go_on.set()
        await queue.result(parent, timeout=60)  # it has ended, and could not know of the child
    assert await queue.result(child, timeout=60) == ["went on"]
    await other.close()


async def test_a_delay_counts_from_the_enqueueing_and_a_key_holds_while_it_waits(
    queue: Queue, node: InProcess, db: DB
) -> None:
    parent = await queue.enqueue("echo")
    child = await queue.enqueue("gather", after=[parent], delay="1h", key="once")
    await queue.result(parent, timeout=60)
    await until_state(db, child, "scheduled")
    assert await queue.enqueue("gather", key="once") == child


async def test_many_jobs_after_one_and_one_after_many(node: InProcess, queue: Queue) -> None:
    root = await queue.enqueue("echo", {"value": 0})
    middle = await queue.enqueue_many("echo", [{"value": n} for n in range(1500)], after=[root])
    assert await queue.result(await queue.enqueue("gather", after=middle), timeout=30) == list(range(1500))


@pytest.mark.parametrize(
    ("after", "reason"),
    [([10**9], "there is no job 1000000000"), ("12", "allowed is a list of ids"), ([None], "allowed is a list of ids")],
)
async def test_what_cannot_be_waited_for_is_refused(queue: Queue, after: Any, reason: str) -> None:
    with pytest.raises((PayloadError, TaskError), match=reason):
        await queue.enqueue("gather", after=after)


async def test_a_thousand_pairs_all_run(node: InProcess, queue: Queue, db: DB) -> None:
    parents = await queue.enqueue_many("echo", [{"value": n} for n in range(1000)])
    children = await asyncio.gather(*(queue.enqueue("echo", {"value": 1}, after=[parent]) for parent in parents))
    await until(
        lambda: db.fetchval(
            "SELECT count(*) = 1000 FROM workerd.history WHERE id = ANY ($1) AND state = 'succeeded'", children
        ),
        "all children have run",
    )


async def test_a_flow_runs_in_its_order_and_comes_into_being_as_a_whole(node: InProcess, queue: Queue) -> None:
    ids = await queue.flow(
        {
            "sum": Call("gather", after=["left", "right"]),
            "left": Call("echo", {"value": 1}, after="root"),
            "right": Call("echo", {"value": 2}, after="root", options={"priority": 5}),
            "root": Call("echo", {"value": 0}),
        }
    )
    assert list(ids) == ["sum", "left", "right", "root"]
    assert await queue.result(ids["sum"], timeout=60) == [1, 2]


async def test_a_flow_with_a_cycle_or_a_gap_is_refused(queue: Queue, db: DB) -> None:
    with pytest.raises(TaskError, match=r"in a cycle: (a → b → a|b → a → b)"):
        await queue.flow({"a": Call("echo", after="b"), "b": Call("echo", after="a")})
    with pytest.raises(TaskError, match="a is to come after z, which is no call of this flow"):
        await queue.flow({"a": Call("echo", after="z")})
    assert await db.fetchval("SELECT count(*) FROM workerd.job") == 0


async def test_a_chain_hands_each_result_to_the_next(node: InProcess, queue: Queue) -> None:
    *_, last = await queue.chain(Call("echo", {"value": 5}), Call("gather"), Call("gather"))
    assert await queue.result(last, timeout=60) == [[5]]


async def test_a_batch_shows_its_progress_counts_its_jobs_and_is_followed_by_one(
    node: InProcess, queue: Queue, db: DB
) -> None:
    begun, go_on = handlers.gate(505)
    async with queue.batch(on_finished=Call("gather")) as batch:
        await batch.enqueue_many("echo", [{"value": n} for n in range(2)])
        await batch.enqueue("discarding")
        await batch.enqueue("gated", {"number": 505})
    await begun.wait()

    async def progress() -> float | None:
        fraction: float | None = await db.fetchval("SELECT progress FROM workerd.job WHERE id = $1", batch.id)
        return fraction

    await until(lambda: is_equal(progress, 0.75), "three of four have ended")
    assert await state_of(db, batch.id) == "blocked"
    go_on.set()
    counts = {"jobs": 4, "succeeded": 3, "failed": 1, "cancelled": 0}
    assert await queue.result(batch.id, timeout=60) == counts
    assert batch.finished_id is not None
    assert await queue.result(batch.finished_id, timeout=60) == [counts]


async def test_a_batch_whose_block_fails_leaves_nothing_and_one_without_jobs_succeeds(
    node: InProcess, queue: Queue, db: DB
) -> None:
    async def fail() -> None:
        async with queue.batch() as failing:
            await failing.enqueue("echo")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await db.fetchval("SELECT count(*) FROM workerd.job") == 0
    async with queue.batch() as batch:
        pass
    assert (await queue.result(batch.id, timeout=60))["jobs"] == 0


async def is_equal(ask: Callable[[], Awaitable[object]], expected: object) -> bool:
    return await ask() == expected
