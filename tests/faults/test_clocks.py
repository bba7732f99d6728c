"""A node's clock is stepped while it works: the times of jobs, heartbeats and timeouts are the database's, or monotonic."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.fleet import daemons, leader, start
from tests.support import DaemonProcess, until, until_state
from workerd.queue import orders

if TYPE_CHECKING:
    import asyncpg

    from tests.faults.balance import Books
    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
HOUR = 3600
BEAT = 1.0
_BEAT = "SELECT beat FROM workerd.node WHERE id = $1"
_BEATS = (
    "SELECT count(*) FROM workerd.node WHERE beat BETWEEN clock_timestamp() - interval '30 min' AND clock_timestamp()"
)


class Clock:
    """The clock of one daemon, which reads it anew each time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.step(0)

    def step(self, seconds: int) -> None:
        """Set it ahead of the true time, or behind it."""
        new = self._path.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n", encoding="ascii")
        new.replace(self._path)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


async def _steps(clock: Clock, daemon: DaemonProcess, db: DB) -> None:
    """Forward by an hour, and back by two; each time the daemon does something, and its log shows that it saw the step."""
    node = await db.fetchval("SELECT id FROM workerd.node WHERE name = $1", daemon.settings.node)
    for number, seconds in enumerate((HOUR, -HOUR), 5):
        clock.step(seconds)
        await orders.give(db, node, "scale", {"workers": number})
        ahead = await until(partial(_logged, daemon, f"to {number} workers"), "the order is carried out")
        assert abs(ahead - seconds) < HOUR / 2
        before = await db.fetchval(_BEAT, node)
        await until(partial(db.fetchval, f"{_BEAT} AND beat > $2", node, before), "its heart beats on")


async def _logged(daemon: DaemonProcess, text: str) -> float | None:
    """By how many seconds the time of a line in the log is ahead."""
    for line in daemon.settings.log_path.read_text(encoding="utf-8").splitlines():
        if text in line:
            return (datetime.fromisoformat(json.loads(line)["ts"]) - datetime.now(UTC)).total_seconds()
    return None


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed (Debian: faketime)")
@pytest.mark.parametrize("leads", [True, False], ids=["that leads", "that does not"])
async def test_steps_of_the_clock_of_a_node_change_nothing(
    settings: Settings, queue: Queue, db: DB, books: Books, leads: bool
) -> None:
    await db.execute("CREATE TABLE ran (n int, attempt int, at timestamptz DEFAULT clock_timestamp())")
    (steady,) = daemons(settings, "steady", queues=("other",), heartbeat_interval=BEAT)
    (plain,) = daemons(settings, "stepped", heartbeat_interval=BEAT)
    clock = Clock(settings.runtime_dir / "clock")
    with DaemonProcess(plain.settings, **clock.environment) as stepped, steady:
        for daemon in (stepped, steady) if leads else (steady, stepped):
            await start(daemon)
            await leader(db, [stepped, steady])
        assert await leader(db, [stepped, steady]) is (stepped if leads else steady)
        long = await queue.enqueue("nap", {"seconds": 4.0})
        delayed = await queue.enqueue("recorded", {"n": 1, "seconds": 0.0}, delay=1.5)
        soon = await queue.enqueue("recorded", {"n": 2, "seconds": 0.0}, delay=3600)
        await until_state(db, long, "running")
        await _steps(clock, stepped, db)
        slow = await queue.enqueue("too_slow")
        again = await queue.enqueue("stumble", {"until_attempt": 3})
        assert (await until_state(db, slow, "failed"))["attempt"] == 1
        assert (await until_state(db, again, "succeeded"))["attempt"] == 3
        row = await until_state(db, long, "succeeded")
        assert row["attempt"] == 1
        assert 3.9 <= (row["finished_at"] - row["started_at"]).total_seconds() < HOUR / 2
        row = await until_state(db, delayed, "succeeded")
        waited = await db.fetchval("SELECT at FROM ran WHERE n = 1") - row["enqueued_at"]
        assert 1.5 <= waited.total_seconds() < HOUR / 2
        assert (await until_state(db, soon, "scheduled"))["attempt"] == 0
        assert await db.fetchval("SELECT count(*) FROM workerd.node") == 2, "a node was declared dead"
        assert await db.fetchval(_BEATS) == 2, "a heartbeat has the time of its node"
        await queue.cancel(soon)
        assert await books.close(stepped, steady) == []
