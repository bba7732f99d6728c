"""A connection that single enqueues keep from the pool for a moment."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

import asyncpg

if TYPE_CHECKING:
    from workerd.queue.pool import Pool, Pooled

LINGER = 0.05  # seconds that it is kept for the next call: taking it from the pool and back costs as much as an enqueue
MOST = 1.0  # seconds for which it is kept from others in the pool


class KeptConnection:
    """A connection of the pool that is kept between uses which follow each other closely; for one user at a time."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._connection: Pooled | None = None
        self._taken = self._used = 0.0  # monotonic
        self._in_use = False
        self._timer: asyncio.TimerHandle | None = None
        self._returning: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Pooled:
        """The one that is kept, or another one of the pool. Raises DatabaseError."""
        if self._connection is not None and (monotonic() - self._taken > MOST or _is_lost(self._connection)):
            await self.let_go()
        if self._connection is None:
            self._connection = await self._pool.acquire()
            self._taken = monotonic()
            self._timer = asyncio.get_running_loop().call_later(LINGER, self._look)
        self._in_use = True
        return self._connection

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._in_use = False
        self._used = monotonic()
        if kind is asyncio.CancelledError:  # the server is still being told so: nobody else is to wait for that
            self._give_back()

    async def let_go(self) -> None:
        """Give it back to the pool."""
        self._give_back()
        if self._returning:
            await asyncio.wait(self._returning)

    def _give_back(self) -> None:
        """Begin to; from now on nobody gets this one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            assert self._timer is not None
            self._timer.cancel()
            returning = asyncio.create_task(self._pool.release(connection), name="enqueue connection")
            self._returning.add(returning)
            returning.add_done_callback(self._returning.discard)

    def _look(self) -> None:
        """A timer, since tasks can be cancelled by others: then the connection would be kept for ever."""
        if self._in_use or monotonic() < self._used + LINGER:
            self._timer = asyncio.get_running_loop().call_later(LINGER, self._look)
        else:
            self._give_back()


def _is_lost(connection: Pooled) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:  # its session has ended, and the pool has taken it back
        return True
