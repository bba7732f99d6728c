"""Lanes: one queue at one priority; the unit in which jobs are claimed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from workerd.job import AnyConnection


_LANES = """
    SELECT l.id, l.queue, l.priority FROM workerd.lane l JOIN workerd.queue q ON q.name = l.queue
    WHERE q.paused_at IS NULL AND ($1::text[] = '{}' OR l.queue = ANY ($1)) AND (l.node IS NULL OR l.node = $2)
    ORDER BY l.priority DESC, l.node NULLS LAST, l.id
"""


@dataclass(frozen=True, slots=True)
class Lane:
    id: int
    queue: str
    priority: int


async def lanes(connection: AnyConnection, queues: Collection[str], node: str = "") -> list[Lane]:
    """The lanes of these queues (none given: of all) that are not paused, the most urgent first.

    Of those that hold what is pinned to a node, the ones of `node` (a name).
    """
    return [Lane(*row) for row in await connection.fetch(_LANES, list(queues), node)]
