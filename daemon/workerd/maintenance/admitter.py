"""The admitter: lets jobs into the ready table when those that they wait for have ended, or when it is their turn under a limit."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from workerd.queue import admit, stage
from workerd.queue.claim import BEGINNING

if TYPE_CHECKING:
    from collections.abc import Callable

    from workerd.config import Settings
    from workerd.queue.admit import Admitted, Waiting
    from workerd.queue.database import Connection

ROUND = 0.25  # seconds at most between two looks: nothing depends on notifications
PAUSE = 0.005  # seconds between two admissions while jobs flow
WINDOWS = 20  # parts of lanes that are looked through at once for jobs that came before their limit
SECOND_SWEEP = 2.0  # seconds after which those are looked for again: enqueues may have been under way
MOST_AHEAD = 5000


class Admitter:
    """Runs on the leader's connection; made anew with each.

    Only as many limited jobs are let in as start soon, so that the next one of another line does not wait behind them: few while jobs are
    long, more while they start as fast as they come.
    """

    def __init__(self, settings: Settings, node: Callable[[], int]) -> None:
        self._node = node
        self._ttl = settings.failure_ttl
        self._asleep = False
        self._ahead = 0
        self._patience = PAUSE
        self._limited: tuple[list[str], list[int]] = [], []
        self._sweep: list[tuple[int, int]] = []  # lanes to look through, each from a ticket on
        self._sweep_again_at = 0.0

    async def run_once(self, connection: Connection) -> float:
        """Let in whoever may; returns the seconds until the next time, unless a notification comes before."""
        if self._asleep:
            await admit.rise(connection)
            self._asleep = False
        wait = await self._turn(connection)
        if wait > PAUSE:
            await admit.sleep(connection)
            self._asleep = True
            wait = await self._turn(connection)  # what came before the lock was there to be seen
        return wait

    async def _turn(self, connection: Connection) -> float:
        waiting = await admit.look(connection)
        await self._hold_back(connection, waiting)
        if waiting.children and await admit.settle(connection, self._node(), self._ttl):
            await stage.stage(connection)
            return 0.0
        wait = 0.0 if self._sweep else ROUND
        if waiting.lines:
            wait = min(
                wait, self._paced(waiting.workers, await admit.admit(connection, max(self._ahead, waiting.workers, 1)))
            )
        return wait

    def _paced(self, workers: int, done: Admitted) -> float:
        """How long to wait after an admission; how many to let in ahead follows how fast they start."""
        before = done.queued - done.admitted
        if done.admitted and not before:
            self._ahead = min(max(self._ahead, workers, 1) * 2, MOST_AHEAD)
        elif before > self._ahead // 2:
            self._ahead = max(self._ahead * 3 // 4, workers)
        if done.admitted:
            self._patience = PAUSE
            return PAUSE
        if done.queued:  # a start is told to nobody
            self._patience = min(self._patience * 2, ROUND)
            return self._patience
        return min(ROUND, max(done.next_in, PAUSE)) if done.next_in is not None else ROUND

    async def _hold_back(self, connection: Connection, waiting: Waiting) -> None:
        """Where a limit is new the jobs that are queued already go into its lines."""
        limited = waiting.tasks, waiting.lanes
        if limited != self._limited or 0 < self._sweep_again_at <= monotonic():
            self._sweep_again_at = monotonic() + SECOND_SWEEP if limited != self._limited else 0.0
            self._limited = limited
            lanes = await admit.lane_ids(connection) if waiting.tasks else waiting.lanes
            self._sweep = [(lane, BEGINNING) for lane in lanes]
        for _ in range(min(WINDOWS, len(self._sweep))):
            lane, since = self._sweep.pop()
            until = await admit.hold_back(connection, lane, since)
            if until is not None:
                self._sweep.append((lane, until))
