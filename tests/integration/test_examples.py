"""The examples of the documentation run as they stand there."""

from __future__ import annotations

import asyncio
import shlex
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.examples import examples
from tests.support import InProcess, until
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
