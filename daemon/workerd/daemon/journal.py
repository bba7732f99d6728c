"""What systemd's journal is told beside the text of a line: how grave it is."""

from __future__ import annotations

import logging
import os
from typing import TextIO

_GRADES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))  # sd-daemon(3)


def reads(stream: TextIO) -> bool:
    """Whether what is written there goes into the journal."""
    try:
        there = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{there.st_dev}:{there.st_ino}"


class Graded(logging.Formatter):
    """Puts the priority before every line, where the journal takes it off: `journalctl -p warning` finds it."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        grade = next((number for level, number in _GRADES if record.levelno >= level), 7)
        return "\n".join(f"<{grade}>{line}" for line in self._inner.format(record).split("\n"))
