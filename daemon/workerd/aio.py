"""Small tools over asyncio."""

from __future__ import annotations

LEAST = 0.1  # seconds: the first pause that is one


class Backoff:
    """Pauses before further tries: the first one as given, each later one twice as long, up to a limit. Times are in seconds."""

    def __init__(self, most: float, first: float = 0.0) -> None:
        self._most = most
        self._first = first
        self.pause = first

    def next(self, most: float | None = None) -> float:
        """The pause after a failure. `most` limits the one after it, in place of the usual limit."""
        pause = self.pause
        self.pause = min(max(pause * 2, LEAST), self._most if most is None else most)
        return pause

    def reset(self) -> None:
        """Begin again with the first pause, after a success."""
        self.pause = self._first
