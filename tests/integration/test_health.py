"""What a daemon says about its health, to its supervisor and to whoever asks."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import asyncpg

from tests.support import DaemonProcess, until
from workerd.queue import migrate

if TYPE_CHECKING:
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

_WAITS = (
    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_try_advisory_lock%' AND pid <> pg_backend_pid()"
)


async def test_sigterm_before_it_is_ready_ends_it_with_0(settings: Settings, empty_dsn: str) -> None:
    """Its start takes long, for somebody else migrates; a supervisor is asked for patience."""
    other = await asyncpg.connect(empty_dsn)
    await other.execute("SELECT pg_advisory_lock($1)", migrate.LOCK)
    with DaemonProcess(settings.model_copy(update={"database_url": empty_dsn})) as daemon:
        daemon.launch()
        await asyncio.to_thread(daemon.hear, "EXTEND_TIMEOUT_USEC=")
        await until(lambda: other.fetchval(_WAITS), "it waits for the lock of migrations")
        daemon.signal(signal.SIGTERM)
        assert await asyncio.to_thread(daemon.wait) == 0
        assert not settings.pid_file.exists()
    assert await other.fetchval("SELECT to_regclass('workerd.job')") is None
    await other.close()
