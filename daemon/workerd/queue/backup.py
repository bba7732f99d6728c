"""Backup: the rows of the queue as they are at one moment, beside daemons that work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workerd.errors import BackupError
from workerd.queue import migrate, pg_dump
from workerd.queue.contents import ALIKE, LONGEST, Contents, jobs, own_tables, sequences

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from workerd.queue.database import Connection

_TABLES = """
    SELECT c.relname, array_agg(a.attname ORDER BY a.attnum) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relnamespace = 'workerd'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
        AND (c.relispartition OR c.relname = ANY ($1))
    GROUP BY c.relname ORDER BY c.relname
"""
_FOREIGN = """
    SELECT relname FROM pg_class
    WHERE relnamespace = 'workerd'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition AND relname <> ALL ($1)
"""
_HALF_DONE = "SELECT EXISTS (SELECT FROM workerd.migration_part)"
_MOMENT = "SELECT to_json(now()) #>> '{}'"
_DAYS = "SELECT day::text FROM workerd.history_day ORDER BY day"


async def backup(connection: Connection, dsn: str, out: Callable[[bytes], object], program: Path | None) -> Contents:
    """Write a script of COPY statements with all rows of the schema to `out`, and return what it holds.

    With `program`, a pg_dump that is not older than the server, it is the whole of what that writes: also the schema itself, so
    that psql can restore it. Raises BackupError when there is no queue, or an upgrade is half done.
    """
    schema = await migrate.current(connection)
    migrate.check(schema)
    if not schema:
        raise BackupError("there is no queue in this database: there is nothing to back up")
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.execute(f"{ALIKE}; SET LOCAL idle_in_transaction_session_timeout = 0")
        if await connection.fetchval(_HALF_DONE):
            raise BackupError("an upgrade of the schema is half done: run `workerctl db upgrade` first")
        contents = Contents(
            created_at=await connection.fetchval(_MOMENT),
            schema=schema,
            jobs=await jobs(connection),
            days=[row["day"] for row in await connection.fetch(_DAYS)],
            sequences={},
        )
        if program is None:
            await _copy(connection, out)
        else:
            snapshot = await connection.fetchval("SELECT pg_export_snapshot()")
            foreign = [row["relname"] for row in await connection.fetch(_FOREIGN, own_tables())]
            await pg_dump.run(program, dsn, snapshot, foreign, out)
        contents.sequences.update(await sequences(connection))
    return contents


async def _copy(connection: Connection, out: Callable[[bytes], object]) -> None:
    """What pg_dump writes of the rows."""
    tables = await connection.fetch(_TABLES, own_tables())
    await connection.execute(f"LOCK TABLE {', '.join(f'workerd.{name}' for name, _ in tables)} IN ACCESS SHARE MODE")

    async def write(data: bytes) -> None:
        out(data)

    for table, columns in tables:
        out(f"COPY workerd.{table} ({', '.join(columns)}) FROM stdin;\n".encode())
        await connection.copy_from_table(
            table, schema_name="workerd", columns=columns, output=write, format="text", encoding="UTF8", timeout=LONGEST
        )
        out(b"\\.\n\n")
