"""Reindex: rebuild indexes that are far larger than their rows need, beside the work on their tables.

A queue that was long once leaves indexes of that length behind: their pages are used again, but never given back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from workerd.queue.database import Connection

HOT = ("ready", "lease", "scheduled", "key", "node")
WORTH_IT = 64 * 2**20  # bytes below which an index is left alone
EXCESS = 4.0  # times what its rows need: a B-tree in use is up to twice as large
_PAGE = 8192  # bytes
_ENTRY = 20  # bytes of an entry besides its key: header, line pointer, alignment
_FILL = 0.9  # of a page that a fresh index uses
_LONGEST = 86400.0  # seconds

# Its locks hinder neither reader nor writer, but no autovacuum begins meanwhile: it is not to wait long for an old transaction.
_SETTINGS = "SET lock_timeout = '10s'; SET statement_timeout = 0"
_INDEXES = """
    SELECT c.relname, pg_relation_size(c.oid), greatest(t.reltuples, pg_stat_get_live_tuples(t.oid), 0)::bigint,
        (SELECT sum(coalesce(s.avg_width, CASE WHEN a.attlen > 0 THEN a.attlen ELSE 32 END))
         FROM pg_attribute a LEFT JOIN pg_stats s ON s.schemaname = 'workerd' AND s.tablename = t.relname AND s.attname = a.attname
         WHERE a.attrelid = c.oid)
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
    WHERE t.relnamespace = to_regnamespace('workerd') AND t.relname = ANY ($1) AND i.indisvalid ORDER BY c.relname
"""
# What an interrupted reindex leaves: written with every row, read by nobody.
_LEFT_BEHIND = r"""
    SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
    WHERE t.relnamespace = to_regnamespace('workerd') AND t.relname = ANY ($1) AND NOT i.indisvalid AND c.relname ~ '_cc(new|old)\d*$'
"""


@dataclass(frozen=True, slots=True)
class Index:
    """An index as it is: its size in bytes, the live rows of its table as far as is known, the width of a key in bytes."""

    name: str
    size: int
    rows: int
    width: int

    @property
    def needed(self) -> int:
        """The size in bytes of a fresh one."""
        return _PAGE + round(self.rows * (self.width + _ENTRY) / _FILL)

    @property
    def bloated(self) -> bool:
        return self.size > WORTH_IT and self.size > EXCESS * self.needed


async def rebuild(connection: Connection) -> AsyncIterator[str]:
    """Rebuild the bloated indexes one after the other; yields a line for each thing that was done.

    Raises asyncpg.LockNotAvailableError when an old transaction is in the way; nothing is left behind then, if that can be.
    """
    await connection.execute(_SETTINGS)
    for name in await _drop_left_behind(connection):
        yield f"dropped {name}, which an interrupted reindex had left"
    for index in await look(connection):
        if index.bloated:
            yield f"reindexed {index.name}: {_mb(index.size)}, now {_mb(await _reindex(connection, index.name))}"


async def look(connection: Connection) -> list[Index]:
    """The indexes of the tables that each job passes through."""
    return [Index(*row) for row in await connection.fetch(_INDEXES, HOT)]


async def _reindex(connection: Connection, name: str) -> int:
    try:
        await connection.execute(f'REINDEX INDEX CONCURRENTLY workerd."{name}"', timeout=_LONGEST)
    except asyncpg.LockNotAvailableError:
        await _drop_left_behind(connection)
        raise
    size: int = await connection.fetchval("SELECT pg_relation_size(format('workerd.%I', $1::text)::regclass)", name)
    return size


async def _drop_left_behind(connection: Connection) -> list[str]:
    names = [row["relname"] for row in await connection.fetch(_LEFT_BEHIND, HOT)]
    for name in names:  # one that another session is building is under its lock until it has another name
        await connection.execute(f'DROP INDEX CONCURRENTLY IF EXISTS workerd."{name}"')
    return names


def _mb(size: int) -> str:
    return f"{size / 2**20:,.1f} MB"
