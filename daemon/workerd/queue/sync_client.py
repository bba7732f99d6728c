"""`SyncQueue`: the same client for programs without a loop."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Concatenate, NamedTuple, ParamSpec, Self, TypeVar

from workerd.errors import DatabaseError
from workerd.queue import default_queue, transactions
from workerd.queue.after_fork import follow
from workerd.queue.client import Queue
from workerd.queue.flow import SyncBatch
from workerd.queue.loop_thread import LoopThread
from workerd.queue.pool import CLOSED
from workerd.queue.transactions import without_loop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

    from workerd.job import AnyTransaction
    from workerd.queue.flow import Call

P = ParamSpec("P")
R = TypeVar("R")

CLOSE_LIMIT = 1.0  # seconds for calls of other threads to notice that the queue was closed


def _synchronous(
    method: Callable[Concatenate[Queue, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[SyncQueue, P], R]:
    @functools.wraps(method)
    def call(self: SyncQueue, /, *args: P.args, **kwargs: P.kwargs) -> R:
        connection: Any = kwargs.get("connection")
        if connection is not None:  # it is the caller's, to be used in the caller's thread
            result: R = without_loop(method(self._serving().queue, *args, **kwargs), connection)
            return result
        # by its name: the default queue of a node without a database has methods of its own
        answer: R = self._run(lambda queue: getattr(queue, method.__name__)(*args, **kwargs))
        return answer

    return call


class _Served(NamedTuple):
    """A queue, and the thread that serves it."""

    queue: Queue
    thread: LoopThread


class SyncQueue:
    """`Queue` for code that does not await: its connections are served by a thread. Made by `SyncQueue.connect`.

    Any number of threads may use it, and so may a process that is forked, which opens connections of its own. Its methods are those of
    `Queue`; `connection=` takes a synchronous connection of psycopg, SQLAlchemy or Django.
    """

    def __init__(self, opening: Callable[[], Awaitable[Queue]]) -> None:
        self._opening = opening
        self._closed = False
        self._lock = threading.Lock()  # held while a call is handed over, so that none is behind the end of the loop
        self._served: _Served | None = None
        self._serving()
        follow(self)

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
    ) -> Self:
        """Open the queue at `dsn`, by default that of the settings; to be closed, or used by `with`. As `Queue.connect`."""
        return cls(
            lambda: Queue.connect(
                dsn,
                pool_size=pool_size,
                acquire_timeout=acquire_timeout,
                idle_limit=idle_limit,
                pooled=pooled,
                name=name,
            )
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
        made = self._run(lambda queue: queue.batch(on_finished).__aenter__())
        try:
            yield SyncBatch(self._run, made)
        except BaseException as error:
            failure = (type(error), error, error.__traceback__)
            self._run(lambda _: made.__aexit__(*failure))
            raise
        self._run(lambda _: made.__aexit__(None, None, None))

    def close(self) -> None:
        """Write what is under way and close all connections, waiting for those in use; later calls raise DatabaseError."""
        with self._lock:
            self._closed = True
            served, self._served = self._served, None
        if served is not None:
            served.thread.submit(_end(served.queue)).result()
            served.thread.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _run(self, work: Callable[[Queue], Coroutine[Any, Any, R]]) -> R:
        with self._lock:
            served = self._ready()
            answer = served.thread.submit(work(served.queue))
        return answer.result()

    def _serving(self) -> _Served:
        with self._lock:
            return self._ready()

    def _ready(self) -> _Served:
        """Open it, where that is not so yet; the lock is held. Raises DatabaseError."""
        if self._closed:
            raise DatabaseError(CLOSED)
        if self._served is None:
            thread = LoopThread("worker client")
            try:
                queue = thread.submit(_opened(self._opening)).result()
            except BaseException:
                thread.stop()
                raise
            self._served = _Served(queue, thread)
        return self._served

    def after_fork(self) -> object:
        """In a forked child, which has neither the thread nor connections of its own: open them when they are used."""
        before, self._served, self._lock = self._served, None, threading.Lock()
        return before


async def _opened(opening: Callable[[], Awaitable[Queue]]) -> Queue:
    return await opening()


async def _end(queue: Queue) -> None:
    """Close it, and leave no call of another thread without an answer."""
    await queue.close()
    calls = asyncio.all_tasks() - {asyncio.current_task()}
    if calls:
        _, late = await asyncio.wait(calls, timeout=CLOSE_LIMIT)
        for call in late:
            call.cancel()
        await asyncio.gather(*late, return_exceptions=True)


def enqueue_in(*args: Any, connection: AnyTransaction, **options: Any) -> int:
    """Enqueue in the transaction of a synchronous connection, for which no `SyncQueue` is needed; as `SyncQueue.enqueue`."""
    job: int = without_loop(transactions.enqueue(*args, connection=connection, **options), connection)
    return job


_default: SyncQueue | None = None
_default_of: Queue | None = None  # the default queue of which it is another
_opening = threading.Lock()


def default() -> SyncQueue:
    """The queue that `task.enqueue_sync` uses in this process: another one of the default queue, opened by the first call."""
    global _default, _default_of
    with _opening:
        wanted = default_queue.current()
        if _default is not None and _default_of is not wanted:
            close_default()
        if _default is None:
            _default, _default_of = SyncQueue(default_queue.open_default), wanted
        return _default


def close_default() -> None:
    """Close it, where it is open; the next call opens it again."""
    global _default
    if _default is not None:
        closing, _default = _default, None
        closing.close()


def _unlock() -> None:
    """In a forked child: nobody is opening a queue there."""
    global _opening
    _opening = threading.Lock()


os.register_at_fork(after_in_child=_unlock)
