"""Threads in which `def` handlers run.

A run gets a thread that is idle, else a new one: one that never returns costs no other job its place. Threads are used again since
applications keep things for a thread, as connections to a database: a new one for each job would leave them behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
import queue
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any

from workerd.daemon import debugger, django_connections
from workerd.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from workerd.daemon.run import Run

IDLE = "idle"
IDLE_LIMIT = 60.0  # seconds

log = logging.getLogger(__name__)


class Threads:
    """Starts them, and knows those that go on although their job has ended: a thread cannot be stopped."""

    def __init__(self) -> None:
        self.left: set[Run] = set()
        self._idents: dict[Run, int] = {}

    async def call(self, run: Run, handler: Callable[[], Any]) -> Any:
        """What the handler returns or raises. Cancelled, its thread goes on and is counted in `left`."""
        settled = False

        def on_return() -> None:
            nonlocal settled
            settled = True
            if run in self.left:
                self._return_late(run)

        def work() -> Any:
            self._idents[run] = threading.get_ident()
            try:
                return handler()
            finally:
                del self._idents[run]

        try:
            return await in_thread(f"handler {run.claimed.task}", work, on_return)
        except asyncio.CancelledError:
            if not settled:
                self.left.add(run)
                log.warning(
                    "job %s %s was told to end, its thread goes on until it returns", run.claimed.id, run.claimed.task
                )
            raise

    def held(self, run: Run) -> bool:
        """Whether its thread stands at a debugger's prompt."""
        return debugger.holds(self._idents.get(run))

    def _return_late(self, run: Run) -> None:
        self.left.discard(run)
        took = format_duration(monotonic() - run.started)
        log.warning(
            "job %s %s: its thread has returned after %s, %s still go on",
            run.claimed.id,
            run.claimed.task,
            took,
            len(self.left),
        )


async def in_thread(name: str, fn: Callable[[], Any], on_return: Callable[[], None] = lambda: None) -> Any:
    """What it returns or raises in another thread, in a copy of this context. Cancelled, it goes on there; `on_return` is called on the
    loop when it ends.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        on_return()
        if done.done():
            pass  # it was cancelled
        elif error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    def work() -> Callable[[], None]:
        result, error = context.run(_outcome, fn)

        def answer() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(settle, result, error)

        return answer

    context = contextvars.copy_context()
    _idle_thread().take(name, work)
    return await done


class _Thread(threading.Thread):
    """Does one piece of work after another, and answers; ends when it has had none for a while."""

    def __init__(self) -> None:
        super().__init__(name=IDLE, daemon=True)
        self._work: queue.SimpleQueue[tuple[str, Callable[[], Callable[[], None]]]] = queue.SimpleQueue()

    def take(self, name: str, work: Callable[[], Callable[[], None]]) -> None:
        self._work.put((name, work))

    def run(self) -> None:
        while self._do_one():
            pass

    def _do_one(self) -> bool:
        """Whether to go on. Its locals end with it: an idle thread holds on to nothing of a job."""
        try:
            self.name, work = self._work.get(timeout=IDLE_LIMIT)
        except queue.Empty:
            with contextlib.suppress(ValueError):  # it has just been taken: there is work after all
                _idle.remove(self)
                return False
            return True
        answer = work()
        self.name = IDLE
        _idle.append(self)  # before the answer, after which the next piece of work may come at once
        answer()
        return True


_idle: list[_Thread] = []  # the one that worked last is the first to work again
os.register_at_fork(after_in_child=_idle.clear)  # there they do not run


def _idle_thread() -> _Thread:
    try:
        return _idle.pop()
    except IndexError:
        thread = _Thread()
        thread.start()
        return thread


def _outcome(handler: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        with django_connections.around():
            return handler(), None
    except StopIteration:  # no future can carry it
        return None, RuntimeError("the handler raised StopIteration")
    except BaseException as error:  # noqa: BLE001 - it is carried to the loop, whatever it is
        return None, error
