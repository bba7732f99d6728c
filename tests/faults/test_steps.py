"""A daemon is killed between two steps of a job; the one that comes after it goes on behind the first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support import until, until_state

if TYPE_CHECKING:
    import asyncpg

    from tests.faults.balance import Books
    from tests.support import DaemonProcess
    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]


async def test_a_step_is_done_once_though_its_daemon_is_killed_behind_it(
    settings: Settings, daemon: DaemonProcess, queue: Queue, db: DB, books: Books
) -> None:
    await db.execute("CREATE TABLE effects (step text, attempt int)")
    job = await queue.enqueue("killed_between_steps")
    daemon.settings = settings.model_copy(update={"tasks": ("tests.step_handlers",)})
    daemon.start()
    await until(
        lambda: db.fetchval("SELECT EXISTS (SELECT FROM workerd.step WHERE id = $1)", job), "the first step is kept"
    )
    daemon.kill()
    daemon.start()
    row = await until_state(db, job, "succeeded")
    assert (row["attempt"], row["failures"], row["result"]) == (2, 0, "1")
    assert [tuple(each) for each in await db.fetch("SELECT * FROM effects")] == [("first", 1)]
    assert await books.close(daemon) == []
