"""Handlers that use Django's ORM: its connections are closed around each run, as around a request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support import DaemonProcess, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import asyncpg

    from workerd import Queue
    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]

TASKS = ("asks", "asks_on_loop", "asks_in_child")
OF_DJANGO = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'SELECT pg_backend_pid(), %is_superuser%'
    AND pid <> pg_backend_pid()
"""
END = OF_DJANGO.replace("count(*)", "count(pg_terminate_backend(pid))")


@pytest.fixture
async def site(settings: Settings, dsn: str, request: pytest.FixtureRequest) -> AsyncIterator[DaemonProcess]:
    """A daemon whose application has set Django up, on the test's database; its connections last as the test says."""
    changes = {"tasks": ("tests.django_handlers",), "retry_delay": 0.01}
    environment = {"DJANGO_DATABASE": dsn, "DJANGO_MAX_AGE": getattr(request, "param", "0")}
    with DaemonProcess(settings.model_copy(update=changes), **environment) as daemon:
        await asyncio.to_thread(daemon.start)
        yield daemon


async def test_connections_do_not_outlive_their_runs_and_threads_are_used_again(
    site: DaemonProcess, queue: Queue, db: DB
) -> None:
    jobs = await queue.enqueue_many("asks", [{}] * 50)
    answers = [await queue.result(job, timeout=60) for job in jobs]
    assert len({answer["thread"] for answer in answers}) <= site.settings.workers
    assert {answer["seen"] for answer in answers} == {0}  # no context of an earlier job
    for task in ("asks_on_loop", "asks_in_child", "leaves_a_transaction_open", "asks"):
        await queue.result(await queue.enqueue(task), timeout=60)

    async def none_is_left() -> bool:
        return bool(await db.fetchval(OF_DJANGO) == 0)

    await until(none_is_left, "Django's connections are closed")


@pytest.mark.parametrize("site", ["None"], indirect=True)
async def test_connections_that_last_are_as_many_as_threads_and_are_replaced_when_the_server_ends_them(
    site: DaemonProcess, queue: Queue, db: DB
) -> None:
    jobs = [job for task in TASKS for job in await queue.enqueue_many(task, [{}] * 8)]
    for job in jobs:
        await queue.result(job, timeout=60)
    assert 0 < await db.fetchval(OF_DJANGO) <= 3 * site.settings.workers
    await db.fetchval(END)
    jobs = [job for task in TASKS for job in await queue.enqueue_many(task, [{}] * 8)]
    for job in jobs:
        await queue.result(job, timeout=60)
    # an attempt for each connection that was lost: the next finds a new one
    attempts = await db.fetchval("SELECT sum(failures) FROM workerd.history WHERE id = ANY ($1)", jobs)
    assert attempts <= 3 * site.settings.workers
