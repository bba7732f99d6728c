"""Tasks whose failures another one is told of."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import Any

from tests.handlers import go_on
from workerd import Discard, Retry, Snooze, task


@task(queue="notices", priority=3)
async def told(job_id: int, task: str, payload: Any, error: str, attempt: int) -> int:
    return job_id


@task(on_failure=told, timeout=0.2, retry=Retry(max=1, interval=0.01))
async def ending(how: str, n: Any = 0) -> str:
    """Ends in one of many ways."""
    match how:
        case "raise":
            raise ValueError(f"order {n} is wrong")
        case "discard":
            raise Discard("no such order")
        case "large error":
            raise Discard("\x01" * 500_000)
        case "timeout" | "cancelled":
            await asyncio.sleep(60)
        case "deaf":
            while not go_on[n].is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await go_on[n].wait()
        case "snooze once" if not snoozed:
            snoozed.append(n)
            raise Snooze(0.01)
    return how


snoozed: list[Any] = []


@task(on_failure="told", cpu=True, retry=0)
def dying_child() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@task(on_failure="told")
async def deadly_and_told() -> None:
    """Takes its daemon with it."""
    os._exit(1)


@task(on_failure=told, retry=Retry(max=1, interval=0))
async def told_failing(n: int) -> None:
    await asyncio.sleep(0.01)
    raise ValueError(f"order {n} is wrong")


@task(queue="second notices")
async def told_in_the_end(job_id: int, task: str, payload: Any, error: str, attempt: int) -> int:
    return job_id


@task(on_failure=told_in_the_end, retry=0)
async def telling_fails(**failure: Any) -> None:
    raise RuntimeError("nobody answers")


@task(on_failure=telling_fails, retry=0)
async def failing_twice() -> None:
    raise ValueError("the first one")
