"""Routes of queues."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from workerctl.manager.access import Operator, Reader
from workerctl.manager.base import TheQueue, recorded
from workerctl.manager.models import Paused, Purged, QueueDepth
from workerctl.manager.problems import answers
from workerd.errors import NotFound
from workerd.queue import change, inspect
from workerd.queue.change import FAILURE_TTL
from workerd.queue.inspect import Filter

WAITING = ("queued", "scheduled", "blocked")

router = APIRouter(prefix="/queues", tags=["queues"])
Name = Annotated[str, Path(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")]


@router.get("", responses=answers())
async def list_queues(home: TheQueue, _token: Reader) -> list[QueueDepth]:
    """How many jobs each queue has, and how long the oldest one waits."""
    async with home.connection() as connection:
        return [QueueDepth.model_validate(row) for row in await inspect.queues(connection)]


@router.post("/{name}/pause", responses=answers(404))
async def pause(home: TheQueue, token: Operator, name: Name) -> Paused:
    """Let no job of a queue start; those that run go on."""
    return await _pause(home, token, name, paused=True)


@router.post("/{name}/resume", responses=answers(404))
async def resume(home: TheQueue, token: Operator, name: Name) -> Paused:
    """Let the jobs of a queue start again."""
    return await _pause(home, token, name, paused=False)


@router.post("/{name}/purge", responses=answers(404))
async def purge(home: TheQueue, token: Operator, name: Name) -> Purged:
    """Cancel all jobs of a queue that have not started."""
    async with home.connection() as connection:
        if name not in {row["queue"] for row in await inspect.queues(connection)}:
            raise _unknown(name)
        ids = await inspect.job_ids(connection, Filter(WAITING, name))
        cancelled = 0
        for start in range(0, len(ids), change.CHUNK):
            was = await change.cancel(connection, ids[start : start + change.CHUNK], FAILURE_TTL)
            cancelled += sum(state in WAITING for state in was.values())
        await recorded(connection, token, "purge", f"queue {name}", {"cancelled": cancelled})
    return Purged(queue=name, cancelled=cancelled)


async def _pause(home: TheQueue, token: Operator, name: str, *, paused: bool) -> Paused:
    async with home.connection() as connection, connection.transaction():
        if not await inspect.pause(connection, name, paused=paused):
            raise _unknown(name)
        await recorded(connection, token, "pause" if paused else "resume", f"queue {name}", {})
    return Paused(queue=name, paused=paused)


def _unknown(name: str) -> NotFound:
    return NotFound(f"there is no queue {name}")
