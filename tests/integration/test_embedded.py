"""The embedded PostgreSQL: one cluster a state directory, for root and for ordinary users, and clear words when it cannot be."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import psutil
import pytest

from tests.support import ROOT, Ctl
from workerd import embedded
from workerd.embedded.place import locate
from workerd.errors import EmbeddedError

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def state() -> Iterator[Path]:
    """A state directory with a short path; what is left in it is stopped and removed."""
    folder = Path(tempfile.mkdtemp(prefix="wd-"))
    folder.chmod(0o755)
    yield folder
    with contextlib.suppress(EmbeddedError):
        embedded.stop_if_unused(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def alone(state: Path) -> Iterator[Ctl]:
    """`workerctl` without a DATABASE_URL."""
    command = Ctl(
        {
            "TASKS": "tests.handlers",
            "APP_DIR": str(ROOT),
            "STATE_DIR": str(state),
            "RUNTIME_DIR": str(state / "run"),
            "LOG_DIR": str(state / "log"),
        },
        state,
    )
    yield command
    command("stop", "--now")


def _value(dsn: str, sql: str) -> object:
    async def ask() -> object:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    return asyncio.run(ask())


def _server_pid(state: Path) -> int:
    return int((locate(state).data / "postmaster.pid").read_text().splitlines()[0])


def test_it_starts_once_keeps_its_data_and_stops(state: Path) -> None:
    dsn = embedded.start(state)
    assert embedded.start(state) == dsn
    _value(dsn, "CREATE TABLE kept AS SELECT 1 AS one")
    assert embedded.stop_if_unused(state)
    assert not embedded.is_running(state)
    assert _value(embedded.start(state), "SELECT one FROM kept") == 1


def test_it_listens_on_its_socket_alone_with_full_durability(state: Path) -> None:
    dsn = embedded.start(state)
    for name, value in (
        ("listen_addresses", ""),
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
    ):
        assert _value(dsn, f"SHOW {name}") == value
    place = locate(state)
    assert place.sockets.stat().st_mode & 0o077 == 0
    owner = pwd.getpwuid(place.data.stat().st_uid).pw_name
    assert (owner != "root") if os.geteuid() == 0 else (place.data.stat().st_uid == os.geteuid())


def test_starting_it_from_many_processes_at_once_makes_one(state: Path) -> None:
    code = f"from pathlib import Path; from workerd import embedded; print(embedded.start(Path({str(state)!r})))"
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    answers = [process.communicate(timeout=60) for process in started]
    assert {process.returncode for process in started} == {0}, answers
    assert len({out for out, _ in answers}) == 1


def test_it_is_not_stopped_while_somebody_uses_it(state: Path) -> None:
    async def used() -> bool:
        connection = await asyncpg.connect(embedded.start(state))
        try:
            return await asyncio.to_thread(embedded.stop_if_unused, state)
        finally:
            await connection.close()

    assert asyncio.run(used()) is False
    assert embedded.is_running(state)


def test_it_recovers_from_the_death_of_its_server(state: Path) -> None:
    dsn = embedded.start(state)
    _value(dsn, "CREATE TABLE kept AS SELECT 1 AS one")
    server = psutil.Process(_server_pid(state))
    server.kill()
    server.wait(60)
    assert _value(embedded.start(state), "SELECT one FROM kept") == 1


def test_a_pid_file_of_an_earlier_boot_does_not_stop_it(state: Path) -> None:
    embedded.start(state)
    pid_file = locate(state).data / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    embedded.stop_if_unused(state)
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]))  # the PID is another program's by now
    assert _value(embedded.start(state), "SELECT 1") == 1


def test_a_path_too_long_for_a_socket_moves_the_socket_or_says_so(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = state / ("x" * 100)
    assert len(str(locate(long).socket)) <= 107
    monkeypatch.setenv("TMPDIR", "/tmp/" + "y" * 100)
    with pytest.raises(EmbeddedError, match="too long for a unix socket"):
        embedded.start(long)


def test_a_directory_that_cannot_be_made_is_named() -> None:
    with pytest.raises(EmbeddedError, match="set STATE_DIR to a writable directory"):
        embedded.start(Path("/proc/nowhere"))


def test_a_cluster_of_another_major_version_is_left_alone(state: Path) -> None:
    embedded.start(state)
    embedded.stop_if_unused(state)
    version = locate(state).data / "PG_VERSION"
    version.write_text("14\n")
    with pytest.raises(EmbeddedError, match=r"was made by PostgreSQL 14, installed is 1\d"):
        embedded.start(state)


def test_a_server_that_does_not_start_says_why(state: Path) -> None:
    embedded.start(state)
    embedded.stop_if_unused(state)
    with (locate(state).data / "postgresql.conf").open("a") as file:
        file.write("shared_buffers = nonsense\n")
    with pytest.raises(EmbeddedError, match=r"did not start: .*shared_buffers"):
        embedded.start(state)


def test_daemons_of_any_name_share_it_and_the_last_stop_ends_it(alone: Ctl, state: Path) -> None:
    assert alone("start").returncode == 0
    assert alone("start", "--name", "second").returncode == 0
    pid = _server_pid(state)
    assert "left running" in alone("stop", "--name", "second").stdout
    assert _server_pid(state) == pid
    assert "embedded PostgreSQL stopped" in alone("stop").stdout
    assert not embedded.is_running(state)


def test_it_survives_the_kill_of_its_daemon_and_stop_ends_it_without_one(alone: Ctl, state: Path) -> None:
    assert alone("start").returncode == 0
    os.kill(alone.json("status")["pid"], signal.SIGKILL)
    assert embedded.is_running(state)
    job = alone("enqueue", "echo").stdout.strip()
    assert alone.json("jobs", "show", job)["state"] == "queued"
    said = alone("status")
    assert (said.returncode, said.stdout) == (
        3,
        "worker is stopped (local); its embedded PostgreSQL runs: workerctl stop ends it\n",
    )
    stopped = alone("stop")
    assert (stopped.returncode, stopped.stdout) == (0, "embedded PostgreSQL stopped\n")
    assert alone("status").stdout == "worker is stopped (local)\n"
    assert not embedded.is_running(state)


def test_a_daemon_starts_it_again_without_flooding_its_log(alone: Ctl, state: Path) -> None:
    assert alone("start").returncode == 0
    server = psutil.Process(_server_pid(state))
    server.kill()
    psutil.wait_procs([server], 10)
    job = alone("enqueue", "echo", '{"value": 1}').stdout.strip()
    assert alone("jobs", "wait", job, "--timeout", "20").returncode == 0
    assert len((state / "log" / "worker.error.log").read_text().splitlines()) < 50


def test_a_state_directory_that_is_a_file_is_refused(state: Path) -> None:
    (state / "file").write_text("")
    with pytest.raises(EmbeddedError, match="is no directory"):
        embedded.start(state / "file")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_has_one_too() -> None:
    nobody = pwd.getpwnam("nobody")
    home = Path(tempfile.mkdtemp(prefix="wd-"))
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TASKS": "workerd_user_tasks",
        "APP_DIR": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    (home / "workerd_user_tasks.py").write_text(
        "from workerd import task\n\n@task\nasync def who() -> int:\n    import os\n    return os.getuid()\n"
    )

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "workerctl", *words],
            user=nobody.pw_uid,
            group=nobody.pw_gid,
            extra_groups=[],
            capture_output=True,
            text=True,
            env=environment,
            cwd=home,
            check=False,
        )

    try:
        assert run("--version").returncode == 0
    except PermissionError:
        shutil.rmtree(home)
        pytest.skip("this installation is closed to other users")
    try:
        started = run("start")
        assert started.returncode == 0, started.stderr
        assert run("jobs", "wait", run("enqueue", "who").stdout.strip()).stdout.strip() == str(nobody.pw_uid)
        assert (home / ".local/state/workerd/postgres/data").stat().st_uid == nobody.pw_uid
    finally:
        stopped = run("stop")
        shutil.rmtree(home)
    assert "embedded PostgreSQL stopped" in stopped.stdout
