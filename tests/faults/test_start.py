"""Trouble while a daemon starts: what refuses it at first ends it at once, what breaks off later is waited out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
import pytest

from tests.faults.balance import Books
from tests.faults.claims import free_ports
from tests.faults.cluster import Cluster
from tests.faults.fleet import run_to_its_end
from tests.faults.test_database import PAUSE_MOST, RESUMED, pauses
from tests.support import LIMIT, DaemonProcess, until
from workerd import Queue
from workerd.queue import migrate

if TYPE_CHECKING:
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

CUTS = 3
# A sequence goes on although its transaction is undone.
CUTTING = """
    CREATE SEQUENCE cuts;
    CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF nextval('cuts') <= {cuts} THEN
            PERFORM pg_terminate_backend(pg_backend_pid());
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER cut BEFORE INSERT ON workerd.{table} FOR EACH STATEMENT EXECUTE FUNCTION cut()
"""


@pytest.mark.parametrize("table", ["task", "node"])
async def test_sessions_that_are_cut_before_a_daemon_is_ready_are_opened_again(
    daemon: DaemonProcess, queue: Queue, db: DB, books: Books, table: str
) -> None:
    """That of the claimer while it makes its tasks known, that of the lease while it registers the node."""
    await db.execute(CUTTING.format(cuts=CUTS, table=table))
    await asyncio.to_thread(daemon.start)
    assert await db.fetchval("SELECT last_value FROM cuts") == CUTS + 1
    assert daemon.settings.log_path.read_text().count("; again in") == CUTS
    assert await queue.result(await queue.enqueue("echo", {"value": 1}), timeout=LIMIT) == 1
    assert await books.close(daemon) == []


async def test_a_lock_that_another_session_holds_is_waited_for(daemon: DaemonProcess, db: DB, books: Books) -> None:
    """That of a daemon whose commit of the same tasks takes long, say."""
    async with db.transaction():
        await db.execute("LOCK workerd.task IN EXCLUSIVE MODE")
        daemon.launch()

        async def said() -> bool:
            log = daemon.settings.log_path
            return log.exists() and "lock timeout; again in" in log.read_text()

        await until(said, "the log says that it tries again")
    await asyncio.to_thread(daemon.hear, "READY=1")
    assert await books.close(daemon) == []


async def test_a_database_that_is_not_there_ends_the_start_at_once_with_one_line(settings: Settings) -> None:
    nowhere = f"postgresql://app:secret@127.0.0.1:{free_ports(1)}/shop"
    done = await asyncio.to_thread(run_to_its_end, settings.model_copy(update={"database_url": nowhere}))
    assert "again in" not in done.stderr
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr


async def test_a_standby_is_waited_for_until_it_is_promoted(settings: Settings) -> None:
    """The only host of the address: the daemon says that it cannot write, and works as soon as it can."""
    with Cluster("--standby", "-c", "synchronous_commit=on") as cluster:
        first = await asyncpg.connect(cluster.url[""])
        await migrate.upgrade(first)
        await Books.open(first)
        async with Queue.connect(cluster.url[""]) as queue:
            job = await queue.enqueue("echo", {"value": 1})
        standby = await asyncpg.connect(cluster.url["STANDBY"])
        arrived = "SELECT count(*) = 1 FROM workerd.ready"
        await until(lambda: _there(standby, arrived), "the job has reached the standby")
        with DaemonProcess(settings.model_copy(update={"database_url": cluster.url["STANDBY"]})) as daemon:
            daemon.launch()

            async def said() -> bool:
                log = daemon.settings.log_path
                return log.exists() and log.read_text().count("is read-only: it is a standby") >= 3

            await until(said, "the log says why it waits")
            assert daemon.running
            cluster.verb("promote")
            await asyncio.to_thread(daemon.hear, "READY=1")
            async with Queue.connect(cluster.url["STANDBY"]) as queue:
                assert await queue.result(job, timeout=RESUMED) == 1
            assert max(pauses(daemon)) <= PAUSE_MOST
            await first.close()
            assert await Books(standby).close(daemon) == []
        await standby.close()


async def _there(db: DB, query: str) -> bool:
    try:
        return bool(await db.fetchval(query))
    except asyncpg.UndefinedTableError:  # nor has the schema
        return False
