"""A daemon for a moment: it runs what is due and stops."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from workerd.config import Configuration
from workerd.daemon.daemon import Daemon
from workerd.daemon.handover.launch import Launch
from workerd.daemon.pidfile import PidFile
from workerd.daemon.transport.postgres import PostgresTransport
from workerd.ended import Ended, listeners
from workerd.locate import Location
from workerd.queue import default_queue
from workerd.settings import Settings
from workerd.tasks import registry
from workerd.units import Duration, parse_duration

if TYPE_CHECKING:
    from workerd.queue.client import Queue

LOOK = 0.02  # seconds between two looks whether something is left
SHOWN = 5  # jobs in the message of a failure

# What a daemon has still to do: jobs that are queued or due, answers and ends of parents that their jobs have not been told of.
_LEFT = """
    SELECT id, task, CASE WHEN run THEN 'queued' ELSE 'due' END AS state FROM (
        SELECT id, task, true AS run FROM workerd.ready
        UNION ALL SELECT id, task, false FROM workerd.scheduled
            WHERE waits = 'limit' OR waits IS NULL AND run_at <= clock_timestamp()
                OR id IN (SELECT child FROM workerd.unlooked) OR id IN (SELECT child FROM workerd.dependency WHERE news)
                OR id IN (SELECT a.id FROM workerd.awaited a JOIN workerd.signal s USING (id, event) WHERE NOT s.taken)) AS left_over
    ORDER BY id LIMIT $1
"""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


async def drain(queue: Queue, *, workers: int = 4, timeout: Duration = "30s") -> list[Ended]:
    """Run all jobs that are due, and those that become so meanwhile, with a real daemon in this process; returns the attempts that ended.

    The daemon knows the tasks that are declared in this process. A job that is to be retried stays scheduled: see `advance`.
    Raises TimeoutError, naming what is left, when something is after `timeout`: jobs of unknown tasks, of paused queues, under a rate.
    """
    ended: list[Ended] = []

    def collect(end: Ended) -> None:
        ended.append(end)

    limit = parse_duration(timeout)
    before = default_queue.set_default(queue)
    listeners[collect] = frozenset({"succeeded", "retried", "failed", "cancelled", "snoozed", "returned"})
    try:
        with tempfile.TemporaryDirectory(prefix="workerd-drain-") as folder:
            await _run_until_idle(_daemon(queue, Path(folder), workers), queue, limit)
    finally:
        del listeners[collect]
        default_queue.set_default(before)
        for number in _SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)
    return ended


def _daemon(queue: Queue, folder: Path, workers: int) -> Daemon:
    settings = Settings(
        database_url=queue.dsn, workers=workers, name="drain", state_dir=folder, runtime_dir=folder, log_dir=folder
    )
    where = Location(queue.dsn, queue.dsn, pooled=False, embedded=False)
    launch = Launch([], lambda: Configuration(settings, {}), {})
    transport = PostgresTransport(settings, where, dict(registry))
    return Daemon(settings, transport, dict(registry), PidFile(settings.pid_file), launch)


async def _run_until_idle(daemon: Daemon, queue: Queue, limit: float) -> None:
    running = asyncio.create_task(daemon.run(), name="drain")
    idle = asyncio.create_task(_idle(daemon, queue), name="idle")
    await asyncio.wait([running, idle], timeout=limit, return_when=asyncio.FIRST_COMPLETED)
    in_time = idle.done() or running.done()
    daemon.stop(None if in_time else 0.0)
    await running
    if not in_time:
        idle.cancel()
        async with queue.connection() as connection:
            left = await connection.fetch(_LEFT, SHOWN)
        names = ", ".join(f"job {row['id']} {row['task']} is {row['state']}" for row in left)
        raise TimeoutError(f"not everything that is due has run within {limit:g} s: {names or 'a job still ran'}")
    await idle


async def _idle(daemon: Daemon, queue: Queue) -> None:
    await daemon.ready.wait()
    while True:
        async with queue.connection() as connection:
            if not await connection.fetch(_LEFT, 1):
                return
        await asyncio.sleep(LOOK)
