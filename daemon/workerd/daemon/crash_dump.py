"""The crash dump: where all threads stand, in the journal or the log of errors, also when no Python code can run any more."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
from typing import TYPE_CHECKING

from workerd.daemon import journal

if TYPE_CHECKING:
    from pathlib import Path

_fd: int | None = None
_path: Path | None = None  # None: the journal


def install(path: Path) -> None:
    """Write when the process dies by SIGABRT, as systemd's watchdog ends it, or by a crash in C code.

    `path`: the log of errors, for where standard error is not the journal.
    """
    global _fd, _path
    if journal.reads(sys.stderr):
        _fd = sys.stderr.fileno()
    else:
        _fd, _path = _open(path), path
    faulthandler.enable(_fd)


def arm() -> None:
    """Write at SIGUSR1 too, before the handler that is there by now, which has to wait for the loop."""
    if _fd is not None:
        faulthandler.register(signal.SIGUSR1, _fd, all_threads=True, chain=True)


def disarm() -> None:
    """Leave SIGUSR1 to that handler again."""
    faulthandler.unregister(signal.SIGUSR1)


def expect(seconds: float) -> None:
    """End the process, with all stacks written, unless this is called again within so many seconds, or `expect_no_more`.

    A thread that runs no Python code counts them: it also sees a call into C that holds the interpreter, which no thread of ours can.
    """
    if _fd is not None:
        with contextlib.suppress(RuntimeError):  # no further thread can be started just now
            faulthandler.dump_traceback_later(seconds, exit=True, file=_fd)


def expect_no_more() -> None:
    faulthandler.cancel_dump_traceback_later()


def dump() -> None:
    """Write now."""
    if _fd is not None:
        faulthandler.dump_traceback(_fd, all_threads=True)


def follow() -> None:
    """Go on in the file that has the path now, after a rotation; to be called once in a while."""
    if _fd is None or _path is None or not _path.parent.exists():
        return
    ours = os.fstat(_fd)
    there = _path.stat() if _path.exists() else None
    if there is None or (there.st_ino, there.st_dev) != (ours.st_ino, ours.st_dev):
        new = _open(_path)
        os.dup2(new, _fd, inheritable=False)  # the number that the handlers know
        os.close(new)


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
