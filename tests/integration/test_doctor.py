"""`workerctl doctor` and `check`: each fault, planted for real, is the one that is found; where nothing is wrong, nothing is."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg
import pytest

from tests.faults.test_clocks import FAKETIME
from tests.support import ROOT, DaemonProcess, until, until_state
from workerctl import context
from workerctl.doctor import daemon as doctor_daemon
from workerctl.doctor import database, directories, finding, memory, sessions
from workerctl.doctor import examine as examine_module
from workerctl.doctor import fleet as doctor_fleet
from workerctl.doctor.examine import examine
from workerd import Queue, __version__
from workerd.queue import fleet, migrate, roles, tokens
from workerd.queue import server as server_queue
from workerd.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from tests.manager_process import ManagerProcess
    from tests.support import Ctl

    DB = asyncpg.Connection[asyncpg.Record]

PREFIX = f"doctor_{os.getpid()}"
LOGIN = f"{PREFIX}_login"
SECRET = "s3cret"


@dataclass(frozen=True)
class Place:
    """A database with a daemon. `dsn` logs in as the daemon does, with what it needs and no more; `owner` is a superuser's."""

    dsn: str
    owner: str
    settings: Settings

    @asynccontextmanager
    async def as_owner(self) -> AsyncIterator[DB]:
        connection = await asyncpg.connect(self.owner)
        try:
            yield connection
        finally:
            await connection.close()


def _address(dsn: str, name: str, login: str | None = None, password: str = SECRET) -> str:
    head, mark, query = dsn.partition("?")
    scheme, _, rest = head.partition("://")
    host = rest.rpartition("/")[0].rpartition("@")[2]
    user = f"{login}:{password}@" if login else f"{rest.rpartition('@')[0]}@"
    return f"{scheme}://{user}{host}/{name}{mark}{query}"


@pytest.fixture(scope="module")
def granted(server: str, template: str) -> Iterator[str]:
    """A copy of the template in which a login may do what daemons need."""
    name = f"{PREFIX}_template"

    async def make() -> None:
        connection = await asyncpg.connect(server)
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        await connection.close()
        connection = await asyncpg.connect(_address(server, name))
        await roles.create(connection, PREFIX)
        await connection.execute(
            f"CREATE ROLE {LOGIN} LOGIN PASSWORD '{SECRET}' IN ROLE {PREFIX}_work, {PREFIX}_operate, pg_read_all_stats"
        )
        await connection.close()

    async def remove() -> None:
        connection = await asyncpg.connect(server)
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await connection.execute(f"DROP ROLE {', '.join([LOGIN, *roles.names(PREFIX).values()])}")
        await connection.close()

    asyncio.run(make())
    yield name
    asyncio.run(remove())


@pytest.fixture(scope="module")
def place(server: str, granted: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """With a daemon at work, as most tests need one: they leave everything as it was."""
    name, home = f"{PREFIX}_place", tmp_path_factory.mktemp("doctor")

    async def execute(*statements: str) -> None:
        connection = await asyncpg.connect(server)
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    asyncio.run(execute(f"CREATE DATABASE {name} TEMPLATE {granted}"))
    settings = Settings(
        database_url=_address(server, name, LOGIN),
        tasks=("tests.handlers",),
        queues=("default",),
        node_name="here",
        heartbeat_interval=0.5,
        state_dir=home,
        runtime_dir=home / "run",
        log_dir=home / "log",
        retry_delay=0.01,
    )
    with DaemonProcess(settings) as daemon:
        daemon.start()
        assert settings.database_url is not None
        yield Place(settings.database_url, _address(server, name), settings)
    asyncio.run(execute(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Sets the settings of which the command is told."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(context, "_flags", {})
    for module, limit in ((directories, "LITTLE"), (directories, "NOTHING"), (memory, "LITTLE")):
        monkeypatch.setattr(module, limit, 0)  # however little this host has
    for name in ("STATE_DIR", "RUNTIME_DIR", "LOG_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("TASKS", "tests.handlers")
    monkeypatch.setenv("APP_DIR", str(ROOT))

    def give(**settings: str) -> None:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)

    return give


@pytest.fixture
async def lonely(server: str, granted: str) -> AsyncIterator[Place]:
    """A database without a daemon."""
    name = f"{PREFIX}_lonely"
    connection = await asyncpg.connect(server)
    await connection.execute(f"CREATE DATABASE {name} TEMPLATE {granted}")
    yield Place(_address(server, name, LOGIN), _address(server, name), Settings())
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


async def worse(*, thorough: bool = True) -> list[finding.Finding]:
    """What is not in order."""
    return [each for each in await examine(thorough=thorough) if each.level != "ok"]


def _is(found: list[finding.Finding], check: str, level: str, *words: str) -> None:
    """That one alone, with these words in it."""
    assert [(each.check, each.level) for each in found] == [(check, level)], found
    told = f"{found[0].found} {found[0].advice}"
    assert all(word in told for word in words), told
    assert found[0].advice
    assert "\n" not in told


# --- nothing is wrong


async def test_nothing_is_found_where_a_daemon_works_that_has_what_it_needs(
    place: Place, given: Callable[..., None]
) -> None:
    given(DATABASE_URL=place.dsn)
    async with Queue.connect(place.dsn) as queue, place.as_owner() as db:
        jobs = [await queue.enqueue("echo", {"value": n}) for n in range(20)]
        running = await queue.enqueue("nap", {"seconds": 0.5})
        later = await queue.enqueue("echo", delay="1h")
        await until_state(db, running, "running")
        found = await examine(thorough=True)
        for job in jobs:
            await until_state(db, job, "succeeded")
        await queue.cancel(later)
    assert [each for each in found if each.level != "ok"] == []
    names = {
        *database.FIRST,
        *database.SERVER,
        *database.SCHEMA,
        *database.QUEUE,
        "settings",
        "STATE_DIR",
        "disk",
        "memory",
        "tasks",
    }
    assert names <= {each.check for each in found}


# --- planted in the database, beside a daemon that works


@asynccontextmanager
async def _statement(db: DB, plant: str, mend: str) -> AsyncIterator[None]:
    await db.execute(plant)
    try:
        yield
    finally:
        await db.execute(mend)


_DEAD = """INSERT INTO workerd.node (id, name, pid, version, locked, tasks, queues, workers, dead_at)
    VALUES (7, 'web-1', 1, '1', false, '{echo}', '{}', 1, now())"""
_LATE = """INSERT INTO workerd.schedule (name, task, payload, kind, rule, tz, catch_up, next_at)
    VALUES ('weekly', 'echo', '{}', 'cron', 'no rule', 'UTC', 'last', now() - interval '10 min')"""
_ELSEWHERE = "SELECT workerd.enqueue('echo', '{}', queue => 'elsewhere')"  # which the daemon does not serve
_NO_STEPS = f"SELECT ON workerd.step FROM {PREFIX}_work, {PREFIX}_read"  # noqa: S608 - constants
_GONE = "DELETE FROM workerd.ready WHERE task = 'echo' OR task = 'unheard_of'"
PLANTED = {
    "synchronous_commit": (
        f"ALTER ROLE {LOGIN} SET synchronous_commit = off",
        f"ALTER ROLE {LOGIN} RESET synchronous_commit",
        ("synchronous_commit", "problem", "loses jobs", f"ALTER ROLE {LOGIN} SET synchronous_commit = on"),
    ),
    "read only": (
        f"ALTER ROLE {LOGIN} SET default_transaction_read_only = on",
        f"ALTER ROLE {LOGIN} RESET default_transaction_read_only",
        ("writes", "problem", "default_transaction_read_only", f"ALTER ROLE {LOGIN} RESET"),
    ),
    "few connections": (
        f"ALTER ROLE {LOGIN} CONNECTION LIMIT 15",
        f"ALTER ROLE {LOGIN} CONNECTION LIMIT -1",
        ("connections", "warning", "of 15 are in use (the connection limit of the role)", "DATABASE_POOL_SIZE"),
    ),
    "a missing index": (
        "DROP INDEX workerd.schedule_next",
        "CREATE INDEX schedule_next ON workerd.schedule (next_at) WHERE paused_at IS NULL",
        (
            "drift",
            "problem",
            "index schedule.schedule_next missing",
            "CREATE INDEX CONCURRENTLY schedule_next ON workerd.schedule",
        ),
    ),
    "settings of a table": (
        "ALTER TABLE workerd.lease SET (fillfactor = 90)",
        "ALTER TABLE workerd.lease SET (fillfactor = 60)",
        ("drift", "warning", "table lease", "ALTER TABLE workerd.lease SET (", "fillfactor=60"),
    ),
    "an index of somebody": (
        "CREATE INDEX mine ON workerd.history_day (day DESC)",
        "DROP INDEX workerd.mine",
        ("drift", "warning", "index history_day.mine", "drop it"),
    ),
    "an invalid index": (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'workerd.schedule_next'::regclass",
        "UPDATE pg_index SET indisvalid = true WHERE indexrelid = 'workerd.schedule_next'::regclass",
        ("indexes", "problem", "schedule_next", "REINDEX INDEX CONCURRENTLY workerd.schedule_next"),
    ),
    "a grant too few": (
        f"REVOKE {_NO_STEPS}",
        f"GRANT {_NO_STEPS.replace('FROM', 'TO')}",
        ("role", "problem", f"{LOGIN} may not run daemons, it lacks SELECT on workerd.step", "workerctl db roles"),
    ),
    "autovacuum": (
        "ALTER TABLE workerd.key SET (autovacuum_enabled = off)",
        "ALTER TABLE workerd.key RESET (autovacuum_enabled)",
        ("vacuum", "problem", "autovacuum is off for key", "ALTER TABLE workerd.key RESET (autovacuum_enabled)"),
    ),
    "a dead node": (
        _DEAD,
        "DELETE FROM workerd.node WHERE id = 7",
        ("nodes", "warning", "web-1 died once within the last hour and is not back", "workerctl nodes forget web-1"),
    ),
    "another version": (
        "UPDATE workerd.node SET version = '0.0.1'",
        f"UPDATE workerd.node SET version = '{__version__}'",  # noqa: S608 - ours
        ("nodes", "warning", "here 0.0.1", "workerctl reload"),
    ),
    "a paused queue": (
        _ELSEWHERE + "; UPDATE workerd.queue SET paused_at = now() WHERE name = 'elsewhere'",  # noqa: S608 - constants
        "UPDATE workerd.queue SET paused_at = NULL; " + _GONE,  # noqa: S608 - constants
        ("queues", "warning", "elsewhere is paused with 1 job in it", "workerctl queues resume elsewhere"),
    ),
    "a queue that nobody serves": (
        _ELSEWHERE,
        _GONE,
        ("waiting", "warning", "nobody takes 1 job of echo in the queue elsewhere", "serves this queue", "QUEUES"),
    ),
    "a task that nobody knows": (
        "SELECT workerd.enqueue('unheard_of', '{}', queue => 'default'), workerd.enqueue('unheard_of', '{}', queue => 'default')",
        _GONE,
        (
            "waiting",
            "warning",
            "2 jobs of unheard_of",
            "no living node knows this task",
            "workerctl jobs cancel --task unheard_of",
        ),
    ),
    "a pinned job": (
        "SELECT workerd.enqueue('echo', '{}', pin => 'web-9')",
        _GONE,
        ("waiting", "warning", "pinned to web-9, which does not live"),
    ),
    "a schedule that cannot be served": (
        _LATE,
        "DELETE FROM workerd.schedule WHERE name = 'weekly'",
        ("schedules", "problem", "weekly was due 10 min ago", "workerctl logs --errors"),
    ),
}


@pytest.mark.parametrize("fault", PLANTED)
async def test_a_fault_in_the_database_is_the_one_that_is_found(
    place: Place, given: Callable[..., None], fault: str
) -> None:
    given(DATABASE_URL=place.dsn)
    plant, mend, (check, level, *words) = PLANTED[fault]
    async with place.as_owner() as db, _statement(db, plant, mend):
        found = await worse()
    _is(found, check, level, *words)


# --- what sessions do


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is half a second old is old."""
    monkeypatch.setattr(sessions, "OLD", 0.5)


@pytest.mark.usefixtures("impatient")
async def test_a_transaction_that_is_left_open_is_found_with_what_ends_it(
    place: Place, given: Callable[..., None]
) -> None:
    given(DATABASE_URL=place.dsn)
    async with place.as_owner() as other:
        await other.execute("SET application_name = 'report'; BEGIN; SELECT pg_sleep(0.6)")
        found = await worse()
        _is(found, "transactions", "warning", f"report (PID {other.get_server_pid()}, idle in transaction) for 1 s")
        async with place.as_owner() as db:
            await db.execute(found[0].advice.partition(", or ")[2])
        assert await worse() == []
        other.terminate()


async def test_dead_rows_that_pile_up_are_found(
    place: Place, given: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    given(DATABASE_URL=place.dsn)
    monkeypatch.setattr(sessions, "DEAD", 1000)
    async with place.as_owner() as db, place.as_owner() as holder:
        await holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM workerd.key")
        await db.execute(
            "INSERT INTO workerd.key (key, id) SELECT g, g FROM generate_series(1, 2000) g; DELETE FROM workerd.key"
        )
        await db.execute("SELECT pg_stat_force_next_flush()")
        try:
            _is(await worse(), "vacuum", "warning", "key has 2,000 dead rows beside 0 live ones", "VACUUM workerd.key")
        finally:
            await holder.execute("ROLLBACK")
            await db.execute("VACUUM workerd.key")
    assert await worse() == []


async def test_a_table_that_somebody_locks_is_told_of_and_holds_nobody_up(
    place: Place, given: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    given(DATABASE_URL=place.dsn)
    monkeypatch.setattr(database, "PATIENCE", 1.0)
    async with place.as_owner() as other, other.transaction():
        await other.execute("LOCK TABLE workerd.schedule IN ACCESS EXCLUSIVE MODE")
        found = await worse()
    assert [each.check for each in found] == ["drift", "leader"]
    assert {each.found for each in found} == {"it could not be examined within 1 s"}


# --- what jobs and nodes do


async def test_a_task_that_fails_is_found_with_what_it_says(place: Place, given: Callable[..., None]) -> None:
    given(DATABASE_URL=place.dsn)
    async with Queue.connect(place.dsn) as queue, place.as_owner() as db:
        jobs = [await queue.enqueue("failing", {"number": n}, max_retries=0) for n in range(6)]

        async def counted() -> bool:
            return bool(await db.fetchval("SELECT sum(failed) = $1 FROM workerd.tally", len(jobs)))

        await until(counted, "the failures are counted")
        found = await worse()
        _is(found, "errors", "warning", "6 of 6 attempts of failing failed within the last hour", "6 alike", "order")
        await db.execute("DELETE FROM workerd.history; DELETE FROM workerd.tally")
    assert await worse() == []


async def test_a_node_that_was_killed_is_found_until_it_is_forgotten(place: Place, given: Callable[..., None]) -> None:
    given(DATABASE_URL=place.dsn)
    home = place.settings.runtime_dir / "victim"
    settings = place.settings.model_copy(
        update={"node_name": "victim", "name": "victim", "runtime_dir": home, "log_dir": home}
    )
    async with place.as_owner() as db:
        with DaemonProcess(settings) as victim:
            victim.start()
            victim.kill()

        async def is_dead() -> bool:
            return bool(await db.fetchval("SELECT dead_at IS NOT NULL FROM workerd.node WHERE name = 'victim'"))

        await until(is_dead, "its death is seen")
        _is(await worse(), "nodes", "warning", "victim died once", "is not back", "workerctl nodes forget victim")
        await fleet.forget(db, "victim")
    assert await worse() == []


async def test_jobs_without_any_node_are_a_problem(lonely: Place, given: Callable[..., None]) -> None:
    given(DATABASE_URL=lonely.dsn)
    _is(await worse(), "nodes", "warning", "no node lives", "workerctl start")
    async with lonely.as_owner() as db:
        await db.execute("SELECT workerd.enqueue('echo', '{}')")
        _is(await worse(), "nodes", "problem", "no node lives, which holds up 1 unfinished job")
        await db.execute("DELETE FROM workerd.ready")
        await db.execute(_LATE)
        _is(await worse(), "nodes", "problem", "the schedule weekly, due for 10 min")


async def test_nodes_that_nobody_leads_are_a_problem(
    lonely: Place, given: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    given(DATABASE_URL=lonely.dsn)
    monkeypatch.setattr(doctor_fleet, "ELECTION", 0.1)
    async with lonely.as_owner() as db:
        await db.execute(
            f"""INSERT INTO workerd.node (id, name, pid, version, locked, tasks, queues, workers)
            VALUES (7, 'web-1', 1, '{__version__}', true, '{{echo}}', '{{}}', 1)"""  # noqa: S608 - ours
        )
        _is(await worse(), "leader", "problem", "no node leads")
        await db.execute("SELECT pg_try_advisory_lock('workerd.node'::regclass::oid::int, 0)")
        assert await worse() == []
        await db.execute(
            "UPDATE workerd.node SET beat = now() - interval '1 hour'"
        )  # it was killed, and nobody is left to say so
        _is(await worse(), "nodes", "warning", "no node lives")


# --- the schema and the role


async def test_a_schema_of_another_version_is_the_only_finding(lonely: Place, given: Callable[..., None]) -> None:
    given(DATABASE_URL=lonely.dsn)
    async with lonely.as_owner() as db:
        await db.execute("INSERT INTO workerd.migration (version, name) VALUES (9999, 'newer')")
        _is(await worse(), "schema", "problem", "it has version 9999", "upgrade workerd")
        await db.execute("DELETE FROM workerd.migration WHERE version > $1", migrate.latest())
        await db.execute("UPDATE workerd.repeatable SET digest = 'other'")
        _is(await worse(), "schema", "problem", f"needs {migrate.latest()}: functions", "workerctl db upgrade")
        _is(await worse(thorough=False), "schema", "problem", "workerctl db upgrade")
        await db.execute("UPDATE workerd.migration SET version = 20")
        _is(await worse(), "schema", "problem", "version 20, from before the first release", "DROP SCHEMA")


async def test_a_database_without_the_schema_is_the_only_finding(empty_dsn: str, given: Callable[..., None]) -> None:
    given(DATABASE_URL=empty_dsn)
    _is(await worse(), "schema", "warning", "there is none yet", "workerctl db upgrade")


async def test_an_embedded_database_that_is_not_made_yet_is_neither_made_nor_missed(
    tmp_path: Path, given: Callable[..., None]
) -> None:
    given(DATABASE_URL="", STATE_DIR=str(tmp_path / "state"))
    assert await worse() == await worse(thorough=False) == []
    assert not (tmp_path / "state").exists()


async def test_a_role_that_may_not_even_look_is_the_only_finding(place: Place, given: Callable[..., None]) -> None:
    async with place.as_owner() as db:
        await db.execute(f"CREATE ROLE {PREFIX}_stranger LOGIN PASSWORD '{SECRET}' IN ROLE pg_read_all_stats")
        try:
            given(DATABASE_URL=place.dsn.replace(LOGIN, f"{PREFIX}_stranger"))
            _is(await worse(), "role", "problem", "may not use the schema", f"GRANT workerd_work TO {PREFIX}_stranger")
            await db.execute(f"GRANT {PREFIX}_enqueue TO {PREFIX}_stranger")
            _is(await worse(), "role", "problem", "it lacks", "workerd.awaited", "more")
        finally:
            await db.execute(f"DROP ROLE {PREFIX}_stranger")


async def test_the_daemon_of_this_host_is_asked(
    place: Place, given: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    given(DATABASE_URL=place.dsn, RUNTIME_DIR=str(place.settings.runtime_dir))
    (told,) = [each for each in await examine(thorough=True) if each.check == "daemon"]
    assert (told.level, "running, PID " in told.found) == ("ok", True)
    monkeypatch.setattr(doctor_daemon, "PATIENCE", 0.3)
    pid = int(told.found.partition("PID ")[2].partition(",")[0])
    os.kill(pid, signal.SIGSTOP)
    try:
        found = doctor_daemon.daemon(place.settings)
    finally:
        os.kill(pid, signal.SIGCONT)
    _is(found, "daemon", "problem", "does not answer", "SIGUSR1")


async def test_a_superuser_is_more_than_a_daemon_needs(place: Place, given: Callable[..., None]) -> None:
    given(DATABASE_URL=place.owner)
    _is(await worse(), "role", "warning", "is a superuser", "workerctl db roles")


# --- the way to the database


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("postgresql://nobody@127.0.0.1:1/app", ("cannot be reached", "is DATABASE_URL right?")),
        ("postgresql://u:p@ss@127.0.0.1/app/x?port=no", ("DATABASE_URL",)),
    ],
)
async def test_a_database_that_is_not_there_is_the_only_finding(
    given: Callable[..., None], address: str, words: tuple[str, ...]
) -> None:
    given(DATABASE_URL=address)
    _is(await worse(), "database", "problem", *words)
    _is(await worse(thorough=False), "database", "problem", *words)


async def test_a_login_that_is_refused_and_a_wrong_name_are_told_apart(
    place: Place, given: Callable[..., None]
) -> None:
    given(DATABASE_URL=place.dsn.replace(LOGIN, "stranger"))
    _is(await worse(), "database", "problem", "refused the login", "check user and password")
    given(DATABASE_URL=place.dsn.replace("_place", "_nowhere"))
    _is(await worse(), "database", "problem", "has no such database", "create it")


async def test_a_role_that_has_no_connection_left_is_told_so(place: Place, given: Callable[..., None]) -> None:
    given(DATABASE_URL=place.dsn)
    limited = f"ALTER ROLE {LOGIN} CONNECTION LIMIT"
    async with place.as_owner() as db, _statement(db, f"{limited} 1", f"{limited} -1"):
        _is(await worse(), "connections", "problem", "too many connections for role", "raise the limit")


async def test_two_addresses_that_lead_to_two_databases_are_found(
    place: Place, lonely: Place, given: Callable[..., None]
) -> None:
    given(DATABASE_URL=lonely.dsn, DATABASE_DIRECT_URL=place.dsn)
    _is(await worse(), "pooler", "problem", "lead to two databases")


async def test_a_notification_that_does_not_come_is_told(place: Place, lonely: Place) -> None:
    async with place.as_owner() as listening, place.as_owner() as same, lonely.as_owner() as other:
        took = await server_queue.notify_round_trip(listening, same, 5.0)
        assert took is not None
        assert 0 < took < 5.0
        assert await server_queue.notify_round_trip(listening, other, 0.2) is None


# --- this host


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"LOG_DIR": "/proc/nowhere"}, ("LOG_DIR", "problem", "/proc/nowhere is not writable", "set LOG_DIR")),
        ({"LOG_FILE": "/proc/nowhere/x.log"}, ("LOG_FILE", "problem", "/proc/nowhere is not writable")),
        ({"TASKS": "no.such.module"}, ("tasks", "problem", "no module no.such.module", "APP_DIR")),
        ({"MAX_MEMORY": "100000G"}, ("memory", "warning", "killed before it hands over", "set MAX_MEMORY")),
        (
            {"TASKS": "tests.handlers,invoices", "OPENAI_API_KEY": "sk-one sk-two"},
            ("assistant", "problem", "OPENAI_API_KEY has blanks"),
        ),
        (
            {"TASKS": "tests.handlers,invoices", "SMTP_URL": "mail.example:25"},
            ("assistant", "problem", "SMTP_URL is no address", "smtp://"),
        ),
    ],
)
async def test_a_fault_of_this_host_is_the_one_that_is_found(
    place: Place, given: Callable[..., None], settings: dict[str, str], expected: tuple[str, ...]
) -> None:
    given(DATABASE_URL=place.dsn, **settings)
    check, level, *words = expected
    _is(await worse(), check, level, *words)


async def test_a_module_that_cannot_be_imported_is_told_with_its_reason(
    place: Place, given: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "shop_tasks.py").write_text("import not_there_at_all\n")
    given(DATABASE_URL=place.dsn, APP_DIR=str(tmp_path), TASKS="shop_tasks")
    _is(await worse(), "tasks", "problem", "shop_tasks needs the module not_there_at_all, which is not installed")


async def test_a_check_that_fails_itself_is_a_finding(
    place: Place, given: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    given(DATABASE_URL=place.dsn)
    monkeypatch.setitem(examine_module.FOR_WORK, "memory", lambda _: [][0])
    monkeypatch.setitem(database.QUEUE, "queues", lambda _: [][0])
    found = await worse()
    assert [(each.check, each.found) for each in found] == [
        (name, "it could not be examined: IndexError: list index out of range") for name in ("memory", "queues")
    ]


async def test_all_wrong_settings_are_found_at_once_and_alone(given: Callable[..., None]) -> None:
    given(WORKERS="many", LOG_LEVEL="LOUD", DATABASE_URL="postgresql://127.0.0.1:1/x")
    found = await worse()
    assert [(each.check, each.level) for each in found] == [("settings", "problem")] * 2
    assert {"WORKERS='many'", "LOG_LEVEL='LOUD'"} == {each.found.partition(":")[0] for each in found}


async def test_what_looks_like_a_setting_misspelt_is_a_warning(
    place: Place, given: Callable[..., None], tmp_path: Path
) -> None:
    given(DATABASE_URL=place.dsn)
    (tmp_path / ".env").write_text("MAX_RETRYS=4\nDJANGO_KEY=x\n")
    _is(await worse(), "settings", "warning", "did you mean MAX_RETRIES?")


# --- a node without a database


async def test_a_manager_is_asked_in_place_of_the_database(
    manager: ManagerProcess, db: DB, given: Callable[..., None]
) -> None:
    work, read = [await tokens.create(db, scope, [scope]) for scope in ("work", "read")]
    given(MANAGER_URL=manager.url)
    _is(await worse(), "manager", "problem", "API_TOKEN is missing", "workerctl tokens create --scope work")
    given(API_TOKEN=read)
    _is(await worse(), "manager", "problem", "lacks the scope work")
    given(API_TOKEN="wrong")
    _is(await worse(thorough=False), "manager", "problem", "not valid")
    given(API_TOKEN=work)
    found = await examine(thorough=True)
    assert [each for each in found if each.level != "ok"] == []
    assert "database" not in {each.check for each in found}
    given(MANAGER_URL="http://127.0.0.1:1")
    _is(await worse(), "manager", "problem", "cannot be reached", "workerctl manager")


# --- the commands


def test_commands_show_the_worst_last_and_exit_by_problems_alone(place: Place, ctl: Ctl) -> None:
    done = ctl("doctor", DATABASE_URL=place.dsn)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("all is well\n")
    (ctl.directory / ".env").write_text("MAX_RETRYS=4\n")
    done = ctl("doctor", DATABASE_URL=place.dsn)
    assert done.returncode == 0
    *_, warned, advised, count = done.stdout.splitlines()
    assert warned.split()[:2] == ["warning", "settings"]
    assert advised.strip() == "→ correct it, or remove it"
    assert count == "1 warning"
    done = ctl("doctor", "--json", DATABASE_URL=place.dsn, LOG_DIR="/proc/nowhere")
    assert done.returncode == 1
    told = {each["check"]: each for each in json.loads(done.stdout)}
    assert told["LOG_DIR"] == {
        "check": "LOG_DIR",
        "ok": False,
        "level": "problem",
        "found": "/proc/nowhere is not writable",
        "advice": "set LOG_DIR to another directory",
        "problem": "/proc/nowhere is not writable; set LOG_DIR to another directory",
    }
    assert told["settings"]["ok"] is True
    assert told["settings"]["problem"] is None


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed (Debian: faketime)")
def test_a_clock_that_is_off_is_found(place: Place, ctl: Ctl) -> None:
    faked = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": "+90s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    done = ctl("doctor", "--json", DATABASE_URL=place.dsn, **faked)
    found = [each for each in json.loads(done.stdout) if each["level"] != "ok"]
    assert [each["check"] for each in found] == ["clock"]
    assert found[0]["found"].startswith("this host is 90.")
