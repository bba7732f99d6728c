"""Restore: a backup takes the place of the queue, in one transaction. What ran when it was made is queued again.

Tables of this program's version are emptied and stay, with whatever grants, views and triggers others made for them; those of an older
version are made again.
"""

from __future__ import annotations

import asyncio
import re
from time import monotonic
from typing import TYPE_CHECKING

import asyncpg

from workerd.errors import BackupError
from workerd.queue import migrate, roles
from workerd.queue.contents import ALIKE, LONGEST, jobs, own_tables, sequences

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

    from workerd.queue.contents import Contents
    from workerd.queue.database import Connection

PATIENCE = 30.0  # seconds for which the tables are tried to be had alone
CHUNK = 1 << 19  # bytes
KEPT = frozenset({"migration", "migration_part", "repeatable", "history_day"})  # tables whose rows come with the schema

_HEAD = re.compile(rb"COPY workerd\.(\w+) \((.+)\) FROM stdin;\n")
_TABLES = """
    SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace('workerd') AND relkind IN ('r', 'p') AND NOT relispartition
"""
_HOLDS_JOBS = "SELECT EXISTS (SELECT FROM workerd.ready) OR EXISTS (SELECT FROM workerd.scheduled) OR EXISTS (SELECT FROM workerd.history)"
_REFERENCES = """
    SELECT conrelid::regclass::text AS table, quote_ident(conname) AS name, pg_get_constraintdef(oid) AS definition FROM pg_constraint
    WHERE connamespace = 'workerd'::regnamespace AND contype = 'f' AND conparentid = 0
"""
# A day needs one before it, and gets one behind it: the function makes three days for each TTL.
_ADD_DAYS = """
    SELECT workerd.add_history_days(array(
        SELECT extract(epoch FROM day::timestamp - now() AT TIME ZONE 'UTC') - 86400 FROM unnest($1::text[]) AS day))
"""
# Transactions of another server, or another time, are not waited for.
_LOOK_ANEW = "UPDATE workerd.unlooked SET xid = NULL"
_NODES = "UPDATE workerd.node SET dead_at = coalesce(dead_at, clock_timestamp()), busy = 0"
# The attempt that ran is spent and no failure, as when a draining node gives a job back; what was to be cancelled is.
_RETURN = """
    SELECT coalesce(sum(cardinality(workerd.finish(node, n, pos, array_fill('returned'::text, size), array_fill(NULL::text, size),
        array_fill('restored from a backup'::text, size), array_fill(0::float8, size), ran, array_fill($1::float8, size),
        array_fill(NULL::real, size)))), 0)::int
    FROM (
        SELECT l.node, array_agg(l.n) AS n, array_agg(p) AS pos, ARRAY[count(*)::int] AS size,
            array_agg(extract(epoch FROM clock_timestamp() - l.claimed_at)::float8) AS ran
        FROM workerd.lease l, workerd.positions(l.tickets) p GROUP BY l.node) AS held
"""
_SET = "SELECT setval(('workerd.' || quote_ident($1))::regclass, $2)"
# Daemons look again from the beginning, at the lanes that there are now.
_TELL = """
    SELECT pg_notify('workerd', 'lanes'), (
        SELECT count(pg_notify('workerd', format('rewind %s %s', lane, pos)))
        FROM (SELECT lane, min(pos) AS pos FROM workerd.ready GROUP BY lane) AS lowest)
"""
# Sessions of daemons that hold locks, of nodes or tables which have gone.
_END_SESSIONS = """
    SELECT count(pg_terminate_backend(a.pid)) FROM pg_stat_activity a
    WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.application_name LIKE 'worker %' AND EXISTS (
        SELECT FROM pg_locks k WHERE k.pid = a.pid AND k.locktype = 'advisory')
"""


async def restore(
    connection: Connection, contents: Contents, script: Iterable[bytes], *, replace: bool, ttl: float
) -> int:
    """Put the rows of a backup, the lines of its script, in the place of the schema; returns how many jobs ran when it was made.

    `replace`: though there are jobs, which are lost. `ttl`: seconds to keep one that was being cancelled. The caller's transaction
    makes it all or nothing. Raises BackupError when there are jobs, somebody keeps the tables, or the script is not complete, and
    SchemaError when the schema is newer than this program.
    """
    await connection.execute(ALIKE)
    if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", migrate.LOCK):
        raise BackupError("an upgrade of the schema, or another restore, is under way: try again when it is done")
    prefixes = await roles.granted(connection)
    given_out = await _make_room(connection, replace=replace)
    await _load(connection, contents, script)
    if await jobs(connection) != contents.jobs:
        raise BackupError("the backup does not hold the jobs that it says it does: take another one")
    await roles.grant_again(connection, prefixes)
    returned: int = await connection.fetchval(_RETURN, ttl, timeout=LONGEST)
    await connection.execute(_NODES)
    await connection.execute(_LOOK_ANEW)
    for name in {**contents.sequences, **given_out}:  # no number is given out twice
        await connection.execute(_SET, name, max(contents.sequences.get(name, 0), given_out.get(name, 0)))
    await connection.execute(_TELL)
    return returned


async def end_sessions(connection: Connection) -> None:
    """Let daemons that worked on the queue before the restore connect, and register, anew.

    Raises asyncpg.InsufficientPrivilegeError where they belong to another role.
    """
    await connection.execute(_END_SESSIONS)


async def _make_room(connection: Connection, *, replace: bool) -> dict[str, int]:
    """Leave the tables of this program, without rows; returns the numbers that the sequences that were there gave out last."""
    there = [row["relname"] for row in await connection.fetch(_TABLES)]
    if there:
        await _lock(connection, there)
    found = await migrate.current(connection)
    migrate.check(found)
    if found and not replace and await connection.fetchval(_HOLDS_JOBS):
        raise BackupError("this database holds jobs: --replace puts the backup in their place, and they are lost")
    given_out = await sequences(connection)
    if found == migrate.latest():
        await connection.execute(f"TRUNCATE {_names(own_tables().intersection(there) - KEPT)}")
        return given_out
    foreign = set(there) - own_tables()
    if foreign:
        raise BackupError(
            f"the schema has version {found}, this program {migrate.latest()}, so it has to be made again, but it holds tables "
            f"that are not the queue's: move {', '.join(sorted(foreign))} to another schema (ALTER TABLE … SET SCHEMA)"
        )
    await connection.execute("DROP SCHEMA IF EXISTS workerd CASCADE")
    await migrate.install(connection)
    return given_out


async def _lock(connection: Connection, tables: list[str]) -> None:
    """Have all tables alone. Who cannot have one gives all back: daemons may wait for the others."""
    end = monotonic() + PATIENCE
    while True:
        try:
            async with connection.transaction():
                await connection.execute("SET LOCAL lock_timeout = '300ms'")
                await connection.execute(f"LOCK TABLE {_names(tables)} IN ACCESS EXCLUSIVE MODE")
                return
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
            if monotonic() > end:
                raise BackupError(
                    f"other sessions keep tables of the queue for over {PATIENCE:.0f} s: stop the daemons, or end long transactions"
                ) from error
        await asyncio.sleep(0.1)


async def _load(connection: Connection, contents: Contents, script: Iterable[bytes]) -> None:
    """Fill the tables in the order of the script: references are checked afterwards."""
    references = await connection.fetch(_REFERENCES)
    for each in references:
        await connection.execute(f"ALTER TABLE {each['table']} DROP CONSTRAINT {each['name']}")
    await connection.execute(_ADD_DAYS, contents.days)
    lines = iter(script)
    for line in lines:
        head = _HEAD.fullmatch(line)
        if head is None:
            continue
        table, columns = head[1].decode(), [name.strip('" ') for name in head[2].decode().split(",")]
        rows = _rows(lines)
        if table in KEPT:
            async for _ in rows:
                pass
        else:
            await _copy(connection, contents, table, columns, rows)
    for each in references:
        await connection.execute(f"ALTER TABLE {each['table']} ADD CONSTRAINT {each['name']} {each['definition']}")


async def _copy(
    connection: Connection, contents: Contents, table: str, columns: list[str], rows: AsyncIterator[bytes]
) -> None:
    try:
        await connection.copy_to_table(
            table, schema_name="workerd", columns=columns, source=rows, format="text", encoding="UTF8", timeout=LONGEST
        )
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError) as error:
        raise BackupError(
            f"the backup has schema version {contents.schema}, which {table} has changed since: restore it with a program of that version, "
            "then run `workerctl db upgrade` with this one"
        ) from error


async def _rows(lines: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The rows of one table, many at a time."""
    chunk: list[bytes] = []
    size = 0
    for line in lines:
        if line == b"\\.\n":
            yield b"".join(chunk)
            return
        chunk.append(line)
        size += len(line)
        if size > CHUNK:
            yield b"".join(chunk)
            chunk, size = [], 0
    raise BackupError("the backup ends in the middle of a table: take another one")


def _names(tables: Iterable[str]) -> str:
    return ", ".join(f'workerd."{table}"' for table in sorted(tables))
