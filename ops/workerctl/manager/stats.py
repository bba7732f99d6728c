"""Routes of figures and of the record of changes."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BeforeValidator

from workerctl.manager.access import Operator, Reader
from workerctl.manager.base import TheQueue
from workerctl.manager.models import Entry, Sample, Stats
from workerctl.manager.problems import answers
from workerd.queue import audit, inspect, samples

SPAN = Query(description="1: ten minutes of seconds, 60: a day of minutes, 3600: 90 days of hours.")

router = APIRouter(tags=["stats"])


@router.get("/stats", responses=answers())
async def stats(home: TheQueue, _token: Reader, hours: Annotated[float, Query(ge=0.1, le=24 * 35)] = 24.0) -> Stats:
    """Depth of each queue; throughput, success rate and run times of each task."""
    async with home.connection() as connection:
        queues, tasks = await inspect.queues(connection), await inspect.tasks(connection, hours)
    return Stats.model_validate({"hours": hours, "queues": queues, "tasks": tasks})


@router.get("/samples", responses=answers())
async def sampled(
    home: TheQueue,
    _token: Reader,
    span: Annotated[Literal[1, 60, 3600], BeforeValidator(int), SPAN] = 1,
) -> list[Sample]:
    """What the node that leads has written down, the oldest first."""
    async with home.connection() as connection:
        return [Sample.model_validate(row) for row in await samples.read(connection, span, span)]


@router.get("/audit", responses=answers())
async def changes(
    home: TheQueue,
    _token: Operator,
    cursor: Annotated[int, Query(ge=1, lt=2**63)] = 2**63 - 1,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> list[Entry]:
    """What was changed through the manager, the newest first; `cursor` is the id of the last entry of the page before."""
    async with home.connection() as connection:
        return [Entry.model_validate(row) for row in await audit.read(connection, cursor, limit)]
