"""pytest fixtures, for `pytest_plugins = ["workerd.testing.fixtures"]` in a conftest.py."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from workerd import embedded
from workerd.queue.migrate import upgrade

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def workerd_server() -> Iterator[str]:
    """The address of a PostgreSQL where databases may be made: WORKERD_TEST_URL, else an embedded one for this session."""
    given = os.environ.get("WORKERD_TEST_URL")
    if given:
        yield given
        return
    state = Path(tempfile.mkdtemp(prefix="workerd-test-"))
    state.chmod(0o755)  # the server may be another user
    try:
        yield embedded.start(state)
        embedded.stop_if_unused(state)
    finally:
        shutil.rmtree(state)


@pytest.fixture
def workerd_database(workerd_server: str) -> Iterator[str]:
    """The address of a fresh database with the schema, dropped after the test."""
    name = f"workerd_test_{uuid4().hex}"
    address = urlsplit(workerd_server)._replace(path=f"/{name}").geturl()
    asyncio.run(_do(workerd_server, f"CREATE DATABASE {name}"))
    try:
        asyncio.run(_make_schema(address))
        yield address
    finally:
        asyncio.run(_do(workerd_server, f"DROP DATABASE {name} WITH (FORCE)"))


async def _do(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _make_schema(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await upgrade(connection)
    finally:
        await connection.close()
