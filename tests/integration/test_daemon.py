"""The daemon: lock, control socket, signals, drain, logs, what it says to its supervisor."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests import handlers
from tests.support import LIMIT, DaemonProcess, InProcess, state_of, until, until_state
from workerd import JobFailed
from workerd.daemon.claimer import Claimer

if TYPE_CHECKING:
    import asyncpg

    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]


async def test_a_drain_waits_for_what_runs_and_gives_back_the_rest(settings: Settings, queue: Queue, db: DB) -> None:
    async with InProcess(settings.model_copy(update={"workers": 1})) as node:
        begun, go_on = handlers.gate(10)
        running = await queue.enqueue("gated", {"number": 10})
        await begun.wait()
        waiting = await queue.enqueue_many("echo", [{"value": n} for n in range(20)])
        drained = asyncio.create_task(node.stop())

        async def draining() -> bool:
            return bool((await node.ask("status"))["data"]["state"] == "draining")

        await until(draining, "it drains")
        go_on.set()
        await drained
    assert await state_of(db, running) == "succeeded"
    assert {await state_of(db, job) for job in waiting} == {"queued"}


async def test_a_drain_past_its_timeout_gives_jobs_back_without_a_failure(
    settings: Settings, queue: Queue, db: DB
) -> None:
    async with InProcess(settings.model_copy(update={"drain_timeout": 0.1})) as node:
        begun, _ = handlers.gate(11)
        job = await queue.enqueue("gated", {"number": 11})
        await begun.wait()
        await node.stop()
    row = await until_state(db, job, "queued")
    assert (row["attempt"], row["failures"], json.loads(row["attempts"])[0]["outcome"]) == (1, 0, "returned")


async def test_scaling_takes_effect_at_once_and_interrupts_nothing(node: InProcess, queue: Queue) -> None:
    gates = [handlers.gate(20 + n) for n in range(4)]
    jobs = [await queue.enqueue("gated", {"number": 20 + n}) for n in range(4)]
    await asyncio.gather(*(begun.wait() for begun, _ in gates))
    assert (await node.ask("scale", workers=1))["data"] == {"workers": 1, "before": 4}
    assert (await node.ask("status"))["data"]["busy"] == 4
    for _, go_on in gates:
        go_on.set()
    assert [await queue.result(job, timeout=60) for job in jobs] == ["went on"] * 4
    assert len((await node.ask("status"))["data"]["slots"]) == 1
    assert not (await node.ask("scale", workers=0))["ok"]


async def test_the_control_socket_survives_rubbish(node: InProcess) -> None:
    for line in (b"not json\n", b"[]\n", b'{"verb": "fly"}\n', b"x" * 100_000 + b"\n"):
        reader, writer = await asyncio.open_unix_connection(node.settings.socket_path)
        writer.write(line)
        answer = await reader.readline()
        assert answer == b"" or json.loads(answer)["ok"] is False
        writer.close()
    assert (await node.ask("health"))["data"] == {"live": True, "ready": True, "reason": None}
    assert node.settings.socket_path.stat().st_mode & 0o777 == 0o600


async def test_a_handler_that_blocks_the_loop_does_not_look_dead(node: InProcess, queue: Queue, db: DB) -> None:
    job = await queue.enqueue("blocking", {"seconds": 2.0})  # four heartbeats
    await queue.result(job, timeout=LIMIT)
    assert await db.fetchval("SELECT count(*) FROM workerd.node") == 1
    assert await db.fetchval("SELECT attempt FROM workerd.job WHERE id = $1", job) == 1


async def test_losing_every_connection_costs_nobody_an_attempt(node: InProcess, queue: Queue, db: DB) -> None:
    begun, go_on = handlers.gate(30)
    job = await queue.enqueue("gated", {"number": 30})
    await begun.wait()
    for _ in range(3):
        before = (await node.ask("status"))["data"]["database"]["since"]

        async def reconnected(before: str = before) -> bool:
            database = (await node.ask("status"))["data"]["database"]
            return bool(database["state"] == "connected" and database["since"] > before)

        await db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await until(reconnected, "it has reconnected")
    go_on.set()
    row = await until_state(db, job, "succeeded")
    assert (row["attempt"], row["failures"]) == (1, 0)
    assert await db.fetchval("SELECT count(*) FROM workerd.node WHERE dead_at IS NULL") == 1


async def test_sigterm_drains_and_a_second_one_hurries(daemon: DaemonProcess, queue: Queue, db: DB) -> None:
    daemon.start()
    job = await queue.enqueue("nap", {"seconds": 60})
    await until_state(db, job, "running")
    daemon.signal(signal.SIGTERM)
    daemon.hear("STOPPING=1")
    daemon.signal(signal.SIGTERM)
    assert await asyncio.to_thread(daemon.wait) == 0
    assert await state_of(db, job) == "queued"
    assert not daemon.settings.pid_file.exists()
    assert not daemon.settings.socket_path.exists()


async def test_logs_are_json_lines_and_errors_have_their_own_file(daemon: DaemonProcess, queue: Queue, db: DB) -> None:
    daemon.start()
    await until_state(db, await queue.enqueue("echo"), "succeeded")
    await until_state(db, await queue.enqueue("discarding"), "failed")
    daemon.signal(signal.SIGUSR1)
    daemon.signal(signal.SIGTERM)
    assert await asyncio.to_thread(daemon.wait) == 0
    lines = [json.loads(line) for line in daemon.settings.log_path.read_text().splitlines()]
    messages = [line["message"] for line in lines]
    for begin in (
        "database: ",
        "queues: all",
        "workers: 4 x 1",
        "ready",
        "job 1 echo succeeded in",
        "draining",
        "stopped",
    ):
        assert any(message.startswith(begin) for message in messages), begin
    errors = [json.loads(line) for line in daemon.settings.error_log_path.read_text().splitlines()]
    assert {line["level"] for line in errors} == {"ERROR", "WARNING"}
    assert any("this will never work" in line["message"] for line in errors)
    assert any("stacks of all threads" in line["message"] for line in errors)


async def test_it_tells_systemd_what_it_does(settings: Settings, queue: Queue, db: DB) -> None:
    with DaemonProcess(settings, WATCHDOG_USEC="200000") as daemon:
        daemon.start()
        await until_state(db, await queue.enqueue("nap", {"seconds": 60}), "running")
        for words in ("STATUS=4 workers, 1 busy, 0 done", "WATCHDOG=1"):
            daemon.hear(words)
        daemon.signal(signal.SIGTERM)
        for words in ("STOPPING=1", "EXTEND_TIMEOUT_USEC=", "WATCHDOG=1", ", draining", "EXTEND_TIMEOUT_USEC="):
            daemon.hear(words)
        daemon.signal(signal.SIGTERM)
        assert await asyncio.to_thread(daemon.wait) == 0


async def test_a_second_daemon_of_the_same_name_does_not_start(daemon: DaemonProcess) -> None:
    daemon.start()
    second = DaemonProcess(daemon.settings)
    done = subprocess.run([sys.executable, "-m", "workerd", *second.flags], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "a daemon runs already with PID" in done.stderr


async def test_a_supervisor_that_does_not_listen_stops_nothing(settings: Settings, queue: Queue, db: DB) -> None:
    """Its socket takes a few hundred messages, then sends to it block."""
    with DaemonProcess(settings, WATCHDOG_USEC="2000") as daemon:
        daemon.start()

        async def has_pulsed() -> bool:
            beats: int = await db.fetchval(
                "SELECT count(*) FROM workerd.node WHERE beat > started_at + interval '1.5 s'"
            )
            return beats == 1

        await until(has_pulsed, "it has sent more than the socket takes")
        await queue.result(await queue.enqueue("echo"), timeout=60)


async def test_a_handler_that_raises_keyboard_interrupt_fails_its_job_alone(node: InProcess, queue: Queue) -> None:
    with pytest.raises(JobFailed, match="KeyboardInterrupt"):
        await queue.result(await queue.enqueue("interrupting"), timeout=60)
    assert await queue.result(await queue.enqueue("echo", {"value": 1}), timeout=60) == 1


async def test_threads_that_never_return_keep_nobody_from_working(daemon: DaemonProcess, queue: Queue, db: DB) -> None:
    daemon.start()
    hanging = await queue.enqueue_many("never_returning", [{"number": n} for n in range(20)])
    for job in hanging:
        await until_state(db, job, "failed")
    assert await queue.result(await queue.enqueue("in_thread", {"value": 1}), timeout=60) == {"value": 1, "main": False}
    daemon.signal(signal.SIGTERM)
    assert await asyncio.to_thread(daemon.wait, 10) == 0


async def test_a_handler_that_ignores_its_cancellation_cannot_keep_the_daemon(
    settings: Settings, queue: Queue, db: DB
) -> None:
    with DaemonProcess(settings.model_copy(update={"drain_timeout": 0.1})) as daemon:
        daemon.start()
        job = await queue.enqueue("deaf")
        await until_state(db, job, "running")
        daemon.signal(signal.SIGTERM)
        assert await asyncio.to_thread(daemon.wait, 20) == 1
        assert "does not end although it is cancelled" in daemon.settings.error_log_path.read_text()
    row = await until_state(db, job, "queued")
    assert (row["attempt"], row["failures"]) == (1, 0)


async def test_a_query_without_an_answer_is_given_up(
    node: InProcess, db: DB, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that somebody locks stands in for a server that is frozen."""
    monkeypatch.setattr("workerd.daemon.link.COMMAND_TIMEOUT", 0.1)
    sessions = (
        "SELECT array_agg(pid) FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database()"
    )
    name = f"worker {node.settings.node}"
    before = await db.fetchval(sessions, name)
    async with queue.connection() as locker, locker.transaction():
        await locker.execute("LOCK TABLE workerd.lane")
        await until(lambda: _others(db, sessions, name, before), "the claimer has another session")
    assert await queue.result(await queue.enqueue("echo", {"value": 1}), timeout=60) == 1


async def _others(db: DB, sessions: str, name: str, before: list[int]) -> bool:
    return bool(set(await db.fetchval(sessions, name) or ()) - set(before))  # none between two sessions


async def test_a_daemon_whose_workers_are_all_busy_rests(
    settings: Settings, queue: Queue, db: DB, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = 0
    turn = Claimer._turn

    async def counted(claimer: Claimer, connection: Any) -> bool:
        nonlocal turns
        turns += 1
        return await turn(claimer, connection)

    monkeypatch.setattr(Claimer, "_turn", counted)
    async with InProcess(settings.model_copy(update={"workers": 1, "poll_interval": 0.5})) as node:
        begun, go_on = handlers.gate(40)
        running = await queue.enqueue("gated", {"number": 40})
        await begun.wait()
        await queue.enqueue_many("echo", [{"value": n} for n in range(20)])

        async def waited_long() -> bool:
            lasts = await db.fetchval(
                "SELECT started_at < now() - interval '2.5 s' FROM workerd.job WHERE id = $1", running
            )
            return bool(lasts)

        await until(waited_long, "sweeps were due while there was no room")
        assert turns < 100
        go_on.set()
        assert await queue.result(running, timeout=60) == "went on"
        await node.stop()
