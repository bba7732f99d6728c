"""workerd as a contender."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from workerctl.bench.contender import Contender
from workerctl.bench.daemon import QUEUE, WORKERS, Daemon
from workerctl.bench.peers.catalogue import RUNNERS
from workerctl.bench.process import Process
from workerctl.bench.server import NAME, database
from workerd.queue import migrate
from workerd.queue.database import connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import asyncpg


class Ours(Contender):
    """Daemons of 100 workers. `task` is what its jobs run: `noop` leaves nothing, `kept` a row of history."""

    name = ""
    title = "workerd"
    clearing = (
        "TRUNCATE workerd.ready, workerd.scheduled, workerd.history, workerd.lease, workerd.progress, workerd.key"
    )
    newest = f"""
        SELECT pos FROM workerd.ready WHERE lane = (SELECT id FROM workerd.lane WHERE queue = '{QUEUE}' AND priority = 0)
        ORDER BY lane DESC, pos DESC LIMIT 1
    """  # noqa: S608 - made of constants

    def __init__(
        self,
        dsn: str,
        folder: Path,
        connection: asyncpg.Connection[asyncpg.Record],
        producer: Process,
        task: str = "noop",
    ) -> None:
        super().__init__(connection, producer)
        self.dsn = dsn
        self._folder = folder
        self._task = task

    def keeping(self) -> Ours:
        """The same with jobs that leave a row of history."""
        kept = Ours(self.dsn, self._folder, self.connection, self._producer, "kept")
        kept.name, kept.title = "kept", "workerd with history"
        return kept

    async def fill(self, jobs: int, **what: Any) -> float:
        return await super().fill(jobs, **{"task": self._task, **what})

    def worker(self, number: int = 0, *, quick: bool = False, workers: int = WORKERS) -> Daemon:
        """It has the same settings whether jobs shall be many or start soon."""
        return Daemon(self.dsn, self._folder, f"bench{number}", workers)


@asynccontextmanager
async def open_ours(url: str, folder: Path, label: str = "") -> AsyncIterator[Ours]:
    """With a new database on this server, gone afterwards."""
    async with database(url, label) as dsn:
        connection = await connect(dsn, NAME)
        try:
            await migrate.upgrade(connection)
            command = [sys.executable, str(RUNNERS / "run_workerd.py")]
            async with Process(command, folder, {"DATABASE_URL": dsn}, f"workerd{label}") as producer:
                yield Ours(dsn, folder, connection, producer)
        finally:
            await connection.close()
