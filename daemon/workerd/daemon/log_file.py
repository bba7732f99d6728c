"""A log file that several processes write: rotated by size by one of them, or from outside; no line is lost or doubled."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import logging
import os
from pathlib import Path
from time import monotonic

from workerd.units import format_duration

MODE = 0o644


class LogFile(logging.Handler):
    """Appends each record with one write, to the file that has the path at that moment.

    Whoever finds the file too large rotates it, under a lock on its directory: `path` becomes `path.1`, and so on up to `keep`.
    The others see that the path leads elsewhere and follow. A record between look and write may end in `path.1`: it is not lost.
    While nothing can be written (a full disk) records are counted, and the first line afterwards tells how many are missing.
    """

    def __init__(self, path: Path, largest: int, keep: int) -> None:
        """`largest` is bytes, 0: never rotated. Raises OSError when the file cannot be opened."""
        super().__init__()
        self._path = path
        self._largest = largest
        self._keep = keep
        self._file: int | None = None
        self._torn = False  # the last write stopped within a line
        self._missing = 0  # records
        self._missing_since = 0.0  # monotonic
        self._open()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)
        except Exception:  # noqa: BLE001 - as logging itself: a mistake in a log call must not end what calls it
            self.handleError(record)
            return
        try:
            if self._missing:
                self._write(self.format(self._notice()))
                self._missing = 0
            self._write(text)
        except OSError:
            self._close()
            if not self._missing:
                self._missing_since = monotonic()
            self._missing += 1

    def reopen(self) -> None:
        """Close the file; the next record opens what then has its path."""
        with self.lock or contextlib.nullcontext():
            self._close()

    def close(self) -> None:
        self.reopen()
        super().close()

    def _write(self, text: str) -> None:
        line = text.encode("utf-8", "backslashreplace") + b"\n"
        file = self._current(len(line))
        if self._torn:
            line = b"\n" + line
        written = os.write(file, line)
        while written < len(line):  # a disk that is almost full took a part of it
            self._torn = True
            written += os.write(file, line[written:])
        self._torn = False

    def _current(self, more: int) -> int:
        """The open file of the path, with room for `more` bytes."""
        while True:
            file = self._file if self._file is not None else self._open()
            try:
                there = self._path.stat()
            except FileNotFoundError:
                there = None
            ours = os.fstat(file)
            if there is None or (there.st_ino, there.st_dev) != (ours.st_ino, ours.st_dev):
                self._close()
                continue
            if (
                not self._largest
                or not ours.st_size
                or ours.st_size + more <= self._largest
                or not self._rotate(file, more)
            ):
                return file

    def _rotate(self, file: int, more: int) -> bool:
        """Whether to look again which file has the path; False while another process rotates it."""
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            there = self._path.stat()
            if there.st_ino == os.fstat(file).st_ino and there.st_size + more > self._largest:
                self._shift(file)
            return True
        except BlockingIOError:
            return False
        except FileNotFoundError:  # it was moved from outside just now
            return True
        finally:
            os.close(folder)

    def _shift(self, file: int) -> None:
        if not self._keep:
            os.ftruncate(file, 0)
            return
        free = next(number for number in itertools.count(1) if not self._old(number).exists())
        for number in range(free - 1, 0, -1):
            if number >= self._keep:
                self._old(number).unlink()
            else:
                self._old(number).rename(self._old(number + 1))
        self._path.rename(self._old(1))

    def _old(self, number: int) -> Path:
        return Path(f"{self._path}.{number}")

    def _open(self) -> int:
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)
        return self._file

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                os.close(file)

    def _notice(self) -> logging.LogRecord:
        text = "%s log records could not be written here in the last %s: the disk was full, or the file not writable"
        lasted = format_duration(monotonic() - self._missing_since)
        return logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, (self._missing, lasted), None)
