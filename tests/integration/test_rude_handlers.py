"""Handlers that fork, exit, cancel themselves, leave threads and settings behind: each ends its own job at most."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.rude_handlers import EXITS, FORKED
from tests.support import DaemonProcess, InProcess, until_state
from workerd import JobFailed
from workerd.daemon.pidfile import owner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import asyncpg

    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"tasks": ("tests.rude_handlers",)})


@pytest.fixture
def daemon(settings: Settings) -> Iterator[DaemonProcess]:
    with DaemonProcess(settings) as process:
        process.start()
        yield process


@pytest.fixture
async def lonely(settings: Settings) -> AsyncIterator[InProcess]:
    """A daemon with one worker: what one job leaves behind would meet the next."""
    async with InProcess(settings.model_copy(update={"workers": 1})) as running:
        yield running


async def _result(queue: Queue, task: str, **arguments: Any) -> Any:
    return await queue.result(await queue.enqueue(task, arguments), timeout=60)


async def test_an_exit_in_what_a_handler_has_started_fails_its_job_alone(
    daemon: DaemonProcess, queue: Queue, db: DB
) -> None:
    innocent = await queue.enqueue("innocent", {"seconds": 1.0})
    jobs = {how: await queue.enqueue("exits", {"how": how}) for how in EXITS}
    for how, job in jobs.items():
        row = await until_state(db, job, "failed")
        said = "KeyboardInterrupt: bye" if how == "interrupted group" else "SystemExit: bye"
        assert row["error"].startswith(said), (how, row["error"])
    assert await _result(queue, "exits_for_nobody") == "goes on"
    assert await queue.result(innocent, timeout=60) == "fine"
    assert daemon.running
    logged = [json.loads(line) for line in daemon.settings.error_log_path.read_text().splitlines()]
    for job in jobs.values():
        assert any(line.get("job") == job and "in a task or callback of its own" in line["message"] for line in logged)
    assert any("a task or callback of no job tried to end the daemon" in line["message"] for line in logged)
    daemon.signal(signal.SIGTERM)
    assert await asyncio.to_thread(daemon.wait) == 0


async def test_a_fork_is_an_ordinary_process(daemon: DaemonProcess, queue: Queue) -> None:
    innocent = await queue.enqueue("innocent", {"seconds": 1.0})
    for task in ("forks", "forks_in_thread", "forks_in_child"):
        for how, expected in FORKED.items():
            assert await _result(queue, task, how=how) == expected, (task, how)
    assert await queue.result(innocent, timeout=60) == "fine"
    assert "draining" not in daemon.settings.log_path.read_text()
    fork = psutil.Process(await _result(queue, "leaves_a_fork"))
    daemon.kill()
    assert fork.is_running()
    assert owner(daemon.settings.pid_file) is None, "it holds the lock of the PID file"
    fork.kill()


async def test_threads_that_a_handler_has_started_keep_no_daemon_from_ending(
    settings: Settings, queue: Queue, db: DB
) -> None:
    with DaemonProcess(settings.model_copy(update={"drain_timeout": 0.1})) as daemon:
        daemon.start()
        jobs = [await queue.enqueue("leaves_a_thread", {"how": how}) for how in ("to_thread", "step", "pool", "thread")]
        for job in jobs:
            await until_state(db, job, "running")
        daemon.signal(signal.SIGTERM)
        assert await asyncio.to_thread(daemon.wait) == 0
        assert "threads that handlers have started go on" in daemon.settings.log_path.read_text()
    for job in jobs:
        row = await until_state(db, job, "queued")
        assert (row["attempt"], row["failures"]) == (1, 0)


async def test_what_a_job_sets_is_not_seen_by_the_next(lonely: InProcess, queue: Queue) -> None:
    tasks = ("sets", "sets_and_waits", "sets_in_thread", "sets_in_child") * 2
    assert [await _result(queue, task, name="ACME") for task in tasks] == [[None, 28]] * len(tasks)


@pytest.mark.parametrize(
    ("how", "result"),
    [
        ("at once", None),
        ("and returns", "in time"),
        ("and swallows it", "swallowed"),
        ("in time", None),
        ("too late", "in time"),
    ],
)
async def test_a_handler_that_cancels_its_task_costs_nobody_a_worker(
    lonely: InProcess, queue: Queue, how: str, result: str | None
) -> None:
    with contextlib.nullcontext() if result else pytest.raises(JobFailed, match="CancelledError"):
        assert await _result(queue, "cancels_itself", how=how) == result
    assert await _result(queue, "innocent", seconds=0.3) == "fine"  # a timer of the one before goes off meanwhile
    assert (await lonely.ask("status"))["data"]["busy"] == 0


@pytest.mark.parametrize("how", ["task", "thread", "and goes on"])
async def test_a_generator_exit_that_a_future_carries_costs_nobody_a_worker(
    lonely: InProcess, queue: Queue, how: str
) -> None:
    with pytest.raises(JobFailed, match="GeneratorExit"):
        await _result(queue, "closes", how=how)
    assert await _result(queue, "innocent") == "fine"


async def test_a_worker_stays_while_handlers_leave_nothing_behind(lonely: InProcess, queue: Queue) -> None:
    def worker() -> asyncio.Task[Any]:
        (found,) = [task for task in asyncio.all_tasks() if task.get_name() == "worker-1"]
        return found

    before = id(worker())
    await _result(queue, "innocent", seconds=0.001)
    with pytest.raises(JobFailed):
        await _result(queue, "fails_with_a_limit")
    await _result(queue, "innocent")
    assert id(worker()) == before
    await _result(queue, "sets", name="ACME")
    await _result(queue, "innocent")
    assert id(worker()) != before


async def test_a_worker_that_is_cancelled_is_replaced(
    lonely: InProcess, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    (worker,) = [task for task in asyncio.all_tasks() if task.get_name() == "worker-1"]
    worker.cancel()
    assert await _result(queue, "innocent") == "fine"
    assert "worker 1 was cancelled, and not from here" in caplog.text
