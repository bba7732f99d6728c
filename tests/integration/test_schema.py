"""The tables: impossible states are refused, dead rows and bloated indexes do not pile up."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import pytest
from typer.testing import CliRunner

from tests.support import InProcess, until
from workerctl.app import app
from workerd.maintenance import reindexer
from workerd.queue import reindex
from workerd.queue.reindex import Index

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support import Ctl
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

MB = 2**20
ROWS = 20_000  # that a queue once had: 400 kB of index
LITTLE = MB // 4  # above which these tests call an index bloated
LONG = 5.0  # seconds that no enqueue waits for a rebuild, on whatever machine

READY = {"lane": "1", "id": "1", "task": "'echo'", "payload": "'{}'"}
SCHEDULED = READY | {"run_at": "now()"}
LEASE = {"node": "1", "n": "1", "lane": "1", "tickets": "'{[5,8)}'", "last": "7"}
NODE = {
    "id": "1",
    "name": "'a'",
    "pid": "1",
    "version": "''",
    "locked": "true",
    "tasks": "'{}'",
    "queues": "'{}'",
    "workers": "1",
}
HISTORY = READY | {
    "expires_on": "(SELECT min(day) FROM workerd.history_day)",
    "state": "'succeeded'",
    "attempt": "3",
    "failures": "1",
    "crashes": "1",
    "node": "1",
    "enqueued_at": "now()",
    "queued_at": "now()",
    "started_at": "now()",
    "finished_at": "now()",
}
FAILED = HISTORY | {"state": "'failed'", "error": "'why'"}
CANCELLED = HISTORY | {"state": "'cancelled'", "node": "NULL", "started_at": "NULL"}


async def insert(db: DB, table: str, row: dict[str, str]) -> None:
    await db.execute(f"INSERT INTO workerd.{table} ({', '.join(row)}) VALUES ({', '.join(row.values())})")  # noqa: S608


POSSIBLE = [
    ("ready", READY),
    ("ready", READY | {"attempt": "3", "failures": "2", "crashes": "1"}),
    ("scheduled", SCHEDULED),
    ("lease", LEASE),
    ("lease", LEASE | {"last": "9", "cancel": "'{[5,6),[9,10)}'"}),
    ("node", NODE | {"stopped": "true", "dead_at": "now()"}),
    ("node", NODE | {"forgotten_at": "now()", "dead_at": "now()"}),
    ("history", HISTORY),
    ("history", FAILED),
    ("history", CANCELLED),
    ("history", HISTORY | {"state": "'cancelled'", "error": "'while it ran'"}),
]
IMPOSSIBLE = [
    ("ready", READY, {"failures": "1"}, "ready_spent"),
    ("ready", READY, {"attempt": "2", "failures": "1", "crashes": "2"}, "ready_spent"),
    ("ready", READY, {"attempt": "1", "failures": "-1"}, "ready_spent"),
    ("ready", READY, {"attempt": "1", "crashes": "-1"}, "ready_spent"),
    ("ready", READY, {"attempt": "-1"}, "ready_spent"),
    ("ready", READY, {"task": "''"}, "ready_call"),
    ("ready", READY, {"payload": "'[1]'"}, "ready_call"),
    ("ready", READY, {"payload": "'null'"}, "ready_call"),
    ("scheduled", SCHEDULED, {"crashes": "1"}, "scheduled_spent"),
    ("scheduled", SCHEDULED, {"task": "''"}, "scheduled_call"),
    ("scheduled", SCHEDULED, {"payload": "'1'"}, "scheduled_call"),
    ("lease", LEASE, {"tickets": "'{}'"}, "lease_tickets"),
    ("lease", LEASE, {"last": "6"}, "lease_tickets"),
    ("lease", LEASE, {"tickets": "'{[5,)}'"}, "lease_tickets"),
    ("node", NODE, {"busy": "-1"}, "node_counts"),
    ("node", NODE, {"stopped": "true"}, "node_stopped"),
    ("node", NODE, {"forgotten_at": "now()"}, "node_forgotten"),
    ("history", HISTORY, {"error": "'but why'"}, "history_end"),
    ("history", FAILED, {"error": "NULL"}, "history_end"),
    ("history", FAILED, {"result": "'1'"}, "history_end"),
    ("history", CANCELLED, {"result": "'1'"}, "history_end"),
    ("history", HISTORY, {"started_at": "NULL"}, "history_run"),
    ("history", FAILED, {"node": "NULL"}, "history_run"),
    ("history", CANCELLED, {"node": "1"}, "history_run"),
    ("history", HISTORY, {"attempt": "0", "failures": "0", "crashes": "0"}, "history_run"),
    ("history", HISTORY, {"attempt": "1"}, "history_spent"),
    ("history", HISTORY, {"progress": "1.5"}, "history_progress"),
    ("history", HISTORY, {"progress": "'NaN'"}, "history_progress"),
]


async def refused(db: DB, table: str, row: dict[str, str]) -> str | None:
    """The constraint that refuses such a row; None: it is taken, and gone again."""
    transaction = db.transaction()
    await transaction.start()
    try:
        await insert(db, table, row)
    except asyncpg.CheckViolationError as error:
        return error.constraint_name
    finally:
        await transaction.rollback()
    return None


async def test_possible_states_are_taken(db: DB) -> None:
    assert [case for case in POSSIBLE if await refused(db, *case)] == []


async def test_impossible_states_are_refused(db: DB) -> None:
    found = [(table, change, await refused(db, table, base | change)) for table, base, change, _ in IMPOSSIBLE]
    assert found == [(table, change, constraint) for table, _, change, constraint in IMPOSSIBLE]


async def test_partitions_of_the_days_to_come_have_the_checks(db: DB) -> None:
    await db.execute("SELECT workerd.add_history_days('{8640000}')")
    far = HISTORY | {"expires_on": "(SELECT max(day) FROM workerd.history_day)", "progress": "2"}
    with pytest.raises(asyncpg.CheckViolationError):
        await insert(db, "history", far)


async def test_every_id_is_a_bigint(db: DB) -> None:
    kinds = await db.fetch(
        """SELECT c.relname, format_type(a.atttypid, NULL) AS kind FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relnamespace = 'workerd'::regnamespace AND c.relkind IN ('r', 'p') AND a.attname IN ('id', 'pos', 'n', 'node', 'last')
            AND c.relname <> 'lane'"""  # the advisory lock of a lane takes an int
    )
    assert {"ready", "scheduled", "history", "lease", "node", "key", "progress"} <= {row["relname"] for row in kinds}
    assert {row["kind"] for row in kinds} == {"bigint"}


OPTIONS = {
    "ready": {"autovacuum_vacuum_scale_factor=0.02", "autovacuum_vacuum_cost_delay=0"},
    "scheduled": {"autovacuum_vacuum_scale_factor=0.02", "autovacuum_vacuum_cost_delay=0"},
    "key": {"autovacuum_vacuum_scale_factor=0.02", "autovacuum_vacuum_cost_delay=0"},
    "lease": {
        "fillfactor=60",
        "autovacuum_vacuum_threshold=500",
        "autovacuum_vacuum_scale_factor=0",
        "autovacuum_vacuum_cost_delay=0",
        "vacuum_truncate=off",
    },
    "progress": {"fillfactor=50", "autovacuum_vacuum_threshold=500", "autovacuum_vacuum_scale_factor=0"},
    "node": {"fillfactor=70"},
    "tally": {"fillfactor=50"},
}


async def test_tables_are_vacuumed_as_they_are_written(db: DB) -> None:
    rows = await db.fetch("SELECT relname, reloptions FROM pg_class WHERE relnamespace = 'workerd'::regnamespace")
    found = {row["relname"]: row["reloptions"] for row in rows}
    assert {
        table: lacking for table, options in OPTIONS.items() if (lacking := options - {*(found[table] or ())})
    } == {}


@pytest.mark.parametrize(
    ("size", "rows", "width", "bloated"),
    [
        (8192, 0, 12, False),
        (64 * MB, 0, 12, False),
        (65 * MB, 0, 12, True),
        (65 * MB, 1_000_000, 12, False),  # twice what its rows need
        (150 * MB, 1_000_000, 12, True),
        (150 * MB, 1_000_000, 100, False),  # long keys
        (30_000 * MB, 1_000_000_000, 12, False),
    ],
)
def test_an_index_is_bloated_when_it_is_large_and_its_rows_need_a_quarter(
    size: int, rows: int, width: int, bloated: bool
) -> None:
    assert Index("ready_pkey", size, rows, width).bloated is bloated


async def bloat(db: DB) -> None:
    """Leave the indexes of `ready` as a long queue leaves them that is short again."""
    await db.execute(
        """INSERT INTO workerd.ready (lane, id, task, payload)
        SELECT workerd.lane_of('once', 0), -g, 'echo', '{}' FROM generate_series(1, $1::int) g""",
        ROWS,
    )
    await db.execute("DELETE FROM workerd.ready WHERE id < 0")
    await db.execute("VACUUM ANALYZE workerd.ready")


async def sizes(db: DB) -> dict[str, int]:
    return {index.name: index.size for index in await reindex.look(db) if index.name.startswith("ready")}


async def indexes_of_ready(db: DB) -> list[str]:
    return [row[0] for row in await db.fetch("SELECT indexname FROM pg_indexes WHERE tablename = 'ready' ORDER BY 1")]


@asynccontextmanager
async def inserts(dsn: str) -> AsyncIterator[list[float]]:
    """Enqueues one job after the other; the seconds that each took."""
    took: list[float] = []
    enough = asyncio.Event()

    async def enqueue() -> None:
        connection = await asyncpg.connect(dsn)
        while not enough.is_set():
            began = time.perf_counter()
            await connection.execute("SELECT workerd.enqueue('echo', '{}')")
            took.append(time.perf_counter() - began)
        await connection.close()

    async def grown() -> bool:
        return len(took) > before + 10

    working = asyncio.create_task(enqueue())
    try:
        before = 0
        await until(grown, "jobs are enqueued")
        yield took
        before = len(took)
        await until(grown, "jobs are enqueued")
    finally:
        enough.set()
        await working


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small indexes count as bloated too."""
    monkeypatch.setattr(reindex, "WORTH_IT", LITTLE)


@pytest.mark.usefixtures("strict")
async def test_bloated_indexes_are_rebuilt_while_jobs_are_enqueued(db: DB, dsn: str) -> None:
    await bloat(db)
    assert min((await sizes(db)).values()) > LITTLE
    async with inserts(dsn) as took:
        done = [line async for line in reindex.rebuild(db)]
    assert [line.split(":")[0] for line in done] == ["reindexed ready_id", "reindexed ready_pkey"]
    assert max((await sizes(db)).values()) < LITTLE
    assert max(took) < LONG
    assert await indexes_of_ready(db) == ["ready_id", "ready_pkey"]
    await db.execute("SET enable_seqscan = off; SET enable_bitmapscan = off")
    assert await db.fetchval("SELECT count(*) FROM workerd.ready WHERE id > 0") == len(took)
    assert [line async for line in reindex.rebuild(db)] == []


@pytest.mark.usefixtures("strict")
async def test_a_reindex_that_meets_an_old_transaction_gives_up_and_leaves_nothing(
    db: DB, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bloat(db)
    monkeypatch.setattr(reindex, "_SETTINGS", "SET lock_timeout = '200ms'")
    other = await asyncpg.connect(dsn)
    async with other.transaction(isolation="repeatable_read"):
        await other.execute("SELECT count(*) FROM workerd.lane")
        with pytest.raises(asyncpg.LockNotAvailableError):
            assert [line async for line in reindex.rebuild(db)] == []
        assert await indexes_of_ready(db) == ["ready_id", "ready_pkey"]
    await other.close()
    assert len([line async for line in reindex.rebuild(db)]) == 2


async def test_what_an_interrupted_reindex_left_is_dropped(db: DB, dsn: str) -> None:
    await db.execute("SELECT workerd.enqueue('echo', '{}')")
    other = await asyncpg.connect(dsn)
    async with other.transaction(isolation="repeatable_read"):
        await other.execute("SELECT count(*) FROM workerd.lane")
        await db.execute("SET lock_timeout = '200ms'")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await db.execute("REINDEX INDEX CONCURRENTLY workerd.ready_id")
    await other.close()
    assert await indexes_of_ready(db) == ["ready_id", "ready_id_ccnew", "ready_pkey"]
    assert [line async for line in reindex.rebuild(db)] == [
        "dropped ready_id_ccnew, which an interrupted reindex had left"
    ]
    assert await indexes_of_ready(db) == ["ready_id", "ready_pkey"]


@pytest.mark.usefixtures("strict")
async def test_the_leader_rebuilds_bloated_indexes(db: DB, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reindexer, "FIRST", 0.0)
    await bloat(db)

    async def small() -> bool:
        return max((await sizes(db)).values()) < LITTLE

    async with InProcess(settings):
        await until(small, "the leader has rebuilt the indexes")


@pytest.mark.usefixtures("strict")
async def test_an_operator_is_told_what_was_rebuilt(
    db: DB, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command in this process, where small indexes count."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", dsn)
    assert await told(["db", "reindex"]) == "no index is bloated\n"
    await bloat(db)
    assert re.fullmatch(r"(reindexed ready_(id|pkey): [\d.]+ MB, now 0\.0 MB\n){2}", await told(["db", "reindex"]))


async def told(words: list[str]) -> str:
    return (await asyncio.to_thread(CliRunner().invoke, app, words)).output


@pytest.mark.long
async def test_an_operator_is_told_which_large_index_was_rebuilt(db: DB, ctl: Ctl) -> None:
    assert ctl("db", "reindex").stdout == "no index is bloated\n"
    await db.execute(
        """INSERT INTO workerd.key (key, id)
            SELECT (SELECT string_agg(md5(format('%s %s', g, i)), '') FROM generate_series(1, 30) i), g FROM generate_series(1, 75000) g;
        DELETE FROM workerd.key"""
    )
    await db.execute("VACUUM ANALYZE workerd.key")
    said = ctl("db", "reindex").stdout
    assert said.startswith("reindexed key_pkey: ")
    assert said.endswith(" MB, now 0.0 MB\n")
