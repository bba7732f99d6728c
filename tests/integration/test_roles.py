"""What each of the four roles can do, and what it cannot: every statement as a login that has that role alone."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
import pytest

from tests.examples import examples
from tests.support import InProcess, psql, until_state
from workerd import Queue
from workerd.errors import DatabaseError, SchemaError
from workerd.limit import Limit
from workerd.queue import (
    change,
    contents,
    depth,
    enqueue,
    failures,
    fleet,
    inspect,
    limits,
    migrate,
    orders,
    prune,
    roles,
)
from workerd.queue.backup import backup
from workerd.queue.claim import BEGINNING, Wanted, claim
from workerd.queue.database import connect
from workerd.queue.lane import lanes
from workerd.queue.migrate import Migration
from workerd.queue.restore import restore
from workerd.queue.roles import ROLES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.support import Ctl
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]
    Act = str | Callable[[DB, "Jobs"], Awaitable[Any]]

NODE = 7
_number = count(1)


@dataclass(frozen=True)
class Logins:
    """A login for each role, named as the role with `_login` behind it."""

    dsn: str
    prefix: str

    def address(self, role: str) -> str:
        return self.address_of(f"{self.prefix}_{role}_login", "secret")

    def address_of(self, login: str, password: str) -> str:
        parts = urlsplit(self.dsn)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=f"{login}:{quote(password)}@{host}"))

    @asynccontextmanager
    async def connect(self, role: str) -> AsyncIterator[DB]:
        connection = await asyncpg.connect(self.address(role))
        try:
            yield connection
        finally:
            await connection.close()


@pytest.fixture
async def logins(db: DB, dsn: str) -> AsyncIterator[Logins]:
    made = Logins(dsn, f"test_{os.getpid()}_{next(_number)}")
    assert len(await roles.create(db, made.prefix)) == 4
    names = roles.names(made.prefix)
    for name in names.values():
        await db.execute(f"CREATE ROLE {name}_login LOGIN PASSWORD 'secret' IN ROLE {name}")
    yield made
    everyone = ", ".join([*names.values(), *(f"{name}_login" for name in names.values())])
    await db.execute(f"DROP OWNED BY {everyone} CASCADE")
    await db.execute(f"DROP ROLE {everyone}")


@dataclass(frozen=True)
class Jobs:
    """One in each place, made by the owner."""

    queued: int
    scheduled: int
    failed: int


@pytest.fixture
async def jobs(db: DB, queue: Queue) -> Jobs:
    await db.execute(
        """INSERT INTO workerd.node (id, name, pid, version, locked, tasks, queues, workers)
        VALUES ($1, 'here', 1, '1', false, '{echo}', '{}', 1)""",
        NODE,
    )
    await limits.put(db, "queue", "narrow", Limit(concurrency=1))
    queued = await queue.enqueue("echo", {"value": "secret"}, key="a")
    scheduled = await queue.enqueue("echo", {"value": "secret"}, delay="1h")
    failed = await queue.enqueue("echo", {"value": "secret"})
    await db.execute(
        """WITH gone AS (DELETE FROM workerd.ready WHERE id = $1 RETURNING *)
        INSERT INTO workerd.history (id, expires_on, lane, state, attempt, failures, crashes, node, enqueued_at, queued_at, started_at,
            task, payload, error)
        SELECT id, (SELECT min(day) FROM workerd.history_day), lane, 'failed', 1, 1, 0, $2, now(), now(), now(), task, payload, 'why'
        FROM gone""",
        failed,
        NODE,
    )
    return Jobs(queued, scheduled, failed)


async def _now(db: DB, _: Jobs) -> None:
    await enqueue.one(db, enqueue.options("echo", {}), "{}")


async def _copy(db: DB, _: Jobs) -> None:
    await enqueue.many(db, enqueue.options("echo", {}), ["{}"] * enqueue.COPY_FROM)


async def _copy_later(db: DB, _: Jobs) -> None:
    await enqueue.many(
        db,
        enqueue.options("echo", {"queue": "new lane", "priority": 3, "delay": 60, "max_retries": 1}),
        ["{}"] * enqueue.COPY_FROM,
    )


async def _claim(db: DB, _: Jobs) -> None:
    wanted = Wanted(1, [(lane, BEGINNING) for lane in await lanes(db, [])], 10, ["echo"], True, True, 2)
    await claim(db, NODE, wanted)


async def _order(db: DB, _: Jobs) -> None:
    await orders.give(db, NODE, "drain", {})


async def _forget(db: DB, _: Jobs) -> None:
    await db.execute("UPDATE workerd.node SET forgotten_at = now() WHERE dead_at IS NOT NULL")


async def _pause(db: DB, _: Jobs) -> None:
    await inspect.pause(db, "default", paused=True)


async def _limit(db: DB, _: Jobs) -> None:
    await limits.put(db, "queue", "default", Limit(rate=1.0))


async def _delete(db: DB, jobs: Jobs) -> None:
    await change.delete(db, [jobs.failed])


async def _look(db: DB, jobs: Jobs) -> None:
    """What workerctl asks."""
    await inspect.job(db, jobs.queued)
    await inspect.queues(db)
    await inspect.tasks(db, 1)
    await inspect.nodes(db)
    await failures.failures(db, 1, None)
    await fleet.living(db, "here")
    await depth.depths(db)


EVERYBODY = set(ROLES)
PUTS = {"enqueue", "work", "operate"}
READS = {"work", "operate", "read"}
CHANGES = {"work", "operate"}
NOBODY: set[str] = set()
ACTS: dict[str, tuple[Act, set[str]]] = {
    "the version of the schema": ("SELECT version FROM workerd.migration", EVERYBODY),
    "enqueue in SQL": ("SELECT workerd.enqueue('echo')", PUTS),
    "enqueue with a key": ("SELECT workerd.enqueue('echo', key => 'b')", PUTS),
    "enqueue with a key that is held": ("SELECT workerd.enqueue('echo', key => 'a')", PUTS),
    "enqueue later": ("SELECT workerd.enqueue('echo', delay => '1 h', max_retries => 1)", PUTS),
    "enqueue into a new lane": ("SELECT workerd.enqueue('echo', queue => 'new', priority => 9)", PUTS),
    "enqueue many": ("SELECT workerd.enqueue_many('echo', '{\"{}\"}')", PUTS),
    "enqueue from Python": (_now, PUTS),
    "enqueue by COPY": (_copy, PUTS),
    "enqueue by COPY, later": (_copy_later, PUTS),
    "enqueue after another": (
        "SELECT workerd.enqueue('echo', after => '{%(queued)s,%(failed)s}', after_end => 'finished')",
        PUTS,
    ),
    "enqueue many after another": (
        "SELECT workerd.enqueue_many('echo', '{\"{}\",\"{}\"}', after => '{%(queued)s}')",
        PUTS,
    ),
    "enqueue a batch": (
        "SELECT workerd.enqueue('workerd.batch', after => '{%(queued)s}', after_end => 'finished', batch => true)",
        PUTS,
    ),
    "enqueue for a node, with a deadline": (
        "SELECT workerd.enqueue('echo', pin => 'here', deadline => now() + interval '1 h')",
        PUTS,
    ),
    "enqueue under a limit": ("SELECT workerd.enqueue('echo', queue => 'narrow')", PUTS),
    "enqueue many under a limit": ("SELECT workerd.enqueue_many('echo', '{\"{}\"}', queue => 'narrow')", PUTS),
    "put another payload under a key": ("SELECT workerd.enqueue('echo', key => 'a', conflict => 'replace')", CHANGES),
    "put another time under a key": (
        "SELECT workerd.enqueue('echo', key => 'a', conflict => 'reschedule', delay => '1 h')",
        CHANGES,
    ),
    "answer": ("SELECT workerd.signal(%(queued)s, 'approved')", PUTS),
    "read the view": ("SELECT payload FROM workerd.task_queue", READS),
    "read payloads": ("SELECT payload FROM workerd.ready", READS),
    "read payloads of scheduled jobs": ("SELECT payload FROM workerd.scheduled", READS),
    "read payloads while enqueuing": (
        "INSERT INTO workerd.ready (lane, id, task, payload) VALUES (1, 99, 'echo', '{}') RETURNING payload",
        CHANGES,
    ),
    "write a job past the functions": (
        "INSERT INTO workerd.ready (lane, id, task, payload) VALUES (1, 99, 'echo', '{}')",
        CHANGES,
    ),
    "write a scheduled job past the functions": (
        "INSERT INTO workerd.scheduled (lane, id, task, payload, run_at) VALUES (1, 99, 'echo', '{}', now())",
        CHANGES,
    ),
    "take a key past the functions": ("INSERT INTO workerd.key (key, id) VALUES ('b', 99)", CHANGES),
    "read results": ("SELECT result FROM workerd.history", READS),
    "read steps": ("SELECT result FROM workerd.step", READS),
    "read answers": ("SELECT payload FROM workerd.signal", READS),
    "look at everything": (_look, READS),
    "claim": (_claim, {"work"}),
    "register a node": ("DELETE FROM workerd.node WHERE id = 0", {"work"}),
    "declare a task": ("UPDATE workerd.task SET queue = 'mine'", {"work"}),
    "finish": ("DELETE FROM workerd.ready WHERE id = %(queued)s", CHANGES),
    "keep a step": ("INSERT INTO workerd.step (id, name, result) VALUES (1, 'mine', '1')", {"work"}),
    "change a payload": ("UPDATE workerd.ready SET payload = '{}'", CHANGES),
    "take attempts from a job": (
        "INSERT INTO workerd.ready (lane, id, task, payload, attempt) VALUES (1, 99, 'echo', '{}', 5)",
        CHANGES,
    ),
    "cancel a queued job": ("SELECT workerd.cancel(%(queued)s, 60)", CHANGES),
    "cancel a scheduled job": ("SELECT workerd.cancel(%(scheduled)s, 60)", CHANGES),
    "queue a scheduled job": ("SELECT workerd.retry(%(scheduled)s)", CHANGES),
    "retry a failed job": ("SELECT workerd.retry(%(failed)s)", {"operate"}),
    "delete a finished job": (_delete, {"operate"}),
    "change a finished job": ("UPDATE workerd.history SET state = 'succeeded', error = NULL", NOBODY),
    "pause a queue": (_pause, {"operate"}),
    "limit a queue": (_limit, CHANGES),
    "age a queue": ("UPDATE workerd.queue SET ageing = 60", {"operate"}),
    "order a node": (_order, CHANGES),
    "forget a node": (_forget, CHANGES),
    "make a partition": ("SELECT workerd.add_history_days('{60}')", {"work"}),
    "drop a partition that has expired": ("SELECT workerd.drop_history_day('2000-01-01')", {"work"}),
    "drop a table": ("DROP TABLE workerd.job_log", NOBODY),
    "drop the schema": ("DROP SCHEMA workerd CASCADE", NOBODY),
    "empty a table": ("TRUNCATE workerd.history", NOBODY),
    "make a table": ("CREATE TABLE workerd.mine (n int)", NOBODY),
    "make a function": ("CREATE FUNCTION workerd.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'", NOBODY),
    "change the version of the schema": ("DELETE FROM workerd.migration", NOBODY),
}


async def _may(connection: DB, act: Act, jobs: Jobs) -> bool:
    transaction = connection.transaction()
    await transaction.start()
    try:
        if isinstance(act, str):
            await connection.execute(act % vars(jobs))
        else:
            await act(connection, jobs)
    except asyncpg.InsufficientPrivilegeError:
        return False
    except DatabaseError as error:
        if not isinstance(error.__cause__, asyncpg.InsufficientPrivilegeError):
            raise
        return False
    finally:
        await transaction.rollback()
    return True


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_can_do_what_is_its_own_and_nothing_else(logins: Logins, jobs: Jobs, role: str) -> None:
    can = {}
    async with logins.connect(role) as connection:
        await connection.execute("SET client_min_messages = error")
        for name, (act, _) in ACTS.items():
            can[name] = await _may(connection, act, jobs)
    assert can == {name: role in who for name, (_, who) in ACTS.items()}


async def test_a_login_without_a_role_can_do_nothing(logins: Logins, db: DB, jobs: Jobs) -> None:
    await db.execute(f"REVOKE {logins.prefix}_read FROM {logins.prefix}_read_login")
    async with logins.connect("read") as connection:
        assert [name for name, (act, _) in ACTS.items() if await _may(connection, act, jobs)] == []


async def test_a_function_that_acts_as_the_owner_trusts_no_name_of_its_caller(logins: Logins, db: DB) -> None:
    """A caller who may make functions of its own, which are found first, does not get them called by the owner."""
    await db.execute(f"CREATE SCHEMA mine AUTHORIZATION {logins.prefix}_work_login")
    async with logins.connect("work") as connection:
        await connection.execute(
            """CREATE FUNCTION mine.to_char(date, text) RETURNS text LANGUAGE plpgsql AS
            $$ BEGIN EXECUTE 'DROP TABLE workerd.job_log'; RETURN 'x'; END $$"""
        )
        await connection.execute("SET search_path = mine, pg_catalog")
        await connection.execute("SELECT workerd.drop_history_day('2000-01-01')")
        with pytest.raises(asyncpg.InvalidParameterValueError, match="has not expired"):
            await connection.execute("SELECT workerd.drop_history_day(current_date + 1)")
    assert await db.fetchval("SELECT to_regclass('workerd.job_log') IS NOT NULL")


async def test_a_daemon_works_under_its_role(logins: Logins, settings: Settings, db: DB, queue: Queue) -> None:
    await db.execute("INSERT INTO workerd.history_day VALUES ('2000-01-01')")
    await limits.put(db, "queue", "narrow", Limit(concurrency=1))
    changed = {"database_url": logins.address("work"), "enable_metrics": True, "metrics_port": 0}
    async with InProcess(settings.model_copy(update={**changed, "tasks": ("tests.handlers", "tests.step_handlers")})):
        job = await queue.enqueue("echo", {"value": 1}, key="k")
        assert await queue.result(job, timeout=60) == 1
        assert await queue.result(await queue.enqueue("stumble", {"until_attempt": 3}), timeout=60) == 3
        assert await queue.result(await queue.enqueue("measured"), timeout=60) == "done"
        assert await queue.result(await queue.enqueue("telling", {"lines": 3}), timeout=60) == "told"
        assert await queue.result(await queue.enqueue("enqueuing", {"values": [1, 2]}), timeout=60)
        await until_state(db, await queue.enqueue("discarding"), "failed")
        first = await queue.enqueue("echo", {"value": 1})
        second = await queue.enqueue("echo", {"value": 2}, after=[first], queue="narrow")
        assert await queue.result(second, timeout=60) == 2
        waits = await queue.enqueue("stepping_then_waiting")
        await until_state(db, waits, "scheduled")
        await queue.signal(waits, "approved", "yes")
        assert await queue.result(waits, timeout=60) == "yes"
    assert await db.fetchval(
        "SELECT rolname FROM pg_roles r JOIN pg_class c ON c.relowner = r.oid WHERE c.relname = 'ready'"
    ) != (f"{logins.prefix}_work_login")
    assert not await db.fetchval("SELECT EXISTS (SELECT FROM workerd.history_day WHERE day = '2000-01-01')"), (
        "not pruned"
    )
    async with logins.connect("work") as connection:
        await prune.add_days(connection, [400 * 86400.0])
        assert await db.fetchval("SELECT max(day) > now() + interval '400 days' FROM workerd.history_day")


@pytest.mark.parametrize("role", ROLES)
async def test_indexes_are_rebuilt_by_daemons_where_the_server_can_allow_it(logins: Logins, role: str) -> None:
    async with logins.connect(role) as connection:
        can_be_allowed = connection.get_server_version().major >= 17
        rebuilt = await _may(connection, "REINDEX INDEX workerd.ready_pkey", Jobs(0, 0, 0))
    assert rebuilt == (role == "work" and can_be_allowed)


async def test_an_application_enqueues_under_its_role(logins: Logins, db: DB) -> None:
    async with Queue.connect(logins.address("enqueue")) as queue:
        ids = [await queue.enqueue("echo", {"value": 1})]
        ids += await asyncio.gather(*(queue.enqueue("echo", {"value": n}) for n in range(20)))
        ids += await queue.enqueue_many("echo", [{"value": n} for n in range(100)])
        ids += await queue.enqueue_many("echo", [{"value": n} for n in range(enqueue.COPY_FROM)])
        ids += await queue.enqueue_many("echo", [{"value": n} for n in range(enqueue.COPY_FROM)], delay="1h")
        held = await queue.enqueue("echo", key="once", delay="1h")
        assert await queue.enqueue("echo", key="once") == held
        assert await queue.signal(held, "approved")
        with pytest.raises(DatabaseError, match="permission denied"):
            await queue.cancel(held)
    assert await db.fetchval("SELECT count(*) FROM workerd.job") == len({*ids, held})


async def test_commands_work_under_the_roles_that_are_for_them(logins: Logins, jobs: Jobs, ctl: Ctl) -> None:
    reads = {"DATABASE_URL": logins.address("read")}
    operates = {"DATABASE_URL": logins.address("operate")}
    for words in (
        ["jobs", "list"],
        ["jobs", "show", str(jobs.failed)],
        ["queues", "list"],
        ["nodes", "list"],
        ["stats"],
    ):
        assert (await asyncio.to_thread(ctl, *words, **reads)).returncode == 0, words
        assert (await asyncio.to_thread(ctl, *words, **operates)).returncode == 0, words
    for words in (
        ["queues", "pause", "default"],
        ["queues", "resume", "default"],
        ["jobs", "retry", str(jobs.failed)],
        ["jobs", "cancel", str(jobs.queued)],
        ["jobs", "delete", str(jobs.queued)],
    ):
        refused = await asyncio.to_thread(ctl, *words, **reads)
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1), words
        assert "permission denied" in refused.stderr
        done = await asyncio.to_thread(ctl, *words, **operates)
        assert done.returncode == 0, done.stderr


async def test_the_command_makes_the_roles_once(ctl: Ctl, logins: Logins, db: DB) -> None:
    names = list(roles.names(logins.prefix).values())
    await db.execute(f"DROP OWNED BY {names[3]}; DROP ROLE {names[3]}")
    made = await asyncio.to_thread(ctl.json, "db", "roles", "--prefix", logins.prefix)
    assert [(role["role"], role["created"]) for role in made] == [(name, name == names[3]) for name in names]
    again = await asyncio.to_thread(ctl, "db", "roles", "--prefix", logins.prefix)
    assert again.stdout.count("was there") == 4
    wrong = await asyncio.to_thread(ctl, "db", "roles", "--prefix", "x; DROP")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    refused = await asyncio.to_thread(
        ctl, "db", "roles", "--prefix", logins.prefix, DATABASE_URL=logins.address("operate")
    )
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "the owner of the schema" in refused.stderr


async def test_the_example_of_the_documentation(logins: Logins, db: DB, dsn: str) -> None:
    """With another prefix: roles are the server's."""
    (example,) = examples("roles.md", "sql")
    here = example.replace("workerd_", f"{logins.prefix}_")
    for name in ("shop_worker", "shop", "grafana"):
        here = here.replace(f"ROLE {name} ", f"ROLE {logins.prefix}_{name} ")
    done = psql(dsn, here)
    assert (done.returncode, "ERROR" in done.stderr) == (0, False), done.stderr
    async with Queue.connect(logins.address_of(f"{logins.prefix}_shop", "a good one")) as queue:
        assert await queue.enqueue("echo")
    await db.execute(
        ", ".join([f"DROP ROLE {logins.prefix}_shop", *(f"{logins.prefix}_{n}" for n in ("shop_worker", "grafana"))])
    )


async def test_the_printed_sql_does_the_same(ctl: Ctl, logins: Logins, jobs: Jobs, dsn: str, db: DB) -> None:
    for name in roles.names(logins.prefix).values():
        await db.execute(f"DROP OWNED BY {name}")
    printed = (await asyncio.to_thread(ctl, "db", "roles", "--print", "--prefix", logins.prefix)).stdout
    done = psql(dsn, printed)
    assert (done.returncode, "ERROR" in done.stderr) == (0, False), done.stderr
    async with logins.connect("read") as connection:
        assert [name for name, (act, _) in ACTS.items() if await _may(connection, act, jobs)] == [
            name for name, (_, who) in ACTS.items() if "read" in who
        ]


async def test_roles_keep_what_they_may_when_the_schema_changes(
    logins: Logins, db: DB, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop = "DROP VIEW workerd.task_queue"  # which is made again with the functions
    changed = [*migrate.known(), Migration(migrate.latest() + 1, "probe", migrate.parse(drop))]
    monkeypatch.setattr(migrate, "known", lambda: changed)
    assert f"{logins.prefix}_read" in migrate.script(changed[-1:], await roles.granted(db))
    async with logins.connect("work") as connection:
        with pytest.raises(
            SchemaError, match=r"cannot be upgraded by this role: .* .run `workerctl db upgrade` as its owner"
        ):
            await migrate.upgrade(connection)
    await migrate.upgrade(db)
    async with logins.connect("read") as connection:
        assert await connection.fetch("SELECT status FROM workerd.task_queue") == []


async def test_roles_keep_what_they_may_when_a_backup_is_restored_over_an_older_schema(
    logins: Logins, jobs: Jobs, dsn: str, empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = await connect(empty_dsn)
    await migrate.upgrade(source)
    written: list[bytes] = []
    contents = await backup(source, empty_dsn, written.append, None)
    await source.close()
    newer = [*migrate.known(), Migration(migrate.latest() + 1, "probe", migrate.parse("SELECT 1"))]
    monkeypatch.setattr(migrate, "known", lambda: newer)
    target = await connect(dsn)
    async with target.transaction():
        await restore(target, contents, b"".join(written).splitlines(keepends=True), replace=True, ttl=60)
    assert await migrate.current(target) == contents.schema + 1
    await target.close()
    async with logins.connect("read") as connection:
        assert await connection.fetch("SELECT status FROM workerd.task_queue") == []
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("SELECT workerd.enqueue('echo')")


async def test_every_table_is_somebodys(logins: Logins, db: DB) -> None:
    """Who adds a table decides in roles.sql who may do what with it: at least it is read."""
    tables = contents.own_tables() - {"migration", "migration_part", "token"}  # who reads has no business with tokens
    query = "SELECT t FROM unnest($1::text[]) t WHERE NOT has_table_privilege($2, 'workerd.' || t, 'SELECT') ORDER BY t"
    assert [row["t"] for row in await db.fetch(query, sorted(tables), f"{logins.prefix}_read")] == []
