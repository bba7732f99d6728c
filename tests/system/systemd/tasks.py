"""Tasks that a daemon under systemd runs; they import `workerd` alone."""

from __future__ import annotations

import asyncio
import time

from workerd import Job, Retry, task


@task
async def nap(seconds: float) -> None:
    await asyncio.sleep(seconds)


@task
async def echo(value: str) -> str:
    return value


@task
async def hang_at_first(*, job: Job) -> int:
    """Its first attempt blocks the loop for ever."""
    while job.attempt == 1:
        time.sleep(1)  # noqa: ASYNC251 - as handlers do
    return job.attempt


def _hoard(megabytes: int) -> int:
    return len(bytes(1024**2 * megabytes).replace(b"\0", b"x"))  # written: it is resident


@task(cpu=True, retry=Retry(max=0))
def hoard_in_child(megabytes: int) -> int:
    return _hoard(megabytes)


@task
async def hoard_on_loop(megabytes: int) -> int:
    return _hoard(megabytes)
