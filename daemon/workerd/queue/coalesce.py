"""Coalescer: single enqueues that are awaited at the same time go into one statement."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING

from workerd.asked import JobOptions
from workerd.errors import DatabaseError, PayloadError, TransactionConflict
from workerd.queue.enqueue import many, may_write, one, plain
from workerd.queue.kept_connection import KeptConnection
from workerd.queue.own_transaction import again
from workerd.queue.pool import CLOSED, OTHER_LOOP

if TYPE_CHECKING:
    from collections.abc import Iterable

    from workerd.job import AnyConnection
    from workerd.queue.pool import Pool

BATCH = 999  # single enqueues that go into one statement at most

Call = tuple[JobOptions, str, "asyncio.Future[int]"]


class Coalescer:
    """Whoever comes first writes; who comes meanwhile is written by a task. Each caller gets its own id or its own error.

    A caller that is cancelled leaves the others as they are: `_writing` is true exactly while somebody writes or `_writer` is going to.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: list[Call] = []
        self._writing = False
        self._crowd = False  # there were others when the last call was written
        self._direct: bool | None = None  # the role may write into the tables; None: not asked yet
        self._writer: asyncio.Task[None] | None = None
        self._closed: asyncio.Future[None] | None = None  # done when nobody writes any more
        self._kept = KeptConnection(pool)

    async def enqueue(self, what: JobOptions, payload: str) -> int:
        """Enqueue a job without a key and return its id."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._check_loop(loop)
        if self._closed is not None:
            raise DatabaseError(CLOSED)
        if not self._writing and not self._crowd:
            return await self._alone(what, payload)
        done: asyncio.Future[int] = loop.create_future()
        self._waiting.append((what, payload, done))
        if not self._writing:
            self._start()  # with who calls in the same turn of the loop
        return await done

    async def close(self) -> None:
        """Write what is under way, and give the connection back; later calls are refused."""
        if self._closed is None:
            self._closed = asyncio.get_running_loop().create_future()
            if not self._writing:
                self._closed.set_result(None)
        await asyncio.wait([self._closed])
        await self._kept.let_go()

    def _check_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """It belongs to the loop that uses it first. Raises DatabaseError in another one."""
        if self._loop is not None or self._pool.loop not in (None, loop):
            raise DatabaseError(OTHER_LOOP)
        self._loop = loop

    async def _alone(self, what: JobOptions, payload: str) -> int:
        """Write one call in its own task."""
        self._writing = True
        try:
            async with self._kept as connection:
                if self._direct is None:
                    self._direct = await may_write(connection)
                write = partial(plain if self._direct else one, connection, what, payload)
                try:
                    return await write()
                except TransactionConflict:
                    return await again(write)
        finally:
            self._crowd = bool(self._waiting)
            self._next()

    def _start(self) -> None:
        self._writing = True
        self._writer = asyncio.create_task(self._write(), name="enqueue")

    def _next(self) -> None:
        """Whoever wrote has ended: go on for those who wait, if there are any."""
        self._writing = False
        self._waiting = [call for call in self._waiting if not call[2].done()]
        if self._waiting:
            self._start()
        elif self._closed is not None and not self._closed.done():
            self._closed.set_result(None)

    async def _write(self) -> None:
        """Write until nobody waits; what arrives while a statement runs makes up the next one."""
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                self._crowd = len(batch) > 1
                await self._write_batch(batch)
                if self._crowd:
                    # those who have their answer may call again; one alone does better without a task
                    await asyncio.sleep(0)
        finally:
            self._next()

    async def _write_batch(self, batch: list[Call]) -> None:
        try:
            groups = defaultdict[JobOptions, list[Call]](list)
            for call in batch:
                if not call[2].done():  # its caller has not been cancelled
                    groups[call[0]].append(call)
            async with self._kept as connection:
                for what, calls in groups.items():
                    await _write_group(connection, what, calls)
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to those who wait
            for _, _, done in batch:
                _settle(done, error)
        except BaseException:  # the writer was cancelled, as all tasks are at the end of a loop
            for _, _, done in batch:
                done.cancel()
            raise


async def _write_group(connection: AnyConnection, what: JobOptions, calls: list[Call]) -> None:
    payloads = [payload for _, payload, _ in calls]
    try:
        ids: Iterable[int | Exception] = await again(lambda: many(connection, what, payloads))
    except PayloadError as error:  # one of them cannot be stored: let each have its own answer
        ids = [await _each(connection, what, payload) for payload in payloads] if len(calls) > 1 else [error]
    except Exception as error:  # noqa: BLE001 - it is the callers' to handle
        ids = [error] * len(calls)
    for (_, _, done), answer in zip(calls, ids, strict=True):
        _settle(done, answer)


async def _each(connection: AnyConnection, what: JobOptions, payload: str) -> int | Exception:
    try:
        return await one(connection, what, payload)
    except Exception as error:  # noqa: BLE001 - it is the caller's to handle
        return error


def _settle(done: asyncio.Future[int], answer: int | Exception) -> None:
    if done.done():
        return  # its caller was cancelled
    if isinstance(answer, Exception):
        done.set_exception(answer)
    else:
        done.set_result(answer)
