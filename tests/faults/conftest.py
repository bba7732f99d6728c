"""The ledger of a fault test: installed before its daemons start, balanced when it has stopped them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.balance import Books

if TYPE_CHECKING:
    import asyncpg


@pytest.fixture
async def books(db: asyncpg.Connection[asyncpg.Record]) -> Books:
    """What a fault test ends with: `assert await books.close(daemon, …) == []`."""
    return await Books.open(db)
