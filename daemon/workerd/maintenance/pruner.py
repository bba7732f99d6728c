"""The pruner: drops expired history and makes room for the days to come."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import asyncpg

from workerd.declaration import ttls
from workerd.queue import prune

if TYPE_CHECKING:
    from workerd.config import Settings
    from workerd.queue.database import Connection
    from workerd.tasks import Task

ROUND = 3600.0  # seconds
AGAIN = 60.0  # seconds, where another session, such as a backup, keeps a table

log = logging.getLogger(__name__)


class Pruner:
    def __init__(self, settings: Settings, tasks: dict[str, Task[..., object]]) -> None:
        self._ttls = ttls(settings, tasks)

    async def run_once(self, connection: Connection) -> float:
        """Prune once; returns the seconds until the next time."""
        await prune.add_days(connection, self._ttls)
        try:
            dropped = await prune.prune(connection, max(self._ttls))
        except asyncpg.LockNotAvailableError:
            log.info("what has expired is kept by another session: pruned later")
            return AGAIN
        if dropped:
            log.info("pruned %s", ", ".join(dropped))
        return ROUND
