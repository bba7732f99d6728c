"""The ledger of the fault tests is worth something: it shows a fence that is missing."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.fleet import ask
from tests.protocol.test_mutants import Mutant
from tests.support import DaemonProcess, until

if TYPE_CHECKING:
    import asyncpg

    from tests.faults.balance import Books
    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

JOBS = 8
# A daemon that was declared dead may claim on, and with that write; and an end needs no lease of the node that writes it.
UNFENCED = [
    Mutant("dead nodes claim", "claim", " AND d.dead_at IS NULL", ""),
    Mutant(
        "an end without its lease",
        "finish_succeeded",
        "WHERE l.node = a_node AND l.n = ANY (a_n || k_n) ORDER",
        "WHERE l.tickets && (SELECT range_agg(int8range(a, b)) FROM unnest(a_from, a_to) AS d(a, b)) ORDER",
        also=(
            "FROM unnest(a_n, a_from, a_to) AS d(n, a, b) WHERE d.n = held.n;",
            "FROM unnest(a_n, a_from, a_to) AS d(n, a, b);",
        ),
    ),
    Mutant(
        "and takes that of another",
        "finish_succeeded",
        "DELETE FROM workerd.lease l WHERE l.node = a_node",
        "DELETE FROM workerd.lease l WHERE l.node = held.node",
    ),
]


async def _late_ends(settings: Settings, queue: Queue, db: DB, books: Books) -> list[str]:
    """One of two daemons is declared dead while it runs jobs, and ends them while the other one runs them again."""
    changes = {
        "tasks": ("tests.faults.handlers",),
        "result_ttl": 0.0,
        "workers": JOBS,
        "heartbeat_interval": 300.0,  # at its next one it learns that it is dead
    }
    sign = settings.state_dir / "sign"
    sign.parent.mkdir()
    places = [settings.runtime_dir / name for name in ("first", "second")]
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(
                DaemonProcess(settings.model_copy(update={"name": p.name, "runtime_dir": p, "log_dir": p, **changes}))
            )
            for p in places
        )
        await asyncio.to_thread(first.start)
        await queue.enqueue_many("held", [{"sign": str(sign)}] * JOBS)
        running = "SELECT count(*) = $1 FROM workerd.job WHERE state = 'running' AND node LIKE $2"
        await until(lambda: db.fetchval(running, JOBS, "%-first"), "the first one runs all jobs")
        await asyncio.to_thread(second.start)
        await db.execute("UPDATE workerd.node SET dead_at = clock_timestamp() WHERE name LIKE '%-first'")
        await until(lambda: db.fetchval(running, JOBS, "%-second"), "the second one runs them again")
        Path(f"{sign}-1").touch()
        await until(lambda: _idle(first), "the first one has ended them")
        Path(f"{sign}-2").touch()
        return await books.close(first, second)


async def _idle(daemon: DaemonProcess) -> bool:
    return bool((await ask(daemon))["busy"] == 0)


async def test_late_ends_of_a_daemon_that_was_declared_dead_change_nothing(
    settings: Settings, queue: Queue, db: DB, books: Books
) -> None:
    assert await _late_ends(settings, queue, db, books) == []


async def test_the_ledger_shows_late_ends_when_the_fences_are_removed(
    settings: Settings, queue: Queue, db: DB, books: Books
) -> None:
    for mutant in UNFENCED:
        await mutant.apply(db)
    wrong = await _late_ends(settings, queue, db, books)
    assert any("was ended by" in each for each in wrong), wrong
