"""Handlers that fork, cancel themselves, exit, log wildly and block in threads, for a while; SOAK_MINUTES=5 for longer."""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections import Counter
from time import monotonic
from typing import TYPE_CHECKING, Any

from tests.rude_handlers import EXITS, FORKED, LINES
from tests.support import DaemonProcess, until
from workerctl.control import ask

if TYPE_CHECKING:
    import asyncpg

    from tests.faults.balance import Books
    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

SECONDS = float(os.environ.get("SOAK_MINUTES", "0.1")) * 60
WORKERS = 8
ROUND = 60  # jobs
BABBLE = re.compile(rb"babble (\d+) line (\d)")
BABBLING = ("babbles", "babbles_in_thread", "babbles_in_child")
DEEDS: tuple[tuple[str, dict[str, Any], str], ...] = (
    *(("exits", {"how": how}, "failed") for how in EXITS),
    ("exits_for_nobody", {}, "succeeded"),
    *(("forks", {"how": how}, "succeeded") for how in FORKED),
    *(("forks_in_thread", {"how": how}, "succeeded") for how in FORKED),
    *(("forks_in_child", {"how": how}, "succeeded") for how in FORKED),
    *(("cancels_itself", {"how": how}, "failed") for how in ("at once", "in time")),
    *(("cancels_itself", {"how": how}, "succeeded") for how in ("and returns", "and swallows it", "too late")),
    *(("closes", {"how": how}, "failed") for how in ("task", "thread", "and goes on")),
    *((task, {"name": "ACME"}, "succeeded") for task in ("sets", "sets_and_waits", "sets_in_thread", "sets_in_child")),
    ("blocks_in_thread", {"seconds": 1.0}, "failed"),
    ("blocks", {"seconds": 1.0}, "failed"),
    ("innocent", {"seconds": 0.05}, "succeeded"),
)


async def test_no_worker_and_no_line_of_the_log_is_lost_by_what_handlers_do(
    settings: Settings, queue: Queue, db: DB, books: Books
) -> None:
    changes = {"tasks": ("tests.rude_handlers",), "workers": WORKERS, "log_max_size": 2_000_000, "log_keep": 1000}
    with DaemonProcess(settings.model_copy(update=changes)) as daemon:
        daemon.start()
        expected: dict[int, tuple[str, str]] = {}
        babbled = 0
        end = monotonic() + SECONDS
        while monotonic() < end:
            babbled += await _round(queue, db, babbled, expected)
        status = ask(daemon.settings.socket_path, "status")
        assert (status["workers"], status["busy"]) == (WORKERS, 0)
        together = await queue.enqueue_many("meets", [{"number": n, "others": WORKERS} for n in range(WORKERS)])
        assert await asyncio.gather(*(queue.result(job, timeout=60) for job in together)) == ["met"] * WORKERS
        assert await books.close(daemon) == []
    rows = await db.fetch("SELECT id, task, state, error FROM workerd.job WHERE id = ANY ($1)", list(expected))
    assert [dict(row) for row in rows if row["state"] != expected[row["id"]][1]] == []
    lines = Counter(
        (int(match[1]), int(match[2]))
        for file in daemon.settings.log_dir.glob("worker.log*")
        for match in BABBLE.finditer(file.read_bytes())
    )
    assert lines == Counter((number, line) for number in range(babbled) for line in range(LINES))


async def _round(queue: Queue, db: DB, babbled: int, expected: dict[int, tuple[str, str]]) -> int:
    """Enqueue jobs of all kinds in any order, and wait for their ends; how many of them babble."""
    deeds = [
        *DEEDS,
        *((BABBLING[n % 3], {"number": babbled + n}, "succeeded") for n in range(ROUND - len(DEEDS))),
    ]
    random.shuffle(deeds)
    jobs = [(await queue.enqueue(task, arguments), task, state) for task, arguments, state in deeds]
    expected.update({job: (task, state) for job, task, state in jobs})
    ids = [job for job, _, _ in jobs]
    ended = "SELECT count(*) = $2 FROM workerd.job WHERE id = ANY ($1) AND state IN ('succeeded', 'failed')"
    await until(lambda: db.fetchval(ended, ids, len(ids)), "a round of jobs has ended")
    return ROUND - len(DEEDS)
