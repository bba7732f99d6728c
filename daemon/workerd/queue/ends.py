"""Ends of attempts, of any kind, with what their jobs have logged."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from workerd.queue import job_log, quarantine
from workerd.queue.finish import finish

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workerd.job import AnyConnection
    from workerd.queue.finish import Finished


log = logging.getLogger(__name__)


async def write(connection: AnyConnection, node: int, ended: Sequence[Finished]) -> list[bool]:
    """Write ends; for each whether its lease held it. One that the database refuses fails its job, and no other.

    Where the answer to a split was lost, the lease is the one or the other.
    """
    owned = await _write(connection, node, ended)
    doubtful = [place for place, held in enumerate(owned) if not held and ended[place].job.split is not None]
    if doubtful:
        for place in doubtful:
            job = ended[place].job
            job.n, job.split = job.split or job.n, job.n
        again = await _write(connection, node, [ended[place] for place in doubtful])
        for place, held in zip(doubtful, again, strict=True):
            owned[place] = held
    return owned


async def _write(connection: AnyConnection, node: int, ended: Sequence[Finished]) -> list[bool]:
    """Successes and other ends are statements of their own: what one of them has written is not tried again when the other is refused."""
    held: dict[Finished, bool] = {}
    for batch in ([end for end in ended if end.succeeded], [end for end in ended if not end.succeeded]):
        if batch:
            run, alone = partial(_finish, connection, node), partial(_alone, connection, node)
            held.update(zip(batch, await quarantine.isolate(batch, run, alone), strict=True))
    return [held[end] for end in ended]


async def _finish(connection: AnyConnection, node: int, ended: Sequence[Finished]) -> list[bool]:
    logged = [(end.job, end.lines) for end in ended if end.lines is not None]
    if logged:
        await job_log.write(connection, node, logged)
    return await finish(connection, node, ended)


async def _alone(connection: AnyConnection, node: int, end: Finished, error: Exception) -> bool:
    """Write an end that was refused: without what its job has logged, should it be that, else as a failure."""
    if end.lines is None:
        return await quarantine.end(connection, end, error)
    log.error("what job %s (%s) has logged may be incomplete: %s", end.job.id, end.job.task, error)
    end.lines = None
    return (await _write(connection, node, [end]))[0]
