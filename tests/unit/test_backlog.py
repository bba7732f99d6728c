"""Claimed jobs that wait for a worker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.unit.support import Clock, claimed
from workerd.daemon.backlog import Backlog

if TYPE_CHECKING:
    from workerd.queue.claim import Claimed


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("workerd.daemon.backlog.monotonic", clock)
    return clock


async def waiting(backlog: Backlog, count: int) -> list[asyncio.Task[Claimed]]:
    """Getters that have found nothing."""
    getters = [asyncio.create_task(backlog.get()) for _ in range(count)]
    await turns()
    return getters


async def turns() -> None:
    """Let everybody run who can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_jobs_come_out_in_the_order_in_which_they_went_in() -> None:
    backlog, jobs = Backlog(asyncio.Event()), [claimed(pos) for pos in range(4)]
    backlog.put(jobs[:2])
    backlog.put(jobs[2:])
    assert len(backlog) == 4
    assert [await backlog.get() for _ in jobs] == jobs
    assert len(backlog) == 0


async def test_as_many_getters_wake_as_there_are_jobs_the_first_first() -> None:
    backlog, jobs = Backlog(asyncio.Event()), [claimed(1), claimed(2)]
    getters = await waiting(backlog, 3)
    backlog.put(jobs)
    await turns()
    assert [getter.done() for getter in getters] == [True, True, False]
    assert [getter.result() for getter in getters[:2]] == jobs
    getters[2].cancel()


async def test_a_getter_that_is_cancelled_after_its_wake_up_hands_it_on() -> None:
    backlog, job = Backlog(asyncio.Event()), claimed(1)
    first, second = await waiting(backlog, 2)
    backlog.put([job])
    first.cancel()
    assert await asyncio.wait_for(second, 1) is job
    assert first.cancelled()


async def test_a_getter_that_was_cancelled_before_takes_no_wake_up() -> None:
    backlog, job = Backlog(asyncio.Event()), claimed(1)
    first, second = await waiting(backlog, 2)
    first.cancel()
    await turns()
    backlog.put([job])
    assert await asyncio.wait_for(second, 1) is job


async def test_a_job_that_was_taken_by_another_leaves_its_getter_waiting() -> None:
    backlog = Backlog(asyncio.Event())
    (getter,) = await waiting(backlog, 1)
    backlog.put([claimed(1)])
    backlog.take_older(0)
    await turns()
    backlog.put([job := claimed(2)])
    assert await asyncio.wait_for(getter, 1) is job


def test_jobs_that_have_waited_long_enough_can_be_taken_out(clock: Clock) -> None:
    backlog, jobs = Backlog(asyncio.Event()), [claimed(pos) for pos in range(3)]
    for job in jobs:
        backlog.put([job])
        clock.now += 1.0
    assert backlog.take_older(3.5) == []
    assert backlog.take_older(2.0) == jobs[:2]
    assert backlog.take_older(0.0) == jobs[2:]
    assert len(backlog) == 0


async def test_jobs_are_taken_out_by_lease_and_ticket() -> None:
    backlog, jobs = Backlog(asyncio.Event()), [claimed(7, n=1), claimed(8, n=1), claimed(7, n=2)]
    backlog.put(jobs)
    assert backlog.take_matching({(1, 7), (2, 8)}) == jobs[:1]
    assert [await backlog.get(), await backlog.get()] == jobs[1:]


def test_a_taker_that_does_not_wait_gets_what_is_there_or_nothing() -> None:
    backlog, jobs = Backlog(asyncio.Event()), [claimed(1), claimed(2)]
    assert backlog.take() is None
    backlog.put(jobs)
    assert [backlog.take() for _ in range(3)] == [*jobs, None]


def test_more_is_called_for_when_half_is_taken_and_when_nothing_is_left() -> None:
    low = asyncio.Event()
    backlog = Backlog(low)
    backlog.put([claimed(pos) for pos in range(6)])
    calls = []
    for _ in range(6):
        low.clear()
        backlog.take()
        calls.append(low.is_set())
    assert calls == [False, False, True, False, False, True]


async def test_one_who_ends_at_once_may_take_all_and_the_others_go_on_waiting() -> None:
    """Whoever is woken wakes the next one only while something is left."""
    backlog, job = Backlog(asyncio.Event()), claimed(3)
    getters = await waiting(backlog, 2)
    backlog.put([claimed(1), claimed(2)])
    while backlog.take():
        pass
    await turns()
    assert not any(getter.done() for getter in getters)
    backlog.put([job])
    await turns()
    assert [getter.done() for getter in getters].count(True) == 1
    for getter in getters:
        getter.cancel()


async def test_a_closed_backlog_hands_out_nothing_but_lets_its_jobs_be_taken() -> None:
    backlog, job = Backlog(asyncio.Event()), claimed(1)
    (early,) = await waiting(backlog, 1)
    backlog.put([job])
    backlog.close()
    (late,) = await waiting(backlog, 1)
    assert not early.done()
    assert not late.done()
    assert backlog.take_older(0) == [job]
    for getter in (early, late):
        getter.cancel()


def test_clearing_forgets_all() -> None:
    backlog = Backlog(asyncio.Event())
    backlog.put([claimed(1)])
    backlog.clear()
    assert len(backlog) == 0
