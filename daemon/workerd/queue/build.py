"""Build: the schema in one transaction, for a restore, whose tables nobody else sees before it commits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workerd.queue import migrate

if TYPE_CHECKING:
    from workerd.queue.database import Connection

LONGEST = 86400.0  # seconds for a statement that reads or writes a whole table


async def build(connection: Connection, after: int, upto: int) -> None:
    """Bring the schema from version `after` (0: there is none) to `upto` within the caller's transaction."""
    await connection.execute(migrate.BOOKS)
    for migration in migrate.known():
        if after < migration.version <= upto:
            for part in migration.parts:  # where nobody is hindered, nothing has to be done beside others
                await connection.execute(part.sql.replace(" CONCURRENTLY", ""), timeout=LONGEST)
            await connection.execute(migration.record(migration.parts[-1]))
    await connection.execute("SET LOCAL lock_timeout = 0")  # parts set one
