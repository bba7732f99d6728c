"""`SyncQueue`: the same client for programs without a loop."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from workerd.queue import client
from workerd.queue.client import Queue
from workerd.queue.transactions import without_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from workerd.job import AnyTransaction
    from workerd.queue.flow import Batch, Call

P = ParamSpec("P")
R = TypeVar("R")


def _synchronous(
    method: Callable[Concatenate[Queue, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[SyncQueue, P], R]:
    @functools.wraps(method)
    def call(self: SyncQueue, /, *args: P.args, **kwargs: P.kwargs) -> R:
        work = method(self._queue, *args, **kwargs)
        connection: Any = kwargs.get("connection")
        if connection is not None:  # it is the caller's, to be used in the caller's thread
            result: R = without_loop(work, connection)
            return result
        return self._run(work)

    return call


class SyncQueue:
    """`Queue` for code that does not await: its connections are served by a thread. Made by `SyncQueue.connect`.

    Any number of threads may use it. Its methods are those of `Queue`; `connection=` takes a synchronous connection of psycopg,
    SQLAlchemy or Django.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="worker client", daemon=True)
        self._thread.start()
        try:
            self._queue = self._run(_opened(*args, **kwargs))
        except BaseException:
            self._stop()
            raise

    @classmethod
    def connect(cls, dsn: str | None = None, *, pool_size: int = 10, acquire_timeout: float = 30.0, idle_limit: float = 300.0,
                pooled: bool = False, name: str = "worker client") -> Self:  # fmt: skip
        """Open the queue at `dsn`, by default that of the settings; to be closed, or used by `with`. As `Queue.connect`."""
        return cls(
            dsn, pool_size=pool_size, acquire_timeout=acquire_timeout, idle_limit=idle_limit, pooled=pooled, name=name
        )

    enqueue = _synchronous(Queue.enqueue)
    enqueue_many = _synchronous(Queue.enqueue_many)
    flow = _synchronous(Queue.flow)
    chain = _synchronous(Queue.chain)
    schedule = _synchronous(Queue.schedule)
    result = _synchronous(Queue.result)
    change = _synchronous(Queue.change)
    cancel = _synchronous(Queue.cancel)
    retry = _synchronous(Queue.retry)
    signal = _synchronous(Queue.signal)

    @contextmanager
    def batch(self, on_finished: Call | None = None) -> Iterator[SyncBatch]:
        """Jobs whose end is waited for together: `with queue.batch(on_finished=Call("report")) as batch: …`."""
        made = self._queue.batch(on_finished)
        self._run(made.__aenter__())
        try:
            yield SyncBatch(self._run, made)
        except BaseException as error:
            self._run(made.__aexit__(type(error), error, error.__traceback__))
            raise
        self._run(made.__aexit__(None, None, None))

    def close(self) -> None:
        """Close all connections, waiting for those in use."""
        self._run(self._queue.close())
        self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, R]) -> R:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class SyncBatch:
    """A `Batch` for code that does not await."""

    def __init__(self, run: Callable[[Coroutine[Any, Any, Any]], Any], batch: Batch) -> None:
        self._run = run
        self._batch = batch

    def enqueue(self, *args: Any, **options: Any) -> int:
        """Add a job; as `Queue.enqueue`."""
        job: int = self._run(self._batch.enqueue(*args, **options))
        return job

    def enqueue_many(self, *args: Any, **options: Any) -> list[int]:
        """Add many; as `Queue.enqueue_many`."""
        jobs: list[int] = self._run(self._batch.enqueue_many(*args, **options))
        return jobs

    @property
    def id(self) -> int:
        return self._batch.id

    @property
    def finished_id(self) -> int | None:
        return self._batch.finished_id


async def _opened(*args: Any, **kwargs: Any) -> Queue:
    return await Queue.connect(*args, **kwargs)


def enqueue_in(*args: Any, connection: AnyTransaction, **options: Any) -> int:
    """Enqueue in the transaction of a synchronous connection, for which no `SyncQueue` is needed; as `SyncQueue.enqueue`."""
    job: int = without_loop(client.enqueue_in(*args, connection=connection, **options), connection)
    return job


_default: SyncQueue | None = None
_opening = threading.Lock()


def default() -> SyncQueue:
    """The queue that `task.enqueue_sync` uses in this process, opened from the settings on first use."""
    global _default
    with _opening:
        if _default is None:
            _default = SyncQueue.connect()
        return _default


def _forget() -> None:
    """A forked child has neither the thread nor connections of its own."""
    global _default, _opening
    _default, _opening = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
