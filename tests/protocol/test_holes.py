"""What could lose a job or run it twice, one test for each: two or more sessions in the one order that matters."""

from __future__ import annotations

import asyncio
import json
import random
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

import asyncpg
import pytest

from tests.handlers import gate
from tests.protocol.test_state_machine import DAY, TASK, broken, end, enqueue, wanted
from tests.support import InProcess, state_of, until, until_state
from workerd.daemon.lows import Lows
from workerd.errors import LaneLocked, NodeDead
from workerd.queue import node as registry
from workerd.queue.claim import BEGINNING, Answer, Claimed, Wanted, claim
from workerd.queue.cycle import cycle
from workerd.queue.database import connect
from workerd.queue.finish import finish, give_back, own_leases, split
from workerd.queue.lane import Lane, lanes
from workerd.queue.rescue import declare_dead, look, rescue
from workerd.queue.stage import stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

MAX_CRASHES = 3
LATE = 5.0  # seconds that a transaction stays open: no event tells that the daemon has passed it for good
SOON = 15.0  # seconds, on whatever machine: half of the heartbeat and a quarter of the poll that would find the job as well
CUT_LIVENESS = """
    SELECT pg_terminate_backend(k.pid, 5000) FROM pg_locks k JOIN workerd.node n
    ON k.objsubid = 1 AND k.classid::bigint = n.id >> 32 AND k.objid::bigint = n.id & 4294967295 WHERE k.locktype = 'advisory'
"""
CUT_ALL = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'worker%'
"""
SLEEPERS = """
    SELECT count(*) FROM pg_locks
    WHERE locktype = 'advisory' AND mode = 'ShareLock' AND classid = 'workerd.queue'::regclass AND database = (
        SELECT oid FROM pg_database WHERE datname = current_database())
"""
CUT_SLEEPERS_AND_ENQUEUE = """
    WITH cut AS MATERIALIZED (
        SELECT pid, pg_terminate_backend(pid, 5000) AS gone FROM pg_locks
        WHERE locktype = 'advisory' AND mode = 'ShareLock' AND classid = 'workerd.queue'::regclass GROUP BY pid)
    SELECT CASE WHEN bool_and(gone) THEN workerd.enqueue('echo', '{"value": "in the gap"}') END FROM cut
"""
WAITS_FOR_CLIENT = "SELECT wait_event = 'ClientWrite' FROM pg_stat_activity WHERE pid = $1"
ALL_LOCKED = """
    SELECT count(*) = 2 FROM pg_locks k JOIN workerd.node n
    ON k.objsubid = 1 AND k.classid::bigint = n.id >> 32 AND k.objid::bigint = n.id & 4294967295 WHERE k.locktype = 'advisory'
"""


@pytest.fixture
async def sessions(dsn: str) -> AsyncIterator[list[DB]]:
    """Three more connections, closed without waiting for what they do."""
    opened = [await connect(dsn, claims=True) for _ in range(3)]
    yield opened
    for session in opened:
        session.terminate()


@pytest.fixture
async def lane(db: DB) -> Lane:
    """The one lane, and two living nodes: 1 and 2."""
    await db.execute("SELECT workerd.lane_of('default', 0)")
    for node in (1, 2):
        await live(db, node)
    (found,) = await lanes(db, [])
    return found


@pytest.fixture(autouse=True)
async def nothing_broken(db: DB) -> AsyncIterator[None]:
    yield
    assert await broken(db) == []


async def live(db: DB, node: int) -> None:
    about = registry.Registration(f"node {node}", 1, "1", 60.0, [TASK], [])
    await registry.register(db, node, about, workers=4, locked=False)


async def die(db: DB, node: int) -> None:
    (sight,) = [sight for sight in await look(db) if sight.id == node]
    assert await declare_dead(db, sight)


async def take(db: DB, node: int, n: int, lane: Lane, batch: int = 10, low: int = BEGINNING) -> Answer:
    return await claim(db, node, wanted(n, [(lane, low)], batch))


async def jobs_of(db: DB, node: int, n: int, lane: Lane, batch: int = 10) -> list[Claimed]:
    return (await take(db, node, n, lane, batch)).jobs


async def ids(db: DB, node: int, n: int, lane: Lane) -> list[int]:
    return [job.id for job in await jobs_of(db, node, n, lane)]


async def cancel(db: DB, job: int) -> str:
    state: str = await db.fetchval("SELECT workerd.cancel($1, $2)", job, DAY)
    return state


async def until_waiting(db: DB, session: DB, call: asyncio.Task[Any]) -> None:
    """Return when this session, which makes the call, waits for a lock of another one. Fails where the call does not wait."""

    async def waits() -> Any:
        assert not call.done(), "the session did not wait for another one"
        return await db.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", session.get_server_pid())

    await until(waits, "the session waits for another one")


# What a claim sees


async def test_a_claim_that_waited_for_another_takes_nothing_of_it(db: DB, sessions: list[DB], lane: Lane) -> None:
    first, second, _ = sessions
    jobs = [await enqueue(db, lane) for _ in range(4)]
    async with first.transaction():
        early = await jobs_of(first, 1, 1, lane, 2)
        waiting = asyncio.create_task(ids(second, 2, 1, lane))
        await until_waiting(db, second, waiting)
    assert [job.id for job in early] == jobs[:2]
    assert await waiting == jobs[2:]


async def test_a_claim_that_waited_does_not_take_what_was_finished_meanwhile(
    db: DB, sessions: list[DB], lane: Lane
) -> None:
    first, second, third = sessions
    await enqueue(db, lane)
    held = await jobs_of(db, 1, 1, lane)
    left = await enqueue(db, lane)
    async with first.transaction():
        await first.execute("SELECT workerd.lock_lane($1)", lane.id)
        waiting = asyncio.create_task(ids(second, 2, 1, lane))
        await until_waiting(db, second, waiting)
        assert await finish(third, 1, [end(held[0], "succeeded")]) == [True]
    assert await waiting == [left]


async def test_a_claim_during_a_finish_does_not_take_the_job_that_ends(db: DB, sessions: list[DB], lane: Lane) -> None:
    first, second, _ = sessions
    await enqueue(db, lane)
    held = await jobs_of(db, 1, 1, lane)
    for ending in ("succeeded", "succeeded, not kept", "failed"):
        transaction = first.transaction()
        await transaction.start()
        assert await finish(first, 1, [end(held[0], ending)]) == [True]
        assert await ids(second, 2, 1, lane) == []
        await transaction.rollback()


@pytest.mark.parametrize("level", ["repeatable_read", "serializable"])
async def test_a_claim_that_would_see_the_past_is_refused(db: DB, lane: Lane, level: Any) -> None:
    await enqueue(db, lane)
    with pytest.raises(asyncpg.RaiseError, match="READ COMMITTED"):
        async with db.transaction(isolation=level):
            await take(db, 1, 1, lane)


async def test_the_database_may_have_another_isolation_level_by_default(db: DB, dsn: str, lane: Lane) -> None:
    job = await enqueue(db, lane)
    name = await db.fetchval("SELECT quote_ident(current_database())")
    await db.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    connection = await connect(dsn)
    assert await ids(connection, 1, 1, lane) == [job]
    await connection.close()


# Answers that were lost


async def test_a_claim_whose_answer_was_lost_is_given_back(node: InProcess, db: DB, queue: Queue) -> None:
    """The claim runs in the name of the daemon, which never hears of it."""
    await queue.enqueue("echo", {})
    me = int((await node.ask("status"))["data"]["node_id"])
    async with db.transaction():
        job = await queue.enqueue("echo", {"value": 1}, connection=db)
        (mine,) = [found for found in await lanes(db, []) if (found.queue, found.priority) == ("default", 0)]
        low = await db.fetchval("SELECT pos FROM workerd.ready WHERE id = $1", job)
        answer = await claim(db, me, Wanted(10**6, [(mine, low)], 9, ["echo"], free=True, alone=True, last_chance=2))
        assert [taken.id for taken in answer.jobs] == [job]
    row = await until_state(db, job, "succeeded")
    assert row["attempt"] == 1


async def test_a_finish_whose_answer_was_lost_may_be_sent_again(db: DB, lane: Lane) -> None:
    first, second = [await enqueue(db, lane) for _ in range(2)]
    ends = [end(job, "retry later") for job in await jobs_of(db, 1, 1, lane)]
    assert await finish(db, 1, ends) == [True, True]
    assert await finish(db, 1, ends) == [False, False]
    for job in (first, second):
        assert await db.fetchval("SELECT attempt FROM workerd.job WHERE id = $1", job) == 1


# Rescue is a condition, not an event


async def test_a_claim_that_commits_after_its_node_was_rescued_is_rescued_too(
    db: DB, sessions: list[DB], lane: Lane
) -> None:
    slow = sessions[0]
    job = await enqueue(db, lane)
    async with slow.transaction():
        assert await ids(slow, 1, 1, lane) == [job]
        await die(db, 1)
        assert await rescue(db, MAX_CRASHES, DAY) == []
    assert [taken.id for taken in await rescue(db, MAX_CRASHES, DAY)] == [job]
    assert await ids(db, 2, 1, lane) == [job]


async def test_a_dead_node_claims_nothing(db: DB, lane: Lane) -> None:
    job = await enqueue(db, lane)
    await die(db, 1)
    with pytest.raises(NodeDead):
        await take(db, 1, 1, lane)
    assert await state_of(db, job) == "queued"


# A lease is exactly what still runs


@pytest.mark.parametrize("ending", ["succeeded", "succeeded, not kept", "returned"])
async def test_the_last_two_jobs_of_a_lease_may_end_at_the_same_time(
    db: DB, sessions: list[DB], lane: Lane, ending: str
) -> None:
    first, second, _ = sessions
    for _ in range(2):
        await enqueue(db, lane)
    one, two = await jobs_of(db, 1, 1, lane)
    async with first.transaction():
        assert await finish(first, 1, [end(one, ending)]) == [True]
        other = asyncio.create_task(finish(second, 1, [end(two, ending)]))
        await until_waiting(db, second, other)
    assert await other == [True]
    assert await db.fetchval("SELECT count(*) FROM workerd.lease") == 0


# Fences


async def test_a_late_finish_does_not_end_the_next_run_of_its_job(db: DB, lane: Lane) -> None:
    """Node, number and ticket: the job has kept its ticket, and the other node uses the same number."""
    job = await enqueue(db, lane)
    (early,) = await jobs_of(db, 1, 1, lane)
    await die(db, 1)
    await rescue(db, MAX_CRASHES, DAY)
    (late,) = await jobs_of(db, 2, 1, lane)
    assert (late.n, late.pos) == (early.n, early.pos)
    for ending in ("succeeded", "succeeded, not kept", "retry", "returned"):
        assert await finish(db, 1, [end(early, ending)]) == [False]
    assert await give_back(db, 1, 1, None, DAY) == 0
    assert not await split(db, early, 2)
    row = await db.fetchrow("SELECT state, attempt, node FROM workerd.job WHERE id = $1", job)
    assert row is not None
    assert tuple(row) == ("running", 2, "node 2")


async def test_a_lease_number_used_twice_is_refused(db: DB, lane: Lane) -> None:
    """A lost claim may commit late: were its number used again, one fence would stand for two claims."""
    for _ in range(2):
        await enqueue(db, lane)
    await jobs_of(db, 1, 1, lane, 1)
    with pytest.raises(asyncpg.UniqueViolationError):
        await take(db, 1, 1, lane)


async def test_a_ticket_outside_of_its_lease_is_no_fence(db: DB, lane: Lane) -> None:
    """Of a lease that still has other tickets."""
    for _ in range(2):
        await enqueue(db, lane)
    one, _ = await jobs_of(db, 1, 1, lane)
    assert await give_back(db, 1, 1, [one.pos], DAY) == 1
    assert [job.pos for job in await jobs_of(db, 2, 1, lane)] == [one.pos]
    for ending in ("succeeded", "succeeded, not kept", "retry"):
        assert await finish(db, 1, [end(one, ending)]) == [False]
    assert await state_of(db, one.id) == "running"


# Cancel


async def test_a_cancel_during_a_claim_finds_the_job_running(db: DB, sessions: list[DB], lane: Lane) -> None:
    first, second, _ = sessions
    job = await enqueue(db, lane)
    async with first.transaction():
        assert await ids(first, 1, 1, lane) == [job]
        coming = asyncio.create_task(cancel(second, job))
        await until_waiting(db, second, coming)
    assert await coming == "again"
    assert await cancel(second, job) == "running"
    assert await state_of(db, job) == "running"


async def test_a_claim_during_a_cancel_does_not_take_the_job(db: DB, sessions: list[DB], lane: Lane) -> None:
    first, second, _ = sessions
    job = await enqueue(db, lane)
    async with first.transaction():
        assert await cancel(first, job) == "queued"
        coming = asyncio.create_task(ids(second, 1, 1, lane))
        await until_waiting(db, second, coming)
    assert await coming == []
    assert await state_of(db, job) == "cancelled"


async def test_a_cancel_that_commits_during_a_rescue_is_not_forgotten(db: DB, sessions: list[DB], lane: Lane) -> None:
    first, second, _ = sessions
    job = await enqueue(db, lane)
    await take(db, 1, 1, lane)
    await die(db, 1)
    async with first.transaction():
        assert await cancel(first, job) == "running"
        assert await rescue(second, MAX_CRASHES, DAY) == []
    assert await rescue(second, MAX_CRASHES, DAY) == []
    (row,) = await db.fetch("SELECT state, attempt, attempts -> 0 ->> 'outcome' FROM workerd.job WHERE id = $1", job)
    assert tuple(row) == ("cancelled", 1, "crashed"), "the attempt of the dead node counts"


@pytest.mark.parametrize("ending", ["retry", "retry later", "snooze", "returned"])
async def test_a_cancel_that_commits_while_the_attempt_ends_is_not_forgotten(
    db: DB, sessions: list[DB], lane: Lane, ending: str
) -> None:
    first, second, _ = sessions
    job = await enqueue(db, lane)
    (held,) = await jobs_of(db, 1, 1, lane)
    async with first.transaction():
        assert await cancel(first, job) == "running"
        coming = asyncio.create_task(finish(second, 1, [end(held, ending)]))
        await until_waiting(db, second, coming)
    assert await coming == [True]
    assert await state_of(db, job) == "cancelled"


async def test_a_cancel_moves_with_its_job_into_another_lease(db: DB, lane: Lane) -> None:
    for _ in range(2):
        await enqueue(db, lane)
    one, two = await jobs_of(db, 1, 1, lane)
    await cancel(db, one.id)
    assert await split(db, one, 2)
    asked = {lease.n: (set(lease.tickets), set(lease.cancel)) for lease in await own_leases(db, 1)}
    assert asked == {1: ({two.pos}, set()), 2: ({one.pos}, {one.pos})}


async def test_cancelling_a_running_job_blocks_neither_its_lane_nor_its_node(
    db: DB, sessions: list[DB], lane: Lane
) -> None:
    """A node that finishes and claims in one transaction takes the lease, then the lane; the cancel must not do the reverse."""
    first, second, third = sessions
    for _ in range(2):
        await enqueue(db, lane)
    one, two = await jobs_of(db, 1, 1, lane)
    left = await enqueue(db, lane)
    async with first.transaction():
        assert await finish(first, 1, [end(one, "succeeded")]) == [True]
        coming = asyncio.create_task(cancel(second, two.id))
        await until_waiting(db, second, coming)
        assert await ids(third, 2, 1, lane) == [left]
        assert await ids(first, 1, 2, lane) == []
    assert await coming == "running"


async def test_a_cancel_finds_a_job_that_is_being_moved(db: DB, sessions: list[DB], lane: Lane) -> None:
    first, second, _ = sessions
    job = await enqueue(db, lane, delay="0.001 s")
    await until(lambda: db.fetchval("SELECT run_at <= clock_timestamp() FROM workerd.scheduled"), "it is due")
    async with first.transaction():
        assert (await stage(first))[0] == 1
        coming = asyncio.create_task(cancel(second, job))
        await until_waiting(db, second, coming)
    assert await coming == "again"
    assert await cancel(second, job) == "queued"


# The lane's lock is never held for a client


@pytest.mark.parametrize(("many", "text"), [(500, "random"), (500, "x" * 3000), (3, "x" * 900_000)])
async def test_a_client_that_stops_reading_does_not_hold_up_its_lane(
    db: DB, sessions: list[DB], lane: Lane, many: int, text: str
) -> None:
    """The answer to a claim is sent before the commit: it has to fit into the buffers in between."""
    frozen = sessions[0]
    assert await ids(frozen, 1, 1, lane) == []  # the statement is prepared
    await fill(db, lane, many, text)
    transport = cast("Any", frozen)._transport
    transport.pause_reading()
    coming = asyncio.create_task(jobs_of(frozen, 1, 2, lane, many))

    async def committed() -> Any:
        assert not await db.fetchval(WAITS_FOR_CLIENT, frozen.get_server_pid()), "the claim waits for its client"
        return await db.fetchval("SELECT true FROM workerd.lease")

    await until(committed, "the claim commits")
    transport.resume_reading()
    jobs = await coming
    assert len(jobs) == many
    assert all(json.loads(job.payload)["text"] for job in jobs)


async def fill(db: DB, lane: Lane, many: int, text: str) -> None:
    texts = [random.Random(n).randbytes(400).hex() if text == "random" else text for n in range(many)]
    await db.execute(
        "SELECT workerd.enqueue_many($1, $2, queue => $3, priority => $4)",
        TASK,
        [json.dumps({"text": text}) for text in texts],
        lane.queue,
        lane.priority,
    )


async def test_a_job_that_is_lost_before_its_large_payload_is_read_is_left_out(db: DB, lane: Lane) -> None:
    """A node may be frozen between the two, and its jobs ended by another one."""
    await fill(db, lane, 1, "x" * 100_000)
    small = await enqueue(db, lane)

    class Frozen:
        fetchrow = db.fetchrow

        async def fetch(self, query: str, *args: Any) -> list[asyncpg.Record]:
            """The second query, for the payload."""
            await die(db, 1)
            await rescue(db, MAX_CRASHES, DAY)
            (job,) = await jobs_of(db, 2, 1, lane, 1)
            assert await finish(db, 2, [end(job, "succeeded")]) == [True]
            return await db.fetch(query, *args)

    answer = await take(cast("DB", Frozen()), 1, 1, lane)
    assert [job.id for job in answer.jobs] == [small]


async def test_a_job_that_ends_in_a_long_transaction_holds_up_no_other(db: DB, sessions: list[DB], lane: Lane) -> None:
    """Neither its siblings, nor the lane, nor their rescue."""
    long, second, _ = sessions
    for _ in range(3):
        await enqueue(db, lane)
    one, two, three = await jobs_of(db, 1, 1, lane)
    left = await enqueue(db, lane)
    assert await split(db, one, 2)
    one.n = 2
    async with long.transaction():
        assert await finish(long, 1, [end(one, "succeeded")]) == [True]
        assert await finish(second, 1, [end(two, "succeeded")]) == [True]
        assert await ids(second, 2, 1, lane) == [left]
        await die(db, 1)
        assert [job.id for job in await rescue(second, MAX_CRASHES, DAY)] == [three.id]
    assert await rescue(second, MAX_CRASHES, DAY) == []
    assert await state_of(db, one.id) == "succeeded"


# A blocked lane


async def test_jobs_end_while_their_lane_is_locked(db: DB, sessions: list[DB], lane: Lane) -> None:
    first, second, _ = sessions
    for _ in range(8):
        await enqueue(db, lane)
    jobs = await jobs_of(db, 1, 1, lane)
    async with first.transaction():
        await first.execute("SELECT workerd.lock_lane($1)", lane.id)
        endings = ["succeeded", "succeeded, not kept", "failed", "retry", "retry later", "snooze", "returned"]
        for job, ending in zip(jobs, endings, strict=False):
            assert await finish(second, 1, [end(job, ending)]) == [True]
        assert await give_back(second, 1, 1, None, DAY) == 1


async def test_a_cycle_on_a_locked_lane_gives_up_and_writes_nothing(db: DB, sessions: list[DB], lane: Lane) -> None:
    """So that its ends are written by themselves: they wait for no lane."""
    first, second, _ = sessions
    for _ in range(2):
        await enqueue(db, lane)
    (job,) = await jobs_of(db, 1, 1, lane, 1)
    async with first.transaction():
        await first.execute("SELECT workerd.lock_lane($1)", lane.id)
        with pytest.raises(LaneLocked):
            await cycle(second, 1, [end(job, "succeeded")], wanted(2, [(lane, BEGINNING)]))
        assert await state_of(db, job.id) == "running"
        assert await finish(second, 1, [end(job, "succeeded")]) == [True]
    held, answer = await cycle(second, 1, [end(job, "succeeded")], wanted(3, [(lane, BEGINNING)]))
    assert held == [False]
    assert len(answer.jobs) == 1


async def test_a_daemon_writes_what_ends_while_its_lane_is_locked_and_claims_afterwards(
    node: InProcess, db: DB, queue: Queue
) -> None:
    begun, go_on = gate(1)
    job = await queue.enqueue("gated", {"number": 1})
    await begun.wait()
    async with db.transaction():
        for found in await lanes(db, []):
            await db.execute("SELECT workerd.lock_lane($1)", found.id)
        waiting = await queue.enqueue("echo", {"value": 2})
        go_on.set()
        assert await queue.result(job, timeout=60) == "went on"
        assert await state_of(db, waiting) == "queued"
    assert await queue.result(waiting, timeout=60) == 2


# Who is dead


@pytest.mark.parametrize("cutting", [CUT_LIVENESS, CUT_ALL], ids=["that of liveness", "all of them"])
async def test_daemons_whose_connections_are_cut_keep_their_jobs(
    node: InProcess, db: DB, queue: Queue, settings: Settings, cutting: str
) -> None:
    """With them goes the lock, as at a restart of the server: a free lock is a suspicion only. The other daemon would rescue."""
    other = settings.model_copy(update={"name": "second", "runtime_dir": settings.runtime_dir / "2"})
    begun, go_on = gate(2)
    async with InProcess(other):
        job = await queue.enqueue("gated", {"number": 2})
        await begun.wait()
        for _ in range(3):
            assert len(await db.fetch(cutting)) >= 2
            await until(lambda: db.fetchval(ALL_LOCKED), "both daemons have their locks again")
        go_on.set()
        row = await until_state(db, job, "succeeded")
    assert row["attempt"] == 1
    assert await db.fetchval("SELECT count(*) FROM workerd.node WHERE dead_at IS NOT NULL AND NOT stopped") == 0, (
        "a node was declared dead"
    )


async def test_a_node_that_beats_is_not_declared_dead(db: DB, lane: Lane) -> None:
    """Though it looked dead just before."""
    seen = await look(db)
    assert await registry.beat(db, 1, registry.Figures())
    assert [await declare_dead(db, sight) for sight in seen if sight.id == 1] == [False]
    job = await enqueue(db, lane)
    assert await ids(db, 1, 1, lane) == [job]


async def test_a_node_that_was_declared_dead_is_never_revived(db: DB, lane: Lane) -> None:
    await die(db, 1)
    assert not await registry.beat(db, 1, registry.Figures())
    with pytest.raises(asyncpg.UniqueViolationError):
        await live(db, 1)
    assert [sight.id for sight in await look(db)] == [2]


# Low bounds, and those who sleep


async def test_a_claim_that_finds_nothing_counts_the_transactions_that_may_still_commit(
    db: DB, sessions: list[DB], lane: Lane
) -> None:
    """Those that saw nobody asleep: until they have ended, the node does not rely on being woken."""
    late, sleeper, _ = sessions
    async with late.transaction():
        job = await enqueue(late, lane)
        first = await doze(sleeper, 1, lane)
        assert first.oldest_xid < first.next_xid
    second = await doze(sleeper, 2, lane)
    assert [taken.id for taken in second.jobs] == [job]
    calm = await claim(sleeper, 1, wanted(3, [(lane, second.last + 1)], rest=True))
    assert calm.lane is None
    assert calm.oldest_xid >= first.next_xid


async def test_an_enqueue_notifies_while_somebody_sleeps_on_its_lane(db: DB, sessions: list[DB], lane: Lane) -> None:
    sleeper, listener, other = sessions
    heard = asyncio.Queue[str]()
    await listener.add_listener("workerd", lambda *event: heard.put_nowait(str(event[-1])))
    await enqueue(db, lane)
    assert len((await doze(sleeper, 1, lane)).jobs) == 1
    await enqueue(db, lane)
    await other.execute("NOTIFY workerd, 'mark'")
    assert await heard.get() == "mark", "nobody sleeps"
    assert len((await doze(sleeper, 2, lane)).jobs) == 1
    assert (await doze(sleeper, 3, lane)).lane is lane
    ways: list[Callable[[], Awaitable[Any]]] = [
        lambda: enqueue(db, lane),
        lambda: fill(db, lane, 1, "x"),
        lambda: stage_one(db, lane),
    ]
    for n, way in enumerate(ways):
        await drowse(sleeper, 10 * n + 10, lane)
        await way()
        assert await asyncio.wait_for(heard.get(), 3) == "ready"
    sleeper.terminate()


async def test_who_falls_asleep_looks_again_when_it_can_be_seen(db: DB, sessions: list[DB], lane: Lane) -> None:
    """The enqueue commits between the look and the sleep: nobody was there to be notified."""
    waking, sleeper, _ = sessions
    key = "('workerd.queue'::regclass::oid::int, workerd.sleep_lock($1))"
    await waking.execute(f"SELECT pg_advisory_lock{key}", lane.id)
    falling = asyncio.create_task(doze(sleeper, 1, lane))
    await until_waiting(db, sleeper, falling)
    job = await enqueue(db, lane)
    await waking.execute(f"SELECT pg_advisory_unlock{key}", lane.id)
    assert [taken.id for taken in (await falling).jobs] == [job]


async def doze(db: DB, n: int, lane: Lane) -> Answer:
    return await claim(db, 1, wanted(n, [(lane, BEGINNING)], rest=True))


async def drowse(db: DB, n: int, lane: Lane) -> None:
    """Claim until nothing is left and the session sleeps."""
    low = BEGINNING
    while True:
        answer = await claim(db, 1, wanted(n, [(lane, low)], rest=True))
        if answer.lane is None:
            return
        n, low = n + 1, answer.last + 1


async def stage_one(db: DB, lane: Lane) -> None:
    await enqueue(db, lane, delay="0.001 s")
    await until(lambda: db.fetchval("SELECT run_at <= clock_timestamp() FROM workerd.scheduled"), "it is due")
    assert (await stage(db))[0] == 1


@pytest.mark.parametrize("busy", [False, True])
async def test_a_job_that_commits_late_is_started_without_a_poll(
    settings: Settings, queue: Queue, db: DB, busy: bool
) -> None:
    """Long after those that were enqueued later, by a daemon that sleeps and by one that works all the time; without polls."""
    async with InProcess(settings.model_copy(update={"poll_interval": 60.0, "heartbeat_interval": 30.0})):
        stream = asyncio.create_task(keep_busy(queue) if busy else asyncio.sleep(0))
        async with db.transaction():
            late = await queue.enqueue("echo", {"value": "late"}, connection=db)
            later = [await queue.enqueue("echo", {"value": n}) for n in range(3)]
            assert [await queue.result(job, timeout=60) for job in later] == [0, 1, 2]
            await asyncio.sleep(LATE)
        committed = monotonic()
        assert await queue.result(late, timeout=SOON) == "late"
        assert monotonic() - committed < SOON
        stream.cancel()


async def test_an_enqueue_while_the_daemon_has_no_connection_is_started_when_it_commits(
    settings: Settings, queue: Queue, db: DB, dsn: str
) -> None:
    """It saw nobody asleep, and commits when the daemon sleeps again; without polls."""
    observer = await asyncpg.connect(dsn)
    async with InProcess(settings.model_copy(update={"poll_interval": 60.0, "heartbeat_interval": 30.0})):
        for n in range(3):
            assert await queue.result(await queue.enqueue("echo", {"value": n}), timeout=60) == n
            await until(lambda: observer.fetchval(SLEEPERS), "it sleeps")
            async with db.transaction():
                job = await db.fetchval(CUT_SLEEPERS_AND_ENQUEUE)
                await until(lambda: observer.fetchval(SLEEPERS), "it sleeps again")
            committed = monotonic()
            assert await queue.result(job, timeout=SOON) == "in the gap"
            assert monotonic() - committed < SOON
    await observer.close()


async def keep_busy(queue: Queue) -> None:
    while True:
        await asyncio.gather(*[queue.enqueue("echo", {"value": n}) for n in range(20)])


async def test_an_enqueue_that_meets_a_daemon_that_falls_asleep_is_started(settings: Settings, queue: Queue) -> None:
    """Each one as soon as the one before has ended, which is when the daemon finds nothing more; without polls."""
    slowest = 0.0
    async with InProcess(settings.model_copy(update={"poll_interval": 60.0, "heartbeat_interval": 30.0})):
        for n in range(150):
            began = monotonic()
            assert await queue.result(await queue.enqueue("echo", {"value": n}), timeout=60) == n
            slowest = max(slowest, monotonic() - began)
    assert slowest < SOON


async def test_a_job_given_back_during_a_claim_is_found_by_the_next(
    db: DB, sessions: list[DB], lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The notification comes before the answer to the claim, which has passed that job."""
    first, second, _ = sessions
    monkeypatch.setattr("workerd.daemon.lows.monotonic", lambda: 0.0)  # no sweep but the first
    early = await enqueue(db, lane)
    await take(db, 1, 1, lane)
    late = await enqueue(db, lane)
    lows, heard = Lows(), asyncio.Queue[list[str]]()
    lows.set_lanes([lane])
    await db.add_listener("workerd", lambda *event: heard.put_nowait(str(event[-1]).split()))
    async with first.transaction():
        await first.execute("SELECT workerd.lock_lane($1)", lane.id)
        targets = lows.targets()
        coming = asyncio.create_task(claim_passing(second, targets, early))
        await until_waiting(db, second, coming)
        held = (await own_leases(db, 1))[0]
        assert await give_back(db, 1, held.n, None, DAY) == 1
        word, of_lane, pos = await heard.get()
        assert word == "rewind"
        lows.rewind(int(of_lane), int(pos))
    answer = await coming
    assert [job.id for job in answer.jobs] == [late]
    lows.learn(answer.lane, answer.last, 0.0)
    again = await claim(second, 2, wanted(2, lows.targets()))
    assert [job.id for job in again.jobs] == [early]


async def claim_passing(db: DB, targets: list[tuple[Lane, int]], job: int) -> Answer:
    """A claim whose bound lies behind this job already."""
    pos = await db.fetchval("SELECT pos FROM workerd.ready WHERE id = $1", job)
    return await claim(db, 2, wanted(1, [(lane, pos + 1) for lane, _ in targets]))


async def test_a_job_that_commits_behind_every_bound_is_found_by_a_sweep(
    db: DB, sessions: list[DB], lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 0.0
    monkeypatch.setattr("workerd.daemon.lows.monotonic", lambda: clock)
    lows = Lows()
    lows.set_lanes([lane])

    async def taken(n: int) -> list[int]:
        answer = await claim(db, 1, wanted(n, lows.targets()))
        lows.learn(answer.lane, answer.last, 0.0)
        return [job.id for job in answer.jobs]

    async with sessions[0].transaction():
        late = await enqueue(sessions[0], lane)
        later = await enqueue(db, lane)
        assert await taken(1) == [later]
    assert await taken(2) == []
    clock = 2.0
    assert await taken(3) == [late]


# Lanes


async def test_lanes_hold_up_neither_each_other_nor_are_held_up_by_locks_of_applications(
    db: DB, sessions: list[DB], lane: Lane
) -> None:
    first, second, third = sessions
    await db.execute("SELECT workerd.lane_of('other', 0)")
    (other,) = [found for found in await lanes(db, []) if found.queue == "other"]
    jobs = [await enqueue(db, each) for each in (lane, other)]
    for key in (lane.id, other.id):
        await third.execute(
            "SELECT pg_advisory_lock($1::int::bigint), pg_advisory_lock($1::int, $1::int), pg_advisory_lock(0, $1::int)",
            key,
        )
    async with first.transaction():
        assert await ids(first, 1, 1, lane) == jobs[:1]
        assert await ids(second, 2, 1, other) == jobs[1:]
