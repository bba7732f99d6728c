"""Dependencies and limits while nodes die: each job ends as the rules say, and no limit is exceeded."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tests.faults.fleet import daemons, leader, only_living, start
from tests.faults.span import Span, worked
from tests.support import until
from workerd import After

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import asyncpg

    from tests.faults.balance import Books
    from tests.support import DaemonProcess
    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

BRANCHES, LENGTH = (
    100,
    9,
)  # chains of one graph; with its root, its ends and what follows them it has 1,000 jobs and more
RATE = 50  # jobs/s
SAVED = RATE // 2  # tokens that a limit keeps at most
ADMITTED = """
    CREATE TABLE admitted (at timestamptz NOT NULL DEFAULT clock_timestamp());
    CREATE FUNCTION note_admitted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO admitted DEFAULT VALUES; RETURN NULL; END $$;
    CREATE TRIGGER admitted AFTER INSERT ON workerd.ready FOR EACH ROW EXECUTE FUNCTION note_admitted()
"""
FAILING = (17, 61)  # branches with a parent that fails


async def _graph(queue: Queue) -> dict[str, list[int]]:
    """A root, a hundred chains of nine after it, and what waits for their ends; returns which jobs have to end how."""
    ends: dict[str, list[int]] = {"succeeded": [], "failed": [], "cancelled": []}
    async with queue.connection() as connection, connection.transaction():
        root = await queue.enqueue("nap", {"seconds": 0.1}, connection=connection)
        ends["succeeded"].append(root)
        tips = []
        for branch in range(BRANCHES):
            job = root
            for link in range(LENGTH):
                fails = branch in FAILING and link == 4
                call = ("discarding", {}) if fails else ("nap", {"seconds": 0.005})
                job = await queue.enqueue(*call, after=[job], connection=connection)
                broken = branch in FAILING and link >= 4
                ends["failed" if fails else "cancelled" if broken else "succeeded"].append(job)
            tips.append(job)
        for state, after in (
            ("cancelled", After(tips)),
            ("succeeded", After(tips, end="finished")),
            ("succeeded", After(tips, need="any")),
            ("cancelled", After([tips[branch] for branch in FAILING], need="any")),
        ):
            ends[state].append(await queue.enqueue("nap", {"seconds": 0}, after=after, connection=connection))
    return ends


async def test_a_graph_of_a_thousand_jobs_ends_as_its_rules_say_though_a_node_is_killed_in_the_middle(
    settings: Settings, queue: Queue, db: DB, books: Books
) -> None:
    fleet = daemons(settings, "a", "b", workers=8)
    try:
        await start(*fleet)
        ends = await _graph(queue)
        await until(lambda: db.fetchval("SELECT count(*) > 300 FROM workerd.history"), "it is in the middle")
        killed = await leader(db, fleet)
        killed.kill()
        left = [daemon for daemon in fleet if daemon is not killed]
        await only_living(db, left)
        await books.settled(90)
        found: dict[str, set[int]] = {state: set() for state in ends}
        for row in await db.fetch("SELECT id, state FROM workerd.history"):
            found[row["state"]].add(row["id"])
        assert found == {state: set(jobs) for state, jobs in ends.items()}
        started_early = await db.fetchval(
            "SELECT count(*) FROM workerd.dependency d JOIN workerd.history c ON c.id = d.child JOIN workerd.history p ON p.id = d.parent"
            " JOIN workerd.history o ON o.id = c.id AND o.options -> 'after' ->> 0 = 'all' WHERE c.started_at < p.finished_at"
        )
        assert started_early == 0
        assert await books.close(*left) == []
    finally:
        for daemon in fleet:
            daemon.kill()


async def test_a_rate_holds_over_two_nodes_and_is_used(settings: Settings, queue: Queue, db: DB, books: Books) -> None:
    """50 a second for 8 seconds, as they are let in: never more than that and what may be saved up, and at least 95 % of it."""
    fleet = daemons(settings, "a", "b")
    await db.execute(ADMITTED)
    try:
        await start(*fleet)
        jobs = RATE * 8 + SAVED
        await queue.enqueue_many("fifty_a_second", [{}] * jobs)
        async with Span(db, *fleet) as span:
            await until(lambda: _all_have_run(db, jobs), "all have run", 60)
        times = [row[0].timestamp() for row in await db.fetch("SELECT at FROM admitted ORDER BY at")]
        assert len(times) == jobs
        over = max(n - m - RATE * (times[n] - times[m]) for m in range(0, jobs, 10) for n in range(m, jobs))
        took = times[-1] - times[0]
        print(
            f"50/s over two nodes: {over:.0f} more than those of the time, {jobs} took {took:.2f} s, waited {span.waited:.2f}"
        )
        assert over <= SAVED + 2
        assert (jobs - SAVED) / RATE * 0.99 <= took <= jobs / RATE / 0.95 + span.waited
        assert await db.fetchval("SELECT count(DISTINCT node) FROM workerd.history") == 2
        assert await books.close(*fleet) == []
    finally:
        for daemon in fleet:
            daemon.kill()


async def _all_have_run(db: DB, jobs: int) -> bool:
    count: int = await db.fetchval("SELECT count(*) FROM workerd.history")
    return count >= jobs


async def test_concurrency_holds_though_the_leader_is_killed_again_and_again(
    settings: Settings, queue: Queue, db: DB, books: Books
) -> None:
    """The jobs of a node that died count as running until they are rescued, so there are never more at a time than the limit."""
    fleet = daemons(settings, "a", "b", workers=8)
    try:
        await start(*fleet)
        await queue.enqueue_many("crowd", [{"tenant": n % 3} for n in range(300)])
        for share in (60, 120):
            await until(partial(db.fetchval, "SELECT count(*) > $1 FROM workerd.history", share), "some have run")
            killed = await leader(db, fleet)
            killed.kill()
            await start(killed)
        await books.settled(90)
        most = await db.fetchval("SELECT max(n) FROM crowd")
        assert most <= 4
        assert await db.fetchval("SELECT count(*) FROM workerd.history WHERE state <> 'succeeded'") == 0
        await only_living(db, fleet)
        assert await books.close(*fleet) == []
    finally:
        for daemon in fleet:
            daemon.kill()


async def _limited(queue: Queue, db: DB, jobs: int) -> Callable[[], Awaitable[object]]:
    """Jobs of a paused queue that wait for their turn; the queue is resumed."""
    await queue.enqueue("fair", {"tenant": 0})
    await db.execute("UPDATE workerd.queue SET paused_at = now()")
    await queue.enqueue_many("fair", [{"tenant": n % 1000} for n in range(jobs)])

    async def resume() -> None:
        await db.execute("UPDATE workerd.queue SET paused_at = NULL")
        await db.execute("SELECT pg_notify('workerd', 'lanes'), workerd.wake_leader()")

    return resume


async def _dependent(queue: Queue, db: DB, jobs: int) -> Callable[[], Awaitable[object]]:
    """Jobs that wait for one, which is queued."""
    parent = await queue.enqueue("nap", {"seconds": 0}, delay="1h")
    await queue.enqueue_many("nap", [{"seconds": 0}] * jobs, after=[parent])
    await until(
        lambda: db.fetchval("SELECT NOT EXISTS (SELECT FROM workerd.unlooked)"), "their parent was looked at", 60
    )
    return lambda: queue.retry(parent)


async def test_admission_keeps_up_with_the_enqueues(
    settings: Settings, queue: Queue, db: DB, daemon: DaemonProcess
) -> None:
    """It costs a server less than ten times what they cost, and rests less than admits 5,000 a second."""
    daemon.settings = settings.model_copy(update={"workers": 50})
    daemon.start()
    jobs = 20_000
    for what, prepare in (("limits", _limited), ("dependencies", _dependent)):
        before = await worked(db, "worker client")
        release = await prepare(queue, db, jobs)
        enqueued = await worked(db, "worker client") - before
        before = await worked(db, "worker % maintenance")
        async with Span(db, daemon) as span:
            await release()
            await until(lambda: db.fetchval("SELECT NOT EXISTS (SELECT FROM workerd.scheduled)"), "all are admitted")
        admitted = await worked(db, "worker % maintenance") - before
        print(f"{what}: enqueues took the server {enqueued:.2f} s, admission {admitted:.2f} s, rest {span.rest:.2f} s")
        assert admitted < 10 * enqueued
        assert span.rest < jobs / 5000
