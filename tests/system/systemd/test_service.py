"""The daemon as a service of a real systemd: ready, at work, reloaded, stopped, hanging, out of memory."""

from __future__ import annotations

import asyncio
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support import until_state
from tests.system.systemd.unit import UNIT

if TYPE_CHECKING:
    import asyncpg

    from tests.faults.balance import Books
    from tests.system.systemd.machine import Machine
    from tests.system.systemd.unit import Unit
    from workerd import Queue

    DB = asyncpg.Connection[asyncpg.Record]

pytestmark = pytest.mark.system


def test_it_is_active_only_when_it_is_ready(unit: Unit, machine: Machine) -> None:
    machine.write("/opt/app/slow.py", "open('/opt/app/gate').read()\nfrom tests.system.systemd.tasks import echo\n")
    gate = machine.root / "opt/app/gate"
    os.mkfifo(gate)
    gate.chmod(0o644)
    unit.install("--tasks", "slow")
    with subprocess.Popen(machine.command("systemctl", "start", UNIT)) as starting:
        with gate.open("w"):  # returns when the daemon imports its tasks, and lets it go on at the end
            assert machine.show(UNIT, "ActiveState") == "activating"
            assert starting.poll() is None
        assert starting.wait(60) == 0
    assert machine.show(UNIT, "ActiveState") == "active"
    assert machine.show(UNIT, "StatusText").startswith("2 workers")


async def test_a_job_runs_and_a_stop_drains(unit: Unit, machine: Machine, queue: Queue, db: DB, books: Books) -> None:
    unit.start()
    job = await queue.enqueue("nap", {"seconds": 2})
    await until_state(db, job, "running")
    await asyncio.to_thread(machine.run, "systemctl", "stop", UNIT)
    assert (await until_state(db, job, "succeeded"))["attempt"] == 1
    assert machine.show(UNIT, "Result") == "success"
    assert await books.close() == []


async def test_what_outlasts_the_drain_is_given_back_before_systemd_loses_patience(
    unit: Unit, machine: Machine, queue: Queue, db: DB, books: Books
) -> None:
    unit.install("--drain-timeout", "1")
    assert machine.show(UNIT, "TimeoutStopUSec") == "31s"
    unit.start()
    job = await queue.enqueue("nap", {"seconds": 3600})
    await until_state(db, job, "running")
    await asyncio.to_thread(machine.run, "systemctl", "stop", UNIT)
    assert machine.show(UNIT, "Result") == "success"
    assert (await until_state(db, job, "queued"))["failures"] == 0
    assert await db.fetchval("SELECT attempts -> -1 ->> 'outcome' FROM workerd.job WHERE id = $1", job) == "returned"
    assert await books.close(settle=False) == []


async def test_a_reload_under_load_drops_nothing(
    unit: Unit, machine: Machine, queue: Queue, db: DB, books: Books
) -> None:
    unit.install("--workers", "8")
    unit.start()
    await queue.enqueue_many("nap", [{"seconds": 0.02}] * 1000)
    pids = [unit.pid]
    for _ in range(3):
        await asyncio.to_thread(unit.reload)
        pids.append(unit.pid)
    assert len(set(pids)) == 4
    assert "reception only permitted" not in machine.journal(UNIT)
    await books.settled()
    machine.run("systemctl", "stop", UNIT)
    ends = await db.fetch("SELECT state, attempt, count(*) FROM workerd.job GROUP BY state, attempt")
    assert [tuple(row) for row in ends] == [("succeeded", 1, 1000)]
    assert await books.close() == []


async def test_a_daemon_that_runs_nothing_answers_every_reload_before_it_leaves(unit: Unit) -> None:
    unit.start()
    for _ in range(15):
        unit.reload()


async def test_a_reload_reads_the_environment_file_anew(unit: Unit, machine: Machine) -> None:
    unit.install("--workers", "3")
    unit.start()
    unit.install("--workers", "5")
    unit.reload()
    assert unit.status()["workers"] == 5


async def test_a_reload_that_fails_says_why_and_leaves_the_old_process_at_work(unit: Unit, machine: Machine) -> None:
    unit.start()
    before = unit.pid
    unit.install("--tasks", "tests.system.systemd.nothing")
    done = machine.ctl("reload")
    assert done.returncode == 1
    assert "tests.system.systemd.nothing" in done.stderr
    assert unit.pid == before
    assert machine.show(UNIT, "ActiveState") == "active"


async def test_a_handler_that_hangs_the_loop_is_ended_by_the_watchdog_and_its_job_runs_again(
    unit: Unit, machine: Machine, queue: Queue, db: DB, books: Books
) -> None:
    unit.override("WatchdogSec=5s")
    unit.start()
    hanging = unit.pid
    job = await queue.enqueue("hang_at_first", {})
    done = await until_state(db, job, "succeeded")
    assert (done["attempt"], unit.restarts) == (2, 1)
    assert unit.pid != hanging
    said = machine.journal(UNIT)
    for text in ("the loop stands still since", "Watchdog timeout (limit 5s)!"):
        assert text in said
    dump = said.rpartition("Fatal Python error: Aborted")[2]
    assert " in hang_at_first" in dump, said
    assert dump.count("hread 0x") > 1  # not this one alone
    machine.run("systemctl", "stop", UNIT)
    assert await books.close() == []


async def test_a_child_that_reaches_the_memory_limit_fails_alone(
    unit: Unit, machine: Machine, queue: Queue, db: DB, books: Books
) -> None:
    unit.override("MemoryMax=300M", "MemorySwapMax=0")
    unit.start()
    pid = unit.pid
    beside = await queue.enqueue("nap", {"seconds": 2})
    await until_state(db, beside, "running")
    greedy = await queue.enqueue("hoard_in_child", {"megabytes": 1000})
    failed = await until_state(db, greedy, "failed")
    assert "SIGKILL" in failed["error"]
    assert (await until_state(db, beside, "succeeded"))["attempt"] == 1
    assert (unit.pid, unit.restarts) == (pid, 0)
    machine.run("systemctl", "stop", UNIT)
    assert await books.close() == []


async def test_a_handler_on_the_loop_that_reaches_it_brings_restarts_and_fails_at_last(
    unit: Unit, machine: Machine, queue: Queue, db: DB, books: Books
) -> None:
    unit.override("MemoryMax=300M", "MemorySwapMax=0", "RestartSec=100ms")
    unit.start()
    greedy = await queue.enqueue("hoard_on_loop", {"megabytes": 1000})
    failed = await until_state(db, greedy, "failed")
    assert failed["attempt"] == 3  # MAX_CRASHES
    await unit.until("ActiveState", "active")
    assert unit.restarts == 3
    machine.run("systemctl", "stop", UNIT)
    assert await books.close() == []
