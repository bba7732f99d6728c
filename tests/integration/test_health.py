"""What a daemon says about its health, to its supervisor and to whoever asks."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
from typing import TYPE_CHECKING

import asyncpg
import pytest

from tests.support import DaemonProcess, InProcess, until, until_state
from workerd.daemon import watchdog
from workerd.queue import migrate

if TYPE_CHECKING:
    from pathlib import Path

    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

_WAITS = (
    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_try_advisory_lock%' AND pid <> pg_backend_pid()"
)


async def test_sigterm_before_it_is_ready_ends_it_with_0(settings: Settings, empty_dsn: str) -> None:
    """Its start takes long, for somebody else migrates; a supervisor is asked for patience."""
    other = await asyncpg.connect(empty_dsn)
    await other.execute("SELECT pg_advisory_lock($1)", migrate.LOCK)
    with DaemonProcess(settings.model_copy(update={"database_url": empty_dsn})) as daemon:
        daemon.launch()
        await asyncio.to_thread(daemon.hear, "EXTEND_TIMEOUT_USEC=")
        await until(lambda: other.fetchval(_WAITS), "it waits for the lock of migrations")
        daemon.signal(signal.SIGTERM)
        assert await asyncio.to_thread(daemon.wait) == 0
        assert not settings.pid_file.exists()
    assert await other.fetchval("SELECT to_regclass('workerd.job')") is None
    await other.close()


async def _reason(node: InProcess) -> str | None:
    """Why it is not alive, as it tells over its control socket."""
    told = (await node.ask("health"))["data"]
    return None if told["live"] else str(told["reason"])


async def _alive(node: InProcess) -> bool:
    return await _reason(node) is None


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "GRACE", 0.5)


@pytest.mark.usefixtures("impatient")
async def test_a_claim_loop_that_does_not_turn_is_found_and_found_well_again(
    node: InProcess, queue: Queue, db: DB, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = asyncio.Event()

    async def rest(_connection: object) -> None:
        await released.wait()

    with monkeypatch.context() as patch:
        patch.setattr(node.daemon._claimer, "_rest", rest)
        await queue.enqueue("echo", {"value": 1})
        assert await until(lambda: _reason(node), "it is found") == "claim loop: no turn any more"
    released.set()
    await until(lambda: _alive(node), "it is well again")
    await until_state(db, await queue.enqueue("echo", {"value": 2}), "succeeded")


@pytest.mark.usefixtures("impatient")
async def test_the_supervisor_s_watchdog_is_fed_only_while_they_turn(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")

        async def heard() -> str:
            with contextlib.suppress(BlockingIOError):
                return supervisor.recv(65536).decode()
            return ""

        async def silent() -> bool:
            return not await heard()

        async with InProcess(settings) as node:
            look, looks = node.daemon._watchdog.look, iter(range(100))

            def look_again() -> None:
                look()
                node.daemon._supervisor.status(f"look {next(looks)}")

            async def fed() -> bool:
                return await heard() == "WATCHDOG=1"

            await until(fed, "it is fed")
            with monkeypatch.context() as patch:
                patch.setattr(node.daemon._backlog, "get", asyncio.Event().wait)
                node.daemon._workers.scale(node.daemon._workers.count + 1)
                await until(lambda: _reason(node), "it is found")
                await until(silent, "all is heard that was said before")
                patch.setattr(node.daemon._watchdog, "look", look_again)
                said = [await until(heard, "another look is over") for _ in range(5)]
                assert "WATCHDOG=1" not in said


@pytest.mark.usefixtures("impatient")
async def test_a_worker_that_does_not_wait_for_a_job_is_found(node: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(node.daemon._backlog, "get", asyncio.Event().wait)
        node.daemon._workers.scale(node.daemon._workers.count + 1)
        assert await until(lambda: _reason(node), "it is found") == "workers: no turn any more"


@pytest.mark.usefixtures("impatient")
async def test_ends_that_are_not_written_are_found(
    node: InProcess, queue: Queue, db: DB, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def write(_connection: object, *, good: bool) -> None:
        await asyncio.sleep(0.01 * (1 + good))

    with monkeypatch.context() as patch:
        patch.setattr(node.daemon._claimer, "_write", write)
        job = await queue.enqueue("failing", {"number": 1}, max_retries=0)
        assert await until(lambda: _reason(node), "it is found") == "finisher: no turn any more"
    await until_state(db, job, "failed")
    await until(lambda: _alive(node), "it is well again")


@pytest.mark.usefixtures("impatient")
async def test_a_handler_that_takes_long_and_a_database_that_does_not_answer_are_nobody_s_fault(
    node: InProcess, queue: Queue, db: DB
) -> None:
    job = await queue.enqueue("nap", {"seconds": 3.0})
    await until_state(db, job, "running")
    reasons = set()

    async def napped() -> bool:
        reasons.add(await _reason(node))
        return not node.daemon._executor.running

    async with db.transaction():
        await db.execute("LOCK TABLE workerd.lease IN ACCESS EXCLUSIVE MODE")
        await until(napped, "the handler has returned")
    await until_state(db, job, "succeeded")
    assert reasons == {None}


@pytest.mark.usefixtures("impatient")
async def test_a_lease_thread_that_does_not_turn_is_found_and_status_names_it(node: InProcess) -> None:
    released = threading.Event()
    loop = node.daemon._lease._loop
    assert loop is not None
    loop.call_soon_threadsafe(released.wait)
    try:
        assert await until(lambda: _reason(node), "it is found") == "lease thread: no turn any more"
        assert (await node.ask("status"))["data"]["stuck"] == ["lease thread"]
        assert node.daemon._status.line().endswith(", no turn any more: lease thread")
    finally:
        released.set()
    await until(lambda: _alive(node), "it is well again")
    assert (await node.ask("status"))["data"]["stuck"] == []


async def test_a_heartbeat_that_fails_in_a_way_nobody_foresaw_is_logged_and_tried_again(
    node: InProcess, queue: Queue, db: DB, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def beat(*_: object) -> bool:
        raise RuntimeError("a surprise")

    def tracebacks() -> list[str]:
        return [str(record.exc_info) for record in caplog.records if "heartbeat: a surprise" in record.getMessage()]

    async def tried_twice() -> bool:
        return len(tracebacks()) > 1

    job = await queue.enqueue("nap", {"seconds": 1.0})
    with monkeypatch.context() as patch:
        patch.setattr("workerd.queue.node.beat", beat)
        node.daemon._beat_now()
        await until(tried_twice, "it is tried again")
    assert all("RuntimeError" in traceback for traceback in tracebacks())
    failed_until = await db.fetchval("SELECT clock_timestamp()")
    await until(lambda: db.fetchval("SELECT beat > $1 FROM workerd.node", failed_until), "it beats again")
    assert (await until_state(db, job, "succeeded"))["attempt"] == 1
    assert await db.fetchval("SELECT count(*) FROM workerd.node WHERE dead_at IS NULL") == 1
