"""The PID file: its lock, not its existence, says that a daemon of this name runs.

The lock belongs to the open file, which a hand-over passes on: at no moment is it free.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from workerd.errors import AlreadyRunning, ConfigError

if TYPE_CHECKING:
    from pathlib import Path


class PidFile:
    """Held by the daemon from start to exit; the kernel frees the lock however the process ends."""

    def __init__(self, path: Path, held: int | None = None) -> None:
        """`held`: the open file whose lock a predecessor holds, to be taken over by `write`."""
        self._path = path
        self._fd = held
        self._ours = False  # whether the file names us
        if held is not None:
            os.set_inheritable(held, False)

    def fileno(self) -> int:
        assert self._fd is not None
        return self._fd

    def acquire(self) -> None:
        """Lock the file and write our PID. Raises AlreadyRunning, or ConfigError when the file cannot be written."""
        while self._fd is None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise ConfigError(
                    f"the PID file {self._path} cannot be written: {error.strerror} (set RUNTIME_DIR to a writable directory)"
                ) from error
            if self._lock(fd):
                self._fd = fd
                self.write()
            else:
                os.close(fd)

    def write(self) -> None:
        """Say in it that we are the daemon."""
        text = f"{os.getpid()}\n".encode()
        os.pwrite(self.fileno(), text, 0)  # no reader finds it empty
        os.ftruncate(self.fileno(), len(text))
        self._ours = True

    def _lock(self, fd: int) -> bool:
        """Whether the lock is ours; False: try again. Raises AlreadyRunning."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return False  # somebody only looks who the owner is
            except BlockingIOError:
                pid = os.read(fd, 32).decode(errors="replace").strip()
                os.close(fd)
                raise AlreadyRunning(f"a daemon runs already with PID {pid or 'unknown'} ({self._path})") from None
        try:
            return os.path.samestat(os.fstat(fd), self._path.stat())
        except FileNotFoundError:
            return False  # its owner has removed it on leaving

    def release(self) -> None:
        """Remove the file, if it names us, while its lock is held, then free the lock."""
        if self._fd is not None and self._ours:
            self._path.unlink(missing_ok=True)
        self.hand_on()

    def hand_on(self) -> None:
        """The lock and the file are another process's from now on."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def owner(path: Path) -> int | None:
    """The PID of the daemon that holds the file; None when nobody does, whatever the file says."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(fd, 32).decode().strip()
        return int(text) if text.isdigit() else None
    finally:
        os.close(fd)
    return None
