"""Trouble with the database: daemons wait, say so, and go on; no job is charged, nothing is lost or ended twice."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

from tests.faults.balance import Books
from tests.faults.cluster import Cluster, Proxy, Relay
from tests.faults.fleet import ask, run_to_its_end
from tests.support import LIMIT, ROOT, DaemonProcess, until
from workerd import Queue
from workerd.queue import migrate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

# Seconds from the return of the database until jobs end again. What is promised are 5 s: with the pauses that a daemon makes, which its log
# tells, that leaves 2.5 s for its work. What is wrong takes longer than this: until keepalives or a limit of 60 s end a connection, say.
RESUMED = 24.0
PAUSE_MOST = 2.0  # seconds between two tries to connect
JOBS = 400
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")  # of a certificate
END_SESSIONS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'worker %' AND application_name <> 'worker client'
"""
PATIENT = {"heartbeat_interval": 5.0, "retry_delay": 0.01}


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[tuple[DB, Queue, Books]]:
    """A database of its own server with the schema: for an observer, and to enqueue into."""
    db = await asyncpg.connect(dsn)
    await migrate.upgrade(db)
    async with Queue.connect(dsn) as queue:
        yield db, queue, await Books.open(db)
    await db.close()


def on(settings: Settings, dsn: str, **changes: Any) -> Settings:
    return settings.model_copy(update={"database_url": dsn, **PATIENT, **changes})


async def in_state(daemon: DaemonProcess, *states: str) -> dict[str, Any]:
    """Wait until `status` shows the database in one of the states."""

    async def look() -> Any:
        database = (await ask(daemon))["database"]
        return database if database["state"] in states else None

    found: dict[str, Any] = await until(look, f"status shows {states}")
    return found


async def resumed(db: DB) -> None:
    """Returns when a further job has ended."""
    before = await db.fetchval("SELECT count(*) FROM workerd.history")
    await until(lambda: db.fetchval("SELECT count(*) > $1 FROM workerd.history", before), "jobs end again", RESUMED)


def pauses(daemon: DaemonProcess) -> list[float]:
    """Seconds for which the daemon has waited between two tries, as its log tells."""
    return [float(each) for each in re.findall(r"; again in (\d+\.\d) s", daemon.settings.log_path.read_text())]


async def uncharged(db: DB) -> bool:
    """Whether no job needed a second attempt."""
    worst: int = await db.fetchval("SELECT max(attempt) FROM workerd.history")
    return worst == 1


async def test_sessions_ended_twenty_times_a_second_cost_no_job_an_attempt(
    settings: Settings, queue: Queue, db: DB, books: Books
) -> None:
    cut = """
        SELECT count(pg_terminate_backend(pid)) FROM (
            SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'worker %'
                AND application_name <> 'worker client' ORDER BY random() LIMIT 1) AS one
    """
    with DaemonProcess(on(settings, str(settings.database_url))) as daemon:
        daemon.start()
        await queue.enqueue_many("nap", [{"seconds": 0.05}] * JOBS)
        cuts = 0
        while cuts < 50:
            cuts += await db.fetchval(cut)
            await asyncio.sleep(0.05)  # the rate that is promised
        assert await books.close(daemon) == []
    assert await uncharged(db)


async def test_a_server_that_crashes_and_returns_costs_no_job_an_attempt(settings: Settings) -> None:
    with Cluster("-c", "synchronous_commit=on") as cluster:
        async with opened(cluster.url[""]) as (first, queue, _):
            with DaemonProcess(on(settings, cluster.url[""]), WATCHDOG_USEC="1000000") as daemon:
                daemon.start()
                await queue.enqueue_many("nap", [{"seconds": 0.05}] * JOBS)
                await resumed(first)
                cluster.verb("kill")
                down = await in_state(daemon, "reconnecting")
                assert "cannot be reached" in down["reason"]
                assert (await ask(daemon, "health"))["live"]
                for words in ("database reconnecting since ", "WATCHDOG=1"):
                    await asyncio.to_thread(daemon.hear, words)
                await asyncio.sleep(3)  # the length of the outage
                cluster.verb("start")
                db = await asyncpg.connect(cluster.url[""])
                await resumed(db)
                assert 0 < max(pauses(daemon)) <= PAUSE_MOST
                assert await Books(db).close(daemon) == []
            assert await uncharged(db)
            await db.close()


async def test_a_frozen_server_is_waited_for(settings: Settings) -> None:
    with Cluster() as cluster:
        async with opened(cluster.url[""]) as (db, queue, books):
            with DaemonProcess(on(settings, cluster.url[""])) as daemon:
                daemon.start()
                await queue.enqueue_many("nap", [{"seconds": 0.05}] * JOBS)
                await resumed(db)
                cluster.freeze()
                await in_state(daemon, "reconnecting")
                cluster.verb("thaw")
                await resumed(db)
                assert max(pauses(daemon), default=0.0) <= PAUSE_MOST
                assert await books.close(daemon) == []
            assert await uncharged(db)


async def test_a_database_that_takes_no_writes_for_a_while_is_waited_for(
    settings: Settings, queue: Queue, db: DB, books: Books
) -> None:
    with DaemonProcess(on(settings, str(settings.database_url))) as daemon:
        daemon.start()
        await queue.enqueue_many("nap", [{"seconds": 0.05}] * JOBS)
        await resumed(db)
        await db.execute(
            f"ALTER DATABASE {await db.fetchval('SELECT current_database()')} SET default_transaction_read_only = on"
        )
        await db.execute(END_SESSIONS)
        reason = (await in_state(daemon, "read-only"))["reason"]
        assert "default_transaction_read_only is on" in reason
        await db.execute(
            f"ALTER DATABASE {await db.fetchval('SELECT current_database()')} RESET default_transaction_read_only"
        )
        await resumed(db)
        assert max(pauses(daemon)) <= PAUSE_MOST
        assert await books.close(daemon) == []
    assert await uncharged(db)


async def test_handlers_that_take_all_connections_of_the_pool_hold_up_nobody_who_needs_none(
    settings: Settings, queue: Queue, db: DB, books: Books, tmp_path: Path
) -> None:
    """Who needs one as well fails its attempt after the time for which it may wait; claims, ends and beats go on."""
    small = {
        "database_pool_size": 1,
        "database_max_overflow": 1,
        "database_pool_timeout": 0.3,
        "heartbeat_interval": 0.5,
        "tasks": ("tests.handlers", "tests.faults.handlers"),
    }
    failed = "SELECT count(*) = 4 FROM workerd.job WHERE id = ANY ($1) AND failures > 0"
    beat = "SELECT beat FROM workerd.node"
    with DaemonProcess(on(settings, str(settings.database_url), **small)) as daemon:
        daemon.start()
        sign = tmp_path / "sign"
        holders = await queue.enqueue_many("holding", [{"sign": str(sign)}] * 2)
        held = "SELECT count(*) = 2 FROM pg_stat_activity WHERE application_name LIKE 'worker % pool' AND query LIKE '%held%'"
        await until(lambda: db.fetchval(held), "all connections are taken")
        hungry = await queue.enqueue_many("holding_a_connection", [{"seconds": 0}] * 4, max_retries=100)
        others = await queue.enqueue_many("echo", [{"value": n} for n in range(50)])
        before = await db.fetchval(beat)
        await until(lambda: _ended(db, others), "those that need none end")
        beaten = "SELECT beat > $1::timestamptz + interval '1 s' FROM workerd.node"
        await until(lambda: db.fetchval(beaten, before), "the node beats on")
        assert not await _ended(db, holders), "the connections are free again: nothing is shown"
        await until(lambda: db.fetchval(failed, hungry), "those that need one have failed")
        sign.touch()
        assert await books.close(daemon) == []
    errors = await db.fetch("SELECT attempts -> 0 ->> 'error' FROM workerd.job WHERE id = ANY ($1)", hungry)
    assert all("no database connection was free within 0.3 s" in row[0] for row in errors)
    assert await db.fetchval("SELECT count(*) FROM workerd.history WHERE state <> 'succeeded' OR crashes > 0") == 0


async def _ended(db: DB, jobs: list[int]) -> bool:
    count: int = await db.fetchval("SELECT count(*) FROM workerd.history WHERE id = ANY ($1)", jobs)
    return count == len(jobs)


@pytest.mark.parametrize("fault", ["hang", "half", "refuse"])
async def test_a_network_that_fails_costs_no_job_an_attempt(settings: Settings, fault: str) -> None:
    """`hang`: nothing passes, nor is anything closed; `half`: no answer passes; `refuse`: connections are reset, new ones refused."""
    with Cluster() as cluster:
        async with opened(cluster.url[""]) as (db, queue, books), Proxy(cluster.address) as proxy:
            with DaemonProcess(on(settings, proxy.before(cluster.url[""]))) as daemon:
                daemon.start()
                await queue.enqueue_many("nap", [{"seconds": 0.05}] * JOBS)
                await resumed(db)
                await proxy.say(fault)
                if fault == "refuse":
                    await proxy.say("reset")
                await in_state(daemon, "reconnecting")
                await proxy.say("ok")
                await resumed(db)
                assert max(pauses(daemon), default=0.0) <= PAUSE_MOST
                assert await books.close(daemon) == []
            assert await uncharged(db)


async def test_a_slow_network_is_no_trouble(settings: Settings) -> None:
    """Each round trip takes 0.2 s: nobody is taken for dead, no connection is given up."""
    with Cluster() as cluster:
        async with opened(cluster.url[""]) as (db, queue, books), Proxy(cluster.address) as proxy:
            slow = on(settings, proxy.before(cluster.url[""]), heartbeat_interval=3.0)
            with DaemonProcess(slow) as daemon:
                daemon.start()
                await proxy.say("delay 0.1")
                await queue.enqueue_many("nap", [{"seconds": 0.05}] * 100)
                await books.settled()
                assert await books.close(daemon) == []
            assert "again in" not in daemon.settings.log_path.read_text()
            assert await uncharged(db)
            assert await db.fetchval("SELECT count(*) FROM workerd.node") == 1, "it was declared dead"


async def test_connections_that_died_in_silence_are_replaced(settings: Settings) -> None:
    """What the open connections send is dropped for ever, and nobody closes them; new ones work."""
    with Cluster() as cluster:
        async with opened(cluster.url[""]) as (db, queue, books), Relay(cluster.address) as relay:
            with DaemonProcess(on(settings, relay.before(cluster.url[""]))) as daemon:
                await asyncio.to_thread(daemon.start)
                await db.execute("CREATE TABLE ran (n int, attempt int)")
                await queue.enqueue_many("recorded", [{"n": n, "seconds": 0.02} for n in range(20)])
                await books.settled()
                await queue.enqueue_many("nap", [{"seconds": 0.05}] * JOBS)
                await resumed(db)
                relay.strand()
                await resumed(db)
                later = await queue.enqueue(
                    "recorded", {"n": 20, "seconds": 0.02}, priority=10
                )  # its connection is one of the pool
                assert await queue.result(later, timeout=RESUMED) == 20
                relay.bury()
                assert await books.close(daemon) == []
            assert await uncharged(db)


async def test_another_host_takes_over(settings: Settings) -> None:
    """Commits wait for the standby, so that none is lost with the primary."""
    with Cluster("--standby", "-c", "synchronous_commit=on") as cluster:
        both = cluster.url["FAILOVER"].partition("?")[0]
        async with opened(cluster.url[""]) as (first, queue, _):
            await first.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            await first.execute("SELECT pg_reload_conf()")
            with DaemonProcess(on(settings, both)) as daemon:
                daemon.start()
                await queue.enqueue_many("nap", [{"seconds": 0.05}] * JOBS)
                await resumed(first)
                before = (await in_state(daemon, "connected"))["host"]
                cluster.verb("kill")
                await in_state(daemon, "reconnecting", "read-only")
                second = await asyncpg.connect(cluster.url["STANDBY"])
                cluster.verb("promote")
                await resumed(second)
                assert max(pauses(daemon)) <= PAUSE_MOST
                assert (await in_state(daemon, "connected"))["host"] != before
                assert await Books(second).close(daemon) == []
            assert await uncharged(second)
            await second.close()


CLIENTS = """
import asyncio
from tests.handlers import echo
from workerd import DatabaseError, Queue, SyncQueue

async def main(address):
    async with Queue.connect() as queue, Queue.connect(address, pooled=True) as named:
        await asyncio.gather(*(each.enqueue("echo") for each in (queue, named) * 5))
        await asyncio.gather(*(each.enqueue_many("echo", [{}] * 2000) for each in (queue, named) * 5))
        await queue.flow({})
    try:
        await Queue.connect(address)
    except DatabaseError as error:
        print(error)

import os
for value in range(2):
    asyncio.run(echo.enqueue(value))
echo.enqueue_sync(2)
asyncio.run(main(os.environ["DATABASE_URL"]))
"""


def use_clients(cluster: Cluster) -> None:
    """Every kind of client goes through the pooler, by the settings alone or by its own address."""
    environment = {**os.environ, "DATABASE_URL": cluster.url["BOUNCER"], "DATABASE_DIRECT_URL": cluster.url[""]}
    done = subprocess.run(
        [sys.executable, "-c", CLIENTS],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "connect with pooled=True" in done.stdout


async def test_a_pooler_with_a_direct_address_for_locks_works_and_alone_is_refused(settings: Settings) -> None:
    with Cluster("--bouncer") as cluster:
        async with opened(cluster.url[""]) as (db, queue, books):
            await db.execute("CREATE TABLE ran (n int, attempt int)")
            pooled = on(settings, cluster.url["BOUNCER"], database_direct_url=cluster.url[""])
            with DaemonProcess(pooled) as daemon:
                daemon.start()
                await queue.enqueue_many("recorded", [{"n": n, "seconds": 0.01} for n in range(100)])
                await queue.enqueue_many("enqueuing", [{"values": [1, 2, 3]}] * 5)
                assert await books.close(daemon) == []
            assert await db.fetchval("SELECT count(*) FROM ran") == 100
            assert await uncharged(db)
            await asyncio.to_thread(use_clients, cluster)
            alone = on(settings, cluster.url["BOUNCER"])
            done = await asyncio.to_thread(run_to_its_end, alone)
            assert done.returncode == 1
            assert "DATABASE_DIRECT_URL" in done.stderr.splitlines()[-1]
            assert "Traceback" not in done.stderr


async def test_a_password_that_no_longer_fits_is_named_and_not_tried_in_a_hurry(settings: Settings) -> None:
    with Cluster() as cluster:
        async with opened(cluster.url[""]) as (db, queue, books):
            await db.execute("CREATE ROLE app LOGIN SUPERUSER PASSWORD 'old'")
            data = await db.fetchval("SHOW data_directory")
            Path(data, "pg_hba.conf").write_text("host all postgres all trust\nhost all app all scram-sha-256\n")
            await db.execute("SELECT pg_reload_conf()")
            with DaemonProcess(on(settings, cluster.url[""].replace("postgres@", "app:old@"))) as daemon:
                daemon.start()
                await db.execute("ALTER ROLE app PASSWORD 'new'")
                await db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
                refused = await in_state(daemon, "refused")
                assert "check user and password in DATABASE_URL" in refused["reason"]
                assert "old" not in refused["reason"]
                job = await queue.enqueue("echo", {"value": 1})
                await db.execute("ALTER ROLE app PASSWORD 'old'")
                assert await queue.result(job, timeout=LIMIT) == 1
                assert await books.close(daemon) == []
            tries = daemon.settings.log_path.read_text().count("refused the login")
            assert tries < 30


async def test_results_are_kept_while_the_disk_of_the_server_is_full(settings: Settings, tmp_path: Path) -> None:
    """The history lies in a small file system that is filled."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    small = Path("/tmp") / f"workerd-small-{os.getpid()}"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", small], check=False, capture_output=True
    )
    if mounted.returncode:
        small.rmdir()
        pytest.skip("mounting is not allowed here")
    try:
        with Cluster() as cluster:
            shutil.chown(small, "postgres")
            async with opened(cluster.url[""]) as (db, queue, books):
                await db.execute(f"CREATE TABLESPACE small LOCATION '{small}'")
                with DaemonProcess(on(settings, cluster.url[""])) as daemon:
                    daemon.start()
                    await queue.result(await queue.enqueue("echo"), timeout=LIMIT)
                    for row in await db.fetch(
                        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'workerd.history'::regclass"
                    ):
                        await db.execute(f"ALTER TABLE {row[0]} SET TABLESPACE small")
                    filler = small / "filler"
                    with pytest.raises(OSError, match="No space"):
                        filler.write_bytes(b"x" * 30_000_000)
                    await queue.enqueue_many("echo", [{"value": "x" * 500}] * JOBS)
                    full = await in_state(daemon, "disk full")
                    assert full["reason"]
                    assert (await ask(daemon, "health"))["live"]
                    filler.unlink()
                    await resumed(db)
                    assert max(pauses(daemon)) <= PAUSE_MOST
                    await books.settled()
                    assert await books.close(daemon) == []
                assert await uncharged(db)
                for row in await db.fetch(
                    "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'workerd.history'::regclass"
                ):
                    await db.execute(f"ALTER TABLE {row[0]} SET TABLESPACE pg_default")
    finally:
        subprocess.run(["umount", small], check=False)
        small.rmdir()


async def test_a_server_without_a_free_connection_is_waited_for(settings: Settings) -> None:
    with Cluster("-c", "max_connections=12") as cluster:
        async with opened(cluster.url[""]) as (db, queue, books):
            with DaemonProcess(on(settings, cluster.url[""])) as daemon:
                daemon.start()
                hogs = []
                with suppress(asyncpg.TooManyConnectionsError):
                    while True:
                        hogs.append(await asyncpg.connect(cluster.url[""]))
                daemon.signal(signal.SIGSTOP)  # else it would be the first to take the place that becomes free
                claimer = f"worker {daemon.settings.node}"
                await db.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = $1", claimer
                )
                hogs.append(await asyncpg.connect(cluster.url[""]))
                daemon.signal(signal.SIGCONT)
                job = await queue.enqueue("echo", {"value": 1})

                async def says_why() -> bool:
                    return "too many clients" in (await in_state(daemon, "reconnecting"))["reason"]

                await until(says_why, "status says why")
                for hog in hogs:
                    await hog.close()
                assert await queue.result(job, timeout=RESUMED) == 1
                assert await books.close(daemon) == []
            assert await uncharged(db)


async def test_certificates_of_the_server_are_checked(settings: Settings, tmp_path: Path) -> None:
    """`verify-full`: a good one is used; with one that has expired, or of another authority, the daemon does not start and says why."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=tmp_path, check=True, capture_output=True)

    def certify(name: str, authority: str, days: str) -> None:
        openssl("req", *KEY, "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", "/CN=127.0.0.1")
        (tmp_path / "names").write_text("subjectAltName=IP:127.0.0.1\n")
        openssl(
            "x509",
            "-req",
            "-in",
            f"{name}.csr",
            "-CA",
            f"{authority}.crt",
            "-CAkey",
            f"{authority}.key",
            "-CAcreateserial",
            "-days",
            days,
            "-extfile",
            "names",
            "-out",
            f"{name}.crt",
        )

    if shutil.which("openssl") is None:
        pytest.skip("certificates are made with the program openssl")
    for authority in ("ours", "theirs"):
        openssl(
            "req",
            "-x509",
            *KEY,
            "-nodes",
            "-keyout",
            f"{authority}.key",
            "-out",
            f"{authority}.crt",
            "-subj",
            f"/CN={authority}",
            "-days",
            "2",
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
        )
    certify("good", "ours", "1")
    certify("expired", "ours", "-1")
    certify("foreign", "theirs", "1")
    with Cluster() as cluster:
        async with opened(cluster.url[""]) as (db, queue, books):
            data = Path(await db.fetchval("SHOW data_directory"))
            secured = on(settings, f"{cluster.url['']}?sslmode=verify-full&sslrootcert={tmp_path}/ours.crt")

            async def present(name: str) -> None:
                for kind in ("crt", "key"):
                    place = data / f"server.{kind}"
                    shutil.copy(tmp_path / f"{name}.{kind}", place)
                    if os.geteuid() == 0:
                        shutil.chown(place, "postgres", "postgres")
                    place.chmod(0o600)
                await db.execute("ALTER SYSTEM SET ssl = on")
                await db.execute("SELECT pg_reload_conf()")

            for name, reason in (
                ("expired", "certificate has expired"),
                ("foreign", "unable to get local issuer|self-signed|self signed"),
            ):
                await present(name)
                await until(
                    lambda: db.fetchval("SELECT setting = 'on' FROM pg_settings WHERE name = 'ssl'"),
                    "the server offers TLS",
                )
                done = await asyncio.to_thread(run_to_its_end, secured)
                assert done.returncode == 1, name
                assert re.search(reason, done.stderr.splitlines()[-1]), done.stderr
            await present("good")
            with DaemonProcess(secured) as daemon:
                daemon.start()
                assert await queue.result(await queue.enqueue("echo", {"value": 1}), timeout=LIMIT) == 1
                encrypted = """
                    SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name LIKE $1
                """
                assert await db.fetchval(encrypted, f"worker {secured.node}%")
                assert await books.close(daemon) == []


async def test_handlers_that_use_django_find_their_database_again_when_it_has_restarted(settings: Settings) -> None:
    with Cluster() as cluster:
        place = {"DJANGO_DATABASE": cluster.url[""], "DJANGO_MAX_AGE": "None"}
        changes = {"tasks": ("tests.django_handlers",), "workers": 4}
        async with opened(cluster.url[""]) as (_, queue, _):
            with DaemonProcess(on(settings, cluster.url[""], **changes), **place) as daemon:
                await asyncio.to_thread(daemon.start)
                for task in ("asks", "asks_on_loop"):
                    await queue.result(await queue.enqueue(task), timeout=LIMIT)
                cluster.verb("kill")
                cluster.verb("start")
                async with Queue.connect(cluster.url[""]) as after:
                    for task in ("asks", "asks_on_loop"):
                        for job in await after.enqueue_many(task, [{}] * 20):
                            await after.result(job, timeout=LIMIT)
