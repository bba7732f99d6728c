"""Routes of schedules."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from workerctl.manager.access import Operator, Reader
from workerctl.manager.base import TheQueue, recorded
from workerctl.manager.models import Enqueued, Schedule, ScheduleChanged
from workerctl.manager.problems import answers
from workerd.queue import schedules

router = APIRouter(prefix="/schedules", tags=["schedules"])
Name = Annotated[str, Path(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]


@router.get("", responses=answers())
async def list_schedules(
    home: TheQueue, _token: Reader, ahead: Annotated[int, Query(ge=1, le=20)] = 3
) -> list[Schedule]:
    """All schedules, with the times at which each is due next."""
    async with home.connection() as connection:
        return [Schedule.model_validate(row) for row in await schedules.find(connection, ahead)]


@router.post("/{name}/run", status_code=201, responses=answers(404))
async def run(home: TheQueue, token: Operator, name: Name) -> Enqueued:
    """Enqueue its job now, besides those that are due."""
    async with home.connection() as connection, connection.transaction():
        job = await schedules.run(connection, name)
        await recorded(connection, token, "run", f"schedule {name}", {"job": job})
    return Enqueued(id=job)


@router.post("/{name}/pause", responses=answers(404))
async def pause(home: TheQueue, token: Operator, name: Name) -> ScheduleChanged:
    """Let nothing be enqueued until it is resumed."""
    async with home.connection() as connection, connection.transaction():
        await schedules.pause(connection, name)
        await recorded(connection, token, "pause", f"schedule {name}", {})
    return ScheduleChanged(name=name, paused=True)


@router.post("/{name}/resume", responses=answers(404))
async def resume(home: TheQueue, token: Operator, name: Name) -> ScheduleChanged:
    """Go on from now: due times of the pause have no jobs."""
    async with home.connection() as connection, connection.transaction():
        await schedules.resume(connection, name)
        await recorded(connection, token, "resume", f"schedule {name}", {})
    return ScheduleChanged(name=name, paused=False)
