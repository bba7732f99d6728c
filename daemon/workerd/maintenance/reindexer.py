"""The reindexer: keeps the indexes of the queue from staying as large as they once were."""

from __future__ import annotations

import asyncio
import logging

import asyncpg

from workerd.errors import DatabaseError
from workerd.queue import reindex
from workerd.queue.database import CONNECTION_ERRORS, connect

FIRST = 60.0  # seconds after its node became the leader
ROUND = 86400.0  # seconds between two looks
AGAIN = 3600.0  # seconds after one that failed

log = logging.getLogger(__name__)


class Reindexer:
    """Has a connection of its own for each round: a rebuild may take minutes, for which no other service is to wait."""

    def __init__(self, dsn: str, name: str) -> None:
        self._dsn = dsn
        self._name = name

    async def run(self) -> None:
        """Run until cancelled."""
        wait = FIRST
        while True:
            await asyncio.sleep(wait)
            try:
                await self._round()
                wait = ROUND
            except (DatabaseError, *CONNECTION_ERRORS, asyncpg.PostgresError) as error:
                log.warning("reindex: %s; again in %.0f s", error, AGAIN)
                wait = AGAIN

    async def _round(self) -> None:
        connection = await connect(self._dsn, self._name)
        try:
            async for line in reindex.rebuild(connection):
                log.info("%s", line)
        finally:
            await connection.close(
                timeout=5
            )  # with the rebuild, when it is cancelled: its server is not to go on with it
