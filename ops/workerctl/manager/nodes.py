"""Routes of nodes."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response

from workerctl.manager.access import Operator, Reader
from workerctl.manager.base import TheQueue, recorded
from workerctl.manager.models import JobPage, Node, Ordered, Scale
from workerctl.manager.problems import answers
from workerctl.ordering import NotTaken, carry_out
from workerd.queue import fleet, inspect, pages
from workerd.queue.pages import Wanted

PATIENCE = 5.0  # seconds that an answer waits for the node
MOST = 500  # jobs of one node that are shown

router = APIRouter(prefix="/nodes", tags=["nodes"])
Name = Annotated[
    str, Path(min_length=1, max_length=200, pattern=r"^[^\x00]*$", description="The name of a node, or its id.")
]


@router.get("", responses=answers())
async def list_nodes(home: TheQueue, _token: Reader, every: bool = False) -> list[Node]:
    """The nodes that live or died within a day; with `every` also those that left."""
    async with home.connection() as connection:
        return [Node.model_validate(row) for row in await inspect.nodes(connection, every=every)]


@router.get("/{node}/jobs", responses=answers(404))
async def jobs_of(home: TheQueue, _token: Reader, node: Name) -> JobPage:
    """What a node runs."""
    async with home.connection() as connection:
        known = await fleet.living(connection, node)
        found = await pages.page(connection, Wanted(state="running", node=known.name), MOST)
    return JobPage.model_validate({"jobs": found, "next": None})


@router.post("/{node}/scale", responses={202: {"model": Ordered}, **answers(404, 409)})
async def scale(home: TheQueue, token: Operator, node: Name, wanted: Scale, response: Response) -> Ordered:
    """Change the number of workers of a node; no job is interrupted. 202: it has not taken the order yet."""
    return await _order(home, token, node, "scale", {"workers": wanted.workers}, response)


@router.post("/{node}/drain", responses={202: {"model": Ordered}, **answers(404, 409)})
async def drain(home: TheQueue, token: Operator, node: Name, response: Response) -> Ordered:
    """Let a node finish what it runs, give back the rest and stop. 202: it has not taken the order yet."""
    return await _order(home, token, node, "drain", {}, response)


async def _order(
    home: TheQueue, token: Operator, node: str, verb: str, arguments: dict[str, Any], response: Response
) -> Ordered:
    async with home.connection() as connection:
        await fleet.living(connection, node)
        await recorded(connection, token, verb, f"node {node}", arguments)
        try:
            name, result = await carry_out(connection, node, verb, arguments, PATIENCE)
        except NotTaken:
            response.status_code = 202
            return Ordered(node=node, done=False, result=None)
    return Ordered(node=name, done=True, result=result)
