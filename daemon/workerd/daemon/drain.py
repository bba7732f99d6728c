"""The drain: how the work of a daemon comes to its end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workerd.daemon.claimer import Claimer
    from workerd.daemon.departure import Departure
    from workerd.daemon.executor import Executor
    from workerd.daemon.finisher import Finisher
    from workerd.daemon.handover.predecessors import Predecessors
    from workerd.daemon.workers import Workers

CANCEL_LIMIT = 5.0  # seconds that a cancelled handler may take to end when the daemon stops
FLUSH_LIMIT = 10.0  # seconds that the last results may take to be written when the daemon stops

log = logging.getLogger(__name__)


class Drain:
    """Two stops: first no new work, then an end to work; each has its limit."""

    def __init__(
        self,
        departure: Departure,
        predecessors: Predecessors,
        claimer: Claimer,
        workers: Workers,
        executor: Executor,
        finisher: Finisher,
    ) -> None:
        self._departure = departure
        self._predecessors = predecessors
        self._claimer = claimer
        self._workers = workers
        self._executor = executor
        self._finisher = finisher

    async def run(self) -> None:
        """Stop claiming, wait for what runs, then cancel and give it back."""
        log.info("draining: %s jobs run, they have %.0f s", self._workers.busy, self._departure.remaining)
        self._tell_predecessors()
        self._claimer.stop_claiming()
        self._workers.drain()
        await self._departure.wait(self._workers.quiet)
        while await self._executor.until_let_go(self._departure.now):  # somebody thinks: that is no time of the jobs
            self._departure.renew()
            await self._departure.wait(self._workers.quiet)
        if not self._workers.quiet.is_set():
            await self._give_back()
        for end in self._executor.abandon():
            log.error("job %s %s does not end although it is cancelled: it is given back", end.job.id, end.job.task)
            self._finisher.add(end)

    async def settle(self, claiming: asyncio.Task[None]) -> None:
        """Let the claimer write what ended; where the database stays away, leave it to rescue."""
        self._claimer.close()
        done, _ = await asyncio.wait([claiming], timeout=FLUSH_LIMIT)
        if not done:
            log.error(
                "the database did not take the last results within %.0f s: those jobs will be rescued and run again",
                FLUSH_LIMIT,
            )
            claiming.cancel()

    async def _give_back(self) -> None:
        log.warning("%s jobs still run: they are cancelled and given back", self._workers.busy)
        self._tell_predecessors()
        for run in list(self._executor.running):
            run.halt("returned")
        quiet = asyncio.ensure_future(self._workers.quiet.wait())
        await asyncio.wait([quiet], timeout=CANCEL_LIMIT)
        quiet.cancel()

    def _tell_predecessors(self) -> None:
        """Who still drains after a hand-over has no more time than we have."""
        if self._departure.remaining:
            self._predecessors.order(drain=self._departure.remaining)
        else:
            self._predecessors.order(now=True)
