"""`workerctl doctor` and `check`: each fault, planted for real, is the one that is found; where nothing is wrong, nothing is."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncpg
import pytest

from tests.support import ROOT, DaemonProcess, until_state
from workerctl import context
from workerctl.doctor import database, finding
from workerctl.doctor.examine import examine
from workerd import Queue, __version__
from workerd.queue import roles
from workerd.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

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
        database_url=_address(server, name, LOGIN), tasks=("tests.handlers",), queues=("default",), node_name="here",
        heartbeat_interval=0.5, state_dir=home, runtime_dir=home / "run", log_dir=home / "log", retry_delay=0.01,
    )  # fmt: skip
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
        f"ALTER ROLE {LOGIN} SET synchronous_commit = off", f"ALTER ROLE {LOGIN} RESET synchronous_commit",
        ("synchronous_commit", "problem", "loses jobs", f"ALTER ROLE {LOGIN} SET synchronous_commit = on"),
    ),
    "read only": (
        f"ALTER ROLE {LOGIN} SET default_transaction_read_only = on", f"ALTER ROLE {LOGIN} RESET default_transaction_read_only",
        ("writes", "problem", "default_transaction_read_only", f"ALTER ROLE {LOGIN} RESET"),
    ),
    "few connections": (
        f"ALTER ROLE {LOGIN} CONNECTION LIMIT 15", f"ALTER ROLE {LOGIN} CONNECTION LIMIT -1",
        ("connections", "warning", "of 15 are in use (the connection limit of the role)", "DATABASE_POOL_SIZE"),
    ),
    "a missing index": (
        "DROP INDEX workerd.schedule_next", "CREATE INDEX schedule_next ON workerd.schedule (next_at) WHERE paused_at IS NULL",
        ("drift", "problem", "index schedule.schedule_next missing"),
    ),
    "an index of somebody": (
        "CREATE INDEX mine ON workerd.history_day (day DESC)", "DROP INDEX workerd.mine",
        ("drift", "warning", "index history_day.mine", "drop it"),
    ),
    "an invalid index": (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'workerd.schedule_next'::regclass",
        "UPDATE pg_index SET indisvalid = true WHERE indexrelid = 'workerd.schedule_next'::regclass",
        ("indexes", "problem", "schedule_next", "REINDEX INDEX CONCURRENTLY workerd.schedule_next"),
    ),
    "a grant too few": (
        f"REVOKE {_NO_STEPS}", f"GRANT {_NO_STEPS.replace('FROM', 'TO')}",
        ("role", "problem", f"{LOGIN} may not run daemons, it lacks SELECT on workerd.step", "workerctl db roles"),
    ),
    "autovacuum": (
        "ALTER TABLE workerd.key SET (autovacuum_enabled = off)", "ALTER TABLE workerd.key RESET (autovacuum_enabled)",
        ("vacuum", "problem", "autovacuum is off for key", "ALTER TABLE workerd.key RESET (autovacuum_enabled)"),
    ),
    "a dead node": (
        _DEAD, "DELETE FROM workerd.node WHERE id = 7",
        ("nodes", "warning", "web-1 died once within the last hour and is not back", "workerctl nodes forget web-1"),
    ),
    "another version": (
        "UPDATE workerd.node SET version = '0.0.1'", f"UPDATE workerd.node SET version = '{__version__}'",  # noqa: S608 - ours
        ("nodes", "warning", "here 0.0.1", "workerctl reload"),
    ),
    "a paused queue": (
        _ELSEWHERE + "; UPDATE workerd.queue SET paused_at = now() WHERE name = 'elsewhere'",  # noqa: S608 - constants
        "UPDATE workerd.queue SET paused_at = NULL; " + _GONE,  # noqa: S608 - constants
        ("queues", "warning", "elsewhere is paused with 1 job in it", "workerctl queues resume elsewhere"),
    ),
    "a queue that nobody serves": (
        _ELSEWHERE, _GONE,
        ("waiting", "warning", "nobody takes 1 job of echo in the queue elsewhere", "serves this queue", "QUEUES"),
    ),
    "a task that nobody knows": (
        "SELECT workerd.enqueue('unheard_of', '{}', queue => 'default'), workerd.enqueue('unheard_of', '{}', queue => 'default')", _GONE,
        ("waiting", "warning", "2 jobs of unheard_of", "no living node knows this task", "workerctl jobs cancel --task unheard_of"),
    ),
    "a pinned job": (
        "SELECT workerd.enqueue('echo', '{}', pin => 'web-9')", _GONE,
        ("waiting", "warning", "pinned to web-9, which does not live"),
    ),
    "a schedule that cannot be served": (
        _LATE, "DELETE FROM workerd.schedule WHERE name = 'weekly'",
        ("schedules", "problem", "weekly was due 10 min ago", "workerctl logs --errors"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", PLANTED)
async def test_a_fault_in_the_database_is_the_one_that_is_found(
    place: Place, given: Callable[..., None], fault: str
) -> None:
    given(DATABASE_URL=place.dsn)
    plant, mend, (check, level, *words) = PLANTED[fault]
    async with place.as_owner() as db, _statement(db, plant, mend):
        found = await worse()
    _is(found, check, level, *words)
