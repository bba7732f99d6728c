"""Who listens to the ends of attempts, each in a line of its own: nobody waits for them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from workerd import handler
from workerd.daemon import current, guest
from workerd.ended import Ended, listeners
from workerd.error_text import line_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from workerd.ended import How
    from workerd.outcomes import Ending
    from workerd.queue.finish import Finished

LIMIT = 60.0  # seconds that a listener may take for one end
LONGEST = 10_000  # ends that may wait for one listener: later ones are dropped
LAST = 10.0  # seconds for those that still wait when the daemon stops

_HOW: dict[Ending, How] = {
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
    "returned": "returned",
    "retry": "retried",
    "snooze": "snoozed",
}

log = logging.getLogger(__name__)


class Listeners:
    """Those that were registered by `on_end`."""

    def __init__(self) -> None:
        self._lines = [Line(fn, how) for fn, how in listeners.items()]

    def __bool__(self) -> bool:
        return bool(self._lines)

    def tell(self, end: Finished, ending: Ending) -> None:
        """Of an attempt whose end is written. Returns at once."""
        how = _HOW[ending]
        wanting = [line for line in self._lines if how in line.how]
        if wanting:
            job, outcome = end.job, end.outcome
            told = Ended(
                how, job.id, job.task, job.lane.queue, job.attempt, end.ran, outcome.error, outcome.delay, job.payload
            )
            for line in wanting:
                line.put(told)

    def start(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """The tasks in which they are called."""
        return [group.create_task(line.run(), name=f"listener {line.name}") for line in self._lines]

    async def settle(self) -> None:
        """Returns when all have been told, or when there is no time left for that."""
        if self._lines:
            waits = [asyncio.ensure_future(line.empty()) for line in self._lines]
            await asyncio.wait(waits, timeout=LAST)
            for line, waiting in zip(self._lines, waits, strict=True):
                if waiting.cancel():
                    log.error(
                        "the listener %s does not come to an end: %s ends are not told to it", line.name, len(line)
                    )


class Line:
    """The ends that one listener has not been told yet."""

    def __init__(self, fn: Callable[[Ended], Any], how: frozenset[str]) -> None:
        self.how = how
        self.name = handler.place(fn)[1]
        self._fn = fn
        self._waiting: asyncio.Queue[Ended] = asyncio.Queue(LONGEST)
        self._dropped = 0

    def __len__(self) -> int:
        return self._waiting.qsize()

    def put(self, told: Ended) -> None:
        if not self._waiting.full():
            self._waiting.put_nowait(told)
            return
        if not self._dropped:
            log.error(
                "the listener %s is %s ends behind: until it has caught up, others are dropped", self.name, LONGEST
            )
        self._dropped += 1

    async def run(self) -> None:
        while True:
            told = await self._waiting.get()
            current.attempt.set((told.job_id, told.task, told.attempt))
            error = await guest.trouble(guest.call(self._fn, told), LIMIT)
            if error is not None:
                log.error("the listener %s failed: %s", self.name, line_of(error), exc_info=error)
            self._waiting.task_done()
            if self._dropped and self._waiting.empty():
                log.warning("the listener %s has caught up, %s ends were dropped", self.name, self._dropped)
                self._dropped = 0

    async def empty(self) -> None:
        await self._waiting.join()
