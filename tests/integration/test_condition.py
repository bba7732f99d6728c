"""What the leader and `workerctl doctor` take for trouble of a server, and what not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from workerd.queue import rights
from workerd.queue.condition import condition

if TYPE_CHECKING:
    DB = asyncpg.Connection[asyncpg.Record]

AS_AUTOVACUUM = """
    CREATE TEMPORARY VIEW pg_stat_activity AS
    SELECT datname, pid, xact_start, backend_xmin, backend_xid, 'autovacuum worker' AS backend_type FROM pg_catalog.pg_stat_activity
"""


async def test_an_autovacuum_that_takes_long_is_no_old_transaction(db: DB, dsn: str) -> None:
    other = await asyncpg.connect(dsn)
    try:
        async with other.transaction():
            await other.execute("SELECT txid_current()")
            assert (await condition(db)).oldest_snapshot > 0
            # the same session as an autovacuum has it: a real one of that length takes a table of that size
            await db.execute(AS_AUTOVACUUM)
            await db.execute("SET search_path = pg_temp, pg_catalog")
            seen = await condition(db)
            assert (seen.oldest_transaction, seen.oldest_snapshot) == (0, 0)
    finally:
        await other.close()


async def test_what_is_not_in_the_schema_is_not_told_as_a_missing_right(db: DB) -> None:
    await db.execute("DROP TABLE workerd.sample; DROP FUNCTION workerd.forget_changes")
    assert await rights.lacked(db) == []
