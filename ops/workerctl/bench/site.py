"""Where a measurement takes place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg

MANY = 6  # the long drains are of so many times `jobs`


@dataclass(frozen=True, slots=True)
class Site:
    """The database at `dsn`, empty but for the schema; `folder` is for the files of daemons; `turn` counts the repetitions."""

    dsn: str
    folder: Path
    jobs: int
    turn: int
    connection: asyncpg.Connection[asyncpg.Record]

    async def clear(self) -> None:
        """Remove all jobs, and with them what vacuum would have to do for those before."""
        await self.connection.execute(
            "TRUNCATE workerd.ready, workerd.scheduled, workerd.history, workerd.lease, workerd.progress, workerd.key"
        )
