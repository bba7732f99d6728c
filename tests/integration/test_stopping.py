"""Handlers that do not stop when they are told to: their job ends, their worker is free, their late result counts for nothing."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests import handlers
from tests.support import InProcess, until, until_state
from workerd.daemon import executor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import asyncpg

    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]


async def _strays(node: InProcess) -> int:
    count: int = (await node.ask("status"))["data"]["written_off"]
    return count


@asynccontextmanager
async def _going_on(number: int) -> AsyncIterator[asyncio.Event]:
    """However the test ends, the handler goes on at last: else the loop could not be closed."""
    begun, go_on = handlers.gate(number)
    try:
        yield begun
    finally:
        go_on.set()


async def _let_go(node: InProcess, number: int) -> None:
    handlers.go_on[number].set()

    async def none() -> bool:
        return await _strays(node) == 0

    await until(none, "the first attempt has ended after all")


@pytest.mark.parametrize(
    ("number", "task", "reason"),
    [
        (30, "deaf_at_first", "timeout: it ran longer than 0.2 s, and it ignores its cancellation"),
        (31, "thread_at_first", "timeout: it ran longer than 0.2 s"),
    ],
)
async def test_a_handler_that_goes_on_past_its_timeout_is_written_off_and_its_job_is_retried(
    settings: Settings, queue: Queue, db: DB, monkeypatch: pytest.MonkeyPatch, number: int, task: str, reason: str
) -> None:
    monkeypatch.setattr(executor, "CANCEL_GRACE", 0.2)
    async with InProcess(settings.model_copy(update={"workers": 1})) as node, _going_on(number):
        job = await queue.enqueue(task, {"number": number})
        assert await queue.result(job, timeout=60) == "the second attempt"
        status = (await node.ask("status"))["data"]
        assert (status["written_off"], status["busy"], len(status["slots"])) == (1, 0, 1)
        assert (await node.ask("scale", workers=2))["ok"]
        assert (await node.ask("scale", workers=1))["ok"]
        await _let_go(node, number)
        assert (await node.ask("status"))["data"]["jobs_lost"] == 0
    row = await until_state(db, job, "succeeded")
    assert (row["attempt"], row["failures"], json.loads(row["result"])) == (2, 1, "the second attempt")
    assert json.loads(row["attempts"])[0]["error"] == reason


async def test_a_deaf_handler_that_is_cancelled_is_cancelled(
    settings: Settings, queue: Queue, db: DB, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(executor, "CANCEL_GRACE", 0.2)
    monkeypatch.setattr(handlers.deaf_at_first, "timeout", 60.0)
    async with InProcess(settings.model_copy(update={"workers": 1})) as node, _going_on(32) as begun:
        job = await queue.enqueue("deaf_at_first", {"number": 32})
        await asyncio.wait_for(begun.wait(), 60)
        await queue.cancel(job)
        row = await until_state(db, job, "cancelled")
        assert row["error"] == "cancelled while it ran, and it ignores its cancellation"
        assert "in deaf_at_first\n" in caplog.text, "its stack was not shown"
        assert await queue.result(await queue.enqueue("echo", {"value": 1}), timeout=60) == 1
        await _let_go(node, 32)
