"""What the soak test's audit says of jobs that ended in another way than they have to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.soak import audit
from tests.soak.producer import TABLES

if TYPE_CHECKING:
    import asyncpg

_ENDED = """
    INSERT INTO workerd.history (
        id, expires_on, lane, state, attempt, failures, crashes, node, enqueued_at, queued_at, started_at, error, task, payload
    )
    SELECT $1, (SELECT min(day) FROM workerd.history_day), min(id), $3::text, $4, $5, 0, 1, now(), now(), now(),
        CASE $3::text WHEN 'failed' THEN 'why' END, $2, '{}'
    FROM workerd.lane
"""


async def test_lost_doubled_unknown_and_wrong_ends_are_told(db: asyncpg.Connection[asyncpg.Record]) -> None:
    await db.execute(TABLES)
    for number, task in enumerate(("ordinary", "stumbling", "hanging", "threaded"), 1):
        await db.execute("INSERT INTO enqueued VALUES ($1, $2)", number, task)
    await db.execute("SELECT workerd.enqueue('ordinary', '{}')")  # makes the lane
    await db.execute(_ENDED, 1, "ordinary", "succeeded", 1, 0)
    await db.execute(_ENDED, 2, "stumbling", "succeeded", 2, 1)
    await db.execute(_ENDED, 3, "hanging", "failed", 1, 1)
    await db.execute(_ENDED, 4, "threaded", "succeeded", 1, 0)
    assert await audit.wrong_ends(db) == []

    await db.execute("DELETE FROM workerd.history WHERE id = 1")
    await db.execute("UPDATE workerd.history SET attempt = 3 WHERE id = 2")
    await db.execute(_ENDED, 3, "hanging", "failed", 1, 1)
    await db.execute(_ENDED, 5, "ordinary", "succeeded", 1, 0)
    told = await audit.wrong_ends(db)
    assert sum("'task': 'ordinary', 'state': None" in each for each in told) == 1
    assert sum("'task': 'stumbling'" in each and "'attempt': 3" in each for each in told) == 1
    assert told[2:] == ["1 jobs are in the history, but were not enqueued", "1 jobs ended twice"]
