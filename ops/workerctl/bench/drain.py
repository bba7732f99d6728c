"""Drain: how fast waiting jobs are done, by one process or several."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workerctl.bench.contest import contest
from workerctl.bench.figure import Figure
from workerctl.bench.process import ContenderError
from workerctl.bench.site import MANY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workerctl.bench.contender import Contender
    from workerctl.bench.site import Site
    from workerctl.bench.worker import Worker

FLEET = {"one": 1, "four": 4}  # processes


@dataclass(frozen=True, slots=True)
class Drained:
    """Jobs/s from the beginning of the process and from its first job on, its peak memory in MB, and bytes of WAL that it wrote."""

    rate: float
    running: float
    peak: float
    wal: int


async def few(site: Site) -> list[Figure]:
    """`jobs` jobs, without and with history."""
    return await _drains(site, "drain_jobs", site.jobs)


async def many(site: Site) -> list[Figure]:
    """Six times as many: long enough for what grows with the number of jobs to show."""
    return await _drains(site, "drain_many", MANY * site.jobs)


async def fleet(site: Site) -> list[Figure]:
    """One process and four that are ready when the jobs appear, all in one commit."""
    jobs = MANY * site.jobs

    async def measure(contender: Contender) -> list[Figure]:
        rates = {}
        for number in site.in_order(list(FLEET)):
            rates[number] = await drain_ready(contender, contender.sized(jobs), FLEET[number])
        ratio, what = rates["four"] / rates["one"], f"drain of {jobs:,} that appear at once"
        return [
            *(
                Figure(
                    contender.key(f"drain_{number}"),
                    f"{what}, by {number}",
                    contender.who(jobs),
                    "jobs/s",
                    rates[number],
                    compared=True,
                )
                for number in FLEET
            ),
            Figure(contender.key("drain_four_ratio"), f"{what}, four against one", contender.who(jobs), "ratio", ratio),
        ]

    return await contest(site, [site.ours], measure)


async def drain(contender: Contender, jobs: int) -> Drained:
    """Start a process on jobs that wait."""
    async with contender.worker() as worker:
        written = await contender.written()
        began = await worker.begin()
        ended = await contender.done([worker])
        written = await contender.written() - written
        first, peak = await worker.first(), worker.peak_mb()
        await stop([worker], jobs)
    return Drained(jobs / (ended - began), jobs / (ended - first), peak, written)


async def drain_ready(contender: Contender, jobs: int, processes: int) -> float:
    """Jobs/s of processes that are ready, from the commit of the jobs to the last one done."""
    await contender.clear()
    async with AsyncExitStack() as stack:
        workers = await ready(stack, [contender.worker(number) for number in range(processes)])
        began = await contender.fill(jobs)
        ended = await contender.done(workers)
        await stop(workers, jobs)
    return jobs / (ended - began)


async def ready(stack: AsyncExitStack, workers: Sequence[Worker]) -> Sequence[Worker]:
    """Start processes and wait until all would hear of a new job."""
    for worker in workers:
        await stack.enter_async_context(worker)
    for worker in workers:
        await worker.begin()
        await worker.ready()
    return workers


async def stop(workers: Sequence[Worker], jobs: int) -> dict[str, float]:
    """End them; returns the starts of numbered jobs. Raises ContenderError when they ran more or fewer jobs than there were."""
    ends = [await worker.stop() for worker in workers]
    runs = sum(end["runs"] for end in ends)
    if runs != jobs:
        raise ContenderError(f"{jobs:,} jobs ran {runs:,} times")
    return {number: at for end in ends for number, at in end["starts"].items()}


async def _drains(site: Site, key: str, jobs: int) -> list[Figure]:
    async def measure(contender: Contender) -> list[Figure]:
        size = contender.sized(jobs)
        enqueued = await contender.lay(size)
        drained = await drain(contender, size)
        what, own, who = f"drain of {jobs:,}", contender.key(key), contender.who(jobs)
        return [
            Figure(own, what, who, "jobs/s", drained.rate, compared=True),
            Figure(f"{own}_running", f"{what}, from the first job on", who, "jobs/s", drained.running, compared=True),
            Figure(f"{own}_memory", f"{what}, peak memory", who, "MB", drained.peak),
            Figure(
                f"{own}_wal", f"{what}, WAL a job, its enqueue included", who, "bytes", (enqueued + drained.wal) / size
            ),
        ]

    return await contest(site, [site.ours, site.ours.keeping()], measure)
