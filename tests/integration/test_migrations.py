"""The schema: made once by whoever comes first, upgraded beside a fleet that works, never touched by an older program."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import pytest

from tests.support import psql, until
from workerd.errors import SchemaError
from workerd.queue import migrate
from workerd.queue.migrate import Migration

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support import Ctl

    DB = asyncpg.Connection[asyncpg.Record]

ALL = migrate.known()
FEW, MANY = 20_000, 1_000_000
LONG = 5.0  # seconds that no statement of a fleet waits for an upgrade, on whatever machine

CATALOG = """
    SELECT format('%s.%s %s %s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
        pg_get_expr(d.adbin, d.adrelid))
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'workerd'::regnamespace AND a.attnum > 0
    UNION ALL SELECT format('%s %s %s %s', c.relname, c.relkind, c.reloptions, CASE c.relkind WHEN 'v' THEN pg_get_viewdef(c.oid) END)
    FROM pg_class c WHERE c.relnamespace = 'workerd'::regnamespace
    UNION ALL SELECT format('%s %s %s %s', conrelid::regclass, conname, convalidated, pg_get_constraintdef(oid))
    FROM pg_constraint WHERE connamespace = 'workerd'::regnamespace
    UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'workerd'
    UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'workerd'::regnamespace
"""
_FILL = """
    SET synchronous_commit = off;
    SELECT workerd.lane_of('full', 0), setval('workerd.ticket', :rows), setval('workerd.job_id', 3 * :rows);
    INSERT INTO workerd.ready (lane, pos, id, task, payload) SELECT 1, g, g, 'echo', '{}' FROM generate_series(1, :rows) g;
    INSERT INTO workerd.scheduled (id, lane, run_at, task, payload)
        SELECT :rows + g, 1, now() + interval '1 hour', 'echo', '{}' FROM generate_series(1, :rows) g;
    INSERT INTO workerd.history (
            id, expires_on, lane, state, attempt, failures, crashes, node, enqueued_at, queued_at, started_at, task, payload)
        SELECT 2 * :rows + g, (SELECT min(day) FROM workerd.history_day), 1, 'succeeded', 1, 0, 0, 1, now(), now(), now(), 'echo', '{}'
        FROM generate_series(1, :rows) g
"""
# Which of its tables a part has read as a whole under a lock for which writers wait; asked before it commits. What was counted is
# put down then, so that it is not counted for the next part.
_NOTE = """
    SELECT pg_stat_force_next_flush();
    INSERT INTO public.hindering
    SELECT s.relname, l.mode, s.seq_tup_read FROM pg_stat_xact_user_tables s
        JOIN pg_locks l ON l.relation = s.relid AND l.pid = pg_backend_pid()
    WHERE s.seq_tup_read > 1000 AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock');
"""
_ENQUEUE = "SELECT workerd.enqueue('echo', '{}', queue => 'full')"
# What a claim and a finish lock and write, in whatever version.
_PASS = """
    WITH one AS (SELECT lane, pos FROM workerd.ready WHERE lane = 1 ORDER BY pos LIMIT 1),
    claimed AS (INSERT INTO workerd.lease (node, n, lane, tickets, last)
        SELECT 1, $1, lane, int8multirange(int8range(pos, pos + 1)), pos FROM one),
    gone AS (DELETE FROM workerd.ready r USING one WHERE r.lane = one.lane AND r.pos = one.pos RETURNING r.*)
    INSERT INTO workerd.history (
        id, expires_on, lane, state, attempt, failures, crashes, node, enqueued_at, queued_at, started_at, task, payload)
    SELECT id, (SELECT max(day) FROM workerd.history_day), lane, 'succeeded', 1, 0, 0, 1, enqueued_at, queued_at, now(), task, payload
    FROM gone
"""
_SHOW = "SELECT state FROM workerd.task_queue t JOIN workerd.job j USING (id) WHERE id = $1"


class Fleet:
    """Enqueues, claims, finishes and looks, one statement after the other, as fast as it can."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.rounds = 0
        self.longest = 0.0  # seconds that a statement took

    async def work(self) -> None:
        connection = await asyncpg.connect(self._dsn)
        try:
            await connection.execute("SET synchronous_commit = off; SET enable_seqscan = off")
            while True:
                for query, *arguments in ((_ENQUEUE,), (_PASS, self.rounds), (_SHOW, 1)):
                    began = time.perf_counter()
                    await connection.fetch(query, *arguments)
                    self.longest = max(self.longest, time.perf_counter() - began)
                self.rounds += 1
        finally:
            connection.terminate()

    async def worked(self) -> None:
        """Return when it has done more than at the call."""
        before = self.rounds

        async def further() -> bool:
            return self.rounds > before + 1

        await until(further, "the fleet works")


@asynccontextmanager
async def at_work(dsn: str) -> AsyncIterator[Fleet]:
    fleet = Fleet(dsn)
    working = asyncio.create_task(fleet.work())
    try:
        await fleet.worked()
        fleet.longest = 0.0
        yield fleet
        await fleet.worked()
    finally:
        working.cancel()
        await asyncio.wait([working])
    assert working.cancelled(), working.exception()


@pytest.fixture
async def empty(empty_dsn: str) -> AsyncIterator[DB]:
    connection = await asyncpg.connect(empty_dsn)
    yield connection
    await connection.close()


@pytest.fixture
async def fresh(server: str, template: str) -> set[str]:
    """The definitions of a schema that was made at once."""
    connection = await asyncpg.connect(server, database=template)
    try:
        return await catalog(connection)
    finally:
        await connection.close()


def knows(monkeypatch: pytest.MonkeyPatch, *migrations: Migration) -> None:
    monkeypatch.setattr(migrate, "known", lambda: list(migrations))


async def catalog(connection: DB) -> set[str]:
    """All definitions of the schema; partitions go by one name, since theirs is that of a day."""
    return {re.sub(r"history_\d{8}", "history_day", row[0]) for row in await connection.fetch(CATALOG)}


async def test_many_daemons_starting_at_once_make_one_schema(empty_dsn: str) -> None:
    async def upgrade() -> list[int]:
        connection = await asyncpg.connect(empty_dsn)
        applied = [m.version for m in await migrate.upgrade(connection)]
        await connection.close()
        return applied

    applied = [version for each in await asyncio.gather(*(upgrade() for _ in range(8))) for version in each]
    assert sorted(applied) == [m.version for m in migrate.known()]


async def test_versions_are_numbered_without_gaps() -> None:
    assert [m.version for m in migrate.known()] == list(range(1, migrate.latest() + 1))


async def test_a_newer_schema_is_refused_untouched(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("INSERT INTO workerd.migration (version, name) VALUES (9999, 'newer')")
    with pytest.raises(SchemaError, match="upgrade workerd on this host"):
        await migrate.upgrade(connection)
    await connection.close()


async def test_a_role_without_rights_is_told_what_to_do(empty: DB) -> None:
    await empty.execute("DROP ROLE IF EXISTS powerless; CREATE ROLE powerless")
    await empty.execute("SET ROLE powerless")
    with pytest.raises(SchemaError, match="workerctl db upgrade"):
        await migrate.upgrade(empty)
    await empty.execute("RESET ROLE; DROP ROLE powerless")


async def test_a_schema_upgraded_step_by_step_is_the_fresh_one(
    empty: DB, fresh: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in range(1, len(ALL) + 1):
        knows(monkeypatch, *ALL[:version])
        assert [m.version for m in await migrate.upgrade(empty)] == [version]
    assert await catalog(empty) == fresh
    assert not await empty.fetchval("SELECT count(*) FROM pg_constraint WHERE NOT convalidated")


@pytest.fixture
async def at_version(
    empty: DB, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> tuple[DB, list[Migration]]:
    """A database with the schema of an older version, and what is pending there."""
    if request.param:
        with monkeypatch.context() as before:
            knows(before, *ALL[: request.param])
            await migrate.upgrade(empty)
    return empty, await migrate.pending(empty)


@pytest.mark.parametrize("at_version", range(len(ALL)), indirect=True)
async def test_the_printed_sql_makes_the_same_schema(
    at_version: tuple[DB, list[Migration]], empty_dsn: str, fresh: set[str]
) -> None:
    db, todo = at_version
    printed = migrate.script(todo, [])
    done = psql(empty_dsn, printed)
    assert (done.returncode, "ERROR" in done.stderr) == (0, False), done.stderr
    assert await catalog(db) == fresh
    assert await migrate.pending(db) == []
    assert psql(empty_dsn, printed).returncode != 0, "it can be applied twice"
    assert await migrate.current(db) == migrate.latest()


@pytest.mark.parametrize("at_version", [0, len(ALL) - 1], indirect=True)
async def test_the_command_prints_that_sql(ctl: Ctl, at_version: tuple[DB, list[Migration]], empty_dsn: str) -> None:
    assert ctl("db", "upgrade", "--sql", DATABASE_URL=empty_dsn).stdout == f"{migrate.script(at_version[1], [])}\n"


async def test_a_dry_run_names_what_would_be_applied_and_changes_nothing(ctl: Ctl, empty: DB, empty_dsn: str) -> None:
    told = ctl("db", "upgrade", "--dry-run", DATABASE_URL=empty_dsn).stdout
    assert [line for line in told.splitlines() if not line.startswith(" ")] == [
        f"would apply {m.version} {m.name}" for m in ALL
    ]
    assert await empty.fetchval("SELECT to_regnamespace('workerd') IS NULL")
    await migrate.upgrade(empty)
    assert ctl("db", "upgrade", "--dry-run", DATABASE_URL=empty_dsn).stdout == "the schema is up to date\n"


_FAILING = """
-- part: the first
CREATE TABLE workerd.first (n int);
-- part outside of a transaction: the second
DROP INDEX CONCURRENTLY IF EXISTS workerd.first_n;
CREATE INDEX CONCURRENTLY first_n ON workerd.first (n);
-- part: the third
CREATE TABLE workerd.third (n int);
SELECT 1 / 0;
"""


async def test_an_upgrade_that_failed_half_way_goes_on_where_it_stopped(
    empty: DB, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = len(ALL) + 1
    knows(monkeypatch, *ALL, Migration(number, "probe", migrate.parse(_FAILING)))
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate.upgrade(empty)
    assert await migrate.current(empty) == len(ALL)
    assert [part.title for m in await migrate.pending(empty) for part in m.parts] == ["the third"]
    assert await empty.fetchval("SELECT to_regclass('workerd.first_n') IS NOT NULL")
    assert await empty.fetchval("SELECT to_regclass('workerd.third') IS NULL")
    knows(monkeypatch, *ALL, Migration(number, "probe", migrate.parse(_FAILING.replace("SELECT 1 / 0;", ""))))
    assert [m.version for m in await migrate.upgrade(empty)] == [number]
    assert await migrate.current(empty) == number
    assert await migrate.pending(empty) == []
    assert not await empty.fetchval("SELECT count(*) FROM workerd.migration_part")


async def test_a_build_of_an_index_that_was_interrupted_is_begun_anew(
    empty: DB, empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate.upgrade(empty)
    monkeypatch.setattr(migrate, "_CALMLY", "SET lock_timeout = '100ms'")
    knows(monkeypatch, *ALL, Migration(len(ALL) + 1, "probe", migrate.parse(_FAILING.replace("SELECT 1 / 0;", ""))))
    other = await asyncpg.connect(empty_dsn)
    async with other.transaction(isolation="repeatable_read"):
        await other.execute("SELECT count(*) FROM pg_class")
        with pytest.raises(SchemaError, match="probe, the second"):
            await migrate.upgrade(empty, patience=0.0)
    await other.close()
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'workerd.first_n'::regclass"
    assert await empty.fetchval(valid) is False
    await migrate.upgrade(empty)
    assert await empty.fetchval(valid) is True


@pytest.mark.parametrize("rows", [FEW, pytest.param(MANY, marks=pytest.mark.long)])
async def test_many_rows_are_upgraded_beside_a_fleet_that_works(
    empty: DB, empty_dsn: str, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """However long a part takes: it reads no table of jobs while it keeps others from writing there."""
    with monkeypatch.context() as before:
        knows(before, *ALL[:2])
        await migrate.upgrade(empty)
    await empty.execute(_FILL.replace(":rows", str(rows)))
    await note_hindering_parts(empty, monkeypatch)
    async with at_work(empty_dsn) as fleet:
        await migrate.upgrade(empty)
    assert [tuple(row) for row in await empty.fetch("SELECT * FROM public.hindering")] == []
    assert fleet.longest < LONG
    assert not await empty.fetchval("SELECT count(*) FROM pg_constraint WHERE NOT convalidated")


async def note_hindering_parts(db: DB, monkeypatch: pytest.MonkeyPatch) -> None:
    await db.execute(
        "CREATE TABLE public.hindering (relation text, mode text, read bigint); SELECT pg_stat_force_next_flush()"
    )
    record = Migration.record
    monkeypatch.setattr(Migration, "record", lambda migration, part: f"{_NOTE} {record(migration, part)}")


@pytest.mark.parametrize(
    "part",
    [
        "ALTER TABLE workerd.ready ADD CONSTRAINT probe CHECK (attempt >= 0)",
        "ALTER TABLE workerd.ready ALTER queue_probe TYPE bigint",
        "CREATE INDEX probe ON workerd.ready (task)",
    ],
)
async def test_a_part_that_reads_a_table_under_a_lock_is_seen(
    db: DB, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    await db.execute(
        """ALTER TABLE workerd.ready ADD queue_probe int;
        SELECT workerd.enqueue_many('echo', array_fill('{}'::text, ARRAY[2000]))"""
    )
    await note_hindering_parts(db, monkeypatch)
    knows(monkeypatch, *ALL, Migration(len(ALL) + 1, "probe", migrate.parse(f"-- part: probe\n{part};\n")))
    await migrate.upgrade(db)
    assert {row["relation"] for row in await db.fetch("SELECT * FROM public.hindering")} == {"ready"}


async def test_an_upgrade_that_meets_a_long_transaction_gives_way_and_says_whose_it_is(
    empty: DB, empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        knows(before, *ALL[:2])
        await migrate.upgrade(empty)
    other = await asyncpg.connect(empty_dsn, server_settings={"application_name": "a report"})
    report = other.transaction()
    await report.start()
    await other.execute("SELECT count(*) FROM workerd.ready")
    async with at_work(empty_dsn) as fleet:
        with pytest.raises(SchemaError, match=r"migration 4 care, ready.*a report, process \d+, holds a table since"):
            await migrate.upgrade(empty, patience=2.0)
    assert fleet.longest < 2.0, "it waited as long as the upgrade was patient"
    assert await migrate.current(empty) == 3
    await report.rollback()
    await migrate.upgrade(empty, patience=2.0)
    assert await migrate.current(empty) == migrate.latest()
    await other.close()


async def test_jobs_that_no_daemon_could_run_are_cancelled_by_the_upgrade(
    empty: DB, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        knows(before, *ALL[:2])
        await migrate.upgrade(empty)
    await empty.execute("SELECT workerd.enqueue('')")
    await empty.execute("SELECT workerd.enqueue('', delay => '1 hour')")
    await empty.execute("SELECT workerd.enqueue_many('echo', ARRAY['[1]', '{}'])")
    await migrate.upgrade(empty)
    assert [row["state"] for row in await empty.fetch("SELECT state FROM workerd.job ORDER BY id")] == [
        "cancelled",
        "cancelled",
        "cancelled",
        "queued",
    ]
