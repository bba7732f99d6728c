"""The lines that one attempt logs with `job.log`, until they are in the database; bounded."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from time import monotonic

MAX_LINES = 1000  # of one attempt
MAX_CHARACTERS = 64_000  # of one attempt
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


@dataclass(frozen=True, slots=True)
class Line:
    """`number` counts from 1 within the attempt; `at` is monotonic seconds."""

    number: int
    at: float
    level: str
    message: str


@dataclass(slots=True)
class JobLines:
    """`pending` is what is not known to be written; writing a line twice changes nothing."""

    pending: list[Line] = field(default_factory=list)
    _count: int = 0
    _characters: int = 0
    _full: bool = False

    def add(self, level: str, message: str) -> int | None:
        """Keep a line and return its number; None when there is no room. The last line kept then says so."""
        if self._full:
            return None
        self._characters += len(message)
        if self._count >= MAX_LINES - 1 or self._characters > MAX_CHARACTERS:
            self._full = True
            self._append("warning", "further lines of this attempt are in the daemon's log only")
            return None
        return self._append(level, message)

    def written(self, lines: list[Line]) -> None:
        """These are in the database."""
        done = {line.number for line in lines}
        self.pending = [line for line in self.pending if line.number not in done]

    def _append(self, level: str, message: str) -> int:
        self._count += 1
        self.pending.append(Line(self._count, monotonic(), level, message))
        return self._count
