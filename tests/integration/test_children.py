"""`cpu=True` handlers run in child processes: what crosses the pipe, how they end, and when a child is used again."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.support import InProcess, state_of, until, until_state
from workerd.daemon.children import pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import asyncpg

    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"tasks": ("tests.handlers", "tests.child_handlers"), "workers": 2})


@pytest.fixture
async def node(settings: Settings) -> AsyncIterator[InProcess]:
    async with InProcess(settings) as running:
        yield running
    assert not _running("workerd.daemon.children.child"), "a child outlived its daemon"


def _running(words: str) -> list[int]:
    """The PIDs of processes below us whose command line has these words. The dead have none, though we may have inherited them."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if words in " ".join(process.cmdline()):
                found.append(process.pid)
    return found


async def _children(node: InProcess) -> int:
    count: int = (await node.ask("status"))["data"]["children"]
    return count


async def test_arguments_result_progress_and_log_cross_the_pipe(
    node: InProcess, queue: Queue, db: DB, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    value = {"text": "grün \ud7ff", "list": [1, 2.5, None]}
    assert await _children(node) == 0, "it was not started lazily"
    job = await queue.enqueue("in_child", {"value": value})
    result = await queue.result(job, timeout=60)
    assert (result["value"], result["attempt"]) == (value, 1)
    assert result["pid"] == result["group"] != os.getpid()
    row = await until_state(db, job, "succeeded")
    assert "0.5" in str(row["progress"])
    said = [r for r in caplog.records if str(getattr(r, "job", "")) == str(job)]
    assert any(r.name == "shop" and r.levelname == "WARNING" and "counting" in r.getMessage() for r in said)
    assert any(r.getMessage().startswith("printed") for r in said)

    async def written() -> bool:
        return [getattr(r, "job", None) for r in caplog.records if r.getMessage().startswith("written")] == [job]

    await until(written, "what was written to the descriptor")


async def test_the_class_of_what_was_raised_decides_though_only_its_text_crosses_the_pipe(
    node: InProcess, queue: Queue, db: DB
) -> None:
    row = await until_state(db, await queue.enqueue("choosy"), "failed")
    assert (row["attempt"], row["error"].splitlines()[0]) == (2, "KeyError: 'never'")


async def test_a_child_is_used_again_and_there_are_no_more_than_busy_workers(node: InProcess, queue: Queue) -> None:
    jobs = await queue.enqueue_many("in_child", [{"value": n} for n in range(10)])
    pids = {(await queue.result(job, timeout=60))["pid"] for job in jobs}
    assert len(pids) <= 2
    assert await _children(node) == len(pids)


async def test_a_child_is_replaced_after_so_many_jobs_and_when_it_was_idle_for_long(
    node: InProcess, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "MAX_JOBS", 2)
    pids = [(await queue.result(await queue.enqueue("in_child"), timeout=60))["pid"] for _ in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]
    await queue.result(await queue.enqueue("in_child"), timeout=60)
    monkeypatch.setattr(pool, "IDLE_LIMIT", 0.0)

    async def none() -> bool:
        return await _children(node) == 0

    await until(none, "the idle child has ended")


@pytest.mark.parametrize(
    ("deed", "state", "error"),
    [
        ("segfault", "failed", "its process was killed by SIGSEGV\nFatal Python error: Segmentation fault"),
        ("exit", "failed", "its process exited with 3"),
        ("kill", "failed", "its process was killed by SIGKILL (out of memory?)"),
        ("hang up", "failed", "its process closed or broke its connection to the daemon"),
        ("leave", "failed", "SystemExit: 4\nTraceback"),
        ("hog", "failed", "MemoryError\nTraceback"),
        ("raise", "failed", "LookupError: no such thing\nTraceback (most recent call last):\n  File"),
        ("snooze", "scheduled", "later"),
        ("retry", "failed", "busy"),
        ("discard", "failed", "never"),
        ("object", "failed", "the result of does is not JSON"),
        ("connection", "failed", "workerd.errors.JobError: a cpu=True task runs in a process of its own"),
        ("terminate", "succeeded", ""),
    ],
)
async def test_whatever_a_handler_does_in_its_process_is_its_own_end_alone(
    node: InProcess, queue: Queue, db: DB, deed: str, state: str, error: str
) -> None:
    bystander = await queue.enqueue("sleeping", {"seconds": 0.5})
    job = await queue.enqueue("does", {"what": deed})
    row = await until_state(db, job, state)
    shown: Any = row["error"] or ""
    if state == "failed":
        assert shown.startswith(error)
        assert "/workerd/daemon/" not in shown or deed in ("segfault", "connection")
    assert await queue.result(bystander, timeout=60)
    assert await queue.result(await queue.enqueue("sleeping", {"seconds": 0}), timeout=60)


async def test_a_timeout_a_cancellation_and_a_drain_kill_the_child_and_what_it_started(
    settings: Settings, queue: Queue, db: DB
) -> None:
    async def gone() -> bool:
        return not _running("sleep 1000")

    async def begun() -> bool:
        return bool(_running("sleep 1000"))

    async with InProcess(settings.model_copy(update={"drain_timeout": 0.1})) as node:
        late = await queue.enqueue("endless")
        await until(begun, "the first one runs its program")
        assert (await until_state(db, late, "failed"))["error"] == "timeout: it ran longer than 1 s"
        await until(gone, "its program is gone")
        unwanted = await queue.enqueue("endless_unless_cancelled")
        await until(begun, "the second one runs its program")
        await queue.cancel(unwanted)
        await until_state(db, unwanted, "cancelled")
        await until(gone, "its program is gone")
        returned = await queue.enqueue("endless_unless_cancelled")
        await until(begun, "the third one runs its program")
        await node.stop()
    await until(gone, "its program is gone")
    assert await state_of(db, returned) == "queued"


async def test_a_child_inherits_neither_files_nor_the_supervisor_and_goes_first_when_memory_runs_out(
    node: InProcess, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    seen = await queue.result(await queue.enqueue("does", {"what": "surroundings"}), timeout=60)
    assert seen["notify"] is None
    assert seen["files"] == ["/dev/null", "pipe", "pipe", "socket"]
    assert int(seen["oom"]) >= 500
    assert seen["session"] != os.getsid(0)


async def test_children_that_die_at_their_start_fail_their_jobs_one_after_another_ever_later(
    node: InProcess, queue: Queue, db: DB, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WORKERD_TEST_BROKEN", "1")
    jobs = await queue.enqueue_many("in_child", [{"value": n} for n in range(5)])
    for job in jobs:
        assert (await until_state(db, job, "failed"))["error"].startswith(
            "its process could not start: its process exited with 7"
        )
    said = [r.getMessage() for r in caplog.records if "no child process for a job" in r.msg]
    waits = [float(text.split()[-2]) for text in said]
    assert waits == sorted(waits)
    assert len(waits) == 5
    assert waits[-1] > waits[0]
    monkeypatch.delenv("WORKERD_TEST_BROKEN")
    assert await queue.result(await queue.enqueue("in_child"), timeout=60)
    assert await queue.result(await queue.enqueue("echo", {"value": 1}), timeout=60) == 1
