"""A daemon under an even load that is reloaded each minute, and whose database is restarted every three."""

from __future__ import annotations

import asyncio
import os
from time import monotonic
from typing import TYPE_CHECKING

import asyncpg

from tests.faults.balance import Books
from tests.soak import audit
from tests.soak.look import BASE, Look, leaks, look
from tests.soak.producer import RATE, TABLES, Producer
from tests.support import DaemonProcess
from workerd import Queue

if TYPE_CHECKING:
    from tests.soak.server import Mode, Server
    from workerd.settings import Settings

MINUTES = int(os.environ.get("SOAK_MINUTES", "15"))
MINUTE = 60.0  # seconds
AGE = 50.0  # seconds after which a successor is looked at
RESTART_AGE = 20.0  # of the successor whose database is restarted, seconds
RESTARTS_EVERY = 3  # minutes
WORKERS = 16  # the load keeps six busy
CATCH_UP = 30.0  # seconds that the last jobs may take


async def test_nothing_grows_and_nothing_is_lost_under_load_reloads_and_restarts_of_the_database(
    settings: Settings, own_server: Server
) -> None:
    assert MINUTES > BASE, f"the first successor that can be compared is the {BASE + 1}th: set SOAK_MINUTES to more"
    changes = {"tasks": ("tests.soak.tasks",), "workers": WORKERS, "heartbeat_interval": 5.0}
    db = await asyncpg.connect(own_server.dsn)
    await Books.open(db)
    await db.execute(TABLES)
    await db.close()
    async with Queue.connect(own_server.dsn) as queue:
        with DaemonProcess(settings.model_copy(update=changes)) as daemon:
            daemon.start()
            producer = Producer(queue)
            async with asyncio.TaskGroup() as group:
                group.create_task(producer.run(MINUTES * MINUTE))
                successors = await _succeed(daemon, own_server)
            db = await asyncpg.connect(own_server.dsn)
            wrong = await Books(db).close(daemon, limit=CATCH_UP)
            wrong += [f"PID {each.pid} ended with {each.poll()}" for each in daemon.earlier if each.poll() != 0]
    wrong += await audit.wrong_ends(db) + leaks(successors)
    _report(producer, await audit.waits(db), successors, wrong)
    await db.close()
    assert not wrong, "\n".join(wrong)


async def _succeed(daemon: DaemonProcess, server: Server) -> list[Look]:
    """Reload each minute, and look at each successor."""
    began = monotonic()
    successors = []
    for minute in range(MINUTES):
        await _until(began + minute * MINUTE)
        took = await daemon.reload()
        born = monotonic()
        print(f"successor {minute + 1} took over in {took:.2f} s", flush=True)
        if minute % RESTARTS_EVERY == 1:
            await _until(born + RESTART_AGE)
            await _restart(server, "immediate" if minute % 2 else "fast")
        await _until(born + AGE)
        successors.append(await look(daemon.settings))
    return successors


async def _restart(server: Server, mode: Mode) -> None:
    began = monotonic()
    await asyncio.to_thread(server.restart, mode)
    print(f"the database was restarted (-m {mode}) in {monotonic() - began:.2f} s", flush=True)


async def _until(time: float) -> None:
    await asyncio.sleep(time - monotonic())


def _report(producer: Producer, waits: audit.Waits, successors: list[Look], wrong: list[str]) -> None:
    print(
        f"\n{MINUTES} minutes at {RATE} jobs/s: {producer.made:,} jobs enqueued, {waits.jobs:,} ended, {waits.rate:.1f}/s"
    )
    print(
        f"waits p50 {waits.p50 * 1000:.1f} ms, p95 {waits.p95 * 1000:.1f} ms, p99 {waits.p99:.2f} s, longest {waits.longest:.2f} s"
    )
    print(f"batches enqueued again after an outage: {producer.retried}\n")
    print("successor   RSS MB  files  threads  tasks  connections")
    for number, each in enumerate(successors, 1):
        counts = f"{each.files:5}  {each.threads:7}  {each.tasks:5}  {each.connections:11}"
        print(f"{number:9}  {each.rss / 1e6:7.1f}  {counts}")
    print("\n" + ("\n".join(wrong) if wrong else "nothing grew, nothing was lost, nothing ended twice"), flush=True)
