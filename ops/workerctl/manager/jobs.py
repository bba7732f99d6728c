"""Routes of jobs."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Header, Query, Response
from pydantic import Field

from workerctl.manager.access import Enqueuer, Operator, Reader, Watcher
from workerctl.manager.base import TheQueue, recorded
from workerctl.manager.bodies import ExactRoute
from workerctl.manager.models import (
    MANY,
    TRANSLATED,
    Bulk,
    BulkDone,
    Changed,
    Enqueued,
    EnqueuedMany,
    JobDetail,
    JobId,
    JobPage,
    NewJob,
    Signal,
    Signalled,
    State,
    Text,
)
from workerctl.manager.problems import Problem, answers
from workerd import trace
from workerd.asked import DEFINITIONS, KEYED, After
from workerd.errors import JobError, NotFound
from workerd.queue import change, inspect, job_log, pages
from workerd.queue.change import FAILURE_TTL, not_retried
from workerd.queue.inspect import Filter
from workerd.queue.pages import Wanted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workerd.job import AnyConnection

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=ExactRoute)
Cursor = Annotated[int | None, Query(ge=1, lt=2**63, description="`next` of the page before.")]
Several = Annotated[list[NewJob], Field(min_length=1, max_length=MANY)]


@router.get("", responses=answers())
async def list_jobs(
    home: TheQueue,
    _token: Reader,
    state: State | None = None,
    queue: Text | None = None,
    task: Text | None = None,
    node: Text | None = None,
    key: Text | None = None,
    since: datetime | None = None,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> JobPage:
    """The newest jobs that fit, page by page."""
    if since is not None and since.tzinfo is None:
        raise Problem(422, "query.since: give the time with its zone, such as 2026-03-01T12:00:00Z")
    async with home.connection() as connection:
        found = await pages.page(connection, Wanted(state, queue, task, node, key, since, cursor), limit + 1)
    behind = str(found[limit - 1]["id"]) if len(found) > limit else None
    return JobPage.model_validate({"jobs": found[:limit], "next": behind})


@router.post("", status_code=201, responses=answers())
async def enqueue(
    home: TheQueue,
    token: Enqueuer,
    jobs: Annotated[NewJob | Several, Body()],
    traceparent: Annotated[str | None, Header(description="The trace that the jobs are part of, by W3C.")] = None,
    tracestate: Annotated[str | None, Header()] = None,
) -> Enqueued | EnqueuedMany:
    """Enqueue one job, or a list of them, all or none."""
    trace.passed_on.set(trace.read({"traceparent": traceparent, "tracestate": tracestate}))
    wanted = jobs if isinstance(jobs, list) else [jobs]

    async def write(connection: AnyConnection) -> list[int]:
        ids = await _enqueue(home, connection, wanted)
        detail = {"count": len(ids), "tasks": sorted({job.task for job in wanted})}
        await recorded(connection, token, "enqueue", f"job {ids[0]}" if len(ids) == 1 else None, detail)
        return ids

    ids = await home.in_transaction(write)
    return EnqueuedMany(ids=ids) if isinstance(jobs, list) else Enqueued(id=ids[0])


@router.post("/bulk", responses=answers(409))
async def bulk(home: TheQueue, token: Operator, wanted: Bulk) -> BulkDone:
    """Retry, cancel or delete all jobs that fit. Without `expected` they are counted; with another number than fit nothing is done."""
    which = wanted.filter
    states = () if which.state is None else (which.state,)
    async with home.connection() as connection:
        ids = await inspect.job_ids(connection, Filter(states, which.queue, which.task, which.node, which.key))
        if wanted.expected is None:
            return BulkDone(matched=len(ids), done=0, refused=0)
        if wanted.expected != len(ids):
            raise Problem(409, f"{len(ids)} jobs fit, expected were {wanted.expected}: look again", matched=len(ids))
        refused = 0
        for start in range(0, len(ids), change.CHUNK):
            async with connection.transaction():
                refused += await _act(connection, wanted.action, ids[start : start + change.CHUNK])
        given = which.model_dump(exclude_none=True)
        await recorded(connection, token, f"bulk {wanted.action}", None, {"filter": given, "done": len(ids) - refused})
    return BulkDone(matched=len(ids), done=len(ids) - refused, refused=refused)


@router.get("/{job_id}", responses=answers(404))
async def show(home: TheQueue, token: Watcher, job_id: JobId) -> JobDetail:
    """One job with its attempts and what it has logged."""
    async with home.connection() as connection:
        found = await inspect.job(connection, job_id)
        if found is None:
            raise NotFound(f"there is no job {job_id}")
        lines = await job_log.lines_of(connection, job_id)
        if not token.may("operate") and await inspect.is_sensitive(connection, found["task"]):
            found |= {"payload": None, "result": None}
    return JobDetail.model_validate({**found, "lines": lines})


@router.delete("/{job_id}", status_code=204, responses=answers(404, 409))
async def delete(home: TheQueue, token: Operator, job_id: JobId) -> Response:
    """Remove a finished job."""
    async with home.connection() as connection, connection.transaction():
        if not await change.delete(connection, [job_id]):
            if await inspect.job(connection, job_id) is None:
                raise NotFound(f"there is no job {job_id}")
            raise JobError(f"job {job_id} is not finished: cancel it first")
        await recorded(connection, token, "delete", f"job {job_id}", {})
    return Response(status_code=204)


@router.post("/{job_id}/retry", responses=answers(404, 409))
async def retry(home: TheQueue, token: Operator, job_id: JobId) -> Changed:
    """Queue a failed, cancelled or scheduled job now."""
    async with home.connection() as connection, connection.transaction():
        was = (await change.retry(connection, [job_id]))[job_id]
        refused = not_retried(job_id, was)
        if refused is not None:
            raise NotFound(refused) if was == "unknown" else JobError(refused)
        await recorded(connection, token, "retry", f"job {job_id}", {"was": was})
    return Changed(id=job_id, was=was)


@router.post("/{job_id}/cancel", responses=answers(404, 409))
async def cancel(home: TheQueue, token: Operator, job_id: JobId) -> Changed:
    """Cancel a job, whatever it does; a running one is told to stop."""
    was = await home.cancel(job_id)
    async with home.connection() as connection:
        await recorded(connection, token, "cancel", f"job {job_id}", {"was": was})
    return Changed(id=job_id, was=was)


@router.post("/{job_id}/signal", responses=answers(404, 409))
async def signal(home: TheQueue, token: Enqueuer, job_id: JobId, wanted: Signal) -> Signalled:
    """Answer a job that waits for an event, or will."""
    async with home.connection() as connection, connection.transaction():
        first = await home.signal(job_id, wanted.event, wanted.payload, connection=connection)
        await recorded(connection, token, "signal", f"job {job_id}", {"event": wanted.event})
    return Signalled(first=first)


async def _enqueue(home: TheQueue, connection: AnyConnection, jobs: Sequence[NewJob]) -> list[int]:
    """Those without a key that are alike but for their payloads go into one statement; the ids are in the order of the jobs.

    Keys are taken in one order, so that two requests do not wait for each other in a circle.
    """
    ids = [0] * len(jobs)
    alike: dict[tuple[Any, ...], list[int]] = {}
    for place, job in sorted(enumerate(jobs), key=lambda each: each[1].key or ""):
        options = _options(job)
        if job.key is None:
            alike.setdefault((job.task, *options.items()), []).append(place)
        else:
            ids[place] = await home.enqueue(job.task, job.payload, connection=connection, **options)
    for (task, *given), places in alike.items():
        payloads = [jobs[place].payload for place in places]
        made = await home.enqueue_many(task, payloads, connection=connection, **dict(given))
        for place, job_id in zip(places, made, strict=True):
            ids[place] = job_id
    return ids


def _options(job: NewJob) -> dict[str, Any]:
    """The keywords of an enqueue: those that are asked for."""
    ours = DEFINITIONS.keys() - TRANSLATED - (KEYED if job.key is None else frozenset())
    options: dict[str, Any] = job.model_dump(include=ours | {"delay"}, exclude_none=True)
    if job.after:
        options["after"] = After(tuple(job.after), job.after_need, job.after_end)
    if job.deadline is not None or job.deadline_in is not None:
        options["deadline"] = job.deadline if job.deadline_in is None else job.deadline_in
    return options


async def _act(connection: AnyConnection, action: str, ids: Sequence[int]) -> int:
    """How many refused."""
    match action:
        case "retry":
            answered = await change.retry(connection, ids)
            return sum(not_retried(job, answered[job]) is not None for job in ids)
        case "cancel":
            was = await change.cancel(connection, ids, FAILURE_TTL)
            return sum(was[job] in ("unknown", "final") for job in ids)
        case _:
            return len(ids) - len(await change.delete(connection, ids))
