"""Stage: scheduled jobs become queued when they are due."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workerd.queue.quarantine import sifted

if TYPE_CHECKING:
    from workerd.job import AnyConnection

BATCH = 1000
LIMIT = 10.0  # seconds for one batch


async def stage(connection: AnyConnection) -> tuple[int, float | None]:
    """Queue up to BATCH due jobs; returns how many, and the seconds until the next one is due (None: none waits)."""
    [row] = await sifted(connection, "SELECT * FROM workerd.stage($1)", BATCH, timeout=LIMIT)
    return row["staged"], row["next_in"]
