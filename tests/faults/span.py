"""How long daemons rest: what a promise in seconds is measured by, however slow or busy the machine is."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    import asyncpg

    from tests.support import DaemonProcess

    DB = asyncpg.Connection[asyncpg.Record]

_SESSIONS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = ANY ($1)"


class Span:
    """A span of time, and for how much of it daemons, their sessions for claims and maintenance and this process worked or waited
    for a processor."""

    def __init__(self, db: DB, *daemons: DaemonProcess) -> None:
        self._db = db
        self._daemons = daemons
        self.took = self.worked = self.waited = 0.0  # seconds

    @property
    def busy(self) -> float:
        return self.worked + self.waited

    @property
    def rest(self) -> float:
        """Seconds for which all of them left it to time."""
        return self.took - self.busy

    async def __aenter__(self) -> Span:
        self._before = await self._counts()
        self._began = monotonic()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.took = monotonic() - self._began
        for thread, (worked, waited) in (await self._counts()).items():
            before = self._before.get(thread, (0.0, 0.0))
            self.worked += worked - before[0]
            self.waited += waited - before[1]

    async def _counts(self) -> dict[str, tuple[float, float]]:
        """For how many seconds each thread has worked and has waited for a processor, as the kernel counts them."""
        names = [f"worker {each.settings.node}{of}" for each in self._daemons for of in ("", " maintenance")]
        sessions = [row[0] for row in await self._db.fetch(_SESSIONS, names)]
        running = [daemon.process.pid for daemon in self._daemons if daemon.process is not None]
        found = {}
        for pid in (os.getpid(), *running, *sessions):
            for counts in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                with suppress(OSError):  # it has ended
                    worked, waited, _ = counts.read_text().split()
                    found[counts.parent.name] = (int(worked) / 1e9, int(waited) / 1e9)
        return found


async def worked(db: DB, sessions: str) -> float:
    """Seconds of a processor that the sessions of such a name have used until now."""
    named = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE $1"
    counts = [Path(f"/proc/{row[0]}/schedstat").read_text().split() for row in await db.fetch(named, sessions)]
    return sum(int(each[0]) for each in counts) / 1e9
