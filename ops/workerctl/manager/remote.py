"""Routes of nodes that reach the database through this manager. It keeps nothing of them: any manager answers the next request."""

from __future__ import annotations

import secrets
from time import monotonic
from typing import Annotated, Any

import asyncpg
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, Field

from workerctl.manager.access import Worker
from workerctl.manager.base import TheQueue, recorded
from workerctl.manager.problems import Problem, answers
from workerctl.manager.reach import TheReach
from workerd import codec
from workerd.declaration import Declared
from workerd.queue import dependency, ends, finish, job_log, lane, node, orders, progress, signals, steps, tally
from workerd.queue import key as keys
from workerd.queue.claim import BEGINNING, Wanted
from workerd.queue.cycle import cycle
from workerd.queue.declare import declare
from workerd.queue.finish import Finished, is_good
from workerd.queue.node import Figures, Registration
from workerd.queue.progress import Progress
from workerd.remote import wire, words

LOOK = 5.0  # seconds between two looks of a claim that waits: nothing depends on notifications
OWNERS = 10_000  # nodes whose tokens are remembered

router = APIRouter(tags=["remote nodes"])
NodeId = Annotated[int, Path(ge=1, lt=2**63, description="The id that the node has registered with.")]
JobId = Annotated[int, Path(ge=1, lt=2**63)]
OrderId = Annotated[int, Path(ge=1, lt=2**63)]
Count = Annotated[int, Query(ge=0, lt=2**63)]


async def _mine(request: Request, home: TheQueue, token: Worker, node_id: NodeId) -> int:
    """The node, which has to be one of the token's."""
    owners: dict[int, int] = request.app.state.owners
    if node_id not in owners:
        async with home.connection() as connection:
            owner = await node.owner(connection, node_id)
        if owner is not None:
            if len(owners) >= OWNERS:
                owners.clear()
            owners[node_id] = owner
    if owners.get(node_id) != token.id:
        raise Problem(410, f"no node {node_id} has registered with the token {token.name}: register")
    return node_id


Mine = Annotated[int, Depends(_mine)]


@router.post("/nodes", status_code=201, responses=answers(409))
async def register(home: TheQueue, token: Worker, wanted: words.NewNode) -> words.Registered:
    """Enter a node. It lives until it leaves, or until three of its heartbeats have not come."""
    node_id = wanted.id or node.new_id()
    runs = [task.name for task in wanted.tasks] if wanted.runs is None else wanted.runs
    about = Registration(wanted.name, wanted.pid, wanted.version, wanted.heartbeat, runs, list(wanted.queues))
    async with home.connection() as connection:
        await declare(connection, Declared([wire.declaration(task) for task in wanted.tasks], list(wanted.ttls)))
        if not await node.is_registered(connection, node_id, token.id):  # else the answer was lost
            try:
                async with connection.transaction():
                    await node.register(
                        connection, node_id, about, workers=wanted.workers, locked=False, token=token.id
                    )
                    await recorded(connection, token, "register", f"node {wanted.name}", {"id": str(node_id)})
            except asyncpg.UniqueViolationError as error:
                raise Problem(409, f"there is, or was, a node {node_id}: choose another id, or leave it out") from error
    return words.Registered(id=str(node_id))


@router.post("/nodes/{node_id}/heartbeat", status_code=204, responses=answers(410))
async def heartbeat(home: TheQueue, node_id: Mine, beat: words.Beat) -> Response:
    """Say that a node lives. 410: it was declared dead, its jobs are run elsewhere."""
    figures = Figures(beat.workers, beat.busy, beat.draining, beat.jobs_done, beat.jobs_failed, beat.rss, beat.lag)
    async with home.connection() as connection:
        if not await node.beat(connection, node_id, figures):
            raise Problem(410, f"node {node_id} was declared dead: register anew")
    return Response(status_code=204)


@router.delete("/nodes/{node_id}", status_code=204, responses=answers(410))
async def leave(
    home: TheQueue, reach: TheReach, token: Worker, node_id: Mine, jobs_done: Count = 0, jobs_failed: Count = 0
) -> Response:
    """Let a node go that has given back everything."""
    async with home.connection() as connection, connection.transaction():
        await node.leave(connection, node_id, Figures(done=jobs_done, failed=jobs_failed))
        await recorded(connection, token, "leave", f"node {node_id}", {})
    await reach.bell.rise(node_id)
    return Response(status_code=204)


@router.get("/nodes/{node_id}/lanes", responses=answers(410))
async def lanes(home: TheQueue, node_id: Mine) -> list[words.LaneWords]:
    """Where a node may claim, the most urgent first."""
    async with home.connection() as connection:
        found = await _lanes(connection, node_id)
    return [words.LaneWords(id=each.id, queue=each.queue, priority=each.priority) for each in found]


@router.post("/nodes/{node_id}/claim", response_model=words.Claims, responses=answers(410, 423))
async def claim(request: Request, reach: TheReach, node_id: Mine, wanted: words.Claim) -> Response:
    """Take jobs for a node, of one lane; waits for some where it is told to."""
    until = monotonic() + wanted.wait
    bell, cursor = reach.bell, reach.bell.cursor
    ended = [wire.finished(node_id, end) for end in wanted.ends]
    successes = [end for end in ended if is_good(end)]
    others = [end for end in ended if not is_good(end)]
    held: dict[Finished, bool] = {}
    if others:
        async with await reach.claims() as connection:
            held.update(zip(others, await ends.write(connection, node_id, others), strict=True))
    while True:
        if wanted.rest or wanted.wait:
            await bell.rest(node_id)
        async with await reach.claims() as connection:
            whole = await _wanted(connection, node_id, wanted)
            written, answer = await cycle(connection, node_id, successes, whole)
        held.update(zip(successes, written, strict=True))
        successes = []
        left = until - monotonic()
        if answer.jobs or left <= 0 or bell.closed or await request.is_disconnected():
            break
        cursor, _ = await bell.wait(cursor, min(left, LOOK))
    if answer.jobs:
        await bell.rise(node_id)
    return _json(wire.claims_words(whole.n, answer, [held[end] for end in ended]))


@router.post("/nodes/{node_id}/finish", responses=answers(410))
async def write(reach: TheReach, node_id: Mine, told: words.Finish) -> words.FinishDone:
    """Write how attempts ended. To write it twice changes nothing: the second time they are not held."""
    async with await reach.claims() as connection:
        held = await ends.write(connection, node_id, [wire.finished(node_id, end) for end in told.ends])
    return words.FinishDone(held=held)


@router.post("/nodes/{node_id}/release", status_code=204, responses=answers(410))
async def release(reach: TheReach, node_id: Mine, told: words.Release) -> Response:
    """Give back jobs that were not started."""
    async with await reach.claims() as connection:
        await finish.give_back(connection, node_id, told.n, list(told.positions), told.ttl)
    return Response(status_code=204)


@router.get("/nodes/{node_id}/leases", responses=answers(410))
async def leases(reach: TheReach, node_id: Mine) -> list[words.LeaseWords]:
    """What a node holds: what it does not know of, since an answer was lost, it has to release."""
    async with await reach.claims() as connection:
        found = await finish.own_leases(connection, node_id)
    return [words.LeaseWords(n=each.n, tickets=sorted(each.tickets), cancel=sorted(each.cancel)) for each in found]


@router.post("/nodes/{node_id}/progress", status_code=204, responses=answers(410))
async def report(home: TheQueue, node_id: Mine, told: words.Reports) -> Response:
    """Keep how far jobs are, and what they have logged."""
    reports = [Progress(wire.claimed(node_id, each), each.fraction, each.message) for each in told.reports]
    logged = [(wire.claimed(node_id, each), wire.job_lines(each.lines)) for each in told.logged]
    async with home.connection() as connection:
        if reports:
            await progress.report(connection, node_id, reports)
        if logged:
            await job_log.write(connection, node_id, logged)
    return Response(status_code=204)


@router.get("/nodes/{node_id}/orders", responses=answers(410))
async def waiting(home: TheQueue, node_id: Mine) -> list[words.OrderWords]:
    """What operators have ordered a node to do."""
    async with home.connection() as connection:
        found = await orders.waiting(connection, node_id)
    return [words.OrderWords(id=each.id, verb=each.verb, arguments=each.arguments) for each in found]


@router.post("/nodes/{node_id}/orders/{order_id}", status_code=204, responses=answers(410))
async def ordered(home: TheQueue, node_id: Mine, order_id: OrderId, told: words.OrderDone) -> Response:
    """Say what became of an order."""
    async with home.connection() as connection:
        await orders.done(connection, node_id, order_id, told.result, told.error)
    return Response(status_code=204)


@router.post("/nodes/{node_id}/tallies", status_code=204, responses=answers(410))
async def count(
    home: TheQueue, node_id: Mine, told: Annotated[list[words.TallyWords], Field(max_length=words.MOST)]
) -> Response:
    """Add what a node has counted since the last time."""
    async with home.connection() as connection:
        await tally.add(connection, node_id, {(each.task, each.queue): wire.tally(each) for each in told})
    return Response(status_code=204)


@router.get("/nodes/{node_id}/jobs/{job_id}/steps", responses=answers(410))
async def known(home: TheQueue, _node: Mine, job_id: JobId) -> dict[str, str]:
    """The steps that a job has behind it: their results, as JSON text, by their names."""
    async with home.connection() as connection:
        return await steps.known(connection, job_id)


@router.post("/nodes/{node_id}/jobs/{job_id}/steps", responses=answers(410))
async def keep(home: TheQueue, node_id: Mine, job_id: JobId, told: words.StepDone) -> words.StepKept:
    """Keep the result of a step of a job that the node holds."""
    codec.check(told.result, f"the result of the step {told.name}")
    async with home.connection() as connection:
        kept = await steps.keep(connection, _job(node_id, job_id, told), told.name, told.result)
    return words.StepKept(result=kept)


@router.post("/nodes/{node_id}/jobs/{job_id}/await", responses=answers(410))
async def look(home: TheQueue, node_id: Mine, job_id: JobId, told: words.Look) -> words.Looked:
    """Whether a job that the node holds was answered."""
    async with home.connection() as connection:
        answer, left = await signals.look(connection, _job(node_id, job_id, told), told.event, told.timeout)
    return words.Looked(answer=answer, left=left)


@router.get("/nodes/{node_id}/jobs/{job_id}/parents", responses=answers(410))
async def parents(home: TheQueue, _node: Mine, job_id: JobId) -> dict[int, Any]:
    """What the jobs came to that a job waited for, by their ids."""
    async with home.connection() as connection:
        return await dependency.results(connection, job_id)


@router.post("/nodes/{node_id}/jobs/{job_id}/started", status_code=204, responses=answers(410))
async def started(home: TheQueue, node_id: Mine, job_id: JobId, told: words.Started) -> Response:
    """Let the key of a job that the node holds and starts be free."""
    async with home.connection() as connection:
        if await finish.holds(connection, _job(node_id, job_id, told), told.n):
            await keys.free(connection, told.key, job_id)
    return Response(status_code=204)


@router.get("/notices", responses=answers())
async def notices(
    reach: TheReach,
    _token: Worker,
    after: Annotated[str, Query(max_length=100)] = "",
    patience: Annotated[float, Query(ge=0, le=30)] = 20.0,
) -> words.Notices:
    """What has happened since the cursor `after`, as soon as there is something."""
    cursor, found = await reach.bell.wait(after, patience)
    return words.Notices(cursor=cursor, notices=found)


async def _lanes(connection: Any, node_id: int) -> list[lane.Lane]:
    about = await node.about(connection, node_id)
    return await lane.lanes(connection, about.queues, about.name)


async def _wanted(connection: Any, node_id: int, given: words.Claim) -> Wanted:
    """What is not told is as the node has registered."""
    n, tasks = given.n or secrets.randbits(62), given.tasks
    if tasks is None:
        tasks = (await node.about(connection, node_id)).tasks
    if given.lanes is None:
        targets = [(each, BEGINNING) for each in await _lanes(connection, node_id)]
    else:
        targets = [(lane.Lane(each, "", 0), low) for each, low in given.lanes]
    return Wanted(
        n,
        targets,
        given.batch,
        tasks,
        given.free,
        given.alone,
        max(1, given.last_chance),
        rest=given.rest or bool(given.wait),
    )


def _job(node_id: int, job_id: int, held: words.Held) -> Any:
    if held.id != job_id:
        raise Problem(422, f"body.id is {held.id}, the path says {job_id}")
    return wire.claimed(node_id, held)


def _json(model: BaseModel) -> Response:
    return Response(model.model_dump_json(), media_type="application/json")
