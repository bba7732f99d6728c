"""The schema: made once by whoever comes first, never touched by an older program."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from workerd.errors import SchemaError
from workerd.queue import migrate


async def test_many_daemons_starting_at_once_make_one_schema(empty_dsn: str) -> None:
    async def upgrade() -> list[int]:
        connection = await asyncpg.connect(empty_dsn)
        applied = [m.version for m in await migrate.upgrade(connection)]
        await connection.close()
        return applied

    applied = [version for each in await asyncio.gather(*(upgrade() for _ in range(8))) for version in each]
    assert sorted(applied) == [m.version for m in migrate.known()]


async def test_versions_are_numbered_without_gaps() -> None:
    assert [m.version for m in migrate.known()] == list(range(1, migrate.latest() + 1))


async def test_a_newer_schema_is_refused_untouched(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("INSERT INTO workerd.migration (version, name) VALUES (9999, 'newer')")
    with pytest.raises(SchemaError, match="upgrade workerd on this host"):
        await migrate.upgrade(connection)
    await connection.close()


async def test_a_role_without_rights_is_told_what_to_do(empty_dsn: str) -> None:
    owner = await asyncpg.connect(empty_dsn)
    await owner.execute("DROP ROLE IF EXISTS powerless; CREATE ROLE powerless")
    await owner.execute("SET ROLE powerless")
    with pytest.raises(SchemaError, match="workerctl db upgrade"):
        await migrate.upgrade(owner)
    await owner.execute("RESET ROLE; DROP ROLE powerless")
    await owner.close()
