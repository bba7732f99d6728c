"""What `workerctl install supervisor` writes, in the hands of a real supervisord."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support import until, until_state

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg

    from tests.support import Ctl
    from tests.system.supervisors.supervisor import Supervisord
    from workerd import Queue

    DB = asyncpg.Connection[asyncpg.Record]

pytestmark = pytest.mark.system


def install(ctl: Ctl, files: Path, *more: str) -> str:
    done = ctl("install", "supervisor", "--to", str(files), *more)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_it_runs_jobs_under_one_pid_and_is_started_with_the_host_until_it_is_uninstalled(
    ctl: Ctl, files: Path, supervisord: Supervisord, queue: Queue, db: DB
) -> None:
    await supervisord.start()
    assert "supervisorctl update worker" in install(ctl, files)
    assert supervisord.order("update", "worker").returncode == 0
    await until_state(db, await queue.enqueue("echo", {"value": 1}), "succeeded")
    assert (ctl.json("status")["state"], "ready" in ctl("logs").stdout) == ("running", True)
    assert supervisord.order("tail", "worker").stdout.strip() == "", "the log is written twice"

    watched = supervisord.order("pid", "worker").stdout
    taken = ctl("reload")
    assert taken.returncode == 0, taken.stderr
    assert supervisord.order("pid", "worker").stdout == watched

    supervisord.stop()
    assert ctl("status").returncode == 3
    await supervisord.start()
    await until_state(db, await queue.enqueue("echo", {"value": 2}), "succeeded")

    done = ctl("uninstall", "supervisor", "--to", str(files))
    assert (done.returncode, done.stderr) == (0, "")
    assert ctl.environment["LOG_DIR"] in done.stdout
    assert not files.exists()
    assert supervisord.order("status", "worker").stdout == "worker: ERROR (no such process)\n"
    assert ctl("status").returncode == 3


async def test_one_that_is_killed_is_started_again_and_one_that_is_told_to_stop_drains_and_is_not(
    ctl: Ctl, files: Path, supervisord: Supervisord, queue: Queue, db: DB
) -> None:
    install(ctl, files)
    await supervisord.start()
    await until_state(db, await queue.enqueue("echo", {"value": 1}), "succeeded")
    os.kill(ctl.json("status")["pid"], signal.SIGKILL)
    await until_state(db, await queue.enqueue("echo", {"value": 2}), "succeeded")

    await supervisord.until_state("RUNNING")
    job = await queue.enqueue("nap", {"seconds": 2.0})
    await until_state(db, job, "running")
    assert supervisord.order("stop", "worker").returncode == 0
    assert (await until_state(db, job, "succeeded"))["attempt"] == 1

    assert supervisord.order("start", "worker").returncode == 0  # it has not died; it may be importing still
    await until_state(db, await queue.enqueue("echo", {"value": 3}), "succeeded")
    restarted = ctl("restart")
    assert (restarted.returncode, "supervisorctl restart worker" in restarted.stderr) == (1, True)
    stopped = ctl("stop")
    assert (stopped.returncode, "supervisorctl start worker" in stopped.stdout) == (0, True)
    await supervisord.until_state("EXITED")


async def test_what_keeps_it_from_starting_is_seen_where_supervisor_shows_it(
    ctl: Ctl, files: Path, supervisord: Supervisord
) -> None:
    install(ctl, files)
    with (files / "worker.env").open("a") as settings:
        settings.write("WORKERS=none\n")
    await supervisord.start()

    async def said() -> bool:
        return "WORKERS='none'" in supervisord.order("tail", "worker").stdout

    await until(said, "supervisor shows the reason")
