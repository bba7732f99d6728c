"""The claimer: claims, finishes and listens for this node, on the one connection of its link."""

from __future__ import annotations

import asyncio
import logging
import math
from time import monotonic
from typing import TYPE_CHECKING, Any

import asyncpg

from workerd.daemon.appetite import Appetite
from workerd.daemon.finisher import write
from workerd.daemon.prefetch import room
from workerd.daemon.settler import Settler
from workerd.errors import NodeDead
from workerd.queue import tally
from workerd.queue.claim import MAX_BATCH, Wanted
from workerd.queue.cycle import cycle
from workerd.queue.lane import lanes

if TYPE_CHECKING:
    from collections.abc import Callable

    from workerd.config import Settings
    from workerd.daemon.backlog import Backlog
    from workerd.daemon.executor import Executor
    from workerd.daemon.finisher import Finisher
    from workerd.daemon.holdings import Holdings
    from workerd.daemon.link import Link
    from workerd.daemon.orders import Orders
    from workerd.daemon.workers import Workers
    from workerd.queue.database import Connection
    from workerd.queue.finish import Finished

IDLE_TOO_LONG = 1.0  # seconds that a claimed job may wait here for a worker before it goes back
TALLY_INTERVAL = 1.0  # seconds between two writes of the counters, at most

log = logging.getLogger(__name__)


class Claimer:
    """Turns: write what ended, settle what is held, claim what there is room for, rest."""

    def __init__(
        self, link: Link, settings: Settings, tasks: list[str], holdings: Holdings, backlog: Backlog, workers: Workers,
        executor: Executor, finisher: Finisher, wake: asyncio.Event, on_dead: Callable[[], None], orders: Orders,
    ) -> None:  # fmt: skip
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
        self._appetite = Appetite()
        self._accepting = True
        self._closing = False
        self._settle_at = 0.0
        self._tally_at = 0.0
        self._last_chance = max(1, settings.max_crashes - 1)

    async def run(self, first: Connection) -> None:
        """Run until closed and everything that ended is written; survives the loss of its connection."""
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

    async def _serve(self, connection: Connection) -> None:
        await connection.add_listener("workerd", self._notified)
        connection.add_termination_listener(lambda _: self._wake.set())
        self._appetite.begin_anew()
        self._settle_at = 0.0
        while not self._finished:
            self._wake.clear()
            self.link.asked_at = monotonic()
            more = await self._turn(connection)
            if self.link.answered():
                await self.link.welcome(connection)
            if not more:
                await self._rest(connection)
        self.link.rests_until = math.inf
        await asyncio.sleep(0)  # the last ends are counted
        await self._write_tallies(connection)

    async def _turn(self, connection: Connection) -> bool:
        """One turn; whether there is more to do at once."""
        now = monotonic()
        if now >= self._settle_at:
            await self._settle(connection)
        if now >= self._tally_at:
            await self._write_tallies(connection)
        if len(self._backlog):
            await self._give_back_waiting(connection)
        if self._free:
            self._appetite.worker_is_free()
        batch = self._room if self._accepting and self._appetite and now >= self._appetite.claim_at else 0
        if len(self._finisher) and (batch or self._flush_due):
            await self._write(connection, good=False)
        if batch:
            return await self._cycle(connection, batch) or self._flush_due
        if self._flush_due:
            await self._write(connection, good=True)
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

    async def _write(self, connection: Connection, *, good: bool) -> None:
        """Write what ended and claim nothing."""
        batch = self._finisher.take(good=good)
        if not batch:
            return
        try:
            held = await write(connection, self._holdings.node, batch)
        except BaseException:
            self._finisher.restore(batch)
            raise
        self._ended(batch, held)

    async def _cycle(self, connection: Connection, batch: int) -> bool:
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
            held, answer = await cycle(connection, node, ended, wanted)
        except BaseException as error:
            self._finisher.restore(ended)
            if not isinstance(error, (NodeDead, asyncpg.LockNotAvailableError)):
                self._appetite.rouse()
                raise
            await self._refused(connection, error)
            return False
        if ended:  # counted while the next cycle is under way
            asyncio.get_running_loop().call_soon(self._ended, ended, held)
        took = monotonic() - began
        if node == self._holdings.node:  # else it was declared dead meanwhile: these jobs are somebody else's
            self._holdings.keep(answer.jobs)
            self._backlog.put(answer.jobs)
            if len(answer.jobs) < batch:
                await asyncio.sleep(0)  # there is time to begin these, and perhaps to end them, before the next cycle
        self._appetite.learn(answer, took, free=free, told=told)
        return bool(self._appetite)

    async def _refused(self, connection: Connection, error: NodeDead | asyncpg.LockNotAvailableError) -> None:
        """A cycle wrote nothing, for the node was declared dead or the lane stays locked."""
        if isinstance(error, NodeDead):
            self._appetite.dead()
            self._on_dead()
        else:
            log.warning("a lane is locked by another session: what ends is written, nothing is claimed meanwhile")
            self._appetite.locked()
            await self._write(connection, good=True)

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

    async def _settle(self, connection: Connection) -> None:
        """Look which lanes there are, settle what is held, and carry out orders to this node."""
        self._settle_at = monotonic() + self._settings.heartbeat_interval
        self._appetite.set_lanes(await lanes(connection, self._settings.queues, self._settings.node))
        await self._settler.settle(connection)
        await self._orders.carry_out(connection, self._holdings.node)

    async def _give_back_waiting(self, connection: Connection) -> None:
        late = await self._settler.give_back_older(connection, IDLE_TOO_LONG if self._accepting else 0.0)
        if late and self._accepting:
            self._workers.mean_run = max(self._workers.mean_run or 0.0, IDLE_TOO_LONG)

    async def _write_tallies(self, connection: Connection) -> None:
        self._tally_at = monotonic() + TALLY_INTERVAL
        tallies = self._finisher.take_tallies()
        if tallies:
            try:
                await tally.add(connection, self._holdings.node, tallies)
            except BaseException:
                self._finisher.restore_tallies(tallies)
                raise
            self._finisher.add_up(tallies)

    async def _rest(self, connection: Connection) -> None:
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
        if connection.is_closed():
            raise ConnectionError("the connection was closed")

    def _notified(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        match str(payload).split():
            case ["ready"]:
                self._appetite.hear_of_jobs()
            case ["rewind", lane, pos]:
                self._appetite.hear_of_rewind(int(lane), int(pos))
            case ["lanes"]:
                self._settle_at = 0.0
            case ["cancel" | "order", node] if int(node) == self._holdings.node:
                self._settle_at = 0.0
            case _:
                return
        self._wake.set()
