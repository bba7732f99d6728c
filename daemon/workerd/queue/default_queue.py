"""The default queue, which `task.enqueue` uses: the daemon's own or a test's, else that of the settings; one for each event loop."""

from __future__ import annotations

import asyncio
import os
from contextvars import Context
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workerd.queue.client import Queue
from workerd.queue.sockets import end_orphans

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

CLOSE_LIMIT = 5.0  # seconds that the end of a loop waits for what is in use


@dataclass(slots=True, eq=False)
class _Opened:
    """The default queue of a loop. `of`: the one that was set, of which it is another; None: it is that of the settings."""

    of: Queue | None
    queue: asyncio.Task[Queue] | None = None
    closing: AsyncGenerator[None, None] | None = None


_set: Queue | None = None
_opened: dict[asyncio.AbstractEventLoop, _Opened] = {}
_left: list[_Opened] = []  # of the parent, never to be collected: that would work on its loop


async def default() -> Queue:
    """The default queue for the loop that runs, opened by the first call. Raises DatabaseError, ConfigError."""
    loop = asyncio.get_running_loop()
    if _set is not None and _set.loop is loop:
        return _set
    found = _opened.get(loop)
    if found is None or found.of is not _set:
        before, found = found, _Opened(_set)
        _opened[loop] = found
        # a task of its own, so that a caller who is cancelled takes it from nobody, and no job's context stays with it
        found.queue = loop.create_task(_open(loop, found, before), name="default queue", context=Context())
    assert found.queue is not None
    return found.queue.result() if found.queue.done() else await asyncio.shield(found.queue)


async def open_default() -> Queue:
    """The default queue for the loop that runs, with connections that are the caller's to close."""
    return await (Queue.connect() if _set is None else _set.elsewhere())


def current() -> Queue | None:
    """The queue that was set; None: the default is that of the settings."""
    return _set


def set_default(queue: Queue | None) -> Queue | None:
    """Make `queue` the default of this process; returns the one that it was. Other loops than its own get another of it."""
    global _set
    before, _set = _set, queue
    return before


async def _open(loop: asyncio.AbstractEventLoop, opened: _Opened, before: _Opened | None) -> Queue:
    _forget_closed_loops()
    try:
        if before is not None and before.closing is not None:
            await before.closing.aclose()
        queue = await open_default()
    except BaseException:
        if _opened.get(loop) is opened:  # the next call tries again
            del _opened[loop]
        raise
    opened.closing = _closed_at_the_end(loop, opened, queue)
    await anext(opened.closing)
    return queue


async def _closed_at_the_end(
    loop: asyncio.AbstractEventLoop, opened: _Opened, queue: Queue
) -> AsyncGenerator[None, None]:
    """`asyncio.run`, and whoever else ends a loop in good order, closes the generators of the loop first, and so the queue."""
    try:
        yield
    finally:
        if _opened.get(loop) is opened:
            del _opened[loop]
        try:
            await asyncio.wait_for(queue.close(), CLOSE_LIMIT)
        except TimeoutError:
            queue.terminate()


def _forget_closed_loops() -> None:
    """Those that were closed without that."""
    for loop in list(_opened):
        if loop.is_closed():
            del _opened[loop]
    end_orphans()


def _begin_again() -> None:
    """In a forked child: its loops open queues of their own."""
    _left.extend(_opened.values())
    _opened.clear()


os.register_at_fork(after_in_child=_begin_again)
