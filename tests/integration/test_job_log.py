"""What jobs log: in the daemon's log with job, task and attempt, and kept with their attempts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests import handlers
from tests.support import Ctl, DaemonProcess, InProcess, until, until_state
from workerd.job_lines import MAX_CHARACTERS, MAX_LINES
from workerd.queue import prune

if TYPE_CHECKING:
    import asyncpg

    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

KEPT = "SELECT attempt, line, level, message FROM workerd.job_log WHERE id = $1 ORDER BY attempt, line"


async def kept(db: DB, job: int) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await db.fetch(KEPT, job)]


async def test_what_a_job_logs_is_kept_with_each_of_its_attempts(node: InProcess, queue: Queue, db: DB) -> None:
    job = await queue.enqueue("telling", {"lines": 2, "fails": True})
    assert await queue.result(job, timeout=60) == "told"
    lines = [(1, "info", "line 0"), (2, "warning", "line 1")]
    assert await kept(db, job) == [(attempt, *line) for attempt in (1, 2) for line in lines]


async def test_a_running_job_shows_what_it_has_logged(node: InProcess, queue: Queue, db: DB) -> None:
    begun, go_on = handlers.gate(31)
    job = await queue.enqueue("telling_gated", {"number": 31})
    await begun.wait()
    assert await until(lambda: kept(db, job), "the line is kept") == [(1, 1, "info", "begun")]
    go_on.set()
    await until_state(db, job, "succeeded")
    assert await kept(db, job) == [(1, 1, "info", "begun")]


async def test_def_and_cpu_handlers_and_those_that_finish_themselves_log_as_well(
    node: InProcess, queue: Queue, db: DB
) -> None:
    threaded, finishing = await queue.enqueue("telling_in_thread"), await queue.enqueue("telling_before_finish_in")
    child = await queue.enqueue("telling_in_child")
    for job in (threaded, finishing, child):
        await queue.result(job, timeout=60)
    assert await kept(db, child) == [(1, 1, "warning", "from a child")]
    assert await kept(db, threaded) == [(1, 1, "error", "from a thread")]
    assert await kept(db, finishing) == [(1, 1, "info", "before")]


async def test_of_an_attempt_a_bounded_number_of_lines_is_kept(node: InProcess, queue: Queue, db: DB) -> None:
    job = await queue.enqueue("telling", {"lines": MAX_LINES + 500})
    await queue.result(job, timeout=60)
    lines = await kept(db, job)
    assert len(lines) == MAX_LINES
    assert lines[-1][3] == "further lines of this attempt are in the daemon's log only"
    assert sum(len(line[3]) for line in lines) < MAX_CHARACTERS


async def test_lines_of_a_job_that_was_taken_back_are_dropped(node: InProcess, queue: Queue, db: DB) -> None:
    begun, _ = handlers.gate(32)
    job = await queue.enqueue("telling_gated", {"number": 32})
    await begun.wait()
    await until(lambda: kept(db, job), "the line is kept")
    await db.execute("DELETE FROM workerd.job_log")
    (run,) = node.daemon._executor.running
    await db.execute("UPDATE workerd.node SET dead_at = clock_timestamp()")
    await db.execute("SELECT workerd.rescue(100, 3, 60)")
    assert run.job is not None
    run.job.log("late")
    await until(
        lambda: db.fetchval("SELECT count(*) FROM workerd.node WHERE dead_at IS NULL"), "it has registered anew"
    )
    handlers.go_on[32].set()
    await until_state(db, job, "succeeded")
    assert [line[3] for line in await kept(db, job)] == ["begun"]


async def test_every_line_of_a_handler_names_its_job_whoever_writes_it(
    daemon: DaemonProcess, queue: Queue, db: DB
) -> None:
    daemon.start()
    jobs = [await queue.enqueue("telling", {"lines": 1}), await queue.enqueue("telling_in_thread")]
    for job in jobs:
        await queue.result(job, timeout=60)
    lines = [json.loads(line) for line in daemon.settings.log_path.read_text().splitlines()]
    assert {line["node"] for line in lines} == {daemon.settings.node}
    theirs = [line for line in lines if line["logger"] in ("shop", "job")]
    assert {(line["job"], line["task"], line["attempt"]) for line in theirs} == {
        (jobs[0], "telling", 1),
        (jobs[1], "telling_in_thread", 1),
    }
    assert len(theirs) == 4


@pytest.mark.parametrize("kind", ["json", "console"])
async def test_the_lines_of_a_job_are_shown_once_each_though_its_daemon_is_down(
    settings: Settings, queue: Queue, ctl: Ctl, kind: str
) -> None:
    with DaemonProcess(settings.model_copy(update={"log_format": kind})) as daemon:
        daemon.start()
        job = await queue.enqueue("telling", {"lines": 3})
        other = await queue.enqueue("telling", {"lines": 3})
        for each in (job, other):
            await queue.result(each, timeout=60)
        daemon.signal(15)
        daemon.wait()
    shown = ctl("logs", "--job", str(job)).stdout
    assert [shown.count(f"line {number}") for number in range(3)] == [1, 1, 1]
    assert shown.count("a library says") == 1
    assert f"job {job}" in shown
    assert f"job {other}" not in shown
    assert shown.index("line 2") < shown.index("a library says")
    for file in settings.log_dir.iterdir():
        file.unlink()
    alone = ctl("logs", "--job", str(job), "--log-format", kind).stdout.splitlines()
    assert [line.rpartition("] ")[2] if kind == "console" else json.loads(line)["message"] for line in alone] == [
        f"line {number}" for number in range(3)
    ]
    assert "logged (3 lines" in ctl("jobs", "show", str(job)).stdout
    assert [line["message"] for line in ctl.json("jobs", "show", str(job))["log"]] == ["line 0", "line 1", "line 2"]


async def test_lines_go_with_their_job_or_when_they_are_old(queue: Queue, node: InProcess, db: DB, ctl: Ctl) -> None:
    deleted, old, young = [await queue.enqueue("telling", {"lines": 1}) for _ in range(3)]
    for job in (deleted, old, young):
        await queue.result(job, timeout=60)
    assert ctl("jobs", "delete", str(deleted)).returncode == 0
    await db.execute("UPDATE workerd.job_log SET at = now() - interval '40 days' WHERE id = $1", old)
    await prune.prune(db, 86400.0)
    assert [bool(await kept(db, job)) for job in (deleted, old, young)] == [False, False, True]
