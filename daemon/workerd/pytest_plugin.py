"""pytest fixtures; pytest finds them by itself. Whatever is not needed by tests that use none is imported when one is used."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from workerd import Queue


try:
    import pytest_asyncio

    asynchronous_fixture: Any = pytest_asyncio.fixture
except ImportError:  # another plugin, such as anyio's, runs asynchronous fixtures
    asynchronous_fixture = pytest.fixture


@pytest.fixture(scope="session")
def workerd_server() -> Iterator[str]:
    """The address of a PostgreSQL where databases may be made: WORKERD_TEST_URL, else an embedded one for this session."""
    from workerd import embedded

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


@pytest.fixture(scope="session")
def workerd_template(workerd_server: str) -> Iterator[str]:
    """The name of a database with the schema, of which each test gets a copy."""
    name = f"workerd_template_{uuid4().hex}"
    asyncio.run(_do(workerd_server, f"CREATE DATABASE {name}"))
    try:
        asyncio.run(_make_schema(_address(workerd_server, name)))
        yield name
    finally:
        asyncio.run(_do(workerd_server, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def workerd_database(workerd_server: str, workerd_template: str) -> Iterator[str]:
    """The address of a fresh database with the schema, dropped after the test."""
    name = f"workerd_test_{uuid4().hex}"
    asyncio.run(_do(workerd_server, f"CREATE DATABASE {name} TEMPLATE {workerd_template}"))
    try:
        yield _address(workerd_server, name)
    finally:
        asyncio.run(_do(workerd_server, f"DROP DATABASE {name} WITH (FORCE)"))


@asynchronous_fixture  # type: ignore[untyped-decorator]  # the one or the other
async def workerd_queue(workerd_database: str) -> AsyncIterator[Queue]:
    """A queue on a fresh database; `task.enqueue` without a connection reaches it too."""
    from workerd import Queue
    from workerd.queue import client

    async with Queue.connect(workerd_database) as queue:
        before = client.set_default(queue)
        try:
            yield queue
        finally:
            client.set_default(before)


def _address(server: str, database: str) -> str:
    return urlsplit(server)._replace(path=f"/{database}").geturl()


async def _do(dsn: str, statement: str) -> None:
    connection = await _connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _make_schema(dsn: str) -> None:
    from workerd.queue.migrate import upgrade

    connection = await _connect(dsn)
    try:
        await upgrade(connection)
    finally:
        await connection.close()


async def _connect(dsn: str) -> Any:
    import asyncpg

    return await asyncpg.connect(dsn)
