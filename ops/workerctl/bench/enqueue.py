"""Enqueue: jobs a second by one application, one at a time, by many coroutines, in bulk, in its transactions. Nobody works."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workerctl.bench.contest import contest
from workerctl.bench.figure import Figure

if TYPE_CHECKING:
    from workerctl.bench.contender import Contender
    from workerctl.bench.site import Site

COROUTINES = 100
IN_EACH = 100  # jobs of a transaction that has several
SHARE = 10  # where each job is awaited, so many times fewer are enough
WAYS = {
    "single": ("one awaited at a time", SHARE),
    "transaction": ("each in a transaction of the caller", SHARE),
    "transaction_jobs": (f"{IN_EACH} awaited in turn in each transaction of the caller", SHARE),
    "coroutines": (f"{COROUTINES} coroutines", 1),
    "many": ("in one call", 1),
    "many_transaction": ("in one call in a transaction of the caller", 1),
}


async def enqueue(site: Site) -> list[Figure]:
    """Each figure is jobs/s from the first call to the last commit."""
    return [figure for way in WAYS for figure in await _enqueue(site, way)]


async def _enqueue(site: Site, way: str) -> list[Figure]:
    how, share = WAYS[way]
    jobs = max(1, site.jobs // share)

    async def measure(contender: Contender) -> list[Figure]:
        size = contender.sized(jobs)
        await contender.clear()
        seconds = await contender.ask("enqueue", way=way, jobs=size, coroutines=COROUTINES, in_each=IN_EACH)
        what = f"enqueue of {jobs:,}, {how}"
        return [
            Figure(contender.key(f"enqueue_{way}"), what, contender.who(jobs), "jobs/s", size / seconds, compared=True)
        ]

    return await contest(site, [site.ours], measure)
