"""One node leads, and another one as soon as it does not: jobs start in time, whoever dies."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import pytest

from tests.faults.fleet import KILLS, daemons, leader, only_living, start, start_again
from tests.faults.span import Span
from tests.support import LIMIT, until, until_state

if TYPE_CHECKING:
    import asyncpg

    from tests.faults.balance import Books
    from tests.support import DaemonProcess
    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

JOBS = 8
BEAT = 1.0  # seconds; what is found out by silence alone takes three of them
# A free lock is forgiven for longer after a start of the server.
CALM = "SELECT clock_timestamp() > pg_postmaster_start_time() + make_interval(secs => $1)"
WITHIN = 2.0  # seconds of rest from the death of a node to the next start of its jobs
ROUNDS = int(os.environ.get("WORKERD_TEST_ROUNDS", "2"))
DUE = 12  # jobs that become due around the death of a leader
APART = 0.25  # seconds between two of them
LATEST = 3.0  # seconds of rest from the time of a delayed job to its start
HELD = "SELECT count(*) FROM workerd.job WHERE state = 'running' AND id = ANY ($1) AND node = ANY ($2)"


async def _fill(queue: Queue, db: DB, *fleet: DaemonProcess) -> list[int]:
    """Enqueue jobs that do not end, as many as these nodes can run, and return when they run there."""
    jobs = await queue.enqueue_many("nap", [{"seconds": 3600}] * sum(daemon.settings.workers for daemon in fleet))
    names = [daemon.settings.node for daemon in fleet]
    await until(lambda: _held(db, jobs, names), f"the jobs run on {', '.join(names)}")
    return jobs


async def _held(db: DB, jobs: list[int], names: list[str]) -> bool:
    count: int = await db.fetchval(HELD, jobs, names)
    return count == len(jobs)


async def _cancel(queue: Queue, jobs: list[int]) -> None:
    for job in jobs:
        await queue.cancel(job)


async def _kill(queue: Queue, db: DB, victims: list[DaemonProcess], survivor: DaemonProcess, *, leads: bool) -> float:
    """Kill nodes that run jobs, one of which `leads` or not; returns the seconds of rest until all these jobs run on the other one."""
    if leads:
        await start(*victims)
        assert await leader(db, victims) in victims
        jobs = await _fill(queue, db, *victims)
        await start(survivor)
    else:  # the survivor leads, and has enough to do until the others have taken the jobs
        await start(survivor)
        assert await leader(db, [survivor]) is survivor
        others = await _fill(queue, db, survivor)
        await start(*victims)
        jobs = await _fill(queue, db, *victims)
        await _cancel(queue, others)
        busy = "SELECT EXISTS (SELECT FROM workerd.job WHERE state = 'running' AND id = ANY ($1))"
        await until(lambda: db.fetchval(f"SELECT NOT ({busy})", others), "the survivor has nothing to do")
    async with Span(db, survivor) as span:
        for victim in victims:
            victim.signal(signal.SIGKILL)
        await until(lambda: _held(db, jobs, [survivor.settings.node]), "the jobs run elsewhere")
    await asyncio.gather(*[asyncio.to_thread(victim.wait) for victim in victims])
    await _cancel(queue, jobs)
    print(f"{span.took:.2f} s, of which nobody worked for {span.rest:.2f}")
    return span.rest


@pytest.mark.parametrize(
    ("victims", "leads"), [(1, True), (1, False), (3, True)], ids=["the leader", "another", "all but one"]
)
async def test_the_jobs_of_killed_nodes_start_elsewhere_within_two_seconds(
    settings: Settings, queue: Queue, db: DB, books: Books, victims: int, leads: bool
) -> None:
    killed = daemons(settings, *(f"killed{n}" for n in range(victims)), workers=JOBS, heartbeat_interval=BEAT)
    (survivor,) = daemons(settings, "survivor", workers=JOBS * victims, heartbeat_interval=BEAT)
    times = []
    await until(lambda: db.fetchval(CALM, 6 * BEAT), "the server has run for a while")
    with ExitStack() as stack:
        for daemon in (*killed, survivor):
            stack.enter_context(daemon)
        for number in range(1, ROUNDS + 1):
            times.append(await _kill(queue, db, killed, survivor, leads=leads))
            if number < ROUNDS:
                await books.settled()
                survivor.signal(signal.SIGTERM)
                assert await asyncio.to_thread(survivor.wait) == 0
        print(f"seconds: {' '.join(f'{each:.2f}' for each in times)}, median {median(times):.2f}")
        assert await books.close(*killed, survivor) == []
    assert median(times) <= WITHIN


async def _kill_amid_delayed(queue: Queue, db: DB, fleet: list[DaemonProcess], first: int) -> float:
    """Kill whoever leads while jobs become due, and start it again; returns the seconds by which the last of them was late."""
    victim = await leader(db, fleet)
    begin = await db.fetchval("SELECT clock_timestamp()") + timedelta(seconds=APART)
    due = {first + n: begin + timedelta(seconds=n * APART) for n in range(DUE)}
    for n, moment in due.items():
        await queue.enqueue("recorded", {"n": n, "seconds": 0.0}, run_at=moment)
    async with Span(db, *[daemon for daemon in fleet if daemon is not victim]) as span:
        await asyncio.sleep(random.uniform(0, DUE * APART / 2))
        await asyncio.to_thread(victim.kill)
        again = asyncio.create_task(start_again(victim))
        await until(lambda: db.fetchval("SELECT count(*) >= $1 FROM ran", first + DUE), "all have run")
    await again
    rows = await db.fetch("SELECT n, at FROM ran WHERE n >= $1 ORDER BY n", first)
    assert [row["n"] for row in rows] == list(due)
    late: list[float] = [(row["at"] - due[row["n"]]).total_seconds() for row in rows]
    print(f"late: {max(late):.2f} s at most, while {span.busy:.2f} s were worked or waited for")
    assert min(late) >= 0
    return max(late) - span.busy


async def test_delayed_jobs_start_in_time_and_once_though_leaders_are_killed(
    settings: Settings, queue: Queue, db: DB, books: Books
) -> None:
    await db.execute("CREATE TABLE ran (n int, attempt int, at timestamptz DEFAULT clock_timestamp())")
    fleet = daemons(settings, "a", "b", "c", workers=JOBS, heartbeat_interval=BEAT)
    await until(lambda: db.fetchval(CALM, 6 * BEAT), "the server has run for a while")
    with ExitStack() as stack:
        for daemon in fleet:
            stack.enter_context(daemon)
        await start(*fleet)
        late = [await _kill_amid_delayed(queue, db, fleet, DUE * kill) for kill in range(KILLS)]
        await books.settled()
        await only_living(db, fleet)
        assert await books.close(*fleet) == []
    assert max(late) <= LATEST


async def test_a_frozen_leader_is_deposed_and_what_it_does_when_it_thaws_changes_nothing(
    settings: Settings, queue: Queue, db: DB, books: Books
) -> None:
    """A stopped process keeps its connections, and so the lock of the leader: the others end its session."""
    tasks = ("tests.handlers", "tests.faults.handlers")
    frozen, other = daemons(settings, "frozen", "other", heartbeat_interval=BEAT, tasks=tasks)
    sign = settings.state_dir / "sign"
    sign.parent.mkdir()
    with frozen, other:
        await start(frozen)
        assert await leader(db, [frozen]) is frozen
        job = await queue.enqueue("held", {"sign": str(sign)})  # it is over for the frozen one when that thaws
        await until_state(db, job, "running")
        await start(other)
        async with Span(db, other) as span:
            frozen.signal(signal.SIGSTOP)
            later = await queue.enqueue("echo", {"value": 1}, delay=0.5)
            assert await queue.result(later, timeout=LIMIT) == 1
        async with Span(db, other) as further:
            await until(lambda: _held(db, [job], [other.settings.node]), "the job of the frozen node runs elsewhere")
        print(
            f"a delayed job ran after {span.rest:.2f} s of rest, the job of the frozen node after {further.rest:.2f} s more"
        )
        assert span.rest < 3 * BEAT + 3.0  # the leader is deposed, and the job begins
        assert (
            span.rest + further.rest < 5.0 + 3.0
        )  # who has been connected for less than 5 s takes no silent node for dead
        Path(f"{sign}-1").touch()
        frozen.signal(signal.SIGCONT)
        await only_living(db, [frozen, other])
        Path(f"{sign}-2").touch()
        assert await books.close(frozen, other) == []
    assert (await until_state(db, job, "succeeded"))["attempt"] == 2
