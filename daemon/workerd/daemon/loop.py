"""The daemon's event loop: handlers cannot end it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import TYPE_CHECKING, Any

import uvloop

from workerd.daemon import current, forks

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextvars import Context

    from workerd.daemon.current import Attempt

CLOSING = 5.0  # seconds that asyncio tasks which handlers have left behind may take to end
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)  # what the daemon handles

_call_soon = uvloop.Loop.call_soon
_call_soon_threadsafe = uvloop.Loop.call_soon_threadsafe
_call_later = uvloop.Loop.call_later

log = logging.getLogger(__name__)


class Loop(uvloop.Loop):
    """Tells `on_exit` of SystemExit and KeyboardInterrupt in what an attempt has started: tasks and callbacks.

    asyncio ends the loop by them, and with it whatever else runs there.
    """

    on_exit: Callable[[Attempt, BaseException], None] | None = None

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        attempt = current.attempt.get() if context is None else context.get(current.attempt)
        if attempt is None:
            return _call_soon(self, callback, *args, context=context)
        return _call_soon(self, self._guarded, attempt, callback, args, context=context)

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        attempt = current.attempt.get() if context is None else context.get(current.attempt)
        if attempt is None:
            return _call_soon_threadsafe(self, callback, *args, context=context)
        return _call_soon_threadsafe(self, self._guarded, attempt, callback, args, context=context)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        attempt = current.attempt.get() if context is None else context.get(current.attempt)
        if attempt is None:
            return _call_later(self, delay, callback, *args, context=context)
        return _call_later(self, delay, self._guarded, attempt, callback, args, context=context)

    def _guarded(self, attempt: Attempt, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            callback(*args)
        except (SystemExit, KeyboardInterrupt) as error:
            if self.on_exit is None:
                raise
            self.on_exit(attempt, error)


def run(main: Coroutine[Any, Any, None], *in_forks: Callable[[], object]) -> None:
    """Run `main` on such a loop, to its end. `in_forks`: what a process that a handler forks has to do first."""
    loop = Loop()
    asyncio.set_event_loop(loop)
    forks.become_ordinary_after(SIGNALS, loop.stop, *in_forks)  # no fork goes on with it
    try:
        _run_to_the_end(loop, loop.create_task(main, name="daemon"))
    finally:
        _close(loop)


def _run_to_the_end(loop: Loop, main: asyncio.Task[None]) -> None:
    """Go on where something that belongs to no attempt ends the loop: a task of a resource, a protocol's callback."""
    before = signal.getsignal(signal.SIGTERM)
    while True:
        try:
            return loop.run_until_complete(main)
        except (SystemExit, KeyboardInterrupt):
            if main.done() or signal.getsignal(signal.SIGTERM) == before:  # it is the daemon itself that is told to end
                raise
            log.exception("a task or callback of no job tried to end the daemon, which goes on")
        except RuntimeError:
            if forks.forked:
                os._exit(0)
            raise


def _close(loop: Loop) -> None:
    """Unlike `asyncio.Runner` does it: neither tasks nor threads that handlers have left behind keep it."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left, timeout=CLOSING))
    loop.run_until_complete(loop.shutdown_asyncgens())
    asyncio.set_event_loop(None)
    loop.close()
