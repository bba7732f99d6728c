"""The opening: how a daemon comes to its connections, and the database to what this daemon needs."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING, Any

import asyncpg

from workerd.aio import Backoff
from workerd.declaration import declared
from workerd.error_text import message_of
from workerd.errors import DatabaseError, SchemaError
from workerd.queue import migrate
from workerd.queue.client import Queue
from workerd.queue.database import CONNECTION_ERRORS, connect, is_there, location, refuse_pooler
from workerd.queue.declare import declare

if TYPE_CHECKING:
    from workerd.config import Settings
    from workerd.locate import Location
    from workerd.queue.database import Connection
    from workerd.tasks import Task

IDLE_LIMIT = 20.0  # seconds after which a connection that a burst of jobs has opened is closed
START_LIMIT = 30.0  # seconds for which trouble with a database that has answered is waited out at the start
# A lock that another session holds too: daemons that start at once make the same tasks known, and a commit may take long.
TROUBLE = (DatabaseError, *CONNECTION_ERRORS, asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)

log = logging.getLogger(__name__)


class Opening:
    """Opens the pool, and the claimer's first connection, on which the schema is brought up to date."""

    def __init__(self, settings: Settings, where: Location, tasks: dict[str, Task[..., Any]], name: str) -> None:
        """`name`: what the connections are called."""
        self._settings = settings
        self._where = where
        self._tasks = tasks
        self._name = name
        self._met = False  # the database has answered

    async def open(self) -> tuple[Queue, Connection]:
        """A database that cannot be reached fails the start at once; when it has answered once, trouble is waited out.

        Raises DatabaseError.
        """
        log.info("database: %s%s", location(self._where.url), " (embedded)" if self._where.embedded else "")
        end, backoff = monotonic() + START_LIMIT, Backoff(2.0, first=0.1)
        while True:
            try:
                return await self._try()
            except TROUBLE as error:
                text = message_of(error)
                if not (self._met or is_there(error)) or isinstance(error, SchemaError) or monotonic() > end:
                    raise error if isinstance(error, DatabaseError) else DatabaseError(text) from error
            pause = backoff.next()
            log.warning("database: %s; again in %.1f s", text, pause)
            await asyncio.sleep(pause)

    async def _try(self) -> tuple[Queue, Connection]:
        opening = asyncio.create_task(self._open_queue(), name="pool")
        connection = None
        try:
            connection = await connect(self._where.direct, self._name, claims=True)
            await refuse_pooler(connection, self._where.direct)
            self._met = True
            await self._prepare(connection)
            return await opening, connection
        except BaseException:
            if connection is not None:
                connection.terminate()
            opening.cancel()
            for opened in await asyncio.gather(opening, return_exceptions=True):
                if isinstance(opened, Queue):
                    opened.terminate()
            raise

    async def _prepare(self, connection: Connection) -> None:
        """Bring the schema up to date and make known what this daemon runs."""
        for migration in await migrate.upgrade(connection):
            log.info("schema: applied migration %s %s", migration.version, migration.name)
        await declare(connection, declared(self._settings, self._tasks))

    async def _open_queue(self) -> Queue:
        settings = self._settings
        return await Queue.connect(
            self._where.url,
            pool_size=settings.database_pool_size + settings.database_max_overflow,
            acquire_timeout=settings.database_pool_timeout,
            idle_limit=IDLE_LIMIT,
            pooled=self._where.pooled,
            name=f"{self._name} pool",
        )
