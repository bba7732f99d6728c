"""One node of the attack: it claims and ends jobs as a daemon does, with calls that are lost, repeated, late and at the same time."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import asyncpg

from tests.protocol.test_state_machine import DAY, ENDINGS, GOOD, TASK, end, wanted
from workerd.daemon.lows import Lows
from workerd.errors import DatabaseError, LaneLocked, NodeDead
from workerd.queue.claim import Claimed, claim
from workerd.queue.cycle import cycle
from workerd.queue.database import CONNECTION_ERRORS, connect
from workerd.queue.finish import finish, give_back, own_leases, split
from workerd.queue.node import Registration, new_id, register

if TYPE_CHECKING:
    from tests.protocol.attack import Attack

    DB = asyncpg.Connection[asyncpg.Record]

FAILURES = (*CONNECTION_ERRORS, asyncpg.PostgresError)
BATCH = 20
SOON = [
    ending for ending in ENDINGS if (ENDINGS[ending][0].delay or 0) < 1
]  # what comes back does so during the attack


class Attacker:
    """A node, and after each death the next one."""

    def __init__(self, attack: Attack) -> None:
        self._attack = attack
        self._count = attack.count
        self.rounds = 0  # in which it gave back what it did not know, ended what it held, and looked for more
        self.claiming = False
        self._connections: list[DB] = []
        self._past: list[Claimed] = []  # ended or given back: told again, as after answers that were lost
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.id = new_id()
        self._n = 0
        self._registered = False
        self._held: list[Claimed] = []
        self._lows = Lows()
        self._lows.set_lanes(self._attack.lanes)

    async def work(self) -> None:
        while not self._attack.over.is_set():
            try:
                first, second = await self._connected()
                await self._step(first, second)
            except NodeDead:
                self._count("told that it is dead")
                await self._finish_stale()
                self._begin_anew()
            except (*FAILURES, DatabaseError) as error:
                self._attack.judge(error)
            self._attack.step()
        for connection in self._connections:
            connection.terminate()

    async def _connected(self) -> list[DB]:
        if len(self._connections) < 2 or any(connection.is_closed() for connection in self._connections):
            for connection in self._connections:
                connection.terminate()
            self._connections = []
            self._connections = [await connect(self._attack.dsn, "attack", claims=True) for _ in range(2)]
        if not self._registered:
            self.id = new_id()  # the answer to an earlier try may have been lost
            about = Registration("attacker", 1, "1", 60.0, [TASK], [])
            await register(self._connections[0], self.id, about, workers=1, locked=False)
            self._registered = True
        return self._connections

    async def _step(self, first: DB, second: DB) -> None:
        if self._attack.rest.is_set():
            await self._finish_all(first)
            return
        dice = random.random()
        if dice < 0.5:
            await self._cycle(first)
        elif dice < 0.6:
            await self._finish(first, self._some(), random.choice(SOON))
        elif dice < 0.75:
            await self._finish_side_by_side(first, second)
        elif dice < 0.8:
            await self._finish_late(first, second)
        elif dice < 0.87:
            await self._give_back(first)
        elif dice < 0.92:
            await self._finish(first, self._past[-20:], random.choice(GOOD), again=True)
        elif dice < 0.985:
            await self._settle(first)
        else:
            await self._die(first)

    async def _finish_all(self, db: DB) -> None:
        await self._settle(db)
        self._lows.clear()
        await self._cycle(db, whole=True)
        await asyncio.sleep(0.02)

    async def _cycle(self, db: DB, *, whole: bool = False) -> None:
        """Perhaps without reading the answer."""
        ended = self._held[:] if whole else self._some()
        self._n += 1
        asked = wanted(self._n, self._lows.targets(), random.choice([1, 5, BATCH]), last_chance=10_000, rest=True)
        self.claiming = True
        try:
            held, answer = await cycle(db, self.id, [end(job, random.choice(GOOD)) for job in ended], asked)
        except LaneLocked:
            self._count("lane locked")
            return
        finally:
            self.claiming = False
        self._ended(ended, held)
        self._lows.learn(answer.lane, answer.last, 0.001)
        self._count("claimed", len(answer.jobs))
        if whole or random.random() < 0.92:
            self._held += answer.jobs
        else:
            self._count("answers lost")
        self.rounds += whole

    async def _finish(self, db: DB, jobs: list[Claimed], ending: str, *, again: bool = False) -> None:
        mine = [job for job in jobs if job.node == self.id]
        if mine:
            held = await finish(db, self.id, [end(job, ending) for job in mine])
            if not again:
                self._ended(mine, held)
            self._count("repeated", again)

    async def _finish_side_by_side(self, first: DB, second: DB) -> None:
        """Two parts of the same lease at the same time."""
        jobs = [job for job in self._held if job.n == self._held[0].n]
        half = len(jobs) // 2
        parts = [
            self._finish(first, jobs[:half], random.choice(GOOD)),
            self._finish(second, jobs[half:], random.choice(GOOD)),
        ]
        for error in await asyncio.gather(*parts, return_exceptions=True):
            if error is not None:
                raise error

    async def _finish_late(self, first: DB, second: DB) -> None:
        """Within a transaction of the handler, in a lease of its own."""
        if not self._held:
            return
        job, self._n = self._held[0], self._n + 1
        if await split(first, job, self._n):
            job.n = self._n
            async with second.transaction():
                held = await finish(second, self.id, [end(job, "succeeded")])
                await asyncio.sleep(random.uniform(0, 0.05))
            self._ended([job], held)

    async def _give_back(self, db: DB) -> None:
        for job in self._some():
            await give_back(db, self.id, job.n, [job.pos], DAY)
            self._forget([job])

    async def _settle(self, db: DB) -> None:
        """What the database says that this node holds and it does not know goes back."""
        for lease in await own_leases(db, self.id):
            unknown = lease.tickets - {job.pos for job in self._held if job.n == lease.n}
            if unknown and self._attack.reconciles:
                self._count("reconciled", await give_back(db, self.id, lease.n, sorted(unknown), DAY))

    async def _finish_stale(self) -> None:
        """What it still held may be elsewhere by now."""
        try:
            await self._finish(self._connections[0], self._held, random.choice(SOON))
        except FAILURES as error:
            self._attack.judge(error)

    async def _die(self, db: DB) -> None:
        """Without a word, perhaps in the middle of a claim; somebody declares it dead some time later."""
        old = self.id
        claiming = asyncio.create_task(claim(db, old, wanted(self._n + 1, self._lows.targets(), BATCH)))
        await asyncio.sleep(random.choice([0, 0.001, 0.003]))
        claiming.cancel()
        await asyncio.wait([claiming])
        db.terminate()
        self._count("died")
        self._begin_anew()
        await asyncio.sleep(random.choice([0, 0.05]))
        await self._attack.declare(old)

    def _some(self) -> list[Claimed]:
        return random.sample(self._held, random.randint(0, len(self._held)))

    def _ended(self, jobs: list[Claimed], held: list[bool]) -> None:
        self._count("ended", sum(held))
        self._count("stale ends dropped", held.count(False))
        self._forget(jobs)

    def _forget(self, jobs: list[Claimed]) -> None:
        gone = set(jobs)
        self._held = [job for job in self._held if job not in gone]
        self._past = [*self._past, *jobs][-100:]
