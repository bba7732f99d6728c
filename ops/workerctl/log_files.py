"""Reading log files: the last records without reading the whole, across rotated files, and new ones as they are written."""

from __future__ import annotations

import os
import re
import time
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from io import BufferedReader

BLOCK = 1 << 18  # bytes read at a time from the end
POLL = 0.2  # seconds between two looks at a file that is followed

BEGINS = re.compile(r"\{|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")  # further lines of a record are those of a traceback


def last_records(path: Path, wanted: Callable[[str], bool], most: int) -> list[str]:
    """The newest records that are wanted, oldest first; a record is a line, or several for people. Old files are read as far as needed."""
    found: list[str] = []
    if not most:
        return found
    for file in _newest_first(path):
        for record in _backwards(file):
            if wanted(record):
                found.append(record)
                if len(found) == most:
                    return found[::-1]
    return found[::-1]


def new_records(path: Path, wanted: Callable[[str], bool], position: int) -> Iterator[str]:
    """Lines as they are written, for ever, from a position in the file on; across rotations of any kind, and before there is a file."""
    took = False  # the last record that began was wanted: what continues it is as well
    for line in _new_lines(path, position):
        took = wanted(line) if BEGINS.match(line) else took
        if took:
            yield line


def _newest_first(path: Path) -> Iterator[Path]:
    if path.exists():
        yield path
    for number in count(1):
        old = Path(f"{path}.{number}")
        if not old.exists():
            return
        yield old


def _backwards(path: Path) -> Iterator[str]:
    """The records of a file, the last one first."""
    rest: list[str] = []
    for line in _lines_backwards(path):
        rest.append(line)
        if BEGINS.match(line):
            yield "\n".join(reversed(rest))
            rest = []
    if rest:
        yield "\n".join(reversed(rest))


def _lines_backwards(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        head = b""
        first = True
        while position:
            size = min(BLOCK, position)
            position -= size
            file.seek(position)
            head, *lines = (file.read(size) + head).split(b"\n")
            if first and lines and not lines[-1]:
                lines.pop()  # the file ends with a newline
            first = False
            for line in reversed(lines):
                yield line.decode("utf-8", "replace")
        if head:
            yield head.decode("utf-8", "replace")


def _new_lines(path: Path, position: int) -> Iterator[str]:
    file: BufferedReader | None = None
    rest = b""
    while True:
        if file is None and path.exists():
            file = path.open("rb")
            file.seek(min(position, os.fstat(file.fileno()).st_size))
            position = 0
        if file is not None:
            rest = yield from _whole_lines(file, rest)
            later = _later_files(path, file)
            if later is not None:
                rest = yield from _whole_lines(file, rest)
                for each in later:
                    with each.open("rb") as old:
                        rest = yield from _whole_lines(old, rest)
                file.close()
                file = None
                continue
            if os.fstat(file.fileno()).st_size < file.tell():  # it was emptied
                file.seek(0)
                continue
        time.sleep(POLL)


def _whole_lines(file: BufferedReader, rest: bytes) -> Generator[str, None, bytes]:
    """What can be read, line by line; returns what has no end yet."""
    *lines, rest = (rest + file.read()).split(b"\n")
    for line in lines:
        yield line.decode("utf-8", "replace")
    return rest


def _later_files(path: Path, file: BufferedReader) -> list[Path] | None:
    """When the path leads elsewhere by now: the files that were rotated after this one, oldest first. None: it is still this one."""
    mine = os.fstat(file.fileno()).st_ino
    files = []
    for each in _newest_first(path):
        if each.stat().st_ino == mine:
            break
        files.append(each)
    else:
        if not path.exists():
            return None  # it was moved away, a new one comes
        files = [path]  # it was moved elsewhere
    return [each for each in reversed(files) if each != path] if files else None
