"""Around a run: resources of the daemon, and middleware."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

import tests.handlers  # noqa: F401 - its tasks are there before those of a test
from tests.support import InProcess, until_state
from workerd import Discard, TaskError, middleware, resource, task, testing, use
from workerd.around import registry as middlewares
from workerd.daemon import current
from workerd.tasks import registry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    import asyncpg

    from workerd import Job, Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]


@pytest.fixture(autouse=True)
def own() -> Iterator[None]:
    """Tasks and middleware of one test."""
    before = dict(registry)
    yield
    registry.clear()
    registry.update(before)
    middlewares.clear()


async def test_resources_are_opened_once_and_closed_in_reverse(settings: Settings, queue: Queue) -> None:
    told: list[str] = []

    @resource
    async def first() -> AsyncIterator[str]:
        told.append("first opens")
        yield "first"
        told.append("first closes")

    @resource
    async def second() -> AsyncIterator[str]:
        told.append("second opens")
        yield "second"
        told.append("second closes")

    @task(name="with_resources")
    async def with_resources(*, a: str = use(first), b: str = use(second)) -> list[str]:
        return [a, b]

    @task(name="with_resource")
    def with_resource(n: int, *, a: str = use(first)) -> list[Any]:
        return [n, a]

    async with InProcess(settings):
        jobs = [await queue.enqueue("with_resources") for _ in range(5)]
        assert [await queue.result(job, timeout=60) for job in jobs] == [["first", "second"]] * 5
        assert await queue.result(await queue.enqueue("with_resource", {"n": 1}), timeout=60) == [1, "first"]
        assert told == ["first opens", "second opens"]
    assert told == ["first opens", "second opens", "second closes", "first closes"]


async def test_a_resource_knows_nothing_of_the_job_that_is_the_first_to_need_it(
    settings: Settings, queue: Queue
) -> None:
    tenant: ContextVar[str | None] = ContextVar("tenant", default=None)
    seen: list[object] = []

    async def look() -> None:
        seen.extend((current.attempt.get(), tenant.get()))

    @resource
    async def clean() -> AsyncIterator[None]:
        await asyncio.create_task(look())
        yield

    @middleware
    async def as_tenant(_job: Job, call_next: Callable[[], Awaitable[Any]]) -> Any:
        tenant.set("ACME")
        return await call_next()

    @task(name="needs_it")
    async def needs_it(*, _it: None = use(clean)) -> str | None:
        return tenant.get()

    async with InProcess(settings):
        assert await queue.result(await queue.enqueue("needs_it"), timeout=60) == "ACME"
    assert seen == [None, None]


async def test_many_jobs_at_once_share_one_that_opens_slowly(settings: Settings, queue: Queue, db: DB) -> None:
    opened = 0
    go_on = asyncio.Event()

    @resource
    async def slow() -> AsyncIterator[int]:
        nonlocal opened
        opened += 1
        await go_on.wait()
        yield opened

    @task(name="patient")
    async def patient(*, n: int = use(slow)) -> int:
        return n

    @task(name="hasty", timeout=0.1)
    async def hasty(*, n: int = use(slow)) -> int:
        return n

    async with InProcess(settings):
        cut = await queue.enqueue("hasty", max_retries=0)
        jobs = [await queue.enqueue("patient") for _ in range(3)]
        await until_state(db, cut, "failed")
        go_on.set()
        assert [await queue.result(job, timeout=60) for job in jobs] == [1, 1, 1]


async def test_one_that_cannot_be_opened_fails_the_attempt_and_is_tried_again(
    settings: Settings, queue: Queue, db: DB
) -> None:
    tries = 0

    @resource
    async def flaky() -> AsyncIterator[str]:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ConnectionError("nobody there")
        yield "here"

    @task(name="wants_flaky")
    async def wants_flaky(*, it: str = use(flaky)) -> str:
        return it

    async with InProcess(settings):
        job = await queue.enqueue("wants_flaky")
        row = await until_state(db, job, "succeeded")
        assert row["attempt"] == 2
        assert "cannot be opened: ConnectionError: nobody there" in row["attempts"]


async def test_middleware_sees_every_kind_of_handler_in_its_order_and_may_decide(
    settings: Settings, queue: Queue, db: DB
) -> None:
    told: list[tuple[str, Any]] = []

    @middleware
    async def outer(job: Job, call_next: Callable[[], Awaitable[Any]]) -> Any:
        told.append(("outer", job.payload))
        if job.payload.get("value") == "refuse":
            raise Discard("refused")
        return await call_next()

    @middleware
    async def inner(job: Job, call_next: Callable[[], Awaitable[Any]]) -> Any:
        told.append(("inner", job.task))
        result = await call_next()
        return {"wrapped": result}

    async with InProcess(settings):
        for name in ("echo", "echo_in_thread", "echo_in_child"):
            assert await queue.result(await queue.enqueue(name, {"value": 1}), timeout=60) == {"wrapped": 1}
            assert told == [("outer", {"value": 1}), ("inner", name)]
            told.clear()
        refused = await until_state(db, await queue.enqueue("echo", {"value": "refuse"}), "failed")
        assert refused["error"] == "refused"


async def test_inline_runs_open_what_they_use_and_close_it() -> None:
    closed = []

    @resource
    async def thing() -> AsyncIterator[str]:
        yield "thing"
        closed.append("thing")

    @task(name="wants_thing")
    async def wants_thing(n: int, *, it: str = use(thing)) -> str:
        return it * n

    assert await testing.run(wants_thing, {"n": 2}) == "thingthing"
    assert closed == ["thing"]
    assert wants_thing.arguments.bind(2) == {"n": 2}


def test_a_task_in_a_process_of_its_own_has_none() -> None:
    @resource
    async def thing() -> AsyncIterator[str]:
        yield "thing"

    with pytest.raises(TaskError, match="cpu=True runs in a process of its own, which has no resources"):

        @task(name="cpu_thing", cpu=True)
        def cpu_thing(*, it: str = use(thing)) -> str:
            return it
