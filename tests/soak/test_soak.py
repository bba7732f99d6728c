"""A daemon under an even load that is reloaded again and again, and whose database is restarted under every third successor."""

from __future__ import annotations

import asyncio
import os
from time import monotonic
from typing import TYPE_CHECKING

import asyncpg

from tests.faults.balance import Books
from tests.soak import audit
from tests.soak.look import BASE, Look, calm, leaks, look
from tests.soak.producer import RATE, TABLES, Producer
from tests.support import DaemonProcess
from workerd import Queue

if TYPE_CHECKING:
    from tests.soak.server import Mode, Server
    from workerd.settings import Settings

MINUTES = int(os.environ.get("SOAK_MINUTES", "15"))
LOAD = 20.0  # seconds of load for each successor
LOOK = 4.0  # seconds until it has calmed down and been looked at, about
SUCCESSORS = round(MINUTES * 60 / (LOAD + LOOK))
RELOAD_AFTER = 2.0  # seconds of load
RESTART_AFTER = 8.0  # further ones, where the database is restarted
RESTARTS_EVERY = 3  # successors
WORKERS = 16  # the load keeps six busy
CATCH_UP = 300.0  # seconds that the last jobs may take on a machine that cannot bear the load


async def test_nothing_grows_and_nothing_is_lost_under_load_reloads_and_restarts_of_the_database(
    settings: Settings, own_server: Server
) -> None:
    assert SUCCESSORS > BASE, f"the first successor that can be compared is the {BASE + 1}th: set SOAK_MINUTES to more"
    changes = {"tasks": ("tests.soak.tasks",), "workers": WORKERS, "heartbeat_interval": 5.0}
    db = await asyncpg.connect(own_server.dsn)
    await Books.open(db)
    await db.execute(TABLES)
    await db.close()
    async with Queue.connect(own_server.dsn) as queue:
        with DaemonProcess(settings.model_copy(update=changes)) as daemon:
            daemon.start()
            producer = Producer(queue)
            successors = [await _succeed(daemon, own_server, producer, number) for number in range(SUCCESSORS)]
            db = await asyncpg.connect(own_server.dsn)
            wrong = await Books(db).close(daemon, limit=CATCH_UP)
            wrong += [f"PID {each.pid} ended with {each.poll()}" for each in daemon.earlier if each.poll() != 0]
    wrong += await audit.wrong_ends(db) + leaks(successors)
    _report(producer, await audit.waits(db), successors, wrong)
    await db.close()
    assert not wrong, "\n".join(wrong)


async def _succeed(daemon: DaemonProcess, server: Server, producer: Producer, number: int) -> Look:
    """Reload under load, and look at the successor when it has done all there was to do: so it does not matter how fast it is."""
    async with asyncio.TaskGroup() as group:
        group.create_task(producer.run(LOAD))
        await asyncio.sleep(RELOAD_AFTER)
        took = await daemon.reload()
        print(f"successor {number + 1} took over in {took:.2f} s", flush=True)
        if number % RESTARTS_EVERY == 1:
            await asyncio.sleep(RESTART_AFTER)
            await _restart(server, "immediate" if number % 2 else "fast")
    await calm(daemon.settings, CATCH_UP, at_once=True)
    return await look(daemon.settings)


async def _restart(server: Server, mode: Mode) -> None:
    began = monotonic()
    await asyncio.to_thread(server.restart, mode)
    print(f"the database was restarted (-m {mode}) in {monotonic() - began:.2f} s", flush=True)


def _report(producer: Producer, waits: audit.Waits, successors: list[Look], wrong: list[str]) -> None:
    print(
        f"\n{len(successors)} successors at {RATE} jobs/s: {producer.made:,} jobs enqueued, {waits.jobs:,} ended, {waits.rate:.1f}/s"
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
