"""What handlers print."""

from __future__ import annotations

import io
import logging

from workerd.daemon import own_log

LONGEST = 8000  # characters that wait for the end of their line


class LogLines(io.TextIOBase):
    """What handlers print, as records of the log, one a line: a daemon in the background has no other place for it.

    They go to no handler of the application: one that prints would print them again. What such a handler prints is in the log already.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._rest = ""

    def write(self, text: str) -> int:
        if own_log.is_shown():
            return len(text)
        *lines, self._rest = (self._rest + text).split("\n")
        if len(self._rest) > LONGEST:
            lines, self._rest = [*lines, self._rest], ""
        for line in lines:
            own_log.write(logging.LogRecord(self._name, logging.INFO, "", 0, "%s", (line,), None))
        return len(text)
