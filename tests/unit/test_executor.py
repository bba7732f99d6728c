"""Whatever a handler does, its attempt has one outcome and its worker goes on."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.support import Nobody, claimed
from workerd import Discard, PayloadError, Retry, RetryAfter, Snooze, task
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


class Exiting(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


class Speechless(Exception):
    def __str__(self) -> str:
        return None  # type: ignore[return-value]


class Unreadable(Exception):
    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]
        raise RuntimeError("not even those")


class Undecided(RetryAfter):
    """Does not call what it is derived from."""

    def __init__(self, why: str) -> None:
        Exception.__init__(self, why)


class Misspoken(Discard):
    def __init__(self) -> None:
        pass

    def __str__(self) -> str:
        return self.message  # type: ignore[attr-defined, no-any-return]


def deep(error: Exception) -> Exception:
    for _ in range(2000):
        error = ExceptionGroup("deep", [error])
    return error


def circular() -> Exception:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    return one


def delayed(error: RetryAfter | Snooze, delay: Any) -> Exception:
    error.delay = delay
    return error


def closing() -> None:
    raise GeneratorExit("closed")


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
        (raising(Exiting()), "tests.unit.test_executor.Exiting: <exception str() failed>"),
        (raising(Speechless()), "tests.unit.test_executor.Speechless: <exception str() failed>"),
        (raising(Unreadable("x")), "Unreadable: x"),
        (raising(ValueError("file \udce9.txt")), "ValueError: file \udce9.txt"),
        (raising(deep(ValueError("x"))), "ExceptionGroup: deep (1 sub-exception)"),
        (raising(circular()), "ValueError: one"),
        (raising(GeneratorExit("closed")), "GeneratorExit: closed"),
        (closing, "GeneratorExit: closed"),
        (raising(BaseExceptionGroup("all", [KeyboardInterrupt()])), "BaseExceptionGroup: all (1 sub-exception)"),
        (
            raising(Undecided("later")),
            "tests.unit.test_executor.Undecided: later (its delay cannot be used: AttributeError: "
            "'Undecided' object has no attribute 'delay')",
        ),
        (
            raising(delayed(Snooze(1, "x"), None)),
            "workerd.outcomes.Snooze: x (its delay cannot be used: ValueError: "
            "None is not a duration: use seconds, or 90s, 5m, 2h, 7d)",
        ),
        (
            raising(delayed(RetryAfter(1, "x"), 1e18)),
            "workerd.outcomes.RetryAfter: x (its delay cannot be used: ValueError: 1e+18 is not a duration: the longest is 36525d)",
        ),
        (
            raising(ExceptionGroup("both", [Discard("no"), ValueError("x")])),
            "ExceptionGroup: both (2 sub-exceptions)",
        ),
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
        (delayed(Snooze(1, "x"), "2m"), Outcome("snooze", error="x", delay=120.0)),
        (
            ExceptionGroup("", [Snooze(9, "a"), ExceptionGroup("", [Snooze(5, "b")])]),
            Outcome("snooze", error="a; b", delay=5.0),
        ),
        (ExceptionGroup("", [RetryAfter(5, "a"), RetryAfter(9, "a")]), Outcome("retry", error="a", delay=9.0)),
        (ExceptionGroup("", [Snooze(5), Discard("x")]), Outcome("failed", error="x")),
        (Misspoken(), Outcome("failed", error="(Misspoken cannot say what is wrong)")),
    ],
)
async def test_what_a_handler_decides_is_done(executor: Executor, error: Exception, expected: Outcome) -> None:
    assert await outcome(executor, raising(error)) == expected


async def test_long_errors_are_cut(executor: Executor) -> None:
    error = (await outcome(executor, raising(ValueError("x" * 100_000)))).error
    assert error is not None
    assert len(error) == MAX_ERROR


async def test_a_group_is_retried_for_its_errors_whatever_was_decided_beside_them(executor: Executor) -> None:
    group = ExceptionGroup("both", [Discard("no"), ValueError("x")])
    ended = await outcome(executor, raising(group), retry=Retry(max=3, on=ValueError))
    assert ended.ending == "retry"
    assert ended.error is not None
    assert "ValueError: x" in ended.error
    assert "Discard: no" in ended.error


async def test_a_payload_that_a_handler_enqueues_is_its_own_mistake(executor: Executor) -> None:
    """And not that of the job which it runs: so it is an error as others, with its place."""

    async def handler() -> None:
        raise PayloadError("the payload of another is not JSON")

    ended = await outcome(executor, handler, retry=3)
    assert (ended.ending, ended.delay is not None) == ("retry", True)
    assert ended.error is not None
    assert "in handler" in ended.error


@pytest.mark.parametrize("value", [object(), "x" * 1_100_000])
async def test_a_result_that_cannot_be_kept_fails_the_job_for_good(executor: Executor, value: object) -> None:
    async def handler() -> object:
        return value

    ended = await outcome(executor, handler, retry=3)
    assert ended.ending == "failed"
    assert ended.error is not None
    assert ended.error.startswith("the result of case ")


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
