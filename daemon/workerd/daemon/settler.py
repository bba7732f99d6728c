"""The settler: keeps what this node holds by its own account and by the database's the same, and gives back what does not start here."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workerd.daemon.backlog import Backlog
    from workerd.daemon.executor import Executor
    from workerd.daemon.holdings import Holdings
    from workerd.daemon.transport.base import Session
    from workerd.queue.claim import Claimed

log = logging.getLogger(__name__)


class Settler:
    """Works in the claimer's session. `ttl`: seconds to keep a job that turns out to be cancelled."""

    def __init__(self, holdings: Holdings, backlog: Backlog, executor: Executor, ttl: float) -> None:
        self._holdings = holdings
        self._backlog = backlog
        self._executor = executor
        self._ttl = ttl

    async def settle(self, session: Session) -> None:
        """Give back what the database says that this node holds and it does not know, and stop what is to be cancelled."""
        node = self._holdings.node
        for lease in await session.leases(node):
            if node != self._holdings.node:
                return  # declared dead meanwhile
            unknown = lease.tickets - self._holdings.tickets(lease.n)
            if unknown:
                log.warning("giving back %s jobs of a claim whose answer was lost", len(unknown))
                await session.give_back(node, lease.n, sorted(unknown), self._ttl)
            for run in list(self._executor.running):
                if run.claimed.node == node and run.claimed.pos in lease.cancel:
                    run.halt("cancelled")
            await self._return(session, self._backlog.take_matching({(lease.n, pos) for pos in lease.cancel}))

    async def give_back_older(self, session: Session, age: float) -> bool:
        """Give back what has waited for a worker for so many seconds; whether there was any."""
        late = self._backlog.take_older(age)
        await self._return(session, late)
        return bool(late)

    async def _return(self, session: Session, jobs: list[Claimed]) -> None:
        """Give back jobs that did not start. Should this fail, the next settling does it: they are not held any more."""
        for job in jobs:
            self._holdings.release(job)
        for n in sorted({job.n for job in jobs}):
            await session.give_back(self._holdings.node, n, [job.pos for job in jobs if job.n == n], self._ttl)
