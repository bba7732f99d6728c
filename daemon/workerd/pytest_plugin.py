"""pytest fixtures, and a guard against tests that enqueue where the settings lead to; pytest finds them by itself.

Whatever is not needed by tests that use none is imported when one is used.
"""

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

from workerd.errors import ConfigError
from workerd.queue import configured

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from workerd import Queue
    from workerd.settings import Settings

USE_SETTINGS = "workerd_use_settings"  # a marker, and an option of the ini file
MAY = "tests may use the queue that the settings lead to, such as DATABASE_URL"

_made: set[str] = set()  # the addresses of databases of tests

try:
    import pytest_asyncio

    asynchronous_fixture: Any = pytest_asyncio.fixture
except ImportError:  # another plugin, such as anyio's, runs asynchronous fixtures
    asynchronous_fixture = pytest.fixture


class Guard:
    """Refuses the queue of the settings to tests that have not asked for it: it may be the one of production."""

    def __init__(self, config: pytest.Config) -> None:
        self._always: bool = config.getini(USE_SETTINGS)
        self._marked = False  # the test that runs is

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._marked = item.get_closest_marker(USE_SETTINGS) is not None
        try:
            return (yield)
        finally:
            self._marked = False

    def __call__(self, settings: Settings) -> None:
        """Raise ConfigError unless these settings may be used."""
        if self._always or self._marked or settings.database_url in _made:
            return
        from workerd.queue.database import location

        url = settings.database_url
        where = "the embedded database" if url is None else f"DATABASE_URL, {location(url)}"
        raise ConfigError(
            f"this test would use the queue of the settings ({where}): take the fixture workerd_queue, or ask for that one by "
            f"@pytest.mark.{USE_SETTINGS}, or for all tests by {USE_SETTINGS} = true in pytest's ini file"
        )


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(USE_SETTINGS, MAY, type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{USE_SETTINGS}: {MAY}")
    guard = Guard(config)
    config.pluginmanager.register(guard, "workerd guard")
    configured.guards.append(guard)
    config.add_cleanup(lambda: configured.guards.remove(guard))


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
    address = _address(workerd_server, name)
    _made.add(address)
    try:
        yield address
    finally:
        _made.discard(address)
        asyncio.run(_do(workerd_server, f"DROP DATABASE {name} WITH (FORCE)"))


@asynchronous_fixture  # type: ignore[untyped-decorator]  # the one or the other
async def workerd_queue(workerd_database: str) -> AsyncIterator[Queue]:
    """A queue on a fresh database; `task.enqueue` and `task.enqueue_sync` without a connection reach it too."""
    from workerd import Queue
    from workerd.queue import default_queue, sync_client

    async with Queue.connect(workerd_database) as queue:
        before = default_queue.set_default(queue)
        try:
            yield queue
        finally:
            default_queue.set_default(before)
            sync_client.close_default()


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
