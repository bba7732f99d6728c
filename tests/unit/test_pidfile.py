"""The lock of the PID file, and not the file, says that a daemon runs."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from workerd.daemon.pidfile import PidFile, owner
from workerd.errors import AlreadyRunning, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOLDER = """
import sys
from pathlib import Path
from workerd.daemon.pidfile import PidFile
held = PidFile(Path(sys.argv[1]))
held.acquire()
print("held", flush=True)
sys.stdin.read()
held.release()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "worker.pid"


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the file until its input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        assert process.stdin is not None
        process.stdin.close()


def test_the_holder_is_known_by_its_pid_and_leaves_nothing(path: Path) -> None:
    assert owner(path) is None
    pid_file = PidFile(path)
    pid_file.acquire()
    assert (owner(path), path.read_text()) == (os.getpid(), f"{os.getpid()}\n")
    pid_file.release()
    pid_file.release()
    assert owner(path) is None
    assert not path.exists()


def test_a_second_holder_is_refused_with_the_pid_of_the_first(path: Path) -> None:
    with holder(path) as other:
        assert owner(path) == other.pid
        with pytest.raises(AlreadyRunning, match=f"a daemon runs already with PID {other.pid} "):
            PidFile(path).acquire()
        assert owner(path) == other.pid
    assert other.returncode == 0
    PidFile(path).acquire()


def test_the_file_of_a_killed_daemon_is_stale(path: Path) -> None:
    with holder(path) as other:
        other.kill()
        other.wait()
    assert path.read_text() == f"{other.pid}\n"
    assert owner(path) is None
    pid_file = PidFile(path)
    pid_file.acquire()
    assert owner(path) == os.getpid()
    pid_file.release()


@pytest.mark.parametrize("content", [b"", b"1\n", b"\xff\xfe nonsense that is longer than any number could ever be"])
def test_what_stands_in_a_file_that_nobody_holds_does_not_matter(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    assert owner(path) is None
    pid_file = PidFile(path)
    pid_file.acquire()
    assert path.read_text() == f"{os.getpid()}\n"
    pid_file.release()


def test_a_directory_that_cannot_be_made_is_told_with_advice(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file is in its place")
    with pytest.raises(ConfigError, match="set RUNTIME_DIR to a writable directory"):
        PidFile(tmp_path / "run" / "worker.pid").acquire()


def test_a_file_that_is_removed_before_it_is_locked_is_made_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaving, coming = PidFile(path), PidFile(path)
    leaving.acquire()
    lock = fcntl.flock

    def leave_then_lock(fd: int, operation: int) -> None:
        leaving.release()
        lock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", leave_then_lock)
    coming.acquire()
    monkeypatch.undo()
    assert owner(path) == os.getpid()
    with pytest.raises(AlreadyRunning):
        PidFile(path).acquire()
    coming.release()


def test_somebody_who_only_looks_keeps_no_daemon_from_starting(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.mkdir()
    path.write_text("1\n")
    lock = fcntl.flock
    looking = os.open(path, os.O_RDONLY)
    lock(looking, fcntl.LOCK_SH)
    tries = []

    def look_on_once(fd: int, operation: int) -> None:
        tries.append(operation)
        if len(tries) == 3:
            lock(looking, fcntl.LOCK_UN)
        lock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", look_on_once)
    pid_file = PidFile(path)
    pid_file.acquire()
    monkeypatch.undo()
    assert owner(path) == os.getpid()
    pid_file.release()
    os.close(looking)
