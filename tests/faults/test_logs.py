"""Logs under load: rotated from within, moved from outside, with a SIGHUP each second; the line of every job is there once."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from typing import TYPE_CHECKING

from tests.faults.balance import ENDED
from tests.support import DaemonProcess

if TYPE_CHECKING:
    import asyncpg

    from tests.faults.balance import Books
    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

JOBS = 2_000  # that are enqueued whenever none is left
MOVES = 5  # at least, each amid jobs that run


async def test_the_line_of_every_job_is_written_once_though_the_log_is_rotated_and_moved(
    settings: Settings, queue: Queue, db: DB, books: Books
) -> None:
    """Three rounds a second of what logrotate does, beside a rotation by size every few hundred lines."""
    changes = {"log_jobs": "all", "log_max_size": 40_000, "log_keep": 1000, "workers": 8, "result_ttl": 0.0}
    jobs: list[int] = []
    moved = 0
    with DaemonProcess(settings.model_copy(update=changes)) as daemon:
        await asyncio.to_thread(daemon.start)
        path = daemon.settings.log_path
        while (ended := await db.fetchval(ENDED)) is False or moved < MOVES:
            if ended:
                jobs += await queue.enqueue_many("echo", [{"value": None}] * JOBS)
            if path.exists():
                path.rename(path.parent / f"moved.{moved}")
                moved += 1
            daemon.signal(signal.SIGHUP)
            await asyncio.sleep(0.3)  # the pace of the rotation
        assert await books.close(daemon) == []
    files = [*path.parent.glob("worker.log*"), *path.parent.glob("moved.*")]
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    succeeded = Counter(line["job"] for line in lines if line.get("ending") == "succeeded")
    assert set(succeeded) == set(jobs)
    assert set(succeeded.values()) == {1}
    assert len(files) > 20
