"""Child processes crash, are killed, cannot start, outlive their welcome; their jobs alone notice, and nothing is left behind."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support import LIMIT, DaemonProcess, until, until_state
from workerctl.control import ask

if TYPE_CHECKING:
    import asyncpg

    from tests.faults.balance import Books
    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

DYING = 50  # children
START = "no child process for a job"  # what the log says of one that failed


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"tasks": ("tests.handlers", "tests.child_handlers")})


def _family(daemon: DaemonProcess, name: str) -> list[psutil.Process]:
    """The processes below a daemon whose command line holds a word."""
    assert daemon.process is not None
    found = []
    with suppress(psutil.Error):
        for process in psutil.Process(daemon.process.pid).children(recursive=True):
            with suppress(psutil.Error):
                found += [process] if name in process.cmdline() else []
    return found


def _children(daemon: DaemonProcess) -> list[psutil.Process]:
    return _family(daemon, "workerd.daemon.children.child")


async def _states(db: DB, jobs: list[int]) -> Counter[str]:
    rows = await db.fetch("SELECT state FROM workerd.job WHERE id = ANY ($1)", jobs)
    return Counter(row["state"] for row in rows)


async def test_handlers_that_crash_their_process_fail_alone(
    daemon: DaemonProcess, queue: Queue, db: DB, books: Books
) -> None:
    deeds = ["segfault", "exit", "kill", "hog", "leave", "raise"] * 4
    daemon.start()
    bad, good = [], []
    for deed in deeds:
        bad.append(await queue.enqueue("does", {"what": deed}))
        good.append(await queue.enqueue("sleeping", {"seconds": 0.01}))
    assert await books.close(daemon) == []
    assert await _states(db, bad) == {"failed": len(bad)}
    assert await _states(db, good) == {"succeeded": len(good)}
    errors = await db.fetch("SELECT DISTINCT split_part(error, E'\n', 1) FROM workerd.job WHERE id = ANY ($1)", bad)
    assert {row[0] for row in errors} == {
        "its process was killed by SIGSEGV",
        "its process exited with 3",
        "its process was killed by SIGKILL (out of memory?)",
        "MemoryError",
        "SystemExit: 4",
        "LookupError: no such thing",
    }


async def test_many_children_that_die_at_once_are_no_busy_loop_and_each_job_says_how_it_died(
    daemon: DaemonProcess, queue: Queue, db: DB, books: Books
) -> None:
    daemon.start()
    assert daemon.process is not None
    process = psutil.Process(daemon.process.pid)
    before = process.cpu_times()
    bad = await queue.enqueue_many("does", [{"what": "exit"}] * DYING)
    good = await queue.enqueue_many("echo", [{"value": n} for n in range(DYING)], priority=1)
    await books.settled(120)
    after = process.cpu_times()
    spent, theirs = sum(after[:2]) - sum(before[:2]), sum(after[2:4]) - sum(before[2:4])
    print(
        f"{spent * 1000 / DYING:.0f} ms of the daemon's own time for each child, which took {theirs * 1000 / DYING:.0f}"
    )
    assert spent < theirs / 2
    assert await _states(db, bad) == {"failed": DYING}
    assert await _states(db, good) == {"succeeded": DYING}
    errors = "SELECT DISTINCT split_part(error, E'\n', 1), attempt, crashes FROM workerd.history WHERE id = ANY ($1)"
    assert [tuple(row) for row in await db.fetch(errors, bad)] == [("its process exited with 3", 1, 0)]
    assert await books.close(daemon) == []


async def test_children_killed_at_random_cost_their_jobs_an_attempt_and_nobody_else(
    daemon: DaemonProcess, queue: Queue, db: DB, books: Books
) -> None:
    daemon.start()
    jobs = await queue.enqueue_many("sleeping", [{"seconds": 0.1} for _ in range(60)], max_retries=100)
    kills = 0

    async def ended() -> bool:
        return (await _states(db, jobs))["succeeded"] == len(jobs)

    while not await ended():
        children = _children(daemon)
        if children and kills < 25:
            with suppress(psutil.NoSuchProcess):
                random.choice(children).kill()
                kills += 1
        await asyncio.sleep(0.1)
    assert kills > 5
    assert await books.close(daemon) == []
    failures = await db.fetchval("SELECT sum(failures) FROM workerd.job WHERE id = ANY ($1)", jobs)
    assert 0 < failures <= kills
    assert await db.fetchval("SELECT sum(crashes) FROM workerd.history WHERE id = ANY ($1)", jobs) == 0


async def test_a_killed_daemon_takes_its_children_and_their_programs_along(
    daemon: DaemonProcess, queue: Queue, db: DB, books: Books
) -> None:
    daemon.start()
    endless = await queue.enqueue_many("endless_unless_cancelled", [{}, {}])
    busy = await queue.enqueue("computing")
    idle = await queue.enqueue("sleeping", {"seconds": 0})
    await until_state(db, idle, "succeeded")

    async def all_run() -> bool:
        return len(_family(daemon, "1000")) == 2 and len(_children(daemon)) >= 3

    await until(all_run, "programs of handlers run")
    daemon.kill()

    async def nothing() -> bool:
        return not daemon.left_behind()

    await until(nothing, "nothing is left of it")
    daemon.start()
    again = "SELECT count(*) = 3 FROM workerd.job WHERE state = 'running' AND attempt = 2"
    await until(lambda: db.fetchval(again), "they run again")
    for job in (*endless, busy):
        await queue.cancel(job)
        await until_state(db, job, "cancelled")
    assert await books.close(daemon) == []


async def test_children_that_cannot_start_are_no_busy_loop_and_stop_nothing_else(
    settings: Settings, queue: Queue, db: DB, books: Books
) -> None:
    with DaemonProcess(settings, WORKERD_TEST_BROKEN="1") as daemon:
        daemon.start()
        jobs = await queue.enqueue_many("sleeping", [{"seconds": 0}] * 100, max_retries=1000)
        log = settings.log_path

        async def ever_later() -> bool:
            return "the next start waits 3" in log.read_text()

        await until(ever_later, "the starts wait longer and longer")
        assert daemon.process is not None
        process = psutil.Process(daemon.process.pid)
        before, began, starts = sum(process.cpu_times()[:4]), monotonic(), log.read_text().count(START)
        await asyncio.sleep(4)  # what it does with this time is the question
        assert sum(process.cpu_times()[:4]) - before < (monotonic() - began) / 4
        assert log.read_text().count(START) - starts <= 3
        for job in jobs:
            await queue.cancel(job)
        assert await queue.result(await queue.enqueue("echo", {"value": 1}), timeout=LIMIT) == 1
        assert await books.close(daemon) == []


async def test_handlers_of_all_kinds_that_do_not_end_lose_their_job_and_hold_up_no_drain(
    daemon: DaemonProcess, queue: Queue, db: DB, books: Books
) -> None:
    """More of them than there are workers, one after another."""
    daemon.settings = daemon.settings.model_copy(update={"drain_timeout": 3600.0})
    daemon.start()
    late = [await queue.enqueue(task) for task in ("deaf_for_ever", "deaf_for_ever", "endless", "too_slow")]
    late.append(await queue.enqueue("never_returning", {"number": 1}))
    cancelled = await queue.enqueue("endless_unless_cancelled")
    await until_state(db, cancelled, "running")
    await queue.cancel(cancelled)
    after = await queue.enqueue_many("echo", [{"value": n} for n in range(50)])
    await books.settled()
    assert await _states(db, late) == {"failed": len(late)}
    assert await _states(db, [cancelled]) == {"cancelled": 1}
    assert await _states(db, after) == {"succeeded": 50}
    status = ask(daemon.settings.socket_path, "status")
    assert (status["written_off"], status["busy"], len(status["slots"])) == (3, 0, 4)
    assert "in deaf\n" in daemon.settings.error_log_path.read_text().replace("\\n", "\n"), "its stack was not shown"
    daemon.signal(signal.SIGTERM)
    assert await asyncio.to_thread(daemon.wait) == 0
    assert await books.close(daemon) == []
