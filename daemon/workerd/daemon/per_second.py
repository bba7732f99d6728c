"""How much happens in a second."""

from __future__ import annotations

from time import monotonic


class PerSecond:
    """Counts within the current second of the clock."""

    def __init__(self) -> None:
        self._second = 0
        self._count = 0

    def add(self, count: int = 1) -> int:
        """How many there have been in this second, with these."""
        now = int(monotonic())
        if now != self._second:
            self._second, self._count = now, 0
        self._count += count
        return self._count
