"""How long this process was kept from running: by SIGSTOP, a closed lid, a host that pauses its machines."""

from __future__ import annotations

from time import CLOCK_BOOTTIME, clock_gettime


class Clock:
    """Counts the time of the world, which goes on while the machine sleeps; the monotonic one does not."""

    def __init__(self) -> None:
        self._looked_at = clock_gettime(CLOCK_BOOTTIME)

    def elapsed(self) -> float:
        """Seconds since it was asked last."""
        now = clock_gettime(CLOCK_BOOTTIME)
        elapsed, self._looked_at = now - self._looked_at, now
        return elapsed
