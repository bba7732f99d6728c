"""Daemons of these tests have no database: they work through a manager."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.manager_process import through

if TYPE_CHECKING:
    import asyncpg

    from tests.manager_process import ManagerProcess
    from workerd.settings import Settings


@pytest.fixture
async def settings(settings: Settings, manager: ManagerProcess, db: asyncpg.Connection[asyncpg.Record]) -> Settings:
    """Those of the fault tests, for a node that works through a manager."""
    return await through(manager, settings, db, settings.name)
