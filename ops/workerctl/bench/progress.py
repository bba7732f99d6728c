"""Waiting until daemons have done their jobs."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from workerd.errors import WorkerdError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workerctl.bench.daemon import Daemon

POLL = 0.01  # seconds between two questions: seldom enough to cost the daemon nothing
STALL = 60.0  # seconds without any job done, after which we give up


async def all_done(daemons: Sequence[Daemon], jobs: int) -> float:
    """Return, when the daemons have done so many jobs together, at which monotonic second that was.

    Raises WorkerdError when they stand still or did more: then a job ran twice.
    """
    done, moved = 0, time.monotonic()
    while done < jobs:
        await asyncio.sleep(POLL)
        before, done = done, sum(daemon.done() for daemon in daemons)
        now = time.monotonic()
        if done > before:
            moved = now
        elif now - moved > STALL:
            raise WorkerdError(f"nothing happened for {STALL:.0f} s after {done:,} of {jobs:,} jobs")
    if done > jobs:
        raise WorkerdError(f"{jobs:,} jobs were done {done:,} times")
    return moved
