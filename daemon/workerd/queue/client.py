"""`Queue`: the client with which applications enqueue jobs and wait for their results."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from workerd import codec, trace
from workerd.asked import arguments, explained
from workerd.queue import change as changes
from workerd.queue import enqueue, producer, results, signals, transactions
from workerd.queue import flow as flows
from workerd.queue.after_fork import follow
from workerd.queue.coalesce import Coalescer
from workerd.queue.configured import configured
from workerd.queue.connecting import Connecting
from workerd.queue.driver_errors import answered
from workerd.queue.pool import Pool, PoolOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from workerd.asked import BatchOptions, EnqueueOptions, JobOptions
    from workerd.job import AnyConnection, AnyTransaction
    from workerd.queue.flow import Call
    from workerd.schedules import Schedule
    from workerd.tasks import Task
    from workerd.units import Duration

R = TypeVar("R")

FIRST_PAUSE = 0.01  # seconds between two looks for a result

_OUTCOME = "SELECT status, result, error_message FROM workerd.task_queue WHERE id = $1"


class Queue:
    """The client of a queue, for one event loop. Made by `Queue.connect`; a process that is forked opens connections of its own."""

    def __init__(self, options: PoolOptions) -> None:
        self.options = options
        self._begin()
        follow(self)

    def _begin(self) -> None:
        self._pool = Pool(self.options)
        self._coalescer = Coalescer(self._pool)

    def after_fork(self) -> Pool:
        """In a forked child: open connections of its own when it is used."""
        before = self._pool
        if not before.closed:
            self._begin()
        return before

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
    ) -> Connecting[Queue]:
        """Open the queue at `dsn`, by default that of the settings.

        `queue = await Queue.connect()` or `async with Queue.connect() as queue`.

        `idle_limit`: seconds after which a connection that nobody uses is closed.
        `pooled`: the DSN leads to a transaction pooler. `claims`: its sessions are those of claimers.
        Raises DatabaseError when the database cannot be reached.
        """
        options = PoolOptions(dsn or "", pool_size, acquire_timeout, idle_limit, pooled, name, claims)
        return Connecting(lambda: _connect(options))

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
        return await self._pool.in_transaction(work)

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
        return await self._pool.run(lambda own: enqueue.one(own, what, payload))

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
            return await self._pool.run(lambda own: enqueue.many(own, what, texts))

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
            await self._pool.run(lambda own: answered(schedules.put(own, name, task_name, when)))
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

        async def look() -> tuple[str, Any, str | None]:
            async with self.connection() as connection:
                row = await answered(connection.fetchrow(_OUTCOME, job_id))
            if row is None:
                raise results.missing(job_id)
            state, result, error = row
            return state, None if result is None else codec.loads(result), error

        return await results.wait(job_id, look, FIRST_PAUSE, timeout)

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
        asked = {
            "queue": queue,
            "priority": priority,
            "delay": delay,
            "run_at": run_at,
            "max_retries": max_retries,
        }
        options = arguments(asked)
        text = None if payload is None else enqueue.payload_text(f"job {job_id}", payload)
        return await self._pool.run(lambda own: changes.change(own, job_id, text, options))

    async def cancel(self, job_id: int) -> str:
        """Cancel a job, whatever it does; returns the state it was found in.

        A running job is told to stop and is cancelled when it does. Raises JobError for an unknown or finished one.
        """
        return await self._pool.run(lambda own: changes.cancel_one(own, job_id))

    async def retry(self, job_id: int) -> str:
        """Queue a failed, cancelled or scheduled job now; returns the state it was in. Raises JobError for any other."""
        return await self._pool.run(lambda own: changes.retry_one(own, job_id))

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
        return await self._pool.run(lambda own: answered(signals.send(own, job_id, event, text)))


async def _connect(options: PoolOptions) -> Queue:
    if options.dsn:
        return await opened(options)
    where = await asyncio.to_thread(configured)
    return await opened(replace(options, dsn=where.url, pooled=options.pooled or where.pooled))


async def opened(options: PoolOptions) -> Queue:
    """The queue, which has been reached. Raises DatabaseError when it cannot be."""
    queue = Queue(options)
    await queue._pool.open()
    return queue
