"""The pool of a queue: connections for one event loop."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import asyncpg

from workerd.errors import DatabaseError
from workerd.queue.database import COMMAND_TIMEOUT, CONNECTION_ERRORS, POOLED, connect_options, explain, open_any
from workerd.queue.own_transaction import again, transaction
from workerd.queue.sockets import end_orphans

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from asyncpg.pool import PoolConnectionProxy

    from workerd.job import AnyConnection

    Pooled = PoolConnectionProxy[asyncpg.Record]

R = TypeVar("R")

CLOSED = "this queue was closed: open another one with Queue.connect()"
OTHER_LOOP = (
    "this queue belongs to another event loop: open one in each loop with Queue.connect(), "
    "use task.enqueue, or a SyncQueue, which any thread may use"
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """Where the connections lead, and how many there are. Times are in seconds."""

    dsn: str
    size: int = 10
    acquire_timeout: float = 30.0
    idle_limit: float = 300.0
    pooled: bool = False
    name: str = "worker client"
    claims: bool = False


class Pool:
    """Opened in the loop that uses it first."""

    def __init__(self, options: PoolOptions) -> None:
        self.options = options
        self.loop: asyncio.AbstractEventLoop | None = None
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self.closed = False

    async def open(self) -> None:
        """Try a connection. Raises DatabaseError when the database cannot be reached."""
        try:
            pool = await self._here()
            async with pool.acquire():
                pass
        except BaseException as error:
            self.terminate()
            if isinstance(error, (*CONNECTION_ERRORS, asyncpg.PostgresError, ValueError, OverflowError)):
                raise DatabaseError(explain(self.options.dsn, error, pooler=POOLED)) from error
            raise

    async def acquire(self) -> Pooled:
        """A connection, to be given back by `release`. Raises DatabaseError when none can be had in time."""
        pool = await self._here()
        try:
            return await pool.acquire(timeout=self.options.acquire_timeout)
        except TimeoutError as error:
            raise DatabaseError(
                f"no database connection was free within {self.options.acquire_timeout:g} s: raise DATABASE_POOL_SIZE"
            ) from error
        except (*CONNECTION_ERRORS, asyncpg.PostgresError) as error:
            raise DatabaseError(CLOSED if self.closed else f"the database cannot be reached: {error}") from error

    async def release(self, connection: Pooled) -> None:
        """Give a connection back. What it was used for is done: that its session has ended meanwhile is no error of its user."""
        try:
            assert self._pool is not None
            await self._pool.release(connection)
        except Exception as error:  # noqa: BLE001 - whatever it is, the pool drops the connection
            log.debug("a connection was dropped when it was given back: %s", error)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AnyConnection]:
        """A connection for the block. Raises as `acquire`."""
        acquired = await self.acquire()
        try:
            yield acquired
        finally:
            await self.release(acquired)

    async def run(self, work: Callable[[AnyConnection], Awaitable[R]]) -> R:
        """What `work`, which is one statement or transaction, returns; again where another transaction was in the way."""

        async def once() -> R:
            async with self.connection() as own:
                return await work(own)

        return await again(once)

    async def in_transaction(self, work: Callable[[AnyConnection], Awaitable[R]]) -> R:
        """As `run`, in a transaction of its own."""

        async def once() -> R:
            async with self.connection() as own, transaction(own):
                return await work(own)

        return await again(once)

    async def close(self) -> None:
        """Close all connections, waiting for those in use."""
        if self.closed:
            return
        if self.loop is not asyncio.get_running_loop():
            self.terminate()
            return
        self.closed = True
        assert self._pool is not None
        try:
            await self._pool.close()
        except Exception as error:  # noqa: BLE001 - the pool has dropped them then
            log.debug("connections were dropped when they were to be closed: %s", error)

    def terminate(self) -> None:
        """Drop all connections at once, also those in use."""
        self.closed = True
        if self.loop is not None and self.loop.is_closed():
            end_orphans()
        elif self._pool is not None:
            self._pool.terminate()

    async def expire(self) -> None:
        """Let each connection be replaced before its next use."""
        if self._pool is not None:
            await self._pool.expire_connections()

    async def _here(self) -> asyncpg.Pool[asyncpg.Record]:
        """The pool of asyncpg, made by who comes first; it connects when somebody needs a connection."""
        loop = asyncio.get_running_loop()
        if self._pool is not None and self.loop is loop:
            return self._pool
        if self.closed:
            raise DatabaseError(CLOSED)
        if self.loop is not None:
            raise DatabaseError(OTHER_LOOP)
        options = self.options
        pool = asyncpg.create_pool(
            options.dsn,
            connect=open_any,
            min_size=0,
            max_size=options.size,
            command_timeout=COMMAND_TIMEOUT,
            timeout=10,
            max_inactive_connection_lifetime=options.idle_limit,
            **connect_options(options.name, pooled=options.pooled, claims=options.claims),
        )
        await pool  # which waits for nothing, so nobody comes in between
        self.loop, self._pool = loop, pool
        return pool
