"""A daemon that is not reloaded: as many jobs as minutes of an even load have, as fast as it runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from tests.faults.balance import Books
from tests.soak import audit
from tests.soak.look import calm, differences, look
from tests.soak.producer import TABLES, Producer
from tests.support import DaemonProcess
from workerd import Queue

if TYPE_CHECKING:
    from tests.soak.server import Server
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

WARM = 20_000  # jobs after which what is made once has been made
MORE = 60_000
CATCH_UP = 600.0  # seconds that they may take on a slow machine


async def test_a_daemon_does_not_grow_with_the_jobs_that_it_has_run(settings: Settings, own_server: Server) -> None:
    changes = {"tasks": ("tests.soak.tasks",), "workers": 50}
    db = await asyncpg.connect(own_server.dsn)
    books = await Books.open(db)
    await db.execute(TABLES)
    async with Queue.connect(own_server.dsn) as queue:
        with DaemonProcess(settings.model_copy(update=changes)) as daemon:
            daemon.start()
            producer = Producer(queue)
            looks = []
            for jobs in (WARM, MORE):
                await producer.make(jobs)
                await calm(daemon.settings, CATCH_UP)
                looks.append(await look(daemon.settings))
                print(f"after {producer.made:,} jobs: {looks[-1]}", flush=True)
            wrong = await books.close(daemon) + await audit.wrong_ends(db) + differences(*looks)
    await db.close()
    assert not wrong, "\n".join(wrong)
