"""The ledger of a fault test: installed before its daemons start, balanced when it has stopped them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.balance import Books

if TYPE_CHECKING:
    import asyncpg

    from workerd.settings import Settings


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """On a busy machine too nobody who lives misses three heartbeats: where deaths are counted, none is to be added."""
    return settings.model_copy(update={"heartbeat_interval": 2.0})


@pytest.fixture
async def books(db: asyncpg.Connection[asyncpg.Record]) -> Books:
    """What a fault test ends with: `assert await books.close(daemon, …) == []`."""
    return await Books.open(db)
