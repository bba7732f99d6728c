"""The loop watch: sees from another thread whether the main loop turns, and says what keeps it from turning."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import traceback
from time import monotonic
from typing import TYPE_CHECKING

from workerd.daemon import crash_dump, debugger, logs
from workerd.daemon.clocks import Clock

if TYPE_CHECKING:
    from collections.abc import Callable

TICK = 0.25  # seconds between two looks
WARN = 1.0  # seconds without a turn from which on it is reported
RISING = 4  # how many times longer the loop has to stand still for each further report
SUSPENDED = 1.0  # seconds beyond a tick from which on this process counts as having been suspended
HELD = 5.0  # seconds beyond the limit for which the whole interpreter may stand still, this watch too
LAST_WORDS = 2.0  # seconds that the last log record may take: whoever stands still may hold the log's lock

log = logging.getLogger(__name__)


class LoopWatch:
    """Watches the loop and thread in which it is made, from the loop in which it runs.

    A loop that stands still for `limit` seconds ends the process: its supervisor starts another one. So does, a little later, a call
    into C that holds the interpreter, as a pattern that backtracks for ever.
    """

    def __init__(self, limit: float, on_held: Callable[[], None] = lambda: None) -> None:
        """`on_held` is called on the loop when it has stood at a debugger's prompt."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._limit = limit
        self._on_held = on_held
        self._held = False
        self._renew_at = 0.0  # monotonic
        self._asked_at: float | None = None  # monotonic; None: it has answered
        self.looked_at = monotonic()  # for whoever watches this one
        self.lag = 0.0  # seconds that the loop took to answer last, or has taken until now

    async def run(self, on_suspended: Callable[[], None]) -> None:
        """Watch until the loop is closed or this is cancelled; `on_suspended` is called when the process ran not at all for a while."""
        try:
            await self._watch(on_suspended)
        finally:
            crash_dump.expect_no_more()

    async def _watch(self, on_suspended: Callable[[], None]) -> None:
        clock = Clock()
        stalled, report_at = 0.0, WARN  # seconds, of those in which this process was awake
        while not self._loop.is_closed():
            if self._asked_at is None:
                if stalled >= WARN:
                    crash_dump.disarm()
                stalled, report_at = 0.0, WARN
                self._asked_at = monotonic()
                try:
                    self._loop.call_soon_threadsafe(self._answer)
                except RuntimeError:  # closed just now
                    return
            self._renew()
            await asyncio.sleep(TICK)
            self.looked_at = monotonic()
            elapsed = clock.elapsed()
            if elapsed > TICK + SUSPENDED:
                log.warning("this process did not run for %.1f s: suspended, or kept from the CPU", elapsed - TICK)
                on_suspended()
            if self._asked_at is not None and debugger.holds(self._thread):
                self._held = True
            elif self._asked_at is not None:
                stalled += min(elapsed, 2 * TICK)
                self.lag = stalled
                if stalled >= self._limit:
                    self._give_up(stalled)
                if stalled >= report_at:
                    crash_dump.arm()
                    report_at *= RISING
                    self._report(stalled)

    def _renew(self) -> None:
        """Say that the interpreter runs; about once a second, since each time starts a thread."""
        if monotonic() < self._renew_at:
            return
        self._renew_at = monotonic() + WARN
        if debugger.stops_all():
            crash_dump.expect_no_more()
        else:
            crash_dump.expect(self._limit + HELD)

    def _answer(self) -> None:
        if self._asked_at is not None:
            self.lag = monotonic() - self._asked_at
            self._asked_at = None
        if self._held:
            self._held = False
            self._on_held()

    def _report(self, stalled: float) -> None:
        frame = sys._current_frames().get(self._thread)
        stack = "".join(traceback.format_stack(frame))
        _say(logging.WARNING, f"the loop stands still since {stalled:.1f} s, all jobs wait for:\n{stack}")

    def _give_up(self, stalled: float) -> None:
        """End this process without a word to the database: others see that it has died, and take its jobs."""
        crash_dump.dump()
        text = f"the loop stands still since {stalled:.0f} s (STALL_LIMIT): this process ends, its jobs run elsewhere"
        _say(logging.CRITICAL, f"{text}; {logs.stacks(self._loop)}").join(LAST_WORDS)
        os._exit(1)


def _say(level: int, text: str) -> threading.Thread:
    """Log in a thread of its own, which may have to wait."""
    saying = threading.Thread(
        target=log.log, args=(level, "%s", text), kwargs={"extra": {"stall": True}}, name="loop watch", daemon=True
    )
    saying.start()
    return saying
