"""What code does at the start and at the end of its daemon, and who listens to the ends of attempts."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

import tests.handlers  # noqa: F401 - its tasks are there before those of a test
from tests.faults.fleet import run_to_its_end
from tests.support import InProcess, until, until_state
from workerd import Ended, Retry, Snooze, TaskError, on_end, on_shutdown, on_startup, resource, task, use
from workerd.daemon import lifecycle, listeners
from workerd.ended import listeners as registered
from workerd.errors import StartupError
from workerd.lifecycle import shutdowns, startups
from workerd.tasks import registry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    import asyncpg

    from workerd import Job, Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]


STATE = "SELECT state FROM workerd.history WHERE id = $1"


@pytest.fixture(autouse=True)
def own() -> Iterator[None]:
    """What one test registers is its own."""
    before = dict(registry)
    yield
    registry.clear()
    registry.update(before)
    for each in (startups, shutdowns, registered):
        each.clear()


async def test_starts_come_before_the_first_claim_and_ends_behind_the_last_job_in_reverse(
    settings: Settings, queue: Queue
) -> None:
    told: list[str] = []

    @resource
    async def thing() -> AsyncIterator[str]:
        yield "thing"
        told.append("thing is closed")

    @on_startup
    async def first(*, it: str = use(thing)) -> None:
        told.append(f"first has {it}")

    @on_startup
    def second() -> None:
        told.append(f"second, on the loop: {threading.current_thread() is threading.main_thread()}")

    @on_shutdown
    async def last(*, it: str = use(thing)) -> None:
        told.append(f"last has {it}")

    @on_shutdown
    def last_but_one() -> None:
        told.append("last but one")

    @task(name="between")
    async def between() -> None:
        told.append("a job")

    job = await queue.enqueue("between")
    async with InProcess(settings):
        await queue.result(job, timeout=60)
    assert told == [
        "first has thing",
        "second, on the loop: False",
        "a job",
        "last but one",
        "last has thing",
        "thing is closed",
    ]


async def test_objects_partials_and_wrapped_coroutines_take_part_too(settings: Settings, queue: Queue) -> None:
    told: list[str] = []
    heard = asyncio.Event()

    class Opens:
        async def __call__(self, what: str = "object") -> None:
            await asyncio.sleep(0)
            told.append(what)

    async def listen(how: str, end: Ended) -> None:
        await asyncio.sleep(0)
        told.append(f"{how} {end.how}")
        heard.set()

    async def inner() -> None:
        await asyncio.sleep(0)
        told.append("behind a wrapper")

    on_startup(Opens())
    on_startup(functools.partial(Opens(), "partial"))
    on_end("succeeded")(functools.partial(listen, "heard"))
    on_shutdown(lambda: inner())
    on_shutdown(functools.partial(divmod, 1, 0))
    job = await queue.enqueue("echo", {"value": 1})
    async with InProcess(settings):
        await queue.result(job, timeout=60)
        await asyncio.wait_for(heard.wait(), 60)
    assert told == ["object", "partial", "heard succeeded", "behind a wrapper"]


@pytest.mark.parametrize(
    "error", [ConnectionError("nobody there\nat all"), SystemExit("no model"), asyncio.CancelledError()]
)
async def test_a_start_that_fails_is_the_daemon_s_end_in_one_line(
    settings: Settings, queue: Queue, db: DB, error: BaseException
) -> None:
    told: list[str] = []

    @on_startup
    async def opens() -> None:
        told.append("opens")

    @on_startup
    async def fails() -> None:
        raise error

    @on_startup
    async def never() -> None:
        told.append("never")

    @on_shutdown
    async def closes() -> None:
        told.append("closes")

    job = await queue.enqueue("echo", {"value": 1})
    with pytest.raises(StartupError) as raised:
        async with InProcess(settings):
            pass
    assert str(raised.value).startswith(f"on_startup {fails.__qualname__} failed: {type(error).__name__}")
    assert "\n" not in str(raised.value)
    assert told == ["opens", "closes"]
    await until_state(db, job, "queued")
    assert await db.fetchval("SELECT count(*) FROM workerd.node") == 0


def test_a_daemon_whose_start_fails_exits_with_one_line(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from workerd import on_startup, task\n@task\nasync def sell() -> None: ...\n"
        "@on_startup\ndef connect() -> None:\n    raise ConnectionError('postgres://me:hunter2@shop is away')\n"
    )
    done = run_to_its_end(settings.model_copy(update={"tasks": ("shop",), "app_dir": tmp_path}))
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if line.startswith("workerd: ")]
    assert said == ["workerd: on_startup connect failed: ConnectionError: postgres://me:********@shop is away"]


async def test_a_start_or_an_end_that_takes_too_long_is_left_behind(
    settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    go_on = threading.Event()
    done: list[str] = []

    @on_shutdown
    async def quick() -> None:
        done.append("quick")

    @on_shutdown
    def hangs() -> None:
        go_on.wait()

    @on_shutdown
    async def fails() -> None:
        raise ValueError("at the end")

    monkeypatch.setattr(lifecycle, "SHUTDOWN_LIMIT", 0.2)
    monkeypatch.setattr(lifecycle, "LEAST", 0.1)
    async with InProcess(settings):
        pass
    assert "fails failed: ValueError: at the end" in caplog.text
    assert "hangs failed: TimeoutError: it takes longer than 0.2 s" in caplog.text
    assert done == ["quick"]
    startups.append(hangs)
    monkeypatch.setattr(lifecycle, "STARTUP_LIMIT", 0.2)
    with pytest.raises(StartupError, match="hangs failed: TimeoutError: it takes longer than"):
        async with InProcess(settings):
            pass
    go_on.set()


async def test_whoever_listens_is_told_of_each_end_when_it_is_written(settings: Settings, queue: Queue, db: DB) -> None:
    heard: list[Ended] = []
    failures: list[str] = []

    @on_end("succeeded", "retried", "failed", "snoozed", "cancelled", "returned")
    async def all_of_them(ended: Ended) -> None:
        if ended.how in ("failed", "cancelled"):
            async with queue.connection() as connection:
                assert await connection.fetchval(STATE, ended.job_id) == ended.how
        heard.append(ended)

    @on_end("failed")
    def in_thread(ended: Ended) -> None:
        assert threading.current_thread() is not threading.main_thread()
        failures.append(f"{ended.task} {ended.payload} {ended.error}")

    @task(name="thrice", queue="some", retry=Retry(max=1, interval=0.01))
    async def thrice(way: str, *, job: Job) -> None:
        if job.attempt == 1:
            raise Snooze(0)
        raise ValueError(way)

    @task(name="endless_here")
    async def endless() -> None:
        await asyncio.sleep(60)

    async with InProcess(settings) as node:
        job = await queue.enqueue("thrice", {"way": "wrong"})
        await until_state(db, job, "failed")
        good = await queue.enqueue("echo_in_thread", {"value": 1})
        await queue.result(good, timeout=60)
        stopped = await queue.enqueue("endless_here")
        await until_state(db, stopped, "running")
        await queue.cancel(stopped)
        await until_state(db, stopped, "cancelled")
        back = await queue.enqueue("endless_here")
        await until_state(db, back, "running")
        await node.stop(timeout=0.1)
    assert [(each.job_id, each.how, each.attempt) for each in heard] == [
        (job, "snoozed", 1),
        (job, "retried", 2),
        (job, "failed", 3),
        (good, "succeeded", 1),
        (stopped, "cancelled", 1),
        (back, "returned", 1),
    ]
    retried = heard[1]
    assert (retried.task, retried.queue, retried.delay, retried.payload) == ("thrice", "some", 0.01, {"way": "wrong"})
    assert retried.error is not None
    assert failures == [f"thrice {{'way': 'wrong'}} {heard[2].error}"]


async def test_what_a_listener_does_breaks_and_delays_nothing(
    settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listeners, "LAST", 0.1)
    heard: list[int] = []

    @on_end("succeeded")
    async def stuck(_ended: Ended) -> None:
        await asyncio.Event().wait()

    @on_end("succeeded")
    async def broken(ended: Ended) -> None:
        raise [ValueError("no good"), SystemExit(1), asyncio.CancelledError(), KeyboardInterrupt()][
            ended.payload["value"]
        ]

    @on_end("succeeded")
    async def good(ended: Ended) -> None:
        heard.append(ended.job_id)

    caplog.set_level(logging.ERROR)
    async with InProcess(settings):
        jobs = await queue.enqueue_many("echo", [{"value": value} for value in range(4)])
        assert [await queue.result(job, timeout=60) for job in jobs] == [0, 1, 2, 3]
    assert sorted(heard) == jobs
    for error in ("ValueError: no good", "SystemExit: 1", "CancelledError", "KeyboardInterrupt"):
        assert f"broken failed: {error}" in caplog.text
    assert "stuck does not come to an end: 3 ends are not told to it" in caplog.text


async def test_one_that_is_far_behind_loses_ends_and_the_log_says_how_many(
    settings: Settings, queue: Queue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listeners, "LONGEST", 5)
    go_on = asyncio.Event()
    heard: list[Any] = []

    @on_end("succeeded")
    async def slow(ended: Ended) -> None:
        await go_on.wait()
        heard.append(ended)

    caplog.set_level(logging.WARNING)
    async with InProcess(settings):
        for job in await queue.enqueue_many("echo", [{"value": value} for value in range(20)]):
            await queue.result(job, timeout=60)

        async def fell_behind() -> bool:
            return "is 5 ends behind" in caplog.text

        await until(fell_behind, "it fell behind")
        go_on.set()
    assert len(heard) in (5, 6)
    assert f"has caught up, {20 - len(heard)} ends were dropped" in caplog.text


@pytest.mark.parametrize("how", [(), ("retry",)])
def test_what_is_no_end_is_refused(how: tuple[Any, ...]) -> None:
    with pytest.raises(TaskError, match=r"on_end: .* given, allowed are succeeded, retried, failed"):
        on_end(*how)
