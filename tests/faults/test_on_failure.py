"""Nodes are killed amid failures: as many notices as failures, each once."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from tests.faults.fleet import daemons, leader, only_living, start
from tests.support import until, until_state

if TYPE_CHECKING:
    import asyncpg

    from tests.faults.balance import Books
    from tests.support import DaemonProcess
    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

JOBS = 1000
HANDLERS = ("tests.notice_handlers",)
_FAILED = "SELECT count(*) FROM workerd.history WHERE task = 'told_failing' AND state = 'failed'"
_TOLD = """
    SELECT (payload ->> 'job_id')::bigint AS job, payload ->> 'attempt' AS attempt FROM workerd.history WHERE task = 'told'
"""


async def test_each_failure_has_its_notice_though_nodes_are_killed_amid_them(
    settings: Settings, queue: Queue, db: DB, books: Books
) -> None:
    fleet = daemons(settings, "a", "b", workers=8, tasks=HANDLERS, max_crashes=30)
    try:
        jobs = await queue.enqueue_many("told_failing", [{"n": n} for n in range(JOBS)])
        await start(*fleet)
        for kill in range(1, 7):
            await until(
                partial(db.fetchval, f"{_FAILED} HAVING count(*) > $1", kill * JOBS // 8),
                f"some failed before kill {kill}",
            )
            killed = await leader(db, fleet) if kill % 2 else fleet[kill // 2 % 2]
            killed.kill()
            await start(killed)
        await books.settled(90)
        assert await db.fetchval(_FAILED) == JOBS
        told = sorted((row["job"], row["attempt"]) for row in await db.fetch(_TOLD))
        failed = await db.fetch("SELECT id, attempt::text FROM workerd.history WHERE task = 'told_failing' ORDER BY id")
        assert [job for job, _ in told] == jobs
        assert told == [tuple(row) for row in failed]
        await only_living(db, fleet)
        assert await books.close(*fleet) == []
    finally:
        for daemon in fleet:
            daemon.kill()


async def test_who_failed_because_its_nodes_died_is_told_of(
    settings: Settings, daemon: DaemonProcess, queue: Queue, db: DB, books: Books
) -> None:
    daemon.settings = settings.model_copy(update={"tasks": HANDLERS, "max_crashes": 1})
    daemon.start()
    job = await queue.enqueue("deadly_and_told", max_retries=9)
    assert await asyncio.to_thread(daemon.wait) == 1
    daemon.start()
    await until_state(db, job, "failed")
    notice = await until(lambda: db.fetchrow("SELECT * FROM workerd.history WHERE task = 'told'"), "it is told")
    assert (notice["state"], notice["result"]) == ("succeeded", str(job))
    assert "its node died 1 times while it held the job" in notice["payload"]
    assert await db.fetchval("SELECT count(*) FROM workerd.history WHERE task = 'told'") == 1
    await only_living(db, [daemon])
    assert await books.close(daemon) == []
