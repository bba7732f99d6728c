"""What `workerctl install pm2` writes, in the hands of a real pm2."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import until_state

if TYPE_CHECKING:
    import asyncpg

    from tests.support import Ctl
    from tests.system.supervisors.pm2 import Pm2
    from workerd import Queue

    DB = asyncpg.Connection[asyncpg.Record]

pytestmark = pytest.mark.system


def install(ctl: Ctl, files: Path) -> str:
    """Returns the file for pm2."""
    done = ctl("install", "pm2", "--to", str(files))
    assert done.returncode == 0, done.stderr
    assert f"pm2 start {files}/worker.config.js && pm2 save" in done.stdout
    return f"{files}/worker.config.js"


async def test_it_runs_jobs_under_one_pid_and_is_started_with_the_host_until_it_is_uninstalled(
    ctl: Ctl, files: Path, pm2: Pm2, queue: Queue, db: DB
) -> None:
    pm2("start", install(ctl, files))
    pm2("save")
    await until_state(db, await queue.enqueue("echo", {"value": 1}), "succeeded")
    (before,) = pm2.list()
    taken = ctl("reload")
    assert taken.returncode == 0, taken.stderr
    (after,) = pm2.list()
    assert (before["pid"], after["pm2_env"]["restart_time"]) == (after["pid"], 0)
    for stream in ("pm_out_log_path", "pm_err_log_path"):
        assert Path(after["pm2_env"][stream]).read_text() == "", "the log is written twice"

    pm2("kill")
    assert ctl("status").returncode == 3
    pm2("resurrect")  # what the host's start does, after `pm2 startup`
    await until_state(db, await queue.enqueue("echo", {"value": 2}), "succeeded")

    done = ctl("uninstall", "pm2", "--to", str(files))
    assert (done.returncode, done.stderr) == (0, "")
    assert ctl.environment["LOG_DIR"] in done.stdout
    assert (pm2.list(), files.exists(), ctl("status").returncode) == ([], False, 3)
    pm2("kill")
    pm2("resurrect")
    assert pm2.list() == []


async def test_one_that_is_killed_is_started_again_and_one_that_is_told_to_stop_drains_and_is_not(
    ctl: Ctl, files: Path, pm2: Pm2, queue: Queue, db: DB
) -> None:
    pm2("start", install(ctl, files))
    await until_state(db, await queue.enqueue("echo", {"value": 1}), "succeeded")
    os.kill(ctl.json("status")["pid"], signal.SIGKILL)
    await until_state(db, await queue.enqueue("echo", {"value": 2}), "succeeded")

    job = await queue.enqueue("nap_by_a_program", {"seconds": 1.5})
    await until_state(db, job, "running")
    pm2("stop", "worker")  # it signals whole trees, that program too, unless it is told not to
    assert (await until_state(db, job, "succeeded"))["attempt"] == 1

    pm2("start", "worker")
    await until_state(db, await queue.enqueue("echo", {"value": 3}), "succeeded")
    restarted = ctl("restart")
    assert (restarted.returncode, "pm2 restart worker" in restarted.stderr) == (1, True)
    stopped = ctl("stop")
    assert (stopped.returncode, "pm2 start worker" in stopped.stdout) == (0, True)
    (kept,) = pm2.list()
    assert kept["pid"] == 0
