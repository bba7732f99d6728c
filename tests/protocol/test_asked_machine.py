"""What jobs are asked for against a plain model: in whatever order it is asked, both have each job in the same state."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.protocol.asked_model import CONCURRENCY, OPEN, Job, Model
from tests.protocol.test_state_machine import DAY, UNSYNCED, emptying, end, examples
from workerd.limit import Limit
from workerd.queue import admit, key, limits
from workerd.queue.claim import BEGINNING, Claimed, Wanted, claim
from workerd.queue.finish import finish
from workerd.queue.lane import lanes
from workerd.queue.node import Registration, register
from workerd.queue.stage import stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis import settings

    DB = asyncpg.Connection[asyncpg.Record]

NODES = {"left": 1, "right": 2}
MOST_JOBS = 14  # at a time
ENDINGS = {
    "succeeded": "succeeded",
    "failed": "failed",
    "retry later": "scheduled",
    "snooze": "scheduled",
    "cancelled": "cancelled",
}

_EMPTY = emptying(
    "ready",
    "lease",
    "scheduled",
    "history",
    "key",
    "node",
    "node_order",
    "dependency",
    "unlooked",
    "slot",
    "turn",
    "bucket",
)
_ENQUEUE = """
    SELECT workerd.enqueue($1, key => $2, conflict => $3, key_until => $4, delay => $5::text::interval, pin => $6,
        after => $7, after_need => $8, after_end => $9)
"""
_NOW = """
    SELECT array(SELECT j FROM (SELECT id, state FROM workerd.job) j), array(SELECT k FROM (SELECT key, id FROM workerd.key) k),
        (SELECT count(*) FROM workerd.ready WHERE task = 'limited'),
        (SELECT count(*) FROM workerd.scheduled WHERE waits = 'limit')
"""
_LEFTOVERS = """
    SELECT (SELECT count(*) FROM workerd.slot) + (SELECT count(*) FROM workerd.unlooked) + (SELECT count(*) FROM workerd.key)
        + (SELECT count(*) FROM workerd.dependency WHERE news) + (SELECT count(*) FROM workerd.lease)
"""
some = st.integers(0, 1000)


class Machine(RuleBasedStateMachine):
    run: Callable[[Any], Any]
    db: DB

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.held: dict[int, Claimed] = {}
        self.n = 0

    @initialize()
    def begin(self) -> None:
        self.run(self._begin())

    async def _begin(self) -> None:
        await self.db.execute(_EMPTY)
        for name, node in NODES.items():
            about = Registration(name, 1, "1", 60.0, ["work", "limited"], [])
            await register(self.db, node, about, workers=4, locked=False)

    # what is asked

    @property
    def _room(self) -> bool:
        return len(self.model.those(*OPEN)) < MOST_JOBS

    @rule(task=st.sampled_from(["work", "limited"]), later=st.booleans(), pin=st.sampled_from([None, None, *NODES]))
    def enqueue(self, task: str, later: bool, pin: str | None) -> None:
        if self._room:
            self._add(Job(0, task, "", later=later, pin=pin))

    @rule(
        which=st.lists(some, min_size=1, max_size=3),
        need=st.sampled_from(["all", "any"]),
        good=st.sampled_from(["succeeded", "finished"]),
        task=st.sampled_from(["work", "work", "limited"]),
        later=st.booleans(),
    )
    def enqueue_after(self, which: list[int], need: str, good: str, task: str, later: bool) -> None:
        there = sorted(job.id for job in self.model.those(*OPEN)) if which[0] % 4 else sorted(self.model.jobs)
        if there and self._room:
            parents: dict[int, str | None] = dict.fromkeys(there[one % len(there)] for one in which)
            self._add(Job(0, task, "", later=later, parents=parents, need=need, good=good))

    @rule(
        key=st.sampled_from(["a", "b"]),
        conflict=st.sampled_from(["keep", "replace", "reschedule"]),
        until=st.sampled_from(["finished", "started"]),
        later=st.booleans(),
    )
    def enqueue_with_a_key(self, key: str, conflict: str, until: str, later: bool) -> None:
        if self._room:
            self._add(Job(0, "work", "", key=key, key_until=until, later=later), conflict)

    def _add(self, job: Job, conflict: str = "keep") -> None:
        holder = self.model.holder(job.key)
        job_id = self.run(
            self.db.fetchval(
                _ENQUEUE,
                job.task,
                job.key,
                conflict,
                job.key_until,
                "1 hour" if job.later else None,
                job.pin,
                list(job.parents),
                job.need,
                job.good,
            )
        )
        if holder is None:
            assert job_id not in self.model.jobs
            job.id = job_id
            self.model.add(job)
        else:
            assert job_id == holder.id
            if conflict != "keep":
                self.model.move(holder, job.later)

    # what becomes of it

    @rule(name=st.sampled_from([*NODES]), batch=st.integers(1, 3))
    def claim(self, name: str, batch: int) -> None:
        self.run(self._claim(name, batch))

    async def _claim(self, name: str, batch: int) -> int:
        self.n += 1
        targets = [(lane, BEGINNING) for lane in await lanes(self.db, [], name)]
        asked = Wanted(self.n, targets, batch, ["work", "limited"], True, True, 2)
        taken = (await claim(self.db, NODES[name], asked)).jobs
        for claimed in taken:
            job = self.model.jobs[claimed.id]
            assert job.state == "queued"
            assert job.pin in (None, name)
            if (claimed.options or {}).get("key_until") == "started":
                assert claimed.key is not None
                await key.free(self.db, claimed.key, claimed.id)
            self.model.start(job)
            self.held[job.id] = claimed
        return len(taken)

    @rule(which=some, how=st.sampled_from([*ENDINGS]))
    def finish(self, which: int, how: str) -> None:
        if self.held:
            self._finish(sorted(self.held)[which % len(self.held)], how)

    def _finish(self, job_id: int, how: str) -> None:
        claimed = self.held.pop(job_id)
        assert self.run(finish(self.db, claimed.node, [end(claimed, how)])) == [True]
        self.model.end(self.model.jobs[job_id], ENDINGS[how])

    @rule(which=some)
    def cancel(self, which: int) -> None:
        there = sorted(self.model.jobs)
        if there:
            job = self.model.jobs[there[which % len(there)]]
            self.run(self.db.fetchval("SELECT workerd.cancel($1, $2)", job.id, DAY))
            self.model.cancel(job)

    @rule(which=some)
    def retry(self, which: int) -> None:
        """What waits for it keeps to how it had ended before."""
        watched = {parent for job in self.model.those("blocked") for parent in job.parents}
        there = sorted(self.model.jobs.keys() - watched)
        if there:
            job = self.model.jobs[there[which % len(there)]]
            self.run(self.db.fetchval("SELECT workerd.retry($1)", job.id))
            self.model.retry(job)

    @rule()
    def let_time_pass(self) -> None:
        self.run(self.db.execute("UPDATE workerd.scheduled SET run_at = run_at - interval '1 hour'"))
        self.model.pass_time()

    # after each step and at the end

    @invariant()
    def database_and_model_agree(self) -> None:
        self.run(self._compare())

    async def _compare(self) -> None:
        while True:  # as the leader does
            done = await admit.settle(self.db, NODES["left"], DAY) + (await stage(self.db))[0]
            if not done + (await admit.admit(self.db, 100)).admitted:
                break
        row = await self.db.fetchrow(_NOW)
        assert row is not None
        states, keys, let_in, in_line = row
        assert dict(states) == self.model.states()
        assert {tuple(row) for row in keys} == self.model.keys()
        assert let_in <= CONCURRENCY
        assert not in_line or let_in == CONCURRENCY

    def teardown(self) -> None:
        """Everything ends, and nothing is left of it but its history."""
        while self.model.those(*OPEN):
            before = len(self.model.those(*OPEN))
            self.let_time_pass()
            self.run(self._compare())
            for name in NODES:
                while self.run(self._claim(name, 3)):
                    pass
            for job_id in sorted(self.held):
                self._finish(job_id, "succeeded")
                self.run(self._compare())
            assert len(self.model.those(*OPEN)) < before
        assert self.run(self.db.fetchval(_LEFTOVERS)) == 0


@pytest.mark.parametrize(
    "histories",
    [
        pytest.param(examples(20), id="a few histories"),
        pytest.param(examples(600, anew=True), id="new histories", marks=pytest.mark.long),
    ],
)
def test_what_jobs_are_asked_for_is_as_the_model_says_after_every_step(histories: settings, dsn: str) -> None:
    with asyncio.Runner() as runner:
        db = runner.run(asyncpg.connect(dsn, server_settings=UNSYNCED))
        runner.run(_prepare(db))
        machine = type("Machine", (Machine,), {"run": staticmethod(runner.run), "db": db})
        run_state_machine_as_test(machine, settings=histories)
        runner.run(db.close())


async def _prepare(db: DB) -> None:
    await db.execute(
        "INSERT INTO workerd.task (name, queue, priority, max_retries) VALUES ('work', 'one', 0, 3), ('limited', 'one', 0, 3)"
    )
    await db.execute("SELECT workerd.lane_of('one', 0)")
    await db.execute("SELECT workerd.add_history_days(ARRAY[86400.0::float8])")
    await limits.put(db, "task", "limited", Limit(None, CONCURRENCY))
