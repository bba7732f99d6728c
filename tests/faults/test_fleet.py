"""Daemons on one database whose sessions are cut and which are killed: every job succeeds, and once."""

from __future__ import annotations

import asyncio
import random
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import asyncpg

from tests.faults.balance import ENDED
from tests.faults.fleet import daemons, only_living, start, start_again
from tests.support import until

if TYPE_CHECKING:
    from tests.faults.balance import Books
    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

JOBS = 2000
CUT = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'worker%' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 2
"""


async def _pause(over: asyncio.Event, least: float, most: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(over.wait(), random.uniform(least, most))


async def test_two_thousand_jobs_succeed_once_though_daemons_are_killed_and_sessions_cut(
    settings: Settings, queue: Queue, db: DB, books: Books, dsn: str
) -> None:
    """Each job writes its row in the transaction that finishes it."""
    await db.execute("CREATE TABLE ran (n int, attempt int)")
    over = asyncio.Event()
    cuts = kills = 0

    async def cut_sessions() -> None:
        nonlocal cuts
        while not over.is_set():
            cuts += len(await db.fetch(CUT))
            await _pause(over, 0.1, 0.4)

    async def kill_daemons() -> None:
        nonlocal kills
        while not over.is_set():
            await _pause(over, 0.5, 1.5)
            daemon = random.choice(fleet)
            await asyncio.to_thread(daemon.kill)
            await start_again(daemon)
            kills += 1

    observer = await asyncpg.connect(dsn)
    fleet = daemons(settings, "a", "b", "c", workers=8, max_crashes=20)
    with ExitStack() as stack:
        for daemon in fleet:
            stack.enter_context(daemon)
        await start(*fleet)
        jobs = await queue.enqueue_many("recorded", [{"n": n, "seconds": 0.1} for n in range(JOBS)], max_retries=50)
        async with asyncio.TaskGroup() as troubles:
            troubles.create_task(cut_sessions())
            troubles.create_task(kill_daemons())
            await until(lambda: observer.fetchval(ENDED), "all jobs ended", 180)
            over.set()
        await only_living(db, fleet)
        assert await books.close(*fleet) == []
    await observer.close()
    assert min(cuts, kills) > 2
    states = await db.fetch("SELECT state, count(*) FROM workerd.job WHERE id = ANY ($1) GROUP BY state", jobs)
    assert [tuple(row) for row in states] == [("succeeded", JOBS)]
    assert sorted(row[0] for row in await db.fetch("SELECT n FROM ran")) == list(range(JOBS))


async def test_two_daemons_share_long_jobs_evenly(settings: Settings, queue: Queue, db: DB, books: Books) -> None:
    """Neither claims so far ahead that the other one has nothing to do: forty jobs of a second on eight workers."""
    with ExitStack() as stack:
        fleet = [stack.enter_context(daemon) for daemon in daemons(settings, "a", "b", workers=4)]
        await start(*fleet)
        await queue.enqueue_many("nap", [{"seconds": 1} for _ in range(40)])
        await until(lambda: db.fetchval(ENDED), "all jobs ended")
        assert await books.close(*fleet) == []
    ends = {
        row[0]: row[1] for row in await db.fetch("SELECT node, max(finished_at) FROM workerd.history GROUP BY node")
    }
    assert len(ends) == 2
    last = await db.fetchval("SELECT max(started_at) FROM workerd.history")
    assert last < min(ends.values()), "a node had nothing to do while jobs waited for the other one"
