"""Threads in which `def` handlers run: one each, so that one that never returns costs no other job its place."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any

from workerd.daemon import debugger
from workerd.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from workerd.daemon.run import Run

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
            run.claimed.id, run.claimed.task, took, len(self.left),
        )  # fmt: skip


async def in_thread(name: str, fn: Callable[[], Any], on_return: Callable[[], None] = lambda: None) -> Any:
    """What it returns or raises in a thread of its own. Cancelled, the thread goes on; `on_return` is called on the loop when it ends."""
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

    def work() -> None:
        result, error = _outcome(fn)
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=contextvars.copy_context().run, args=(work,), name=name, daemon=True).start()
    return await done


def _outcome(handler: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    try:
        return handler(), None
    except StopIteration:  # no future can carry it
        return None, RuntimeError("the handler raised StopIteration")
    except BaseException as error:  # noqa: BLE001 - it is carried to the loop, whatever it is
        return None, error
