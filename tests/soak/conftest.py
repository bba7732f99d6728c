"""The soak test has a server of its own, which it may restart; `settings` are those of all tests, on that server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest

from tests.soak.server import Server
from workerd.queue import migrate

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def own_server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
async def dsn(own_server: Server) -> str:
    connection = await asyncpg.connect(own_server.dsn)
    await migrate.upgrade(connection)
    await connection.close()
    return own_server.dsn
