"""The schema `workerd`: versioned SQL files, applied under a lock by whoever starts first."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING

import asyncpg

from workerd.errors import SchemaError

if TYPE_CHECKING:
    from workerd.job import AnyConnection

LOCK = 0x776F726B657264  # the advisory lock of migrations: "workerd" in hexadecimal


@dataclass(frozen=True)
class Migration:
    """One file `NNNN_name.sql`."""

    version: int
    name: str
    sql: str = field(repr=False)


def known() -> list[Migration]:
    """All migrations of this program, oldest first."""
    found = []
    for file in resources.files("workerd.queue").joinpath("migrations").iterdir():
        number, _, rest = file.name.partition("_")
        if file.name.endswith(".sql"):
            found.append(Migration(int(number), rest.removesuffix(".sql"), file.read_text(encoding="utf-8")))
    return sorted(found, key=lambda m: m.version)


def latest() -> int:
    """The schema's version that this program needs."""
    return known()[-1].version


async def current(connection: AnyConnection) -> int:
    """The version of the schema in the database; 0 when there is none."""
    if await connection.fetchval("SELECT to_regclass('workerd.migration') IS NULL"):
        return 0
    version: int = await connection.fetchval("SELECT coalesce(max(version), 0) FROM workerd.migration")
    return version


async def pending(connection: AnyConnection) -> list[Migration]:
    """The migrations that the database has not seen. Raises SchemaError when it is newer than this program."""
    version = await current(connection)
    check(version)
    return [m for m in known() if m.version > version]


def check(version: int) -> None:
    """Raise SchemaError when a schema of this version was made by a newer program."""
    if version > latest():
        raise SchemaError(
            f"the database has schema version {version}, this program knows {latest()}: upgrade workerd on this host"
        )


async def upgrade(connection: AnyConnection) -> list[Migration]:
    """Apply what is pending, each in its own transaction, and return it.

    Raises SchemaError when the schema is newer than this program or the role may not change it.
    """
    if not await pending(connection):
        return []
    await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
    try:
        todo = await pending(connection)
        for migration in todo:
            await _apply(connection, migration)
        return todo
    except asyncpg.InsufficientPrivilegeError as error:
        raise SchemaError(
            f"the schema cannot be upgraded by this role: {error} (run `workerctl db upgrade` as its owner)"
        ) from error
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", LOCK)


async def _apply(connection: AnyConnection, migration: Migration) -> None:
    async with connection.transaction():
        await connection.execute(
            "CREATE SCHEMA IF NOT EXISTS workerd;"
            "CREATE TABLE IF NOT EXISTS workerd.migration (version int PRIMARY KEY, name text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT now())"
        )
        await connection.execute(migration.sql)
        await connection.execute(
            "INSERT INTO workerd.migration (version, name) VALUES ($1, $2)", migration.version, migration.name
        )
