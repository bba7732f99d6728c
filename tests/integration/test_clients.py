"""What one client does, or what happens to it, hinders no other: cancelled calls, lost connections, ended loops, forks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.cutting import Relay
from tests.handlers import echo
from tests.integration.transactions import SYNCHRONOUS
from tests.support import ROOT, until
from workerd import Call, Queue, SyncQueue
from workerd.errors import DatabaseError, WorkerdError, WriteUnknown
from workerd.queue import default_queue, sync_client
from workerd.queue.enqueue import COPY_FROM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import asyncpg

    DB = asyncpg.Connection[asyncpg.Record]

TURNS = range(12)  # of the loop before a call is cancelled: more than an enqueue has points at which it waits
CLIENTS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'worker client'"
)
END_OTHERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


async def jobs(db: DB) -> set[str]:
    return {row[0] for row in await db.fetch("SELECT payload ->> 'value' FROM workerd.job")}


async def turn(times: int) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


async def test_a_cancelled_caller_leaves_all_others_their_answers(queue: Queue) -> None:
    """First alone, then behind a crowd, and cancelled before, between and behind each step of the way."""
    for turns in TURNS:
        for crowd in (1, 3):
            await asyncio.gather(*(queue.enqueue("echo") for _ in range(crowd)))
            first = asyncio.create_task(queue.enqueue("echo"))
            await turn(turns % 3)
            others = [asyncio.create_task(queue.enqueue("echo")) for _ in range(crowd - 1)]
            await turn(turns)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            ids = await asyncio.wait_for(asyncio.gather(*others, queue.enqueue("echo"), queue.enqueue("echo")), 60)
            assert len(set(ids)) == crowd + 1


async def test_a_lone_caller_behind_a_crowd_is_written_without_a_task_again(queue: Queue) -> None:
    await asyncio.gather(*(queue.enqueue("echo") for _ in range(5)))
    await queue.enqueue("echo")
    call = asyncio.create_task(queue.enqueue("echo"), name="caller")
    await turn(1)
    assert "enqueue" not in {task.get_name() for task in asyncio.all_tasks()}
    await call


async def test_a_caller_who_gives_up_waiting_for_the_pool_leaves_it_to_the_others(dsn: str) -> None:
    async with Queue.connect(dsn, pool_size=1) as queue:
        async with queue.connection():
            calls = [asyncio.create_task(queue.enqueue("echo")) for _ in range(3)]
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(queue.enqueue("echo"), 0.05)
            calls[0].cancel()
            await asyncio.wait([calls[0]])
        assert all(await asyncio.wait_for(asyncio.gather(*calls[1:], queue.enqueue("echo")), 60))


async def test_a_pool_that_cannot_be_had_is_each_callers_error(dsn: str) -> None:
    async with Queue.connect(dsn, pool_size=1, acquire_timeout=0.05) as queue:
        async with queue.connection():
            errors = await asyncio.gather(*(queue.enqueue("echo") for _ in range(5)), return_exceptions=True)
            assert [type(error) for error in errors] == [DatabaseError] * 5
        assert await queue.enqueue("echo")


async def test_whoever_cancels_all_tasks_cancels_no_later_call(queue: Queue) -> None:
    for turns in TURNS:
        calls = [asyncio.create_task(queue.enqueue("echo")) for _ in range(5)]
        await turn(turns)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.wait(calls, timeout=60)
        assert await asyncio.wait_for(asyncio.gather(queue.enqueue("echo"), queue.enqueue("echo", key="k")), 60)


async def test_a_queue_that_is_closed_writes_what_it_was_given_and_refuses_the_rest(dsn: str, db: DB) -> None:
    queue = await Queue.connect(dsn)
    calls = [asyncio.create_task(queue.enqueue("echo", {"value": n})) for n in range(50)]
    await turn(2)
    await asyncio.gather(queue.close(), queue.close())
    ids = await asyncio.gather(*calls)
    assert await jobs(db) == {str(n) for n in range(len(ids))}
    for call in (
        queue.enqueue("echo"),
        queue.enqueue("echo", key="k"),
        queue.enqueue_many("echo", [{}]),
        queue.result(1),
    ):
        with pytest.raises(DatabaseError, match=r"was closed: open another one with Queue\.connect"):
            await call
    await queue.close()


async def test_a_queue_is_refused_in_another_loop_in_one_line(queue: Queue) -> None:
    await queue.enqueue("echo")

    def use() -> list[Any]:
        async def calls() -> list[Any]:
            return [
                (await asyncio.gather(call, return_exceptions=True))[0]
                for call in (queue.enqueue("echo"), queue.enqueue("echo", key="k"), queue.enqueue_many("echo", [{}]))
            ]

        return asyncio.run(calls())

    for error in await asyncio.to_thread(use):
        assert isinstance(error, DatabaseError)
        assert "belongs to another event loop" in str(error)
    assert await queue.enqueue("echo")


async def test_calls_of_a_synchronous_queue_end_when_another_thread_closes_it(dsn: str) -> None:
    queue = SyncQueue.connect(dsn)
    job = queue.enqueue("echo")
    waiting = asyncio.create_task(asyncio.to_thread(queue.result, job, timeout=60))
    writing = [asyncio.create_task(asyncio.to_thread(queue.enqueue, "echo")) for _ in range(5)]
    await asyncio.wait(writing)
    await asyncio.to_thread(queue.close)
    with pytest.raises(DatabaseError, match="was closed"):
        await asyncio.wait_for(waiting, 60)
    with pytest.raises(DatabaseError, match="was closed"):
        queue.enqueue("echo")
    queue.close()


async def test_a_batch_whose_begin_is_cancelled_gives_its_connection_back(dsn: str) -> None:
    async with Queue.connect(dsn, pool_size=1, acquire_timeout=20) as queue:
        for turns in TURNS:

            async def batch() -> None:
                async with queue.batch() as batch:
                    await batch.enqueue("echo")

            task = asyncio.create_task(batch())
            await turn(turns)
            task.cancel()
            await asyncio.wait([task])
            async with queue.connection() as connection:
                assert not connection.is_in_transaction()


class Mistake(Exception):
    """Of the application."""


async def _batch_that_raises(queue: Queue, error: Exception) -> None:
    async with queue.batch() as batch:
        await batch.enqueue("echo")
        raise error


async def test_what_a_block_of_a_batch_raises_is_raised_as_it_is(queue: Queue, db: DB) -> None:
    for error in (Mistake("mine"), FileNotFoundError("mine")):
        with pytest.raises(type(error), match="mine"):
            await _batch_that_raises(queue, error)
    assert await jobs(db) == set()


async def test_two_flows_with_the_same_keys_in_another_order_are_both_written(queue: Queue, dsn: str, db: DB) -> None:
    """The other one holds the second key, and then waits for the first."""
    await db.execute(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = ''50ms''', current_database()); END $$"
    )
    async with Queue.connect(dsn) as soon:  # its sessions notice a circle before that of `db` does
        async with db.transaction():
            second = await soon.enqueue("echo", key="b", connection=db)
            calls = Call("echo", options={"key": "a"}), Call("echo", options={"key": "b"})
            chain = asyncio.create_task(soon.chain(*calls))
            blocked = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            async with queue.connection() as looking:
                await until(lambda: looking.fetchval(blocked), "the chain waits for b")
            await soon.enqueue("echo", key="a", connection=db)
        assert (await chain)[1] == second
    assert await db.fetchval("SELECT count(*) FROM workerd.key") == 2


async def test_flows_take_keys_in_one_order(queue: Queue) -> None:
    calls = {name: Call("echo", options={"key": name}) for name in "cab"}
    ids = await queue.flow(calls)
    assert list(ids) == ["c", "a", "b"]
    assert sorted(ids, key=ids.__getitem__) == ["a", "b", "c"]


@pytest.mark.parametrize("many", [1, 3, COPY_FROM])
async def test_what_was_written_is_told_although_the_session_ends_behind_the_answer(
    many: int, dsn: str, db: DB
) -> None:
    async with Relay(dsn) as relay, Queue.connect(relay.dsn) as queue:
        relay.cut(b"COMMIT" if many >= COPY_FROM else b'"cut"', "heard")
        ids = await queue.enqueue_many("echo", [{"value": "cut"}] * many)
        assert len(ids) == many == await db.fetchval("SELECT count(*) FROM workerd.job")
        assert await queue.enqueue("echo")


async def test_an_answer_that_is_lost_leaves_open_whether_it_was_written_and_says_so(dsn: str, db: DB) -> None:
    async with Relay(dsn) as relay, Queue.connect(relay.dsn) as queue:
        calls: list[tuple[bytes, Callable[[], Any]]] = [
            (b'"a"', lambda: queue.enqueue("echo", {"value": "a"})),
            (b'"b"', lambda: queue.enqueue("echo", {"value": "b"}, key="b")),
            (b'"c"', lambda: queue.enqueue_many("echo", [{"value": "c"}])),
            (b"COMMIT", lambda: queue.enqueue_many("echo", [{"value": "d"}] * COPY_FROM)),
            (b"COMMIT", lambda: queue.flow({"e": Call("echo", {"value": "e"})})),
        ]
        await queue.enqueue("echo", {"value": "made the lane"})
        for words, call in calls:
            relay.cut(words, "lost")
            with pytest.raises(WriteUnknown, match=r"it is not known whether this was written.*look for the job"):
                await call()
        assert await jobs(db) == {"made the lane", *"abcde"}


async def test_a_connection_that_is_lost_before_the_commit_has_written_nothing_and_says_so(dsn: str, db: DB) -> None:
    async with Relay(dsn) as relay, Queue.connect(relay.dsn) as queue:
        calls: list[Callable[[], Any]] = [
            lambda: queue.enqueue_many("echo", [{"value": "cut"}] * COPY_FROM),
            lambda: queue.flow({"a": Call("echo", {"value": "cut"})}),
        ]
        for call in calls:
            relay.cut(b'"cut"', "lost")
            with pytest.raises(DatabaseError, match="nothing was written") as told:
                await call()
            assert not isinstance(told.value, WriteUnknown)
        assert await jobs(db) == set()


async def test_sessions_that_are_ended_all_the_time_raise_errors_of_ours_alone_and_lose_no_id(dsn: str, db: DB) -> None:
    told: dict[str, BaseException | int | list[int]] = {}
    async with Queue.connect(dsn, pool_size=4) as queue:

        async def call(n: int) -> None:
            values = [{"value": f"{n}"}]
            work: Any = queue.enqueue("echo", values[0]) if n % 2 else queue.enqueue_many("echo", values)
            (told[str(n)],) = await asyncio.gather(work, return_exceptions=True)

        async def end() -> None:
            while True:
                await db.execute(END_OTHERS)
                await asyncio.sleep(0.003)

        ending = asyncio.create_task(end())
        for start in range(0, 300, 10):
            await asyncio.gather(*(call(n) for n in range(start, start + 10)))
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
    written = await jobs(db)
    for value, outcome in told.items():
        assert not isinstance(outcome, BaseException) or isinstance(outcome, WorkerdError), outcome
        if not isinstance(outcome, WriteUnknown):
            assert (value in written) == (not isinstance(outcome, BaseException)), (value, outcome)


@pytest.mark.parametrize("opened", SYNCHRONOUS, ids=lambda opened: opened.__name__)
def test_no_error_of_a_driver_leaves_raw(opened: Any, dsn: str) -> None:
    import psycopg

    with contextlib.suppress(Exception), opened(dsn) as connection:  # which cannot be committed
        echo.enqueue_sync("x", connection=connection)
        with psycopg.connect(dsn, autocommit=True) as other:
            other.execute(END_OTHERS)
        with pytest.raises(DatabaseError, match="nothing was written") as told:
            echo.enqueue_sync("x", connection=connection)
        assert not isinstance(told.value, WriteUnknown)
        raise Mistake
    assert told.value.__cause__ is not None


async def test_a_database_without_a_queue_is_named(empty_dsn: str) -> None:
    async with Queue.connect(empty_dsn) as queue:
        for call in (
            queue.enqueue("echo"),
            queue.enqueue_many("echo", [{}] * COPY_FROM),
            queue.result(1),
            queue.cancel(1),
        ):
            with pytest.raises(DatabaseError, match="no queue yet: start a daemon or run `workerctl db upgrade`"):
                await call


@pytest.fixture
def configured(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The settings lead to the database of the test; no default queue is open."""
    monkeypatch.setenv("DATABASE_URL", dsn)
    yield
    sync_client.close_default()


by_settings = pytest.mark.workerd_use_settings


@by_settings
async def test_each_loop_has_a_default_queue_that_ends_with_it(configured: None, db: DB) -> None:
    def twice() -> list[int]:
        return [asyncio.run(echo.enqueue(n)) for n in range(2)]

    ids = await asyncio.gather(*(asyncio.to_thread(twice) for _ in range(3)))
    assert len({each for pair in ids for each in pair}) == 6

    async def gone() -> bool:
        return int(await db.fetchval(CLIENTS)) == 0

    await until(gone, "no session is left")


@by_settings
async def test_a_loop_that_is_closed_in_a_hurry_leaves_no_session_for_long(configured: None, db: DB) -> None:
    def hurry() -> int:
        loop = asyncio.new_event_loop()
        try:
            return loop.run_until_complete(echo.enqueue("x"))
        finally:
            loop.close()

    for _ in range(3):
        await asyncio.to_thread(hurry)
    await echo.enqueue("x")  # the next one tidies up

    async def one() -> bool:
        return int(await db.fetchval(CLIENTS)) == 1

    await until(one, "its own is the only session")


@by_settings
async def test_first_calls_at_once_open_one_pool(configured: None, db: DB) -> None:
    calls = [asyncio.create_task(echo.enqueue(n)) for n in range(300)]
    await asyncio.sleep(0)
    calls[0].cancel()  # who came first
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert len({answer for answer in answers if isinstance(answer, int)}) >= 299
    assert await db.fetchval(CLIENTS) <= 2


@by_settings
async def test_a_default_queue_that_could_not_be_opened_is_tried_again(
    configured: None, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nowhere")
    for error in await asyncio.gather(echo.enqueue(1), echo.enqueue(2), return_exceptions=True):
        assert isinstance(error, DatabaseError)
    monkeypatch.setenv("DATABASE_URL", dsn)
    assert await echo.enqueue(3)


async def test_other_loops_and_code_without_one_reach_the_default_queue_that_was_set(queue: Queue, db: DB) -> None:
    before = default_queue.set_default(queue)
    try:
        await echo.enqueue("here")
        await asyncio.to_thread(lambda: asyncio.run(echo.enqueue("loop")))
        echo.enqueue_sync("without")
        assert await jobs(db) == {"here", "loop", "without"}
    finally:
        default_queue.set_default(before)
        sync_client.close_default()


FORKS = """
import asyncio, os, sys
from workerd import Queue, SyncQueue
from tests.handlers import echo

def child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            print("child:", type(error).__name__, error, flush=True)
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0

queue = SyncQueue.connect()
queue.enqueue("echo", {"value": 1})
echo.enqueue_sync(2)
child(lambda: (queue.enqueue("echo", {"value": 3}), echo.enqueue_sync(4), queue.close()))
queue.enqueue("echo", {"value": 5})
echo.enqueue_sync(6)

loop = asyncio.new_event_loop()
own = loop.run_until_complete(Queue.connect().__aenter__())
loop.run_until_complete(own.enqueue("echo", {"value": 7}))
loop.run_until_complete(echo.enqueue(8))

async def both(values):
    await asyncio.gather(own.enqueue("echo", {"value": values[0]}), own.enqueue("echo", {"value": values[1]}))
    await echo.enqueue(values[2])
    await own.close()

child(lambda: asyncio.run(both([9, 10, 11])))
loop.run_until_complete(own.enqueue("echo", {"value": 12}))
loop.run_until_complete(echo.enqueue(13))
loop.run_until_complete(loop.shutdown_asyncgens())
loop.run_until_complete(own.close())
queue.close()
"""


async def test_a_forked_process_opens_connections_of_its_own_and_leaves_its_parents_alone(dsn: str, db: DB) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        FORKS,
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": dsn},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 120)
    assert (process.returncode, said) == (0, b"")
    assert await jobs(db) == {str(n) for n in range(1, 14)}


LEFT = """
import os, signal, sys
from workerd import SyncQueue
queue = SyncQueue.connect()
if os.fork() == 0:
    signal.pause()
print("ready", flush=True)
sys.stdin.read()
os.kill(os.getpid(), signal.SIGKILL)
"""


async def test_sessions_of_a_process_that_is_killed_end_with_it_and_not_with_its_children(dsn: str, db: DB) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        LEFT,
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": dsn},
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdin is not None
        assert await process.stdout.readline() == b"ready\n"
        assert await db.fetchval(CLIENTS) == 1
        process.stdin.close()  # and it is killed

        async def gone() -> bool:
            return int(await db.fetchval(CLIENTS)) == 0

        await until(gone, "the session has ended, while the child lives")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


PROJECT = """
import pytest
from workerd import Queue, SyncQueue, task
from workerd.errors import ConfigError

@task
async def remind(order: int) -> None: ...

async def test_without_the_fixture_nothing_is_enqueued():
    for call in (remind.enqueue(1), remind.enqueue_many([{"order": 1}]), Queue.connect()):
        with pytest.raises(ConfigError, match="workerd_queue.*@pytest.mark.workerd_use_settings.*ini file"):
            await call
    for call in (lambda: remind.enqueue_sync(1), SyncQueue.connect):
        with pytest.raises(ConfigError, match="DATABASE_URL"):
            call()

async def test_with_it_code_that_does_not_await_reaches_its_database(workerd_queue):
    assert remind.enqueue_sync(1) != await remind.enqueue(1)

async def test_the_database_of_the_test_may_be_that_of_the_settings(workerd_database, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", workerd_database)
    assert await remind.enqueue(1)

@pytest.mark.workerd_use_settings
async def test_who_asks_for_it_has_the_queue_of_the_settings():
    assert await remind.enqueue(1)
"""


@pytest.mark.parametrize("always", [False, True])
async def test_tests_use_the_queue_of_the_settings_only_where_they_ask_for_it(
    always: bool, server: str, dsn: str, db: DB, tmp_path: Path
) -> None:
    asked = "workerd_use_settings = true\n" if always else ""
    (tmp_path / "pytest.ini").write_text(f"[pytest]\nasyncio_mode = auto\naddopts = --strict-markers\n{asked}")
    (tmp_path / "test_it.py").write_text(PROJECT)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "pytest",
        "-q",
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "DATABASE_URL": dsn, "WORKERD_TEST_URL": server},
    )
    said, _ = await asyncio.wait_for(process.communicate(), 120)
    assert ("1 failed, 3 passed" if always else "4 passed") in said.decode(), said.decode()
    assert await db.fetchval("SELECT count(*) FROM workerd.job") == (2 if always else 1)
