"""The functions of the queue against a plain model: whatever happens in whatever order, both hold the same jobs in the same places.

What happens at the same time has to look as if it had happened in some order.
"""

from __future__ import annotations

import asyncio
import copy
import sys
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, combinations, count, permutations
from time import monotonic
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from workerd.daemon.lows import Lows
from workerd.errors import NodeDead
from workerd.outcomes import SUCCEEDED, Outcome
from workerd.queue.claim import BEGINNING, Answer, Claimed, Wanted, claim
from workerd.queue.cycle import cycle
from workerd.queue.finish import Finished, finish, give_back, own_leases, split
from workerd.queue.lane import Lane, lanes
from workerd.queue.node import Figures, Registration, beat, register
from workerd.queue.prune import prune
from workerd.queue.rescue import declare_dead, look, rescue
from workerd.queue.stage import stage

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence

    DB = asyncpg.Connection[asyncpg.Record]

DAY = 86400.0
TASK = "work"  # its failures are told to `told`, whose jobs nobody claims
KEYS = ("a", "b")
MOST_JOBS = 12  # unfinished ones at a time
FINAL = ("succeeded", "failed", "cancelled")
UNSYNCED = {"synchronous_commit": "off"}  # these servers do not crash

# name of the ending in these tests -> ending, seconds until the next attempt, seconds to keep the job
ENDINGS: dict[str, tuple[Outcome, float]] = {
    "succeeded": (Outcome("succeeded", result="1"), DAY),
    "succeeded, not kept": (SUCCEEDED, 0.0),
    "failed": (Outcome("failed", error="failed"), DAY),
    "retry": (Outcome("retry", error="failed", delay=0.0), DAY),
    "retry later": (Outcome("retry", error="failed", delay=3600.0), DAY),
    "snooze": (Outcome("snooze", error="not yet", delay=3600.0), DAY),
    "returned": (Outcome("returned", error="given back"), DAY),
    "cancelled": (Outcome("cancelled", error="cancelled"), DAY),
}

GOOD = ("succeeded", "succeeded, not kept")  # those that `cycle` writes

_TABLES = {
    "ready": "SELECT id, lane, pos, attempt, failures, crashes, key FROM workerd.ready WHERE task = 'work'",
    "notices": "SELECT (payload ->> 'job_id')::bigint, (payload ->> 'attempt')::int FROM workerd.ready WHERE task = 'told'",
    "scheduled": "SELECT id, lane, attempt, failures, crashes, key FROM workerd.scheduled",
    "history": "SELECT id, lane, state, attempt, failures, crashes, key FROM workerd.history",
    "key": "SELECT key, id FROM workerd.key",
    "lease": "SELECT node, n, lane, pos, pos <@ cancel FROM workerd.lease, workerd.positions(tickets) pos",
}
_BROKEN = {
    "a failure is told of twice": """
        SELECT payload -> 'job_id', payload -> 'attempt' FROM workerd.ready WHERE task = 'told' GROUP BY 1, 2 HAVING count(*) > 1""",
    "a job is in two places": """
        SELECT id FROM (SELECT id FROM workerd.ready UNION ALL SELECT id FROM workerd.scheduled
            UNION ALL SELECT id FROM workerd.history) j GROUP BY id HAVING count(*) > 1""",
    "two leases of a lane overlap": """
        SELECT a.lane, a.tickets * b.tickets FROM workerd.lease a JOIN workerd.lease b
        ON a.lane = b.lane AND (a.node, a.n) < (b.node, b.n) AND a.tickets && b.tickets""",
    "a ticket is leased and has no job": """
        SELECT l.node, l.n, p FROM workerd.lease l, workerd.positions(l.tickets) p
        WHERE NOT EXISTS (SELECT FROM workerd.ready r WHERE r.lane = l.lane AND r.pos = p)""",
    "a lease ends before its last ticket": "SELECT node, n FROM workerd.lease WHERE last < upper(tickets) - 1",
    "a key is not that of its unfinished job": """
        SELECT key, id FROM workerd.key EXCEPT (SELECT key, id FROM workerd.ready UNION ALL SELECT key, id FROM workerd.scheduled)""",
    "an unfinished job does not hold its key": """
        (SELECT key, id FROM workerd.ready WHERE key IS NOT NULL UNION ALL SELECT key, id FROM workerd.scheduled WHERE key IS NOT NULL)
        EXCEPT SELECT key, id FROM workerd.key""",
}

# Each is asked after every step: one question takes a fifth of the time of all those.
_ALL_BROKEN = " UNION ALL ".join(f"SELECT '{what}', row::text FROM ({sql}) row" for what, sql in _BROKEN.items())  # noqa: S608 - ours
_ALL_TABLES = ", ".join(f"array(SELECT row FROM ({sql}) row)" for sql in _TABLES.values())  # noqa: S608 - ours
_CONTENTS = f"SELECT {_ALL_TABLES}, (SELECT last_value FROM workerd.ticket)"  # noqa: S608 - ours

Rows = dict[str, set[tuple[Any, ...]]]


async def broken(db: DB) -> list[str]:
    """What in the database must never be so, whatever happened."""
    return [f"{what}: {row}" for what, row in await db.fetch(_ALL_BROKEN)]


async def contents(db: DB) -> tuple[Rows, int]:
    """All jobs and leases, and the last ticket that was drawn."""
    row = await db.fetchrow(_CONTENTS)
    assert row is not None
    *tables, ticket = row
    return {name: {tuple(row) for row in rows} for name, rows in zip(_TABLES, tables, strict=True)}, ticket


@dataclass
class Job:
    """A job of the model. `pos` is 0 until the database has told which ticket it drew."""

    id: int
    lane: int
    key: str | None
    place: str  # ready, scheduled, gone, or a final state
    pos: int = 0
    attempt: int = 0
    failures: int = 0
    crashes: int = 0
    told: list[int] = field(default_factory=list)  # attempts with which it failed for good

    @property
    def counters(self) -> tuple[int, int, int, str | None]:
        return self.attempt, self.failures, self.crashes, self.key


@dataclass
class Lease:
    lane: int
    tickets: dict[int, int]  # ticket -> job
    cancel: set[int] = field(default_factory=set)


@dataclass
class Model:
    """What the database should hold. Every method is one operation and returns what the database should answer."""

    max_crashes: int = 3
    jobs: dict[int, Job] = field(default_factory=dict)
    leases: dict[tuple[int, int], Lease] = field(default_factory=dict)
    living: set[int] = field(default_factory=set)

    def rows(self) -> Rows:
        jobs = self.jobs.values()
        return {
            "ready": {(j.id, j.lane, j.pos, *j.counters) for j in jobs if j.place == "ready"},
            "notices": {(j.id, attempt) for j in jobs for attempt in j.told},
            "scheduled": {(j.id, j.lane, *j.counters) for j in jobs if j.place == "scheduled"},
            "history": {(j.id, j.lane, j.place, *j.counters) for j in jobs if j.place in FINAL},
            "key": {(j.key, j.id) for j in jobs if j.key is not None and j.place in ("ready", "scheduled")},
            "lease": {
                (node, n, lease.lane, pos, pos in lease.cancel)
                for (node, n), lease in self.leases.items()
                for pos in lease.tickets
            },
        }

    def holder(self, key: str | None) -> int | None:
        return next((j.id for j in self.unfinished() if key is not None and j.key == key), None)

    def unfinished(self) -> list[Job]:
        return [j for j in self.jobs.values() if j.place in ("ready", "scheduled")]

    def lease_of(self, job: Job) -> Lease | None:
        return next((lease for lease in self.leases.values() if lease.tickets.get(job.pos) == job.id), None)

    def queued(self, lane: int) -> list[Job]:
        found = [j for j in self.jobs.values() if j.place == "ready" and j.lane == lane and self.lease_of(j) is None]
        return sorted(found, key=lambda j: j.pos)

    def target(self, asked: Wanted) -> tuple[Lane, int] | None:
        """The lane in which a claim looks for jobs, and its bound."""
        rows = [j for j in self.jobs.values() if j.place == "ready"]
        return next((t for t in asked.lanes if any(j.lane == t[0].id and j.pos >= t[1] for j in rows)), None)

    def claimable(self, asked: Wanted) -> list[int]:
        """The jobs that a claim takes."""
        target = self.target(asked)
        if target is None:
            return []
        lane, low = target
        seen = [j for j in self.queued(lane.id) if j.pos >= low and (asked.alone or j.crashes < self.last_chance)]
        seen = seen[: asked.batch]
        calm = next((place for place, j in enumerate(seen) if j.crashes), len(seen))
        return [j.id for j in (seen[:calm] or (seen[:1] if asked.free else []))]

    @property
    def last_chance(self) -> int:
        return max(1, self.max_crashes - 1)

    def claim(self, node: int, n: int, taken: list[int]) -> bool:
        """Take these; whether all of them were free."""
        jobs = [self.jobs[i] for i in taken]
        if any(j.place != "ready" or self.lease_of(j) is not None for j in jobs):
            return False
        if jobs:
            self.leases[node, n] = Lease(jobs[0].lane, {j.pos: j.id for j in jobs})
        return True

    def finish(self, node: int, ends: list[tuple[int, int, str]]) -> list[bool]:
        return [self._end(node, n, pos, *ENDINGS[ending]) for n, pos, ending in ends]

    def _end(self, node: int, n: int, pos: int, outcome: Outcome, ttl: float) -> bool:
        lease = self.leases.get((node, n))
        if lease is None or pos not in lease.tickets:
            return False
        job = self._release(node, n, pos)
        ending: str = outcome.ending
        if pos in lease.cancel and ending in ("retry", "snooze", "returned"):
            ending = "cancelled"
        job.attempt += 1
        if ending in FINAL:
            job.place = ending if ttl else "gone"
            job.failures += ending == "failed"
            job.told += [job.attempt] if ending == "failed" else []
        elif ending != "returned":
            job.place, job.pos = "scheduled" if outcome.delay else "ready", 0
            job.failures += ending == "retry"
        return True

    def _release(self, node: int, n: int, pos: int) -> Job:
        lease = self.leases[node, n]
        job = self.jobs[lease.tickets.pop(pos)]
        if not lease.tickets:
            del self.leases[node, n]
        return job

    def give_back(self, node: int, n: int, positions: list[int] | None) -> int:
        """How many are free again."""
        lease = self.leases.get((node, n))
        back = [] if lease is None else [p for p in list(lease.tickets) if positions is None or p in positions]
        for pos in back:
            assert lease is not None
            job = self._release(node, n, pos)
            job.place = "cancelled" if pos in lease.cancel else job.place
        return sum(lease is not None and pos not in lease.cancel for pos in back)

    def split(self, node: int, n: int, pos: int, new: int) -> bool:
        lease = self.leases.get((node, n))
        if lease is None or pos not in lease.tickets:
            return False
        job = self._release(node, n, pos)
        self.leases[node, new] = Lease(lease.lane, {pos: job.id}, lease.cancel & {pos})
        return True

    def lost_leases(self) -> list[tuple[int, int]]:
        return [fence for fence in self.leases if fence[0] not in self.living]

    def rescue(self, fences: Iterable[tuple[int, int]]) -> set[tuple[int, bool]]:
        """The jobs that crashed, and whether they failed by that."""
        crashed = set()
        for fence in fences:
            lease = self.leases.pop(fence)
            for pos, job in ((pos, self.jobs[i]) for pos, i in lease.tickets.items()):
                job.attempt, job.crashes = job.attempt + 1, job.crashes + 1
                if pos in lease.cancel:
                    job.place = "cancelled"
                    continue
                if job.crashes >= self.max_crashes:
                    job.place = "failed"
                    job.told.append(job.attempt)
                crashed.add((job.id, job.place == "failed"))
        return crashed

    def cancel(self, job_id: int) -> str:
        job = self.jobs[job_id]
        if job.place == "gone":
            return "unknown"
        if job.place in FINAL:
            return "final"
        lease = self.lease_of(job)
        if lease is not None:
            lease.cancel.add(job.pos)
            return "running"
        was, job.place = job.place, "cancelled"
        return "queued" if was == "ready" else was

    def retry(self, job_id: int) -> str:
        job = self.jobs[job_id]
        was = job.place
        if was == "scheduled":
            job.place, job.pos = "ready", 0
        elif was in ("failed", "cancelled"):
            if self.holder(job.key) is not None:
                return "key taken"
            job.place, job.pos, job.failures, job.crashes = "ready", 0, 0, 0
        elif was == "ready":
            return "queued" if self.lease_of(job) is None else "running"
        return "unknown" if was == "gone" else was

    def stage(self, due: Iterable[int]) -> int:
        staged = [j for j in (self.jobs[i] for i in due) if j.place == "scheduled"]
        for job in staged:
            job.place, job.pos = "ready", 0
        return len(staged)


@dataclass
class Node:
    """A node as it sees itself: its bounds and the jobs that it believes to hold."""

    id: int
    db: DB
    lows: Lows
    held: list[Claimed] = field(default_factory=list)
    past: list[Claimed] = field(default_factory=list)  # ended, perhaps without an answer
    n: int = 0

    def next_n(self) -> int:
        self.n += 1
        return self.n

    def alone(self, last_chance: int) -> bool:
        return all(job.crashes < last_chance for job in self.held)

    def drop(self, job: Claimed) -> None:
        self.held.remove(job)
        self.past.append(job)


class World:
    """The database of one test, with connections that outlive its examples."""

    NODES = 3

    def __init__(self, runner: asyncio.Runner, dsn: str) -> None:
        self.run = runner.run
        self._dsn = dsn
        self.clock = 0.0

    async def open(self) -> None:
        self.all = [await asyncpg.connect(self._dsn, server_settings=UNSYNCED) for _ in range(self.NODES + 6)]
        self.observer, self.rescuer, self.finisher, self.canceller, *rest = self.all
        self.late, self.nodes = rest[:2], rest[2:]
        await self.observer.execute("SELECT workerd.lane_of('one', 0), workerd.lane_of('two', 5)")
        await self.observer.execute("SELECT workerd.add_history_days('{-172800}')")
        await self.observer.execute(
            "INSERT INTO workerd.task (name, queue, priority, max_retries, on_failure)"
            " VALUES ('work', 'one', 0, 3, 'told'), ('told', 'notices', 0, 0, NULL)"
        )
        self.lanes = await lanes(self.observer, [])
        self.yesterday = await self.observer.fetchval("SELECT min(day) FROM workerd.history_day")

    async def close(self) -> None:
        for connection in self.all:
            await connection.close()

    async def clear(self) -> None:
        await self.observer.execute(emptying("ready", "lease", "scheduled", "history", "key", "node_order", "node"))

    async def register(self, node: int, connection: DB) -> Node:
        about = Registration(f"node {node}", 1, "1", 60.0, [TASK], [])
        await register(connection, node, about, workers=4, locked=False)
        lows = Lows()
        lows.set_lanes(self.lanes)
        return Node(node, connection, lows)


def emptying(*tables: str) -> str:
    """SQL that empties these tables of few rows: to truncate them is to make files."""
    return "; ".join(f"DELETE FROM workerd.{table}" for table in tables)  # noqa: S608 - ours


def end(job: Claimed, ending: str) -> Finished:
    outcome, ttl = ENDINGS[ending]
    return Finished(job, outcome, monotonic(), 0.0, ttl, None)


def wanted(
    n: int,
    targets: Sequence[tuple[Lane, int]],
    batch: int = 10,
    *,
    free: bool = True,
    alone: bool = True,
    last_chance: int = 2,
    rest: bool = False,
) -> Wanted:
    return Wanted(n, targets, batch, [TASK], free, alone, last_chance, rest)


async def enqueue(db: DB, lane: Lane, key: str | None = None, delay: str | None = None) -> int:
    job_id: int = await db.fetchval(
        "SELECT workerd.enqueue($1, queue => $2, priority => $3, key => $4, delay => $5::text::interval)",
        TASK,
        lane.queue,
        lane.priority,
        key,
        delay,
    )
    return job_id


def subsets(items: list[tuple[int, int]]) -> Iterable[tuple[tuple[int, int], ...]]:
    return chain.from_iterable(combinations(items, size) for size in range(len(items) + 1))


@dataclass(frozen=True)
class Step:
    """One of several operations at the same time: what the database answered, and how the model could have come to that."""

    what: str
    replays: Callable[[Model], Iterable[Model]]


def _may_claim(model: Model, node: Node, asked: Wanted, answer: Answer) -> bool:
    """Whether the model could have answered so; it then has those jobs leased."""
    taken = {job.id: job.pos for job in answer.jobs}
    for job_id, pos in taken.items():
        model.jobs[job_id].pos = model.jobs[job_id].pos or pos
    return all(model.jobs[i].pos == pos for i, pos in taken.items()) and model.claim(node.id, asked.n, list(taken))


some = st.integers(0, 1000)  # which one of those that are there


class Machine(RuleBasedStateMachine):
    """Drives database and model side by side.

    What happens at the same time may end in one way or another, so no rule has a precondition: one that finds nothing to do does nothing.
    """

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.run = self.world.run
        self.db = self.world.observer
        self.model = Model()
        self.ids = count(1)
        self.open: dict[DB, tuple[Any, list[Job]]] = {}  # connections with an open transaction, and what it enqueued
        self.zombies: list[Node] = []
        self.attempts: dict[int, int] = {}
        self.ticket = self.run(self.db.fetchval("SELECT nextval('workerd.ticket')"))
        self.nodes = self.run(self._start())

    async def _start(self) -> list[Node]:
        await self.world.clear()
        return [await self._register(connection) for connection in self.world.nodes]

    async def _register(self, connection: DB) -> Node:
        node = await self.world.register(next(self.ids), connection)
        self.model.living.add(node.id)
        return node

    @initialize(crashes=st.sampled_from([2, 3]))
    def choose(self, crashes: int) -> None:
        self.model.max_crashes = crashes
        for which in range(4):
            self._add(self.run(self._enqueue(self.db, which, None, False)))

    # enqueue

    @property
    def _room(self) -> bool:
        return len(self.model.unfinished()) + sum(len(jobs) for _, jobs in self.open.values()) < MOST_JOBS

    @rule(lane=some, key=st.sampled_from([None, None, *KEYS]), later=st.sampled_from([False, False, True]))
    def enqueue(self, lane: int, key: str | None, later: bool) -> None:
        if self._room and not self._key_is_open(key):
            self._add(self.run(self._enqueue(self.db, lane, key, later)))

    @rule(lane=some, key=st.sampled_from([None, *KEYS]), later=st.booleans(), which=st.integers(0, 1))
    def enqueue_in_a_transaction(self, lane: int, key: str | None, later: bool, which: int) -> None:
        if not self._room or self._key_is_open(key):
            return  # that call would wait for the other transaction
        connection = self.world.late[which]
        if connection not in self.open:
            transaction = connection.transaction()
            self.run(transaction.start())
            self.open[connection] = transaction, []
        job = self.run(self._enqueue(connection, lane, key, later))
        if job is not None:
            self.open[connection][1].append(job)

    @rule(which=some, commits=st.sampled_from([True, True, False]))
    def end_a_transaction(self, which: int, commits: bool) -> None:
        if not self.open:
            return
        connection = list(self.open)[which % len(self.open)]
        transaction, jobs = self.open.pop(connection)
        self.run(transaction.commit() if commits else transaction.rollback())
        for job in jobs if commits else []:
            self._add(job)

    async def _enqueue(self, connection: DB, which: int, key: str | None, later: bool) -> Job | None:
        """The new job, or None where another one holds the key."""
        lane = self.world.lanes[which % len(self.world.lanes)]
        job_id = await enqueue(connection, lane, key, "1 hour" if later else None)
        holder = self.model.holder(key)
        if holder is not None:
            assert job_id == holder
            return None
        assert job_id not in self.model.jobs
        pos = await connection.fetchval("SELECT pos FROM workerd.ready WHERE id = $1", job_id)
        return Job(job_id, lane.id, key, "scheduled" if later else "ready", pos or 0)

    def _key_is_open(self, key: str | None) -> bool:
        return key is not None and any(job.key == key for _, jobs in self.open.values() for job in jobs)

    def _add(self, job: Job | None) -> None:
        if job is not None:
            self.model.jobs[job.id] = job

    # claim

    @rule(
        which=some,
        batch=st.integers(1, 4),
        free=st.booleans(),
        heard=st.sampled_from([True, True, True, False]),
        seconds=st.sampled_from([0.0, 0.0, 0.03, 2.0]),
        rest=st.booleans(),
    )
    def claim(self, which: int, batch: int, free: bool, heard: bool, seconds: float, rest: bool) -> None:
        self.world.clock += seconds  # a sweep may be due
        node = self._node(which)
        answer = self.run(self._claim(node, batch, free, rest))
        if heard:
            node.held += answer.jobs

    def _wanted(self, node: Node, batch: int, free: bool, rest: bool) -> Wanted:
        chance = self.model.last_chance
        return wanted(
            node.next_n(),
            node.lows.targets(),
            batch,
            free=free,
            alone=node.alone(chance),
            last_chance=chance,
            rest=rest,
        )

    async def _claim(self, node: Node, batch: int, free: bool, rest: bool = False) -> Answer:
        asked = self._wanted(node, batch, free, rest)
        answer = await claim(node.db, node.id, asked)
        self._check_claim(node, asked, answer)
        return answer

    def _check_claim(self, node: Node, asked: Wanted, answer: Answer) -> None:
        expected = self.model.claimable(asked)
        assert [job.id for job in answer.jobs] == expected
        for job in answer.jobs:
            known = self.model.jobs[job.id]
            assert (job.pos, job.attempt, job.failures, job.crashes, job.key) == (
                known.pos,
                known.attempt + 1,
                known.failures,
                known.crashes,
                known.key,
            )
        assert self.model.claim(node.id, asked.n, expected)
        node.lows.learn(answer.lane, answer.last, 0.0)

    @rule(
        which=some,
        first=some,
        many=st.integers(0, 3),
        kept=st.booleans(),
        batch=st.integers(1, 4),
        free=st.booleans(),
        rest=st.booleans(),
    )
    def cycle(self, which: int, first: int, many: int, kept: bool, batch: int, free: bool, rest: bool) -> None:
        """A node, living or dead, ends jobs that succeeded and claims others in one call."""
        node = self._holder(which)
        if node is None:
            return
        jobs = self._some(node.held, first, many)
        self.run(self._cycle(node, jobs, GOOD[not kept], self._wanted(node, batch, free, rest)))

    async def _cycle(self, node: Node, jobs: list[Claimed], ending: str, asked: Wanted) -> None:
        before = copy.deepcopy(self.model)
        owned = self.model.finish(node.id, [(job.n, job.pos, ending) for job in jobs])
        coming = cycle(node.db, node.id, [end(job, ending) for job in jobs], asked)
        if node in self.zombies and self.model.target(asked):
            with pytest.raises(NodeDead):
                await coming
            self.model = before  # neither is done
            return
        held, answer = await coming
        assert held == owned
        self._check_claim(node, asked, answer)
        for job in jobs:
            node.drop(job)
        node.held += answer.jobs

    @rule(which=some, dies=st.booleans(), heard=st.sampled_from([True, True, False]))
    def claim_and_commit_late(self, which: int, dies: bool, heard: bool) -> None:
        """The node may be declared dead, and what it had be rescued, before its claim commits."""
        node = self._node(which)
        jobs = self.run(self._claim_late(node, dies))
        if heard:
            node.held += jobs

    async def _claim_late(self, node: Node, dies: bool) -> list[Claimed]:
        async with node.db.transaction():
            leases = set(self.model.leases)
            answer = await self._claim(node, 3, True)
            unseen = set(self.model.leases) - leases
            if dies:
                await self._declare_dead(node)
                lost = [fence for fence in self.model.lost_leases() if fence not in unseen]
                crashed = await rescue(self.world.rescuer, self.model.max_crashes, DAY)
                assert {(job.id, job.failed) for job in crashed} == self.model.rescue(lost)
        return answer.jobs

    @rule(which=some)
    def claim_after_death(self, which: int) -> None:
        if not self.zombies:
            return
        node = self.zombies[which % len(self.zombies)]
        asked = wanted(node.next_n(), [(lane, BEGINNING) for lane in self.world.lanes])
        coming = claim(node.db, node.id, asked)
        if self.model.target(asked):
            with pytest.raises(NodeDead):
                self.run(coming)
        else:
            assert not self.run(coming).jobs

    # the ends of attempts

    @rule(
        which=some,
        first=some,
        many=st.integers(1, 3),
        endings=st.lists(st.sampled_from(list(ENDINGS)), min_size=3, max_size=3),
    )
    def finish(self, which: int, first: int, many: int, endings: list[str]) -> None:
        node = self._holder(which)
        if node is None:
            return
        jobs = self._some(node.held, first, many)
        self.run(self._finish(node, list(zip(jobs, endings, strict=False))))
        for job in jobs:
            node.drop(job)

    @rule(which=some, first=some, ending=st.sampled_from(list(ENDINGS)))
    def finish_again(self, which: int, first: int, ending: str) -> None:
        """The answer to the first one was lost, or the job was given back or taken back in between."""
        nodes = [node for node in self.nodes + self.zombies if node.past]
        if not nodes:
            return
        node = nodes[which % len(nodes)]
        self.run(self._finish(node, [(job, ending) for job in self._some(node.past, first, 2)]))

    async def _finish(self, node: Node, ends: list[tuple[Claimed, str]]) -> None:
        owned = await finish(node.db, node.id, [end(job, ending) for job, ending in ends])
        assert owned == self.model.finish(node.id, [(job.n, job.pos, ending) for job, ending in ends])

    @rule(which=some, first=some, whole=st.booleans(), heard=st.booleans())
    def give_back(self, which: int, first: int, whole: bool, heard: bool) -> None:
        node = self._holder(which)
        if node is None:
            return
        job = node.held[first % len(node.held)]
        mine = [other for other in node.held if other.n == job.n and (whole or other is job)]
        positions = None if whole else [job.pos]
        free = self.run(give_back(node.db, node.id, job.n, positions, DAY))
        assert free == self.model.give_back(node.id, job.n, positions)
        for other in mine:
            node.drop(other)
        if heard:
            self._rewind(job.lane.id, min(other.pos for other in mine))

    @rule(which=some, heard=st.booleans())
    def settle(self, which: int, heard: bool) -> None:
        """The node compares what it holds with what the database says, and gives the rest back."""
        self.run(self._settle(self._node(which), heard))

    async def _settle(self, node: Node, heard: bool) -> None:
        for lease in await own_leases(node.db, node.id):
            lane = self.model.leases[node.id, lease.n].lane
            unknown = sorted(lease.tickets - {job.pos for job in node.held if job.n == lease.n})
            if unknown:
                free = await give_back(node.db, node.id, lease.n, unknown, DAY)
                assert free == self.model.give_back(node.id, lease.n, unknown)
                if heard:
                    self._rewind(lane, unknown[0])

    @rule(which=some, first=some)
    def split(self, which: int, first: int) -> None:
        node = self._holder(which)
        if node is None:
            return
        job = node.held[first % len(node.held)]
        n = node.next_n()
        moved = self.run(split(node.db, job, n))
        assert moved == self.model.split(node.id, job.n, job.pos, n)
        if moved:
            job.n = n

    # others

    @rule(which=some, among=st.sampled_from([("ready",), ("ready",), ("scheduled",), ("gone", *FINAL)]))
    def cancel(self, which: int, among: tuple[str, ...]) -> None:
        for job in self._some([job for job in self.model.jobs.values() if job.place in among], which, 1):
            assert self.run(self.db.fetchval("SELECT workerd.cancel($1, $2)", job.id, DAY)) == self.model.cancel(job.id)

    @rule(which=some, among=st.sampled_from([("ready",), ("scheduled",), FINAL, ("failed", "cancelled"), ("gone",)]))
    def retry(self, which: int, among: tuple[str, ...]) -> None:
        for job in self._some([job for job in self.model.jobs.values() if job.place in among], which, 1):
            if not self._key_is_open(job.key):
                assert self.run(self.db.fetchval("SELECT workerd.retry($1)", job.id)) == self.model.retry(job.id)

    @rule(which=some)
    def die(self, which: int) -> None:
        self.run(self._declare_dead(self._node(which)))

    async def _declare_dead(self, node: Node) -> None:
        (sight,) = [sight for sight in await look(self.db) if sight.id == node.id]
        assert await declare_dead(self.db, sight)
        self.model.living.discard(node.id)
        assert not await beat(self.db, node.id, Figures())
        self.nodes.remove(node)
        self.zombies.append(node)
        self.nodes.append(await self._register(node.db))

    @rule(which=some, dies=st.booleans(), heard=st.booleans())
    def rescue(self, which: int, dies: bool, heard: bool) -> None:
        node = self._holder(which, among=self.nodes) if dies else None
        if node is not None:
            self.run(self._declare_dead(node))
        lost = self.model.lost_leases()
        first = defaultdict[int, list[int]](list)
        for fence in lost:
            first[self.model.leases[fence].lane] += self.model.leases[fence].tickets
        crashed = self.run(rescue(self.db, self.model.max_crashes, DAY))
        assert {(job.id, job.failed) for job in crashed} == self.model.rescue(lost)
        if heard:
            for lane, tickets in first.items():
                self._rewind(lane, min(tickets))

    @rule(first=some, many=st.integers(1, 3))
    def stage(self, first: int, many: int) -> None:
        waiting = self._some([job for job in self.model.jobs.values() if job.place == "scheduled"], first, many)
        self.run(self._stage([job.id for job in waiting]))

    async def _stage(self, due: list[int]) -> None:
        await self._make_due(due)
        staged, _ = await stage(self.db)
        assert staged == self.model.stage(due)

    async def _make_due(self, due: list[int]) -> None:
        await self.db.execute(
            "UPDATE workerd.scheduled SET run_at = clock_timestamp() - interval '1 s' WHERE id = ANY ($1)", due
        )

    @rule(first=some, many=st.integers(1, 3))
    def prune(self, first: int, many: int) -> None:
        old = self._some([job for job in self.model.jobs.values() if job.place in FINAL], first, many)
        self.run(self._prune([job.id for job in old]))
        for job in old:
            job.place = "gone"

    async def _prune(self, old: list[int]) -> None:
        await self.db.execute(
            "UPDATE workerd.history SET expires_on = $1 WHERE id = ANY ($2)", self.world.yesterday, old
        )
        dropped = await prune(self.db, 1.0)
        assert dropped == [f"history_{self.world.yesterday:%Y%m%d}"]
        await self.db.execute("SELECT workerd.add_history_days('{-172800}')")

    # at the same time

    @rule(batch=st.integers(1, 4))
    def all_claim_at_once(self, batch: int) -> None:
        self.run(self._race([self._claim_step(node, batch) for node in self.nodes]))

    @rule(
        which=some,
        first=some,
        endings=st.lists(st.sampled_from(list(ENDINGS)), min_size=2, max_size=2),
        dies=st.booleans(),
        cancels=st.booleans(),
        backs=st.booleans(),
        cycles=st.booleans(),
    )
    def all_at_once(
        self, which: int, first: int, endings: list[str], dies: bool, cancels: bool, backs: bool, cycles: bool
    ) -> None:
        """A node ends jobs while it may be declared dead, give them back or be told to cancel one, and another one claims."""
        node = self._holder(which, among=self.nodes)
        if node is None:
            return
        jobs = self._some(node.held, first, 2)
        if cycles:
            endings = [GOOD[ending != "succeeded"] for ending in endings]
        elif len({ending in GOOD for ending in endings}) > 1:
            endings = endings[:1] * 2  # those would be written by two statements
        ends = list(zip(jobs, endings, strict=False))
        self.run(self._collide(node, ends, dies, cancels, backs, cycles))
        for job in jobs:
            node.drop(job)

    async def _collide(
        self, node: Node, ends: list[tuple[Claimed, str]], dies: bool, cancels: bool, backs: bool, cycles: bool
    ) -> None:
        crashed = await rescue(self.db, self.model.max_crashes, DAY)
        assert {(job.id, job.failed) for job in crashed} == self.model.rescue(self.model.lost_leases())
        steps = [self._cycle_step(node, ends) if cycles else self._finish_step(node, ends)]
        if dies:
            await self._declare_dead(node)
            steps.append(self._rescue_step())
        if cancels:
            steps.append(self._cancel_step(ends[-1][0].id))
        if backs:
            steps.append(self._give_back_step(node, ends[0][0]))
        elsewhere = next(other for other in self.nodes if other.db is not node.db)
        await self._race([*steps, self._claim_step(elsewhere, 4)])

    async def _race(self, coming: list[Coroutine[Any, Any, Step]]) -> None:
        """Let all happen at once: some order of them has to lead to these answers and this state."""
        steps = await asyncio.gather(*coming)
        now, _ = await contents(self.db)
        for order in permutations(steps):
            models = [copy.deepcopy(self.model)]
            for step in order:
                models = [after for model in models for after in step.replays(model)]
            for model in models:
                self._adopt(model, now)
                if model.rows() == now:
                    self.model = model
                    return
        raise AssertionError(f"no order of {[step.what for step in steps]} leads from {self.model.rows()} to {now}")

    async def _claim_step(self, node: Node, batch: int) -> Step:
        asked = self._sweeping(node, batch)
        answer = await claim(node.db, node.id, asked)
        node.held += answer.jobs

        def replays(model: Model) -> Iterable[Model]:
            if _may_claim(model, node, asked, answer):
                yield model

        return Step(f"claim {[job.id for job in answer.jobs]} by {node.id}", replays)

    def _sweeping(self, node: Node, batch: int) -> Wanted:
        chance = self.model.last_chance
        targets = [(lane, BEGINNING) for lane in self.world.lanes]
        return wanted(node.next_n(), targets, batch, alone=node.alone(chance), last_chance=chance, rest=True)

    async def _cycle_step(self, node: Node, ends: list[tuple[Claimed, str]]) -> Step:
        fenced = [(job.n, job.pos, ending) for job, ending in ends]
        asked = self._sweeping(node, 2)
        owned: list[bool] | None
        try:
            owned, answer = await cycle(self.world.finisher, node.id, [end(job, ending) for job, ending in ends], asked)
        except NodeDead:
            owned, answer = None, Answer(None, BEGINNING, [])
        node.held += answer.jobs

        def replays(model: Model) -> Iterable[Model]:
            if owned is None:
                if node.id not in model.living:
                    yield model
            elif model.finish(node.id, fenced) == owned and _may_claim(model, node, asked, answer):
                yield model

        return Step(f"cycle {fenced}: {owned}, {[job.id for job in answer.jobs]} by {node.id}", replays)

    async def _finish_step(self, node: Node, ends: list[tuple[Claimed, str]]) -> Step:
        fenced = [(job.n, job.pos, ending) for job, ending in ends]
        owned = await finish(self.world.finisher, node.id, [end(job, ending) for job, ending in ends])

        def replays(model: Model) -> Iterable[Model]:
            if model.finish(node.id, fenced) == owned:
                yield model

        return Step(f"finish {fenced}: {owned}", replays)

    async def _rescue_step(self) -> Step:
        answer = await rescue(self.world.rescuer, self.model.max_crashes, DAY)
        crashed = {(job.id, job.failed) for job in answer}

        def replays(model: Model) -> Iterable[Model]:
            for fences in subsets(model.lost_leases()):  # it passes over leases that are locked
                after = copy.deepcopy(model)
                if after.rescue(fences) == crashed:
                    yield after

        return Step(f"rescue: {crashed}", replays)

    async def _cancel_step(self, job_id: int) -> Step:
        state = await self.world.canceller.fetchval("SELECT workerd.cancel($1, $2)", job_id, DAY)

        def replays(model: Model) -> Iterable[Model]:
            if state == "again" or model.cancel(job_id) == state:
                yield model

        return Step(f"cancel {job_id}: {state}", replays)

    async def _give_back_step(self, node: Node, job: Claimed) -> Step:
        free = await give_back(node.db, node.id, job.n, [job.pos], DAY)

        def replays(model: Model) -> Iterable[Model]:
            if model.give_back(node.id, job.n, [job.pos]) == free:
                yield model

        return Step(f"give back {job.id}: {free}", replays)

    # after each step and at the end

    def _adopt(self, model: Model, now: Rows) -> None:
        """Take over the tickets that jobs drew in the last step; they are the highest so far."""
        drawn = {job_id: pos for job_id, _, pos, *_ in now["ready"]}
        for job in model.jobs.values():
            if job.place == "ready" and not job.pos:
                job.pos = drawn.get(job.id, 0)
                assert job.pos == 0 or job.pos > self.ticket

    @invariant()
    def database_and_model_agree(self) -> None:
        self.run(self._compare())

    async def _compare(self) -> None:
        now, ticket = await contents(self.db)
        self._adopt(self.model, now)
        assert now == self.model.rows()
        assert await broken(self.db) == []
        for job in self.model.jobs.values():
            assert job.attempt >= self.attempts.get(job.id, 0)
            assert job.crashes < self.model.max_crashes or job.place in ("failed", "cancelled", "gone")
            self.attempts[job.id] = job.attempt
        self.ticket = ticket

    def teardown(self) -> None:
        for transaction, jobs in self.open.values():
            self.run(transaction.commit())
            for job in jobs:
                self._add(job)
        if sys.exception() is None:  # nothing has failed so far
            self.run(self._drain())

    async def _drain(self) -> None:
        """Everything that was committed ends, and exactly once."""
        for node in self.nodes:
            await self._settle(node, False)
        for node in self.nodes + self.zombies:
            await self._finish(node, [(job, "succeeded") for job in node.held])
            node.held.clear()
        assert {
            (job.id, job.failed) for job in await rescue(self.db, self.model.max_crashes, DAY)
        } == self.model.rescue(self.model.lost_leases())
        await self._stage([job.id for job in self.model.jobs.values() if job.place == "scheduled"])
        await self._compare()
        for _ in range(len(self.model.unfinished()) + 2 * len(self.nodes)):
            for node in self.nodes:
                self.world.clock += 2.0
                answer = await self._claim(node, 4, True)
                await self._finish(node, [(job, "succeeded") for job in answer.jobs])
        await self._compare()
        rows = self.model.rows()
        assert not rows["ready"] | rows["scheduled"] | rows["lease"] | rows["key"]
        assert len(rows["history"]) == sum(job.place != "gone" for job in self.model.jobs.values())

    # choices

    def _node(self, which: int) -> Node:
        return self.nodes[which % len(self.nodes)]

    def _holder(self, which: int, among: list[Node] | None = None) -> Node | None:
        """A node, living or dead, that believes to hold jobs; None where there is no work for any."""
        among = self.nodes + self.zombies if among is None else among
        if not any(node.held for node in among):
            self.world.clock += 2.0
            if self._room:
                self._add(self.run(self._enqueue(self.db, which, None, False)))
            for node in self.nodes:
                node.held += self.run(self._claim(node, 3, True)).jobs
        holders = [node for node in among if node.held]
        return holders[which % len(holders)] if holders else None

    @staticmethod
    def _some(items: list[Any], first: int, many: int) -> list[Any]:
        first %= max(1, len(items))
        return (items[first:] + items[:first])[: min(many, len(items))]

    def _rewind(self, lane: int, pos: int) -> None:
        for node in self.nodes:
            node.lows.rewind(lane, pos)


@contextmanager
def opened_world(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The world of this database, with a clock that the histories turn."""
    with asyncio.Runner() as runner:
        world = World(runner, dsn)
        monkeypatch.setattr("workerd.daemon.lows.monotonic", lambda: world.clock)
        world.run(world.open())
        try:
            yield world
        finally:
            world.run(world.close())


def replay(world: World, history: list[tuple[str, dict[str, Any]]]) -> None:
    """Take these steps, and then let everything end. Raises AssertionError where database and model disagree or something is left."""
    machine = type("Machine", (Machine,), {"world": world})()
    machine.choose(crashes=2)
    for step, arguments in history:
        getattr(machine, step)(**arguments)
        machine.database_and_model_agree()
    machine.teardown()


def examples(many: int, *, anew: bool = False) -> settings:
    """So many histories of 40 steps: the same ones each time, or others each time."""
    return settings(
        deadline=None,
        derandomize=not anew,
        database=None,
        max_examples=many,
        stateful_step_count=40,
        print_blob=anew,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )


@pytest.mark.parametrize(
    "histories",
    [
        pytest.param(examples(12), id="a few histories"),
        pytest.param(examples(300, anew=True), id="new histories", marks=pytest.mark.long),
    ],
)
def test_database_and_model_agree_after_every_step(
    histories: settings, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened_world(dsn, monkeypatch) as world:
        run_state_machine_as_test(type("Machine", (Machine,), {"world": world}), settings=histories)
