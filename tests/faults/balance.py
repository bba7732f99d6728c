"""The end of every fault test: daemons stop, and nothing was lost, ended twice, or left behind."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

from tests import ledger
from tests.support import until

if TYPE_CHECKING:
    import asyncpg

    from tests.support import DaemonProcess

    DB = asyncpg.Connection[asyncpg.Record]

ENDED = "SELECT NOT EXISTS (SELECT FROM workerd.ready) AND NOT EXISTS (SELECT FROM workerd.scheduled)"
STOP_LIMIT = 30.0  # seconds
GONE_LIMIT = 30.0  # seconds until the server has ended the sessions of a process: it looks when their statements end
_LEFT = {
    "leases": "SELECT count(*) FROM workerd.lease",
    "nodes that count as living": "SELECT count(*) FROM workerd.node WHERE dead_at IS NULL",
    "advisory locks": """
        SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
        WHERE l.locktype = 'advisory' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND a.application_name NOT LIKE 'worker manager%'
    """,
    "sessions of daemons": """
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'worker %' AND application_name <> 'worker client'
            AND application_name NOT LIKE 'worker manager%'
    """,
}


class Books:
    """The ledger of one database while daemons work on it."""

    def __init__(self, db: DB) -> None:
        self._db = db

    @classmethod
    async def open(cls, db: DB) -> Books:
        """Begin to write down; before the first job is enqueued."""
        await ledger.install(db)
        return cls(db)

    async def settled(self, limit: float = 60.0) -> None:
        """Returns when every job has ended."""
        await until(lambda: self._db.fetchval(ENDED), "all jobs ended", limit)

    async def close(self, *daemons: DaemonProcess, settle: bool = True, limit: float = 60.0) -> list[str]:
        """Wait until every job has ended, stop the daemons, and tell what is wrong; without `settle`, jobs may still wait."""
        if settle:
            await self.settled(limit)
        wrong = []
        for daemon in daemons:
            if daemon.running:
                daemon.signal(signal.SIGTERM)
                if await asyncio.to_thread(daemon.wait, STOP_LIMIT) != 0:
                    wrong.append(f"daemon {daemon.settings.name} did not end with 0")
        wrong += [f"orphan: {each}" for daemon in daemons for each in daemon.left_behind()]
        wrong += await self._left()
        return wrong + [each for each in await ledger.violations(self._db) if settle or "has not ended" not in each]

    async def _left(self) -> list[str]:
        """Rows, locks and sessions that daemons which have gone left behind; a killed one's are declared dead by those that live."""

        async def nothing() -> bool:
            return not any([await self._db.fetchval(query) for query in _LEFT.values()])

        with contextlib.suppress(AssertionError):
            await until(nothing, "nothing is left", GONE_LIMIT)
        counts = {what: await self._db.fetchval(query) for what, query in _LEFT.items()}
        return [f"{count} {what} left" for what, count in counts.items() if count]
