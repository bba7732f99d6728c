"""Whatever a handler does, its attempt has one outcome and its worker goes on."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.support import Nobody, claimed
from workerd import Discard, RetryAfter, Snooze, task
from workerd.daemon.endings import MAX_ERROR
from workerd.daemon.executor import Executor
from workerd.outcomes import Outcome
from workerd.settings import Settings
from workerd.tasks import registry

pytestmark = pytest.mark.usefixtures("own_registry")

Handler = Callable[..., Any]


@pytest.fixture
async def executor() -> Executor:
    made = Executor(Settings(retry_delay=60.0), registry)
    made.host = Nobody()
    return made


async def outcome(executor: Executor, handler: Handler, payload: str = "{}", **options: Any) -> Outcome:
    task(name="case", **options)(handler)
    job = claimed(1)
    job.task, job.payload = "case", payload

    async def work() -> Outcome:
        worker = asyncio.current_task()
        assert worker is not None
        return (await executor.run(job, worker)).outcome

    try:
        return await asyncio.wait_for(work(), 60)
    finally:
        assert executor.running == set()


def raising(error: BaseException) -> Handler:
    async def handler() -> None:
        raise error

    return handler


async def cancelling_what_it_waits_for() -> None:
    inner = asyncio.create_task(asyncio.Event().wait())
    inner.cancel()
    await inner


def emptied() -> int:
    return next(iter(()))


def leaving() -> None:
    sys.exit(3)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


def noted(*notes: str) -> Exception:
    error = ValueError("a\nb")
    for note in notes:
        error.add_note(note)
    return error


@pytest.mark.parametrize(
    ("handler", "first_line"),
    [
        (raising(ValueError("x")), "ValueError: x"),
        (raising(ValueError("")), "ValueError"),
        (raising(ValueError("one\ntwo")), "ValueError: one"),
        (raising(noted("a note")), "ValueError: a"),
        (raising(noted("")), "ValueError: a"),
        (raising(Unprintable()), "tests.unit.test_executor.Unprintable: <exception str() failed>"),
        (raising(ExceptionGroup("both", [ValueError("x")])), "ExceptionGroup: both (1 sub-exception)"),
        (raising(TimeoutError("its own")), "TimeoutError: its own"),
        (raising(SystemExit(3)), "SystemExit: 3"),
        (leaving, "SystemExit: 3"),
        (emptied, "RuntimeError: the handler raised StopIteration"),
        (cancelling_what_it_waits_for, "asyncio.exceptions.CancelledError"),
    ],
    ids=itertools.count(),
)
async def test_what_a_handler_raises_fails_its_attempt(executor: Executor, handler: Handler, first_line: str) -> None:
    again = await outcome(executor, handler, retry=1)
    assert (again.ending, again.result) == ("retry", None)
    assert again.error is not None
    assert again.error.splitlines()[0] == first_line
    final = await outcome(executor, handler, retry=0)
    assert (final.ending, final.delay) == ("failed", None)


@pytest.mark.parametrize("payload", ['{"value": 1e400}', '{"value": ' + "[" * 2000 + "]" * 2000 + "}"])
async def test_a_payload_that_cannot_be_read_fails_its_job(executor: Executor, payload: str) -> None:
    assert (await outcome(executor, lambda value: value, payload)).ending == "failed"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Snooze("5m", "x"), Outcome("snooze", error="x", delay=300.0)),
        (RetryAfter("5m", "x"), Outcome("retry", error="x", delay=300.0)),
        (Discard("x"), Outcome("failed", error="x")),
    ],
)
async def test_what_a_handler_decides_is_done(executor: Executor, error: Exception, expected: Outcome) -> None:
    assert await outcome(executor, raising(error)) == expected


async def test_long_errors_are_cut(executor: Executor) -> None:
    error = (await outcome(executor, raising(ValueError("x" * 100_000)))).error
    assert error is not None
    assert len(error) == MAX_ERROR


async def test_cancelling_the_worker_cancels_its_job(executor: Executor) -> None:
    begun = asyncio.Event()

    async def handler() -> None:
        begun.set()
        await asyncio.Event().wait()

    worker = asyncio.create_task(outcome(executor, handler))
    await begun.wait()
    worker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await worker


@pytest.mark.parametrize(
    ("why", "ending"), [("cancelled", "cancelled"), ("returned", "returned"), ("lost", "returned")]
)
async def test_a_job_that_is_halted_ends_as_it_was_told(executor: Executor, why: Any, ending: str) -> None:
    async def handler() -> None:
        (run,) = executor.running
        run.halt(why)
        await asyncio.Event().wait()

    assert (await outcome(executor, handler)).ending == ending


async def test_a_timeout_fails_the_attempt(executor: Executor) -> None:
    sweep = asyncio.create_task(executor.enforce_timeouts())
    ended = await outcome(executor, asyncio.Event().wait, timeout="10ms", retry=0)
    sweep.cancel()
    assert (ended.ending, ended.error) == ("failed", "timeout: it ran longer than 0.01 s")
