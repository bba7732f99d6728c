"""The ground of the checks of a database: a connection that is made anew when a question was not answered in time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from workerd.errors import DatabaseError
from workerd.queue.database import connect, refuse_pooler

if TYPE_CHECKING:
    from workerd.locate import Location
    from workerd.queue.database import Connection
    from workerd.queue.server import Server
    from workerd.settings import Settings

NAME = "workerctl worker doctor"
PATIENCE = 5.0  # seconds for a connection, and for what one check asks


class Ground:
    """`pooler`: why the connection is not one of the server's own. `apart`: the two addresses do not lead to one database.

    `server`: what it is set to, known after the first check. `lacks`: its role may not do what daemons do.
    """

    def __init__(self, settings: Settings, where: Location) -> None:
        self.settings = settings
        self.where = where
        self.pooler: str | None = None
        self.apart = False
        self.lacks = False
        self.server: Server | None = None
        self.connection: Connection

    async def open(self) -> None:
        """Raises DatabaseError."""
        try:
            self.connection = await connect(self.where.direct, NAME, timeout=PATIENCE, command_timeout=PATIENCE)
            await asyncio.wait_for(refuse_pooler(self.connection, self.where.direct), PATIENCE)
        except DatabaseError as error:
            if "DATABASE_DIRECT_URL" not in str(error):
                raise
            self.pooler = str(error)
            self.connection = await self.pooled()

    async def pooled(self) -> Connection:
        """Another one by DATABASE_URL, as the jobs of a daemon have them. Raises DatabaseError."""
        pooled = self.where.pooled or self.pooler is not None
        return await connect(self.where.url, NAME, pooled=pooled, timeout=PATIENCE, command_timeout=PATIENCE)

    async def renew(self) -> None:
        """Drop the connection and open another one. Raises DatabaseError."""
        self.close()
        await self.open()

    def close(self) -> None:
        self.connection.terminate()
