"""`Queue`: the client with which applications enqueue jobs and wait for their results."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, Unpack
from weakref import WeakSet

from workerd import codec, trace
from workerd.asked import arguments, explained
from workerd.errors import JobError, JobFailed, NotFound
from workerd.queue import change as changes
from workerd.queue import enqueue, producer, signals, transactions
from workerd.queue import flow as flows
from workerd.queue.coalesce import Coalescer
from workerd.queue.configured import configured
from workerd.queue.driver_errors import answered
from workerd.queue.own_transaction import again, transaction
from workerd.queue.pool import Pool, PoolOptions
from workerd.units import Duration, parse_duration

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime
    from types import TracebackType

    from workerd.asked import BatchOptions, EnqueueOptions, JobOptions
    from workerd.job import AnyConnection, AnyTransaction
    from workerd.queue.flow import Call
    from workerd.schedules import Schedule
    from workerd.tasks import Task

R = TypeVar("R")

FINAL = ("succeeded", "failed", "cancelled")
FAILURE_TTL = 30 * 86400.0  # seconds that a job cancelled from here is kept

_OUTCOME = "SELECT status, result, error_message FROM workerd.task_queue WHERE id = $1"


class Queue:
    """The client of a queue, for one event loop. Made by `Queue.connect`; a process that is forked opens connections of its own."""

    def __init__(self, options: PoolOptions) -> None:
        self.options = options
        self._begin()
        _queues.add(self)

    def _begin(self) -> None:
        self._pool = Pool(self.options)
        self._coalescer = Coalescer(self._pool)

    @property
    def dsn(self) -> str:
        """The address of the database."""
        return self.options.dsn

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop that it belongs to; None where it has not been used since the process was forked."""
        return self._pool.loop

    async def elsewhere(self) -> Queue:
        """The same queue for the event loop that runs, with connections of its own."""
        return await opened(self.options)

    @classmethod
    def connect(
        cls,
        dsn: str | None = None,
        *,
        pool_size: int = 10,
        acquire_timeout: float = 30.0,
        idle_limit: float = 300.0,
        pooled: bool = False,
        name: str = "worker client",
        claims: bool = False,
    ) -> Connecting:
        """Open the queue at `dsn`, by default that of the settings.

        `queue = await Queue.connect()` or `async with Queue.connect() as queue`.

        `idle_limit`: seconds after which a connection that nobody uses is closed.
        `pooled`: the DSN leads to a transaction pooler. `claims`: its sessions are those of claimers.
        Raises DatabaseError when the database cannot be reached.
        """
        return Connecting(dsn, pool_size, acquire_timeout, idle_limit, pooled, name, claims)

    async def close(self) -> None:
        """Write what is under way and close all connections, waiting for those in use; later calls raise DatabaseError."""
        if self._pool.loop is asyncio.get_running_loop():
            await self._coalescer.close()
        await self._pool.close()

    async def expire(self) -> None:
        """Let each connection be replaced before its next use: those there are may have died in silence."""
        await self._pool.expire()

    def terminate(self) -> None:
        """Drop all connections at once, also those in use."""
        self._pool.terminate()

    def connection(self) -> AbstractAsyncContextManager[AnyConnection]:
        """A connection of the pool. Raises DatabaseError when none is free in time or the database cannot be reached."""
        return self._pool.connection()

    async def in_transaction(self, work: Callable[[AnyConnection], Awaitable[R]]) -> R:
        """What `work` returns, done in a transaction of its own; again from its beginning where another transaction was in the way.

        Raises WriteUnknown when the connection was lost while it was committed.
        """

        async def once() -> R:
            async with self.connection() as own, transaction(own):
                return await work(own)

        return await again(once)

    async def _own(self, work: Callable[[AnyConnection], Awaitable[R]]) -> R:
        """What `work`, which is one statement or transaction, returns on a connection of the pool."""

        async def once() -> R:
            async with self.connection() as own:
                return await work(own)

        return await again(once)

    @explained
    async def enqueue(
        self,
        task: str | Task[..., Any],
        payload: Mapping[str, Any] | None = None,
        *,
        connection: AnyTransaction | None = None,
        **options: Unpack[EnqueueOptions],
    ) -> int:
        """Enqueue a job and return its id; while a job with this `key` is not finished, return that one's id.

        `queue` and `priority` default to the task's. With `connection`, one of asyncpg, psycopg, SQLAlchemy or Django, the job exists when
        the caller's transaction commits.
        Raises PayloadError for arguments that are not JSON, too large or of a wrong type, TaskError for options that are unknown or not
        allowed, WriteUnknown when the connection was lost before the answer came, another DatabaseError when nothing was written.
        """
        if connection is not None:
            return await transactions.enqueue(task, payload, connection=connection, **options)
        what = enqueue.options(task, options)
        text = enqueue.payload_text(task, {} if payload is None else payload)
        if trace.current() is not None:
            return await producer.traced(what, lambda traced: self._enqueue(traced, text))
        if enqueue.SIMPLE.issuperset(what.given):
            return await self._coalescer.enqueue(what, text)
        return await self._enqueue(what, text)

    async def _enqueue(self, what: JobOptions, payload: str) -> int:
        return await self._own(lambda own: enqueue.one(own, what, payload))

    async def enqueue_many(
        self,
        task: str | Task[..., Any],
        payloads: Sequence[Mapping[str, Any]],
        *,
        connection: AnyTransaction | None = None,
        **options: Unpack[BatchOptions],
    ) -> list[int]:
        """Enqueue one job for each payload, all or none, and return their ids in this order; otherwise as `enqueue`."""
        what = enqueue.options(task, options)
        texts = [enqueue.payload_text(task, payload) for payload in payloads]

        async def write(what: JobOptions) -> list[int]:
            if connection is not None:
                return await transactions.enqueue_many(connection, what, texts)
            return await self._own(lambda own: enqueue.many(own, what, texts))

        return await (write(what) if trace.current() is None else producer.traced(what, write, len(texts)))

    async def schedule(
        self, task: str | Task[..., Any], when: Schedule, *, connection: AnyConnection | None = None
    ) -> str:
        """Enqueue a task again and again from now on; returns the schedule's name. One of this name is replaced."""
        from workerd.queue import schedules

        task_name = task if isinstance(task, str) else task.name
        name = when.name or task_name
        if connection is not None:
            await schedules.put(connection, name, task_name, when)
        else:
            await self._own(lambda own: answered(schedules.put(own, name, task_name, when)))
        return name

    async def flow(self, calls: Mapping[str, Call], *, connection: AnyTransaction | None = None) -> dict[str, int]:
        """Enqueue calls that wait for each other, all or none; returns the ids of the jobs by the names of the calls.

        Raises TaskError when they wait for each other in a cycle, or for a call that there is not.
        """
        if connection is not None:
            return await flows.flow(self, calls, connection)
        return await self.in_transaction(lambda own: flows.flow(self, calls, own))

    async def chain(self, *calls: Call, connection: AnyTransaction | None = None) -> list[int]:
        """Enqueue calls of which each waits for the one before, all or none; returns the ids of the jobs in this order."""
        if connection is not None:
            return await flows.chain(self, calls, connection)
        return await self.in_transaction(lambda own: flows.chain(self, calls, own))

    def batch(self, on_finished: Call | None = None) -> flows.Batch:
        """Jobs whose end is waited for together: `async with queue.batch(on_finished=Call("report")) as batch: …`."""
        return flows.Batch(self, on_finished)

    async def result(self, job_id: int, timeout: Duration | None = None) -> Any:
        """Wait until the job is final and return its result.

        Raises JobFailed when it failed or was cancelled, JobError when there is no such job, TimeoutError after `timeout`.
        """
        limit = None if timeout is None else parse_duration(timeout)
        async with asyncio.timeout(limit):
            wait = 0.01
            while True:
                async with self.connection() as connection:
                    row = await answered(connection.fetchrow(_OUTCOME, job_id))
                if row is None:
                    raise NotFound(f"there is no job {job_id} (never enqueued, or its result is not kept any more)")
                if row["status"] in FINAL:
                    break
                await asyncio.sleep(wait)
                wait = min(wait * 1.3, 0.5)
        if row["status"] != "succeeded":
            raise JobFailed(
                f"job {job_id} {row['status']}: {(row['error_message'] or 'no reason given').splitlines()[0]}"
            )
        return None if row["result"] is None else codec.loads(row["result"])

    async def change(
        self,
        job_id: int,
        *,
        payload: Mapping[str, Any] | None = None,
        queue: str | None = None,
        priority: int | None = None,
        delay: Duration | None = None,
        run_at: datetime | None = None,
        max_retries: int | None = None,
    ) -> str:
        """Change a job that has not started, in what is given; returns the state it was in. A time in the past queues it now.

        Raises JobError when there is no such job, when it runs or has ended, and what `enqueue` raises.
        """
        wanted = {
            "queue": queue,
            "priority": priority,
            "delay": delay,
            "run_at": run_at,
            "max_retries": max_retries,
        }
        given = arguments(wanted).get
        text = None if payload is None else enqueue.payload_text(f"job {job_id}", payload)

        async def write(own: AnyConnection) -> str:
            due = given("run_at")
            if given("delay") is not None:
                due = await answered(own.fetchval("SELECT now() + $1::interval", given("delay")))
            return await changes.change(own, job_id, text, queue, priority, due, max_retries)

        return await self._own(write)

    async def cancel(self, job_id: int) -> str:
        """Cancel a job, whatever it does; returns the state it was found in.

        A running job is told to stop and is cancelled when it does. Raises JobError for an unknown or finished one.
        """
        while True:
            state: str = await self._fetchval("SELECT workerd.cancel($1, $2)", job_id, FAILURE_TTL)
            if state == "unknown":
                raise NotFound(f"there is no job {job_id}")
            if state == "final":
                raise JobError(f"job {job_id} is finished already")
            if state != "again":
                return state

    async def retry(self, job_id: int) -> str:
        """Queue a failed, cancelled or scheduled job now; returns the state it was in. Raises JobError for any other."""
        state: str = await self._fetchval("SELECT workerd.retry($1)", job_id)
        refused = not_retried(job_id, state)
        if refused is not None:
            raise JobError(refused)
        return state

    async def signal(
        self, job_id: int, event: str, payload: Any = None, *, connection: AnyTransaction | None = None
    ) -> bool:
        """Answer a job that waits for an event (`job.wait_for`), or will; False when it was answered before: the first answer holds.

        With `connection` the answer is given when the caller's transaction commits. Raises JobError for a job that is finished or
        unknown, PayloadError for a payload that is not JSON or too large.
        """
        text = codec.dumps(payload, f"the payload of {event}")
        if connection is not None:
            return await transactions.signal(connection, job_id, event, text)
        return await self._own(lambda own: answered(signals.send(own, job_id, event, text)))

    async def _fetchval(self, sql: str, *args: Any) -> Any:
        return await self._own(lambda own: answered(own.fetchval(sql, *args)))


def not_retried(job_id: int, state: str) -> str | None:
    """Why `workerd.retry` did not queue a job, from what it answered; None when it did."""
    match state:
        case "unknown":
            return f"there is no job {job_id}"
        case "key taken":
            return f"job {job_id} cannot be retried: another job with its key is not finished"
        case "queued" | "running" | "succeeded":
            return f"job {job_id} is {state}: only failed, cancelled and scheduled jobs can be retried"
        case _:
            return None


class Connecting:
    """What `Queue.connect` returns: awaitable, and an asynchronous context manager."""

    def __init__(
        self,
        dsn: str | None,
        pool_size: int,
        acquire_timeout: float,
        idle_limit: float,
        pooled: bool,
        name: str,
        claims: bool,
    ) -> None:
        self._options = PoolOptions(dsn or "", pool_size, acquire_timeout, idle_limit, pooled, name, claims)
        self._queue: Queue | None = None

    def __await__(self) -> Generator[Any, None, Queue]:
        return self._open().__await__()

    async def __aenter__(self) -> Queue:
        self._queue = await self._open()
        return self._queue

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._queue is not None
        await self._queue.close()

    async def _open(self) -> Queue:
        if self._options.dsn:
            return await opened(self._options)
        where = await asyncio.to_thread(configured)
        pooled = self._options.pooled or where.pooled
        return await opened(replace(self._options, dsn=where.url, pooled=pooled))


async def opened(options: PoolOptions) -> Queue:
    """The queue, which has been reached. Raises DatabaseError when it cannot be."""
    queue = Queue(options)
    await queue._pool.open()
    return queue


_queues: WeakSet[Queue] = WeakSet()
_left: list[Pool] = []  # of the parent, never to be collected: that would work on its sockets and its loop


def _begin_again() -> None:
    """In a forked child: each queue opens connections of its own when it is used."""
    for queue in list(_queues):
        _left.append(queue._pool)
        if not queue._pool.closed:
            queue._begin()


os.register_at_fork(after_in_child=_begin_again)
