"""`workerctl` on a terminal, as a person has it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support import Ctl

LIMIT = 30.0
COLOUR = re.compile(r"\x1b\[[\d;]*m")


class Terminal:
    """A terminal of 80 columns; the command is in its foreground, and Ctrl-C reaches it."""

    def __init__(self, ctl: Ctl, *words: str, **more: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
        environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "workerctl", *words],
            cwd=ctl.directory,
            pass_fds=[slave],
            preexec_fn=lambda: os.login_tty(slave),
            env={**environment, **ctl.environment, "TERM": "xterm-256color", **more},
        )
        os.close(slave)
        self.shown = ""

    def until(self, text: str) -> str:
        """What was shown when the text had come, without colours."""
        return self._read(lambda: text in COLOUR.sub("", self.shown))

    def again(self, text: str) -> str:
        """The same, of what is shown from now on."""
        self.shown = ""
        return self.until(text)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def to_the_end(self) -> str:
        return self._read(lambda: False)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def _read(self, enough: object) -> str:
        assert callable(enough)
        limit = time.monotonic() + LIMIT
        while not enough():
            ready, _, _ = select.select([self._master], [], [], limit - time.monotonic())
            assert ready, f"not shown in time; shown was: {self.shown}"
            try:
                data = os.read(self._master, 65536)
            except OSError:  # the program has ended
                break
            self.shown += data.decode()
        return COLOUR.sub("", self.shown).replace("\r\n", "\n")
