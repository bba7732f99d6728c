"""One engine and one set of images for all tests of Docker, one stack for each module."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import asyncpg
import pytest

from tests import ledger
from tests.faults.balance import Books
from tests.shared import CACHE, locked
from tests.system.docker import engine as engines
from tests.system.docker.image import build
from tests.system.docker.stack import Stack
from workerd import Queue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.system.docker.engine import Engine


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    with engines.running() as found:
        if isinstance(found, str):
            pytest.skip(found)
        yield found


@pytest.fixture(scope="session")
def variables(engine: Engine) -> dict[str, str]:
    """What compose needs here, with the worker's image built."""
    given = {"WORKER_IMAGE": "workerd-test"}
    if engine.stand_ins:
        given |= {
            "BASE": "python:3.11-slim-bookworm",
            "POSTGRES_IMAGE": "postgres:15-bookworm",
            "BUILD_NETWORK": "host",
        }
    with locked(CACHE / "image.lock"):  # the second to come has its layers
        build(engine, given)
    return given


@pytest.fixture(scope="module")
def stack(engine: Engine, variables: dict[str, str]) -> Iterator[Stack]:
    """A worker and its local database, healthy."""
    made = Stack(engine, f"workerd-test-{uuid4().hex[:8]}", variables)
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest.fixture
async def db(stack: Stack) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(stack.dsn)
    yield connection
    await connection.close()


@pytest.fixture
async def queue(stack: Stack) -> AsyncIterator[Queue]:
    async with Queue.connect(stack.dsn) as opened:
        yield opened


@pytest.fixture
async def books(db: asyncpg.Connection[asyncpg.Record]) -> Books:
    """The ledger, opened by the first test of a module; each ends with `balanced`."""
    if await db.fetchval("SELECT to_regclass('public.ledger') IS NULL"):
        await ledger.install(db)
    return Books(db)
