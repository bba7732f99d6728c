"""Daemons are killed without warning; every job ends exactly once."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from tests import handlers
from tests.faults.fleet import daemons, only_living, start
from tests.support import until, until_state

if TYPE_CHECKING:
    import asyncpg

    from tests.faults.balance import Books
    from tests.support import DaemonProcess, InProcess
    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

JOBS = 200


async def _ran(db: DB) -> int:
    count: int = await db.fetchval("SELECT count(*) FROM ran")
    return count


async def _all_ended(db: DB) -> bool:
    count: int = await db.fetchval("SELECT count(*) FROM workerd.history WHERE task = 'recorded'")
    return count == JOBS


async def test_three_kills_lose_nothing_and_finish_nothing_twice(
    daemon: DaemonProcess, queue: Queue, db: DB, settings: Settings, books: Books
) -> None:
    """Each job writes a row in the transaction that finishes it, so a second success would be a second row."""
    await db.execute("CREATE TABLE ran (n int, attempt int)")
    jobs = await queue.enqueue_many("recorded", [{"n": n, "seconds": 0.05} for n in range(JOBS)])
    for kill in range(1, 4):
        daemon.start()

        async def moved(least: int = kill * 30) -> bool:
            return await _ran(db) >= least

        await until(moved, "some jobs ran")
        daemon.kill()
    daemon.start()
    await until(lambda: _all_ended(db), "all jobs ended", 60)

    assert sorted(r[0] for r in await db.fetch("SELECT n FROM ran")) == list(range(JOBS))
    rows = await db.fetch("SELECT * FROM workerd.job WHERE id = ANY ($1)", jobs)
    assert [row["state"] for row in rows] == ["succeeded"] * JOBS
    rescued = [row for row in rows if row["attempt"] > 1]
    assert rescued
    for row in rescued:
        assert row["failures"] == 0
        crashes = [a for a in json.loads(row["attempts"]) if a["outcome"] == "crashed"]
        assert len(crashes) == row["attempt"] - 1
        assert all(a["error"] == f"node {settings.node} died" for a in crashes)
    await only_living(db, [daemon])
    assert await books.close(daemon) == []


async def test_a_job_that_kills_its_daemon_is_failed_and_none_of_those_claimed_with_it_is(
    daemon: DaemonProcess, queue: Queue, db: DB, books: Books
) -> None:
    """Whatever was claimed when a node died counts a crash; only what was running when it died the third time fails."""
    innocents = await queue.enqueue_many("nap", [{"seconds": 0} for _ in range(250)])
    poison = await queue.enqueue("deadly")
    innocents += await queue.enqueue_many("nap", [{"seconds": 0} for _ in range(250)])
    for _ in range(3):
        daemon.launch()  # it may die before it has said that it is ready
        assert await asyncio.to_thread(daemon.wait) == 1
    daemon.start()
    row = await until_state(db, poison, "failed")
    assert "its node died 3 times while it held the job" in row["error"]

    async def ended() -> bool:
        count: int = await db.fetchval(
            "SELECT count(*) FROM workerd.job WHERE id = ANY ($1) AND state = 'succeeded'", innocents
        )
        return count == len(innocents)

    await until(ended, "all innocents succeed")
    crashed = "SELECT count(*) FROM workerd.history WHERE id = ANY ($1) AND crashes > 0"
    assert await db.fetchval(crashed, innocents) > 0, "none was claimed with it"
    await only_living(db, [daemon])
    assert await books.close(daemon) == []


async def test_a_node_declared_dead_loses_its_jobs_and_begins_anew(node: InProcess, queue: Queue, db: DB) -> None:
    begun, go_on = handlers.gate(70)
    job = await queue.enqueue("gated", {"number": 70})
    await begun.wait()
    before = (await node.ask("status"))["data"]["node_id"]
    await db.execute("UPDATE workerd.node SET dead_at = clock_timestamp()")
    again = "SELECT attempt = 2 FROM workerd.job WHERE state = 'running' AND id = $1"
    await until(lambda: db.fetchval(again, job), "it runs again")
    go_on.set()
    row = await until_state(db, job, "succeeded")
    after = (await node.ask("status"))["data"]
    assert after["node_id"] != before
    assert row["attempt"] == 2
    assert after["jobs_done"] == 1
    assert after["jobs_lost"] >= 1


async def test_cutting_every_connection_under_load_loses_nothing(
    daemon: DaemonProcess, queue: Queue, db: DB, books: Books
) -> None:
    """Handlers whose own connection is cut fail their attempt and are retried; every answer that was lost is made good."""
    await db.execute("CREATE TABLE ran (n int, attempt int)")
    jobs = await queue.enqueue_many("recorded", [{"n": n, "seconds": 0.02} for n in range(JOBS)])
    daemon.start()
    for cut in range(1, 6):

        async def moved(least: int = cut * 25) -> bool:
            return await _ran(db) >= least

        await until(moved, "some jobs ran")
        await db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    await until(lambda: _all_ended(db), "all jobs ended", 60)
    rows = await db.fetch("SELECT n, count(*) FROM ran GROUP BY n")
    assert len(rows) == JOBS
    assert all(row[1] == 1 for row in rows)
    states = await db.fetch("SELECT state, count(*) FROM workerd.job WHERE id = ANY ($1) GROUP BY state", jobs)
    assert [tuple(s) for s in states] == [("succeeded", JOBS)]
    assert await books.close(daemon) == []


async def test_two_daemons_share_the_work_and_one_takes_over(
    settings: Settings, queue: Queue, db: DB, books: Books
) -> None:
    await db.execute("CREATE TABLE ran (n int, attempt int)")
    first, second = daemons(settings, "first", "second")
    with first, second:
        await start(first, second)
        jobs = await queue.enqueue_many("recorded", [{"n": n, "seconds": 0.05} for n in range(JOBS)])

        async def moved() -> bool:
            return await _ran(db) >= 50

        await until(moved, "some jobs ran")
        first.kill()
        await until(lambda: _all_ended(db), "all jobs ended", 60)
        await only_living(db, [second])
        assert await books.close(first, second) == []
    assert sorted(r[0] for r in await db.fetch("SELECT n FROM ran")) == list(range(JOBS))
    nodes = {r[0] for r in await db.fetch("SELECT DISTINCT node FROM workerd.job WHERE id = ANY ($1)", jobs)}
    assert nodes == {first.settings.node, second.settings.node}
