"""Nodes that work through a manager which is killed, and that are killed themselves: nothing is lost, nothing ends twice."""

from __future__ import annotations

import asyncio
import signal
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from tests.faults.fleet import daemons, start
from tests.manager_process import through
from tests.support import DaemonProcess, until, until_state

if TYPE_CHECKING:
    import asyncpg

    from tests.faults.balance import Books
    from tests.manager_process import ManagerProcess
    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

JOBS, NEAR = 3000, 200  # of the nodes that work through the manager, and of the one that does not
OUTAGE = 7.0  # seconds: silence that a leader forgives for its first 5 counts by its end
BY_TRANSPORT = """
    SELECT n.transport, count(*) FROM workerd.history h JOIN workerd.node n ON n.id = h.node WHERE h.state = 'succeeded' GROUP BY 1
"""
CUT = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'worker manager%'
"""
LEFT = "SELECT count(*) FROM workerd.ready"


async def test_a_fleet_of_both_kinds_drains_although_the_manager_is_away_for_longer_than_three_heartbeats(
    settings: Settings, manager: ManagerProcess, queue: Queue, db: DB, books: Books
) -> None:
    """Jobs of 20 ms: the outage falls into the middle of the work. What ended meanwhile is kept by the nodes until it is delivered."""
    beat = {"heartbeat_interval": 1.0, "workers": 8, "queues": ("default",)}  # three of them are less than the outage
    one, two = [(await through(manager, settings, db, name)).model_copy(update=beat) for name in ("one", "two")]
    fleet = [DaemonProcess(one), DaemonProcess(two), *daemons(settings, "near", workers=2, queues=("near",))]
    with ExitStack() as stack:
        for daemon in fleet:
            stack.enter_context(daemon)
        await start(*fleet)
        await queue.enqueue_many("nap", [{"seconds": 0.02}] * JOBS)
        await until(lambda: _fewer(db, JOBS - 1000), "a thousand jobs have ended")
        near = await queue.enqueue_many("nap", [{"seconds": 0.02}] * NEAR, queue="near")
        manager.kill()
        await asyncio.sleep(OUTAGE)
        for job in near:
            await until_state(db, job, "succeeded")
        assert await db.fetchval(LEFT) > 0, "the outage was not in the middle"
        await manager.start()
        assert await books.close(*fleet, limit=120.0) == []
    ended = {row["transport"]: row["count"] for row in await db.fetch(BY_TRANSPORT)}
    assert ended == {"http": JOBS, "postgres": NEAR}
    assert await db.fetchval("SELECT max(attempt) FROM workerd.history") == 1, (
        "a node was declared dead though it lived"
    )


async def test_what_a_killed_node_held_is_run_by_another_one(
    settings: Settings, manager: ManagerProcess, queue: Queue, db: DB, books: Books
) -> None:
    """Nothing but its heartbeats tells that it has died: three of them."""
    first, second = [DaemonProcess(await through(manager, settings, db, name)) for name in ("one", "two")]
    with first, second:
        await start(first)
        jobs = await queue.enqueue_many("nap", [{"seconds": 0.2}] * 100)
        await until(lambda: db.fetchval("SELECT EXISTS (SELECT FROM workerd.lease)"), "jobs run")
        await asyncio.to_thread(first.kill)
        await start(second)
        assert await books.close(second) == []
    assert await db.fetchval("SELECT count(*) FROM workerd.history WHERE state = 'succeeded'") == len(jobs)
    assert await db.fetchval("SELECT max(attempt) FROM workerd.history") == 2


async def test_three_kills_lose_nothing_and_finish_nothing_twice(
    settings: Settings, manager: ManagerProcess, queue: Queue, db: DB, books: Books
) -> None:
    daemon = DaemonProcess(await through(manager, settings, db, "one"))
    with daemon:
        await queue.enqueue_many("nap", [{"seconds": 0.05}] * 200)
        for kill in range(1, 4):
            await start(daemon)
            await until(partial(_fewer, db, 200 - 30 * kill), "some jobs ran")
            await asyncio.to_thread(daemon.kill)
        await start(daemon)
        assert await books.close(daemon) == []
    assert await db.fetchval("SELECT count(*) FROM workerd.history WHERE state = 'succeeded'") == 200
    assert await db.fetchval("SELECT max(attempt) > 1 FROM workerd.history")


async def test_a_manager_whose_sessions_are_cut_and_that_freezes_costs_no_job_an_attempt(
    settings: Settings, manager: ManagerProcess, queue: Queue, db: DB, books: Books
) -> None:
    beat = {"heartbeat_interval": 5.0}
    daemon = DaemonProcess((await through(manager, settings, db, "one")).model_copy(update=beat))
    with daemon:
        await start(daemon)
        await queue.enqueue_many("nap", [{"seconds": 0.02}] * 1000)
        for cut in range(1, 11):
            await until(partial(_fewer, db, 1000 - 60 * cut), "some jobs ran")
            await db.execute(CUT)
        assert manager.process is not None
        manager.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(3.0)
        manager.process.send_signal(signal.SIGCONT)
        assert await books.close(daemon) == []
    ended = await db.fetch("SELECT state, attempt, count(*) FROM workerd.history GROUP BY 1, 2")
    assert [tuple(row) for row in ended] == [("succeeded", 1, 1000)]


async def _fewer(db: DB, count: int) -> bool:
    left: int = await db.fetchval(LEFT)
    return left < count
