"""The attack: a fleet of nodes works with the functions of the queue while everything around it fails."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import asyncpg

from tests.ledger import install, violations
from tests.protocol.node import FAILURES, Attacker
from tests.protocol.test_state_machine import DAY, TASK, broken
from workerd.errors import DatabaseError
from workerd.queue.database import connect
from workerd.queue.lane import lanes
from workerd.queue.rescue import rescue
from workerd.queue.stage import stage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from workerd.queue.lane import Lane

    DB = asyncpg.Connection[asyncpg.Record]

NODES = 8
WAITING = 400  # jobs that are kept waiting
LOCK_LIMIT = (
    30.0  # seconds that anybody may wait for a lane: they are milliseconds, and forever where a lock is left behind
)
LIMIT = 600.0  # seconds for all of it: a tenth is plenty
ROUNDS = 10  # of each node in which nothing is done though something is left: then nothing ever will be
NAME = "attack"

_UNFINISHED = """
    SELECT (SELECT count(*) FROM workerd.ready), (SELECT count(*) FROM workerd.scheduled), (SELECT count(*) FROM workerd.lease)
"""
_WAITING = """
    SELECT max(clock_timestamp() - waitstart) > make_interval(secs => $1) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
"""


@dataclass
class Attack:
    """The fleet on one database; `counts` tells what happened, `wrong` what must not."""

    dsn: str
    reconciles: bool = True
    by_event: bool = False  # a death is an event: what its node holds is taken back once
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    async def run(self, enough: Mapping[str, int]) -> list[str]:
        """Attack until each of these has happened so often, let the fleet come to rest, and tell what was wrong."""
        judge = await asyncpg.connect(self.dsn)
        await judge.execute("SELECT workerd.lane_of('one', 0), workerd.lane_of('two', 3)")
        await install(judge)
        self.lanes: list[Lane] = await lanes(judge, [])
        self.enough = enough
        self.rest = asyncio.Event()  # set when nothing fails any more and all shall end
        self.over = asyncio.Event()
        self._steps, self._stepped = 0, asyncio.Event()
        async with (
            asyncio.timeout(LIMIT),
            asyncpg.create_pool(self.dsn, min_size=1, max_size=5) as self.db,
        ):  # never cut
            await self._go()
        deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        wrong = [*self.wrong, *await broken(judge), *await violations(judge)]
        wrong += ["a deadlock"] * await judge.fetchval(deadlocks)
        await judge.close()
        return wrong

    def count(self, what: str, many: int = 1) -> None:
        """Something has happened; the attack ends with the last thing that had to."""
        self.counts[what] += many
        if what in self.enough and all(self.counts[each] >= least for each, least in self.enough.items()):
            self.rest.set()

    def step(self) -> None:
        """A node has done one thing."""
        self._steps += 1
        self._stepped.set()
        self._stepped = asyncio.Event()

    async def _after(self, least: int, most: int) -> None:
        """Wait while the nodes take some steps: on a slow machine trouble is no more frequent than on a fast one."""
        end = self._steps + random.randint(least, most)
        while self._steps < end and not self.rest.is_set():
            await self._stepped.wait()

    def is_wrong(self, what: str) -> None:
        """Something has happened that must not: the attack has succeeded."""
        self.wrong.append(what)
        self.rest.set()

    async def _go(self) -> None:
        self.nodes = [Attacker(self) for _ in range(NODES)]
        async with asyncio.TaskGroup() as group:
            for node in self.nodes:
                group.create_task(node.work())
            for service in (self._rescue, self._watch):
                group.create_task(self._repeat(service, self.over))
            async with asyncio.TaskGroup() as troubles:
                for trouble in (self._enqueue, self._enqueue_late, self._kill, self._declare_dead, self._cancel):
                    troubles.create_task(self._repeat(trouble, self.rest))
            await self._come_to_rest()
            self.over.set()

    async def _come_to_rest(self) -> None:
        """Wait as long as anything is done; where each node has looked often enough and does nothing, something is stuck."""
        before, begun = (), self._rounds
        while not self.wrong and any(left := tuple(await self.db.fetchrow(_UNFINISHED) or ())):
            if left != before:
                before, begun = left, self._rounds
            elif min(now - then for now, then in zip(self._rounds, begun, strict=True)) > ROUNDS:
                self.is_wrong(f"ready, scheduled and leased in the end: {left}")
            await asyncio.sleep(0.05)

    @property
    def _rounds(self) -> list[int]:
        return [self.counts["rounds of rescue"], *(node.rounds for node in self.nodes)]

    async def _repeat(self, step: Callable[[DB], Awaitable[None]], end: asyncio.Event) -> None:
        """One step after the other on a connection that may be cut at any time."""
        connection: DB | None = None
        while not end.is_set():
            try:
                if connection is None or connection.is_closed():
                    connection = await connect(self.dsn, NAME)
                await step(connection)
            except (*FAILURES, DatabaseError) as error:
                self.judge(error)
        if connection is not None:
            connection.terminate()

    def judge(self, error: BaseException) -> None:
        """What a call may raise here, and what it must not."""
        self.count(type(error).__name__)
        if isinstance(
            error, (asyncpg.DeadlockDetectedError, asyncpg.RaiseError, asyncpg.IntegrityConstraintViolationError)
        ):
            self.is_wrong(str(error))

    async def _enqueue(self, db: DB) -> None:
        if await db.fetchval("SELECT count(*) FROM workerd.ready") < WAITING:
            lane = random.choice(self.lanes)
            many = "SELECT count(*) FROM workerd.enqueue_many($1, array_fill('{}'::text, ARRAY[$2::int]), queue => $3, priority => $4)"
            await db.execute(
                "SELECT workerd.enqueue($1, queue => $2, priority => $3, delay => '50 ms')",
                TASK,
                lane.queue,
                lane.priority,
            )
            await db.fetchval(many, TASK, random.choice([1, 5, 100]), lane.queue, lane.priority)
        await self._after(5, 10)

    async def _enqueue_late(self, db: DB) -> None:
        """Behind every bound by the time it commits; if it does."""
        lane = random.choice(self.lanes)
        async with db.transaction():
            await db.execute("SELECT workerd.enqueue($1, queue => $2, priority => $3)", TASK, lane.queue, lane.priority)
            await self._after(50, 500)
        self.count("late commits")

    async def _kill(self, _: DB) -> None:
        """End one or more sessions in the middle of whatever they do."""
        cut = await self.db.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = $1 ORDER BY random() LIMIT $2",
            NAME,
            random.choice([1, 1, 3]),
        )
        self.count("killed", len(cut))
        await self._after(5, 75)

    async def _declare_dead(self, db: DB) -> None:
        """A node that may well live, and wait for a lane; it goes on until it hears of that."""
        async with db.transaction():
            for lane in self.lanes:
                await db.execute("SELECT workerd.lock_lane($1)", lane.id)
            await asyncio.sleep(random.uniform(0.01, 0.05))
            waiting = [node for node in self.nodes if node.claiming] or self.nodes
            for node in random.sample(waiting, min(2, len(waiting))):
                await self.declare(node.id)
                self.count("declared dead while alive")
        await self._after(20, 120)

    async def declare(self, node: int) -> None:
        await self.db.execute(
            "UPDATE workerd.node SET dead_at = clock_timestamp() WHERE id = $1 AND dead_at IS NULL", node
        )
        if self.by_event:
            await self._take_from(node)

    async def _take_from(self, node: int) -> None:
        """What this node holds now, once and never again."""
        await self.db.execute(
            """WITH free AS (SELECT node, n FROM workerd.lease WHERE node = $1 FOR UPDATE SKIP LOCKED),
            gone AS (DELETE FROM workerd.lease l USING free f WHERE l.node = f.node AND l.n = f.n RETURNING l.lane, l.tickets)
            UPDATE workerd.ready r SET attempt = attempt + 1, crashes = crashes + 1
            FROM gone WHERE r.lane = gone.lane AND r.pos <@ gone.tickets""",
            node,
        )

    async def _rescue(self, db: DB) -> None:
        if not self.by_event:
            self.count("rescued", len(await rescue(db, 10_000, DAY)))
        await stage(db)
        self.count("rounds of rescue")
        await asyncio.sleep(0.03)

    async def _cancel(self, db: DB) -> None:
        await self._after(2, 8)
        job = await db.fetchval(
            "SELECT id FROM public.ledger WHERE what = 'in' ORDER BY seq DESC OFFSET $1 LIMIT 1", random.randint(0, 300)
        )
        if job is not None:
            state = await db.fetchval("SELECT workerd.cancel($1, $2)", job, DAY)
            self.count(f"cancel: {state}")
            if random.random() < 0.3:
                await db.execute("SELECT workerd.retry($1)", job)

    async def _watch(self, _: DB) -> None:
        """Nobody may wait for a lane for long, and nobody may be the victim of a deadlock."""
        waiting = await self.db.fetchval(_WAITING, LOCK_LIMIT)
        if waiting:
            self.is_wrong(f"somebody waits for a lane for more than {LOCK_LIMIT:g} s")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.over.wait(), 0.2)
