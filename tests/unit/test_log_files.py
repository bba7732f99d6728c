"""Log files in the long run: rotation, full disks, outside rotation."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from tests.unit.test_logs import lines, log, set_up
from workerd.daemon import logs

pytestmark = pytest.mark.usefixtures("own_logging")

FULL = Path("/dev/full")


def files_of() -> list[logging.FileHandler]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, logging.FileHandler)]


def test_a_file_is_rotated_at_its_size_and_a_number_of_old_ones_kept(tmp_path: Path) -> None:
    settings = set_up(tmp_path, log_max_size=1000, log_keep=2)
    for number in range(50):
        log.info("%s %s", number, "x" * 100)
    files = sorted(settings.log_path.parent.glob("worker.log*"))
    assert [file.name for file in files] == ["worker.log", "worker.log.1", "worker.log.2"]
    assert all(0 < file.stat().st_size <= 1000 for file in files)
    assert lines(settings.log_path)[-1]["message"].startswith("49 ")


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


def test_a_file_that_was_closed_behind_our_back_stops_nothing(tmp_path: Path) -> None:
    settings = set_up(tmp_path)
    stream = files_of()[0].stream
    assert stream is not None
    stream.close()
    log.warning("hello")
    assert len(lines(settings.error_log_path)) == 1


def test_after_an_outside_rotation_reopening_begins_a_new_file(tmp_path: Path) -> None:
    settings = set_up(tmp_path)
    old = tmp_path / "log" / "rotated"
    log.info("one")
    settings.log_path.rename(old)
    log.info("two")
    logs.reopen()
    log.info("three")
    assert [line["message"] for line in lines(old)] == ["one", "two"]
    assert [line["message"] for line in lines(settings.log_path)] == ["three"]


def test_the_stacks_of_all_threads_and_tasks_can_be_logged(tmp_path: Path) -> None:
    settings = set_up(tmp_path)

    async def look() -> None:
        logs.dump_stacks()

    asyncio.run(look())
    (line,) = lines(settings.log_path)
    assert "thread MainThread:" in line["message"]
    assert "task Task-" in line["message"]
