"""The schema: made once by the first daemon, upgraded beside a fleet that works, never touched by an older program."""

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
from workerd.queue.schema import files

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support import Ctl

    DB = asyncpg.Connection[asyncpg.Record]

NEXT = migrate.latest() + 1  # the number of a migration that a test adds
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


def knows(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Let the program have one migration more."""
    more = [*migrate.known(), Migration(NEXT, "probe", migrate.parse(text))]
    monkeypatch.setattr(migrate, "known", lambda: more)


def has(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    """Let the program have this function as well, or in place of its own."""
    text = f"{files.repeatable()}\n{function}"
    monkeypatch.setattr(files, "repeatable", lambda: text)


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
    assert applied == [migrate.latest()] * 2, "tables and functions, once"


async def test_versions_are_numbered_without_gaps() -> None:
    assert [m.version for m in migrate.known()] == list(range(migrate.BASELINE + 1, migrate.latest() + 1))


async def test_a_schema_from_before_the_first_release_is_refused_with_what_to_do(db: DB, ctl: Ctl, dsn: str) -> None:
    await db.execute("UPDATE workerd.migration SET version = 20")
    for words in (["db", "upgrade"], ["status"], ["start", "1", "--tasks", "tests.handlers"]):
        done = ctl(*words, DATABASE_URL=dsn)
        if words != ["status"]:
            assert done.returncode != 0
            assert "has version 20, from before the first release" in done.stderr
            assert "DROP SCHEMA workerd CASCADE" in done.stderr
            assert "Traceback" not in done.stderr
    await db.execute("DROP SCHEMA workerd CASCADE")
    assert ctl("db", "upgrade", DATABASE_URL=dsn).returncode == 0


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


_PROBE = "CREATE OR REPLACE FUNCTION workerd.probe() RETURNS int LANGUAGE sql AS 'SELECT {}';"


async def test_functions_that_have_changed_are_applied_again(db: DB, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2):
        with monkeypatch.context() as program:
            has(program, _PROBE.format(number))
            assert [(m.version, m.name) for m in await migrate.upgrade(db)] == [(migrate.latest(), "functions")]
            assert await migrate.upgrade(db) == []
            assert await db.fetchval("SELECT workerd.probe()") == number


async def test_functions_of_a_newer_program_stay(db: DB, monkeypatch: pytest.MonkeyPatch) -> None:
    await db.execute("UPDATE workerd.repeatable SET program = '999.0.0'")
    has(monkeypatch, _PROBE.format(1))
    assert await migrate.upgrade(db) == []
    assert await db.fetchval("SELECT to_regproc('workerd.probe') IS NULL")


async def test_functions_that_cannot_be_applied_leave_those_that_are_there(
    db: DB, fresh: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    has(monkeypatch, f"{_PROBE.format(1)} SELECT 1 / 0;")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate.upgrade(db)
    assert await catalog(db) == fresh


@pytest.fixture(params=["nothing", "older functions"])
async def behind(empty: DB, request: pytest.FixtureRequest) -> tuple[DB, list[Migration]]:
    """A database that is not up to date, and what is pending there."""
    if request.param == "older functions":
        await migrate.upgrade(empty)
        await empty.execute("UPDATE workerd.repeatable SET digest = 'other'; DROP FUNCTION workerd.forget_changes")
    return empty, await migrate.pending(empty)


async def test_the_printed_sql_makes_the_same_schema(
    behind: tuple[DB, list[Migration]], empty_dsn: str, fresh: set[str]
) -> None:
    db, todo = behind
    printed = migrate.script(todo, [])
    done = psql(empty_dsn, printed)
    assert (done.returncode, "ERROR" in done.stderr) == (0, False), done.stderr
    assert await catalog(db) == fresh
    assert await migrate.pending(db) == []
    assert await migrate.current(db) == migrate.latest()


async def test_the_command_prints_that_sql(ctl: Ctl, behind: tuple[DB, list[Migration]], empty_dsn: str) -> None:
    assert ctl("db", "upgrade", "--sql", DATABASE_URL=empty_dsn).stdout == f"{migrate.script(behind[1], [])}\n"


async def test_a_dry_run_names_what_would_be_applied_and_changes_nothing(ctl: Ctl, empty: DB, empty_dsn: str) -> None:
    told = ctl("db", "upgrade", "--dry-run", DATABASE_URL=empty_dsn).stdout
    assert [line for line in told.splitlines() if not line.startswith(" ")] == [
        f"would apply {migrate.latest()} tables",
        f"would apply {migrate.latest()} functions",
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
    await migrate.upgrade(empty)
    with monkeypatch.context() as program:
        knows(program, _FAILING)
        with pytest.raises(asyncpg.DivisionByZeroError):
            await migrate.upgrade(empty)
        assert await migrate.current(empty) == NEXT - 1
        assert [part.title for part in (await migrate.pending(empty))[0].parts] == ["the third"]
        assert await empty.fetchval("SELECT to_regclass('workerd.first_n') IS NOT NULL")
        assert await empty.fetchval("SELECT to_regclass('workerd.third') IS NULL")
    knows(monkeypatch, _FAILING.replace("SELECT 1 / 0;", ""))
    assert [(m.version, m.name) for m in await migrate.upgrade(empty)] == [(NEXT, "probe"), (NEXT, "functions")]
    assert await migrate.current(empty) == NEXT
    assert await migrate.pending(empty) == []
    assert not await empty.fetchval("SELECT count(*) FROM workerd.migration_part")


async def test_a_build_of_an_index_that_was_interrupted_is_begun_anew(
    empty: DB, empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate.upgrade(empty)
    monkeypatch.setattr(migrate, "_CALMLY", "SET lock_timeout = '100ms'")
    knows(monkeypatch, _FAILING.replace("SELECT 1 / 0;", ""))
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


# A check is added for new rows first: that needs the table to itself, but only for a moment. The rows that are there are looked at
# in a part of its own, beside which others go on. An autovacuum in the way is ended by waiting for a lock that hinders nobody else.
_CALM = """
-- part: ready: a column and a check
SET LOCAL lock_timeout = '3s';
LOCK TABLE workerd.ready IN SHARE UPDATE EXCLUSIVE MODE;
SET LOCAL lock_timeout = '100ms';
ALTER TABLE workerd.ready ADD COLUMN probe int, ADD CONSTRAINT ready_probe CHECK (attempt >= 0) NOT VALID;
-- part: history: the same
SET LOCAL lock_timeout = '3s';
LOCK TABLE workerd.history IN SHARE UPDATE EXCLUSIVE MODE;
SET LOCAL lock_timeout = '100ms';
ALTER TABLE workerd.history ADD COLUMN probe int, ADD CONSTRAINT history_probe CHECK (attempt >= 0) NOT VALID;
-- part outside of a transaction: the rows that are there fit as well
ALTER TABLE workerd.ready VALIDATE CONSTRAINT ready_probe;
ALTER TABLE workerd.history VALIDATE CONSTRAINT history_probe;
-- part outside of a transaction: scheduled: an index
DROP INDEX CONCURRENTLY IF EXISTS workerd.scheduled_probe;
CREATE INDEX CONCURRENTLY scheduled_probe ON workerd.scheduled (task);
"""


@pytest.mark.parametrize("rows", [FEW, pytest.param(MANY, marks=pytest.mark.long)])
async def test_many_rows_are_upgraded_beside_a_fleet_that_works(
    empty: DB, empty_dsn: str, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """However long a part takes: it reads no table of jobs while it keeps others from writing there."""
    await migrate.upgrade(empty)
    await empty.execute(_FILL.replace(":rows", str(rows)))
    await note_hindering_parts(empty, monkeypatch)
    knows(monkeypatch, _CALM)
    async with at_work(empty_dsn) as fleet:
        assert [m.name for m in await migrate.upgrade(empty)] == ["probe", "functions"]
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
    knows(monkeypatch, f"-- part: probe\n{part};\n")
    await migrate.upgrade(db)
    assert {row["relation"] for row in await db.fetch("SELECT * FROM public.hindering")} == {"ready"}


async def test_an_upgrade_that_meets_a_long_transaction_gives_way_and_says_whose_it_is(
    empty: DB, empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate.upgrade(empty)
    await empty.execute("SELECT workerd.lane_of('full', 0)")
    knows(monkeypatch, _CALM)
    other = await asyncpg.connect(empty_dsn, server_settings={"application_name": "a report"})
    report = other.transaction()
    await report.start()
    await other.execute("SELECT count(*) FROM workerd.ready")
    async with at_work(empty_dsn) as fleet:
        with pytest.raises(
            SchemaError, match=rf"migration {NEXT} probe, ready.*a report, process \d+, holds a table since"
        ):
            await migrate.upgrade(empty, patience=2.0)
    assert fleet.longest < 2.0, "it waited as long as the upgrade was patient"
    assert await migrate.current(empty) == NEXT - 1
    await report.rollback()
    await migrate.upgrade(empty, patience=2.0)
    assert await migrate.current(empty) == NEXT
    await other.close()
