"""What a child, and the programs that it starts, write to standard output and error."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
from typing import Any

LONGEST = 8000  # characters of a line
LAST_WORDS = 4000  # characters
READ = 65536  # bytes at a time

log = logging.getLogger("workerd.child")


class Output:
    """Makes a line of the log of each line that comes out of a pipe; `last_words` is the end of it."""

    def __init__(self, pipe: int, pid: int) -> None:
        """Takes the pipe over: it is closed at its end."""
        os.set_blocking(pipe, False)
        self._pipe: int | None = pipe
        self._pid = pid
        self._rest = ""
        self.last_words = ""
        self.about: dict[str, Any] = {}  # the job that its lines are about
        self._loop = asyncio.get_running_loop()
        contextvars.Context().run(self._loop.add_reader, pipe, self._read)  # not the context of the first job

    def close(self) -> None:
        """Take in what is there, and read no more."""
        for _ in range(64):
            if not self._read():
                break
        self._end()

    def _read(self) -> bool:
        """Whether there may be more."""
        if self._pipe is None:
            return False
        try:
            data = os.read(self._pipe, READ)
        except OSError:
            return False
        if not data:
            self._end()
            return False
        text = data.decode(errors="backslashreplace")
        self.last_words = (self.last_words + text)[-LAST_WORDS:]
        *lines, self._rest = (self._rest + text).split("\n")
        if len(self._rest) > LONGEST:
            lines, self._rest = [*lines, self._rest], ""
        for line in lines:
            self._log(line)
        return True

    def _end(self) -> None:
        if self._pipe is not None:
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = None
            if self._rest:
                self._log(self._rest)

    def _log(self, line: str) -> None:
        log.info("%s", line[:LONGEST], extra={**self.about, "child": self._pid})
