"""Results of jobs: waited for by looking again and again, with longer and longer pauses."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from workerd.errors import JobFailed, NotFound
from workerd.units import Duration, parse_duration

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Look = Callable[[], Awaitable[tuple[str, Any, str | None]]]

FINAL = ("succeeded", "failed", "cancelled")
LONGEST = 0.5  # seconds of a pause


async def wait(job_id: int, look: Look, pause: float, timeout: Duration | None) -> Any:
    """The result of a job as soon as it is final. `look` returns its state, result and error; `pause`: seconds of the first one.

    Raises JobFailed when it failed or was cancelled, TimeoutError after `timeout`, and what `look` raises.
    """
    async with asyncio.timeout(None if timeout is None else parse_duration(timeout)):
        while True:
            state, result, error = await look()
            if state in FINAL:
                break
            await asyncio.sleep(pause)
            pause = min(pause * 1.3, LONGEST)
    if state != "succeeded":
        raise JobFailed(f"job {job_id} {state}: {(error or 'no reason given').splitlines()[0]}")
    return result


def missing(job_id: int) -> NotFound:
    """The error for a job of which there is no result."""
    return NotFound(f"there is no job {job_id} (never enqueued, or its result is not kept any more)")
