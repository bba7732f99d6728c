"""The fleet as operators see it: find a node by its name or id, and forget those that are dead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workerd.errors import NodeError, NodeNotFound

if TYPE_CHECKING:
    from workerd.job import AnyConnection

_FIND = """
    SELECT id, name, dead_at IS NOT NULL AS dead, draining FROM workerd.node
    WHERE (id::text = $1 OR name = $1) AND forgotten_at IS NULL ORDER BY started_at
"""
_FORGET = """
    UPDATE workerd.node SET forgotten_at = clock_timestamp() WHERE id = ANY ($1) AND dead_at IS NOT NULL AND forgotten_at IS NULL
"""
_ANY = "SELECT EXISTS (SELECT FROM workerd.node WHERE dead_at IS NULL AND NOT draining AND name <> $1)"


@dataclass(frozen=True, slots=True)
class Known:
    """A node of the registry, which is one life of a daemon."""

    id: int
    name: str
    dead: bool
    draining: bool


async def living(connection: AnyConnection, node: str) -> Known:
    """The one living node of this name or id; raises NodeError when there is none, or more than one.

    One that drains gives way to another one of its name: that took over from it.
    """
    found = await _find(connection, node)
    alive = [each for each in found if not each.dead]
    fresh = [each for each in alive if not each.draining]
    if len(fresh or alive) == 1:
        return (fresh or alive)[0]
    if alive:
        ids = ", ".join(str(each.id) for each in alive)
        raise NodeError(f"{len(alive)} living nodes are called {node}: give the id of one of them: {ids}")
    if found:
        raise NodeError(f"node {node} is dead: nothing can be ordered of it")
    raise NodeNotFound(f"there is no node {node} (see workerctl nodes list)")


async def any_living(connection: AnyConnection, but: str) -> bool:
    """Whether a node lives, and takes jobs, that is not of this name."""
    found: bool = await connection.fetchval(_ANY, but)
    return found


async def forget(connection: AnyConnection, node: str) -> int:
    """List the dead nodes of this name or id no more; returns how many. Raises NodeError when there is none, or only living ones.

    Their rows stay until the history that names them has gone.
    """
    found = await _find(connection, node)
    dead = [each.id for each in found if each.dead]
    if not found:
        raise NodeNotFound(f"there is no node {node} (see workerctl nodes list --all)")
    if not dead:
        raise NodeError(
            f"node {node} lives: only a dead one can be forgotten (stop it with `workerctl nodes drain {node}`)"
        )
    await connection.execute(_FORGET, dead)
    return len(dead)


async def _find(connection: AnyConnection, node: str) -> list[Known]:
    return [Known(*row) for row in await connection.fetch(_FIND, node)]
