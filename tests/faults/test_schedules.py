"""Schedules while leaders die: exactly one job for each due time."""

from __future__ import annotations

import asyncio
import random
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import asyncpg

from tests.faults.balance import Books
from tests.faults.cluster import Cluster
from tests.faults.fleet import KILLS, daemons, leader, only_living, start
from tests.faults.test_database import in_state, on, opened
from tests.support import DaemonProcess, until
from workerd import schedule

if TYPE_CHECKING:
    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

_KEYS = "SELECT key FROM workerd.job WHERE key LIKE 'schedule:%' ORDER BY id"


async def test_each_second_has_one_job_though_the_leader_of_three_is_killed_again_and_again(
    settings: Settings, queue: Queue, db: DB, books: Books
) -> None:
    fleet = daemons(settings, "a", "b", "c", workers=2)
    try:
        await start(*fleet)
        await queue.schedule("echo", schedule("* * * * * *", catch_up="all"))
        for _ in range(KILLS):
            await asyncio.sleep(random.uniform(0.5, 1.5))  # of a second in which a job is due, any part
            killed = await leader(db, fleet)
            killed.kill()
            await start(killed)
        end = await db.fetchval("SELECT clock_timestamp()")
        await until(lambda: db.fetchval("SELECT next_at > $1 FROM workerd.schedule", end), "it is served up to now")
        await db.execute("UPDATE workerd.schedule SET paused_at = now()")
        times = [datetime.fromisoformat(row["key"].rpartition("@")[2]) for row in await db.fetch(_KEYS)]
        assert len(times) >= KILLS
        assert sorted(times) == [min(times) + timedelta(seconds=n) for n in range(len(times))]
        await only_living(db, fleet)
        assert await books.close(*fleet) == []
    finally:
        for daemon in fleet:
            daemon.kill()


async def test_each_second_of_an_outage_of_the_database_has_its_job_when_it_is_back(settings: Settings) -> None:
    with Cluster("-c", "synchronous_commit=on") as cluster:
        async with opened(cluster.url[""]) as (_, queue, _):
            with DaemonProcess(on(settings, cluster.url[""])) as daemon:
                daemon.start()
                await queue.schedule("echo", schedule("* * * * * *", catch_up="all"))
                cluster.verb("kill")
                await in_state(daemon, "reconnecting")
                await asyncio.sleep(3.0)  # due times pass
                cluster.verb("start")
                db = await asyncpg.connect(cluster.url[""])
                await in_state(daemon, "connected")
                end = await db.fetchval("SELECT clock_timestamp()")
                await until(
                    lambda: db.fetchval("SELECT next_at > $1 FROM workerd.schedule", end), "it is served up to now"
                )
                await db.execute("UPDATE workerd.schedule SET paused_at = now()")
                times = [datetime.fromisoformat(row["key"].rpartition("@")[2]) for row in await db.fetch(_KEYS)]
                assert len(times) >= 3
                assert times == [times[0] + timedelta(seconds=n) for n in range(len(times))]
                assert await Books(db).close(daemon) == []
                await db.close()
