"""A queue that is restored under daemons at work: every job is there, and none runs twice."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import asyncpg

from tests.faults import fleet
from tests.faults.balance import Books
from tests.support import until

if TYPE_CHECKING:
    from tests.support import Ctl, DaemonProcess
    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

JOBS, LONG = 300, 4
BEAT = 5.0  # seconds; nobody is taken for dead here
RUNNING = "SELECT count(*) FROM workerd.job WHERE state = 'running'"
ALIVE = "SELECT count(*) FROM workerd.node WHERE dead_at IS NULL"


async def _command(ctl: Ctl, *words: str) -> None:
    done = await asyncio.to_thread(ctl, *words)
    assert done.returncode == 0, done.stderr


async def _finished(db: DB, least: int) -> None:
    async def many() -> bool:
        count: int = await db.fetchval("SELECT count(*) FROM ran")
        return count >= least

    await until(many, f"{least} jobs have run")


async def _equals(db: DB, query: str, value: int) -> None:
    async def equal() -> bool:
        found: int = await db.fetchval(query)
        return found == value

    await until(equal, f"{value} times: {query}")


async def _noticed(ctl: Ctl, daemon: DaemonProcess) -> None:
    """Returns when the daemon says that its queue is gone."""
    name = daemon.settings.name
    places = {"RUNTIME_DIR": str(daemon.settings.runtime_dir), "LOG_DIR": str(daemon.settings.log_dir)}

    async def says() -> bool:
        done = await asyncio.to_thread(ctl, "status", "--json", "--name", name, **places)
        return '"state":"reconnecting"' in done.stdout

    await until(says, "status shows the trouble")


async def _dropped(db: DB) -> None:
    """What an operator does who meets a deadlock with the daemons: once more."""
    while True:
        with contextlib.suppress(asyncpg.DeadlockDetectedError):
            await db.execute("DROP SCHEMA workerd CASCADE")
            return


async def test_a_schema_that_is_dropped_and_restored_under_daemons_loses_no_job_and_runs_none_twice(
    settings: Settings, queue: Queue, db: DB, ctl: Ctl
) -> None:
    """No job ends between backup and drop: the queue is paused, and what runs waits for a sign. So each may run to its end once only."""
    await db.execute("CREATE TABLE public.ran (n int, attempt int)")
    daemons = fleet.daemons(settings, "one", "two", heartbeat_interval=BEAT)
    with daemons[0], daemons[1]:
        await fleet.start(*daemons)
        pids = [daemon.process.pid for daemon in daemons if daemon.process is not None]
        jobs = await queue.enqueue_many("recorded", [{"n": n, "seconds": 0.02} for n in range(JOBS)])
        await _finished(db, JOBS // 5)
        await _command(ctl, "queues", "pause", "default")
        await _equals(db, RUNNING, 0)
        sign = settings.state_dir / "sign"
        waiting = [{"n": JOBS + n, "sign": str(sign)} for n in range(LONG)]
        long = await queue.enqueue_many("recorded_when_allowed", waiting, queue="long")
        await _equals(db, RUNNING, LONG)
        await _command(ctl, "queues", "pause", "long")
        path = str(settings.state_dir / "backup.zip")
        await _command(ctl, "db", "backup", "--to", path)
        await _dropped(db)
        for daemon in daemons:
            await _noticed(ctl, daemon)
        await _command(ctl, "db", "restore", path)
        await _equals(db, ALIVE, 2)
        books = await Books.open(db)
        await _command(ctl, "queues", "resume", "default")
        await _command(ctl, "queues", "resume", "long")
        sign.touch()
        await books.settled()

        assert [daemon.process.pid for daemon in daemons if daemon.process is not None] == pids
        rows = await db.fetch("SELECT id, state, attempt, failures, crashes FROM workerd.history ORDER BY id")
        assert [row["id"] for row in rows] == [*jobs, *long]
        assert {(row["state"], row["failures"], row["crashes"]) for row in rows} == {("succeeded", 0, 0)}
        assert [row["attempt"] for row in rows] == [1] * JOBS + [2] * LONG
        ran = await db.fetch("SELECT n, attempt FROM ran ORDER BY n")
        assert [row["n"] for row in ran] == list(range(JOBS + LONG)), "some ran to their end twice, or never"
        assert await books.close(*daemons) == []


async def test_a_queue_at_full_speed_is_replaced_and_only_what_ended_since_the_backup_runs_again(
    settings: Settings, queue: Queue, db: DB, ctl: Ctl
) -> None:
    await db.execute("CREATE TABLE public.ran (n int, attempt int)")
    daemons = fleet.daemons(settings, "one", "two", heartbeat_interval=BEAT)
    with daemons[0], daemons[1]:
        await fleet.start(*daemons)
        path = str(settings.state_dir / "backup.zip")
        jobs = await queue.enqueue_many("recorded", [{"n": n, "seconds": 0.01} for n in range(3 * JOBS)])
        await _finished(db, 50)
        await _command(ctl, "db", "backup", "--to", path)
        before = {row["n"] for row in await db.fetch("SELECT n FROM ran")}
        await _finished(db, len(before) + 50)
        await _command(ctl, "db", "restore", path, "--replace")

        books = Books(db)
        await books.settled()
        rows = await db.fetch("SELECT id, state, failures, crashes FROM workerd.history ORDER BY id")
        assert [row["id"] for row in rows] == jobs
        assert {(row["state"], row["failures"], row["crashes"]) for row in rows} == {("succeeded", 0, 0)}
        ran = await db.fetch("SELECT n, count(*) AS times FROM ran GROUP BY n ORDER BY n")
        assert [row["n"] for row in ran] == list(range(3 * JOBS))
        again = [row["n"] for row in ran if row["times"] > 1]
        assert 0 < len(again) < 2 * JOBS
        assert max(row["times"] for row in ran) == 2
        print(f"{len(again)} of {3 * JOBS} ran again")
        for daemon in daemons:
            daemon.signal(15)
            assert await asyncio.to_thread(daemon.wait) == 0
