"""Latency: how soon after its commit a job starts. The handler writes down when, on the clock that enqueued it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from statistics import quantiles
from typing import TYPE_CHECKING

from workerctl.bench.contest import contest
from workerctl.bench.drain import ready, stop
from workerctl.bench.figure import Figure

if TYPE_CHECKING:
    from workerctl.bench.contender import Contender
    from workerctl.bench.site import Site

LONGEST = 10.0  # seconds
SHORTEST = 0.2  # seconds
IDLE = 50  # jobs/s
BUSY = 10_000  # jobs/s
AT_ONCE = 100  # jobs of one call, when busy


async def idle(site: Site) -> list[Figure]:
    """A process that has next to nothing to do."""

    async def measure(contender: Contender) -> list[Figure]:
        waits, peak = await _waits(contender, int(_seconds(site) * IDLE), IDLE, 1)
        return [
            *_figures(contender, "latency", f"from commit to start at {IDLE} jobs/s", waits),
            Figure(contender.key("latency_memory"), "idle, peak memory", contender.title, "MB", peak),
        ]

    return await contest(site, [site.ours], measure)


async def busy(site: Site) -> list[Figure]:
    """A daemon to which much is enqueued, in hundreds."""
    waits, _ = await _waits(site.ours, int(_seconds(site) * BUSY), BUSY, AT_ONCE)
    return _figures(site.ours, "latency_busy", f"from commit to start at {BUSY:,} jobs/s", waits)


async def _waits(contender: Contender, jobs: int, rate: int, at_once: int) -> tuple[list[float], float]:
    """Milliseconds of each job; below zero where it started before its enqueuer knew of the commit. And peak memory in MB."""
    await contender.clear()
    async with AsyncExitStack() as stack:
        workers = await ready(stack, [contender.worker(quick=True)])
        committed = await contender.ask("trickle", jobs=jobs, rate=rate, at_once=at_once)
        await contender.done(workers)
        peak = workers[0].peak_mb()
        starts = await stop(workers, jobs + 1)  # one to warm up
    return [1000 * (starts[number] - at) for number, at in committed.items()], peak


def _figures(contender: Contender, key: str, what: str, waits: list[float]) -> list[Figure]:
    percentiles = quantiles(waits, n=100, method="inclusive")
    return [
        Figure(
            contender.key(f"{key}_p{percent}"),
            f"{what}, p{percent}",
            contender.title,
            "ms",
            percentiles[percent - 1],
            compared=True,
        )
        for percent in (50, 99)
    ]


def _seconds(site: Site) -> float:
    return max(SHORTEST, LONGEST * site.part)
