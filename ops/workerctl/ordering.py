"""Orders to nodes, awaited: given from anywhere, carried out by the node."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Any

from workerd.errors import NodeError
from workerd.queue import fleet, orders

if TYPE_CHECKING:
    from workerd.job import AnyConnection

PAUSE = 0.1  # seconds between two looks whether a node has done what it was ordered to


class NotTaken(NodeError):
    """The node has not taken the order in time; it will when it reaches the database again."""


async def carry_out(
    connection: AnyConnection, node: str, verb: str, arguments: dict[str, Any], timeout: float
) -> tuple[str, dict[str, Any]]:
    """Give an order to the node of this name or id and wait until it is carried out; returns the node's name and its answer.

    Raises NodeNotFound, NotTaken, NodeError with the reason.
    """
    found = await fleet.living(connection, node)
    order = await orders.give(connection, found.id, verb, arguments)
    end = monotonic() + timeout
    while order is not None:
        outcome = await orders.look(connection, order)
        if outcome is None or (outcome.dead and not outcome.done):
            break
        if outcome.error is not None:
            raise NodeError(f"node {found.name} refuses: {outcome.error}")
        if outcome.result is not None:
            return found.name, outcome.result
        if monotonic() > end:
            raise NotTaken(
                f"node {found.name} has not taken the order within {timeout:g} s: it will when it reaches the database again"
            )
        await asyncio.sleep(PAUSE)
    raise NodeError(f"node {found.name} died before it took the order")
