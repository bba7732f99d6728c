"""The lease thread: keeps the node alive for the others, and watches the main loop.

It has a loop and a connection of its own, so that a busy main loop does not look dead. A daemon does not work without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

import asyncpg
import psutil
import uvloop

from workerd.aio import Backoff
from workerd.error_text import message_of
from workerd.errors import DatabaseError, TokenRefused
from workerd.queue import node
from workerd.queue.database import CONNECT_TIMEOUT, CONNECTION_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable

    from workerd.daemon.loop_watch import LoopWatch
    from workerd.daemon.transport.base import Presence, Transport
    from workerd.queue.node import Figures, Registration

LOCK_PATIENCE = 0.2  # seconds between two tries for a lock that the server has not taken from the old connection yet

log = logging.getLogger(__name__)


class LeaseThread(threading.Thread):
    """Registers the node, holds its lock and beats.

    `on_reborn(id)` is called in this thread when the node had been declared dead and is registered anew under another id.
    """

    def __init__(
        self,
        transport: Transport,
        about: Registration,
        figures: Figures,
        node_id: int,
        on_reborn: Callable[[int], None],
        loop_watch: LoopWatch,
    ) -> None:
        super().__init__(name="lease", daemon=True)
        self._transport = transport
        self._about = about
        self._figures = figures
        self._on_reborn = on_reborn
        self._loop_watch = loop_watch
        self._process = psutil.Process()
        self._node = node_id
        self._registered: Future[None] = Future()
        self._schema = threading.Event()  # set when there is a schema to register in, or nothing to wait for any more
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending = asyncio.Event()
        self._cut = asyncio.Event()
        self._hurry = asyncio.Event()
        self._leaving = False
        self._backoff = Backoff(2.0)
        self._met = False  # the database has let us in once
        # Others declare us dead after three heartbeats: a connection that has died in silence has to be replaced before.
        self._limit = min(max(about.heartbeat * 0.6, 0.5), 4.0)  # seconds for each query

    async def register(self) -> None:
        """Returns when the started thread, which has connected meanwhile, has registered the node. Raises DatabaseError when it cannot."""
        self._schema.set()
        await asyncio.wrap_future(self._registered)

    def leave(self) -> None:
        """Deregister and end the thread; the node must hold nothing any more."""
        self._leaving = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the thread has ended already
                self._loop.call_soon_threadsafe(self._ending.set)
        self._schema.set()

    def beat_now(self) -> None:
        """Beat at once; callable from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._hurry.set)

    def run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._main())
        except BaseException:  # nobody would see it here, and nobody beat any more
            log.critical("the lease thread ends by an error of its own, and so does the daemon", exc_info=True)
            os._exit(1)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._loop_watch.run(self._hurry.set), name="loop watch")
            await self._live()
            watching.cancel()

    async def _live(self) -> None:
        """Until told to leave, or until the start has failed."""
        while not self._ending.is_set():
            try:
                presence = await self._connect()
                try:
                    await self._keep(presence)
                finally:
                    presence.terminate()
            except Exception as error:  # whatever it is, nothing but the next beat can make it good
                known = isinstance(error, (DatabaseError, *CONNECTION_ERRORS))
                hopeless = not (self._met and known) or isinstance(error, TokenRefused)
                if not self._registered.done() and hopeless:
                    self._registered.set_exception(error)
                    return
                surprise = None if known or isinstance(error, asyncpg.PostgresError) else error
                pause = self._backoff.next()
                log.warning("heartbeat: %s; again in %.1f s", message_of(error), pause, exc_info=surprise)
                self._cut.clear()
                self._hurry.clear()
                await self._pause(pause)

    async def _connect(self) -> Presence:
        patience = self._limit if self._registered.done() else CONNECT_TIMEOUT
        presence = await self._transport.presence(self._about.name, patience, self._limit)
        self._met = True
        return presence

    async def _beat(self, presence: Presence) -> bool:
        """Beat; False when the node was declared dead."""
        self._figures.rss, self._figures.lag = self._process.memory_info().rss, self._loop_watch.lag
        return await presence.beat(self._node, self._figures)

    async def _keep(self, presence: Presence) -> None:
        """Hold the lock and beat until told to leave or the connection is lost."""
        self._cut.clear()
        presence.on_lost(self._cut.set)
        if not self._registered.done():
            await asyncio.to_thread(self._schema.wait)
            if self._leaving:
                return
            await self._enter(presence)
            self._registered.set_result(None)
        else:
            await self._lock(presence)
        while not self._ending.is_set():
            self._hurry.clear()
            if not await self._beat(presence):
                await self._begin_anew(presence)
            self._backoff.reset()
            await self._pause(self._about.heartbeat)
            if self._cut.is_set():
                raise ConnectionError("the connection was closed")
        if self._leaving:
            await presence.leave(self._node, self._figures)

    async def _enter(self, presence: Presence) -> None:
        await self._lock(presence)
        await presence.register(self._node, self._about, self._figures.workers)

    async def _begin_anew(self, presence: Presence) -> None:
        log.error("this node was declared dead: its jobs are run elsewhere; it registers anew")
        await presence.unlock()
        self._node = node.new_id()
        await self._enter(presence)
        self._on_reborn(self._node)

    async def _lock(self, presence: Presence) -> None:
        while not await presence.lock(self._node):
            # the server still holds it for the connection that was lost: our beat shows meanwhile that we live
            await self._beat(presence)
            await self._pause(LOCK_PATIENCE)

    async def _pause(self, seconds: float) -> None:
        """Sleep, but not past a stop, the loss of the connection or a call to hurry."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self._ending, self._cut, self._hurry)]
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
