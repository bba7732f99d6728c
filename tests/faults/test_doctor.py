"""`workerctl doctor` on servers that have what only servers of their own can: standbys, poolers, slots, two-phase commits, a freeze."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
import pytest

from tests.faults.cluster import Cluster, Proxy
from tests.support import LIMIT, ROOT, DaemonProcess
from workerctl import context
from workerctl.doctor import database, directories, ground, memory, sessions
from workerctl.doctor.examine import examine
from workerd.queue import migrate, roles
from workerd.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from workerctl.doctor.finding import Finding
    from workerctl.doctor.ground import Ground

SAFE = (
    "-c",
    "fsync=on",
    "-c",
    "synchronous_commit=on",
    "-c",
    "full_page_writes=on",
    "-c",
    "max_prepared_transactions=2",
)
LOGIN = "shop_worker"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A primary with a daemon, a standby and a pooler; tests leave them as they were."""
    home = tmp_path_factory.mktemp("doctor")

    async def prepare(dsn: str) -> None:
        connection = await asyncpg.connect(dsn)
        await migrate.upgrade(connection)
        await roles.create(connection, "workerd")
        await connection.execute(f"CREATE ROLE {LOGIN} LOGIN IN ROLE workerd_work, pg_read_all_stats")
        await connection.close()

    with Cluster("--standby", "--bouncer", *SAFE) as made:
        asyncio.run(prepare(made.url[""]))
        settings = Settings(
            database_url=_as_worker(made.url[""]),
            tasks=("tests.handlers",),
            node_name="here",
            heartbeat_interval=0.5,
            state_dir=home,
            runtime_dir=home / "run",
            log_dir=home / "log",
        )
        with DaemonProcess(settings) as daemon:
            daemon.start()
            yield made


def _as_worker(dsn: str) -> str:
    return dsn.replace("postgres@", f"{LOGIN}@")


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cluster: Cluster) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(context, "_flags", {})
    for module, limit in ((directories, "LITTLE"), (directories, "NOTHING"), (memory, "LITTLE")):
        monkeypatch.setattr(module, limit, 0)  # however little this host has
    for name in ("STATE_DIR", "RUNTIME_DIR", "LOG_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("TASKS", "tests.handlers")
    monkeypatch.setenv("APP_DIR", str(ROOT))
    monkeypatch.setenv("DATABASE_URL", _as_worker(cluster.url[""]))


async def worse() -> list[Finding]:
    """What is not in order."""
    return [each for each in await examine(thorough=True) if each.level != "ok"]


def _is(found: list[Finding], check: str, level: str, *words: str) -> None:
    assert [(each.check, each.level) for each in found] == [(check, level)], found
    told = f"{found[0].found} {found[0].advice}"
    assert all(word in told for word in words), told


async def test_nothing_is_found_on_servers_that_are_in_order(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await worse() == []
    monkeypatch.setenv("DATABASE_DIRECT_URL", _as_worker(cluster.url[""]))
    monkeypatch.setenv("DATABASE_URL", _as_worker(cluster.url["BOUNCER"]))
    found = {each.check: each for each in await examine(thorough=True)}
    assert [each for each in found.values() if each.level != "ok"] == []
    assert "past it" in found["pooler"].found
    assert found["notify"].found.endswith(" ms")


async def test_a_pooler_without_a_way_past_it_is_found(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", _as_worker(cluster.url["BOUNCER"]))
    _is(await worse(), "pooler", "problem", "a pooler stands before the database", "DATABASE_DIRECT_URL")


async def test_a_pooler_that_is_away_is_found(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_DIRECT_URL", _as_worker(cluster.url[""]))
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/postgres")
    _is(await worse(), "pooler", "problem", "cannot be reached", "the pooler runs there")


async def test_a_standby_is_found(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", _as_worker(cluster.url["STANDBY"]))
    _is(await worse(), "writes", "problem", "is a standby", "the primary")


async def test_a_slot_that_nobody_reads_is_found(cluster: Cluster) -> None:
    connection = await asyncpg.connect(cluster.url[""])
    await connection.execute("SELECT pg_create_physical_replication_slot('left_behind', true)")
    try:
        _is(await worse(), "slots", "warning", "left_behind", "MB of WAL", "pg_drop_replication_slot('left_behind')")
    finally:
        await connection.execute("SELECT pg_drop_replication_slot('left_behind')")
        await connection.close()


async def test_a_prepared_transaction_is_found(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "OLD", 0.0)
    monkeypatch.setitem(database.SERVER, "transactions", _nothing)  # for which everything is old now
    connection = await asyncpg.connect(cluster.url[""])
    await connection.execute("BEGIN; CREATE TABLE half (done int); PREPARE TRANSACTION 'order 7'")
    try:
        _is(await worse(), "prepared", "warning", "'order 7' of postgres", "ROLLBACK PREPARED 'order 7'")
    finally:
        await connection.execute("ROLLBACK PREPARED 'order 7'")
        await connection.close()


async def _nothing(_: Ground) -> list[Finding]:
    return []


async def test_a_server_that_may_lose_what_it_has_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with Cluster() as unsafe:
        monkeypatch.setenv("DATABASE_URL", unsafe.url[""])
        found = {each.check: each for each in await worse()}
    assert found.keys() == {"fsync", "synchronous_commit", "schema"}
    assert "destroys the database" in found["fsync"].found
    assert "SET synchronous_commit = on" in found["synchronous_commit"].advice


async def test_a_server_that_stops_answering_ends_the_list(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (ground, database):
        monkeypatch.setattr(module, "PATIENCE", 1.0)
    async with Proxy(cluster.address) as proxy:
        monkeypatch.setenv("DATABASE_URL", proxy.before(_as_worker(cluster.url[""])))

        async def hang(_: Ground) -> list[Finding]:
            await proxy.say("hang")
            return []

        monkeypatch.setitem(database.SERVER, "writes", hang)
        found = await worse()
        _is(found, "database", "problem", "did not answer in time")


async def test_a_frozen_server_holds_nobody_up(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ground, "PATIENCE", 0.5)
    cluster.freeze()
    try:
        async with asyncio.timeout(LIMIT):
            found = await worse()
    finally:
        cluster.verb("thaw")
    _is(found, "database", "problem", "did not answer in time")
