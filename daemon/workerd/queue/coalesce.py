"""Coalescer: single enqueues that are awaited at the same time go into one statement."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from time import monotonic
from typing import TYPE_CHECKING

import asyncpg

from workerd.errors import PayloadError
from workerd.queue.enqueue import Options, many, one

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from asyncpg.pool import PoolConnectionProxy

    from workerd.job import AnyConnection

    Pooled = PoolConnectionProxy[asyncpg.Record]
    Acquire = Callable[[], Awaitable[Pooled]]
    Release = Callable[[Pooled], Awaitable[None]]

BATCH = 999  # single enqueues that go into one statement at most
LINGER = 0.05  # seconds that the connection is kept for the next call: taking it from the pool and back costs as much as an enqueue
MOST = 1.0  # seconds for which it is kept from others in the pool

Call = tuple[Options, str, "asyncio.Future[int]"]


class Coalescer:
    """Whoever comes first writes for all who have come meanwhile; each caller gets its own id or its own error."""

    def __init__(self, acquire: Acquire, release: Release) -> None:
        self._waiting: list[Call] = []
        self._writing = False
        self._crowd = False  # there were others when the last call was written
        self._writer: asyncio.Task[None] | None = None
        self._kept = _Kept(acquire, release)

    async def enqueue(self, what: Options, payload: str) -> int:
        """Enqueue a job without a key and return its id."""
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((what, payload, done))
        if not self._writing:
            self._writing = True
            if self._crowd:
                await asyncio.sleep(0)  # who calls in the same turn of the loop joins in
            if len(self._waiting) == 1:
                return await self._alone()
            self._writer = asyncio.create_task(self._write(), name="enqueue")
        return await done

    async def close(self) -> None:
        """Give the connection back, when what is under way has been written."""
        if self._writer is not None:
            await asyncio.wait([self._writer])
        await self._kept.let_go()

    async def _alone(self) -> int:
        """Write one call in its own task."""
        [(what, payload, _)], self._waiting = self._waiting, []
        try:
            async with self._kept as connection:
                return await one(connection, what, payload, None)
        finally:
            self._crowd = bool(self._waiting)
            if self._crowd:
                self._writer = asyncio.create_task(self._write(), name="enqueue")
            else:
                self._writing = False

    async def _write(self) -> None:
        """Write until nobody waits; what arrives while a statement runs makes up the next one."""
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                self._crowd = len(batch) > 1
                await self._write_batch(batch)
                await asyncio.sleep(0)  # those who have their answer may call again
        finally:
            self._writing = False

    async def _write_batch(self, batch: list[Call]) -> None:
        try:
            groups = defaultdict[Options, list[Call]](list)
            for call in batch:
                groups[call[0]].append(call)
            async with self._kept as connection:
                for what, calls in groups.items():
                    await _write_group(connection, what, calls)
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to those who wait
            for _, _, done in batch:
                _settle(done, error)


async def _write_group(connection: AnyConnection, what: Options, calls: list[Call]) -> None:
    try:
        ids: Iterable[int | Exception] = await many(connection, what, [payload for _, payload, _ in calls])
    except PayloadError as error:  # one of them cannot be stored: let each have its own answer
        ids = [await _each(connection, what, payload) for _, payload, _ in calls] if len(calls) > 1 else [error]
    except Exception as error:  # noqa: BLE001 - it is the callers' to handle
        ids = [error] * len(calls)
    for (_, _, done), answer in zip(calls, ids, strict=True):
        _settle(done, answer)


async def _each(connection: AnyConnection, what: Options, payload: str) -> int | Exception:
    try:
        return await one(connection, what, payload, None)
    except Exception as error:  # noqa: BLE001 - it is the caller's to handle
        return error


def _settle(done: asyncio.Future[int], answer: int | Exception) -> None:
    if done.done():
        return  # its caller was cancelled
    if isinstance(answer, Exception):
        done.set_exception(answer)
    else:
        done.set_result(answer)


class _Kept:
    """A connection of the pool that is kept between uses which follow each other closely; for one user at a time."""

    def __init__(self, acquire: Acquire, release: Release) -> None:
        self._acquire = acquire
        self._release = release
        self._connection: Pooled | None = None
        self._taken = self._used = 0.0  # monotonic
        self._in_use = False
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Pooled:
        """The one that is kept, or another one of the pool. Raises DatabaseError."""
        if self._connection is not None and (monotonic() - self._taken > MOST or _is_lost(self._connection)):
            await self.let_go()
        if self._connection is None:
            self._connection = await self._acquire()
            self._taken = monotonic()
            self._keeper = asyncio.create_task(self._keep(), name="enqueue connection")
        self._in_use = True
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        self._in_use = False
        self._used = monotonic()

    async def let_go(self) -> None:
        """Give it back to the pool."""
        connection, self._connection = self._connection, None
        if self._keeper is not None and self._keeper is not asyncio.current_task():
            self._keeper.cancel()
        if connection is not None:
            await self._release(connection)

    async def _keep(self) -> None:
        await asyncio.sleep(LINGER)
        if self._in_use or monotonic() < self._used + LINGER:
            self._keeper = asyncio.create_task(self._keep(), name="enqueue connection")
        else:
            await self.let_go()


def _is_lost(connection: Pooled) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # its session has ended, and the pool has taken it back
        return True
