"""The claimer: claims, finishes and listens for this node, in the one session of its link."""

from __future__ import annotations

import asyncio
import logging
import math
from time import monotonic
from typing import TYPE_CHECKING

from workerd.daemon.appetite import Appetite
from workerd.daemon.prefetch import room
from workerd.daemon.settler import Settler
from workerd.errors import LaneLocked, NodeDead
from workerd.queue.claim import MAX_BATCH, Wanted

if TYPE_CHECKING:
    from collections.abc import Callable

    from workerd.config import Settings
    from workerd.daemon.audience import Audience
    from workerd.daemon.backlog import Backlog
    from workerd.daemon.counters import Counters
    from workerd.daemon.executor import Executor
    from workerd.daemon.finisher import Finisher
    from workerd.daemon.holdings import Holdings
    from workerd.daemon.link import Link
    from workerd.daemon.orders import Orders
    from workerd.daemon.transport.base import Session
    from workerd.daemon.workers import Workers
    from workerd.queue.finish import Finished

IDLE_TOO_LONG = 1.0  # seconds that a claimed job may wait here for a worker before it goes back
TALLY_INTERVAL = 1.0  # seconds between two writes of the counters, at most

log = logging.getLogger(__name__)


class Claimer:
    """Turns: write what ended, settle what is held, claim what there is room for, rest."""

    def __init__(
        self,
        link: Link,
        settings: Settings,
        tasks: list[str],
        holdings: Holdings,
        backlog: Backlog,
        workers: Workers,
        executor: Executor,
        finisher: Finisher,
        wake: asyncio.Event,
        on_dead: Callable[[], None],
        orders: Orders,
        audience: Audience,
        counters: Counters,
    ) -> None:
        self.link = link
        self._settings = settings
        self._tasks = tasks
        self._holdings = holdings
        self._backlog = backlog
        self._workers = workers
        self._settler = Settler(holdings, backlog, executor, settings.failure_ttl)
        self._finisher = finisher
        self._wake = wake
        self._on_dead = on_dead  # the database says that this node was declared dead
        self._orders = orders
        self._audience = audience
        self._counters = counters
        self._appetite = Appetite()
        self._accepting = True
        self._closing = False
        self._settle_at = 0.0
        self._tally_at = 0.0
        self._last_chance = max(1, settings.max_crashes - 1)

    async def run(self, first: Session) -> None:
        """Run until closed and everything that ended is written; survives the loss of its session."""
        await self.link.keep(first, self._serve, lambda: self._finished)

    @property
    def _finished(self) -> bool:
        return self._closing and not len(self._finisher) and not len(self._backlog)

    def stop_claiming(self) -> None:
        """Claim nothing more and give back what has not started."""
        self._accepting = False
        self._backlog.close()
        self._settle_at = 0.0
        self._wake.set()

    def begin_anew(self) -> None:
        """The node has a new id: nothing is held any more."""
        self._appetite.rouse()
        self._settle_at = 0.0
        self._wake.set()

    def close(self) -> None:
        """End `run` when everything that ended is written."""
        self._closing = True
        self._wake.set()

    async def _serve(self, session: Session) -> None:
        await session.listen(self._notified, self._wake.set)
        self._appetite.begin_anew()
        self._settle_at = 0.0
        while not self._finished:
            self._wake.clear()
            self.link.asked_at = monotonic()
            more = await self._turn(session)
            if self.link.answered():
                await self.link.welcome(session)
            if not more:
                await self._rest(session)
        self.link.rests_until = math.inf
        await asyncio.sleep(0)  # the last ends are counted
        await self._write_tallies(session)

    async def _turn(self, session: Session) -> bool:
        """One turn; whether there is more to do at once."""
        now = monotonic()
        if now >= self._settle_at:
            await self._settle(session)
        if now >= self._tally_at:
            await self._write_tallies(session)
        if len(self._backlog):
            await self._give_back_waiting(session)
        if self._free:
            self._appetite.worker_is_free()
        batch = self._room if self._accepting and self._appetite and now >= self._appetite.claim_at else 0
        if len(self._finisher) and (batch or self._flush_due):
            await self._write(session, good=False)
        if batch:
            return await self._cycle(session, batch) or self._flush_due
        if self._flush_due:
            await self._write(session, good=True)
        return self._flush_due

    @property
    def _flush_due(self) -> bool:
        """Whether to write now what ended: with other work at hand a little later, so that fewer and larger batches are written."""
        if not len(self._finisher):
            return False
        return not len(self._backlog) or self._closing or monotonic() >= self._finisher.due_at

    @property
    def _room(self) -> int:
        """How many jobs to claim now."""
        return room(
            self._workers.capacity,
            self._workers.busy,
            len(self._backlog),
            self._workers.mean_run,
            self._settings.claim_batch or MAX_BATCH,
        )

    async def _write(self, session: Session, *, good: bool) -> None:
        """Write what ended and claim nothing."""
        batch = self._finisher.take(good=good)
        if not batch:
            return
        try:
            held = await session.write(self._holdings.node, batch)
        except BaseException:
            self._finisher.restore(batch)
            raise
        self._ended(batch, held)

    async def _cycle(self, session: Session, batch: int) -> bool:
        """Write successes and claim in one round trip; whether another claim makes sense at once."""
        node, n = self._holdings.new_lease()
        free = self._free
        targets, told = self._appetite.begin()
        wanted = Wanted(
            n, targets, batch, self._tasks, free, not self._holdings.endangers, self._last_chance, rest=True
        )
        ended = self._finisher.take(good=True)
        began = monotonic()
        try:
            held, answer = await session.cycle(node, ended, wanted)
        except BaseException as error:
            self._finisher.restore(ended)
            if not isinstance(error, (NodeDead, LaneLocked)):
                self._appetite.rouse()
                raise
            await self._refused(session, error)
            return False
        if ended:  # counted while the next cycle is under way
            asyncio.get_running_loop().call_soon(self._ended, ended, held)
        took = monotonic() - began
        if node == self._holdings.node:  # else it was declared dead meanwhile: these jobs are somebody else's
            if answer.jobs:
                self._counters.claims(len(answer.jobs))
            self._holdings.keep(answer.jobs)
            self._backlog.put(answer.jobs)
            if len(answer.jobs) < batch:
                await asyncio.sleep(0)  # there is time to begin these, and perhaps to end them, before the next cycle
        self._appetite.learn(answer, took, free=free, told=told)
        return bool(self._appetite)

    async def _refused(self, session: Session, error: NodeDead | LaneLocked) -> None:
        """A cycle wrote nothing, for the node was declared dead or the lane stays locked."""
        if isinstance(error, NodeDead):
            self._appetite.dead()
            self._on_dead()
        else:
            log.warning("a lane is locked by another session: what ends is written, nothing is claimed meanwhile")
            self._appetite.locked()
            await self._write(session, good=True)

    def _ended(self, batch: list[Finished], held: list[bool]) -> None:
        self._finisher.settle(batch, held)
        for end in batch:
            self._holdings.release(end.job)
            if end.job.crashes >= self._last_chance:  # claims passed over others of its kind
                self._appetite.rouse_to_sweep()
                self._wake.set()

    @property
    def _free(self) -> bool:
        """Whether a worker waits for whom no job is claimed yet: jobs with a crash are not claimed ahead."""
        return self._workers.idle > len(self._backlog)

    async def _settle(self, session: Session) -> None:
        """Look which lanes there are, settle what is held, and carry out orders to this node."""
        self._settle_at = monotonic() + self._settings.heartbeat_interval
        node = self._holdings.node
        self._appetite.set_lanes(await session.lanes(node, self._settings.queues, self._settings.node))
        await self._settler.settle(session)
        await self._orders.carry_out(session, self._holdings.node)

    async def _give_back_waiting(self, session: Session) -> None:
        late = await self._settler.give_back_older(session, IDLE_TOO_LONG if self._accepting else 0.0)
        if late and self._accepting:
            self._workers.mean_run = max(self._workers.mean_run or 0.0, IDLE_TOO_LONG)

    async def _write_tallies(self, session: Session) -> None:
        self._tally_at = monotonic() + TALLY_INTERVAL
        tallies = self._finisher.take_tallies()
        if tallies:
            try:
                await session.tally(self._holdings.node, tallies)
            except BaseException:
                self._finisher.restore_tallies(tallies)
                raise
            self._finisher.add_up(tallies)

    async def _rest(self, session: Session) -> None:
        """Sleep until something happens, or until it is time to look again: nothing depends on notifications."""
        now = monotonic()
        look_at = math.inf  # without room nothing is claimed: an end or a scaling wakes us
        if self._accepting and self._room:
            look_at = self._appetite.look_at
        until = [self._settle_at, look_at]
        if self._finisher.has_tallies:
            until.append(self._tally_at)
        if len(self._backlog):
            until.append(now + IDLE_TOO_LONG / 2)
        if len(self._finisher):
            until.append(self._finisher.due_at)
        if self._appetite.claim_at > now:
            until.append(self._appetite.claim_at)
        self.link.rests_until = min(until)
        alarm = asyncio.get_running_loop().call_later(max(0.0, self.link.rests_until - now), self._wake.set)
        await self._wake.wait()
        alarm.cancel()
        if monotonic() >= look_at:
            self._appetite.looked(self._settings.poll_interval)
        if session.is_closed:
            raise ConnectionError("the connection was closed")

    def _notified(self, text: str) -> None:
        match text.split():
            case ["look"]:  # what was said meanwhile was not heard
                self._appetite.rouse_to_sweep()
                self._settle_at = 0.0
            case ["ready"]:
                self._appetite.hear_of_jobs()
            case ["rewind", lane, pos]:
                self._appetite.hear_of_rewind(int(lane), int(pos))
            case ["lanes"]:
                self._settle_at = 0.0
            case ["cancel" | "order", node] if int(node) == self._holdings.node:
                self._settle_at = 0.0
            case ["watched"]:
                self._audience.looks()
                return
            case _:
                return
        self._wake.set()
