"""Reload as operators do it: the command, SIGHUP, and a daemon in the foreground."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support import LIMIT, ROOT, Ctl, DaemonProcess, until, until_state
from workerctl import control
from workerctl.runtimes.local import Local
from workerd.daemon import pidfile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import asyncpg

    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]


def test_reload_says_who_took_over_and_status_follows(ctl: Ctl) -> None:
    assert ctl("reload").returncode == 3
    ctl("start", "2")
    assert ctl("scale", "3").returncode == 0
    before = ctl.json("status")["pid"]
    done = ctl("reload")
    after = ctl.json("status")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"PID {after['pid']} took over from {before}" in done.stdout
    assert (after["state"], after["workers"]) == ("running", 3)


async def test_sighup_changes_workers_in_place_and_hands_over_for_other_settings(ctl: Ctl, tmp_path: Path) -> None:
    file = tmp_path / "worker.env"

    def write(workers: int, timeout: str) -> int:
        """Change the settings, and tell the daemon; returns its PID of before."""
        pid: int = ctl.json("status")["pid"]
        file.write_text(f"WORKERS={workers}\nJOB_TIMEOUT={timeout}\n")
        os.kill(pid, signal.SIGHUP)
        return pid

    async def logged(words: str) -> None:
        async def found() -> bool:
            return words in (tmp_path / "log" / "worker.log").read_text()

        await until(found, f"the log says {words}")

    file.write_text("WORKERS=2\nJOB_TIMEOUT=60\n")
    ctl("start", "--config", str(file))
    first = write(5, "60")
    await logged("changed: workers")
    status = ctl.json("status")
    assert (status["pid"], status["workers"]) == (first, 5)
    write(5, "61")
    await logged(f"took over from PID {first}")
    status = ctl.json("status")
    assert status["pid"] != first
    assert status["workers"] == 5
    assert write(5, "soon") == status["pid"]
    await logged("JOB_TIMEOUT='soon'")
    assert ctl.json("status")["pid"] == status["pid"]


def test_a_new_process_whose_start_fails_leaves_the_old_one_at_work(ctl: Ctl, tmp_path: Path) -> None:
    app, broken = tmp_path / "app", tmp_path / "broken"
    app.mkdir()
    (app / "shop.py").write_text(
        "from pathlib import Path\nfrom workerd import on_startup, task\n"
        "@task\nasync def sell() -> None: ...\n"
        f"@on_startup\nasync def connect() -> None:\n    assert not Path({str(broken)!r}).exists(), 'the till is locked'\n"
    )
    ctl("start", "--tasks", "shop", "--app-dir", str(app))
    before = ctl.json("status")["pid"]
    broken.touch()
    done = ctl("reload")
    assert done.returncode == 1
    assert "on_startup connect failed: AssertionError: the till is locked" in done.stderr
    status = ctl.json("status")
    assert (status["pid"], status["state"]) == (before, "running")
    broken.unlink()
    assert ctl("reload").returncode == 0


@pytest.fixture
def parent(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """`workerd` as a container runs it."""
    command = [sys.executable, "-m", "workerd", *DaemonProcess(settings).flags]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield process
    if process.poll() is None:
        process.terminate()
        process.wait(LIMIT)


async def _in_charge(settings: Settings) -> int:
    """The PID of the daemon, when it can be asked."""

    async def answers() -> int | None:
        return pidfile.owner(settings.pid_file) if settings.socket_path.exists() else None

    return int(await until(answers, "a daemon is in charge"))


async def test_in_the_foreground_the_parent_stays_and_ends_as_the_last_daemon(
    parent: subprocess.Popen[bytes], settings: Settings, queue: Queue, db: DB
) -> None:
    first = await _in_charge(settings)
    job = await queue.enqueue("nap", {"seconds": 1.0})
    await until_state(db, job, "running")

    async def has_started() -> bool:
        told = await asyncio.to_thread(control.ask, settings.socket_path, "status")
        return bool(told["state"] == "running")

    await until(has_started, "the daemon has started: it works a little before that")
    await asyncio.to_thread(Local(settings, []).reload)
    after = await _in_charge(settings)
    assert after != first
    assert psutil.Process(after).ppid() == parent.pid
    parent.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(parent.wait, LIMIT) == 0
    assert (await until_state(db, job, "succeeded"))["attempt"] == 1
    assert not psutil.pid_exists(first)


async def test_in_the_foreground_the_parent_ends_with_a_daemon_that_is_killed(
    parent: subprocess.Popen[bytes], settings: Settings
) -> None:
    os.kill(await _in_charge(settings), signal.SIGKILL)
    assert await asyncio.to_thread(parent.wait, LIMIT) == 128 + signal.SIGKILL


async def test_in_the_foreground_a_killed_parent_is_the_end_of_its_daemon_and_jobs_are_given_back(
    parent: subprocess.Popen[bytes], settings: Settings, queue: Queue, db: DB
) -> None:
    await _in_charge(settings)
    job = await queue.enqueue("nap", {"seconds": 60})
    await until_state(db, job, "running")
    parent.kill()
    row = await until_state(db, job, "queued")
    assert (row["attempt"], row["failures"]) == (1, 0)

    async def gone() -> bool:
        return not settings.pid_file.exists()

    await until(gone, "the daemon has ended")
