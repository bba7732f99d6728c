"""Schedules while leaders die: exactly one job for each due time."""

from __future__ import annotations

import asyncio
import random
from datetime import datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING

from tests.faults.fleet import daemons, leader, only_living, start
from tests.support import until
from workerd import schedule

if TYPE_CHECKING:
    import asyncpg

    from tests.faults.balance import Books
    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

MINUTE = 60.0  # seconds
_KEYS = "SELECT key FROM workerd.job WHERE key LIKE 'schedule:%' ORDER BY id"


async def test_each_second_has_one_job_though_the_leader_of_three_is_killed_every_three_seconds(
    settings: Settings, queue: Queue, db: DB, books: Books
) -> None:
    fleet = daemons(settings, "a", "b", "c", workers=2)
    try:
        await start(*fleet)
        await queue.schedule("echo", schedule("* * * * * *", catch_up="all"))
        began = monotonic()
        while monotonic() < began + MINUTE:
            await asyncio.sleep(random.uniform(2.0, 4.0))
            killed = await leader(db, fleet)
            killed.kill()
            await start(killed)
        end = await db.fetchval("SELECT clock_timestamp()")
        await until(lambda: db.fetchval("SELECT next_at > $1 FROM workerd.schedule", end), "it is served up to now")
        await db.execute("UPDATE workerd.schedule SET paused_at = now()")
        times = [datetime.fromisoformat(row["key"].rpartition("@")[2]) for row in await db.fetch(_KEYS)]
        assert len(times) >= MINUTE
        assert sorted(times) == [min(times) + timedelta(seconds=n) for n in range(len(times))]
        await only_living(db, fleet)
        assert await books.close(*fleet) == []
    finally:
        for daemon in fleet:
            daemon.kill()
