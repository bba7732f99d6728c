"""Orders to nodes: given from anywhere, read by the node with its heartbeat, carried out once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workerd import codec

if TYPE_CHECKING:
    from workerd.job import AnyConnection

_GIVE = """
    WITH given AS (
        INSERT INTO workerd.node_order (node, verb, arguments) SELECT id, $2, $3::jsonb FROM workerd.node WHERE id = $1 AND dead_at IS NULL
        RETURNING id, node)
    SELECT id, pg_notify('workerd', format('order %s', node)) FROM given
"""
_WAITING = "SELECT id, verb, arguments FROM workerd.node_order WHERE node = $1 AND done_at IS NULL ORDER BY id"
_DONE = """
    UPDATE workerd.node_order SET done_at = clock_timestamp(), result = $3::jsonb, error = $4
    WHERE node = $1 AND id = $2 AND done_at IS NULL
"""
_LOOK = """
    SELECT o.done_at IS NOT NULL, o.result, o.error, n.dead_at IS NOT NULL
    FROM workerd.node_order o JOIN workerd.node n ON n.id = o.node WHERE o.id = $1
"""


@dataclass(frozen=True, slots=True)
class Order:
    """What a node is to do: a verb of its control socket."""

    id: int
    verb: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an order: `result` or `error` once it is done; without both it waits, in vain when the node is `dead`."""

    done: bool
    result: dict[str, Any] | None
    error: str | None
    dead: bool


async def give(connection: AnyConnection, node: int, verb: str, arguments: dict[str, Any]) -> int | None:
    """Order a node to do something; returns the order's id, None when the node does not live."""
    order: int | None = await connection.fetchval(_GIVE, node, verb, codec.dumps(arguments, "the order"))
    return order


async def look(connection: AnyConnection, order: int) -> Outcome | None:
    """What has become of an order; None when its node was pruned."""
    row = await connection.fetchrow(_LOOK, order)
    if row is None:
        return None
    done, result, error, dead = row
    return Outcome(done, None if result is None else codec.loads(result), error, dead)


async def waiting(connection: AnyConnection, node: int) -> list[Order]:
    """The orders to this node that are not done, oldest first."""
    return [Order(row[0], row[1], codec.loads(row[2])) for row in await connection.fetch(_WAITING, node)]


async def done(
    connection: AnyConnection, node: int, order: int, result: dict[str, Any] | None, error: str | None
) -> None:
    """Write down what became of an order to a node."""
    await connection.execute(_DONE, node, order, None if result is None else codec.dumps(result, "the result"), error)
