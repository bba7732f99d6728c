"""Hand-overs: nothing is lost, failed or run twice, and nobody notices."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.support import LIMIT, DaemonProcess, until, until_state
from workerd.daemon import pidfile
from workerd.errors import WorkerdError

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg

    from tests.faults.balance import Books
    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

BATCH = 500  # jobs, as many of which wait at least while there is load
RELOADS = 10
PAUSE = "SELECT max(gap) FROM (SELECT started_at - lag(started_at) OVER (ORDER BY started_at) AS gap FROM workerd.history) AS gaps"


async def _load(db: DB, queue: Queue, books: Books, enough: asyncio.Event) -> float:
    """Have jobs wait until it is enough, and run them; returns the longest pause between two starts, in seconds."""
    await db.execute("TRUNCATE workerd.history")
    jobs = await queue.enqueue_many("nap", [{"seconds": 0.02}] * BATCH)
    while not enough.is_set():
        if await db.fetchval("SELECT count(*) < $1 FROM workerd.ready", BATCH):
            jobs += await queue.enqueue_many("nap", [{"seconds": 0.02}] * BATCH)
        with suppress(TimeoutError):
            await asyncio.wait_for(enough.wait(), 0.1)
    await books.settled()
    rows = await db.fetch("SELECT id, state, attempt, failures, crashes FROM workerd.history ORDER BY id")
    assert [row["id"] for row in rows] == jobs
    assert {(row["state"], row["failures"], row["crashes"]) for row in rows} == {("succeeded", 0, 0)}
    assert {row["attempt"] for row in rows} == {1}, "some ran more than once"
    pause = await db.fetchval(PAUSE)
    return float(pause.total_seconds())


async def test_ten_reloads_under_load_lose_nothing_and_are_not_noticed(
    settings: Settings, queue: Queue, db: DB, books: Books
) -> None:
    with DaemonProcess(settings.model_copy(update={"workers": 8})) as daemon:
        daemon.start()
        enough = asyncio.Event()
        asyncio.get_running_loop().call_later(2.0, enough.set)
        alone = await _load(db, queue, books, enough)
        enough.clear()
        load = asyncio.create_task(_load(db, queue, books, enough))
        took = [await daemon.reload() for _ in range(RELOADS)]
        enough.set()
        pause = await load
        print(f"longest pause {alone:.3f} s without, {pause:.3f} s with reloads, which took {max(took):.2f} s at most")
        assert pause < alone + max(took) / 4, "jobs waited for a successor to start"
        assert await books.close(daemon) == []


async def test_jobs_that_run_have_their_time_and_another_reload_meanwhile_is_allowed(
    settings: Settings, queue: Queue, db: DB, books: Books
) -> None:
    with DaemonProcess(settings.model_copy(update={"drain_timeout": 0.1})) as daemon:
        daemon.start()
        jobs = []
        for _ in range(3):
            jobs.append(await queue.enqueue("nap", {"seconds": 4}))
            await until_state(db, jobs[-1], "running")
            await daemon.reload()
        for job in jobs:
            row = await until_state(db, job, "succeeded")
            assert (row["attempt"], row["failures"]) == (1, 0)
        for earlier in daemon.earlier:
            assert await asyncio.to_thread(earlier.wait) == 0
        assert await books.close(daemon) == []


async def test_a_stop_ends_those_too_who_still_drain_after_a_reload(
    settings: Settings, queue: Queue, db: DB, books: Books
) -> None:
    with DaemonProcess(settings.model_copy(update={"drain_timeout": 0.2})) as daemon:
        daemon.start()
        jobs = []
        for _ in range(2):
            jobs.append(await queue.enqueue("nap", {"seconds": 3600}))
            await until_state(db, jobs[-1], "running")
            await daemon.reload()
        daemon.signal(signal.SIGTERM)
        assert await asyncio.to_thread(daemon.wait) == 0
        assert [await asyncio.to_thread(earlier.wait) for earlier in daemon.earlier] == [0, 0]
        for job in jobs:
            row = await until_state(db, job, "queued")
            assert (row["attempt"], row["failures"]) == (1, 0)
        assert await books.close(daemon, settle=False) == []


async def test_a_new_process_that_fails_to_start_leaves_the_old_one_at_work_and_says_why(
    settings: Settings, queue: Queue, books: Books, tmp_path: Path
) -> None:
    code = tmp_path / "app" / "changing.py"
    code.parent.mkdir()
    good = "from tests.handlers import *\n"
    code.write_text(good)
    with DaemonProcess(settings.model_copy(update={"tasks": ("changing",), "app_dir": code.parent})) as daemon:
        daemon.start()
        first = pidfile.owner(settings.pid_file)
        code.write_text("raise RuntimeError('half of a deployment')\n")
        with pytest.raises(WorkerdError, match="importing changing failed: RuntimeError: half of a deployment"):
            await daemon.reload()
        code.write_text("import os\nos.kill(os.getpid(), 9)\n")
        with pytest.raises(WorkerdError, match="ended before it was ready"):
            await daemon.reload()
        assert pidfile.owner(settings.pid_file) == first
        assert await queue.result(await queue.enqueue("echo", {"value": 1}), timeout=LIMIT) == 1
        code.write_text(good)
        await daemon.reload()
        assert pidfile.owner(settings.pid_file) != first
        assert await queue.result(await queue.enqueue("echo", {"value": 2}), timeout=LIMIT) == 2
        assert await books.close(daemon) == []


async def test_a_daemon_that_dies_while_its_successor_starts_is_succeeded(
    settings: Settings, queue: Queue, db: DB, books: Books, tmp_path: Path
) -> None:
    """The new one waits, in its tasks' module, until the old one has been killed."""
    go = tmp_path / "go"
    os.mkfifo(go)
    code = tmp_path / "waiting.py"
    code.write_text("from tests.handlers import *\n")
    with DaemonProcess(settings.model_copy(update={"tasks": ("waiting",), "app_dir": tmp_path})) as daemon:
        daemon.start()
        code.write_text(f"from tests.handlers import *\nopen({str(go)!r}).read()\n")
        job = await queue.enqueue("nap", {"seconds": 3600})
        await until_state(db, job, "running")
        reload = asyncio.create_task(daemon.reload())
        waiter = await asyncio.to_thread(go.open, "w")  # opens when the new one reads
        daemon.kill()
        waiter.close()
        with pytest.raises(WorkerdError):
            await reload

        async def succeeded() -> bool:
            return daemon.follow()

        await until(succeeded, "the new one is in charge")
        again = "SELECT attempt = 2 FROM workerd.job WHERE state = 'running' AND id = $1"
        await until(lambda: db.fetchval(again, job), "it runs the job again")
        await queue.cancel(job)
        assert await books.close(daemon) == []


async def test_a_daemon_that_has_had_its_jobs_or_its_memory_hands_over(
    settings: Settings, queue: Queue, books: Books
) -> None:
    changes = {"max_jobs": 20, "max_memory": 160 * 1024**2}
    with DaemonProcess(settings.model_copy(update=changes)) as daemon:
        daemon.start()

        async def taken_over() -> bool:
            return daemon.follow()

        await queue.enqueue_many("echo", [{"value": n} for n in range(20)])
        await until(taken_over, "another process took over after 20 jobs")
        await queue.enqueue("hoard", {"megabytes": 150})
        await until(taken_over, "another process took over for the memory")
        assert await books.close(daemon) == []
