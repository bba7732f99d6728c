"""Claimed jobs that wait in this process for a free worker."""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workerd.queue.claim import Claimed


class Backlog:
    """First in, first out; what waits too long, or is cancelled, can be taken out again."""

    def __init__(self, low: asyncio.Event) -> None:
        """`low` is set when half of what was put last has been taken, and again when nothing is left."""
        self._low = low
        self._half = 0
        self._jobs: deque[tuple[float, Claimed]] = deque()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._waking = False  # somebody was woken and has not run yet
        self._closed = False
        self.taken = 0  # jobs that workers have taken until now

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def waiting(self) -> int:
        """Workers that wait for a job."""
        return sum(not turn.done() for turn in self._waiting)

    def put(self, jobs: list[Claimed]) -> None:
        """Add jobs and wake a worker, who wakes the next one when it begins and something is left."""
        now = monotonic()
        self._jobs.extend((now, job) for job in jobs)
        self._half = len(self._jobs) // 2
        self._wake()

    async def get(self) -> Claimed:
        """The oldest job, when there is one."""
        while (job := self.take()) is None:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():  # this wake-up was somebody's job: hand it on
                    self._waking = False
                    self._wake()
                raise
            self._waking = False
        return job

    def take(self) -> Claimed | None:
        """The oldest job, if there is one now."""
        if self._closed or not self._jobs:
            return None
        _, job = self._jobs.popleft()
        self.taken += 1
        left = len(self._jobs)
        if left == self._half or not left:
            self._low.set()
        if left and self._waiting and not self._waking:
            self._wake()
        return job

    def close(self) -> None:
        """Hand out nothing more; what waits can still be taken."""
        self._closed = True

    def clear(self) -> None:
        self._jobs.clear()

    def take_older(self, age: float) -> list[Claimed]:
        """Remove and return the jobs that have waited for `age` seconds."""
        limit = monotonic() - age
        taken = []
        while self._jobs and self._jobs[0][0] <= limit:
            taken.append(self._jobs.popleft()[1])
        return taken

    def take_matching(self, fences: set[tuple[int, int]]) -> list[Claimed]:
        """Remove and return the jobs with these (n, pos)."""
        taken = [job for _, job in self._jobs if (job.n, job.pos) in fences]
        if taken:
            self._jobs = deque(entry for entry in self._jobs if (entry[1].n, entry[1].pos) not in fences)
        return taken

    def _wake(self) -> None:
        """Wake one who waits. It comes to run after the present one: where jobs end at once, most need not be woken at all."""
        while self._jobs and self._waiting and not self._waking:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self._waking = True
