"""The whole benchmark: which measurements there are, in which order they take turns."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

from workerctl.bench import backlog, drain, enqueue, latency
from workerctl.bench.report import Report, surroundings
from workerctl.bench.server import NAME, database, directory
from workerctl.bench.site import Site
from workerd.queue.database import connect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from workerctl.bench.figure import Figure
    from workerd.settings import Settings

    Measurement = Callable[[Site], Awaitable[list[Figure]]]

SUITE: dict[str, tuple[Measurement, ...]] = {
    "drain": (drain.few, drain.many, drain.four, drain.old_snapshot),
    "enqueue": (enqueue.enqueue,),
    "latency": (latency.latency,),
    "backlog": (backlog.backlog,),  # inserting it takes longer than all others: only on demand
}
USUAL = ("drain", "enqueue", "latency")


async def run(settings: Settings, names: Sequence[str], repeat: int, jobs: int, tell: Callable[[str], None]) -> Report:
    """Measure everything named, `repeat` times in turn, so that a bad moment of the machine does not hit one measurement alone."""
    # What ends us otherwise has to clean up too.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os.kill, os.getpid(), signal.SIGINT)
    with directory() as folder:
        async with database(settings, folder) as dsn:
            connection = await connect(dsn, NAME)
            try:
                report = Report(await surroundings(connection), repeat, jobs)
                for turn in range(1, repeat + 1):
                    for group in names:
                        tell(f"{group}, {turn} of {repeat}")
                        for measure in SUITE[group]:
                            report.add(await measure(Site(dsn, folder, jobs, turn, connection)))
                return report
            finally:
                await connection.close()
