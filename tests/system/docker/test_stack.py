"""Workers in containers: jobs survive whatever happens to these."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests import ledger
from tests.support import state_of, until, until_state
from tests.system.docker.load import under_load

if TYPE_CHECKING:
    import asyncpg

    from tests.faults.balance import Books
    from tests.system.docker.stack import Stack
    from workerd import Queue

    DB = asyncpg.Connection[asyncpg.Record]

pytestmark = pytest.mark.system

JOBS = 3000
GRACE = 50.0  # seconds, the stop_grace_period
NODES = "SELECT count(DISTINCT node) FROM workerd.job WHERE id > $1"
BOTH_RUN = "SELECT count(*) = 2 FROM workerd.job WHERE state = 'running' AND id = ANY ($1)"
OUTCOMES = "SELECT state, count(*) FROM workerd.job WHERE id > $1 GROUP BY state"


async def balanced(books: Books, db: DB, since: int, count: int) -> None:
    """Every job has succeeded once, and the ledger has nothing to object."""
    await books.settled(300)
    assert {row["state"]: row["count"] for row in await db.fetch(OUTCOMES, since)} == {"succeeded": count}
    assert await ledger.violations(db) == []


async def scaled(stack: Stack, db: DB, count: int) -> None:
    """Scale, and return when so many nodes live."""
    await asyncio.to_thread(stack.scale, count)
    await until(
        lambda: db.fetchval("SELECT count(*) = $1 FROM workerd.node WHERE dead_at IS NULL", count),
        f"{count} nodes live",
    )


async def newest(db: DB) -> int:
    found: int = await db.fetchval("SELECT coalesce(max(id), 0) FROM workerd.job")
    return found


async def test_three_workers_drain_three_thousand_jobs(stack: Stack, db: DB, queue: Queue, books: Books) -> None:
    since = await newest(db)
    await scaled(stack, db, 3)
    assert len({container["Config"]["Hostname"] for container in stack.workers()}) == 3
    await queue.enqueue_many("nap", [{"seconds": 0.02} for _ in range(JOBS)])
    await balanced(books, db, since, JOBS)
    assert await db.fetchval(NODES, since) == 3


async def test_a_killed_container_loses_no_job(stack: Stack, db: DB, queue: Queue, books: Books) -> None:
    since = await newest(db)
    await scaled(stack, db, 3)
    victim = stack.workers()[0]["Id"]
    await queue.enqueue_many("nap", [{"seconds": 0.1} for _ in range(600)])
    await until(lambda: db.fetchval("SELECT count(*) > 30 FROM workerd.history WHERE id > $1", since), "jobs end")
    stack.docker("kill", "--signal", "KILL", victim)
    await balanced(books, db, since, 600)
    assert await db.fetchval("SELECT sum(crashes) FROM workerd.history WHERE id > $1", since) > 0


async def test_scaling_up_and_down_under_load_loses_no_job(stack: Stack, db: DB, queue: Queue, books: Books) -> None:
    since = await newest(db)

    async def up_and_down() -> None:
        for count in (1, 3, 1, 2):
            await scaled(stack, db, count)

    await balanced(books, db, since, await under_load(queue, up_and_down()))
    assert await db.fetchval("SELECT sum(crashes) FROM workerd.history WHERE id > $1", since) == 0


async def test_a_daemon_that_is_killed_within_its_container_comes_back_and_its_jobs_are_rescued(
    stack: Stack, db: DB, queue: Queue, books: Books
) -> None:
    since = await newest(db)
    await scaled(stack, db, 1)
    container = stack.workers()[0]["Id"]
    restarts = stack.workers()[0]["RestartCount"]
    jobs = [await queue.enqueue("nap", {"seconds": 4.0}) for _ in range(4)]
    for job in jobs:
        await until_state(db, job, "running")
    pid = json.loads(stack.docker("exec", container, "workerctl", "status", "--json"))["pid"]
    stack.docker("exec", container, "sh", "-c", f"kill -s KILL {pid}")
    await balanced(books, db, since, len(jobs))
    assert await db.fetchval("SELECT sum(crashes) FROM workerd.history WHERE id > $1", since) == len(jobs)
    assert (stack.workers()[0]["Id"], stack.workers()[0]["RestartCount"]) == (container, restarts + 1)


async def test_after_a_reload_under_load_the_container_is_healthy_and_drains_as_before(
    stack: Stack, db: DB, queue: Queue, books: Books
) -> None:
    since = await newest(db)
    await scaled(stack, db, 1)
    container = stack.workers()[0]
    known: set[str] = set()

    def health() -> dict[str, Any]:
        told: dict[str, Any] = stack.workers()[0]["State"]["Health"]
        return told

    async def is_healthy() -> bool:
        return bool(health()["Status"] == "healthy")

    async def is_found_healthy_since() -> bool:
        checks = [check for check in health()["Log"] if check["Start"] not in known]
        assert [check for check in checks if check["ExitCode"] != 0] == []
        return len(checks) > 2

    async def reload_and_stop() -> None:
        await until(is_healthy, "it is healthy")
        known.update(check["Start"] for check in health()["Log"])  # those that a killed daemon left unanswered too
        await asyncio.to_thread(stack.docker, "exec", container["Id"], "workerctl", "reload")
        await until(is_found_healthy_since, "it is found healthy again and again after the reload")
        assert await is_healthy()
        await asyncio.to_thread(stack.docker, "stop", container["Id"])

    jobs = await under_load(queue, reload_and_stop())
    state = stack.workers()[0]["State"]
    assert (state["ExitCode"], state["StartedAt"]) == (0, container["State"]["StartedAt"])
    stack.up()
    await balanced(books, db, since, jobs)
    assert await db.fetchval("SELECT sum(crashes) FROM workerd.history WHERE id > $1", since) == 0


async def test_a_stopped_container_finishes_what_it_can_and_gives_back_the_rest(
    stack: Stack, db: DB, queue: Queue, books: Books
) -> None:
    since = await newest(db)
    await scaled(stack, db, 1)
    short, long = await queue.enqueue("nap", {"seconds": 2.0}), await queue.enqueue("nap", {"seconds": 8.0})
    await until(lambda: db.fetchval(BOTH_RUN, [short, long]), "both run")
    assert stack.workers()[0]["Config"]["StopTimeout"] == GRACE
    began = time.monotonic()
    stack.compose("stop", "worker")
    assert time.monotonic() - began < GRACE / 2
    stopped = [container["State"] for container in stack.workers()]
    assert {state["ExitCode"] for state in stopped} == {0}
    assert await state_of(db, short) == "succeeded"
    waiting = await db.fetchrow("SELECT id, failures, crashes FROM workerd.ready")
    assert waiting is not None
    assert tuple(waiting) == (long, 0, 0)
    stack.up()
    await balanced(books, db, since, 2)


async def test_orphans_in_the_container_leave_no_zombies(stack: Stack) -> None:
    orphan = "import os; os.fork() or (os.setsid(), os.fork() or os._exit(3), os._exit(0))"
    for _ in range(5):
        stack.compose("exec", "-T", "worker", "python", "-c", orphan)

    async def reaped() -> bool:
        states = stack.compose("exec", "-T", "worker", "sh", "-c", "cat /proc/[0-9]*/stat | sed 's/.*) //' | cut -c1")
        return "Z" not in states.split()

    await until(reaped, "PID 1 has reaped them")


def test_its_root_is_read_only_and_it_holds_no_capability(stack: Stack) -> None:
    container = stack.workers()[0]["HostConfig"]
    assert container["ReadonlyRootfs"]
    assert "Read-only file system" in stack.tried("exec", "-T", "worker", "touch", "/var/backups/worker/a").stderr
    assert container["Memory"] == 512 * 1024**2
    assert container["NanoCpus"] == 2 * 10**9
    assert container["PidsLimit"] == 512
    capabilities = stack.compose("exec", "-T", "worker", "sh", "-c", "grep CapEff /proc/1/status")
    assert int(capabilities.split()[1], 16) == 0


def test_the_secret_is_in_a_file_and_not_in_the_environment(stack: Stack) -> None:
    shown: dict[str, Any] = json.loads(stack.compose("exec", "-T", "worker", "workerctl", "config", "--json"))
    assert shown["DATABASE_URL"]["source"] == "DATABASE_URL in the credentials"
    assert "postgresql://" not in json.dumps(stack.workers()[0]["Config"]["Env"])
