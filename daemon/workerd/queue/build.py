"""Build: the schema in one transaction, for a restore, whose tables nobody else sees before it commits."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from workerd.queue import migrate

if TYPE_CHECKING:
    from workerd.queue.database import Connection

_TABLE = re.compile(r"CREATE TABLE (?:IF NOT EXISTS )?workerd\.(\w+)")
LONGEST = 86400.0  # seconds for a statement that reads or writes a whole table


async def build(connection: Connection, after: int, upto: int) -> None:
    """Bring the schema from version `after` (0: there is none) to `upto` within the caller's transaction."""
    await connection.execute(migrate.BOOKS)
    for migration in migrate.known():
        if after < migration.version <= upto:
            for (
                part
            ) in migration.parts:  # where nobody is hindered, nothing has to be done beside others, or bit by bit
                await connection.execute(part.sql.replace(" CONCURRENTLY", "").replace("COMMIT;", ""), timeout=LONGEST)
            await connection.execute(migration.record(migration.parts[-1]))
    await connection.execute("SET LOCAL lock_timeout = 0")  # parts set one


def own_tables() -> set[str]:
    """The tables that migrations make, partitions aside. Others may stand beside them: a role called workerd makes its own there."""
    made = [migrate.BOOKS, *(part.sql for migration in migrate.known() for part in migration.parts)]
    return {name for sql in made for name in _TABLE.findall(sql)}
