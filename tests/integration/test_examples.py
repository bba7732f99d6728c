"""The examples of the documentation run as they stand there."""

from __future__ import annotations

import asyncio
import shlex
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

import tests.handlers  # noqa: F401 - its tasks are there before those of a test
from tests.examples import examples
from tests.support import InProcess, until
from workerd.around import registry as middlewares
from workerd.tasks import registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    import asyncpg

    from tests.support import Ctl
    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]


@pytest.fixture(autouse=True)
def own_tasks() -> Iterator[None]:
    """Tasks of a page are those of its test alone."""
    before = dict(registry)
    yield
    registry.clear()
    registry.update(before)


def run(page: str, place: int) -> dict[str, Any]:
    """The names that a block of a page defines."""
    names: dict[str, Any] = {"__name__": page}
    exec(compile(examples(page)[place], page, "exec", dont_inherit=True), names)  # noqa: S102 - our own pages
    return names


async def test_dependencies(settings: Settings, queue: Queue) -> None:
    count, flows, batch = (run("dependencies.md", place) for place in range(3))
    async with InProcess(settings):
        assert await count["count"](queue, ["one two", "three", "four five six"]) == 6
        assert await queue.result(await flows["flow"](queue), timeout=10) == [
            "text of a.html in French",
            "text of a.html in German",
        ]
        assert await queue.result(await flows["chain"](queue), timeout=10) == "text of b.html in Danish"
        assert await batch["convert_all"](queue) == "19 of 20 pages"


async def test_arguments(settings: Settings, queue: Queue) -> None:
    order = run("arguments.md", 0)["order"]
    async with InProcess(settings):
        assert await queue.result(await order(queue), timeout=10) == {"total": "2.50", "days": 30}


async def test_limits(settings: Settings, queue: Queue, db: DB, ctl: Ctl) -> None:
    run("limits.md", 0)
    async with InProcess(settings):
        for line in examples("limits.md", "sh")[0].splitlines():
            assert ctl(*line.partition("#")[0].split()[1:]).returncode == 0
        await queue.enqueue_many("sync", [{"tenant": tenant} for tenant in "aaaabbb"])
        await queue.enqueue_many("call_api", [{"text": "hello"}] * 30)
        await until(
            lambda: db.fetchval("SELECT count(*) = 37 FROM workerd.history WHERE state = 'succeeded'"), "all have run"
        )


async def test_options(settings: Settings, queue: Queue, db: DB, ctl: Ctl) -> None:
    names = run("options.md", 0)
    jobs = {await names["edited"](queue, 7) for _ in range(5)}
    assert len(jobs) == 1
    edit, ageing = examples("options.md", "sh")[0].splitlines()
    assert ctl(*edit.replace("42", str(*jobs)).split()[1:]).returncode == 0
    assert ctl(*ageing.split()[1:]).returncode == 0
    async with InProcess(settings.model_copy(update={"node_name": "here"})):
        pinned, preferring = await names["warm_up"](queue, "here")
        found = [
            await queue.result(job, timeout=10) for job in (*jobs, await names["greet"](queue), pinned, preferring)
        ]
    assert found == [7, 1, 2, 3]


async def test_around_a_run(settings: Settings, queue: Queue) -> None:
    shared = run("around-a-run.md", 0)
    measured = run("around-a-run.md", 1)
    try:
        async with InProcess(settings):
            for n in range(3):
                assert await queue.result(await queue.enqueue("fetch", {"url": "a.html"}), timeout=10) == n + 1
            assert await queue.result(await queue.enqueue("echo_in_thread", {"value": 1}), timeout=10) == 1
        assert [client.closed for client in shared["clients"]] == [True]
        assert measured["took"].keys() == {"fetch", "echo_in_thread"}
    finally:
        middlewares.remove(measured["measure"])


async def test_schedules(settings: Settings, queue: Queue, db: DB, ctl: Ctl) -> None:
    declared, at_run_time = "\n".join(examples("schedules.md")[:1]), examples("schedules.md")[1]
    names: dict[str, Any] = {"__name__": "schedules.md"}
    exec(compile(declared + at_run_time, "schedules.md", "exec", dont_inherit=True), names)  # noqa: S102 - our own pages
    async with InProcess(settings):
        listed = {row["name"] for row in await db.fetch("SELECT name FROM workerd.schedule")}
        assert listed >= {"weekly_report", "poll inbox", "poll archive", "tick"}
        for line in examples("schedules.md", "sh")[0].splitlines():
            done = await asyncio.to_thread(ctl, *shlex.split(line)[1:])
            assert done.returncode == 0, done.stderr
        await names["remind"](queue, datetime.now(UTC) + timedelta(seconds=1))
        once = "SELECT count(*) = 1 FROM workerd.history WHERE state = 'succeeded' AND key LIKE 'schedule:once@%'"
        await until(lambda: db.fetchval(once), "it has run once")
        ticked = "SELECT count(*) > 0 FROM workerd.history WHERE state = 'succeeded' AND task = 'tick'"
        await until(lambda: db.fetchval(ticked), "it has ticked")
