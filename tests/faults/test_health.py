"""Nodes that stand still: long jobs, a blocked loop, a frozen process. Who lives keeps its jobs, who does not loses them, and says why."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import TYPE_CHECKING

from tests.faults.fleet import daemons, leader, only_living, start
from tests.support import until, until_state

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg

    from tests.faults.balance import Books
    from tests.support import DaemonProcess
    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

FOREVER = 300.0  # seconds


async def _says(path: Path, *texts: str) -> str:
    """The log, as soon as it has all these texts."""

    async def read() -> str | None:
        log = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        return log if all(text in log for text in texts) else None

    found: str = await until(read, f"{path.name} says {texts}")
    return found


async def test_a_living_node_keeps_its_jobs_for_20_heartbeats_even_while_a_handler_blocks_its_loop(
    settings: Settings, queue: Queue, db: DB, books: Books
) -> None:
    fleet = daemons(settings, "watching", "napping", "blocked", heartbeat_interval=1.0)
    for daemon, lane in zip(fleet, ("none", "naps", "blocks"), strict=True):
        tasks = (*settings.tasks, "tests.faults.handlers")
        daemon.settings = daemon.settings.model_copy(update={"queues": (lane,), "tasks": tasks})
    watching, napping, blocked = fleet
    with watching, napping, blocked:
        await start(watching)
        assert await leader(db, fleet) is watching
        await start(napping, blocked)
        sign = settings.state_dir / "sign"
        sign.parent.mkdir()
        nap = await queue.enqueue("nap", {"seconds": 20.0}, queue="naps")
        block = await queue.enqueue("blocking_until", {"sign": str(sign)}, queue="blocks")
        stands = [f"the loop stands still since {seconds}." for seconds in (1, 4, 16)]
        await _says(blocked.settings.error_log_path, *stands, "in blocking_until", "time.sleep(LOOK)")
        await until_state(db, nap, "succeeded")
        sign.touch()
        for job in (nap, block):
            assert (await until_state(db, job, "succeeded"))["attempt"] == 1
        assert await db.fetchval("SELECT count(*) FROM workerd.node WHERE dead_at IS NOT NULL") == 0
        assert blocked.settings.error_log_path.read_text().count("the loop stands still") == 3
        assert await books.close(*fleet) == []


async def test_a_loop_that_stands_still_past_the_limit_ends_its_process_and_the_job_runs_elsewhere(
    settings: Settings, queue: Queue, db: DB, books: Books
) -> None:
    blocked, other = daemons(settings, "blocked", "other", stall_limit=2.0)
    with blocked, other:
        await start(blocked)
        job = await queue.enqueue("blocking_at_first", {"seconds": FOREVER})
        await until_state(db, job, "running")
        await start(other)
        assert await asyncio.to_thread(blocked.wait) == 1
        row = await until_state(db, job, "succeeded")
        assert (row["attempt"], row["failures"], row["node"]) == (2, 0, other.settings.node)
        first = json.loads(row["attempts"])[0]
        assert (first["outcome"], first["error"]) == ("crashed", f"node {blocked.settings.node} died")
        log = blocked.settings.error_log_path.read_text()
        for text in ("(STALL_LIMIT)", "thread lease:", "task claimer:", "in blocking_at_first"):
            assert text in log
        await only_living(db, [other])
        assert await books.close(other) == []


async def test_a_handler_that_holds_the_interpreter_past_the_limit_ends_its_process_and_the_job_runs_elsewhere(
    settings: Settings, queue: Queue, db: DB, books: Books
) -> None:
    holding, other = daemons(settings, "holding", "other", stall_limit=1.0)
    with holding, other:
        await start(holding)
        job = await queue.enqueue("holding_at_first")
        await until_state(db, job, "running")
        await start(other)
        assert await asyncio.to_thread(holding.wait) == 1
        row = await until_state(db, job, "succeeded")
        assert (row["attempt"], row["node"]) == (2, other.settings.node)
        log = holding.settings.error_log_path.read_text()
        for text in ("Timeout (0:00:06)!", "in match", "in holding_at_first"):
            assert text in log
        await only_living(db, [other])
        assert await books.close(other) == []


async def test_a_node_that_was_frozen_notices_that_it_was_declared_dead_and_nothing_ends_twice(
    settings: Settings, queue: Queue, db: DB, books: Books
) -> None:
    await db.execute("CREATE TABLE ran (n int, attempt int)")
    frozen, other = daemons(settings, "frozen", "other")
    with frozen, other:
        await start(frozen)
        sign = settings.state_dir / "sign"
        sign.parent.mkdir()
        jobs = [await queue.enqueue("recorded_when_allowed", {"n": n, "sign": str(sign)}) for n in range(3)]
        for job in jobs:
            await until_state(db, job, "running")
        before = await db.fetchval("SELECT id FROM workerd.node WHERE name = $1", frozen.settings.node)
        await start(other)
        frozen.signal(signal.SIGSTOP)
        dead = "SELECT dead_at IS NOT NULL FROM workerd.node WHERE id = $1"
        await until(lambda: db.fetchval(dead, before), "it is declared dead")
        sign.touch()
        frozen.signal(signal.SIGCONT)
        await _says(frozen.settings.error_log_path, "this process did not run for", "it registers anew")
        await only_living(db, [frozen, other])
        for job in jobs:
            assert (await until_state(db, job, "succeeded"))["attempt"] >= 2
        assert sorted(row[0] for row in await db.fetch("SELECT n FROM ran")) == [0, 1, 2]
        assert await books.close(frozen, other) == []


async def test_the_watchdog_s_signal_tells_where_all_threads_stand_although_the_loop_does_not_turn(
    daemon: DaemonProcess, queue: Queue, db: DB, books: Books
) -> None:
    daemon.start()
    job = await queue.enqueue("blocking_at_first", {"seconds": FOREVER})
    await _says(daemon.settings.error_log_path, "the loop stands still")
    daemon.signal(signal.SIGABRT)
    assert await asyncio.to_thread(daemon.wait) == -signal.SIGABRT
    await _says(daemon.settings.error_log_path, "Fatal Python error: Aborted", "handlers.py", "lease_thread.py")
    await asyncio.to_thread(daemon.start)  # as its supervisor does
    assert (await until_state(db, job, "succeeded"))["attempt"] == 2
    await only_living(db, [daemon])
    assert await books.close(daemon) == []


async def test_sigusr1_tells_where_a_blocked_loop_stands_and_the_tasks_when_it_turns_again(
    daemon: DaemonProcess, queue: Queue, db: DB, books: Books, tmp_path: Path
) -> None:
    daemon.settings = daemon.settings.model_copy(update={"tasks": ("tests.faults.handlers",)})
    daemon.start()
    job = await queue.enqueue("blocking_until", {"sign": str(tmp_path / "sign")})
    await _says(daemon.settings.error_log_path, "the loop stands still")
    daemon.signal(signal.SIGUSR1)
    log = await _says(daemon.settings.error_log_path, "(most recent call first)", "lease_thread.py")
    assert "task claimer:" not in log, "the loop turns already"
    (tmp_path / "sign").touch()
    await _says(daemon.settings.error_log_path, "task claimer:")
    assert (await until_state(db, job, "succeeded"))["attempt"] == 1
    assert await books.close(daemon) == []


async def test_a_daemon_does_not_go_on_without_its_lease_thread(
    daemon: DaemonProcess, queue: Queue, db: DB, books: Books
) -> None:
    daemon.start()
    job = await queue.enqueue("ending_the_lease_thread", {})
    assert await asyncio.to_thread(daemon.wait) == 1
    await _says(daemon.settings.error_log_path, "the lease thread ends by an error of its own", "SystemExit")
    await asyncio.to_thread(daemon.start)  # as its supervisor does
    assert (await until_state(db, job, "succeeded"))["attempt"] == 2
    await only_living(db, [daemon])
    assert await books.close(daemon) == []
