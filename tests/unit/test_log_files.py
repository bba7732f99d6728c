"""Log files in the long run: rotation, full disks, outside rotation."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit.test_logs import lines, log, set_up
from workerd.daemon import logs, parent

pytestmark = pytest.mark.usefixtures("own_logging")

FULL = Path("/dev/full")


def test_a_file_is_rotated_at_its_size_and_a_number_of_old_ones_kept(tmp_path: Path) -> None:
    settings = set_up(tmp_path, log_max_size=1000, log_keep=2)
    for number in range(50):
        log.info("%s %s", number, "x" * 100)
    files = sorted(settings.log_path.parent.glob("worker.log*"))
    assert [file.name for file in files] == ["worker.log", "worker.log.1", "worker.log.2"]
    assert all(0 < file.stat().st_size <= 1000 for file in files)
    assert lines(settings.log_path)[-1]["message"].startswith("49 ")
    set_up(tmp_path, log_max_size=1000, log_keep=1)
    for number in range(10):
        log.info("%s %s", number, "x" * 100)
    assert sorted(file.name for file in settings.log_path.parent.glob("worker.log*")) == ["worker.log", "worker.log.1"]


def test_keeping_no_old_file_still_bounds_the_size(tmp_path: Path) -> None:
    settings = set_up(tmp_path, log_max_size=1000, log_keep=0)
    for number in range(50):
        log.info("%s %s", number, "x" * 100)
    assert list(settings.log_path.parent.glob("worker.log*")) == [settings.log_path]
    assert 0 < settings.log_path.stat().st_size <= 1000
    assert lines(settings.log_path)[-1]["message"].startswith("49 ")


def test_a_size_of_zero_never_rotates(tmp_path: Path) -> None:
    settings = set_up(tmp_path, log_max_size=0)
    for _ in range(50):
        log.info("x" * 100)
    assert len(lines(settings.log_path)) == 50


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_full_disk_stops_neither_the_work_nor_the_other_files(tmp_path: Path) -> None:
    settings = set_up(tmp_path, log_file=FULL)
    for _ in range(3):
        log.warning("hello")
    logs.reopen()
    log.warning("again")
    assert len(lines(settings.error_log_path)) == 4


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_when_a_file_can_be_written_again_its_first_line_tells_how_many_are_missing(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(FULL)
    set_up(tmp_path, log_file=link)
    for _ in range(3):
        log.info("hello")
    link.unlink()
    log.info("again")
    notice, again = lines(link)
    assert notice["message"].startswith("3 log records could not be written here in the last ")
    assert (notice["level"], again["message"]) == ("WARNING", "again")


def test_a_line_that_was_torn_by_a_full_disk_does_not_swallow_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = set_up(tmp_path)
    write = os.write

    def half(file: int, data: bytes) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, "no space left on device")
        return write(file, data[: len(data) // 2])

    with monkeypatch.context() as patch:
        patch.setattr("os.write", half)
        log.info("hello")
    log.info("again")
    torn, *whole = settings.log_path.read_text().splitlines()
    assert torn.startswith('{"ts"')
    assert [json.loads(line)["message"][:5] for line in whole] == ["1 log", "again"]


def test_after_an_outside_rotation_the_next_line_is_in_a_new_file(tmp_path: Path) -> None:
    settings = set_up(tmp_path)
    log.info("one")
    settings.log_path.rename(tmp_path / "log" / "first")
    log.info("two")
    settings.log_path.rename(tmp_path / "log" / "second")
    logs.reopen()
    log.info("three")
    files = [tmp_path / "log" / "first", tmp_path / "log" / "second", settings.log_path]
    assert [[line["message"] for line in lines(file)] for file in files] == [["one"], ["two"], ["three"]]


def test_the_stacks_of_all_threads_and_tasks_can_be_logged(tmp_path: Path) -> None:
    settings = set_up(tmp_path)

    async def look() -> None:
        logs.dump_stacks()

    asyncio.run(look())
    (line,) = lines(settings.log_path)
    assert "thread MainThread:" in line["message"]
    assert "task Task-" in line["message"]


WRITER = """
import logging, signal, sys, threading
from pathlib import Path
from workerd.daemon import logs, parent
from workerd.settings import Settings

folder, name, count, largest = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
logs.set_up(Settings(log_dir=folder, log_max_size=largest, log_keep=1000))

def reopen():
    while signal.sigwait({signal.SIGHUP}):
        logs.reopen()

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
threading.Thread(target=reopen, daemon=True).start()
print("ready", file=sys.__stdout__, flush=True)
sys.stdin.readline()
for number in range(count):
    logging.getLogger("w").info("%s %s %s", name, number, "x" * (number % 90))
"""


@pytest.mark.parametrize(("largest", "outside"), [(20_000, False), (0, True), (20_000, True)])
def test_processes_that_write_one_file_lose_and_double_no_line_while_it_is_rotated(
    tmp_path: Path, largest: int, outside: bool
) -> None:
    """By size from within, by rename and SIGHUP from outside, or both at a time."""
    names, count, folder = ("a", "b", "c"), 4000, tmp_path / "log"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder), name, str(count), str(largest)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, parent.BACKGROUND: ""},
        )
        for name in names
    ]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.readline()
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"\n")
        writer.stdin.flush()
    moved = 0
    while any(writer.poll() is None for writer in writers):
        if outside and (folder / "worker.log").exists():
            with contextlib.suppress(FileNotFoundError):  # it was rotated from within just now
                (folder / "worker.log").rename(folder / f"worker.log-{moved}")
                moved += 1
            for writer in writers:
                writer.send_signal(signal.SIGHUP)
        time.sleep(0.005)  # the pace of the rotation
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    for writer in writers:
        writer.communicate()
    files = [file for file in folder.glob("worker.log*") if file.is_file()]
    written = [line["message"].split()[:2] for file in files for line in lines(file)]
    assert len(files) > 5  # how many depends on how often a busy machine lets us in
    assert sorted(written) == sorted([name, str(number)] for name in names for number in range(count))
    assert largest == 0 or all(
        file.stat().st_size < largest * 25 for file in files
    )  # one that rotates may be interrupted
