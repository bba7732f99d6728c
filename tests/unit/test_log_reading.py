"""The last records of log files, and new ones while they are rotated."""

from __future__ import annotations

import os
import tracemalloc
from itertools import islice
from typing import TYPE_CHECKING

import pytest

from workerctl import log_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def every(_: str) -> bool:
    return True


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "worker.log"


def record(number: int) -> str:
    return f'{{"message":"{number}"}}'


def write(path: Path, *numbers: int) -> None:
    with path.open("a") as file:
        file.writelines(f"{record(number)}\n" for number in numbers)


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 18])
def test_the_last_records_are_read_from_the_end_across_rotated_files(
    path: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_files, "BLOCK", block)
    for name, numbers in (("worker.log.2", (1, 2)), ("worker.log.1", (3, 4)), ("worker.log", (5, 6))):
        write(path.parent / name, *numbers)
    for most in range(8):
        assert log_files.last_records(path, every, most) == [record(n) for n in range(1, 7)][6 - min(most, 6) :]
    assert log_files.last_records(path, lambda text: '"2"' in text, 5) == [record(2)]
    path.unlink()
    assert log_files.last_records(path, every, 1) == [record(4)]
    assert log_files.last_records(path.parent / "none", every, 5) == []


def test_a_traceback_belongs_to_its_record(path: Path) -> None:
    path.write_text(
        "2026-01-01 10:00:00.000 ERROR   failed\nTraceback:\nValueError: 1\n2026-01-01 10:00:01.000 INFO    fine\n"
    )
    failed, fine = log_files.last_records(path, every, 5)
    assert failed.endswith("failed\nTraceback:\nValueError: 1")
    assert fine.endswith("fine")
    assert log_files.last_records(path, lambda text: "ValueError" in text, 1) == [failed]


def test_of_a_huge_file_only_the_end_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with path.open("wb") as file:
        file.truncate(300 << 20)
        file.seek(0, os.SEEK_END)
        file.write(b"\n")
    write(path, 1, 2, 3)
    tracemalloc.start()
    assert log_files.last_records(path, every, 2) == [record(2), record(3)]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10 * log_files.BLOCK


def move_aside(path: Path) -> None:
    path.rename(path.parent / "worker.log-1")


def move_down(path: Path) -> None:
    for number in (2, 1):
        old = path.parent / f"worker.log.{number}"
        if old.exists():
            old.rename(path.parent / f"worker.log.{number + 1}")
    path.rename(path.parent / "worker.log.1")


def empty(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize(
    "rotations",
    [[move_aside], [move_down], [move_down, move_down, move_down]],
    ids=["outside", "inside", "several at once"],
)
def test_following_misses_and_doubles_no_line_across_rotations(
    path: Path, rotations: list[Callable[[Path], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = iter(range(100))
    number = 0

    def pause(_: float) -> None:
        """Between two looks: a few lines, a rotation, a few lines, each as often as told; first the file appears."""
        nonlocal number
        for rotate in rotations if next(pauses) else []:
            write(path, number, number + 1)
            number += 2
            rotate(path)
        write(path, number)
        number += 1

    monkeypatch.setattr("workerctl.log_files.time.sleep", pause)
    assert list(islice(log_files.new_records(path, every, 0), 20)) == [record(n) for n in range(20)]


def test_following_goes_on_in_a_file_that_was_emptied_and_waits_for_the_end_of_a_line(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(path, 1, 2)
    steps = iter((lambda: empty(path), lambda: path.write_text('{"message"'), lambda: write_rest(path)))
    monkeypatch.setattr("workerctl.log_files.time.sleep", lambda _: next(steps)())
    assert list(islice(log_files.new_records(path, every, 0), 3)) == [record(1), record(2), record(3)]


def write_rest(path: Path) -> None:
    with path.open("a") as file:
        file.write(':"3"}\n')


def test_further_lines_of_a_record_are_followed_with_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text("2026-01-01 10:00:00.000 a\n more of a\n2026-01-01 10:00:00.000 b\n more of b\n")
    monkeypatch.setattr("workerctl.log_files.time.sleep", lambda _: write(path, 1))
    wanted = islice(log_files.new_records(path, lambda text: not text.endswith("a"), 0), 3)
    assert list(wanted) == ["2026-01-01 10:00:00.000 b", " more of b", record(1)]
