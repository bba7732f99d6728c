"""Ends of attempts, of any kind, with what their jobs have logged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workerd.queue import job_log
from workerd.queue.finish import finish

if TYPE_CHECKING:
    from workerd.job import AnyConnection
    from workerd.queue.finish import Finished


async def write(connection: AnyConnection, node: int, ended: list[Finished]) -> list[bool]:
    """Write ends; for each whether its lease held it. Where the answer to a split was lost, that is the one or the other."""
    logged = [(end.job, end.lines) for end in ended if end.lines is not None]
    if logged:
        await job_log.write(connection, node, logged)
    owned = await finish(connection, node, ended)
    doubtful = [place for place, held in enumerate(owned) if not held and ended[place].job.split is not None]
    if doubtful:
        for place in doubtful:
            job = ended[place].job
            job.n, job.split = job.split or job.n, job.n
        again = await finish(connection, node, [ended[place] for place in doubtful])
        for place, held in zip(doubtful, again, strict=True):
            owned[place] = held
    return owned
