"""Jobs that are enqueued, and finished, in transactions of the application: its rows and the queue's commit together or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.handlers import echo
from tests.integration.transactions import ASYNCHRONOUS, SYNCHRONOUS, insert, with_psycopg, with_psycopg_async
from tests.support import InProcess
from workerd import Call, Job, JobError, JobFailed, PayloadError, Queue, Retry, SyncQueue, TaskError, task
from workerd.queue import default_queue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    import asyncpg

    from workerd.settings import Settings

    DB = asyncpg.Connection[asyncpg.Record]
    Synchronous = Callable[[str], AbstractContextManager[Any]]
    Asynchronous = Callable[[str], AbstractAsyncContextManager[Any]]

HARD = "100% :p1 $1 %(p1)s 'it''s' \\ {\"a\"} ü"
AT = datetime(2031, 3, 1, 12, tzinfo=UTC)

synchronous = pytest.mark.parametrize("transaction", SYNCHRONOUS, ids=lambda opened: opened.__name__)
asynchronous = pytest.mark.parametrize("transaction", ASYNCHRONOUS, ids=lambda opened: opened.__name__)


class Rollback(Exception):
    """The application has changed its mind."""


@pytest.fixture
async def orders(db: DB) -> DB:
    """The application's own table."""
    await db.execute("CREATE TABLE orders (n int)")
    return db


@pytest.fixture
def sync_queue(dsn: str) -> Iterator[SyncQueue]:
    with SyncQueue.connect(dsn) as opened:
        yield opened


async def rows(db: DB) -> tuple[int, list[str]]:
    payloads = await db.fetch("SELECT payload ->> 'value' AS value FROM workerd.job ORDER BY id")
    return await db.fetchval("SELECT count(*) FROM orders"), [row["value"] for row in payloads]


def place(transaction: Synchronous, dsn: str, n: int, check: Callable[[], None]) -> None:
    with transaction(dsn) as connection:
        insert(connection, n)
        echo.enqueue_sync(HARD, connection=connection)
        check()


async def place_async(transaction: Asynchronous, dsn: str, n: int, check: Callable[[], None]) -> None:
    async with transaction(dsn) as connection:
        await insert(connection, n)
        await echo.enqueue(HARD, connection=connection)
        check()


def go_on() -> None:
    """The application commits."""


def change_my_mind() -> None:
    raise Rollback


@synchronous
async def test_a_row_and_its_job_commit_together_or_not_at_all(transaction: Synchronous, dsn: str, orders: DB) -> None:
    with pytest.raises(Rollback):
        await asyncio.to_thread(place, transaction, dsn, 1, change_my_mind)
    assert await rows(orders) == (0, [])
    await asyncio.to_thread(place, transaction, dsn, 2, go_on)
    assert await rows(orders) == (1, [HARD])


@asynchronous
async def test_and_so_they_do_where_the_driver_is_asynchronous(transaction: Asynchronous, dsn: str, orders: DB) -> None:
    with pytest.raises(Rollback):
        await place_async(transaction, dsn, 1, change_my_mind)
    assert await rows(orders) == (0, [])
    await place_async(transaction, dsn, 2, go_on)
    assert await rows(orders) == (1, [HARD])


ASKED: list[dict[str, Any]] = [
    {"queue": "other", "priority": 7, "run_at": AT, "key": "k", "max_retries": 4},
    {"delay": "5m", "key": "k", "conflict": "replace", "key_until": "started", "deadline": AT},
    {"deadline": "1h", "pin": "somewhere"},
    {"prefer": "somewhere", "max_retries": 0},
]
SHOWN = """
    SELECT task, queue, priority, key, max_retries, options, payload::text, run_at IS NULL AS now,
        run_at BETWEEN now() + interval '4 minutes' AND now() + interval '5 minutes' AS soon, run_at = '2031-03-01 12:00Z' AS then
    FROM workerd.job WHERE id = $1
"""


async def shown(db: DB, job: int) -> dict[str, Any]:
    """A job without what differs from one enqueue to the next."""
    row = await db.fetchrow(SHOWN, job)
    assert row is not None
    options = json.loads(row["options"] or "{}")
    if "deadline" in options:
        seconds = options["deadline"] - time.time()
        options["deadline"] = "within the hour" if 3500 < seconds < 3600 else options["deadline"]
    return {**row, "options": options}


@synchronous
@pytest.mark.parametrize("options", ASKED)
async def test_every_option_means_what_it_means_on_asyncpg(
    transaction: Synchronous, options: dict[str, Any], dsn: str, db: DB
) -> None:
    undone = db.transaction()
    await undone.start()
    expected = await shown(db, await echo.enqueue("x", connection=db, **options))
    await undone.rollback()

    def enqueue() -> int:
        with transaction(dsn) as connection:
            return echo.enqueue_sync("x", connection=connection, **options)

    assert await shown(db, await asyncio.to_thread(enqueue)) == expected


@asynchronous
async def test_many_jobs_chains_and_answers_go_into_the_transaction_as_well(
    transaction: Asynchronous, dsn: str, queue: Queue, db: DB
) -> None:
    async with transaction(dsn) as connection:
        ids = await queue.enqueue_many(
            echo, [{"value": HARD}, {"value": 2}, {"value": None}], connection=connection, delay=60
        )
        chain = await queue.chain(Call(echo, {"value": "a"}), Call(echo, {"value": "b"}), connection=connection)
        assert await queue.enqueue_many(echo, [], connection=connection) == []
        assert await queue.signal(ids[0], "paid", {"sum": "1.50"}, connection=connection)
        assert not await queue.signal(ids[0], "paid", {}, connection=connection)
        assert await db.fetchval("SELECT count(*) FROM workerd.job") == 0
    found = await db.fetch("SELECT id, payload::text, state FROM workerd.job ORDER BY id")
    assert [(row["id"], json.loads(row["payload"])["value"]) for row in found] == [
        (ids[0], HARD),
        (ids[1], 2),
        (ids[2], None),
        (chain[0], "a"),
        (chain[1], "b"),
    ]


def test_an_argument_of_a_wrong_type_leaves_the_transaction_as_it_was(dsn: str, sync_queue: SyncQueue) -> None:
    @task(name="typed")
    def typed(n: int) -> None: ...

    with with_psycopg(dsn) as connection:
        with pytest.raises(PayloadError, match="argument n: Input should be a valid integer"):
            typed.enqueue_sync("x", connection=connection)  # type: ignore[call-overload]
        job = typed.enqueue_sync(5, connection=connection)
    assert sync_queue.cancel(job) == "queued"


async def test_a_connection_of_the_wrong_kind_is_refused_in_one_line(dsn: str, db: DB) -> None:
    with pytest.raises(
        TaskError, match=r"connection is a sqlite3\.Connection, allowed are those of asyncpg, psycopg 3"
    ):
        await echo.enqueue("x", connection=sqlite3.connect(":memory:"))
    async with with_psycopg_async(dsn) as connection:
        with pytest.raises(TaskError, match="this connection is asynchronous"):
            echo.enqueue_sync("x", connection=connection)
    assert await db.fetchval("SELECT count(*) FROM workerd.job") == 0


async def test_threads_share_a_synchronous_queue(settings: Settings, sync_queue: SyncQueue) -> None:
    def use(n: int) -> Any:
        return sync_queue.result(sync_queue.enqueue(echo, {"value": n}), timeout=60)

    async with InProcess(settings):
        assert await asyncio.gather(*(asyncio.to_thread(use, n) for n in range(8))) == list(range(8))


def test_a_synchronous_queue_does_what_the_other_one_does(dsn: str, sync_queue: SyncQueue) -> None:
    with sync_queue.batch(on_finished=Call("report")) as batch:
        first = batch.enqueue("echo", {"value": 1})
        batch.enqueue_many("echo", [{"value": 2}])
    assert batch.id
    assert batch.finished_id
    assert sync_queue.change(first, priority=9) == "queued"
    assert sync_queue.cancel(first) == "scheduled"
    with pytest.raises(JobFailed, match="cancelled"):
        sync_queue.result(first)
    assert sync_queue.retry(first) == "cancelled"
    with contextlib.suppress(Rollback), sync_queue.batch() as batch:
        left = batch.enqueue("echo", {"value": 3})
        raise Rollback
    with pytest.raises(JobError, match="there is no job"):
        sync_queue.result(left)
    with pytest.raises(TimeoutError):
        sync_queue.result(first, timeout=0.05)
    assert len(sync_queue.chain(Call("echo"), Call("echo"))) == 2


@pytest.mark.workerd_use_settings
def test_a_task_finds_the_queue_of_the_settings_without_a_loop(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from workerd.queue import sync_client

    monkeypatch.setenv("DATABASE_URL", dsn)
    monkeypatch.setattr(sync_client, "_default", None)
    job = echo.enqueue_sync("x", delay=60)
    default = sync_client.default()
    assert default.cancel(job) == "scheduled"
    default.close()


def open_for(kind: str) -> Any:
    return next(opened for opened in [*SYNCHRONOUS, *ASYNCHRONOUS] if opened.__name__ == kind)


@task(retry=Retry(max=1, interval=0.01), result_ttl="1d")
def finishes_in(dsn: str, kind: str, fails: bool, *, job: Job) -> str:
    """Its first attempt raises behind `finish_in` when it `fails`."""
    with open_for(kind)(dsn) as connection:
        insert(connection, job.attempt)
        job.finish_in(connection, {"attempt": job.attempt})
        if fails and job.attempt == 1:
            raise Rollback
    return "ignored"


@task(retry=Retry(max=1, interval=0.01), result_ttl="1d")
async def finishes_in_async(dsn: str, kind: str, fails: bool, *, job: Job) -> str:
    async with open_for(kind)(dsn) as connection:
        await insert(connection, job.attempt)
        await job.finish_in(connection, {"attempt": job.attempt})
        if fails and job.attempt == 1:
            raise Rollback
    return "ignored"


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("transaction", [*SYNCHRONOUS, *ASYNCHRONOUS], ids=lambda opened: opened.__name__)
async def test_a_row_and_the_success_commit_together_or_not_at_all(
    transaction: Any, fails: bool, settings: Settings, queue: Queue, orders: DB, dsn: str
) -> None:
    handler = finishes_in if transaction in SYNCHRONOUS else finishes_in_async
    async with InProcess(settings):
        job = await queue.enqueue(handler, {"dsn": dsn, "kind": transaction.__name__, "fails": fails})
        assert await queue.result(job, timeout=60) == {"attempt": 1 + fails}
    assert [row["n"] for row in await orders.fetch("SELECT n FROM orders")] == [1 + fails]


@task(retry=0)
def finishes_outside(dsn: str, *, job: Job) -> None:
    with with_psycopg(dsn) as connection:
        connection.autocommit = True
        job.finish_in(connection)


async def test_a_finish_outside_a_transaction_is_refused(settings: Settings, queue: Queue, dsn: str) -> None:
    async with InProcess(settings):
        job = await queue.enqueue(finishes_outside, {"dsn": dsn})
        with pytest.raises(JobFailed, match="finish_in needs an open transaction"):
            await queue.result(job, timeout=60)


def test_no_queue_is_opened_for_a_connection_of_the_caller(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from workerd.queue import sync_client

    monkeypatch.setattr(sync_client, "default", None)
    monkeypatch.setattr(default_queue, "default", None)
    with with_psycopg(dsn) as connection:
        assert echo.enqueue_sync("x", connection=connection)
