"""The mover: jobs that prefer a node which is busy go to others, and the priority of jobs rises with their age."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workerd.queue import move

if TYPE_CHECKING:
    from workerd.queue.database import Connection

ROUND = 1.0  # seconds


class Mover:
    async def run_once(self, connection: Connection) -> float:
        """Move what is to be moved; returns the seconds until the next time."""
        return 0.0 if await move.move(connection) >= move.ROWS else ROUND
